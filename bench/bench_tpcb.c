/* Decoding and dispatching of TPC-B's transactions, each in the thread that measures. */
#include "apply/former.h"
#include "apply/handover.h"
#include "apply/keys.h"
#include "bench/bench.h"
#include "bench/tpcb.h"
#include "core/ring.h"

#include <stdlib.h>

/* ---- decoding */

enum { DECODED = 200000 };

bool bench_decode_tpcb(double share, double *values)
{
    size_t count = bench_count(DECODED, share);
    tpcb *txns = tpcb_create();
    pen_txn_release(tpcb_next(txns)); /* the relations come with the first */
    double started = bench_cpu_ns();
    for (size_t i = 0; i < count; i++) {
        pen_txn_release(tpcb_next(txns));
    }
    double took = bench_cpu_ns() - started;
    values[0] = took / (double)(count * TPCB_CHANGES);
    values[1] = (double)count * tpcb_bytes(txns) * 1e3 / took;
    tpcb_destroy(txns);
    return true;
}

/* ---- dispatching: from the ring to the open batch, all that a dispatcher does for a transaction
 * whose tables it knows */

enum {
    DISPATCHED = 200000,
    TXNS_A_TURN = 256, /* between two looks at the clock */
    WORKERS = 8,
    MEMORY = 4 * 1024 * 1024,
    BATCH_ROWS = 10000,
    BATCH_TXNS = 2000
};

typedef struct dispatching {
    pen_handover handover;
    pen_ring ring;
    pen_parker parker;
    pen_cell stop;
    pen_former *former;
    pen_key_list keys;
    pen_change_keys changes[TXNS_A_TURN * TPCB_CHANGES];
    size_t change_count;
    pen_batch *batch;          /* the open one, not offered */
    pen_batch *taken[WORKERS]; /* by number; each commits when its place is wanted again */
} dispatching;

static void start(dispatching *it)
{
    const pen_batch_limits limits = {
        .rows = BATCH_ROWS, .bytes = SIZE_MAX, .transactions = BATCH_TXNS};
    pen_error err;
    bench_check(pen_parker_init(&it->parker, &err), &err);
    pen_cell_init(&it->stop, 0);
    pen_handover_init(&it->handover, WORKERS, &it->parker, &it->stop, 1);
    pen_ring_init(&it->ring, (size_t)2 * TXNS_A_TURN);
    it->former = pen_former_create(MEMORY, &limits, PEN_LSN_NONE);
}

static void end(dispatching *it)
{
    pen_batch *left = pen_handover_leftover(&it->handover);
    if (left != NULL) {
        pen_batch_destroy(left);
    }
    for (size_t i = 0; i < WORKERS; i++) {
        if (it->taken[i] != NULL) {
            pen_batch_destroy(it->taken[i]);
        }
    }
    pen_former_destroy(it->former);
    pen_key_list_deinit(&it->keys);
    pen_ring_deinit(&it->ring);
    pen_parker_deinit(&it->parker);
    free(it);
}

/* What the worker does with a full batch, in this thread. */
static void take(dispatching *it)
{
    pen_batch *batch = pen_handover_take(&it->handover, 0);
    pen_batch **place = &it->taken[batch->number % WORKERS];
    if (*place != NULL) {
        pen_batch *following = pen_handover_commit(&it->handover, 0, (*place)->number);
        PEN_ASSERT(following == NULL);
        pen_batch_destroy(*place);
    }
    *place = batch;
}

static void hash(dispatching *it, const pen_txn *txn)
{
    for (const pen_segment *seg = txn->first; seg != NULL; seg = seg->next) {
        for (const pen_change *chg = seg->first; chg != NULL; chg = chg->next) {
            size_t before = it->keys.count;
            bool after_all = pen_keys_extract(&it->keys, chg, false);
            it->changes[it->change_count++] = (pen_change_keys){
                .key_count = (uint32_t)(it->keys.count - before), .after_all = after_all};
        }
    }
}

/* Adds `txn`, whose changes begin at `first_change`; false when the open batch has no room and must
 * be taken first. */
static bool add(dispatching *it, pen_txn *txn, size_t first_key, size_t first_change)
{
    pen_batch *batch = pen_handover_take_back(&it->handover);
    if (batch != NULL && !pen_former_has_room(it->former, batch, txn)) {
        pen_handover_offer(&it->handover, batch);
        return false;
    }
    if (batch == NULL) {
        batch = pen_former_begin(it->former);
    }
    size_t key_count = 0;
    for (size_t i = 0; i < txn->change_count; i++) {
        key_count += it->changes[first_change + i].key_count;
    }
    const pen_txn_keys keys = {.keys = it->keys.keys + first_key,
                               .key_count = key_count,
                               .changes = it->changes + first_change};
    pen_former_add(it->former, batch, txn, &keys, pen_handover_committed(&it->handover));
    pen_handover_offer(&it->handover, batch);
    return true;
}

/* Dispatches what is in the ring; nanoseconds, without what the workers do. */
static double dispatch(dispatching *it, bool hashed)
{
    double took = 0;
    double started = bench_cpu_ns();
    size_t first_key = 0;
    size_t first_change = 0;
    pen_txn *txn;
    while ((txn = pen_ring_pop(&it->ring)) != NULL) {
        if (!hashed) {
            hash(it, txn);
        }
        uint64_t change_count = txn->change_count;
        if (!add(it, txn, first_key, first_change)) {
            took += bench_cpu_ns() - started;
            take(it);
            started = bench_cpu_ns();
            bool added = add(it, txn, first_key, first_change);
            PEN_ASSERT(added);
        }
        for (uint64_t i = 0; i < change_count; i++) {
            first_key += it->changes[first_change++].key_count;
        }
    }
    return took + bench_cpu_ns() - started;
}

static bool run(double share, bool hash_before, double *values)
{
    size_t turns = bench_count(DISPATCHED / TXNS_A_TURN, share);
    tpcb *txns = tpcb_create();
    dispatching *it = pen_alloc_lines(sizeof(*it));
    *it = (dispatching){0};
    start(it);
    double took = 0;
    /* The first turn, with new tables and a cold cache, does not count. */
    for (size_t turn = 0; turn <= turns; turn++) {
        it->keys.count = 0;
        it->change_count = 0;
        for (size_t i = 0; i < TXNS_A_TURN; i++) {
            pen_txn *txn = tpcb_next(txns);
            if (hash_before) {
                hash(it, txn);
            }
            bool pushed = pen_ring_push(&it->ring, txn);
            PEN_ASSERT(pushed);
        }
        double turn_took = dispatch(it, hash_before);
        took += turn == 0 ? 0 : turn_took;
    }
    values[0] = took / (double)(turns * TXNS_A_TURN * TPCB_CHANGES);
    values[1] = (double)(turns * TXNS_A_TURN) * 1e9 / took;
    end(it);
    tpcb_destroy(txns);
    return true;
}

bool bench_dispatch(double share, double *values)
{
    return run(share, false, values);
}

bool bench_former(double share, double *values)
{
    return run(share, true, values);
}
