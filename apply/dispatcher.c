#include "apply/dispatcher.h"

#include "apply/eager.h"
#include "apply/feeding.h"
#include "apply/former.h"
#include "apply/keys.h"
#include "apply/targets.h"
#include "core/eager.h"
#include "core/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Keys that are hashed before their transactions' turn; one transaction may go beyond it. */
#define KEYS_AHEAD (32u * 1024u)

/* A transaction that was taken and is not dispatched yet. */
typedef struct prepared {
    pen_txn *txn;
    bool hashed;   /* the next three say what; else it is done with the baton */
    bool barriers; /* what was known then: see apply/targets.h */
    size_t first_key;
    size_t key_count;
    size_t first_change;
} prepared;

/* All that hashing needs, grown to what it once needed and then used again. */
typedef struct pen_dispatcher {
    pen_dispatchers *all;
    pen_thread thread;
    unsigned number;
    uint64_t run;    /* the one it is at */
    unsigned in_run; /* transactions of it that were dispatched */
    prepared ahead[PEN_RUN];
    unsigned first; /* of those not dispatched yet */
    unsigned count; /* behind the last of them */
    pen_key_list keys;
    pen_change_keys *changes;
    size_t change_count;
    size_t change_capacity;
} pen_dispatcher;

struct pen_dispatchers {
    pen_stream *stream;
    unsigned count;
    pen_countdown left;
    /* for who holds the baton */
    pen_former *former;
    pen_targets *targets;
    uint64_t eager_number; /* of the transaction in progress whose parts came last */
    pen_cascades eager_cascades;
    pen_dispatcher each[PEN_DISPATCHERS_MAX];
};

/* Keys */

static void note_change(pen_dispatcher *d, size_t key_count, bool after_all)
{
    if (d->change_count == d->change_capacity) {
        d->change_capacity = d->change_capacity == 0 ? 64 : d->change_capacity * 2;
        d->changes = pen_realloc(d->changes, d->change_capacity * sizeof(*d->changes));
    }
    d->changes[d->change_count++] =
        (pen_change_keys){.key_count = (uint32_t)key_count, .after_all = after_all};
}

/* Appends the keys of all changes; false at one that may not be looked at without the baton, and
 * then nothing is appended. */
static bool hash(pen_dispatcher *d, prepared *it, bool with_baton)
{
    pen_cascades cascades = {0};
    it->barriers = pen_targets_have_barriers(d->all->targets);
    it->first_key = d->keys.count;
    it->first_change = d->change_count;
    for (pen_segment *seg = it->txn->first; seg != NULL; seg = seg->next) {
        for (pen_change *chg = seg->first; chg != NULL; chg = chg->next) {
            if (!with_baton && !pen_targets_are_settled(chg)) {
                d->keys.count = it->first_key;
                d->change_count = it->first_change;
                return false;
            }
            size_t before = d->keys.count;
            bool after_all = pen_keys_extract(&d->keys, chg, it->barriers);
            note_change(d, d->keys.count - before, after_all);
            pen_note_cascade(chg, &cascades);
            if (with_baton) {
                pen_targets_settle(chg);
            }
        }
    }
    it->key_count = d->keys.count - it->first_key;
    return true;
}

/* Takes `txn`, and does what needs no baton. */
static void prepare(pen_dispatcher *d, pen_txn *txn)
{
    prepared *it = &d->ahead[d->count++];
    it->txn = txn;
    it->hashed = !pen_txn_is_alone(txn) && hash(d, it, false);
}

static bool resolve_txn(pen_dispatcher *d, const pen_txn *txn, pen_error *err)
{
    for (const pen_segment *seg = txn->first; seg != NULL; seg = seg->next) {
        if (!pen_feeding_resolve(d->all->targets, seg, txn->commit_lsn, err)) {
            return false;
        }
    }
    return true;
}

/* With the baton: what could not be done without, or has become wrong since. */
static bool hash_again(pen_dispatcher *d, prepared *it, pen_error *err)
{
    if (it->hashed && it->barriers == pen_targets_have_barriers(d->all->targets)) {
        return true;
    }
    return resolve_txn(d, it->txn, err) && (pen_txn_is_alone(it->txn) || hash(d, it, true));
}

/* With the baton */

