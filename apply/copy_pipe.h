/* Purpose: one COPY from the source into one COPY to the target.
 * Thread:  the job whose connections they are.
 * Owns:    nothing.
 * Flow:    CopyData of the source gathered into large pieces, unread, and sent to the target. What
 * is in memory of a row that is larger than a piece is libpq's own buffer, once. */
#ifndef PEN_APPLY_COPY_PIPE_H
#define PEN_APPLY_COPY_PIPE_H

#include "apply/copy_plan.h"
#include "core/text.h"

#define PEN_COPY_BUFFER ((size_t)256 << 10)

typedef struct pen_copy_pipe {
    pen_pgconn *source;   /* in a transaction under the snapshot */
    pen_pgconn *target;   /* in a transaction */
    const pen_cell *stop; /* 1: give up */
    uint8_t *buffer;      /* PEN_COPY_BUFFER bytes */
    pen_counter *rows;    /* of the table, and next the same of all */
    pen_counter *bytes;
    pen_counter *all_rows;
    pen_counter *all_bytes;
    /* out */
    bool source_failed;    /* it was the source that refused */
    uint64_t widest;       /* bytes of the largest row that came */
    uint64_t counted_rows; /* of those, added to `rows` */
} pen_copy_pipe;

/* Appends the WHERE that leaves the rows of those pages. */
void pen_copy_append_where(pen_text *sql, const pen_copy_table *table, uint64_t first_page,
                           uint64_t end_page);

/* Copies the rows of `table` on the pages from `first_page` up to, not including, `end_page`.
 * *rows is how many the target took, which are as many as the source gave. */
PEN_MUST_CHECK bool pen_copy_pipe_run(pen_copy_pipe *pipe, const pen_copy_table *table,
                                      uint64_t first_page, uint64_t end_page, int64_t *rows,
                                      pen_error *err);

#endif
