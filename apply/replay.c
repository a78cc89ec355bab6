/* Why a replay neither loses nor doubles:
 *
 * - It begins with ROLLBACK, and with the question whether the transaction had committed after all
 *   when it was its COMMIT that failed: a cancel can meet a COMMIT that is already through. The
 *   progress row answers, because it is written in the same transaction.
 * - It waits for its turn after the rollback, so it holds no lock while it waits, and every earlier
 *   batch has committed when it begins: no change is bound to anything any more, and the source's
 *   order is right for all of them.
 * - Each target transaction, the batch or one of its transactions, moves the progress row from the
 *   transaction before it to its last one, or divides by zero.
 * - The batch's number is committed when all of it is on the target, not before: what is bound to
 * it may be bound to its last transaction.
 *
 * Changes are counted by their tags, which are all in before the progress row and COMMIT go out. So
 * a division by zero is one of the target's own, and no guard's. */
#include "apply/replay.h"

#include "apply/rows.h"
#include "core/kill_point.h"
#include "core/log.h"
#include "core/sqlstate.h"

#include <inttypes.h>
#include <string.h>

/* Attempts at a whole batch. What comes again and again may never let so long a transaction
 * through, where its parts would get on. */
#define WHOLE_TRIES 3

#define PAUSE_FIRST_MS 10
#define PAUSE_MOST_MS  5000
#define TELL_EVERY_US  (1000 * 1000)

pen_outcome pen_replay_judge(const pen_failure *failure, const pen_error *err)
{
    if (!failure->answered ||
        (failure->own == PEN_OWN_PROGRESS && strcmp(err->sqlstate, "22012") == 0)) {
        return PEN_OUTCOME_ENDED;
    }
    if (pen_sqlstate_passes(err->sqlstate)) {
        return PEN_OUTCOME_AGAIN;
    }
    bool conflict = failure->chg != NULL && err->kind == PEN_ERROR_CONFLICT;
    return conflict ? PEN_OUTCOME_CONFLICT : PEN_OUTCOME_REFUSED;
}

void pen_replay_tell(pen_worker *worker, const pen_batch *batch, const pen_error *err)
{
    int64_t now_us = pen_now_us();
    pen_meter_add(PEN_METRIC_RETRIES, 1);
    if (worker->retry_logged_us != 0 && now_us - worker->retry_logged_us < TELL_EVERY_US) {
        worker->retries_untold++;
        return;
    }
    pen_log(PEN_LOG_WARN,
            "the transactions committed at " PEN_LSN_FMT " to " PEN_LSN_FMT
            " are rolled back and applied again: %s (%" PRIu64 " more such since the last line)",
            PEN_LSN_ARGS(worker->next_txn->commit_lsn), PEN_LSN_ARGS(batch->last->commit_lsn),
            err->text, worker->retries_untold);
    worker->retry_logged_us = now_us;
    worker->retries_untold = 0;
}

/* Between a half and the whole of `most_ms`, so that two that met do not meet again (xorshift64,
 * Marsaglia 2003). */
static int jitter(pen_worker *worker, int most_ms)
{
    worker->random ^= worker->random << 13;
    worker->random ^= worker->random >> 7;
    worker->random ^= worker->random << 17;
    return most_ms / 2 + (int)((worker->random >> 20) % (uint64_t)(most_ms / 2 + 1));
}

bool pen_replay_pause(pen_worker *worker, unsigned tries, pen_error *err)
{
    int most_ms = tries < 9 ? PAUSE_FIRST_MS << tries : PAUSE_MOST_MS;
    int64_t until_us = pen_now_us() + INT64_C(1000) * jitter(worker, most_ms);
    for (;;) {
        pen_parker_prepare(&worker->parker);
        int64_t left_us = until_us - pen_now_us();
        bool stopped = pen_stream_stopping(worker->stream) == PEN_STOP_ABORT;
        if (stopped || left_us <= 0) {
            pen_parker_cancel(&worker->parker);
            return !stopped || pen_error_set(err, PEN_ERROR_NONE, "stopped");
        }
        (void)pen_meter_park(PEN_METRIC_WORKER_PAUSE, &worker->parker, -1, 0,
                             (int)(left_us / 1000) + 1);
    }
}

/* Leaves a failed attempt at the transactions up to `last` behind. When it was the COMMIT that
 * failed, *applied says whether they are on the target nevertheless. A session that is lost on the
 * way is told of by what failed first. */
static bool leave(pen_worker *worker, const pen_txn *last, bool *applied, pen_error *err)
{
    pen_sender *sender = &worker->sender;
    pen_error later;
    *applied = false;
    bool ok = pen_sender_roll_back(sender, &later) &&
              (worker->failure.own != PEN_OWN_COMMIT ||
               pen_sender_is_applied(sender, last, applied, &later));
    if (*applied) {
        pen_conflicts_commit(&worker->stream->conflicts, &worker->conflicts);
    } else {
        pen_conflict_list_clear(&worker->conflicts);
    }
    if (!ok && (later.kind == PEN_ERROR_NONE || err->kind == PEN_ERROR_NONE)) {
        *err = later;
    }
    return ok;
}

