#include "apply/batch.h"

#include <stdlib.h>

/* What a row takes in memory, at most, of the bytes that came for it. */
#define MEMORY_FACTOR 8

pen_batch *pen_batch_create(uint64_t number, pen_lsn previous_commit_lsn)
{
    pen_batch *batch = pen_calloc(1, sizeof(*batch));
    batch->number = number;
    batch->previous_commit_lsn = previous_commit_lsn;
    return batch;
}

void pen_batch_destroy(pen_batch *batch)
{
    for (pen_txn *txn = batch->first; txn != NULL;) {
        pen_txn *next = txn->next;
        pen_txn_release(txn);
        txn = next;
    }
    free(batch);
}

void pen_batch_add(pen_batch *batch, pen_txn *txn)
{
    PEN_ASSERT(batch->last == NULL || batch->last->commit_lsn < txn->commit_lsn);
    txn->next = NULL;
    batch->alone = pen_txn_is_alone(txn);
    batch->feed = txn->feed;
    if (batch->last == NULL) {
        batch->first = txn;
    } else {
        batch->last->next = txn;
    }
    batch->last = txn;
    batch->txn_count++;
    batch->change_count += txn->change_count;
    batch->bytes += txn->bytes;
}

static uint64_t part_of(uint64_t limit, unsigned percent)
{
    uint64_t part = limit / 100 * percent + limit % 100 * percent / 100;
    return part == 0 ? 1 : part;
}

pen_batch_limits pen_batch_fill(const pen_batch_limits *limits, unsigned percent, uint64_t memory,
                                unsigned workers)
{
    pen_batch_limits fill = {.rows = part_of(limits->rows, percent),
                             .bytes = part_of(limits->bytes, percent),
                             .transactions = part_of(limits->transactions, percent)};
    uint64_t share = memory / MEMORY_FACTOR / (workers + 1);
    share = share == 0 ? 1 : share;
    fill.bytes = fill.bytes < share ? fill.bytes : share;
    return fill;
}

bool pen_batch_is_full(const pen_batch *batch, const pen_batch_limits *limits)
{
    return batch->txn_count >= limits->transactions || batch->change_count >= limits->rows ||
           batch->bytes >= limits->bytes;
}

bool pen_batch_has_room(const pen_batch *batch, const pen_txn *txn, const pen_batch_limits *limits)
{
    return batch->txn_count == 0 ||
           (!batch->alone && !pen_txn_is_alone(txn) && batch->txn_count < limits->transactions &&
            batch->change_count + txn->change_count <= limits->rows &&
            batch->bytes + txn->bytes <= limits->bytes);
}
