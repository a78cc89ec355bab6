#include "apply/copy.h"

#include "apply/copy_job.h"
#include "apply/large_objects.h"
#include "apply/show_copy.h"
#include "apply/status.h"
#include "core/kill_point.h"
#include "core/log.h"
#include "core/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Tables that are emptied and recorded in one transaction: each holds a lock. */
#define TABLES_AT_ONCE 100
/* Rounds that bring no table to its end, before it is given up. */
#define ROUNDS_IN_VAIN 5
/* Between two looks at jobs and snapshot. */
#define LOOK_EVERY_MS     200
#define SNAPSHOT_EVERY_US (5 * 1000 * 1000)

static bool exec(pen_pgconn *conn, const char *what, const char *sql, pen_error *err)
{
    return pen_pgconn_exec(conn, what, sql, 0, NULL, NULL, err);
}

static void roll_back(pen_pgconn *conn)
{
    pen_error ignored;
    (void)!exec(conn, "roll back", "ROLLBACK", &ignored);
}

/* A round's beginning */

static bool next_round(pen_migration *migration, int *round, pen_error *err)
{
    const char *const values[] = {migration->options->name};
    pen_pgresult *res = NULL;
    if (!pen_pgconn_exec(migration->target, "count the rounds",
                         "SELECT COALESCE(max(round), 0) + 1 FROM penstock.copied_table"
                         " WHERE name = $1",
                         1, values, &res, err)) {
        return false;
    }
    *round = atoi(pen_pgresult_value(res, 0, 0));
    pen_pgresult_clear(res);
    return true;
}

/* An owner may TRUNCATE, which is quick; where a foreign key or a missing right forbids it, rows
 * are deleted. */
static bool empty_tables(pen_migration *migration, pen_copy_table *const *tables, size_t count,
                         pen_error *err)
{
    pen_pgconn *target = migration->target;
    pen_text truncate = {0};
    pen_text delete = {0};
    for (size_t i = 0; i < count; i++) {
        if (tables[i]->large_objects) {
            continue; /* when all tables are recorded */
        }
        const char *only = tables[i]->has_parts ? "" : "ONLY ";
        pen_text_appendf(&truncate, "%s%s%s", truncate.len == 0 ? "TRUNCATE " : ", ", only,
                         tables[i]->target_name);
        pen_text_appendf(&delete, "DELETE FROM %s%s;", only, tables[i]->target_name);
    }
    char *truncate_sql = pen_text_take(&truncate);
    char *delete_sql = pen_text_take(&delete);
    bool ok = exec(target, "empty the tables", "SAVEPOINT empty", err);
    if (ok && truncate_sql[0] != '\0' && !exec(target, "empty the tables", truncate_sql, err)) {
        bool forbidden = strcmp(err->sqlstate, "0A000") == 0 || strcmp(err->sqlstate, "42501") == 0;
        ok = forbidden && exec(target, "empty the tables", "ROLLBACK TO empty", err) &&
             exec(target, "empty the tables", delete_sql, err);
    }
    free(truncate_sql);
    free(delete_sql);
    return ok;
}

static bool quote(pen_pgconn *conn, const char *text, char **quoted, pen_error *err)
{
    if (text != NULL) {
        return pen_pgconn_quote_literal(conn, text, quoted, err);
    }
    *quoted = pen_strdup("NULL");
    return true;
}

