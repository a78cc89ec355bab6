/* Purpose: what would make a stream fail or be wrong, looked for before it does.
 * Thread:  main at the start; the dispatcher when a relation does not fit.
 * Owns:    nothing; borrows connections.
 * Flow:    the catalogs of both servers in; the first thing that is wrong out, with its remedy. */
#ifndef PEN_APPLY_PREFLIGHT_H
#define PEN_APPLY_PREFLIGHT_H

#include "core/change.h"
#include "core/options.h"
#include "io/pgconn.h"

/* Every published table with every published column must be on the target; what is missing is named
 * with the exact ALTER TABLE to run there. `source` and `target` are ordinary sessions that speak
 * the same encoding. */
PEN_MUST_CHECK bool pen_preflight_tables(const char *publication, pen_pgconn *source,
                                         pen_pgconn *target, pen_error *err);

/* The same for a stream that has run before: what is missing is only told of. What comes first may
 * be older than the change on the source that asks for it, and need the target as it is. */
PEN_MUST_CHECK bool pen_preflight_resumed(const char *publication, pen_pgconn *source,
                                          pen_pgconn *target, pen_error *err);

/* The same for one table, for which it opens a session on the source: for a column that appeared
 * while the stream ran. True when nothing is missing (any more). */
PEN_MUST_CHECK bool pen_preflight_table(const pen_options *options, pen_pgconn *target,
                                        const pen_relation *rel, pen_error *err);

/* Tells of columns that one side computes and the other does not: their values differ, and no error
 * says so. */
PEN_MUST_CHECK bool pen_preflight_generated(const char *publication, pen_pgconn *source,
                                            pen_pgconn *target, pen_error *err);

#endif
