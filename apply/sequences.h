/* Purpose: sets the target's sequences so that none gives a value that the source has given.
 * Thread:  main.
 * Owns:    nothing; borrows the migration's sessions.
 * Flow:    the source's sequences in; setval on the target out. */
#ifndef PEN_APPLY_SEQUENCES_H
#define PEN_APPLY_SEQUENCES_H

#include "apply/migration.h"

/* Sets each sequence that is on both sides --sequence-margin values beyond where the source's is,
 * in its direction and within its bounds, and never back. *count is how many. Errors: a sequence of
 * the source that this user may not read. */
PEN_MUST_CHECK bool pen_sequences_set(pen_migration *migration, uint64_t *count, pen_error *err);

#endif
