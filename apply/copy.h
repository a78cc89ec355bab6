/* Purpose: the copy of all published tables, round by round, until each is there.
 * Thread:  main; it starts the copy's jobs (apply/copy_job.h) and waits for them.
 * Owns:    plan, queue and snapshot of the round that is under way.
 * Flow:    the slot's snapshot, or new ones with their fences, in; rows on the target out, and for
 *          each table a row that says so.
 *
 * A round copies every table that is not done, under one snapshot. The first one has the slot's
 * own. When the snapshot is lost (the source restarted, or penstock was killed and began again), or
 * a table was rewritten meanwhile, the tables that are not done are emptied and copied in another
 * round, under a new snapshot, and the stream leaves out what that has seen: its fence. */
#ifndef PEN_APPLY_COPY_H
#define PEN_APPLY_COPY_H

#include "apply/copy_plan.h"
#include "apply/snapshot.h"

/* Makes slot and snapshot, and records the stream: the phase PEN_PHASE_SLOT. The snapshot is kept
 * for pen_copy_run. */
PEN_MUST_CHECK bool pen_copy_begin(pen_migration *migration, pen_copy_plan *plan,
                                   pen_snapshot *snapshot, pen_error *err);

/* Copies everything that is not done. `plan` and `snapshot` are those of pen_copy_begin, or empty;
 * both are empty afterwards. Errors: of a table that cannot be copied, naming it and its range;
 * PEN_ERROR_RETRY while a server is away. */
PEN_MUST_CHECK bool pen_copy_run(pen_migration *migration, pen_copy_plan *plan,
                                 pen_snapshot *snapshot, pen_error *err);

#endif
