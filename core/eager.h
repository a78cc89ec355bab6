/* Purpose: what is known of a transaction that is applied while it is in progress on the source.
 * Thread:  reader, dispatcher, eager worker, and the worker that has its batch, as each field says.
 * Owns:    nothing but itself: the parts that were given and its Commit hold a reference each, and
 *          the last one to go frees it.
 * Flow:    reader -> parts -> dispatcher -> eager worker; at Stream Commit a transaction without
 *          changes of its own goes the way of all others, and its batch's worker asks for the
 * COMMIT.
 *
 * All of it is a guess that the transaction will commit, and that it can be applied so early. Its
 * messages stay in the spool meanwhile; when the guess fails, it is applied from there. */
#ifndef PEN_CORE_EAGER_H
#define PEN_CORE_EAGER_H

#include "core/base.h"
#include "core/sync.h"

#include <stdatomic.h>

typedef struct pen_eager {
    /* set when it is made */
    uint32_t xid;
    uint64_t number; /* no two have the same */
    /* reader writes */
    PEN_ALIGNED pen_cell dropped; /* 1: it is to be rolled back on the target, and forgotten */
    pen_cell ended;               /* 1: its Commit has come */
    /* dispatcher and eager worker write */
    PEN_ALIGNED pen_cell failed; /* 1: it is not on the target, and will not be by this way */
    pen_cell done;               /* parts whose memory was given back */
    _Atomic(uint32_t) refs;
} pen_eager;

/* Gives one with a reference, the caller's. */
pen_eager *pen_eager_create(uint32_t xid, uint64_t number);
/* One more reference; a thread that has one. */
void pen_eager_acquire(pen_eager *eager);
/* Gives one reference back. Any thread. */
void pen_eager_release(pen_eager *eager);

/* Any thread that has a reference: true while it is wanted and can be had. */
static inline bool pen_eager_is_alive(const pen_eager *eager)
{
    /* [EAGER-1] acquire: pairs with the release of who drops or fails it. */
    return pen_cell_read(&eager->dropped) == 0 && pen_cell_read(&eager->failed) == 0;
}

#endif
