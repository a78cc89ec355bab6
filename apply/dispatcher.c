#include "apply/dispatcher.h"

#include "apply/catalog.h"
#include "apply/keys.h"
#include "apply/preflight.h"
#include "core/conflict.h"
#include "core/feed.h"
#include "core/log.h"

#include <inttypes.h>
#include <stdlib.h>

/* 64 Ki buckets of 3 entries: 4 MiB, some 200,000 keys that are not committed yet. */
#define CONFLICT_BUCKETS (64u * 1024u)

struct pen_dispatcher {
    pen_stream *stream;
    pen_pgconn *catalog;
    pen_conflict *conflicts;
    pen_target **targets; /* all that were resolved, to be freed at the end */
    size_t target_count;
    size_t target_capacity;
    bool has_barriers; /* some table is of PEN_SCOPE_ALL: every change reads that key */
    /* the batch that comes next, when the open place is empty */
    uint64_t next_number;
    uint64_t fed_number; /* of the last large transaction's batch: all that follows waits for it */
    pen_lsn last_commit_lsn; /* of the newest transaction in a batch */
    pen_key_list keys;       /* of the change at hand */
    /* to show how much could run beside the batches before */
    uint64_t change_count;
    uint64_t bound_count; /* had to wait for a batch that had not committed yet */
};

pen_dispatcher *pen_dispatcher_create(pen_stream *stream, pen_pgconn *catalog)
{
    pen_dispatcher *d = pen_calloc(1, sizeof(*d));
    d->stream = stream;
    d->catalog = catalog;
    pen_pgconn_make_stoppable(catalog, &stream->dispatcher_parker, &stream->stop, PEN_STOP_ABORT);
    d->conflicts = pen_conflict_create(CONFLICT_BUCKETS);
    d->next_number = 1;
    d->last_commit_lsn = stream->resume.commit_lsn;
    return d;
}

void pen_dispatcher_destroy(pen_dispatcher *d)
{
    if (d == NULL) {
        return;
    }
    for (size_t i = 0; i < d->target_count; i++) {
        pen_target_destroy(d->targets[i]);
    }
    free(d->targets);
    pen_key_list_deinit(&d->keys);
    pen_conflict_destroy(d->conflicts);
    pen_pgconn_close(d->catalog);
    free(d);
}

/* Finds out what a relation version is on the target, the first time a change of it comes. */
static bool resolve(pen_dispatcher *d, const pen_relation *rel, pen_error *err)
{
    const pen_stream *stream = d->stream;
    pen_target *target = NULL;
    switch (pen_catalog_resolve(d->catalog, rel, stream->resume.replica_role, &stream->format,
                                &target, err)) {
    case PEN_RESOLVED:
        break;
    case PEN_RESOLVE_MISSING: {
        /* The source knows the column's type and default, which make the exact ALTER. */
        pen_error better;
        if (!pen_preflight_table(stream->options, d->catalog, rel, &better)) {
            *err = better;
        }
        return false;
    }
    case PEN_RESOLVE_FAILED:
        return false;
    }
    if (d->target_count == d->target_capacity) {
        d->target_capacity = d->target_capacity == 0 ? 64 : d->target_capacity * 2;
        d->targets = pen_realloc(d->targets, d->target_capacity * sizeof(pen_target *));
    }
    d->targets[d->target_count++] = target;
    /* The reader makes versions and never looks at this field; workers read it once they hold a
     * batch, which is handed over after this. */
    ((pen_relation *)(uintptr_t)rel)->target = target;
    d->has_barriers |= target->scope == PEN_SCOPE_ALL;
    if (target->scope != PEN_SCOPE_ROW) {
        pen_log(PEN_LOG_INFO, "%s of %s are applied one batch after the other: %s",
                target->scope == PEN_SCOPE_APPEND ? "updates and deletes" : "changes", target->name,
                target->scope_reason);
    }
    return true;
}

static bool resolve_change(pen_dispatcher *d, const pen_change *chg, pen_error *err)
{
    if (chg->kind != PEN_CHANGE_TRUNCATE) {
        return chg->rel->target != NULL || resolve(d, chg->rel, err);
    }
    for (uint32_t i = 0; i < chg->truncated_count; i++) {
        if (chg->truncated[i]->target == NULL && !resolve(d, chg->truncated[i], err)) {
            return false;
        }
    }
    return true;
}

static bool resolve_segment(pen_dispatcher *d, const pen_segment *seg, pen_lsn commit_lsn,
                            pen_error *err)
{
    for (const pen_change *chg = seg->first; chg != NULL; chg = chg->next) {
        if (!resolve_change(d, chg, err)) {
            err->lsn = commit_lsn;
            return false;
        }
    }
    return true;
}

