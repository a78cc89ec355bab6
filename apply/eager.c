#include "apply/eager.h"

#include "core/eager.h"
#include "core/kill_point.h"
#include "core/log.h"
#include "core/ring.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Parts between dispatcher and worker: those of one transaction that the reader gives at once, and
 * of some before it that were given up. */
#define PARTS_CAPACITY 64
/* See is_too_old: where an update of the progress row takes about three times as long. */
#define MOST_COMMITS 30000
/* How often that is looked at, without another reason to wake. */
#define LOOK_AGAIN_MS 500

/* What the batch's worker asks for, on its stack until it is answered. */
typedef struct order {
    pen_parker *parker;
    const pen_txn *txn; /* the Commit */
    pen_lsn previous_commit_lsn;
    /* the answer */
    pen_cell answered; /* 1: what follows is there */
    bool committed;
    pen_failure failure;
    pen_error err;
} order;

struct pen_eager_worker {
    pen_stream *stream;
    pen_parker parker;
    pen_thread thread;
    int backend_pid;
    pen_sender sender;
    pen_plan *plan;
    pen_cell open_number; /* of the transaction that is open on the target; 0 for none */
    pen_eager *open;      /* the same, with a reference; or NULL */
    uint64_t opened_at;   /* batches that had committed then */
    pen_txn *waiting;     /* a part that was taken and may not be applied yet; or NULL */
    /* dispatcher writes */
    PEN_ALIGNED pen_ring parts;
    /* reader writes */
    PEN_ALIGNED pen_cell awaited; /* 1: all that comes behind it waits for it */
    /* the batch's worker writes */
    PEN_ALIGNED pen_place order;
    pen_cell batch; /* the number of the batch that is to commit, 0 for none */
    /* the watchdog writes */
    PEN_ALIGNED pen_cell let_go; /* number of a transaction that an earlier batch waits for */
    /* anybody writes */
    pen_cell stop; /* 1: it is to end */
};

bool pen_eager_worker_create(pen_stream *stream, pen_pgconn *conn, pen_eager_worker **made,
                             pen_error *err)
{
    pen_eager_worker *eager = pen_alloc_lines(sizeof(*eager));
    *eager = (pen_eager_worker){.stream = stream, .plan = pen_plan_create()};
    eager->parker.event_fd = -1;
    pen_ring_init(&eager->parts, PARTS_CAPACITY);
    pen_place_init(&eager->order);
    pen_cell_init(&eager->open_number, 0);
    pen_cell_init(&eager->awaited, 0);
    pen_cell_init(&eager->batch, 0);
    pen_cell_init(&eager->let_go, 0);
    pen_cell_init(&eager->stop, 0);
    int64_t trip_us;
    *made = NULL;
    if (!pen_parker_init(&eager->parker, err) ||
        !pen_worker_identify(conn, &eager->backend_pid, &trip_us, err)) {
        pen_pgconn_close(conn); /* which no sender has taken yet */
        pen_eager_worker_destroy(eager);
        return false;
    }
    const pen_pipeline_owner owner = {.parker = &eager->parker,
                                      .stop = &eager->stop,
                                      .stop_at = 1,
                                      .wait = PEN_METRIC_EAGER_SERVER};
    if (!pen_sender_init(&eager->sender, conn, &owner, stream->options->name, stream->resume.run_id,
                         err)) {
        pen_eager_worker_destroy(eager);
        return false;
    }
    *made = eager;
    return true;
}

void pen_eager_worker_destroy(pen_eager_worker *eager)
{
    if (eager == NULL) {
        return;
    }
    for (pen_txn *part; (part = pen_ring_pop(&eager->parts)) != NULL;) {
        pen_txn_release(part);
    }
    pen_ring_deinit(&eager->parts);
    if (eager->waiting != NULL) {
        pen_txn_release(eager->waiting);
    }
    if (eager->open != NULL) {
        pen_eager_release(eager->open);
    }
    pen_sender_deinit(&eager->sender);
    pen_plan_destroy(eager->plan);
    pen_parker_deinit(&eager->parker);
    free(eager);
}

