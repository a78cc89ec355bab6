/* Purpose: a batch: a contiguous run of source transactions that one worker applies as one
 *          transaction.
 * Thread:  filled by the dispatcher while it holds the batch, then owned by the worker that took
 *          it.
 * Owns:    its transactions, until released.
 * Flow:    transactions in commit order in, one target transaction out. Batches are numbered from 1
 *          without gaps; batch k commits after batch k - 1. */
#ifndef PEN_APPLY_BATCH_H
#define PEN_APPLY_BATCH_H

#include "core/change.h"

typedef struct pen_batch {
    uint64_t number;
    pen_txn *first;
    pen_txn *last;
    uint64_t txn_count;
    uint64_t change_count;
    uint64_t bytes;
    bool held;                   /* it was kept from idle workers to be filled */
    bool alone;                  /* of one transaction, which no other may join */
    struct pen_feed *feed;       /* of its only transaction, when that is a large one; else NULL */
    pen_lsn previous_commit_lsn; /* what the progress row must say before this one commits */
} pen_batch;

typedef struct pen_batch_limits {
    uint64_t rows;
    uint64_t bytes;
    uint64_t transactions;
} pen_batch_limits;

/* What a batch is filled to while the source is far behind, in percent of its limits. */
#define PEN_BATCH_FILL_PERCENT 25

/* `previous_commit_lsn`: commit LSN of the last transaction of the batch before. */
pen_batch *pen_batch_create(uint64_t number, pen_lsn previous_commit_lsn);
/* Releases its transactions and frees it. */
void pen_batch_destroy(pen_batch *batch);

/* Appends `txn`, taking it. */
void pen_batch_add(pen_batch *batch, pen_txn *txn);

/* True when it has reached one of `limits`. */
bool pen_batch_is_full(const pen_batch *batch, const pen_batch_limits *limits);
/* Up to where a batch waits for more while the source is far behind: `percent` of `limits`, and no
 * more bytes than let the reader and all workers have one each within `memory`. At least 1 of
 * each. */
pen_batch_limits pen_batch_fill(const pen_batch_limits *limits, unsigned percent, uint64_t memory,
                                unsigned workers);
/* True when `txn` may still go in: an empty batch takes any, a large transaction is alone in its
 * batch. */
bool pen_batch_has_room(const pen_batch *batch, const pen_txn *txn, const pen_batch_limits *limits);

#endif
