#include "apply/copy_job.h"

#include "apply/claim.h"
#include "apply/copy_pipe.h"
#include "apply/copy_wide.h"
#include "apply/session.h"
#include "apply/source.h"
#include "core/kill_point.h"
#include "core/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How often a chunk is tried: where the error may pass by itself, and where it says that it does
 * not. */
#define ATTEMPTS_PASSING 8
#define ATTEMPTS_FATAL   2
#define PAUSE_MOST_MS    5000

/* How the try of a chunk ended. */
typedef enum outcome {
    OUTCOME_DONE,
    OUTCOME_PUT_OFF, /* there is no room for its rows now */
    OUTCOME_AGAIN,   /* the table needs another round */
    OUTCOME_LOST,    /* the snapshot is gone */
    OUTCOME_FAILED
} outcome;

/* The queue */

static void add_chunks(pen_copy_queue *queue, pen_copy_table *table, size_t *capacity)
{
    uint64_t step = pen_copy_plan_chunk_pages(table, queue->migration->options->chunk_size);
    uint64_t first = 0;
    do {
        bool last = step == UINT64_MAX || first + step >= table->pages;
        if (queue->count == *capacity) {
            *capacity = *capacity == 0 ? 64 : *capacity * 2;
            queue->chunks = pen_realloc(queue->chunks, *capacity * sizeof(*queue->chunks));
        }
        queue->chunks[queue->count++] = (pen_copy_chunk){
            .table = table, .first_page = first, .end_page = last ? UINT64_MAX : first + step};
        table->chunks_left++;
        first = last ? UINT64_MAX : first + step;
    } while (first != UINT64_MAX);
    queue->tables_left++;
}

void pen_copy_queue_init(pen_copy_queue *queue, const pen_migration *migration, pen_copy_plan *plan)
{
    size_t capacity = 0;
    memset(queue, 0, sizeof(*queue));
    queue->migration = migration;
    pthread_mutex_init(&queue->lock, NULL);
    pthread_cond_init(&queue->changed, NULL);
    for (size_t i = 0; i < plan->count; i++) {
        if (!plan->tables[i].done) {
            add_chunks(queue, &plan->tables[i], &capacity);
        }
    }
    queue->again = pen_calloc(queue->count + 1, sizeof(*queue->again));
}

void pen_copy_queue_deinit(pen_copy_queue *queue)
{
    free(queue->chunks);
    free(queue->again);
    pthread_mutex_destroy(&queue->lock);
    pthread_cond_destroy(&queue->changed);
}

void pen_copy_queue_stop(pen_copy_queue *queue, pen_copy_job *jobs, unsigned count)
{
    pthread_mutex_lock(&queue->lock);
    /* [COPYSTOP-1] release: pairs with the acquire in the jobs. */
    pen_cell_publish(&queue->stop, 1);
    for (unsigned i = 0; i < count; i++) {
        if (jobs[i].source != NULL) {
            pen_pgconn_cancel(jobs[i].source);
        }
        if (jobs[i].target != NULL) {
            pen_pgconn_cancel(jobs[i].target);
        }
    }
    pthread_cond_broadcast(&queue->changed);
    pthread_mutex_unlock(&queue->lock);
}

/* [COPYSTOP-1] acquire: pairs with the release in pen_copy_queue_stop. */
static bool is_stopped(const pen_copy_queue *queue)
{
    return pen_cell_read(&queue->stop) != 0;
}

/* One of those that failed or were put off, or NULL when there is no room for any. */
static pen_copy_chunk *take_again(pen_copy_queue *queue)
{
    for (size_t i = queue->again_count; i-- > 0;) {
        pen_copy_chunk *chunk = &queue->chunks[queue->again[i]];
        if (pen_copy_wide_fits(queue, chunk)) {
            queue->again[i] = queue->again[--queue->again_count];
            return chunk;
        }
    }
    return NULL;
}

/* The next chunk, or NULL when there will be none; waits for those in work, which may fail, or
 * give back the room that another one needs. */
static pen_copy_chunk *take(pen_copy_job *job)
{
    pen_copy_queue *queue = job->queue;
    pen_copy_chunk *chunk = NULL;
    pthread_mutex_lock(&queue->lock);
    while (chunk == NULL && !is_stopped(queue) && !queue->lost) {
        chunk = take_again(queue);
        if (chunk == NULL && queue->next < queue->count) {
            chunk = &queue->chunks[queue->next++];
        }
        if (chunk == NULL && queue->in_work == 0) {
            break;
        }
        if (chunk == NULL) {
            pthread_cond_wait(&queue->changed, &queue->lock);
        } else if (chunk->table->again) {
            chunk = NULL;
        }
    }
    if (chunk != NULL) {
        queue->in_work++;
        pen_copy_wide_take(job, chunk);
        job->table = chunk->table;
        chunk->table->in_work = true;
    }
    pthread_mutex_unlock(&queue->lock);
    return chunk;
}