static bool record_tables(pen_migration *migration, pen_copy_table *const *tables, size_t count,
                          int round, const pen_snapshot *snapshot, pen_error *err)
{
    pen_text sql = {0};
    char *fence = NULL;
    char lsn[PEN_LSN_TEXT_SIZE] = "";
    bool ok = quote(migration->target, snapshot->xids, &fence, err);
    if (snapshot->xids != NULL) {
        pen_lsn_format(snapshot->fence_end, lsn);
    }
    pen_text_append(&sql, "INSERT INTO penstock.copied_table (name, source_oid, stream_oid, quoted,"
                          " round, fence_snapshot, fence_end) VALUES ");
    for (size_t i = 0; ok && i < count; i++) {
        char *name = NULL;
        ok = quote(migration->target, tables[i]->target_name, &name, err);
        if (ok) {
            pen_text_appendf(&sql,
                             "%s('%s', %" PRIu32 ", %" PRIu32 ", %s, %d, %s, NULLIF('%s', '')"
                             "::pg_lsn)",
                             i == 0 ? "" : ", ", migration->options->name, tables[i]->oid,
                             tables[i]->stream_oid, name, round, fence, lsn);
        }
        free(name);
    }
    pen_text_append(&sql, " ON CONFLICT (name, source_oid) DO UPDATE SET done = false, rows = 0,"
                          " stream_oid = excluded.stream_oid, quoted = excluded.quoted,"
                          " round = excluded.round, fence_snapshot = excluded.fence_snapshot,"
                          " fence_end = excluded.fence_end");
    char *query = pen_text_take(&sql);
    ok = ok && exec(migration->target, "record the tables", query, err);
    free(query);
    free(fence);
    return ok;
}

/* In the transaction that records the slot: what is dropped on the source from now on has changes
 * behind the slot, and must be known to have been there. */
static bool record_all(pen_migration *migration, const pen_copy_plan *plan,
                       const pen_snapshot *snapshot, pen_error *err)
{
    pen_copy_table *some[TABLES_AT_ONCE];
    size_t count = 0;
    for (size_t i = 0; i < plan->count; i++) {
        some[count++] = &plan->tables[i];
        if (count == TABLES_AT_ONCE || i + 1 == plan->count) {
            if (!record_tables(migration, some, count, 0, snapshot, err)) {
                return false;
            }
            count = 0;
        }
    }
    return true;
}

static void tell_of_chars(const pen_copy_plan *plan)
{
    for (size_t i = 0; i < plan->count; i++) {
        if (plan->tables[i].misread) {
            pen_log(PEN_LOG_WARN,
                    "%s has a column of type \"char\", and is copied as text: a value beyond "
                    "ASCII is another one on this older target, and no error tells; give it "
                    "another type on both sides, or leave such values out",
                    plan->tables[i].source_name);
        }
    }
}

bool pen_copy_begin(pen_migration *migration, pen_copy_plan *plan, pen_snapshot *snapshot,
                    pen_error *err)
{
    pen_lsn start = PEN_LSN_NONE;
    /* In this order: what is rewritten after the plan was read, but before the snapshot, shows. */
    if (!pen_copy_plan_read(migration, plan, err) ||
        !pen_snapshot_of_slot(migration, snapshot, &start, err)) {
        return false;
    }
    tell_of_chars(plan);
    if (!exec(migration->target, "begin", "BEGIN", err)) {
        return false;
    }
    if (pen_resume_record(migration->target, migration->options, &migration->resume, start, err) &&
        record_all(migration, plan, snapshot, err) &&
        pen_migration_record(migration->target, migration->options->name, PEN_PHASE_COPY, err) &&
        exec(migration->target, "commit", "COMMIT", err)) {
        migration->streams = true;
        pen_log(PEN_LOG_INFO, "the stream \"%s\" will begin at " PEN_LSN_FMT,
                migration->options->name, PEN_LSN_ARGS(start));
        return true;
    }
    roll_back(migration->target);
    return false;
}

/* Empties some tables, except in the first round of all, and records under what they are copied. */
static bool begin_tables(pen_migration *migration, pen_copy_table *const *tables, size_t count,
                         int round, const pen_snapshot *snapshot, pen_error *err)
{
    bool ok = exec(migration->target, "begin", "BEGIN", err) &&
              (snapshot->xids == NULL || empty_tables(migration, tables, count, err)) &&
              record_tables(migration, tables, count, round, snapshot, err) &&
              exec(migration->target, "commit", "COMMIT", err);
    if (!ok) {
        roll_back(migration->target);
    }
    PEN_KILL_POINT("round-some");
    return ok;
}

