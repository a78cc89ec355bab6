/* Purpose: reads the few statements of pg_dump's that are changed before they are run.
 * Thread:  any.
 * Owns:    nothing; gives strings.
 * Flow:    one statement's text in; where it ends, the names in it, or the changed text out. */
#ifndef PEN_CORE_SQL_SCAN_H
#define PEN_CORE_SQL_SCAN_H

#include "core/base.h"

/* The length of the first statement of `sql`, its semicolon included: names and strings in quotes
 * may hold any number of them. */
size_t pen_sql_first(const char *sql);

/* An index that CREATE INDEX makes. */
typedef struct pen_sql_index {
    char *name;       /* quoted where needed, with its table's schema */
    bool only;        /* ON ONLY: of a partitioned table, and not of its partitions */
    char *alone;      /* the statement, with CONCURRENTLY; NULL with `only` */
    const char *rest; /* the statements behind it, in `sql` */
} pen_sql_index;

/* Reads "CREATE INDEX name ON [ONLY] schema.table …". False when it is not that. */
PEN_MUST_CHECK bool pen_sql_read_index(const char *sql, pen_sql_index *index);
void pen_sql_index_deinit(pen_sql_index *index);

/* Of "ALTER TABLE [ONLY] t ADD CONSTRAINT c FOREIGN KEY …;": the same with NOT VALID (given; NULL
 * where it is there already), and "ALTER TABLE t VALIDATE CONSTRAINT c" (given). False when it is
 * not that. */
PEN_MUST_CHECK bool pen_sql_read_foreign_key(const char *sql, char **not_valid, char **validate);

#endif