void pen_eager_worker_wake(pen_eager_worker *eager)
{
    pen_parker_wake(&eager->parker);
}

void pen_eager_worker_end(pen_eager_worker *eager)
{
    if (eager != NULL) {
        /* [EAGER-4] release: pairs with the acquire in must_stop. */
        pen_cell_publish(&eager->stop, 1);
        pen_parker_wake(&eager->parker);
    }
}

bool pen_eager_worker_give(pen_eager_worker *eager, pen_txn *part)
{
    if (!pen_ring_push(&eager->parts, part)) {
        return false;
    }
    pen_parker_wake(&eager->parker);
    return true;
}

pen_parker *pen_eager_worker_parker(pen_eager_worker *eager)
{
    return &eager->parker;
}

int pen_eager_worker_pid(const pen_eager_worker *eager)
{
    return eager->backend_pid;
}

void pen_eager_worker_await(pen_eager_worker *eager, bool awaited)
{
    /* [EAGER-9] release: pairs with the acquire in the watchdog. */
    pen_cell_publish(&eager->awaited, awaited);
}

bool pen_eager_worker_is_awaited(const pen_eager_worker *eager)
{
    /* [EAGER-9] acquire: pairs with the release in pen_eager_worker_await. */
    return pen_cell_read(&eager->awaited) != 0;
}

uint64_t pen_eager_worker_batch(const pen_eager_worker *eager)
{
    /* [EAGER-5] acquire: pairs with the release in pen_eager_commit. */
    return pen_cell_read(&eager->batch);
}

uint64_t pen_eager_worker_open(const pen_eager_worker *eager)
{
    /* [EAGER-11] acquire: pairs with the release in begin. */
    return pen_cell_read(&eager->open_number);
}

void pen_eager_worker_let_go(pen_eager_worker *eager, uint64_t number)
{
    /* [EAGER-6] release: before the wake; pairs with the acquire in is_lost. */
    pen_cell_publish(&eager->let_go, number);
    pen_parker_wake(&eager->parker);
}

static bool must_stop(const pen_eager_worker *eager)
{
    /* [EAGER-4] acquire: pairs with the release in pen_eager_worker_end. */
    return pen_cell_read(&eager->stop) != 0;
}

/* The open transaction */

/* True when it is in the way of others, which cannot go on before it is rolled back. */
static bool is_in_the_way(const pen_eager_worker *eager)
{
    /* [EAGER-6] acquire: pairs with the release in pen_eager_worker_let_go. */
    return pen_cell_read(&eager->let_go) == eager->open->number;
}

/* True when it has been open, without its Commit, for so many commits that it makes all others
 * slow: none of the versions of the progress row that they leave behind can be taken away before it
 * ends. */
static bool is_too_old(const pen_eager_worker *eager)
{
    /* [EAGER-12] acquire: pairs with the release in the reader. */
    return pen_cell_read(&eager->open->ended) == 0 &&
           pen_handover_committed(&eager->stream->handover) - eager->opened_at > MOST_COMMITS;
}

/* True when it is to be rolled back. */
static bool is_lost(const pen_eager_worker *eager)
{
    return !pen_eager_is_alive(eager->open) || is_in_the_way(eager) || is_too_old(eager);
}

static void forget(pen_eager_worker *eager)
{
    pen_eager_release(eager->open);
    eager->open = NULL;
    pen_cell_publish(&eager->open_number, 0);
}

/* Whoever else wants it finds that it is not there. */
static bool roll_back(pen_eager_worker *eager, pen_error *err)
{
    /* [EAGER-1] release: pairs with the acquire in pen_eager_is_alive. */
    pen_cell_publish(&eager->open->failed, 1);
    forget(eager);
    pen_parker_wake(&eager->stream->reader_parker);
    return pen_sender_roll_back(&eager->sender, err);
}

