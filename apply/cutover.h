/* Purpose: the cutover: the stream is drained, and the target made ready for writes.
 * Thread:  main.
 * Owns:    nothing that outlives it.
 * Flow:    a migration that streams in; sequences, foreign keys, triggers and what else waited for
 *          this on the target out, with a report. */
#ifndef PEN_APPLY_CUTOVER_H
#define PEN_APPLY_CUTOVER_H

#include "apply/run.h"

/* Asks a "penstock migrate" of the same state directory to end, applies all that the source has
 * committed up to now, sets the sequences, and makes what waited. What was made is recorded, so
 * that the same command goes on where it was. Errors: of what could not be made, naming it;
 * PEN_ERROR_CONFIG where no migration is that far. */
PEN_MUST_CHECK bool pen_cutover_run(const pen_options *options, pen_stop_reason *reason,
                                    pen_error *err);

#endif
