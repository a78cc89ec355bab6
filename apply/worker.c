#include "apply/worker.h"

#include "apply/eager.h"
#include "apply/explain.h"
#include "apply/large.h"
#include "apply/replay.h"
#include "apply/waves.h"
#include "core/kill_point.h"
#include "core/log.h"
#include "core/sqlstate.h"

#include <stdlib.h>
#include <string.h>

bool pen_worker_identify(pen_pgconn *conn, int *pid, int64_t *trip_us, pen_error *err)
{
    pen_pgresult *res = NULL;
    int64_t since_us = pen_now_us();
    if (!pen_pgconn_exec(conn, "read the session's PID", "SELECT pg_catalog.pg_backend_pid()", 0,
                         NULL, &res, err)) {
        return false;
    }
    *trip_us = pen_now_us() - since_us;
    *pid = (int)strtol(pen_pgresult_value(res, 0, 0), NULL, 10);
    pen_pgresult_clear(res);
    return true;
}

bool pen_worker_init(pen_worker *worker, pen_stream *stream, unsigned number, pen_pgconn *conn,
                     pen_error *err)
{
    memset(worker, 0, sizeof(*worker));
    worker->stream = stream;
    worker->number = number;
    worker->random = (uint64_t)pen_now_us() * (number + 1) | 1;
    worker->plan = pen_plan_create();
    worker->parker.event_fd = -1;
    if (!pen_parker_init(&worker->parker, err) ||
        !pen_worker_identify(conn, &worker->backend_pid, &worker->trip_us, err)) {
        pen_pgconn_close(conn); /* which no sender has taken yet */
        return false;
    }
    const pen_pipeline_owner owner = {.parker = &worker->parker,
                                      .stop = &stream->stop,
                                      .stop_at = PEN_STOP_ABORT,
                                      .wait = PEN_METRIC_WORKER_SERVER};
    return pen_sender_init(&worker->sender, conn, &owner, stream->options->name,
                           stream->resume.run_id, err);
}

void pen_worker_deinit(pen_worker *worker)
{
    pen_sender_deinit(&worker->sender);
    pen_plan_destroy(worker->plan);
    pen_conflict_list_clear(&worker->conflicts);
    pen_parker_deinit(&worker->parker);
}

typedef struct wave_cursor {
    const pen_txn *txn;
    const pen_segment *seg;
    const pen_change *chg;
    pen_wave wave;
} wave_cursor;

/* The next change of the wave, or NULL. */
static const pen_change *next_change(wave_cursor *at)
{
    for (;;) {
        if (at->chg != NULL) {
            at->chg = at->chg->next;
        }
        while (at->chg == NULL) {
            at->seg = at->seg != NULL ? at->seg->next : NULL;
            while (at->seg == NULL) {
                if (at->txn == NULL) {
                    return NULL;
                }
                at->seg = at->txn->first;
                at->txn = at->txn->next;
            }
            at->chg = at->seg->first;
        }
        if (at->chg->bound >= at->wave.from && at->chg->bound <= at->wave.to) {
            return at->chg;
        }
    }
}

/* Sends the changes of one wave: a few as they come, more as they are planned. */
static bool send_wave(pen_worker *worker, const pen_batch *batch, pen_wave which, bool guarded,
                      pen_error *err)
{
    wave_cursor at = {.txn = batch->first, .wave = which};
    const pen_change *chg;
    if (!pen_worker_plans(worker, batch->change_count)) {
        while ((chg = next_change(&at)) != NULL) {
            if (!pen_sender_change(&worker->sender, chg, chg, guarded, err)) {
                return false;
            }
        }
        return true;
    }
    pen_plan_begin(worker->plan, batch->change_count);
    while ((chg = next_change(&at)) != NULL) {
        pen_plan_add(worker->plan, chg);
    }
    size_t count;
    const pen_step *steps = pen_plan_finish(worker->plan, &count);
    return pen_sender_steps(&worker->sender, steps, count, guarded, err);
}

/* Sends what remains and commits: changes not sent yet, those bound to `from` or a later batch; the
 * progress row; COMMIT, in one flight. */
static bool send_tail(pen_worker *worker, const pen_batch *batch, uint64_t from, pen_error *err)
{
    pen_sender *sender = &worker->sender;
    return send_wave(worker, batch, (pen_wave){from, UINT64_MAX}, true, err) &&
           pen_sender_progress(sender, batch->last, batch->previous_commit_lsn, err) &&
           pen_sender_commit(sender, err);
}

