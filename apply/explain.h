/* Purpose: a failure in words: which change of which transaction, why, and what to do.
 * Thread:  any.
 * Owns:    nothing.
 * Flow:    what failed and the server's words in; the error that the operator reads out. */
#ifndef PEN_APPLY_EXPLAIN_H
#define PEN_APPLY_EXPLAIN_H

#include "apply/batch.h"
#include "apply/sender.h"
#include "core/options.h"

/* Widens *err, with which `failure` in `batch` ended the stream. `txn` is the batch's first
 * transaction that is not on the target. */
void pen_explain(const pen_failure *failure, const pen_batch *batch, const pen_txn *txn,
                 const pen_options *options, pen_error *err);

#endif
