/* Purpose: a snapshot of the source that many sessions read by, for as long as it is needed.
 * Thread:  main.
 * Owns:    the session that holds it.
 * Flow:    the slot's own snapshot, or a new one with its fence, in; a name to import it by out.
 *
 * The snapshot that a slot exports dies with the next command on the connection that made it, so a
 * session of its own imports it and exports it once more. */
#ifndef PEN_APPLY_SNAPSHOT_H
#define PEN_APPLY_SNAPSHOT_H

#include "apply/migration.h"

typedef struct pen_snapshot {
    pen_pgconn *holder; /* NULL: there is none */
    char name[64];
    char *xids;        /* pg_current_snapshot(); NULL for the slot's own, which needs no fence */
    pen_lsn fence_end; /* every transaction that it sees has committed before */
} pen_snapshot;

/* Makes the slot, after dropping one that a run killed in this phase has left, and holds its
 * snapshot. *slot_lsn: where the stream begins, which is exactly behind what the snapshot sees. */
PEN_MUST_CHECK bool pen_snapshot_of_slot(pen_migration *migration, pen_snapshot *snapshot,
                                         pen_lsn *slot_lsn, pen_error *err);
/* Takes a new one, with its fence. */
PEN_MUST_CHECK bool pen_snapshot_take(pen_migration *migration, pen_snapshot *snapshot,
                                      pen_error *err);
/* Whether the session that holds it is still there. */
bool pen_snapshot_lives(pen_snapshot *snapshot);
/* Gives it back, so that the source can clean up behind it. */
void pen_snapshot_release(pen_snapshot *snapshot);

#endif