static void tell_why(const pen_eager_worker *eager, const char *why)
{
    pen_log(PEN_LOG_INFO,
            "transaction %" PRIu32
            ", which was applied while it is in progress, is rolled back, and applied when it "
            "commits: %s",
            eager->open->xid, why);
}

/* The same for one that is_lost. */
static bool roll_back_lost(pen_eager_worker *eager, pen_error *err)
{
    if (pen_eager_is_alive(eager->open)) {
        tell_why(eager, is_in_the_way(eager)
                            ? "an earlier batch waits for a lock that it has"
                            : "it keeps the target from clearing up behind others");
    }
    return roll_back(eager, err);
}

static bool begin(pen_eager_worker *eager, pen_eager *which, pen_error *err)
{
    pen_eager_acquire(which);
    eager->open = which;
    eager->opened_at = pen_handover_committed(&eager->stream->handover);
    /* [EAGER-11] release: pairs with the acquire in the watchdog. */
    pen_cell_publish(&eager->open_number, which->number);
    return pen_sender_tidy(&eager->sender, err) && pen_sender_begin(&eager->sender, err);
}

/* After a part could not be sent, or a statement has failed. What it was does not matter to
 * anybody: it is applied once more in another way, and what is wrong with it then is told there.
 * False: the session is lost. */
static bool give_up(pen_eager_worker *eager, pen_error *err)
{
    if (!pen_sender_failure(&eager->sender).answered &&
        (err->kind == PEN_ERROR_RETRY || err->kind == PEN_ERROR_NONE)) {
        /* [EAGER-1] release: pairs with the acquire in pen_eager_is_alive. */
        pen_cell_publish(&eager->open->failed, 1);
        return false;
    }
    tell_why(eager, err->text);
    return roll_back(eager, err);
}

/* Parts */

static bool send(pen_eager_worker *eager, const pen_txn *part, pen_error *err)
{
    pen_sender *sender = &eager->sender;
    bool sent = false;
    if (eager->stream->options->apply == PEN_APPLY_SETS) {
        size_t count;
        const pen_step *steps = pen_plan_segments(eager->plan, part->first, &count);
        sent = pen_sender_steps(sender, steps, count, false, err);
    } else {
        sent = pen_sender_segments(sender, part->first, err);
    }
    return sent && pen_sender_drain(sender, false, err);
}

/* Brings a part to the target, or leaves it to its transaction's Commit; false: the session is
 * lost. */
static bool apply_part(pen_eager_worker *eager, const pen_txn *part, pen_error *err)
{
    if (!pen_eager_is_alive(part->eager)) {
        return true;
    }
    PEN_ASSERT(eager->open == NULL || eager->open == part->eager);
    if (eager->open == NULL && !begin(eager, part->eager, err)) {
        return give_up(eager, err);
    }
    if (!send(eager, part, err)) {
        return give_up(eager, err);
    }
    PEN_KILL_POINT("eager-part");
    return true;
}

/* The same, and its memory is given back. */
static bool take_part(pen_eager_worker *eager, pen_txn *part, pen_error *err)
{
    bool ok = apply_part(eager, part, err);
    /* [EAGER-3] release: pairs with the acquire in the reader. */
    pen_cell_publish(&part->eager->done, pen_cell_read(&part->eager->done) + 1);
    pen_txn_release(part);
    pen_parker_wake(&eager->stream->reader_parker);
    return ok;
}

/* True for a part that may not be applied yet: it needs a batch that has not committed, whose
 * commit will wake us; or it is of another transaction than the open one, which is to be ended
 * first. */
static bool must_wait(pen_eager_worker *eager, const pen_txn *part)
{
    if (!pen_eager_is_alive(part->eager)) {
        return false;
    }
    bool other = eager->open != NULL && eager->open != part->eager;
    return other || pen_handover_watch(&eager->stream->handover) < part->after;
}

/* The next part that can be seen to, or NULL. */
static pen_txn *next_part(pen_eager_worker *eager)
{
    pen_txn *part = eager->waiting != NULL ? eager->waiting : pen_ring_pop(&eager->parts);
    eager->waiting = part != NULL && must_wait(eager, part) ? part : NULL;
    return eager->waiting != NULL ? NULL : part;
}

