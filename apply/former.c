#include "apply/former.h"

#include <stdlib.h>

/* Keys whose buckets are fetched before they are asked for: far enough ahead to hide the way to
 * memory, few enough to be still there. */
#define KEYS_AHEAD 64

struct pen_former {
    pen_conflict *conflicts;
    pen_batch_limits limits;
    uint64_t newest;     /* number of the newest batch */
    uint64_t fed_number; /* of the last large transaction's batch: all that follows waits for it */
    pen_lsn last_commit_lsn; /* of the newest transaction in a batch */
    pen_lsn before_fed_lsn;  /* that before the last large transaction */
    uint64_t change_count;
    uint64_t bound_count;
};

pen_former *pen_former_create(size_t memory, const pen_batch_limits *limits,
                              pen_lsn last_commit_lsn)
{
    size_t buckets = 1;
    while (buckets <= memory / PEN_CONFLICT_BUCKET / 2) {
        buckets *= 2;
    }
    pen_former *former = pen_calloc(1, sizeof(*former));
    former->conflicts = pen_conflict_create(buckets);
    former->limits = *limits;
    former->last_commit_lsn = last_commit_lsn;
    return former;
}

void pen_former_destroy(pen_former *former)
{
    if (former != NULL) {
        pen_conflict_destroy(former->conflicts);
        free(former);
    }
}

bool pen_former_has_room(const pen_former *former, const pen_batch *batch, const pen_txn *txn)
{
    PEN_ASSERT(batch->number == former->newest);
    return pen_batch_has_room(batch, txn, &former->limits);
}

pen_batch *pen_former_begin(pen_former *former)
{
    return pen_batch_create(++former->newest, former->last_commit_lsn);
}

static void bind_change(pen_former *former, pen_change *chg, const pen_key *keys,
                        const pen_change_keys *its, uint64_t committed)
{
    uint64_t number = former->newest;
    uint64_t at_least = its->after_all ? number - 1 : former->fed_number;
    chg->bound = pen_conflict_touch_after(former->conflicts, keys, its->key_count, number,
                                          committed, at_least);
    former->change_count++;
    former->bound_count += chg->bound > committed;
}

static void bind_txn(pen_former *former, pen_txn *txn, const pen_txn_keys *keys, uint64_t committed)
{
    size_t at = 0;
    size_t fetched = 0;
    const pen_change_keys *its = keys->changes;
    for (pen_segment *seg = txn->first; seg != NULL; seg = seg->next) {
        for (pen_change *chg = seg->first; chg != NULL; chg = chg->next) {
            size_t wanted = at + its->key_count + KEYS_AHEAD;
            wanted = wanted < keys->key_count ? wanted : keys->key_count;
            pen_conflict_prefetch(former->conflicts, keys->keys + fetched, wanted - fetched);
            fetched = wanted;
            bind_change(former, chg, keys->keys + at, its, committed);
            at += its->key_count;
            its++;
        }
    }
    PEN_ASSERT(at == keys->key_count);
}

void pen_former_add(pen_former *former, pen_batch *batch, pen_txn *txn, const pen_txn_keys *keys,
                    uint64_t committed)
{
    PEN_ASSERT(batch->number == former->newest);
    if (pen_txn_is_alone(txn)) {
        former->fed_number = batch->number;
        former->before_fed_lsn = former->last_commit_lsn;
    } else {
        bind_txn(former, txn, keys, committed);
    }
    former->last_commit_lsn = txn->commit_lsn;
    pen_batch_add(batch, txn);
}

void pen_former_forget_fed(pen_former *former)
{
    PEN_ASSERT(former->fed_number == former->newest);
    former->last_commit_lsn = former->before_fed_lsn;
}

pen_former_counts pen_former_count(const pen_former *former)
{
    return (pen_former_counts){.changes = former->change_count,
                               .bound = former->bound_count,
                               .evictions = pen_conflict_evictions(former->conflicts)};
}

uint64_t pen_former_newest(const pen_former *former)
{
    return former->newest;
}
