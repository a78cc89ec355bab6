/* A large transaction's changes are not kept until its commit, so it cannot be applied anew as a
 * batch is. Each part of it, some segments, runs in a savepoint instead:
 *
 *   BEGIN; SAVEPOINT part; changes …            until all tags are in; then their memory goes
 *   RELEASE part; SAVEPOINT part; changes …
 *   RELEASE part; SAVEPOINT part; progress row
 *   COMMIT
 *
 * - A savepoint is released only with the beginning of the next part, because a count that is wrong
 *   shows after what was sent behind it has run.
 * - What fails within a part is rolled back to its savepoint, and the part sent again: its segments
 *   are still here.
 * - What fails in RELEASE or SAVEPOINT themselves, which a cancel can do in a window of
 * microseconds, or in COMMIT, takes the whole transaction with it. Then the run ends with an error
 * that a new start heals: the source sends it again, because its progress row was not written.
 * - A deadlock can come again each time, over locks of parts before; so it is tried a few times
 * only. */
#include "apply/large.h"

#include "apply/replay.h"
#include "apply/rows.h"
#include "core/feed.h"
#include "core/kill_point.h"

#include <string.h>

#define DEADLOCK_TRIES 5

/* Says that nothing of the transaction is left to go on with. */
static bool lose(const pen_batch *batch, pen_error *err)
{
    err->kind = PEN_ERROR_RETRY;
    pen_error_context(err,
                      "the large transaction committed at " PEN_LSN_FMT
                      " was rolled back as a whole, and is sent again by the source after a start",
                      PEN_LSN_ARGS(batch->first->commit_lsn));
    return pen_error_advise(err, "start again to go on, nothing is lost");
}

/* Begins a part; `first`: the transaction too, so there is no savepoint to be released yet. */
static bool open_part(pen_worker *worker, bool first, pen_error *err)
{
    pen_sender *sender = &worker->sender;
    if (!first) {
        PEN_KILL_POINT_AFTER("large-release", pen_pipeline_push(sender->pipeline, false));
    }
    return (first ? pen_sender_begin(sender, err)
                  : pen_sender_own(sender, PEN_OWN_RELEASE_PART, err)) &&
           pen_sender_own(sender, PEN_OWN_SAVE_PART, err);
}

/* After a failure in a part: rolls back to where it can be sent again, *reopen: as the beginning of
 * the transaction. False: it cannot. */
static bool back_to_part(pen_worker *worker, const pen_batch *batch, bool first, bool *reopen,
                         pen_error *err)
{
    pen_sender *sender = &worker->sender;
    pen_own own = worker->failure.own;
    pen_error later;
    *reopen = own == PEN_OWN_BEGIN || own == PEN_OWN_RELEASE_PART || own == PEN_OWN_SAVE_PART;
    if (*reopen && !first) {
        return lose(batch, err);
    }
    bool ok = *reopen ? pen_sender_roll_back(sender, &later)
                      : pen_sender_back_to(sender, PEN_OWN_BACK_TO_PART, &later);
    if (ok || later.kind == PEN_ERROR_NONE) {
        *err = ok ? *err : later;
        return ok;
    }
    return pen_pipeline_can_reset(sender->pipeline) ? lose(batch, err) : false;
}

/* How a part's changes are sent: each form is the one to fall back to from the one before. */
typedef enum form {
    FORM_PLANNED,
    FORM_IN_ORDER, /* each change by itself, as on the source */
    FORM_ROWS      /* so too, and --on-conflict decides */
} form;

static bool send_planned(pen_worker *worker, const pen_segment *first, pen_error *err)
{
    size_t count;
    const pen_step *steps = pen_plan_segments(worker->plan, first, &count);
    return pen_sender_steps(&worker->sender, steps, count, false, err);
}

/* Sends a part's content: the changes of `seg` and the segments behind it, or, where that is NULL,
 * the progress row. Sets worker->failure. */
static bool fill_part(pen_worker *worker, const pen_segment *seg, form how, pen_error *err)
{
    pen_sender *sender = &worker->sender;
    bool sent = false;
    if (seg == NULL) {
        sent = pen_sender_progress(sender, worker->next_txn, worker->previous_commit_lsn, err);
    } else if (how == FORM_PLANNED) {
        sent = send_planned(worker, seg, err);
    } else if (how == FORM_IN_ORDER) {
        sent = pen_sender_segments(sender, seg, err);
    } else if (pen_rows_apply(worker, seg, err)) {
        sent = true;
    } else {
        return false;
    }
    if (sent && pen_sender_drain(sender, false, err)) {
        return true;
    }
    worker->failure = pen_sender_failure(sender);
    return false;
}

