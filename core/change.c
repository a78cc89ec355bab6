#include "core/change.h"

#include "core/eager.h"
#include "core/feed.h"

void pen_txn_release(pen_txn *txn)
{
    /* The transaction lies in the first segment's block, and each segment in its own: read on
     * before giving back, and give the first back last. */
    pen_segment *first = txn->first;
    if (txn->feed != NULL) {
        pen_feed_release(txn->feed);
    }
    if (txn->eager != NULL) {
        pen_eager_release(txn->eager);
    }
    for (pen_segment *seg = first->next; seg != NULL;) {
        pen_segment *next = seg->next;
        pen_block_release(seg->block);
        seg = next;
    }
    pen_block_release(first->block);
}
