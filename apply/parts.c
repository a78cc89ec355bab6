#include "apply/parts.h"

#include "apply/eager.h"
#include "apply/losses.h"
#include "apply/reached.h"
#include "apply/receiver.h"
#include "apply/session.h"
#include "apply/source.h"
#include "apply/worker.h"
#include "core/kill_point.h"
#include "core/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Workers' sessions that are opened at the same time. */
#define OPENINGS_AT_ONCE 8

static bool open_target(const pen_stream *stream, const char *part, pen_session_plans plans,
                        pen_pgconn **conn, pen_error *err)
{
    bool durable = plans == PEN_SESSION_FOR_QUERIES; /* the control session */
    char name[64];
    snprintf(name, sizeof(name), "penstock %s %s", stream->options->name, part);
    const pen_session_options session = {
        .conninfo = stream->options->target,
        .application_name = name,
        .owner = stream->resume.owner,
        .plans = plans,
        .replica_role = stream->resume.replica_role && !durable,
        .durable = durable,
        .names_only = durable,
    };
    if (!pen_session_open(&session, conn, err)) {
        if (strcmp(err->sqlstate, "53300") == 0) {
            char advice[160];
            /* One for each worker, one for the catalog, one for control; maybe the eager one. */
            snprintf(advice, sizeof(advice),
                     "%u sessions are wanted there: make room for them, or give fewer --workers",
                     stream->worker_count + 2 +
                         (stream->options->streaming == PEN_STREAMING_PARALLEL));
            pen_error_advise(err, advice);
        }
        return false;
    }
    return true;
}

/* In the WAL is enough; a standby that is away must not hold us up. */
static bool nudge(pen_run *run, pen_error *err)
{
    return pen_pgconn_exec(run->source, "write a marker",
                           "SET synchronous_commit = local;"
                           " SELECT pg_catalog.pg_logical_emit_message(true, 'penstock', '')",
                           0, NULL, NULL, err);
}

bool pen_parts_nudge_source(pen_run *run, pen_error *err)
{
    if ((run->source != NULL ||
         pen_source_open_session(run->stream->options, "control", &run->source, err)) &&
        nudge(run, err)) {
        return true;
    }
    if (run->stream->options->ack != PEN_ACK_SPOOLED || err->kind != PEN_ERROR_RETRY) {
        return false;
    }
    /* With the spool the target needs no source; the next nudge makes a session anew. */
    pen_parts_close_source(run);
    return true;
}

/* Sets the position at which the stream ends, when it is to end by itself: once, whatever is lost
 * on the way. */
static bool find_end(pen_run *run, pen_error *err)
{
    pen_stream *stream = run->stream;
    const pen_options *options = stream->options;
    stream->stop_lsn = options->stop_at;
    if (options->stop_at != PEN_LSN_NONE && stream->resume.commit_lsn > options->stop_at) {
        return pen_error_set(err, PEN_ERROR_CONFIG,
                             "the target already has the transaction committed at " PEN_LSN_FMT
                             ", which is behind --stop-at " PEN_LSN_FMT
                             ": it cannot be brought to that position any more; give a later one",
                             PEN_LSN_ARGS(stream->resume.commit_lsn),
                             PEN_LSN_ARGS(options->stop_at));
    }
    if (options->stop_at != PEN_LSN_NONE && stream->fences.end > options->stop_at) {
        return pen_error_set(
            err, PEN_ERROR_CONFIG,
            "some tables were copied as they were at " PEN_LSN_FMT
            ", which is behind --stop-at " PEN_LSN_FMT
            ": before that the target is in no state that the source has had; give "
            "a later one",
            PEN_LSN_ARGS(stream->fences.end), PEN_LSN_ARGS(options->stop_at));
    }
    if (!options->stop_when_caught_up) {
        return true;
    }
    pen_pgresult *res = NULL;
    /* The insert position: what was committed without waiting for its flush counts as well. */
    if (!pen_pgconn_exec(run->source, "read the source's position",
                         "SELECT pg_catalog.pg_current_wal_insert_lsn()", 0, NULL, &res, err)) {
        return false;
    }
    pen_lsn now = PEN_LSN_NONE;
    bool ok = pen_lsn_parse(pen_pgresult_value(res, 0, 0), &now) ||
              pen_error_set(err, PEN_ERROR_FATAL, "source: its WAL position cannot be read");
    pen_pgresult_clear(res);
    if (stream->stop_lsn == PEN_LSN_NONE || now < stream->stop_lsn) {
        stream->stop_lsn = now;
    }
    return ok && nudge(run, err);
}

