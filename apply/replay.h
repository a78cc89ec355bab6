/* Purpose: a batch that failed is applied anew, at its turn and in source order.
 * Thread:  the worker that holds the batch.
 * Owns:    nothing; works on the worker's connection.
 * Flow:    a failed batch in; the same batch on the target out, or the reason why that cannot be.
 */
#ifndef PEN_APPLY_REPLAY_H
#define PEN_APPLY_REPLAY_H

#include "apply/worker.h"

/* After the first attempt at `batch` failed with *err, or, with `let_go`, is to give up its locks
 * (*err is then not looked at): rolls back, waits until every batch before it has committed, and
 * applies it, as often as it takes. False: it cannot be; *err says why, and worker->failure what it
 * is about. A part of the batch may then be on the target, whole transactions each with its
 * progress row. */
PEN_MUST_CHECK bool pen_replay_batch(pen_worker *worker, const pen_batch *batch, bool let_go,
                                     pen_error *err);

/* For apply/large.c. */

/* What a failure is. */
typedef enum pen_outcome {
    PEN_OUTCOME_DONE,
    PEN_OUTCOME_AGAIN,    /* it may pass: a deadlock, a lock timeout, a cancel, a full disk */
    PEN_OUTCOME_CONFLICT, /* the target's rows are not what the change expects */
    PEN_OUTCOME_REFUSED,  /* the server will not have it */
    PEN_OUTCOME_ENDED     /* lost connection, a stop, somebody else's progress row: no replay */
} pen_outcome;

/* What worker->failure and *err come to, if nobody does anything. */
pen_outcome pen_replay_judge(const pen_failure *failure, const pen_error *err);
/* Counts a replay, and tells of it: a line a second at most. `what`: "the transactions …". */
void pen_replay_tell(pen_worker *worker, const pen_batch *batch, const pen_error *err);
/* Waits before attempt `tries` + 1, longer each time; false on a stop, which is *err then. */
PEN_MUST_CHECK bool pen_replay_pause(pen_worker *worker, unsigned tries, pen_error *err);

#endif