/* Whether a part that failed is sent again, and how. */
static bool may_repeat(pen_worker *worker, const pen_batch *batch, const pen_error *err, form *how,
                       unsigned *tries)
{
    pen_outcome outcome = pen_replay_judge(&worker->failure, err);
    if (outcome == PEN_OUTCOME_AGAIN) {
        pen_replay_tell(worker, batch, err);
        return true;
    }
    if (outcome != PEN_OUTCOME_ENDED && *how == FORM_PLANNED) {
        pen_worker_distrust(worker, err);
        pen_replay_tell(worker, batch, err);
        *how = FORM_IN_ORDER;
        *tries = 0;
        return true;
    }
    if (outcome == PEN_OUTCOME_CONFLICT && *how == FORM_IN_ORDER &&
        worker->stream->options->on_conflict != PEN_CONFLICT_ERROR) {
        *how = FORM_ROWS;
        *tries = 0;
        return true;
    }
    return false;
}

/* One part, until all that is in it is on the target. */
static bool apply_part(pen_worker *worker, const pen_batch *batch, const pen_segment *seg,
                       bool first, pen_error *err)
{
    bool reopen = true;
    form how = worker->stream->options->apply == PEN_APPLY_SETS ? FORM_PLANNED : FORM_IN_ORDER;
    /* What the parts before have settled stays settled. */
    pen_conflict_list before = worker->conflicts;
    worker->conflicts = (pen_conflict_list){0};
    unsigned deadlocks = 0;
    for (unsigned tries = 0;; tries++) {
        if (reopen && !open_part(worker, first, err)) {
            worker->failure = pen_sender_failure(&worker->sender);
        } else if (fill_part(worker, seg, how, err)) {
            pen_conflict_list_join(&before, &worker->conflicts);
            worker->conflicts = before;
            return true;
        }
        pen_conflict_list_clear(&worker->conflicts);
        deadlocks += strcmp(err->sqlstate, "40P01") == 0;
        form was = how;
        if (!may_repeat(worker, batch, err, &how, &tries)) {
            break;
        }
        if (deadlocks > DEADLOCK_TRIES && !first) {
            (void)lose(batch, err);
            worker->failure = (pen_failure){.own = PEN_OWN_NONE, .rows = -1};
            break;
        }
        if (!back_to_part(worker, batch, first, &reopen, err)) {
            worker->failure = (pen_failure){.own = PEN_OWN_NONE, .rows = -1};
            break;
        }
        if (was == how && !pen_replay_pause(worker, tries, err)) {
            break;
        }
    }
    pen_conflict_list_clear(&before);
    return false;
}

/* The next segment, or NULL: none is there now (*state is PEN_FEED_OPEN), or it ended. With `wait`
 * it sleeps for one. */
static pen_segment *next_segment(pen_worker *worker, pen_feed *feed, bool wait,
                                 pen_feed_state *state)
{
    for (;;) {
        /* [FEED-3] release and acquire in one exchange: the dispatcher lowers the flag after it
         * pushed, so either it finds the flag and wakes us, or we find the segment below. */
        pen_cell_publish(&feed->worker, worker->number + 1);
        pen_flag_raise(&feed->wants_segment);
        pen_parker_prepare(&worker->parker);
        /* [FEED-2] acquire: read before the ring is looked at for the last time; pairs with the
         * release in the dispatcher. */
        *state = (pen_feed_state)pen_cell_read(&feed->out_state);
        pen_segment *seg = pen_ring_pop(&feed->out);
        if (seg != NULL && pen_flag_lower(&feed->wants_room)) {
            pen_parker_wake(&worker->stream->baton_parker);
        }
        if (seg != NULL || !wait || *state != PEN_FEED_OPEN ||
            pen_stream_stopping(worker->stream) == PEN_STOP_ABORT) {
            pen_parker_cancel(&worker->parker);
            return seg;
        }
        (void)pen_meter_park(PEN_METRIC_WORKER_INPUT, &worker->parker, -1, 0, PEN_PARK_FOREVER);
    }
}

