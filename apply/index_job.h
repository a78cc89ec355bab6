/* Purpose: the jobs that build indexes, each with a session of its own.
 * Thread:  the pool is its maker's; a job's thread takes one object after the other from it.
 * Owns:    the pool its jobs and what is to be built.
 * Flow:    objects of one step, the largest first, in; each made and recorded on the target out. */
#ifndef PEN_APPLY_INDEX_JOB_H
#define PEN_APPLY_INDEX_JOB_H

#include "apply/claim.h"
#include "apply/schema.h"
#include "core/sync.h"
#include "core/thread.h"

#include <pthread.h>

typedef struct pen_index_pool pen_index_pool;

typedef struct pen_index_job {
    pen_index_pool *pool;
    pen_thread thread;
    char part[24];
    pen_pgconn *target; /* under the pool's lock while it is made or closed */
} pen_index_job;

struct pen_index_pool {
    const pen_options *options;
    uint64_t owner;
    bool concurrently;
    pen_schema_items items; /* those that can be made side by side */
    pen_index_job *jobs;
    unsigned job_count;
    pthread_mutex_t lock;
    /* under the lock */
    size_t next;
    pen_error failure;
    /* for anybody to look at */
    pen_cell stop;
    pen_cell working; /* jobs that have not ended */
    pen_counter made;
};

/* Reads what is not made of `step` by way of `target`. The caller calls pen_index_pool_deinit, also
 * after an error. `owner` marks the jobs' sessions. */
PEN_MUST_CHECK bool pen_index_pool_init(pen_index_pool *pool, const pen_options *options,
                                        uint64_t owner, bool concurrently, pen_pgconn *target,
                                        pen_schema_step step, pen_error *err);
void pen_index_pool_deinit(pen_index_pool *pool);
PEN_MUST_CHECK bool pen_index_pool_start(pen_index_pool *pool, pen_error *err);
bool pen_index_pool_is_working(const pen_index_pool *pool);
/* Objects that are not made yet. */
size_t pen_index_pool_left(const pen_index_pool *pool);
/* Nothing more is begun, and what the server is at is cancelled. */
void pen_index_pool_stop(pen_index_pool *pool);
void pen_index_pool_join(pen_index_pool *pool);

/* A session that builds indexes, with the memory for it. */
PEN_MUST_CHECK bool pen_index_open(const pen_options *options, uint64_t owner, const char *part,
                                   pen_pgconn **conn, pen_error *err);

/* Its maintenance_work_mem, as PostgreSQL writes it. Returns `text`. */
#define PEN_INDEX_MEMORY_SIZE 32
const char *pen_index_memory(const pen_options *options, char text[PEN_INDEX_MEMORY_SIZE]);

#endif