/* The Commit */

static bool commit(pen_eager_worker *eager, order *it, pen_error *err)
{
    pen_sender *sender = &eager->sender;
    /* All tags before the COMMIT goes out: as for any other large transaction. */
    if (!pen_sender_progress(sender, it->txn, it->previous_commit_lsn, err) ||
        !pen_sender_drain(sender, false, err)) {
        return false;
    }
    PEN_KILL_POINT("eager-committing");
    return pen_sender_commit(sender, err);
}

/* It failed too late for the reader to apply it in another way: the run ends, and the next one is
 * not to try the same. */
static void count_failure(pen_eager_worker *eager, uint64_t more)
{
    pen_stream *stream = eager->stream;
    uint64_t before = pen_cell_read(&stream->eager_failures);
    /* [EAGER-10] release: pairs with the acquire in the reader. */
    pen_cell_publish(&stream->eager_failures, before + more);
    if (before < PEN_EAGER_FAILURES && before + more >= PEN_EAGER_FAILURES) {
        pen_log(PEN_LOG_WARN, "from now on all transactions are applied when they commit, as with "
                              "--streaming on");
    }
}

/* *alive: the session can go on. */
static void carry_out(pen_eager_worker *eager, order *it, bool *alive)
{
    *alive = true;
    /* The reader has seen that all parts are on the target. */
    if (eager->open == NULL || eager->open != it->txn->eager || is_lost(eager)) {
        pen_error_set(&it->err, PEN_ERROR_RETRY, "it had been rolled back");
        count_failure(eager, PEN_EAGER_FAILURES);
        return; /* what is open is the loop's to end */
    }
    it->committed = commit(eager, it, &it->err);
    if (it->committed) {
        forget(eager);
        return;
    }
    it->failure = pen_sender_failure(&eager->sender);
    *alive = it->failure.answered;
    if (*alive) {
        pen_error later;
        count_failure(eager, PEN_EAGER_FAILURES);
        *alive = roll_back(eager, &later);
    }
}

static void answer(order *it)
{
    pen_parker *parker = it->parker;
    /* [EAGER-7] release: the answer is there, and `it` not touched any more; pairs with the acquire
     * in wait_for_answer. */
    pen_cell_publish(&it->answered, 1);
    pen_parker_wake(parker);
}

/* Waits until it is answered; false: it was taken back, because all ends. */
static bool wait_for_answer(pen_worker *worker, order *it)
{
    pen_stream *stream = worker->stream;
    for (;;) {
        pen_parker_prepare(&worker->parker);
        /* [EAGER-7] acquire: pairs with the release in answer. */
        bool answered = pen_cell_read(&it->answered) != 0;
        bool stopped = !answered && pen_stream_stopping(stream) == PEN_STOP_ABORT;
        bool taken_back = stopped && pen_place_take(&stream->eager->order) != NULL;
        if (answered || taken_back) {
            pen_parker_cancel(&worker->parker);
            return answered;
        }
        /* Once it has the order, it answers: its session ends no later than we are told to. */
        (void)pen_meter_park(PEN_METRIC_WORKER_SERVER, &worker->parker, -1, 0, PEN_PARK_FOREVER);
    }
}

/* What has failed so late is nowhere any more. */
static bool lose(pen_worker *worker, const pen_batch *batch, const order *it, pen_error *err)
{
    *err = it->err;
    worker->failure = it->failure;
    bool is_guard = it->failure.answered && it->failure.own == PEN_OWN_PROGRESS;
    if (err->kind == PEN_ERROR_NONE || is_guard) {
        return false;
    }
    worker->failure = (pen_failure){.own = PEN_OWN_NONE, .rows = -1};
    err->kind = PEN_ERROR_RETRY;
    pen_error_context(err,
                      "the transaction committed at " PEN_LSN_FMT
                      ", which was applied while it was in progress, could not be committed; it is "
                      "sent again by the source after a start, and then applied as any other",
                      PEN_LSN_ARGS(batch->first->commit_lsn));
    return pen_error_advise(err, "start again to go on, nothing is lost");
}