/* Lets the workers have `batch`, to which `txn` was added last, unless it is worth the wait for
 * more: nobody waits for a transaction that was late already when the source sent it, and one large
 * batch costs far less than many small ones. */
static void let_out(pen_dispatchers *all, pen_batch *batch, bool behind)
{
    pen_stream *stream = all->stream;
    const pen_batch_limits enough = pen_filling_enough(&stream->filling);
    const pen_batch_limits plenty = pen_filling_plenty(&stream->filling);
    bool hold = behind && !pen_batch_is_full(batch, &enough);
    bool grows = behind && !pen_batch_is_full(batch, &plenty);
    if (hold) {
        pen_meter_add(PEN_METRIC_BATCHES_HELD, !batch->held);
        batch->held = true;
        pen_handover_hold(&stream->handover, batch);
    } else if (grows) {
        /* As long as it can grow, who is at work keeps up: more workers would only take the
         * target's processors from each other. */
        pen_handover_offer_to_busy(&stream->handover, batch);
    } else if (!behind && !batch->alone && pen_filling_is_quick(&stream->filling, batch)) {
        /* Until the batch before has committed nobody is woken for it, and others may join it. Far
         * behind it is the workers side by side that count. */
        pen_handover_follow(&stream->handover, batch);
    } else {
        pen_handover_offer(&stream->handover, batch);
    }
    pen_dealing_tell_dry(&stream->dealing, grows);
}

/* Nothing comes any more to fill it. */
static void let_out_held(pen_dispatchers *all)
{
    pen_meter_add(PEN_METRIC_BATCHES_DRY, 1);
    pen_handover_offer_held(&all->stream->handover);
    pen_dealing_tell_dry(&all->stream->dealing, false);
}

/* The open batch when `txn` fits in, or else the next one; NULL when a full one must be taken
 * first. */
static pen_batch *batch_now(pen_dispatchers *all, const pen_txn *txn)
{
    pen_handover *handover = &all->stream->handover;
    pen_batch *batch = pen_handover_take_back(handover);
    const pen_batch_limits most = pen_filling_most(&all->stream->filling);
    if (batch == NULL) {
        return pen_former_begin(all->former);
    }
    if (pen_batch_is_full(batch, &most) || !pen_former_has_room(all->former, batch, txn)) {
        pen_handover_offer(handover, batch);
        return NULL;
    }
    return batch;
}

/* The same, but waits for that; NULL on a stop. */
static pen_batch *batch_for(pen_dispatchers *all, const pen_txn *txn)
{
    pen_batch *batch = batch_now(all, txn);
    if (batch == NULL && pen_handover_wait_for_room(&all->stream->handover)) {
        batch = pen_former_begin(all->former);
    }
    return batch;
}

/* Adds the transaction, which it takes, to `batch`. */
static void add(pen_dispatcher *d, const prepared *it, pen_batch *batch)
{
    pen_dispatchers *all = d->all;
    const pen_txn_keys keys = {.keys = d->keys.keys + it->first_key,
                               .key_count = it->key_count,
                               .changes = d->changes + it->first_change};
    pen_former_counts before = pen_former_count(all->former);
    pen_former_add(all->former, batch, it->txn, &keys,
                   pen_handover_committed(&all->stream->handover));
    pen_former_counts counts = pen_former_count(all->former);
    pen_meter_add(PEN_METRIC_CHANGES_BOUND, counts.bound - before.bound);
    pen_meter_add(PEN_METRIC_EVICTIONS, counts.evictions - before.evictions);
}

/* Gives a part of a transaction in progress, which it takes, to the eager worker, behind all
 * batches so far. Where that cannot be, the transaction waits for its Commit; what is wrong with
 * it, such as a table that the target lacks, is told then. */
static bool dispatch_part(pen_dispatcher *d, pen_txn *part, pen_error *err)
{
    pen_dispatchers *all = d->all;
    pen_eager *eager = part->eager;
    bool fits = false;
    if (pen_eager_is_alive(eager) && !pen_targets_resolve_early(all->targets, part, &fits, err)) {
        pen_txn_release(part);
        return false;
    }
    if (fits) {
        if (all->eager_number != eager->number) {
            all->eager_number = eager->number;
            all->eager_cascades = (pen_cascades){0};
        }
        pen_feeding_note_cascades(&all->eager_cascades, part->first);
        part->after = pen_former_newest(all->former);
        pen_handover_offer_held(&all->stream->handover);
        pen_dealing_tell_dry(&all->stream->dealing, false);
        if (pen_eager_worker_give(all->stream->eager, part)) {
            return true;
        }
    }
    /* [EAGER-1] release: pairs with the acquire in pen_eager_is_alive. */
    pen_cell_publish(&eager->failed, 1);
    pen_txn_release(part);
    pen_parker_wake(&all->stream->reader_parker);
    return true;
}