/* One session while it is made. */
typedef struct opening {
    pen_stream *stream;
    unsigned number; /* a worker's */
    pen_thread thread;
    pen_pgconn *catalog; /* what the catalog's gives */
    bool ok;
    pen_error err;
} opening;

static bool open_worker(pen_stream *stream, unsigned number, pen_error *err)
{
    char part[24];
    pen_pgconn *conn = NULL;
    snprintf(part, sizeof(part), "worker %u", number + 1);
    if (!open_target(stream, part, PEN_SESSION_FOR_ROWS, &conn, err)) {
        return false;
    }
    pen_worker *worker = pen_alloc_lines(sizeof(*worker));
    if (!pen_worker_init(worker, stream, number, conn, err)) {
        pen_worker_deinit(worker);
        free(worker);
        return false;
    }
    stream->workers[number] = worker;
    return true;
}

static void run_opening(void *arg)
{
    opening *it = arg;
    it->ok = open_worker(it->stream, it->number, &it->err);
}

static void run_catalog_opening(void *arg)
{
    opening *it = arg;
    it->ok = open_target(it->stream, "catalog", PEN_SESSION_FOR_CATALOG, &it->catalog, &it->err);
}

/* Each session takes some seven round trips, so that a distant target would have them wait for
 * seconds one after the other. A few at a time: a server, or a proxy before it, that starts a
 * process for each does not like a hundred at once. */
static bool open_workers(pen_stream *stream, pen_error *err)
{
    opening openings[OPENINGS_AT_ONCE];
    bool ok = true;
    for (unsigned first = 0; ok && first < stream->worker_count; first += OPENINGS_AT_ONCE) {
        unsigned count = stream->worker_count - first;
        count = count < OPENINGS_AT_ONCE ? count : OPENINGS_AT_ONCE;
        for (unsigned i = 0; i < count; i++) {
            openings[i] = (opening){.stream = stream, .number = first + i};
            char name[24];
            snprintf(name, sizeof(name), "worker %u", first + i + 1);
            if (!pen_thread_start(&openings[i].thread, PEN_ROLE_WORKER, name, run_opening,
                                  &openings[i], &openings[i].err)) {
                openings[i].ok = false;
            }
        }
        for (unsigned i = 0; i < count; i++) {
            pen_thread_join(&openings[i].thread);
            if (ok && !openings[i].ok) {
                *err = openings[i].err;
            }
            ok &= openings[i].ok;
        }
    }
    for (unsigned i = 0; ok && i < stream->worker_count; i++) {
        pen_handover_add_worker(&stream->handover, i, &stream->workers[i]->parker);
    }
    return ok;
}

static bool open_eager(pen_stream *stream, pen_error *err)
{
    pen_pgconn *conn = NULL;
    if (stream->options->streaming != PEN_STREAMING_PARALLEL) {
        return true;
    }
    if (!open_target(stream, "eager", PEN_SESSION_FOR_ROWS, &conn, err) ||
        !pen_eager_worker_create(stream, conn, &stream->eager, err)) {
        return false;
    }
    pen_handover_add_watcher(&stream->handover, pen_eager_worker_parker(stream->eager));
    return true;
}

/* The sessions of those who apply: the dispatcher's, beside the workers'. */
static bool open_appliers(pen_run *run, pen_pgconn **catalog, pen_error *err)
{
    opening beside = {.stream = run->stream};
    if (!pen_thread_start(&beside.thread, PEN_ROLE_DISPATCHER, "catalog", run_catalog_opening,
                          &beside, err)) {
        return false;
    }
    bool ok = open_workers(run->stream, err) && open_eager(run->stream, err);
    pen_thread_join(&beside.thread);
    *catalog = beside.catalog;
    if (ok && !beside.ok) {
        *err = beside.err;
    }
    return ok && beside.ok;
}

/* The checkpoint tells nothing that the target does not know better, but for one thing: that there
 * was a target before. */
