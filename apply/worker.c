#include "apply/worker.h"

#include "apply/explain.h"
#include "apply/large.h"
#include "apply/replay.h"
#include "core/kill_point.h"
#include "core/log.h"

#include <stdlib.h>
#include <string.h>

/* A batch whose turn has come and that has at most so many changes goes out in one flight, all of
 * it guarding itself: one round trip. Above, the guards' own cost is more than the trip. */
#define ONE_FLIGHT_CHANGES 64

/* With fewer changes there is nothing to be planned. */
#define PLANNED_CHANGES 8

/* The PID that the server knows the session by: what a proxy told at connect may be its own. */
static bool read_backend_pid(pen_pgconn *conn, int *pid, pen_error *err)
{
    pen_pgresult *res = NULL;
    if (!pen_pgconn_exec(conn, "read the session's PID", "SELECT pg_catalog.pg_backend_pid()", 0,
                         NULL, &res, err)) {
        return false;
    }
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
        !read_backend_pid(conn, &worker->backend_pid, err)) {
        pen_plan_destroy(worker->plan);
        pen_pgconn_close(conn);
        return false;
    }
    return pen_sender_init(&worker->sender, conn, &worker->parker, &stream->stop, PEN_STOP_ABORT,
                           stream->options->name, stream->resume.run_id, err);
}

void pen_worker_deinit(pen_worker *worker)
{
    pen_sender_deinit(&worker->sender);
    pen_plan_destroy(worker->plan);
    pen_conflict_list_clear(&worker->conflicts);
    pen_parker_deinit(&worker->parker);
}

typedef enum wave { WAVE_FREE, WAVE_BOUND } wave;

/* Calls for each change of one wave, in source order: the free ones are those bound to nothing
 * later than `threshold`, the same one for the whole batch, so that no two changes of one key
 * change places. */
typedef struct wave_cursor {
    const pen_txn *txn;
    const pen_segment *seg;
    const pen_change *chg;
    wave which;
    uint64_t threshold;
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
        bool is_free = at->chg->bound <= at->threshold;
        if (is_free == (at->which == WAVE_FREE)) {
            return at->chg;
        }
    }
}

/* Sends the changes of one wave: a few as they come, more as they are planned. */
static bool send_wave(pen_worker *worker, const pen_batch *batch, wave which, uint64_t threshold,
                      bool guarded, pen_error *err)
{
    wave_cursor at = {.txn = batch->first, .which = which, .threshold = threshold};
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

/* Sends what remains and commits: changes not sent yet, the progress row, COMMIT, in one flight. */
static bool send_tail(pen_worker *worker, const pen_batch *batch, wave which, uint64_t threshold,
                      pen_error *err)
{
    pen_sender *sender = &worker->sender;
    return send_wave(worker, batch, which, threshold, true, err) &&
           pen_sender_progress(sender, batch->last, batch->previous_commit_lsn, err) &&
           pen_sender_commit(sender, err);
}

/* The batch as the dispatcher bound it; false leaves it to the replay. */
static bool apply_batch(pen_worker *worker, const pen_batch *batch, bool *let_go, pen_error *err)
{
    pen_sender *sender = &worker->sender;
    pen_handover *handover = &worker->stream->handover;
    uint64_t committed = pen_handover_committed(handover);
    if (!pen_sender_tidy(sender, err) || !pen_sender_begin(sender, err)) {
        return false;
    }
    if (committed == batch->number - 1 && batch->change_count <= ONE_FLIGHT_CHANGES) {
        return send_tail(worker, batch, WAVE_FREE, committed, err);
    }
    /* The tags of the free changes are looked at before the tail goes out. */
    if (!send_wave(worker, batch, WAVE_FREE, committed, false, err) ||
        !pen_sender_drain(sender, false, err)) {
        return false;
    }
    switch (pen_handover_wait_for_turn(handover, worker->number, batch->number, true)) {
    case PEN_TURN_COME:
        return send_tail(worker, batch, WAVE_BOUND, committed, err);
    case PEN_TURN_LET_GO:
        *let_go = true;
        return false;
    case PEN_TURN_STOPPED:
        break;
    }
    return pen_error_set(err, PEN_ERROR_NONE, "stopped");
}

bool pen_worker_plans(const pen_worker *worker, uint64_t change_count)
{
    return change_count >= PLANNED_CHANGES && worker->stream->options->apply == PEN_APPLY_SETS;
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

/* After the commit: the next one's turn comes first, bookkeeping after. */
static void finish_batch(pen_worker *worker, pen_batch *batch)
{
    pen_stream *stream = worker->stream;
    PEN_KILL_POINT("worker-committed");
    /* [APPLIED-1] release: pairs with the acquire in the reader and the progress thread. */
    pen_cell_publish(&stream->applied_lsn, batch->last->end_lsn);
    pen_handover_commit(&stream->handover, batch->number);
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
}

/* Brings the batch to the target, whatever it takes; false when that cannot be, in words. */
static bool bring(pen_worker *worker, pen_batch *batch, pen_error *err)
{
    bool let_go = false;
    worker->next_txn = batch->first;
    worker->previous_commit_lsn = batch->previous_commit_lsn;
    worker->failure = (pen_failure){.own = PEN_OWN_NONE, .rows = -1};
    bool ok;
    if (batch->feed != NULL) {
        ok = pen_large_apply(worker, batch, err);
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
    for (;;) {
        pen_batch *batch = pen_handover_take(&stream->handover, worker->number);
        if (batch == NULL) {
            break;
        }
        pen_error err;
        pen_meter_take(batch->first->commit_time);
        if (!bring(worker, batch, &err)) {
            pen_stream_fail(stream, &err);
            pen_large_release(worker);
            pen_batch_destroy(batch);
            break;
        }
        finish_batch(worker, batch);
        pen_meter_put();
    }
    pen_meter_put();
    pen_meter_end();
    pen_stream_worker_done(stream);
}
