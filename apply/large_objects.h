/* Purpose: the source's large objects, copied as if they were one more table, in chunks by OID.
 * Thread:  main; pen_large_objects_read_sql, _ready and _store also the job that copies a chunk.
 * Owns:    nothing.
 * Flow:    pieces of them from the source by COPY into a temporary table of the target's session,
 *          and from there into large objects of the same OIDs, in the chunk's transaction.
 * Source:  PostgreSQL, "Server-Side Functions" of "Large Objects": lo_get and lo_put need no file
 *          descriptor, and read under the transaction's snapshot.
 *
 * They are copied where the target has none of its own, so that one that is there is always one of
 * ours. Logical replication has nothing of them: what changes behind the snapshot does not come. */
#ifndef PEN_APPLY_LARGE_OBJECTS_H
#define PEN_APPLY_LARGE_OBJECTS_H

#include "apply/copy_plan.h"

/* pg_largeobject: what stands for them in penstock's tables. */
#define PEN_LARGE_OBJECTS_OID 2613U

/* Says which come and which do not, and that changes do not. Errors: a server's. */
PEN_MUST_CHECK bool pen_large_objects_check(pen_migration *migration, pen_error *err);

/* Fills *table as the plan's entry for them; *any is false, and *table untouched, when none are to
 * be copied. */
PEN_MUST_CHECK bool pen_large_objects_plan(pen_migration *migration, pen_copy_table *table,
                                           bool *any, pen_error *err);

/* Removes those that an earlier round has brought. In transactions of its own, because each holds a
 * lock; beforehand nothing of this round is there. */
PEN_MUST_CHECK bool pen_large_objects_empty(pen_pgconn *target, pen_error *err);

/* The COPY that reads those with OIDs from `first` up to, not including, `end`; given. */
char *pen_large_objects_read_sql(uint64_t first, uint64_t end);
/* Readies the target's session for pen_large_objects_write_sql. */
PEN_MUST_CHECK bool pen_large_objects_ready(pen_pgconn *target, pen_error *err);
/* The COPY that writes; given. */
char *pen_large_objects_write_sql(void);
/* Makes large objects of what was written; *count how many. */
PEN_MUST_CHECK bool pen_large_objects_store(pen_pgconn *target, int64_t *count, pen_error *err);

#endif