bool pen_eager_commit(pen_worker *worker, pen_batch *batch, pen_error *err)
{
    pen_stream *stream = worker->stream;
    pen_eager_worker *eager = stream->eager;
    if (pen_handover_wait_for_turn(&stream->handover, worker->number, batch->number, false) !=
        PEN_TURN_COME) {
        return pen_error_set(err, PEN_ERROR_NONE, "stopped");
    }
    order it = {.parker = &worker->parker,
                .txn = batch->first,
                .previous_commit_lsn = batch->previous_commit_lsn,
                .failure = {.own = PEN_OWN_NONE, .rows = -1}};
    pen_cell_init(&it.answered, 0);
    /* [EAGER-5] release: pairs with the acquire in the watchdog. */
    pen_cell_publish(&eager->batch, batch->number);
    /* [EAGER-8] release: the order is written; pairs with the acquire of the exchange that takes
     * it. */
    pen_place_put(&eager->order, &it);
    pen_parker_wake(&eager->parker);
    bool answered = wait_for_answer(worker, &it);
    pen_cell_publish(&eager->batch, 0);
    if (!answered) {
        return pen_error_set(err, PEN_ERROR_NONE, "stopped");
    }
    if (!it.committed) {
        return lose(worker, batch, &it, err);
    }
    pen_meter_add(PEN_METRIC_EAGER_TRANSACTIONS, 1);
    return true;
}

/* The thread */

/* Does one thing of what there is; *idle: there is nothing. False: the session is lost. */
static bool step(pen_eager_worker *eager, bool *idle, pen_error *err)
{
    *idle = false;
    if (eager->open != NULL && is_lost(eager)) {
        return roll_back_lost(eager, err);
    }
    pen_txn *part = next_part(eager);
    if (part != NULL) {
        return take_part(eager, part, err);
    }
    /* [EAGER-8] acquire: pairs with the release in pen_eager_commit. */
    order *it = pen_place_take(&eager->order);
    if (it != NULL) {
        bool alive = false;
        carry_out(eager, it, &alive);
        *err = it->err;
        answer(it);
        return alive;
    }
    *idle = true;
    return true;
}

/* Until it is told to stop; false: the session is lost. */
static bool work(pen_eager_worker *eager, pen_error *err)
{
    while (!must_stop(eager)) {
        bool idle = false;
        pen_parker_prepare(&eager->parker);
        bool ok = !must_stop(eager) && step(eager, &idle, err);
        if (ok && idle) {
            (void)pen_meter_park(
                eager->waiting != NULL ? PEN_METRIC_EAGER_TURN : PEN_METRIC_EAGER_INPUT,
                &eager->parker, -1, 0, eager->open != NULL ? LOOK_AGAIN_MS : PEN_PARK_FOREVER);
            continue;
        }
        pen_parker_cancel(&eager->parker);
        if (!ok && !must_stop(eager)) {
            return false;
        }
    }
    return true;
}

static void run(void *arg)
{
    pen_eager_worker *eager = arg;
    pen_error err;
    PEN_ASSERT(pen_thread_role() == PEN_ROLE_WORKER);
    pen_meter_begin(pen_stream_eager_meter(eager->stream), PEN_METRIC_EAGER_TIME);
    if (!work(eager, &err)) {
        /* Who ends it each time must not end the stream with it for ever. */
        count_failure(eager, 1);
        pen_stream_fail(eager->stream, &err);
    }
    pen_meter_end();
}

bool pen_eager_worker_start(pen_eager_worker *eager, pen_error *err)
{
    return pen_thread_start(&eager->thread, PEN_ROLE_WORKER, "eager", run, eager, err);
}

void pen_eager_worker_join(pen_eager_worker *eager)
{
    if (eager != NULL) {
        pen_thread_join(&eager->thread);
    }
}