/* Adds the transaction to the open batch, or begins the next one. Takes it. *until: the newest
 * batch that has nothing of it, where it fails. */
static bool dispatch(pen_dispatcher *d, prepared *it, uint64_t *until, pen_error *err)
{
    pen_dispatchers *all = d->all;
    pen_batch *batch = NULL;
    *until = pen_former_newest(all->former);
    if (pen_txn_is_part(it->txn)) {
        return dispatch_part(d, it->txn, err);
    }
    if (!hash_again(d, it, err)) {
        pen_txn_release(it->txn);
        return false;
    }
    batch = batch_for(all, it->txn);
    if (batch == NULL) {
        pen_txn_release(it->txn);
        return pen_error_set(err, PEN_ERROR_NONE, "stopped");
    }
    if (it->txn->feed != NULL) {
        pen_feeding feeding;
        pen_feeding_begin(&feeding, all->stream, all->targets, it->txn);
        pen_former_add(all->former, batch, it->txn, NULL, 0);
        let_out(all, batch, false);
        bool discarded = false;
        bool ok = pen_feeding_pass(&feeding, &discarded, err);
        if (discarded) {
            pen_former_forget_fed(all->former);
        }
        return ok;
    }
    if (it->txn->eager != NULL) {
        pen_former_add(all->former, batch, it->txn, NULL, 0);
        let_out(all, batch, false);
        return true;
    }
    bool behind = it->txn->behind; /* it is the batch's from the next line on */
    add(d, it, batch);
    let_out(all, batch, behind);
    return true;
}

static void forget_prepared(pen_dispatcher *d)
{
    d->first = 0;
    d->count = 0;
    d->keys.count = 0;
    d->change_count = 0;
}

/* The target must be made fit for this transaction, of which it lacks a table or a column. What
 * comes before it goes to the target as that is now: once it is changed, by another name for a
 * table for one, it may not take that any more. */
static void fail(pen_dispatchers *all, uint64_t until, const pen_error *err)
{
    if (err->kind == PEN_ERROR_FATAL) {
        pen_handover_finish(&all->stream->handover, until);
    }
    pen_stream_fail(all->stream, err);
}

static void dispatch_next(pen_dispatcher *d)
{
    pen_error err;
    uint64_t until = 0;
    if (!dispatch(d, &d->ahead[d->first++], &until, &err)) {
        fail(d->all, until, &err);
    }
    if (d->first == d->count) {
        forget_prepared(d);
    }
    if (++d->in_run == PEN_RUN) {
        pen_dealing_pass(&d->all->stream->dealing, d->run);
        d->run += d->all->count;
        d->in_run = 0;
    }
}

/* The reader, in the role of the only dispatcher, which sleeps and has nothing prepared: what can
 * neither fail nor wait. What has come together goes out together, so nobody gets the batch before
 * all that is there was looked at. */
static bool dispatch_directly(void *arg, pen_txn *txn)
{
    pen_dispatchers *all = arg;
    pen_dispatcher *d = &all->each[0];
    PEN_ASSERT(pen_thread_role() == PEN_ROLE_READER && d->count == 0);
    prepare(d, txn);
    const prepared *it = &d->ahead[0];
    pen_batch *batch = it->hashed ? batch_now(all, txn) : NULL;
    if (batch != NULL) {
        add(d, it, batch);
        pen_handover_hold(&all->stream->handover, batch);
        pen_meter_add(PEN_METRIC_TRANSACTIONS_DIRECT, 1);
    }
    forget_prepared(d);
    return batch != NULL;
}

