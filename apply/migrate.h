/* Purpose: the whole migration, phase by phase, in one command that goes on where it was.
 * Thread:  main.
 * Owns:    nothing that outlives it.
 * Flow:    options in; a target that is there and kept up to date, or the reason why not, out. */
#ifndef PEN_APPLY_MIGRATE_H
#define PEN_APPLY_MIGRATE_H

#include "apply/run.h"

/* Check, schema, slot and snapshot, copy, unique indexes, then the stream with the other indexes
 * beside it, until an end that the options ask for, or a signal. */
PEN_MUST_CHECK bool pen_migrate_run(const pen_options *options, pen_stop_reason *reason,
                                    pen_error *err);
/* The same without the stream; all indexes are built at its end. */
PEN_MUST_CHECK bool pen_copy_alone_run(const pen_options *options, pen_stop_reason *reason,
                                       pen_error *err);

#endif