static bool open_checkpoint(pen_run *run, pen_checkpoint_file **file, pen_error *err)
{
    pen_resume *resume = &run->stream->resume;
    pen_checkpoint newest;
    bool found = false;
    if (!pen_checkpoint_open(pen_statedir_checkpoint(run->statedir), true, file, &found, &newest,
                             err)) {
        return false;
    }
    if (found && newest.system_identifier != resume->identity.system_identifier) {
        pen_log(
            PEN_LOG_WARN,
            "the checkpoint in %s is of another source; it is replaced, the target's progress row "
            "counts",
            run->stream->options->dir);
    } else if (found && strcmp(newest.slot, run->stream->options->slot) == 0) {
        resume->remembered_lsn = newest.committed_lsn;
    }
    return true;
}

/* Where the stream stands, and so where it goes on; `control` says it. */
static bool resume(pen_run *run, pen_pgconn *control, pen_error *err)
{
    pen_stream *stream = run->stream;
    stream->resume.receiving = run->reader != NULL;
    if (stream->resume.receiving) {
        /* What it receives meanwhile joins what it has. */
        stream->resume.spool_found = true;
        stream->resume.spool_start_lsn = pen_cell_read(&stream->spool_start_lsn);
        stream->resume.spool_received_lsn = UINT64_MAX;
    }
    if (!pen_resume_prepare(&stream->resume, stream->options, run->source, control, err) ||
        !pen_fences_load(&stream->fences, control, stream->options->name, stream->resume.commit_lsn,
                         err) ||
        (run->reader == NULL &&
         !pen_format_decide(&stream->format, stream->options, run->source, control, err))) {
        return false;
    }
    if (run->reader != NULL && !run->began && !pen_receiver_join(run, control, err)) {
        return false;
    }
    pen_cell_init(&stream->applied_lsn, stream->resume.start_lsn);
    pen_cell_init(&stream->handed_lsn, stream->resume.start_lsn);
    pen_cell_init(&stream->durable_lsn, stream->resume.reported_lsn);
    if (run->reader == NULL) {
        pen_receiver_set_intervals(stream);
    }
    return run->began || find_end(run, err);
}

static void make_intake(pen_run *run)
{
    const pen_intake_options options = pen_reader_intake_options(run->reader);
    run->intake = pen_intake_create(run->stream, &options);
    /* [INTAKE-1] release: the intake is made, and so is all else that it needs; pairs with the
     * acquire in the reader. */
    pen_place_put(&run->stream->next_intake, run->intake);
    pen_parker_wake(&run->stream->reader_parker);
}

static void log_ways(const pen_run *run, const pen_checkpoint_file *file)
{
    if (run->stream->resume.replica_role) {
        pen_log(PEN_LOG_INFO, "foreign keys and ordinary triggers sleep on the target "
                              "(session_replication_role = replica)");
    } else {
        pen_log(PEN_LOG_INFO,
                "the target does not let this user set session_replication_role: foreign "
                "keys and triggers are at work there");
    }
    pen_log(PEN_LOG_INFO, "%u workers, checkpoints by %s", run->stream->worker_count,
            pen_checkpoint_method(file));
}

/* The session for the catalogs. A reader that has its spool needs none to go on, so one that cannot
 * be had now is had later. */
static bool open_source(pen_run *run, pen_error *err)
{
    if (run->source != NULL || pen_losses_is_away(run) ||
        pen_source_open_session(run->stream->options, "control", &run->source, err)) {
        return true;
    }
    if (run->reader == NULL || err->kind != PEN_ERROR_RETRY) {
        return false;
    }
    pen_log(PEN_LOG_WARN, "%s; the stream goes on with what is in the spool", err->text);
    return true;
}

/* The session that has the stream's lock. */
static bool open_control(pen_run *run, pen_pgconn **control, pen_error *err)
{
    pen_error why;
    if (open_target(run->stream, "control", PEN_SESSION_FOR_QUERIES, control, err)) {
        return true;
    }
    if (!run->began && pen_reached_may_wait(run->stream->options, err) &&
        !pen_receiver_begin_early(run, &why)) {
        *err = why;
    }
    return false;
}

