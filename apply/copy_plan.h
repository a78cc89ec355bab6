/* Purpose: which tables are to be copied, with which columns, and how large they are.
 * Thread:  main makes and ends it; the copy's threads write the fields named so, under its lock.
 * Owns:    the tables.
 * Flow:    the publication and the catalogs of both servers in, by a handful of queries whatever
 * the number of tables; one pen_copy_table each out, the largest first. */
#ifndef PEN_APPLY_COPY_PLAN_H
#define PEN_APPLY_COPY_PLAN_H

#include "apply/migration.h"
#include "core/sync.h"

typedef struct pen_copy_table {
    uint32_t oid;        /* on the source */
    uint32_t stream_oid; /* under which its changes come: its own, or its root's */
    char *source_name;   /* quoted, with its schema */
    char *target_name;   /* the same; the root's where that is published */
    char *columns;       /* quoted, with commas; "" for none */
    char *row_filter;    /* of the publication, or NULL */
    char *width_sql;     /* an expression for how wide a row is, $1 for each byte of a bytea; NULL
                            where none is wide */
    char *filenode;      /* before the snapshot: another one later means that it was rewritten */
    bool binary;
    bool misread;       /* some "char" may be another one there, without an error */
    bool by_ctid;       /* can be read in parts */
    bool has_parts;     /* on the target it is partitioned */
    bool large_objects; /* no table: all of those; its pages are their OIDs */
    uint64_t pages;
    uint64_t bytes; /* TOAST included */
    bool done;      /* in an earlier round or run */
    /* the copy's threads, under its lock */
    size_t chunks_left;
    bool again; /* it was changed on the source in a way that this round cannot copy */
    bool in_work;
    uint64_t widest; /* of a row that was wider than its chunk was measured, or 0 */
    /* the copy's threads */
    pen_counter copied_rows;
    pen_counter copied_bytes;
} pen_copy_table;

typedef struct pen_copy_plan {
    pen_copy_table *tables; /* the largest first */
    size_t count;
    size_t unfinished;
    uint64_t unfinished_bytes;
} pen_copy_plan;

/* Reads both catalogs, and what the target has already. Errors: both servers'; a column that the
 * target lacks, with the ALTER to run. */
PEN_MUST_CHECK bool pen_copy_plan_read(pen_migration *migration, pen_copy_plan *plan,
                                       pen_error *err);
void pen_copy_plan_deinit(pen_copy_plan *plan);

/* The pages of each chunk of a table. */
uint64_t pen_copy_plan_chunk_pages(const pen_copy_table *table, uint64_t chunk_bytes);

#endif
