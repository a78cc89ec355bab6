/* Purpose: a transaction's changes one by one, each in a savepoint: where --on-conflict decides.
 * Thread:  the worker that holds them, at its turn.
 * Owns:    nothing; works on the worker's connection.
 * Flow:    changes that met a conflict in; those that could be applied on the target, the others
 * left out or put right, and counted. */
#ifndef PEN_APPLY_ROWS_H
#define PEN_APPLY_ROWS_H

#include "apply/worker.h"

/* In an open transaction: applies the changes of `first` and the segments behind it. What was left
 * out or overwritten is in worker->conflicts. False: one of them could not be applied, and is no
 * conflict that --on-conflict settles; *err and worker->failure say which and why, and the
 * transaction must be rolled back, or to a savepoint before. */
PEN_MUST_CHECK bool pen_rows_apply(pen_worker *worker, const pen_segment *first, pen_error *err);

#endif
