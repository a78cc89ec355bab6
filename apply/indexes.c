#include "apply/indexes.h"

#include "apply/index_job.h"
#include "apply/schema.h"
#include "apply/session.h"
#include "apply/source.h"
#include "apply/status.h"
#include "core/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOOK_EVERY_MS  100
#define LINES_EVERY_US (10 * 1000 * 1000)
/* A position of the source counts as reached when the target has it this much later. */
#define READY_WITHIN_US (20 * 1000 * 1000)
#define RETRY_EVERY_MS  2000

/* Their sessions are told from those of the stream, which end all others of its own. */
#define BESIDE_MARK UINT64_C(0x9E3779B97F4A7C15)

/* What is under way, with the part that is done, on one line; the session's own look. */
static void show(pen_pgconn *target, const pen_index_pool *pool, int64_t *shown_us)
{
    pen_pgresult *res = NULL;
    pen_error ignored;
    int64_t now_us = pen_now_us();
    if (pool->options->progress == PEN_PROGRESS_NONE || now_us - *shown_us < LINES_EVERY_US) {
        return;
    }
    *shown_us = now_us;
    if (!pen_pgconn_exec(
            target, "look at the index builds",
            "SELECT pg_catalog.string_agg(COALESCE(p.index_relid::regclass, p.relid::regclass)"
            " || ': ' || p.phase || COALESCE(' ' || 100 * GREATEST(p.blocks_done, p.tuples_done)"
            " / NULLIF(GREATEST(p.blocks_total, p.tuples_total), 0) || ' %', ''), ', ')"
            " FROM pg_catalog.pg_stat_progress_create_index p"
            " WHERE p.datname = pg_catalog.current_database()",
            0, NULL, &res, &ignored)) {
        return;
    }
    const pen_log_field fields[] = {
        {"left", PEN_FIELD_U64, .u64 = pen_index_pool_left(pool)},
        {"under_way", PEN_FIELD_TEXT, .text = pen_pgresult_value(res, 0, 0)},
    };
    pen_log_fields(PEN_LOG_INFO, "building indexes", fields, PEN_COUNTOF(fields));
    pen_pgresult_clear(res);
}

/* Runs the pool's jobs to their end, or until `cancel`. */
static bool run_pool(pen_pgconn *control, pen_index_pool *pool, const pen_cell *cancel,
                     pen_error *err)
{
    int64_t shown_us = pen_now_us();
    int64_t began_us = shown_us;
    size_t count = pool->items.count;
    char memory[PEN_INDEX_MEMORY_SIZE];
    if (count == 0) {
        return true;
    }
    pen_log(PEN_LOG_INFO,
            "building %zu indexes and the like by %u jobs, each with maintenance_work_mem = %s",
            count, pool->job_count, pen_index_memory(pool->options, memory));
    pen_status_show_indexes(pool->options->status, pool);
    if (!pen_index_pool_start(pool, err)) {
        pen_index_pool_stop(pool);
        pen_index_pool_join(pool);
        pen_status_show_indexes(pool->options->status, NULL);
        return false;
    }
    while (pen_index_pool_is_working(pool)) {
        usleep(LOOK_EVERY_MS * 1000);
        /* [INDEXSTOP-1] acquire: pairs with the release in pen_index_beside_join. */
        if (cancel != NULL && pen_cell_read(cancel)) {
            pen_index_pool_stop(pool);
        }
        show(control, pool, &shown_us);
    }
    pen_index_pool_join(pool);
    pen_status_show_indexes(pool->options->status, NULL);
    if (pool->failure.kind != PEN_ERROR_NONE) {
        *err = pool->failure;
        return false;
    }
    if (pen_index_pool_left(pool) == 0) {
        const pen_log_field fields[] = {
            {"built", PEN_FIELD_U64, .u64 = count},
            {"seconds", PEN_FIELD_DOUBLE, .real = (double)(pen_now_us() - began_us) / 1e6}};
        pen_log_fields(PEN_LOG_INFO, "indexes are built", fields, PEN_COUNTOF(fields));
    }
    return true;
}

bool pen_index_unique(pen_migration *migration, pen_error *err)
{
    pen_index_pool pool;
    bool ok = pen_index_pool_init(&pool, migration->options, migration->resume.owner, false,
                                  migration->target, PEN_STEP_UNIQUE, err);
    ok = ok && run_pool(migration->target, &pool, NULL, err);
    pen_index_pool_deinit(&pool);
    /* What is left needs all of those: attaching to a partitioned table's, comments. */
    return ok && pen_schema_make(migration->target, migration->options->name, PEN_STEP_UNIQUE, err);
}

/* Beside the stream */

struct pen_index_beside {
    const pen_options *options;
    uint64_t owner;
    pen_thread thread;
    pen_cell cancel; /* 1: stop at once */
    pen_cell finish; /* 1: end when everything is built */
    bool built;
    bool ready;
    pen_error failure;
};

static bool is_cancelled(const pen_index_beside *beside)
{
    /* [INDEXSTOP-1] acquire: pairs with the release in pen_index_beside_join. */
    return pen_cell_read(&beside->cancel) != 0;
}