/* "table public.t, pages 0 to 1023" */
static void describe(const pen_copy_chunk *chunk, char *text, size_t size)
{
    char pages[64] = "";
    if (chunk->first_page > 0 || chunk->end_page != UINT64_MAX) {
        char end[24] = "the end";
        if (chunk->end_page != UINT64_MAX) {
            snprintf(end, sizeof(end), "%" PRIu64, chunk->end_page - 1);
        }
        snprintf(pages, sizeof(pages), ", pages %" PRIu64 " to %s", chunk->first_page, end);
    }
    snprintf(text, size, "table %.300s%s", chunk->table->source_name, pages);
}

/* Gives a chunk back, whatever became of it. *complete: it was the last one of its table. */
static void give_back(pen_copy_job *job, pen_copy_chunk *chunk, outcome how, const pen_error *err,
                      bool *complete)
{
    pen_copy_queue *queue = job->queue;
    pen_copy_table *table = chunk->table;
    unsigned most = err->kind == PEN_ERROR_RETRY ? ATTEMPTS_PASSING : ATTEMPTS_FATAL;
    pthread_mutex_lock(&queue->lock);
    switch (how) {
    case OUTCOME_DONE:
        table->chunks_left--;
        break;
    case OUTCOME_PUT_OFF:
        queue->again[queue->again_count++] = (size_t)(chunk - queue->chunks);
        break;
    case OUTCOME_AGAIN:
        table->again = true;
        break;
    case OUTCOME_LOST:
        queue->lost = true;
        break;
    case OUTCOME_FAILED:
        if (++chunk->attempts < most && !is_stopped(queue)) {
            queue->again[queue->again_count++] = (size_t)(chunk - queue->chunks);
        } else if (queue->failure.kind == PEN_ERROR_NONE && !is_stopped(queue)) {
            char what[400];
            describe(chunk, what, sizeof(what));
            queue->failure = *err;
            pen_error_context(&queue->failure, "%s cannot be copied, after %u tries", what,
                              chunk->attempts);
            /* [COPYSTOP-1] release: pairs with the acquire in the jobs. */
            pen_cell_publish(&queue->stop, 1);
        }
        break;
    }
    *complete = how == OUTCOME_DONE && table->chunks_left == 0 && !table->again;
    queue->in_work--;
    pen_copy_wide_give_back(job);
    job->table = NULL;
    pthread_cond_broadcast(&queue->changed);
    pthread_mutex_unlock(&queue->lock);
}

/* Connections */

static void set_conn(pen_copy_job *job, pen_pgconn **place, pen_pgconn *conn)
{
    pthread_mutex_lock(&job->queue->lock);
    pen_pgconn *old = *place;
    *place = conn;
    pthread_mutex_unlock(&job->queue->lock);
    pen_pgconn_close(old);
}

static void disconnect(pen_copy_job *job)
{
    set_conn(job, &job->source, NULL);
    set_conn(job, &job->target, NULL);
}

/* As the stream's own, so that the same value has the same text. */
static const char *const source_settings =
    "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres';"
    " SET extra_float_digits = 3; SET bytea_output = 'hex'; SET lc_monetary = 'C';"
    " SET xmloption = 'content'";

static bool connect(pen_copy_job *job, pen_error *err)
{
    const pen_copy_queue *queue = job->queue;
    const pen_options *options = queue->migration->options;
    pen_pgconn *conn = NULL;
    char part[24];
    char name[64];
    char encoding[64];
    snprintf(part, sizeof(part), "copy %u", job->number);
    snprintf(name, sizeof(name), "penstock %s %s", options->name, part);
    snprintf(encoding, sizeof(encoding), "SET client_encoding = '%s'", queue->encoding);
    if (job->source == NULL) {
        if (!pen_source_open_session(options, part, &conn, err)) {
            return false;
        }
        set_conn(job, &job->source, conn);
        if (!pen_pgconn_exec(conn, "set up the session", source_settings, 0, NULL, NULL, err) ||
            !pen_pgconn_exec(conn, "set up the session", encoding, 0, NULL, NULL, err)) {
            return false;
        }
    }
    if (job->target == NULL) {
        const pen_session_options session = {.conninfo = options->target,
                                             .application_name = name,
                                             .owner = queue->migration->resume.owner,
                                             .plans = PEN_SESSION_FOR_QUERIES,
                                             .replica_role = queue->migration->resume.replica_role,
                                             .durable = true};
        if (!pen_session_open(&session, &conn, err)) {
            return false;
        }
        set_conn(job, &job->target, conn);
        if (!pen_pgconn_exec(conn, "set up the session", encoding, 0, NULL, NULL, err)) {
            return false;
        }
    }
    return true;
}

