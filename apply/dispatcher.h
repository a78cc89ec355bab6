/* Purpose: the dispatcher: finds what each change must wait for, and forms batches.
 * Thread:  pen_dispatcher_run is the dispatcher's thread; create and destroy are main's.
 * Owns:    the conflict table, the target descriptors, its catalog connection, and the batch it is
 *          adding to.
 * Flow:    whole transactions from the ring in; batches into the open place out.
 * It never waits for a dependency: it only writes down what a change is bound to. */
#ifndef PEN_APPLY_DISPATCHER_H
#define PEN_APPLY_DISPATCHER_H

#include "apply/stream.h"

typedef struct pen_dispatcher pen_dispatcher;

/* Takes `catalog`, a session on the target in autocommit. */
pen_dispatcher *pen_dispatcher_create(pen_stream *stream, pen_pgconn *catalog);
/* After all threads have ended. NULL is nothing. */
void pen_dispatcher_destroy(pen_dispatcher *dispatcher);
void pen_dispatcher_run(void *dispatcher);

#endif
