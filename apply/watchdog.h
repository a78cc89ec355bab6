/* Purpose: finds the waits on the target that its server cannot see, and ends them; names the
 *          sessions of others that hold the stream up.
 * Thread:  progress.
 * Owns:    whom it has named, and when; borrows the control connection.
 * Flow:    the commit chain's newest number and the target's lock waits in; a later batch's worker
 *          told to let go, or a log line, out.
 *
 * Batches commit in order, so a batch waits for all before it, of which the server knows nothing.
 * It finds no deadlock in: an early batch waits for somebody's ALTER TABLE in the queue of a lock,
 * the ALTER waits for a row that a later batch of ours has changed, and that batch waits for its
 * turn.
 *
 * It lives on the progress thread and its control session, not on one of its own: it asks at most
 * one query of a few milliseconds in each of that thread's rounds, and only while the oldest batch
 * has not come on for a whole round; what the control session writes waits for nothing that a
 * worker holds; and one connection less on the target is worth more than a watchdog that is awake
 * while that server does not answer, for then there is nothing that it could do. */
#ifndef PEN_APPLY_WATCHDOG_H
#define PEN_APPLY_WATCHDOG_H

#include "apply/stream.h"

typedef struct pen_watchdog pen_watchdog;

/* Borrows both. `control` is a session of the workers' role. */
pen_watchdog *pen_watchdog_create(pen_stream *stream, pen_pgconn *control);
void pen_watchdog_destroy(pen_watchdog *watchdog); /* NULL is nothing */

/* One look; to be called some times a second. Errors: those of the connection. */
PEN_MUST_CHECK bool pen_watchdog_look(pen_watchdog *watchdog, pen_error *err);

#endif