/* One attempt at the transactions `first` to `last` in one target transaction, with `by_rows` as
 * --on-conflict says. Afterwards no transaction is open. */
static pen_outcome attempt(pen_worker *worker, const pen_txn *first, const pen_txn *last,
                           bool by_rows, pen_error *err)
{
    pen_sender *sender = &worker->sender;
    bool told = false; /* the failure is in worker->failure already */
    bool ok = pen_sender_begin(sender, err);
    for (const pen_txn *txn = first; ok && txn != last->next; txn = txn->next) {
        ok = by_rows ? pen_rows_apply(worker, txn->first, err)
                     : pen_sender_segments(sender, txn->first, err);
        told = !ok && by_rows;
    }
    if (ok && pen_sender_drain(sender, false, err) &&
        pen_sender_progress(sender, last, worker->previous_commit_lsn, err) &&
        pen_sender_commit(sender, err)) {
        pen_conflicts_commit(&worker->stream->conflicts, &worker->conflicts);
        return PEN_OUTCOME_DONE;
    }
    if (!told) {
        worker->failure = pen_sender_failure(sender);
    }
    pen_outcome outcome = pen_replay_judge(&worker->failure, err);
    bool applied = false;
    if (outcome == PEN_OUTCOME_ENDED || !leave(worker, last, &applied, err)) {
        return PEN_OUTCOME_ENDED;
    }
    return applied ? PEN_OUTCOME_DONE : outcome;
}

/* One transaction of the source as one of the target's, until it is there. */
static bool replay_txn(pen_worker *worker, const pen_batch *batch, const pen_txn *txn,
                       pen_error *err)
{
    bool by_rows = false;
    for (unsigned tries = 0;;) {
        switch (attempt(worker, txn, txn, by_rows, err)) {
        case PEN_OUTCOME_DONE:
            return true;
        case PEN_OUTCOME_AGAIN:
            pen_replay_tell(worker, batch, err);
            if (!pen_replay_pause(worker, tries++, err)) {
                return false;
            }
            break;
        case PEN_OUTCOME_CONFLICT:
            if (by_rows || worker->stream->options->on_conflict == PEN_CONFLICT_ERROR) {
                return false;
            }
            by_rows = true;
            break;
        case PEN_OUTCOME_REFUSED:
        case PEN_OUTCOME_ENDED:
            return false;
        }
    }
}

/* The batch in one transaction of the target, a few times while what stops it may pass. */
static pen_outcome replay_whole(pen_worker *worker, const pen_batch *batch, pen_error *err)
{
    for (unsigned tries = 0;; tries++) {
        pen_outcome outcome = attempt(worker, batch->first, batch->last, false, err);
        if (outcome == PEN_OUTCOME_DONE || outcome == PEN_OUTCOME_ENDED) {
            return outcome;
        }
        pen_replay_tell(worker, batch, err);
        if (outcome != PEN_OUTCOME_AGAIN || tries + 1 == WHOLE_TRIES) {
            return outcome;
        }
        if (!pen_replay_pause(worker, tries, err)) {
            return PEN_OUTCOME_ENDED;
        }
    }
}

/* What the first attempt left; *applied: it had committed after all. */
static bool leave_first_attempt(pen_worker *worker, const pen_batch *batch, bool let_go,
                                bool *applied, pen_error *err)
{
    if (let_go) {
        pen_error_set(err, PEN_ERROR_NONE,
                      "an earlier batch waits for locks that were taken for these");
        pen_replay_tell(worker, batch, err);
        return leave(worker, batch->last, applied, err);
    }
    worker->failure = pen_sender_failure(&worker->sender);
    if (pen_replay_judge(&worker->failure, err) == PEN_OUTCOME_ENDED) {
        return false;
    }
    pen_replay_tell(worker, batch, err);
    return leave(worker, batch->last, applied, err);
}

bool pen_replay_batch(pen_worker *worker, const pen_batch *batch, bool let_go, pen_error *err)
{
    bool applied = false;
    if (!leave_first_attempt(worker, batch, let_go, &applied, err) || applied) {
        return applied;
    }
    if (pen_handover_wait_for_turn(&worker->stream->handover, worker->number, batch->number,
                                   false) != PEN_TURN_COME) {
        return pen_error_set(err, PEN_ERROR_NONE, "stopped");
    }
    if (batch->txn_count > 1) {
        pen_outcome outcome = replay_whole(worker, batch, err);
        if (outcome == PEN_OUTCOME_DONE || outcome == PEN_OUTCOME_ENDED) {
            return outcome == PEN_OUTCOME_DONE;
        }
    }
    while (worker->next_txn != NULL) {
        const pen_txn *txn = worker->next_txn;
        if (!replay_txn(worker, batch, txn, err)) {
            return false;
        }
        pen_worker_applied(worker, txn, txn->change_count);
        PEN_KILL_POINT("replay-between");
    }
    return true;
}