/* Sends one wave and looks at its tags, before what commits it goes out. */
static bool bring_wave(pen_worker *worker, const pen_batch *batch, pen_wave which, pen_error *err)
{
    return send_wave(worker, batch, which, false, err) &&
           pen_sender_drain(&worker->sender, false, err);
}

/* The batch that is worth waiting for before the turn, because then changes may go out that take
 * the target a while: 0 for none. Only a target whose rows take long makes that worth a round trip.
 * `from`: what is bound to an earlier batch is on the target. */
static uint64_t worth_waiting_for(pen_worker *worker, const pen_batch *batch, uint64_t from)
{
    uint32_t counts[PEN_HOLDERS] = {0};
    uint64_t worth = pen_waves_worth(&worker->stream->filling);
    if (!pen_waves_may_be(batch->number, batch->change_count, from, worth)) {
        return 0;
    }
    wave_cursor at = {.txn = batch->first, .wave = {from, batch->number - 2}};
    const pen_change *chg;
    while ((chg = next_change(&at)) != NULL) {
        PEN_ASSERT(chg->bound - from < PEN_HOLDERS);
        counts[chg->bound - from]++;
    }
    return pen_waves_next(counts, batch->number, from, worth);
}

/* How a batch that does not go out in one flight comes to the target. */
typedef struct advance {
    uint64_t from;     /* what is bound to an earlier batch is there */
    unsigned trips;    /* round trips */
    int64_t waited_us; /* for others */
} advance;

static pen_turn wait_for(pen_worker *worker, const pen_batch *batch, uint64_t bound,
                         advance *so_far)
{
    pen_handover *handover = &worker->stream->handover;
    int64_t since_us = pen_now_us();
    pen_turn turn =
        bound != 0 ? pen_handover_wait_for_batch(handover, worker->number, batch->number, bound)
                   : pen_handover_wait_for_turn(handover, worker->number, batch->number, true);
    so_far->waited_us += pen_now_us() - since_us;
    return turn;
}

/* Brings all to the target that need not wait for the batch's turn, and waits for that; *ok: it
 * could be brought. */
static pen_turn come_to_turn(pen_worker *worker, const pen_batch *batch, advance *so_far, bool *ok,
                             pen_error *err)
{
    uint64_t bound;
    uint64_t committed = pen_handover_committed(&worker->stream->handover);
    do {
        *ok = bring_wave(worker, batch, (pen_wave){so_far->from, committed}, err);
        if (!*ok) {
            return PEN_TURN_COME;
        }
        so_far->from = committed + 1;
        so_far->trips++;
        bound = worth_waiting_for(worker, batch, so_far->from);
        pen_turn turn = wait_for(worker, batch, bound, so_far);
        if (turn != PEN_TURN_COME) {
            return turn;
        }
        committed = pen_handover_committed(&worker->stream->handover);
    } while (committed != batch->number - 1);
    return PEN_TURN_COME;
}

/* The batch as the dispatcher bound it; false leaves it to the replay. */
static bool apply_batch(pen_worker *worker, const pen_batch *batch, bool *let_go, pen_error *err)
{
    pen_sender *sender = &worker->sender;
    advance so_far = {.from = 0};
    bool ok = true;
    int64_t since_us = pen_now_us();
    if (!pen_sender_tidy(sender, err) || !pen_sender_begin(sender, err)) {
        return false;
    }
    if (pen_handover_committed(&worker->stream->handover) != batch->number - 1 ||
        batch->change_count > PEN_ONE_FLIGHT_CHANGES) {
        switch (come_to_turn(worker, batch, &so_far, &ok, err)) {
        case PEN_TURN_COME:
            break;
        case PEN_TURN_LET_GO:
            *let_go = true;
            return false;
        case PEN_TURN_STOPPED:
            return pen_error_set(err, PEN_ERROR_NONE, "stopped");
        }
    }
    if (!ok || !send_tail(worker, batch, so_far.from, err)) {
        return false;
    }
    pen_filling_learn(&worker->stream->filling, batch->change_count,
                      pen_now_us() - since_us - so_far.waited_us, so_far.trips + 1,
                      worker->trip_us);
    return true;
}

bool pen_worker_plans(const pen_worker *worker, uint64_t change_count)
{
    return change_count >= PEN_PLANNED_CHANGES && worker->stream->options->apply == PEN_APPLY_SETS;
}

void pen_worker_distrust(pen_worker *worker, const pen_error *err)
{
    pen_failure failure = pen_sender_failure(&worker->sender);
    if (failure.answered && failure.chg != NULL && !pen_sqlstate_passes(err->sqlstate)) {
        pen_plan_distrust(worker->plan, failure.chg);
    }
}

