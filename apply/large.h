/* Purpose: a large transaction, applied while it arrives, part by part.
 * Thread:  the worker that holds its batch.
 * Owns:    the segments that it took from the feed, until their part is settled.
 * Flow:    segments by the feed in; one target transaction out; their memory back to the reader. */
#ifndef PEN_APPLY_LARGE_H
#define PEN_APPLY_LARGE_H

#include "apply/worker.h"

/* Applies the one transaction of `batch`, at its turn, to its commit; *discarded: that will not
 * come, and it was rolled back. False: it cannot be, and nothing of it is on the target; *err says
 * why and worker->failure what it is about, which may lie in segments that pen_large_release gives
 * back. */
PEN_MUST_CHECK bool pen_large_apply(pen_worker *worker, pen_batch *batch, bool *discarded,
                                    pen_error *err);

/* Gives the segments back that were sent and not settled. */
void pen_large_release(pen_worker *worker);

#endif