/* The OIDs of all tables of the plan, as an array's text, with a 0 so that there is one. */
static char *list_oids(const pen_copy_plan *plan)
{
    pen_text oids = {0};
    pen_text_append(&oids, "{0");
    for (size_t i = 0; i < plan->count; i++) {
        pen_text_appendf(&oids, ",%" PRIu32, plan->tables[i].oid);
    }
    pen_text_append(&oids, "}");
    return pen_text_take(&oids);
}

/* $2 is that array. As a join, because to compare all with all grows with the square. */
#define NOT_IN_PLAN "NOT EXISTS (SELECT 1 FROM unnest($2::oid[]) u(oid) WHERE u.oid = source_oid)"

/* Tables that were begun and are not there any more. */
static bool count_dropped(pen_migration *migration, const pen_copy_plan *plan, size_t *count,
                          pen_error *err)
{
    char *array = list_oids(plan);
    const char *const values[] = {migration->options->name, array};
    pen_pgresult *res = NULL;
    bool ok = pen_pgconn_exec(migration->target, "look for tables that are gone",
                              "SELECT count(*) FROM penstock.copied_table WHERE name = $1"
                              " AND NOT done AND " NOT_IN_PLAN,
                              2, values, &res, err);
    *count = ok ? strtoull(pen_pgresult_value(res, 0, 0), NULL, 10) : 0;
    pen_pgresult_clear(res);
    free(array);
    return ok;
}

/* What the new snapshot sees of them is nothing, and every change that came before their end is
 * behind the fence. */
static bool forget_dropped(pen_migration *migration, const pen_copy_plan *plan,
                           const pen_snapshot *snapshot, pen_error *err)
{
    char lsn[PEN_LSN_TEXT_SIZE];
    char *array = list_oids(plan);
    const char *const values[] = {migration->options->name, array, snapshot->xids,
                                  pen_lsn_format(snapshot->fence_end, lsn)};
    bool ok = pen_pgconn_exec(migration->target, "forget tables that are gone",
                              "UPDATE penstock.copied_table SET done = true, fence_snapshot = $3,"
                              " fence_end = $4::pg_lsn WHERE name = $1 AND NOT done"
                              " AND " NOT_IN_PLAN,
                              4, values, NULL, err);
    free(array);
    return ok;
}

static bool begin_round(pen_migration *migration, pen_copy_plan *plan, const pen_snapshot *snapshot,
                        int round, pen_error *err)
{
    pen_copy_table *some[TABLES_AT_ONCE];
    size_t count = 0;
    bool large_objects = false;
    if (snapshot->xids != NULL && !forget_dropped(migration, plan, snapshot, err)) {
        return false;
    }
    for (size_t i = 0; i < plan->count; i++) {
        if (!plan->tables[i].done) {
            some[count++] = &plan->tables[i];
            large_objects |= plan->tables[i].large_objects;
        }
        if (count == TABLES_AT_ONCE || (i + 1 == plan->count && count > 0)) {
            if (!begin_tables(migration, some, count, round, snapshot, err)) {
                return false;
            }
            count = 0;
        }
    }
    /* From here on no chunk of another round can commit. */
    return !large_objects || snapshot->xids == NULL ||
           pen_large_objects_empty(migration->target, err);
}

/* A round */

/* The snapshot is needed as long as something is left to read. */
static bool is_read(pen_copy_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    bool read = queue->next == queue->count && queue->again_count == 0 && queue->in_work == 0;
    pthread_mutex_unlock(&queue->lock);
    return read;
}

static unsigned jobs_left(pen_copy_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    unsigned left = queue->jobs_left;
    pthread_mutex_unlock(&queue->lock);
    return left;
}

