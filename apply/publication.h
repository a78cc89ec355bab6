/* Purpose: the publication: which tables the operator's filters choose, and whether they can be
 *          published.
 * Thread:  main, at the start.
 * Owns:    nothing; borrows the source session.
 * Flow:    filters and the source's catalog in; a publication that fits them, or the reason why
 *          not. */
#ifndef PEN_APPLY_PUBLICATION_H
#define PEN_APPLY_PUBLICATION_H

#include "core/options.h"
#include "io/pgconn.h"

PEN_MUST_CHECK bool pen_publication_exists(pen_pgconn *source, const char *publication,
                                           bool *exists, pen_error *err);

/* Creates the publication for the chosen tables. A table without replica identity is refused
 * before, because publishing it would make the source's own UPDATEs and DELETEs fail. */
PEN_MUST_CHECK bool pen_publication_create(pen_pgconn *source, const pen_options *options,
                                           pen_error *err);

typedef enum pen_table_list {
    PEN_TABLES_CHOSEN,   /* unlogged ones, too, though no publication can have them */
    PEN_TABLES_LEFT_OUT, /* by the filters */
    PEN_TABLES_UNLOGGED  /* those of the chosen ones */
} pen_table_list;

/* The OIDs of such tables, their partitions included; rising. The array is given. */
PEN_MUST_CHECK bool pen_publication_list(pen_pgconn *source, const pen_options *options,
                                         pen_table_list which, uint32_t **oids, size_t *count,
                                         pen_error *err);

/* Checks one that is there: with filters, that it publishes just the chosen tables; without, warns
 * of tables that it leaves out; and warns when it does not publish every kind of change. */
PEN_MUST_CHECK bool pen_publication_check(pen_pgconn *source, const pen_options *options,
                                          pen_error *err);

#endif
