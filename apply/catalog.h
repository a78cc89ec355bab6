/* Purpose: reads the target's catalogs: what a relation version of the source is over there.
 * Thread:  the dispatcher.
 * Owns:    nothing; borrows the connection, gives pen_targets.
 * Flow:    a source relation version in, its target descriptor out, or an error that says what is
 *          missing.
 * Source:  PostgreSQL, "System Catalogs"; btree support function 4 (equalimage) says whether equal
 *          means same bytes. */
#ifndef PEN_APPLY_CATALOG_H
#define PEN_APPLY_CATALOG_H

#include "apply/format.h"
#include "apply/relation.h"
#include "io/pgconn.h"

typedef enum pen_resolve_result {
    PEN_RESOLVED,
    PEN_RESOLVE_MISSING, /* the table or a column is not there: *err names it */
    PEN_RESOLVE_FAILED
} pen_resolve_result;

/* Finds the table of the same schema and name, its columns by name, its identity and its scope.
 * `replica_role`: whether the workers' sessions run with session_replication_role=replica. Fails
 * when the stream is binary and a column's type does not allow that. */
PEN_MUST_CHECK pen_resolve_result pen_catalog_resolve(pen_pgconn *conn, const pen_relation *rel,
                                                      bool replica_role, const pen_format *format,
                                                      pen_target **target, pen_error *err);

#endif