/* Shows how far it is, and looks after the snapshot, until all jobs have ended. */
static void watch(pen_copy_queue *queue, pen_copy_job *jobs, unsigned count, pen_copy_plan *plan,
                  pen_snapshot *snapshot, pen_copy_show *show)
{
    int64_t looked_us = pen_now_us();
    while (jobs_left(queue) > 0) {
        usleep(LOOK_EVERY_MS * 1000);
        pen_copy_show_look(show, plan, queue, jobs, count);
        if (snapshot->holder != NULL && is_read(queue)) {
            pen_snapshot_release(snapshot);
        }
        if (snapshot->holder != NULL && pen_now_us() - looked_us > SNAPSHOT_EVERY_US) {
            looked_us = pen_now_us();
            if (!pen_snapshot_lives(snapshot)) {
                pen_log(PEN_LOG_WARN, "source: the session that holds the snapshot is gone; tables "
                                      "that are not whole yet are copied under another one");
                pthread_mutex_lock(&queue->lock);
                queue->lost = true;
                pthread_mutex_unlock(&queue->lock);
                pen_copy_queue_stop(queue, jobs, count);
            }
        }
        /* [COPYSTOP-1] acquire: pairs with the release in the jobs. */
        if (pen_cell_read(&queue->stop)) {
            pen_copy_queue_stop(queue, jobs, count);
        }
    }
}

/* The encoding in which both sessions of a job speak: what cannot be converted is not. */
static const char *common_encoding(const pen_migration *migration)
{
    const char *source = pen_pgconn_parameter(migration->source, "server_encoding");
    const char *target = pen_pgconn_parameter(migration->target, "server_encoding");
    bool plain = strcmp(source, "SQL_ASCII") == 0 || strcmp(target, "SQL_ASCII") == 0;
    return plain ? "SQL_ASCII" : "UTF8";
}

static bool run_jobs(pen_migration *migration, pen_copy_plan *plan, pen_snapshot *snapshot,
                     int round, pen_copy_show *show, pen_error *err)
{
    pen_copy_queue queue;
    pen_copy_queue_init(&queue, migration, plan);
    queue.snapshot = snapshot->name;
    queue.round = round;
    queue.encoding = common_encoding(migration);
    unsigned count = (unsigned)migration->options->copy_jobs;
    count = queue.count < count ? (unsigned)queue.count : count;
    pen_copy_job *jobs = pen_calloc(count + 1, sizeof(*jobs));
    bool ok = true;
    for (unsigned i = 0; ok && i < count; i++) {
        char name[16];
        snprintf(name, sizeof(name), "copy %u", i + 1);
        jobs[i].queue = &queue;
        jobs[i].number = i + 1;
        pthread_mutex_lock(&queue.lock);
        queue.jobs_left++;
        pthread_mutex_unlock(&queue.lock);
        ok =
            pen_thread_start(&jobs[i].thread, PEN_ROLE_COPY, name, pen_copy_job_run, &jobs[i], err);
        if (!ok) {
            pthread_mutex_lock(&queue.lock);
            queue.jobs_left--;
            pthread_mutex_unlock(&queue.lock);
            pen_copy_queue_stop(&queue, jobs, i);
        }
    }
    pen_status_show_copy(migration->options->status, plan, &queue, jobs, count);
    watch(&queue, jobs, count, plan, snapshot, show);
    pen_status_hide_copy(migration->options->status);
    for (unsigned i = 0; i < count; i++) {
        pen_thread_join(&jobs[i].thread);
    }
    pen_copy_show_look(show, plan, &queue, jobs, 0);
    if (ok && queue.failure.kind != PEN_ERROR_NONE) {
        *err = queue.failure;
        ok = false;
    }
    if (ok && queue.lost) {
        pen_log(PEN_LOG_WARN,
                "the snapshot is gone: %zu tables that are not whole yet are copied under another "
                "one",
                queue.tables_left);
    }
    free(jobs);
    pen_copy_queue_deinit(&queue);
    return ok;
}

