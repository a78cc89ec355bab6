/* Purpose: the way of a large transaction's segments while the transaction is still arriving.
 * Thread:  reader, dispatcher and one worker, as each function says.
 * Owns:    the segments in its rings. Reader, dispatcher and the transaction hold a reference each,
 *          and the last one to go frees it with what is left in it.
 * Flow:    reader -> in -> dispatcher (resolves) -> out -> worker; then its end, complete or not.
 *
 * A transaction that has begun will commit (outside streaming mode), so a large one need not wait
 * in memory for its Commit: it is a batch of its own, which starts at its turn. */
#ifndef PEN_CORE_FEED_H
#define PEN_CORE_FEED_H

#include "core/change.h"
#include "core/ring.h"
#include "core/sync.h"

#include <stdatomic.h>

typedef enum pen_feed_state {
    PEN_FEED_OPEN,
    PEN_FEED_COMPLETE, /* its Commit has come */
    PEN_FEED_DISCARDED /* it will not come: the stream ends before */
} pen_feed_state;

typedef struct pen_feed {
    /* reader writes */
    pen_ring in;
    pen_cell in_state; /* pen_feed_state; after the last segment is in the ring */
    pen_lsn end_lsn;   /* these four before PEN_FEED_COMPLETE */
    pen_pgtime commit_time;
    uint64_t change_count;
    uint64_t bytes;
    /* dispatcher writes */
    pen_ring out;
    PEN_ALIGNED pen_cell out_state;
    pen_flag wants_room; /* raised by the dispatcher: `out` is full */
    /* worker writes */
    PEN_ALIGNED pen_cell worker; /* its number + 1, before it raises the flag */
    pen_flag wants_segment;      /* raised by the worker: `out` is empty */
    pen_cell done;               /* segments whose changes are on the target, not committed */
    _Atomic(uint32_t) refs;
} pen_feed;

/* Gives a feed with two references: the reader's, and the transaction's (pen_txn_release). */
pen_feed *pen_feed_create(void);
/* One more reference; a thread that holds the transaction. */
void pen_feed_acquire(pen_feed *feed);
/* Gives one reference back; the last one releases the segments that nobody took. Any thread. */
void pen_feed_release(pen_feed *feed);

#endif