bool pen_parts_make(pen_run *run, pen_error *err)
{
    pen_stream *stream = run->stream;
    pen_reader_parts parts = {0};
    pen_pgconn *control = NULL;
    pen_pgconn *catalog = NULL;
    pen_checkpoint_file *file = NULL;
    bool with_reader = run->reader == NULL;
    stream->resume.owner = pen_statedir_id(run->statedir);
    PEN_KILL_POINT("stream-connecting");
    if (!open_source(run, err) || !open_control(run, &control, err)) {
        goto fail;
    }
    if (with_reader) {
        const char *encoding = pen_pgconn_parameter(control, "server_encoding");
        if (!pen_receiver_open(run, encoding, &parts, err)) {
            goto fail;
        }
    }
    if (!open_checkpoint(run, &file, err) || !resume(run, control, err) ||
        !open_appliers(run, &catalog, err)) {
        goto fail;
    }
    if (with_reader) {
        if (!pen_receiver_make(run, &parts, err)) {
            goto fail;
        }
    }
    if (with_reader || !run->began) {
        log_ways(run, file);
    }
    run->dispatchers = pen_dispatchers_create(stream, catalog);
    run->progress = pen_progress_create(stream, control, file);
    make_intake(run);
    PEN_KILL_POINT("stream-made");
    return true;
fail:
    pen_pgconn_close(control);
    pen_pgconn_close(catalog);
    pen_checkpoint_close(file);
    pen_receiver_close(&parts);
    return false;
}

bool pen_parts_start(pen_run *run, pen_error *err)
{
    pen_stream *stream = run->stream;
    bool ok = true;
    for (unsigned i = 0; ok && i < stream->worker_count; i++) {
        char name[24];
        snprintf(name, sizeof(name), "worker %u", i + 1);
        ok = pen_thread_start(&stream->workers[i]->thread, PEN_ROLE_WORKER, name, pen_worker_run,
                              stream->workers[i], err);
    }
    return ok && (stream->eager == NULL || pen_eager_worker_start(stream->eager, err)) &&
           pen_dispatchers_start(run->dispatchers, err) &&
           pen_thread_start(&stream->progress_thread, PEN_ROLE_PROGRESS, "progress",
                            pen_progress_run, run->progress, err) &&
           (stream->reader_thread.started ||
            pen_thread_start(&stream->reader_thread, PEN_ROLE_READER, "reader", pen_reader_run,
                             run->reader, err));
}

void pen_parts_join(pen_run *run, bool with_reader)
{
    pen_stream *stream = run->stream;
    if (with_reader) {
        pen_thread_join(&stream->reader_thread);
    }
    pen_dispatchers_join(run->dispatchers);
    for (unsigned i = 0; i < stream->worker_count; i++) {
        if (stream->workers[i] != NULL) {
            pen_thread_join(&stream->workers[i]->thread);
        }
    }
    pen_eager_worker_join(stream->eager);
    pen_thread_join(&stream->progress_thread);
}

static void unmake_workers(pen_run *run)
{
    pen_stream *stream = run->stream;
    for (unsigned i = 0; i < stream->worker_count; i++) {
        if (stream->workers[i] != NULL) {
            pen_worker_deinit(stream->workers[i]);
            free(stream->workers[i]);
            stream->workers[i] = NULL;
        }
    }
    pen_eager_worker_destroy(stream->eager);
    stream->eager = NULL;
}

/* Whoever borrows goes before whoever owns: transactions point at the intake's relation versions,
 * those at the dispatchers' targets. */
void pen_parts_unmake(pen_run *run, bool with_reader)
{
    (void)pen_place_take(&run->stream->next_intake); /* one that the reader never took up */
    pen_stream_reset(run->stream);
    unmake_workers(run);
    pen_progress_destroy(run->progress);
    run->progress = NULL;
    pen_dispatchers_destroy(run->dispatchers);
    run->dispatchers = NULL;
    if (run->intake != NULL) {
        for (size_t kind = 0; kind < PEN_COUNTOF(run->messages); kind++) {
            run->messages[kind] += pen_intake_count(run->intake, (pen_message_kind)kind);
        }
        pen_intake_destroy(run->intake);
        run->intake = NULL;
    }
    if (with_reader) {
        pen_regain_end(run->regain);
        run->regain = NULL;
        pen_replication_close(pen_place_take(&run->stream->next_source));
        run->losses = pen_cell_read(&run->stream->source_losses);
        pen_reader_destroy(run->reader);
        run->reader = NULL;
        pen_cell_publish(&run->stream->reader_done, 0); /* no other thread is there */
    }
    pen_parts_close_source(run);
}

void pen_parts_close_source(pen_run *run)
{
    pen_pgconn_close(run->source);
    run->source = NULL;
    run->source_asked = false;
    run->source_lost = false;
}