/* Chunks */

static bool exec(pen_pgconn *conn, const char *what, const char *sql, pen_error *err)
{
    return pen_pgconn_exec(conn, what, sql, 0, NULL, NULL, err);
}

/* Whether the target is ours still, and does not have the chunk: the row that will say so goes in
 * first, and another try that is under way holds us up here. */
static bool begin_chunk(pen_copy_job *job, const pen_copy_chunk *chunk, bool *there, pen_error *err)
{
    char oid[12];
    char round[12];
    char page[24];
    const char *const values[] = {job->queue->migration->options->name, oid, round, page};
    pen_pgresult *res = NULL;
    snprintf(oid, sizeof(oid), "%" PRIu32, chunk->table->oid);
    snprintf(round, sizeof(round), "%d", job->queue->round);
    snprintf(page, sizeof(page), "%" PRIu64, chunk->first_page);
    if (!exec(job->target, "begin a chunk", "BEGIN", err) ||
        !pen_pgconn_exec(
            job->target, "begin a chunk",
            "WITH t AS (SELECT name, source_oid, round FROM penstock.copied_table WHERE name = $1"
            "  AND source_oid = $2::oid AND round = $3::int FOR SHARE),"
            " c AS (INSERT INTO penstock.copied_chunk SELECT t.*, $4::bigint, 0 FROM t"
            "  ON CONFLICT DO NOTHING RETURNING 1)"
            " SELECT (SELECT count(*) FROM t), (SELECT count(*) FROM c)",
            4, values, &res, err)) {
        return false;
    }
    bool ours = pen_pgresult_value(res, 0, 0)[0] == '1';
    *there = pen_pgresult_value(res, 0, 1)[0] == '0';
    pen_pgresult_clear(res);
    return ours || pen_error_set(err, PEN_ERROR_FATAL,
                                 "target: another penstock has taken the migration \"%s\" over; "
                                 "this one has stopped. Make sure that only one runs, and start "
                                 "again",
                                 values[0]);
}

static bool end_chunk(pen_copy_job *job, const pen_copy_chunk *chunk, int64_t rows, pen_error *err)
{
    char oid[12];
    char round[12];
    char page[24];
    char count[24];
    const char *const values[] = {job->queue->migration->options->name, oid, round, page, count};
    snprintf(oid, sizeof(oid), "%" PRIu32, chunk->table->oid);
    snprintf(round, sizeof(round), "%d", job->queue->round);
    snprintf(page, sizeof(page), "%" PRIu64, chunk->first_page);
    snprintf(count, sizeof(count), "%" PRId64, rows);
    PEN_KILL_POINT("chunk-before");
    if (!pen_pgconn_exec(job->target, "record a chunk",
                         "UPDATE penstock.copied_chunk SET rows = $5::bigint WHERE name = $1"
                         " AND source_oid = $2::oid AND round = $3::int"
                         " AND first_page = $4::bigint",
                         5, values, NULL, err) ||
        !exec(job->target, "commit a chunk", "COMMIT", err)) {
        return false;
    }
    PEN_KILL_POINT("chunk-after");
    return true;
}

/* Under the round's snapshot. *how tells when that is what failed. */
static bool begin_reading(pen_copy_job *job, outcome *how, pen_error *err)
{
    char begin[160];
    snprintf(begin, sizeof(begin),
             "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '%s'",
             job->queue->snapshot);
    if (exec(job->source, "read under the snapshot", begin, err)) {
        return true;
    }
    /* What the server says to that differs by version. A connection that is lost is only that. */
    if (err->kind != PEN_ERROR_RETRY) {
        *how = OUTCOME_LOST;
    }
    return false;
}

/* While the transaction that has read the chunk still holds its lock: was the table rewritten or
 * emptied since before the snapshot? Then what it read was not what the snapshot sees. */
