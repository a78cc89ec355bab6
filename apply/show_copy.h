/* Purpose: what a person sees of a copy: bars on a terminal, a line now and then elsewhere.
 * Thread:  main.
 * Owns:    what it has shown last.
 * Flow:    counters of the plan and the queue in; log lines, or the log's footer, out. */
#ifndef PEN_APPLY_SHOW_COPY_H
#define PEN_APPLY_SHOW_COPY_H

#include "apply/copy_job.h"

typedef struct pen_copy_show {
    bool bars;
    bool silent;
    int64_t began_us;
    int64_t shown_us;
    int64_t rated_us; /* the rates are of the time since then */
    uint64_t rated_bytes;
    uint64_t rated_rows;
    double bytes_per_s;
    double rows_per_s;
    uint64_t bytes; /* of rounds that are over */
} pen_copy_show;

void pen_copy_show_init(pen_copy_show *show, const pen_options *options);
/* As often as one likes. With no jobs: the round is over. */
void pen_copy_show_look(pen_copy_show *show, pen_copy_plan *plan, pen_copy_queue *queue,
                        const pen_copy_job *jobs, unsigned count);
/* The copy is over: takes the bars away. */
void pen_copy_show_end(pen_copy_show *show);
/* Says what is there now. */
void pen_copy_show_result(const pen_copy_show *show, uint64_t tables, uint64_t rows);

/* What of a table, or of all, is there, 0 to 1; under the queue's lock. Bytes on the wire are not
 * those on disk: an estimate. */
double pen_copy_table_part(const pen_copy_table *table);
double pen_copy_part(const pen_copy_plan *plan);

/* "1.5 GB", for people. Returns `text`. */
#define PEN_SHOWN_BYTES_SIZE 24
const char *pen_show_bytes(double bytes, char text[PEN_SHOWN_BYTES_SIZE]);

#endif
