/* Purpose: the jobs of a round of the copy: each takes one chunk after the other and brings it over.
 * Thread:  pen_copy_job_run is a job's own; the queue is shared under its lock; main makes it and
 *          waits.
 * Owns:    a job its two connections; the queue its chunks.
 * Flow:    chunks in, the largest tables' first; COPY's bytes from one server to the other in whole
 *          buffers; a row in penstock.copied_chunk in the same transaction out. */
#ifndef PEN_APPLY_COPY_JOB_H
#define PEN_APPLY_COPY_JOB_H

#include "apply/copy_plan.h"
#include "core/thread.h"

#include <pthread.h>

typedef struct pen_copy_chunk {
    pen_copy_table *table;
    uint64_t first_page;
    uint64_t end_page; /* UINT64_MAX: to the end, wherever that is */
    unsigned attempts;
    bool measured;   /* by the job that had it first */
    uint64_t widest; /* its widest row, in bytes, or less: see copy_wide.h */
} pen_copy_chunk;

typedef struct pen_copy_queue {
    const pen_migration *migration; /* the options and the stream's facts: no session of it */
    const char *snapshot;
    int round;
    const char *encoding; /* which both sessions of a job speak */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* under the lock */
    pen_copy_chunk *chunks;
    size_t next; /* of those that nobody has taken yet */
    size_t count;
    size_t *again; /* the numbers of those that failed or were put off */
    size_t again_count;
    size_t in_work;
    size_t tables_left;
    uint64_t shared_out; /* bytes of --memory, for wide rows */
    unsigned jobs_left;
    bool lost; /* the snapshot is gone */
    pen_error failure;
    /* for anybody to look at */
    pen_cell stop;
    pen_counter rows;
    pen_counter bytes;
} pen_copy_queue;

typedef struct pen_copy_job {
    pen_copy_queue *queue;
    unsigned number;
    pen_thread thread;
    pen_pgconn *source; /* under the queue's lock while it is made or closed */
    pen_pgconn *target;
    uint8_t *buffer;
    uint64_t share;              /* of what is shared out for wide rows, under the queue's lock */
    const pen_copy_table *table; /* in work, under the queue's lock; or NULL */
} pen_copy_job;

/* Fills the queue with the chunks of all tables of `plan` that are not done. */
void pen_copy_queue_init(pen_copy_queue *queue, const pen_migration *migration,
                         pen_copy_plan *plan);
void pen_copy_queue_deinit(pen_copy_queue *queue);
/* Any thread: nothing more is begun, and what the servers are at is cancelled. */
void pen_copy_queue_stop(pen_copy_queue *queue, pen_copy_job *jobs, unsigned count);

void pen_copy_job_run(void *job);

#endif
