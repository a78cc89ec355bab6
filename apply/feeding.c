#include "apply/feeding.h"

#include "apply/relation.h"
#include "core/metrics.h"

#include <string.h>

bool pen_feeding_resolve(pen_targets *targets, const pen_segment *seg, pen_lsn commit_lsn,
                         pen_error *err)
{
    for (const pen_change *chg = seg->first; chg != NULL; chg = chg->next) {
        if (!pen_targets_resolve(targets, chg, err)) {
            err->lsn = commit_lsn;
            return false;
        }
    }
    return true;
}

/* True when the update tells of another identity than the row had. */
static bool moves_row(const pen_target *target, const pen_change *chg)
{
    for (uint16_t i = 0; chg->old_tuple.values != NULL && i < target->key_count; i++) {
        const pen_value *old = &chg->old_tuple.values[target->key[i].index];
        const pen_value *now = &chg->new_tuple.values[target->key[i].index];
        if (now->kind != PEN_VALUE_UNCHANGED &&
            (old->len != now->len ||
             (old->len > 0 && memcmp(old->data, now->data, old->len) != 0))) {
            return true;
        }
    }
    return false;
}

void pen_note_cascade(pen_change *chg, pen_cascades *cascades)
{
    bool is_delete = chg->kind == PEN_CHANGE_DELETE;
    if (!is_delete && chg->kind != PEN_CHANGE_UPDATE) {
        return;
    }
    const pen_target *target = chg->rel->target;
    chg->may_be_missing = is_delete ? target->cascades_to && target->group_hash == cascades->deletes
                                    : target->moves_to && target->group_hash == cascades->moves &&
                                          moves_row(target, chg);
    if (is_delete && target->cascades_from) {
        cascades->deletes = target->group_hash;
    }
    if (target->moves_from) {
        cascades->moves = target->group_hash;
    }
}

static void note_cascades(pen_cascades *cascades, const pen_segment *seg)
{
    for (pen_change *chg = seg->first; chg != NULL; chg = chg->next) {
        pen_note_cascade(chg, cascades);
    }
}

void pen_feeding_note_cascades(pen_cascades *cascades, const pen_segment *first)
{
    for (const pen_segment *seg = first; seg != NULL; seg = seg->next) {
        note_cascades(cascades, seg);
    }
}

void pen_feeding_begin(pen_feeding *feeding, pen_stream *stream, pen_targets *targets, pen_txn *txn)
{
    *feeding = (pen_feeding){
        .stream = stream, .targets = targets, .feed = txn->feed, .commit_lsn = txn->commit_lsn};
    pen_feed_acquire(feeding->feed);
    pen_feeding_note_cascades(&feeding->cascades, txn->first);
}

/* The next segment, or NULL when the transaction ended (*state says how) or on a stop. */
static pen_segment *next_segment(pen_feeding *feeding, pen_feed_state *state)
{
    pen_stream *stream = feeding->stream;
    pen_feed *feed = feeding->feed;
    for (;;) {
        pen_parker_prepare(&stream->baton_parker);
        /* [FEED-1] acquire: read before the ring is looked at for the last time; pairs with the
         * release in the reader. */
        *state = (pen_feed_state)pen_cell_read(&feed->in_state);
        pen_segment *seg = pen_ring_pop(&feed->in);
        if (seg != NULL || *state != PEN_FEED_OPEN ||
            pen_stream_stopping(stream) == PEN_STOP_ABORT) {
            pen_parker_cancel(&stream->baton_parker);
            return seg;
        }
        (void)pen_meter_park(PEN_METRIC_DISPATCHER_INPUT, &stream->baton_parker, -1, 0,
                             PEN_PARK_FOREVER);
    }
}

static void wake_worker(pen_feeding *feeding)
{
    pen_feed *feed = feeding->feed;
    if (pen_flag_lower(&feed->wants_segment)) {
        pen_handover_wake_worker(&feeding->stream->handover,
                                 (unsigned)pen_cell_read(&feed->worker) - 1);
    }
}

/* Gives a resolved segment to the worker; false on a stop, and then `seg` is still the caller's. */
static bool pass_segment(pen_feeding *feeding, pen_segment *seg)
{
    pen_stream *stream = feeding->stream;
    pen_feed *feed = feeding->feed;
    while (!pen_ring_push(&feed->out, seg)) {
        pen_flag_raise(&feed->wants_room);
        pen_parker_prepare(&stream->baton_parker);
        bool pushed = pen_ring_push(&feed->out, seg);
        if (pushed || pen_stream_stopping(stream) == PEN_STOP_ABORT) {
            pen_parker_cancel(&stream->baton_parker);
            if (!pushed) {
                return false;
            }
            break;
        }
        (void)pen_meter_park(PEN_METRIC_DISPATCHER_ROOM, &stream->baton_parker, -1, 0,
                             PEN_PARK_FOREVER);
    }
    wake_worker(feeding);
    return true;
}

static bool pass_all(pen_feeding *feeding, bool *discarded, pen_error *err)
{
    for (;;) {
        pen_feed_state state = PEN_FEED_OPEN;
        pen_segment *seg = next_segment(feeding, &state);
        if (seg == NULL) {
            /* [FEED-2] release: every segment is in the ring; pairs with the acquire in the worker.
             */
            pen_cell_publish(&feeding->feed->out_state, state);
            wake_worker(feeding);
            *discarded = state == PEN_FEED_DISCARDED;
            return state != PEN_FEED_OPEN || pen_error_set(err, PEN_ERROR_NONE, "stopped");
        }
        pen_dealing_wake_reader(&feeding->stream->dealing);
        bool resolved = pen_feeding_resolve(feeding->targets, seg, feeding->commit_lsn, err);
        if (resolved) {
            note_cascades(&feeding->cascades, seg);
        }
        if (!resolved || !pass_segment(feeding, seg)) {
            pen_block_release(seg->block);
            return resolved ? pen_error_set(err, PEN_ERROR_NONE, "stopped") : false;
        }
    }
}

bool pen_feeding_pass(pen_feeding *feeding, bool *discarded, pen_error *err)
{
    bool ok = pass_all(feeding, discarded, err);
    pen_feed_release(feeding->feed);
    return ok;
}
