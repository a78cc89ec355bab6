/* Purpose: what the stream leaves out because the copy of a table has it already.
 * Thread:  main loads them before the threads start; read-only after that.
 * Owns:    the snapshots.
 * Flow:    penstock.copied_table in; for a change and its transaction, whether it is to be applied.
 *
 * A table that was copied under a snapshot taken after the slot was made has every change that this
 * snapshot sees: the stream brings them too, and leaves them out of it. Which those are the xid
 * tells, exactly; a position in the WAL would not, because transactions become visible in another
 * order than they commit. Behind the position that the source had just after the snapshot there are
 * none any more, so wrapped xids do no harm. Until the stream is past the last fence, the target is
 * not yet a state that the source has had. */
#ifndef PEN_APPLY_FENCE_H
#define PEN_APPLY_FENCE_H

#include "core/change.h"
#include "core/xid_snapshot.h"
#include "io/pgconn.h"

typedef struct pen_fence {
    uint32_t oid;    /* of the relation, as its changes name it */
    size_t snapshot; /* its number */
    pen_lsn end;     /* every transaction that it sees commits before */
} pen_fence;

typedef struct pen_fences {
    pen_fence *fences; /* by rising oid */
    size_t count;
    pen_xid_snapshot *snapshots;
    size_t snapshot_count;
    pen_lsn end; /* of the last of them; PEN_LSN_NONE without any */
} pen_fences;

/* Loads those of the stream `name` that end behind `applied`. Replaces what was loaded before; all
 * zero is empty. */
PEN_MUST_CHECK bool pen_fences_load(pen_fences *fences, pen_pgconn *target, const char *name,
                                    pen_lsn applied, pen_error *err);
void pen_fences_deinit(pen_fences *fences);

/* Whether the copy of the relation `oid` has what the transaction did. */
bool pen_fences_hide(const pen_fences *fences, uint32_t oid, uint32_t xid, pen_lsn commit_lsn);

/* False when nothing of `chg` is to be applied. A TRUNCATE of several tables loses those that have
 * it already. */
PEN_MUST_CHECK bool pen_fences_pass(const pen_fences *fences, uint32_t xid, pen_lsn commit_lsn,
                                    pen_change *chg);

#endif