static bool resolve_txn(pen_dispatcher *d, const pen_txn *txn, pen_error *err)
{
    for (const pen_segment *seg = txn->first; seg != NULL; seg = seg->next) {
        if (!resolve_segment(d, seg, txn->commit_lsn, err)) {
            return false;
        }
    }
    return true;
}

/* Writes down what `chg` is bound to as a change of batch `number`. */
static void bind_change(pen_dispatcher *d, pen_change *chg, uint64_t number, uint64_t committed)
{
    bool after_all = pen_keys_extract(&d->keys, chg, d->has_barriers);
    chg->bound = pen_conflict_touch_after(d->conflicts, d->keys.keys, d->keys.count, number,
                                          committed, after_all ? number - 1 : d->fed_number);
    d->change_count++;
    d->bound_count += chg->bound > committed;
}

/* Where foreign keys are enforced on the target too, ON DELETE CASCADE takes the rows that the
 * stream then tells to delete. Only for a delete behind such a parent's, in the same transaction
 * and among tables that are tied together, a missing row is no conflict. `group` is that of the
 * newest such parent, 0 for none. */
static void note_cascade(pen_change *chg, uint64_t *group)
{
    const pen_target *target = chg->kind == PEN_CHANGE_DELETE ? chg->rel->target : NULL;
    if (target == NULL) {
        return;
    }
    chg->may_be_missing = target->cascades_to && target->group_hash == *group;
    if (target->cascades_from) {
        *group = target->group_hash;
    }
}

static void bind_txn(pen_dispatcher *d, pen_txn *txn, uint64_t number)
{
    uint64_t committed = pen_handover_committed(&d->stream->handover);
    uint64_t cascade_group = 0;
    for (pen_segment *seg = txn->first; seg != NULL; seg = seg->next) {
        for (pen_change *chg = seg->first; chg != NULL; chg = chg->next) {
            bind_change(d, chg, number, committed);
            note_cascade(chg, &cascade_group);
        }
    }
}

/* Takes what a segment's reader gave into a full ring: it may go on. */
static void wake_reader(pen_dispatcher *d)
{
    if (pen_flag_lower(&d->stream->reader_wants_slot)) {
        pen_parker_wake(&d->stream->reader_parker);
    }
}

/* The next segment of a large transaction, or NULL when it ended (*state says how) or on a stop. */
static pen_segment *next_segment(pen_dispatcher *d, pen_feed *feed, pen_feed_state *state)
{
    pen_stream *stream = d->stream;
    for (;;) {
        pen_parker_prepare(&stream->dispatcher_parker);
        /* [FEED-1] acquire: read before the ring is looked at for the last time; pairs with the
         * release in the reader. */
        *state = (pen_feed_state)pen_cell_read(&feed->in_state);
        pen_segment *seg = pen_ring_pop(&feed->in);
        if (seg != NULL || *state != PEN_FEED_OPEN ||
            pen_stream_stopping(stream) == PEN_STOP_ABORT) {
            pen_parker_cancel(&stream->dispatcher_parker);
            return seg;
        }
        (void)pen_parker_park(&stream->dispatcher_parker, -1, 0, PEN_PARK_FOREVER);
    }
}

static void wake_feed_worker(pen_dispatcher *d, pen_feed *feed)
{
    if (pen_flag_lower(&feed->wants_segment)) {
        pen_handover_wake_worker(&d->stream->handover, (unsigned)pen_cell_read(&feed->worker) - 1);
    }
}

/* Gives a resolved segment to the worker; false on a stop, and then `seg` is still the caller's. */
static bool pass_segment(pen_dispatcher *d, pen_feed *feed, pen_segment *seg)
{
    pen_stream *stream = d->stream;
    while (!pen_ring_push(&feed->out, seg)) {
        pen_flag_raise(&feed->wants_room);
        pen_parker_prepare(&stream->dispatcher_parker);
        bool pushed = pen_ring_push(&feed->out, seg);
        if (pushed || pen_stream_stopping(stream) == PEN_STOP_ABORT) {
            pen_parker_cancel(&stream->dispatcher_parker);
            if (!pushed) {
                return false;
            }
            break;
        }
        (void)pen_parker_park(&stream->dispatcher_parker, -1, 0, PEN_PARK_FOREVER);
    }
    wake_feed_worker(d, feed);
    return true;
}

