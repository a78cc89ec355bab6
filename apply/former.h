/* Purpose: forms batches: which transaction joins which batch, and what each of its changes is bound
 *          to.
 * Thread:  the dispatcher that holds the baton, or the reader in its role.
 * Owns:    the conflict table; batches are its caller's once begun.
 * Flow:    transactions in commit order with the keys of their changes in; the same in batches,
 * with bounds, out. It knows no threads, no servers and no SQL: what the workers may do with its
 * batches, and why no order of theirs is wrong, stands in core/conflict.c. */
#ifndef PEN_APPLY_FORMER_H
#define PEN_APPLY_FORMER_H

#include "apply/batch.h"
#include "core/conflict.h"

typedef struct pen_former pen_former;

/* What is known of one change. */
typedef struct pen_change_keys {
    uint32_t key_count;
    bool after_all; /* it waits for everything before its batch, whatever its keys say */
} pen_change_keys;

/* The keys of a transaction's changes, one change after the other. */
typedef struct pen_txn_keys {
    const pen_key *keys;
    size_t key_count;
    const pen_change_keys *changes; /* as many as the transaction has */
} pen_txn_keys;

/* `memory`: bytes for the conflict table, at least a cache line; the largest power of two in it is
 * used. `last_commit_lsn`: of the newest transaction on the target. */
pen_former *pen_former_create(size_t memory, const pen_batch_limits *limits,
                              pen_lsn last_commit_lsn);
void pen_former_destroy(pen_former *former); /* NULL is nothing */

/* True when `txn` may join `batch`, the newest one, which no worker has yet. */
bool pen_former_has_room(const pen_former *former, const pen_batch *batch, const pen_txn *txn);
/* Begins the batch after the newest one. */
pen_batch *pen_former_begin(pen_former *former);
/* Adds `txn` (takes it) to the newest batch, which no worker has, and writes down what its changes
 * are bound to. `committed`: a batch that has committed, as new as the caller knows. A large
 * transaction's changes are not bound, because its batch runs at its turn, and all that follows is
 * bound to it; `keys` is not looked at then. */
void pen_former_add(pen_former *former, pen_batch *batch, pen_txn *txn, const pen_txn_keys *keys,
                    uint64_t committed);

/* The large transaction that was added last, with nothing behind it, will not come whole: its batch
 * leaves the target as it was. */
void pen_former_forget_fed(pen_former *former);

/* To show how much could run beside the batches before: changes so far, those of them that had to
 * wait for a batch that had not committed, and entries that the table was too small for. */
typedef struct pen_former_counts {
    uint64_t changes;
    uint64_t bound;
    uint64_t evictions;
} pen_former_counts;

/* Number of the newest batch, 0 before the first. */
uint64_t pen_former_newest(const pen_former *former);

pen_former_counts pen_former_count(const pen_former *former);

#endif