void pen_large_release(pen_worker *worker)
{
    for (pen_segment *seg = worker->sent_first; seg != NULL;) {
        pen_segment *next = seg->next;
        pen_block_release(seg->block);
        seg = next;
    }
    worker->sent_first = NULL;
    worker->sent_last = NULL;
    worker->sent_count = 0;
}

static void keep_segment(pen_worker *worker, pen_segment *seg)
{
    seg->next = NULL;
    if (worker->sent_last == NULL) {
        worker->sent_first = seg;
    } else {
        worker->sent_last->next = seg;
    }
    worker->sent_last = seg;
    worker->sent_count++;
}

/* The segments taken are on the target, in the open transaction: their memory is given back. */
static void settle_sent(pen_worker *worker, pen_feed *feed)
{
    /* [FEED-5] release: pairs with the acquire in the reader. */
    pen_cell_publish(&feed->done, pen_cell_read(&feed->done) + worker->sent_count);
    pen_large_release(worker);
    pen_parker_wake(&worker->stream->reader_parker);
}

/* Applies what comes by the feed, until the transaction's Commit, or the word that this will not
 * come (*discarded). */
static bool apply_feed(pen_worker *worker, const pen_batch *batch, pen_feed *feed, bool *discarded,
                       pen_error *err)
{
    for (;;) {
        pen_feed_state state = PEN_FEED_OPEN;
        pen_segment *seg = next_segment(worker, feed, worker->sent_count == 0, &state);
        if (seg != NULL) {
            keep_segment(worker, seg);
        }
        bool full = seg == NULL || worker->sent_count == PEN_FED_AT_ONCE;
        if (full && worker->sent_count > 0) {
            if (!apply_part(worker, batch, worker->sent_first, false, err)) {
                return false;
            }
            settle_sent(worker, feed);
        }
        if (seg == NULL && state != PEN_FEED_OPEN) {
            *discarded = state == PEN_FEED_DISCARDED;
            return true;
        }
        if (seg == NULL && pen_stream_stopping(worker->stream) == PEN_STOP_ABORT) {
            /* The stream ends before the transaction: closing the session rolls it back. */
            return pen_error_set(err, PEN_ERROR_NONE, "stopped");
        }
    }
}

/* The COMMIT, behind a progress row that is known to be right. */
static bool commit(pen_worker *worker, const pen_batch *batch, pen_error *err)
{
    pen_sender *sender = &worker->sender;
    bool applied = true;
    if (!pen_sender_commit(sender, err)) {
        pen_error later;
        worker->failure = pen_sender_failure(sender);
        applied = worker->failure.answered && pen_sender_roll_back(sender, &later) &&
                  pen_sender_is_applied(sender, worker->next_txn, &applied, &later) && applied;
        if (!applied && pen_replay_judge(&worker->failure, err) == PEN_OUTCOME_AGAIN) {
            return lose(batch, err);
        }
    }
    if (applied) {
        pen_conflicts_commit(&worker->stream->conflicts, &worker->conflicts);
    }
    return applied;
}

/* The source was lost in the middle of it, or the stream ends there: it comes again. */
static bool discard(pen_worker *worker, pen_error *err)
{
    pen_conflict_list_clear(&worker->conflicts);
    return pen_sender_roll_back(&worker->sender, err);
}

bool pen_large_apply(pen_worker *worker, pen_batch *batch, bool *discarded, pen_error *err)
{
    pen_feed *feed = batch->feed;
    pen_txn *txn = batch->first;
    if (pen_handover_wait_for_turn(&worker->stream->handover, worker->number, batch->number,
                                   false) != PEN_TURN_COME) {
        return pen_error_set(err, PEN_ERROR_NONE, "stopped");
    }
    if (!apply_part(worker, batch, txn->first, true, err)) {
        return false;
    }
    pen_cell_publish(&feed->done, 1);
    if (!apply_feed(worker, batch, feed, discarded, err)) {
        return false;
    }
    if (*discarded) {
        return discard(worker, err);
    }
    txn->end_lsn = feed->end_lsn;
    txn->commit_time = feed->commit_time;
    batch->change_count = feed->change_count;
    batch->bytes = feed->bytes;
    return apply_part(worker, batch, NULL, false, err) && commit(worker, batch, err);
}