void pen_worker_applied(pen_worker *worker, const pen_txn *txn, uint64_t change_count)
{
    pen_stream *stream = worker->stream;
    /* [APPLIED-1] release: pairs with the acquire in the reader and the progress thread. */
    pen_cell_publish(&stream->applied_lsn, txn->end_lsn);
    pen_meter_record(PEN_DISTRIBUTION_LAG, pen_pgtime_now() - txn->commit_time);
    pen_meter_add(PEN_METRIC_TRANSACTIONS, 1);
    pen_meter_add(PEN_METRIC_CHANGES, change_count);
    worker->next_txn = txn->next;
    worker->previous_commit_lsn = txn->commit_lsn;
}

/* After the commit: the next one's turn comes first, bookkeeping after. Gives the next batch when
 * that was left to this commit. */
static pen_batch *finish_batch(pen_worker *worker, pen_batch *batch)
{
    pen_stream *stream = worker->stream;
    PEN_KILL_POINT("worker-committed");
    /* [APPLIED-1] release: pairs with the acquire in the reader and the progress thread. */
    pen_cell_publish(&stream->applied_lsn, batch->last->end_lsn);
    pen_batch *next = pen_handover_commit(&stream->handover, worker->number, batch->number);
    PEN_KILL_POINT("worker-handed-over");
    pen_pgtime now = pen_pgtime_now();
    for (const pen_txn *txn = worker->next_txn; txn != NULL; txn = txn->next) {
        pen_meter_record(PEN_DISTRIBUTION_LAG, now - txn->commit_time);
        pen_meter_add(PEN_METRIC_TRANSACTIONS, 1);
        pen_meter_add(PEN_METRIC_CHANGES,
                      batch->feed != NULL ? batch->change_count : txn->change_count);
    }
    pen_meter_add(PEN_METRIC_BATCHES, 1);
    pen_meter_record(PEN_DISTRIBUTION_BATCH_TRANSACTIONS, (int64_t)batch->txn_count);
    pen_meter_record(PEN_DISTRIBUTION_BATCH_CHANGES, (int64_t)batch->change_count);
    pen_batch_destroy(batch);
    return next;
}

/* After it was rolled back, because its large transaction does not come whole: the others go on as
 * if it had been empty. */
static pen_batch *drop_batch(pen_worker *worker, pen_batch *batch)
{
    pen_batch *next = pen_handover_commit(&worker->stream->handover, worker->number, batch->number);
    pen_batch_destroy(batch);
    return next;
}

/* Brings the batch to the target, whatever it takes; *discarded: it is not to be brought. False
 * when that cannot be, in words. */
static bool bring(pen_worker *worker, pen_batch *batch, bool *discarded, pen_error *err)
{
    bool let_go = false;
    worker->next_txn = batch->first;
    worker->previous_commit_lsn = batch->previous_commit_lsn;
    worker->failure = (pen_failure){.own = PEN_OWN_NONE, .rows = -1};
    bool ok;
    if (batch->feed != NULL) {
        ok = pen_large_apply(worker, batch, discarded, err);
    } else if (batch->first->eager != NULL) {
        ok = pen_eager_commit(worker, batch, err);
    } else {
        ok = apply_batch(worker, batch, &let_go, err);
        if (!ok) {
            pen_worker_distrust(worker, err);
            ok = pen_replay_batch(worker, batch, let_go, err);
        }
    }
    if (!ok) {
        pen_explain(&worker->failure, batch, worker->next_txn, worker->stream->options, err);
    }
    return ok;
}

void pen_worker_run(void *arg)
{
    pen_worker *worker = arg;
    pen_stream *stream = worker->stream;
    PEN_ASSERT(pen_thread_role() == PEN_ROLE_WORKER);
    pen_meter_begin(pen_stream_worker_meter(stream, worker->number), PEN_METRIC_WORKER_TIME);
    pen_batch *next = NULL;
    for (;;) {
        pen_batch *batch =
            next != NULL ? next : pen_handover_take(&stream->handover, worker->number);
        if (batch == NULL) {
            break;
        }
        pen_error err;
        bool discarded = false;
        pen_meter_take(batch->first->commit_time);
        if (!bring(worker, batch, &discarded, &err)) {
            pen_stream_fail(stream, &err);
            pen_large_release(worker);
            pen_batch_destroy(batch);
            break;
        }
        next = discarded ? drop_batch(worker, batch) : finish_batch(worker, batch);
        pen_meter_put();
    }
    pen_meter_put();
    pen_meter_end();
    pen_stream_worker_done(stream);
}