/* The reader, in the same role. */
static void let_out_directly(void *arg)
{
    pen_dispatchers *all = arg;
    PEN_ASSERT(pen_thread_role() == PEN_ROLE_READER);
    pen_batch *batch = pen_handover_take_held(&all->stream->handover);
    if (batch != NULL) {
        let_out(all, batch, false);
    }
}

/* The threads */

/* True when one more transaction may be prepared: of this run, and not behind one that waits for
 * the baton, because more would likely do so too. */
static bool wants_txn(const pen_dispatcher *d)
{
    unsigned waiting = d->count - d->first;
    return waiting == 0 || (d->in_run + waiting < PEN_RUN && d->keys.count < KEYS_AHEAD &&
                            d->ahead[d->count - 1].hashed);
}

/* The last one to come to the end tells the workers. */
static void leave(pen_dispatchers *all)
{
    if (!pen_countdown_leave(&all->left)) {
        return;
    }
    pen_handover_end(&all->stream->handover);
    pen_former_counts counts = pen_former_count(all->former);
    pen_log(PEN_LOG_DEBUG,
            "of %" PRIu64 " changes %" PRIu64 " had to wait for an earlier batch; the conflict "
            "table was too small for %" PRIu64 " keys",
            counts.changes, counts.bound, counts.evictions);
}

/* Dispatches what comes, until nothing will. */
static void run_until_end(pen_dispatcher *d)
{
    pen_dealing *dealing = &d->all->stream->dealing;
    for (;;) {
        pen_txn *txn = NULL;
        switch (
            pen_dealing_next(dealing, d->number, d->run, wants_txn(d), d->first < d->count, &txn)) {
        case PEN_DEALT_TXN:
            prepare(d, txn);
            break;
        case PEN_DEALT_TURN:
            dispatch_next(d);
            break;
        case PEN_DEALT_DRY:
            let_out_held(d->all);
            break;
        case PEN_DEALT_OVER:
            leave(d->all);
            return;
        case PEN_DEALT_STOPPED:
            return;
        }
    }
}

static void run(void *arg)
{
    pen_dispatcher *d = arg;
    PEN_ASSERT(pen_thread_role() == PEN_ROLE_DISPATCHER);
    pen_thread_be_patient();
    pen_meter_begin(pen_stream_dispatcher_meter(d->all->stream, d->number),
                    PEN_METRIC_DISPATCHER_TIME);
    run_until_end(d);
    while (d->first < d->count) {
        pen_txn_release(d->ahead[d->first++].txn);
    }
    pen_meter_end();
}

pen_dispatchers *pen_dispatchers_create(pen_stream *stream, pen_pgconn *catalog)
{
    pen_dispatchers *all = pen_calloc(1, sizeof(*all));
    all->stream = stream;
    all->count = stream->dealing.count;
    pen_countdown_init(&all->left, all->count);
    all->former = pen_former_create(stream->options->conflict_memory, &stream->filling.limits,
                                    stream->resume.commit_lsn);
    all->targets = pen_targets_create(stream, catalog);
    for (unsigned i = 0; i < all->count; i++) {
        all->each[i].all = all;
        all->each[i].number = i;
        all->each[i].run = i;
    }
    const pen_direct direct = {
        .dispatch = dispatch_directly, .let_out = let_out_directly, .arg = all};
    pen_dealing_set_direct(&stream->dealing, &direct);
    return all;
}

void pen_dispatchers_destroy(pen_dispatchers *all)
{
    if (all == NULL) {
        return;
    }
    for (unsigned i = 0; i < all->count; i++) {
        pen_key_list_deinit(&all->each[i].keys);
        free(all->each[i].changes);
    }
    pen_former_destroy(all->former);
    pen_targets_destroy(all->targets);
    free(all);
}

bool pen_dispatchers_start(pen_dispatchers *all, pen_error *err)
{
    bool ok = true;
    for (unsigned i = 0; ok && i < all->count; i++) {
        char name[24];
        snprintf(name, sizeof(name), all->count == 1 ? "dispatcher" : "dispatch %u", i + 1);
        ok = pen_thread_start(&all->each[i].thread, PEN_ROLE_DISPATCHER, name, run, &all->each[i],
                              err);
    }
    return ok;
}

void pen_dispatchers_join(pen_dispatchers *all)
{
    for (unsigned i = 0; all != NULL && i < all->count; i++) {
        pen_thread_join(&all->each[i].thread);
    }
}