/* Lets a large transaction's segments flow to the worker that has its batch, until it ends. */
static bool pass_feed(pen_dispatcher *d, pen_feed *feed, uint64_t cascade_group, pen_lsn commit_lsn,
                      pen_error *err)
{
    for (;;) {
        pen_feed_state state = PEN_FEED_OPEN;
        pen_segment *seg = next_segment(d, feed, &state);
        if (seg == NULL) {
            /* [FEED-2] release: every segment is in the ring; pairs with the acquire in the worker.
             */
            pen_cell_publish(&feed->out_state, state);
            wake_feed_worker(d, feed);
            return state != PEN_FEED_OPEN || pen_error_set(err, PEN_ERROR_NONE, "stopped");
        }
        wake_reader(d);
        bool resolved = resolve_segment(d, seg, commit_lsn, err);
        for (pen_change *chg = seg->first; resolved && chg != NULL; chg = chg->next) {
            note_cascade(chg, &cascade_group);
        }
        if (!resolved || !pass_segment(d, feed, seg)) {
            pen_block_release(seg->block);
            return resolved ? pen_error_set(err, PEN_ERROR_NONE, "stopped") : false;
        }
    }
}

/* Begins the next batch for `txn`, or gives the open one when it fits in; NULL on a stop. */
static pen_batch *batch_for(pen_dispatcher *d, const pen_txn *txn)
{
    pen_stream *stream = d->stream;
    pen_batch *batch = pen_handover_take_back(&stream->handover);
    if (batch != NULL && !pen_batch_has_room(batch, txn, &stream->limits)) {
        pen_handover_offer(&stream->handover, batch);
        if (!pen_handover_wait_for_room(&stream->handover)) {
            return NULL;
        }
        batch = NULL;
    }
    return batch != NULL ? batch : pen_batch_create(d->next_number++, d->last_commit_lsn);
}

/* A large transaction: its batch runs at its turn, so nothing in it is bound, and all that follows
 * is bound to it. */
static bool dispatch_fed(pen_dispatcher *d, pen_batch *batch, pen_txn *txn, pen_error *err)
{
    pen_feed *feed = txn->feed;
    pen_lsn commit_lsn = txn->commit_lsn;
    uint64_t cascade_group = 0;
    for (pen_segment *seg = txn->first; seg != NULL; seg = seg->next) {
        for (pen_change *chg = seg->first; chg != NULL; chg = chg->next) {
            note_cascade(chg, &cascade_group);
        }
    }
    d->fed_number = batch->number;
    pen_feed_acquire(feed); /* the worker may be done with the transaction before we are */
    pen_batch_add(batch, txn);
    pen_handover_offer(&d->stream->handover, batch);
    bool ok = pass_feed(d, feed, cascade_group, commit_lsn, err);
    pen_feed_release(feed);
    return ok;
}

/* Adds `txn` to the open batch, or begins the next one. Takes `txn`. */
static bool dispatch(pen_dispatcher *d, pen_txn *txn, pen_error *err)
{
    if (!resolve_txn(d, txn, err)) {
        pen_txn_release(txn);
        return false;
    }
    pen_batch *batch = batch_for(d, txn);
    if (batch == NULL) {
        pen_txn_release(txn);
        return pen_error_set(err, PEN_ERROR_NONE, "stopped");
    }
    d->last_commit_lsn = txn->commit_lsn;
    if (txn->feed != NULL) {
        return dispatch_fed(d, batch, txn, err);
    }
    bind_txn(d, txn, batch->number);
    pen_batch_add(batch, txn);
    pen_handover_offer(&d->stream->handover, batch);
    return true;
}

void pen_dispatcher_run(void *arg)
{
    pen_dispatcher *d = arg;
    pen_stream *stream = d->stream;
    PEN_ASSERT(pen_thread_role() == PEN_ROLE_DISPATCHER);
    while (pen_stream_stopping(stream) != PEN_STOP_ABORT) {
        pen_txn *txn = pen_ring_pop(&stream->txns);
        if (txn == NULL) {
            pen_parker_prepare(&stream->dispatcher_parker);
            /* [INPUT-1] acquire: read before the ring is looked at for the last time; pairs with
             * the release in the reader. */
            bool input_done = pen_cell_read(&stream->input_done);
            txn = pen_ring_pop(&stream->txns);
            if (txn == NULL && input_done) {
                pen_parker_cancel(&stream->dispatcher_parker);
                pen_handover_end(&stream->handover);
                pen_log(PEN_LOG_DEBUG,
                        "of %" PRIu64 " changes %" PRIu64 " had to wait for an earlier batch",
                        d->change_count, d->bound_count);
                return;
            }
            if (txn == NULL && pen_stream_stopping(stream) != PEN_STOP_ABORT) {
                (void)pen_parker_park(&stream->dispatcher_parker, -1, 0, PEN_PARK_FOREVER);
                continue;
            }
            pen_parker_cancel(&stream->dispatcher_parker);
            if (txn == NULL) {
                continue;
            }
        }
        wake_reader(d);
        pen_error err;
        if (!dispatch(d, txn, &err)) {
            pen_stream_fail(stream, &err);
            return;
        }
    }
}