static bool is_same_file(pen_copy_job *job, const pen_copy_table *table, bool *same, pen_error *err)
{
    char oid[12];
    const char *const values[] = {oid};
    pen_pgresult *res = NULL;
    snprintf(oid, sizeof(oid), "%" PRIu32, table->oid);
    if (!pen_pgconn_exec(job->source, "look whether the table was rewritten",
                         "SELECT pg_catalog.pg_relation_filenode($1::oid)", 1, values, &res, err)) {
        return false;
    }
    const char *node = pen_pgresult_value(res, 0, 0);
    *same = node != NULL && table->filenode != NULL && strcmp(node, table->filenode) == 0;
    pen_pgresult_clear(res);
    return true;
}

/* Errors that say that the table is not what it was when the round began. */
static bool is_changed(const pen_error *err)
{
    static const char *const changed[] = {"42P01", "42703", "42804", "42883"};
    for (size_t i = 0; i < PEN_COUNTOF(changed); i++) {
        if (strcmp(err->sqlstate, changed[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* Before a chunk is read for the first time: how wide its rows are, and whether there is room for
 * them. */
static bool make_room(pen_copy_job *job, pen_copy_chunk *chunk, outcome *how, pen_error *err)
{
    if (chunk->measured) {
        return true;
    }
    if (!pen_copy_wide_measure(job->source, chunk, err)) {
        *how = is_changed(err) ? OUTCOME_AGAIN : OUTCOME_FAILED;
        return false;
    }
    pthread_mutex_lock(&job->queue->lock);
    pen_copy_wide_give_back(job); /* there may be one for the table */
    bool fits = pen_copy_wide_fits(job->queue, chunk);
    if (fits) {
        pen_copy_wide_take(job, chunk);
    }
    pthread_mutex_unlock(&job->queue->lock);
    *how = fits || !exec(job->source, "put a chunk off", "ROLLBACK", err) ? OUTCOME_FAILED
                                                                          : OUTCOME_PUT_OFF;
    return fits;
}

/* Rows that were wide leave a connection with a buffer as large, which goes with it. */
static void let_go_of_buffer(pen_copy_job *job, const pen_copy_chunk *chunk, uint64_t widest)
{
    if (!pen_copy_wide_is(widest)) {
        return;
    }
    set_conn(job, &job->source, NULL);
    pthread_mutex_lock(&job->queue->lock);
    pen_copy_wide_learn(chunk, widest);
    pthread_mutex_unlock(&job->queue->lock);
}

static outcome copy_chunk(pen_copy_job *job, pen_copy_chunk *chunk, pen_error *err)
{
    outcome how = OUTCOME_FAILED;
    bool there = false;
    bool same = false;
    int64_t rows = 0;
    pen_copy_pipe pipe = {.source = job->source,
                          .target = job->target,
                          .stop = &job->queue->stop,
                          .buffer = job->buffer,
                          .rows = &chunk->table->copied_rows,
                          .bytes = &chunk->table->copied_bytes,
                          .all_rows = &job->queue->rows,
                          .all_bytes = &job->queue->bytes};
    if (!begin_reading(job, &how, err) || !make_room(job, chunk, &how, err)) {
        return how;
    }
    if (!begin_chunk(job, chunk, &there, err)) {
        return OUTCOME_FAILED;
    }
    if (there) {
        return exec(job->target, "end a chunk", "ROLLBACK", err) &&
                       exec(job->source, "end a chunk", "ROLLBACK", err)
                   ? OUTCOME_DONE
                   : OUTCOME_FAILED;
    }
    if (!pen_copy_pipe_run(&pipe, chunk->table, chunk->first_page, chunk->end_page, &rows, err)) {
        return pipe.source_failed && is_changed(err) ? OUTCOME_AGAIN : OUTCOME_FAILED;
    }
    if (!is_same_file(job, chunk->table, &same, err)) {
        return OUTCOME_FAILED;
    }
    if (!same) {
        pen_log(PEN_LOG_WARN,
                "table %s was rewritten or emptied on the source while it was copied; it is copied "
                "again, under another snapshot",
                chunk->table->source_name);
        return OUTCOME_AGAIN;
    }
    if (!exec(job->source, "end a chunk", "COMMIT", err) || !end_chunk(job, chunk, rows, err)) {
        return OUTCOME_FAILED;
    }
    let_go_of_buffer(job, chunk, pipe.widest);
    return OUTCOME_DONE;
}

/* All its chunks are there: says so, and lets the planner know the table. */
static bool finish_table(pen_copy_job *job, pen_copy_table *table, pen_error *err)
{
    char oid[12];
    char round[12];
    char analyze[700];
    const char *const values[] = {job->queue->migration->options->name, oid, round};
    snprintf(oid, sizeof(oid), "%" PRIu32, table->oid);
    snprintf(round, sizeof(round), "%d", job->queue->round);
    if (!pen_pgconn_exec(
            job->target, "record a table",
            "UPDATE penstock.copied_table t SET done = true, rows = (SELECT COALESCE(sum(c.rows),"
            " 0) FROM penstock.copied_chunk c WHERE c.name = t.name"
            " AND c.source_oid = t.source_oid AND c.round = t.round)"
            " WHERE t.name = $1 AND t.source_oid = $2::oid AND t.round = $3::int",
            3, values, NULL, err)) {
        return false;
    }
    PEN_KILL_POINT("table-done");
    pen_error ignored;
    snprintf(analyze, sizeof(analyze), "ANALYZE %s", table->target_name);
    /* A hint for plans, no part of the copy; the server says only as a notice when it may not. */
    bool plain = !table->has_parts && !table->large_objects;
    if (plain && !exec(job->target, "analyze the table", analyze, &ignored)) {
        pen_log(PEN_LOG_DEBUG, "%s", ignored.text);
    }
    pthread_mutex_lock(&job->queue->lock);
    job->queue->tables_left--;
    table->done = true;
    table->in_work = false;
    pthread_mutex_unlock(&job->queue->lock);
    return true;
}

/* After a failure the sessions are in the middle of something: they are made anew. */
static void pause_and_say(pen_copy_job *job, const pen_copy_chunk *chunk, const pen_error *err,
                          unsigned tries)
{
    char what[400];
    if (is_stopped(job->queue)) {
        return;
    }
    describe(chunk, what, sizeof(what));
    pen_log(PEN_LOG_WARN, "%s: %s; trying again", what, err->text);
    unsigned ms = tries > 5 ? PAUSE_MOST_MS : 100U << tries;
    for (unsigned slept = 0; slept < ms && !is_stopped(job->queue); slept += 100) {
        usleep(100 * 1000);
    }
}

/* A server that is away is waited for; the snapshot is then found to be gone, or still there. */
static bool connect_patiently(pen_copy_job *job, const pen_copy_chunk *chunk, pen_error *err)
{
    for (unsigned tries = 0; !is_stopped(job->queue); tries++) {
        if (connect(job, err)) {
            return true;
        }
        disconnect(job);
        if (err->kind != PEN_ERROR_RETRY) {
            return false;
        }
        pause_and_say(job, chunk, err, tries);
    }
    return pen_error_set(err, PEN_ERROR_NONE, "stopped");
}

static void work(pen_copy_job *job, pen_copy_chunk *chunk)
{
    pen_error err = {0};
    outcome how = OUTCOME_FAILED;
    bool complete = false;
    if (connect_patiently(job, chunk, &err)) {
        how = copy_chunk(job, chunk, &err);
    }
    if (how != OUTCOME_DONE && how != OUTCOME_PUT_OFF) {
        disconnect(job);
    }
    if (how == OUTCOME_FAILED && err.kind == PEN_ERROR_RETRY) {
        pause_and_say(job, chunk, &err, chunk->attempts);
    }
    give_back(job, chunk, how, &err, &complete);
    for (unsigned tries = 0; complete && !is_stopped(job->queue); tries++) {
        if (connect_patiently(job, chunk, &err) && finish_table(job, chunk->table, &err)) {
            return;
        }
        disconnect(job);
        if (err.kind != PEN_ERROR_RETRY) {
            pthread_mutex_lock(&job->queue->lock);
            job->queue->failure = err;
            pen_cell_publish(&job->queue->stop, 1);
            pthread_mutex_unlock(&job->queue->lock);
            return;
        }
        pause_and_say(job, chunk, &err, tries);
    }
}

void pen_copy_job_run(void *arg)
{
    pen_copy_job *job = arg;
    PEN_ASSERT(pen_thread_role() == PEN_ROLE_COPY);
    job->buffer = pen_malloc(PEN_COPY_BUFFER);
    for (pen_copy_chunk *chunk; (chunk = take(job)) != NULL;) {
        work(job, chunk);
    }
    disconnect(job);
    free(job->buffer);
    pthread_mutex_lock(&job->queue->lock);
    job->queue->jobs_left--;
    pthread_cond_broadcast(&job->queue->changed);
    pthread_mutex_unlock(&job->queue->lock);
}
