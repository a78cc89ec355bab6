/* Purpose: what would make a migration fail, or be wrong, looked for before anything is begun.
 * Thread:  main.
 * Owns:    nothing; borrows the migration's sessions.
 * Flow:    the catalogs of both servers in; a line for each thing that is wrong or left out, and an
 *          error where one of them forbids to begin, out. */
#ifndef PEN_APPLY_CHECKS_H
#define PEN_APPLY_CHECKS_H

#include "apply/migration.h"

/* Makes the publication where it is absent, which finds the tables without identity, and looks at
 * all else. Errors: PEN_ERROR_FATAL with the first thing that is in the way; each is logged. */
PEN_MUST_CHECK bool pen_checks_run(pen_migration *migration, pen_error *err);

#endif
