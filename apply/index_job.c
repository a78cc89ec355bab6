#include "apply/index_job.h"

#include "apply/session.h"
#include "core/kill_point.h"
#include "core/log.h"
#include "core/sql_scan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How often an object is tried whose error may pass. */
#define ATTEMPTS 8

const char *pen_index_memory(const pen_options *options, char text[PEN_INDEX_MEMORY_SIZE])
{
    uint64_t kb = options->index_memory >> 10;
    snprintf(text, PEN_INDEX_MEMORY_SIZE, kb % 1024 == 0 ? "%" PRIu64 "MB" : "%" PRIu64 "kB",
             kb % 1024 == 0 ? kb >> 10 : kb);
    return text;
}

bool pen_index_open(const pen_options *options, uint64_t owner, const char *part, pen_pgconn **conn,
                    pen_error *err)
{
    char name[64];
    char memory[PEN_INDEX_MEMORY_SIZE];
    char setup[160];
    snprintf(name, sizeof(name), "penstock %s %s", options->name, part);
    const pen_session_options session = {.conninfo = options->target,
                                         .application_name = name,
                                         .owner = owner,
                                         .plans = PEN_SESSION_FOR_QUERIES,
                                         .durable = true,
                                         .names_only = true};
    pen_pgconn *made = NULL;
    if (!pen_session_open(&session, &made, err)) {
        return false;
    }
    snprintf(setup, sizeof(setup), "SET maintenance_work_mem = '%s'; SET lock_timeout = 0",
             pen_index_memory(options, memory));
    if (!pen_pgconn_exec(made, "set up the session", setup, 0, NULL, NULL, err)) {
        pen_pgconn_close(made);
        return false;
    }
    *conn = made;
    return true;
}

/* The pool */

bool pen_index_pool_init(pen_index_pool *pool, const pen_options *options, uint64_t owner,
                         bool concurrently, pen_pgconn *target, pen_schema_step step,
                         pen_error *err)
{
    pen_schema_items all;
    memset(pool, 0, sizeof(*pool));
    pthread_mutex_init(&pool->lock, NULL);
    pool->options = options;
    pool->owner = owner;
    pool->concurrently = concurrently;
    if (!pen_schema_list(target, options->name, step, true, &all, err)) {
        return false;
    }
    pool->items.items = pen_calloc(all.count + 1, sizeof(*pool->items.items));
    for (size_t i = 0; i < all.count; i++) {
        if (pen_dump_goes_alone(all.items[i].kind)) {
            pool->items.items[pool->items.count++] = all.items[i];
            all.items[i] = (pen_schema_item){0};
        }
    }
    pen_schema_items_deinit(&all);
    pool->job_count = (unsigned)options->index_jobs;
    pool->job_count =
        pool->items.count < pool->job_count ? (unsigned)pool->items.count : pool->job_count;
    pool->jobs = pen_calloc(pool->job_count + 1, sizeof(*pool->jobs));
    return true;
}

void pen_index_pool_deinit(pen_index_pool *pool)
{
    pen_schema_items_deinit(&pool->items);
    free(pool->jobs);
    pthread_mutex_destroy(&pool->lock);
}

bool pen_index_pool_is_working(const pen_index_pool *pool)
{
    /* [INDEXJOB-1] acquire: pairs with the release at a job's end. */
    return pen_cell_read(&pool->working) != 0;
}

size_t pen_index_pool_left(const pen_index_pool *pool)
{
    return pool->items.count - (size_t)pen_counter_get(&pool->made);
}

void pen_index_pool_stop(pen_index_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    /* [INDEXPOOL-1] release: pairs with the acquire in the jobs. */
    pen_cell_publish(&pool->stop, 1);
    for (unsigned i = 0; i < pool->job_count; i++) {
        if (pool->jobs[i].target != NULL) {
            pen_pgconn_cancel(pool->jobs[i].target);
        }
    }
    pthread_mutex_unlock(&pool->lock);
}

void pen_index_pool_join(pen_index_pool *pool)
{
    for (unsigned i = 0; i < pool->job_count; i++) {
        pen_thread_join(&pool->jobs[i].thread);
    }
}

/* A job */

static bool is_stopped(const pen_index_pool *pool)
{
    /* [INDEXPOOL-1] acquire: pairs with the release in pen_index_pool_stop. */
    return pen_cell_read(&pool->stop) != 0;
}

static void set_conn(pen_index_job *job, pen_pgconn *conn)
{
    pthread_mutex_lock(&job->pool->lock);
    pen_pgconn *old = job->target;
    job->target = conn;
    pthread_mutex_unlock(&job->pool->lock);
    pen_pgconn_close(old);
}

/* *state: 'v' the index is there and valid, 'i' it is there from a build that did not come to its
 * end, '-' it is not there. */
static bool look_for_index(pen_pgconn *target, const char *name, char *state, pen_error *err)
{
    const char *const values[] = {name};
    pen_pgresult *res = NULL;
    if (!pen_pgconn_exec(target, "look for an index",
                         "SELECT indisvalid FROM pg_catalog.pg_index"
                         " WHERE indexrelid = pg_catalog.to_regclass($1)",
                         1, values, &res, err)) {
        return false;
    }
    bool there = pen_pgresult_rows(res) > 0;
    *state = !there ? '-' : pen_pgresult_value(res, 0, 0)[0] == 't' ? 'v' : 'i';
    pen_pgresult_clear(res);
    return true;
}