static bool build_beside(pen_index_beside *beside, pen_pgconn *control, pen_error *err)
{
    pen_index_pool pool;
    bool ok = pen_index_pool_init(&pool, beside->options, beside->owner, true, control,
                                  PEN_STEP_INDEXES, err);
    ok = ok && run_pool(control, &pool, &beside->cancel, err);
    bool all = ok && pen_index_pool_left(&pool) == 0;
    pen_index_pool_deinit(&pool);
    beside->built = all && pen_schema_make(control, beside->options->name, PEN_STEP_INDEXES, err);
    return !all ? ok : beside->built;
}

static bool read_lsn(pen_pgconn *conn, const char *sql, const char *name, pen_lsn *lsn,
                     pen_error *err)
{
    const char *const values[] = {name};
    pen_pgresult *res = NULL;
    if (!pen_pgconn_exec(conn, "read a position", sql, name == NULL ? 0 : 1, values, &res, err)) {
        return false;
    }
    const char *text = pen_pgresult_rows(res) == 0 ? NULL : pen_pgresult_value(res, 0, 0);
    if (text == NULL || !pen_lsn_parse(text, lsn)) {
        *lsn = PEN_LSN_NONE;
    }
    pen_pgresult_clear(res);
    return true;
}

/* Until the target has what the source had moments ago. */
static bool watch_lag(pen_index_beside *beside, pen_pgconn *control, pen_pgconn *source,
                      pen_error *err)
{
    pen_lsn mark = PEN_LSN_NONE;
    int64_t marked_us = 0;
    /* [INDEXEND-1] acquire: pairs with the release in pen_index_beside_join. */
    while (!is_cancelled(beside) && !pen_cell_read(&beside->finish)) {
        pen_lsn has = PEN_LSN_NONE;
        if (mark == PEN_LSN_NONE || pen_now_us() - marked_us > READY_WITHIN_US) {
            marked_us = pen_now_us();
            if (!read_lsn(source, "SELECT pg_catalog.pg_current_wal_flush_lsn()", NULL, &mark,
                          err)) {
                return false;
            }
        }
        if (!read_lsn(control,
                      "SELECT GREATEST(d.reported_lsn, p.end_lsn) FROM penstock.progress p"
                      " JOIN penstock.durable d USING (name) WHERE p.name = $1",
                      beside->options->name, &has, err)) {
            return false;
        }
        if (has >= mark) {
            beside->ready =
                pen_migration_record(control, beside->options->name, PEN_PHASE_READY, err);
            if (beside->ready) {
                pen_status_phase(beside->options->status, pen_phase_name(PEN_PHASE_READY));
            }
            pen_log(PEN_LOG_INFO,
                    "ready for cutover: all tables and indexes are there, and the stream keeps up; "
                    "stop the source's writers and run penstock cutover");
            return beside->ready;
        }
        usleep(500 * 1000);
    }
    return true;
}

static bool open_control(pen_index_beside *beside, pen_pgconn **control, pen_error *err)
{
    return pen_index_open(beside->options, beside->owner, "indexes", control, err) &&
           pen_claim_alone(*control, beside->owner, err);
}

static bool attempt(pen_index_beside *beside, pen_error *err)
{
    pen_pgconn *control = NULL;
    pen_pgconn *source = NULL;
    bool ok =
        open_control(beside, &control, err) &&
        (beside->built || build_beside(beside, control, err)) &&
        (!beside->built || (pen_source_open_session(beside->options, "indexes", &source, err) &&
                            watch_lag(beside, control, source, err)));
    pen_pgconn_close(control);
    pen_pgconn_close(source);
    return ok;
}

static void beside_run(void *arg)
{
    pen_index_beside *beside = arg;
    pen_error err;
    while (!attempt(beside, &err) && !is_cancelled(beside)) {
        if (err.kind != PEN_ERROR_RETRY) {
            beside->failure = err;
            pen_log(PEN_LOG_WARN,
                    "%s; the stream goes on without. Mend that and start again: what "
                    "is not built yet is built then",
                    err.text);
            return;
        }
        pen_log(PEN_LOG_WARN, "%s; trying again", err.text);
        for (int slept = 0; slept < RETRY_EVERY_MS && !is_cancelled(beside); slept += 100) {
            usleep(100 * 1000);
        }
    }
}

bool pen_index_beside_start(const pen_options *options, uint64_t owner, pen_index_beside **beside,
                            pen_error *err)
{
    pen_index_beside *made = pen_calloc(1, sizeof(*made));
    made->options = options;
    made->owner = owner ^ BESIDE_MARK;
    if (!pen_thread_start(&made->thread, PEN_ROLE_INDEX, "indexes", beside_run, made, err)) {
        free(made);
        return false;
    }
    *beside = made;
    return true;
}

bool pen_index_beside_join(pen_index_beside *beside, bool cancel, pen_error *err)
{
    if (cancel) {
        /* [INDEXSTOP-1] release: pairs with the acquires above. */
        pen_cell_publish(&beside->cancel, 1);
    }
    /* [INDEXEND-1] release: pairs with the acquire in watch_lag. */
    pen_cell_publish(&beside->finish, 1);
    pen_thread_join(&beside->thread);
    bool ok = beside->failure.kind == PEN_ERROR_NONE;
    *err = beside->failure;
    free(beside);
    return ok;
}