/* One round, after which some tables may be left; `plan` and `snapshot` are made where they are not
 * there, and gone afterwards. */
static bool run_round(pen_migration *migration, pen_copy_plan *plan, pen_snapshot *snapshot,
                      pen_copy_show *show, size_t *left, pen_error *err)
{
    int round = 0;
    size_t dropped = 0;
    bool ok = (plan->tables != NULL || pen_copy_plan_read(migration, plan, err)) &&
              count_dropped(migration, plan, &dropped, err);
    *left = ok ? plan->unfinished + dropped : 0;
    if (ok && *left > 0) {
        ok = (snapshot->holder != NULL || pen_snapshot_take(migration, snapshot, err)) &&
             next_round(migration, &round, err);
        if (ok) {
            pen_log(PEN_LOG_INFO,
                    "copying %zu tables, about %" PRIu64 " MB, by %" PRIu64 " jobs (round %d)",
                    plan->unfinished, plan->unfinished_bytes >> 20, migration->options->copy_jobs,
                    round);
        }
        ok = ok && begin_round(migration, plan, snapshot, round, err) &&
             run_jobs(migration, plan, snapshot, round, show, err);
    }
    pen_snapshot_release(snapshot);
    pen_copy_plan_deinit(plan);
    return ok;
}

/* The sessions that only wait meanwhile may have been lost. */
static bool look_after_sessions(pen_migration *migration, pen_error *err)
{
    return (exec(migration->source, "look after the session", "SELECT 1", err) ||
            (err->kind == PEN_ERROR_RETRY && pen_migration_reconnect_source(migration, err))) &&
           (exec(migration->target, "look after the session", "SELECT 1", err) ||
            (err->kind == PEN_ERROR_RETRY && pen_migration_reconnect_target(migration, err)));
}

static bool run_rounds(pen_migration *migration, pen_copy_plan *plan, pen_snapshot *snapshot,
                       pen_copy_show *show, pen_error *err)
{
    size_t least = SIZE_MAX;
    unsigned in_vain = 0;
    for (;;) {
        size_t left = 0;
        if (!run_round(migration, plan, snapshot, show, &left, err)) {
            return false;
        }
        if (left == 0) {
            return true;
        }
        in_vain = left < least ? 0 : in_vain + 1;
        least = left < least ? left : least;
        if (in_vain == ROUNDS_IN_VAIN) {
            return pen_error_set(
                err, PEN_ERROR_RETRY,
                "%zu tables could not be copied in %u rounds, because the snapshot "
                "was lost or they were rewritten each time; see the warnings above",
                left, in_vain);
        }
        if (!look_after_sessions(migration, err)) {
            return false;
        }
    }
}

static bool tell_result(pen_migration *migration, const pen_copy_show *show, pen_error *err)
{
    const char *const values[] = {migration->options->name};
    pen_pgresult *res = NULL;
    if (!pen_pgconn_exec(migration->target, "count what is copied",
                         "SELECT count(*), COALESCE(sum(rows), 0) FROM penstock.copied_table"
                         " WHERE name = $1 AND source_oid <> 2613",
                         1, values, &res, err)) {
        return false;
    }
    pen_copy_show_result(show, strtoull(pen_pgresult_value(res, 0, 0), NULL, 10),
                         strtoull(pen_pgresult_value(res, 0, 1), NULL, 10));
    pen_pgresult_clear(res);
    return true;
}

bool pen_copy_run(pen_migration *migration, pen_copy_plan *plan, pen_snapshot *snapshot,
                  pen_error *err)
{
    pen_copy_show show;
    pen_copy_show_init(&show, migration->options);
    bool ok = run_rounds(migration, plan, snapshot, &show, err);
    pen_copy_show_end(&show);
    ok = ok && tell_result(migration, &show, err);
    pen_snapshot_release(snapshot);
    pen_copy_plan_deinit(plan);
    return ok;
}