static bool drop_index(pen_pgconn *target, const char *name, pen_error *err)
{
    char sql[400];
    snprintf(sql, sizeof(sql), "DROP INDEX CONCURRENTLY %s", name);
    return pen_pgconn_exec(target, "drop an index whose build was interrupted", sql, 0, NULL, NULL,
                           err);
}

/* Outside of a transaction, so that what was built is recorded afterwards. */
static bool build_concurrently(pen_index_job *job, const pen_schema_item *item,
                               const pen_sql_index *index, pen_error *err)
{
    char what[300];
    char state = '-';
    snprintf(what, sizeof(what), "build %.280s", item->object);
    if (!look_for_index(job->target, index->name, &state, err) ||
        (state == 'i' && !drop_index(job->target, index->name, err)) ||
        (state != 'v' && !pen_pgconn_exec(job->target, what, index->alone, 0, NULL, NULL, err))) {
        return false;
    }
    PEN_KILL_POINT("index-built");
    return (*index->rest == '\0' ||
            pen_pgconn_exec(job->target, what, index->rest, 0, NULL, NULL, err)) &&
           pen_schema_done(job->target, job->pool->options->name, item, err);
}

static bool make(pen_index_job *job, const pen_schema_item *item, pen_error *err)
{
    pen_sql_index index;
    if (job->pool->concurrently && pen_sql_read_index(item->sql, &index)) {
        bool ok = index.only ? pen_schema_make_one(job->target, job->pool->options->name, item, err)
                             : build_concurrently(job, item, &index, err);
        pen_sql_index_deinit(&index);
        return ok;
    }
    return pen_schema_make_one(job->target, job->pool->options->name, item, err);
}

static bool try_once(pen_index_job *job, const pen_schema_item *item, pen_error *err)
{
    pen_pgconn *conn = NULL;
    if (job->target == NULL) {
        if (!pen_index_open(job->pool->options, job->pool->owner, job->part, &conn, err)) {
            return false;
        }
        set_conn(job, conn);
    }
    if (make(job, item, err)) {
        return true;
    }
    set_conn(job, NULL);
    return false;
}

/* True when it is made, or we are to stop. */
static bool make_patiently(pen_index_job *job, const pen_schema_item *item, pen_error *err)
{
    for (unsigned tries = 1; !is_stopped(job->pool); tries++) {
        if (try_once(job, item, err)) {
            pen_counter_add(&job->pool->made, 1);
            return true;
        }
        if (is_stopped(job->pool)) {
            return true;
        }
        if (err->kind != PEN_ERROR_RETRY || tries == ATTEMPTS) {
            return false;
        }
        pen_log(PEN_LOG_WARN, "%s; trying again", err->text);
        for (unsigned slept = 0; slept < (1U << tries) && !is_stopped(job->pool); slept++) {
            usleep(100 * 1000);
        }
    }
    return true;
}

static const pen_schema_item *take(pen_index_pool *pool)
{
    const pen_schema_item *item = NULL;
    pthread_mutex_lock(&pool->lock);
    if (!is_stopped(pool) && pool->next < pool->items.count) {
        item = &pool->items.items[pool->next++];
    }
    pthread_mutex_unlock(&pool->lock);
    return item;
}

static void job_run(void *arg)
{
    pen_index_job *job = arg;
    pen_index_pool *pool = job->pool;
    PEN_ASSERT(pen_thread_role() == PEN_ROLE_INDEX);
    for (const pen_schema_item *item; (item = take(pool)) != NULL;) {
        pen_error err;
        if (!make_patiently(job, item, &err)) {
            /* The others are built all the same: less is left for the next start. */
            pthread_mutex_lock(&pool->lock);
            if (pool->failure.kind == PEN_ERROR_NONE) {
                pool->failure = err;
            }
            pthread_mutex_unlock(&pool->lock);
        }
    }
    set_conn(job, NULL);
    pthread_mutex_lock(&pool->lock);
    /* [INDEXJOB-1] release: all that was made is counted; pairs with the acquire in
     * pen_index_pool_is_working. */
    pen_cell_publish(&pool->working, pen_cell_read(&pool->working) - 1);
    pthread_mutex_unlock(&pool->lock);
}

bool pen_index_pool_start(pen_index_pool *pool, pen_error *err)
{
    for (unsigned i = 0; i < pool->job_count; i++) {
        pen_index_job *job = &pool->jobs[i];
        job->pool = pool;
        snprintf(job->part, sizeof(job->part), "index %u", i + 1);
        pthread_mutex_lock(&pool->lock);
        pen_cell_publish(&pool->working, pen_cell_read(&pool->working) + 1);
        pthread_mutex_unlock(&pool->lock);
        if (!pen_thread_start(&job->thread, PEN_ROLE_INDEX, job->part, job_run, job, err)) {
            pthread_mutex_lock(&pool->lock);
            pen_cell_publish(&pool->working, pen_cell_read(&pool->working) - 1);
            pthread_mutex_unlock(&pool->lock);
            return false;
        }
    }
    return true;
}
