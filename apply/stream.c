#include "apply/stream.h"

#include "apply/dispatcher.h"
#include "apply/progress.h"
#include "apply/reader.h"
#include "apply/session.h"
#include "apply/statedir.h"
#include "apply/worker.h"
#include "core/log.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* Transactions that may wait between reader and dispatcher; --memory bounds their bytes. */
#define RING_CAPACITY 4096
/* Status at least this often, and at least three times in each wal_sender_timeout. */
#define STATUS_EVERY_MS 10000
/* Between two progress lines: for a person who watches, and for a log. */
#define SHOW_WATCHED_US (2 * 1000 * 1000)
#define SHOW_LOGGED_US  (10 * 1000 * 1000)

/* What lives for one run beside the shared state. */
typedef struct pen_run {
    pen_stream *stream;
    pen_pgconn *source; /* an ordinary session: catalog at the start, the source's position later */
    pen_statedir *statedir;
    pen_reader *reader;
    pen_dispatcher *dispatcher;
    pen_progress *progress;
    int signal_fd;
    int64_t started_us;
    int64_t shown_us;
    uint64_t shown_txns;
    int signals; /* taken so far */
} pen_run;

pen_stop pen_stream_stopping(const pen_stream *stream)
{
    /* [STOP-1] acquire: pairs with the release in pen_stream_stop. */
    return (pen_stop)pen_cell_read(&stream->stop);
}

static void wake_all(pen_stream *stream)
{
    pen_parker_wake(&stream->reader_parker);
    pen_parker_wake(&stream->dispatcher_parker);
    pen_parker_wake(&stream->progress_parker);
    pen_parker_wake(&stream->main_parker);
    pen_handover_wake_workers(&stream->handover);
}

void pen_stream_stop(pen_stream *stream, pen_stop stop, pen_stop_reason reason)
{
    pthread_mutex_lock(&stream->failure_lock);
    /* A failure says more than the wish to stop that came before it. */
    if (stream->reason == PEN_REASON_NONE || reason == PEN_REASON_FAILED) {
        stream->reason = reason;
    }
    if (pen_cell_read(&stream->stop) < (uint64_t)stop) {
        /* [STOP-1] release: pairs with the acquire in pen_stream_stopping, the handover and the
         * pipeline. */
        pen_cell_publish(&stream->stop, stop);
    }
    pthread_mutex_unlock(&stream->failure_lock);
    wake_all(stream);
}

void pen_stream_fail(pen_stream *stream, const pen_error *err)
{
    if (err->kind == PEN_ERROR_NONE) {
        return; /* it only did as it was told */
    }
    pthread_mutex_lock(&stream->failure_lock);
    if (stream->failure.kind == PEN_ERROR_NONE) {
        stream->failure = *err;
        /* Unless whoever found it knows better what to do. */
        if (strstr(err->text, "start again") == NULL) {
            pen_error_advise(&stream->failure, err->kind == PEN_ERROR_RETRY
                                                   ? "start again to go on, nothing is lost"
                                                   : "start again when that is mended, nothing is "
                                                     "lost");
        }
    }
    pthread_mutex_unlock(&stream->failure_lock);
    pen_stream_stop(stream, PEN_STOP_ABORT, PEN_REASON_FAILED);
}

void pen_stream_worker_done(pen_stream *stream)
{
    if (pen_countdown_leave(&stream->workers_left)) {
        /* [WORKERS-1] release: every commit is in applied_lsn; pairs with the acquire in the
         * progress thread. */
        pen_cell_publish(&stream->workers_done, 1);
        pen_parker_wake(&stream->progress_parker);
    }
}

static pen_stream *stream_create(const pen_options *options, pen_error *err)
{
    pen_stream *stream = pen_alloc_lines(sizeof(*stream));
    stream->options = options;
    stream->worker_count = (unsigned)options->workers;
    stream->workers = pen_calloc(stream->worker_count, sizeof(struct pen_worker *));
    stream->limits = (pen_batch_limits){.rows = options->batch_rows,
                                        .bytes = options->batch_bytes,
                                        .transactions = options->batch_transactions};
    pthread_mutex_init(&stream->failure_lock, NULL);
    pen_ring_init(&stream->txns, RING_CAPACITY);
    pen_handover_init(&stream->handover, stream->worker_count, &stream->dispatcher_parker,
                      &stream->stop, PEN_STOP_ABORT);
    pen_countdown_init(&stream->workers_left, stream->worker_count);
    pen_conflicts_init(&stream->conflicts);
    stream->reader_parker.event_fd = -1;
    stream->dispatcher_parker.event_fd = -1;
    stream->progress_parker.event_fd = -1;
    stream->main_parker.event_fd = -1;
    pen_budget_init(&stream->budget, options->memory, &stream->reader_parker);
    if (!pen_parker_init(&stream->main_parker, err) ||
        !pen_parker_init(&stream->reader_parker, err) ||
        !pen_parker_init(&stream->dispatcher_parker, err) ||
        !pen_parker_init(&stream->progress_parker, err)) {
        /* The caller destroys what was made so far. */
        stream->failure = *err;
    }
    return stream;
}

/* After all threads have ended: gives back the transactions that they left on the way. */
static void release_leftovers(pen_stream *stream)
{
    for (pen_txn *txn; (txn = pen_ring_pop(&stream->txns)) != NULL;) {
        pen_txn_release(txn);
    }
    pen_batch *batch = pen_handover_leftover(&stream->handover);
    if (batch != NULL) {
        pen_batch_destroy(batch);
    }
}

static void stream_destroy(pen_stream *stream)
{
    pen_ring_deinit(&stream->txns);
    pen_parker_deinit(&stream->main_parker);
    pen_parker_deinit(&stream->reader_parker);
    pen_parker_deinit(&stream->dispatcher_parker);
    pen_parker_deinit(&stream->progress_parker);
    pen_conflicts_deinit(&stream->conflicts);
    pthread_mutex_destroy(&stream->failure_lock);
    free(stream->workers);
    free(stream);
}

static bool open_target(const pen_stream *stream, const char *part, bool durable, pen_pgconn **conn,
                        pen_error *err)
{
    char name[64];
    snprintf(name, sizeof(name), "penstock %s %s", stream->options->name, part);
    const pen_session_options session = {
        .conninfo = stream->options->target,
        .application_name = name,
        .replica_role = stream->resume.replica_role && !durable,
        .durable = durable,
        .names_only = durable,
    };
    return pen_session_open(&session, conn, err);
}

static bool open_source(pen_run *run, pen_error *err)
{
    const pen_options *options = run->stream->options;
    char name[64];
    snprintf(name, sizeof(name), "penstock %s control", options->name);
    const pen_pgconn_options connect = {
        .conninfo = options->source,
        .side = "source",
        .application_name = name,
        /* Names are compared with the target's, and the operator's patterns are in UTF-8. */
        .setup = "SET client_encoding = 'UTF8'; SET search_path = '';"
                 " SET statement_timeout = 0; SET lock_timeout = 0;"
                 " SET idle_in_transaction_session_timeout = 0; SET idle_session_timeout = 0;"
                 " SET default_transaction_read_only = off",
    };
    return pen_pgconn_open(&connect, &run->source, err) &&
           (pen_pgconn_server_version(run->source) < 170000 ||
            pen_pgconn_exec(run->source, "set up the session", "SET transaction_timeout = 0", 0,
                            NULL, NULL, err));
}

/* The stream comes in the target's encoding, so that nobody converts twice. */
static bool open_replication(pen_run *run, const char *encoding, pen_replication **rep,
                             pen_error *err)
{
    pen_stream *stream = run->stream;
    const pen_options *options = stream->options;
    char name[64];
    snprintf(name, sizeof(name), "penstock %s reader", options->name);
    const pen_replication_options replication = {.conninfo = options->source,
                                                 .application_name = name,
                                                 .slot = options->slot,
                                                 .publication = options->publication,
                                                 .client_encoding = encoding};
    return pen_replication_open(&replication, rep, &stream->resume.identity, err);
}

/* Commits a message that holds nothing: it moves the source's WAL, flushed, past every position
 * read before, so that the stream can prove to have reached it. */
static bool nudge_source(pen_run *run, pen_error *err)
{
    return pen_pgconn_exec(run->source, "write a marker",
                           "SET synchronous_commit = on;"
                           " SELECT pg_catalog.pg_logical_emit_message(true, 'penstock', '')",
                           0, NULL, NULL, err);
}

/* Sets the position at which the stream ends, when it is to end by itself. */
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
    return ok && nudge_source(run, err);
}

static bool start_workers(pen_run *run, pen_error *err)
{
    pen_stream *stream = run->stream;
    for (unsigned i = 0; i < stream->worker_count; i++) {
        char part[24];
        pen_pgconn *conn = NULL;
        snprintf(part, sizeof(part), "worker %u", i + 1);
        if (!open_target(stream, part, false, &conn, err)) {
            return false;
        }
        pen_worker *worker = pen_alloc_lines(sizeof(*worker));
        if (!pen_worker_init(worker, stream, i, conn, err)) {
            pen_worker_deinit(worker);
            free(worker);
            return false;
        }
        stream->workers[i] = worker;
        pen_handover_add_worker(&stream->handover, i, &worker->parker);
    }
    return true;
}

static bool start_threads(pen_run *run, pen_error *err)
{
    pen_stream *stream = run->stream;
    bool ok = true;
    unsigned started = 0;
    for (; ok && started < stream->worker_count; started++) {
        char name[24];
        snprintf(name, sizeof(name), "worker %u", started + 1);
        ok = pen_thread_start(&stream->workers[started]->thread, PEN_ROLE_WORKER, name,
                              pen_worker_run, stream->workers[started], err);
    }
    return ok &&
           pen_thread_start(&stream->dispatcher_thread, PEN_ROLE_DISPATCHER, "dispatcher",
                            pen_dispatcher_run, run->dispatcher, err) &&
           pen_thread_start(&stream->progress_thread, PEN_ROLE_PROGRESS, "progress",
                            pen_progress_run, run->progress, err) &&
           pen_thread_start(&stream->reader_thread, PEN_ROLE_READER, "reader", pen_reader_run,
                            run->reader, err);
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

/* Everything before the first thread starts. */
static bool prepare(pen_run *run, pen_error *err)
{
    pen_stream *stream = run->stream;
    const pen_options *options = stream->options;
    pen_pgconn *control = NULL;
    pen_pgconn *catalog = NULL;
    pen_replication *rep = NULL;
    pen_checkpoint_file *file = NULL;
    if (!pen_statedir_open(options->dir, &run->statedir, err) || !open_source(run, err) ||
        !open_target(stream, "control", true, &control, err) ||
        !pen_session_plan_freely(control, err) ||
        !open_replication(run, pen_pgconn_parameter(control, "server_encoding"), &rep, err) ||
        !open_checkpoint(run, &file, err) ||
        !pen_resume_prepare(&stream->resume, options, run->source, control, err)) {
        goto fail;
    }
    pen_cell_init(&stream->applied_lsn, stream->resume.start_lsn);
    pen_cell_init(&stream->handed_lsn, stream->resume.start_lsn);
    pen_cell_init(&stream->durable_lsn, stream->resume.reported_lsn);
    stream->status_interval_ms = STATUS_EVERY_MS;
    if (stream->resume.wal_sender_timeout_ms > 0 &&
        stream->resume.wal_sender_timeout_ms / 3 < STATUS_EVERY_MS) {
        stream->status_interval_ms = stream->resume.wal_sender_timeout_ms / 3;
    }
    if (!open_target(stream, "catalog", false, &catalog, err) ||
        !pen_session_plan_freely(catalog, err) || !start_workers(run, err) || !find_end(run, err) ||
        !pen_replication_start(rep, stream->resume.start_lsn, err)) {
        goto fail;
    }
    if (stream->resume.replica_role) {
        pen_log(PEN_LOG_INFO, "foreign keys and ordinary triggers sleep on the target "
                              "(session_replication_role = replica)");
    } else {
        pen_log(PEN_LOG_INFO,
                "the target does not let this user set session_replication_role: foreign "
                "keys and triggers are at work there");
    }
    pen_log(PEN_LOG_INFO, "%u workers, checkpoints by %s", stream->worker_count,
            pen_checkpoint_method(file));
    run->reader = pen_reader_create(stream, rep);
    run->dispatcher = pen_dispatcher_create(stream, catalog);
    run->progress = pen_progress_create(stream, control, file);
    return true;
fail:
    pen_pgconn_close(control);
    pen_pgconn_close(catalog);
    pen_replication_close(rep);
    pen_checkpoint_close(file);
    return false;
}

/* Until the threads run there is nothing to finish: a signal ends the process at once, with the
 * exit code of a stop. A slot that is just being created is found by the next start. */
static void stop_early(int signal)
{
    static const char words[] =
        "penstock: stopped before the stream began; the same command goes on, nothing is lost\n";
    (void)signal;
    (void)!write(STDERR_FILENO, words, sizeof(words) - 1);
    _exit(3);
}

static void stop_early_on_signals(void)
{
    struct sigaction action = {.sa_handler = stop_early};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    /* A log that nobody reads any more (| head, a tee that died) is no reason to end. */
    signal(SIGPIPE, SIG_IGN);
}

static bool open_signals(pen_run *run, pen_error *err)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    run->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    return run->signal_fd >= 0 ||
           pen_error_set_errno(err, PEN_ERROR_FATAL, errno, "cannot listen for signals");
}

static void take_signals(pen_run *run)
{
    struct signalfd_siginfo info;
    while (read(run->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        run->signals++;
        if (run->signals == 1) {
            pen_log(PEN_LOG_INFO,
                    "stopping: what is in flight is finished and made durable; once more "
                    "stops at once and loses nothing either");
            pen_stream_stop(run->stream, PEN_STOP_DRAIN, PEN_REASON_SIGNAL);
        } else {
            pen_log(PEN_LOG_INFO, "stopping at once");
            pen_stream_stop(run->stream, PEN_STOP_ABORT, PEN_REASON_SIGNAL);
        }
    }
}

#define PROGRESS_FIELDS 7
#define SUMMARY_FIELDS  11
#define TROUBLE_FIELDS  3

/* Puts what did not go smoothly behind the `count` fields, and gives their number then; `always`:
 * even where it is nothing. */
static size_t add_trouble(const pen_stream *stream, bool always, pen_log_field *fields,
                          size_t count)
{
    const pen_log_field trouble[TROUBLE_FIELDS] = {
        {"retries", PEN_FIELD_U64, .u64 = pen_counter_get(&stream->retries)},
        {"skipped", PEN_FIELD_U64, .u64 = pen_counter_get(&stream->conflicts.skipped)},
        {"overwritten", PEN_FIELD_U64, .u64 = pen_counter_get(&stream->conflicts.overwritten)},
    };
    for (size_t i = 0; i < TROUBLE_FIELDS; i++) {
        if (always || trouble[i].u64 > 0) {
            fields[count++] = trouble[i];
        }
    }
    return count;
}

static void show(pen_run *run)
{
    pen_stream *stream = run->stream;
    pen_progress_style style = stream->options->progress;
    bool watched = style == PEN_PROGRESS_AUTO && isatty(STDERR_FILENO);
    int64_t now_us = pen_now_us();
    if (style == PEN_PROGRESS_NONE ||
        now_us - run->shown_us < (watched ? SHOW_WATCHED_US : SHOW_LOGGED_US)) {
        return;
    }
    char applied[PEN_LSN_TEXT_SIZE];
    char durable[PEN_LSN_TEXT_SIZE];
    uint64_t txns = pen_counter_get(&stream->txns_applied);
    double seconds = (double)(now_us - run->shown_us) / 1e6;
    pen_log_field fields[PROGRESS_FIELDS + TROUBLE_FIELDS] = {
        {"transactions", PEN_FIELD_U64, .u64 = txns},
        {"rate", PEN_FIELD_DOUBLE, .real = (double)(txns - run->shown_txns) / seconds},
        {"rows", PEN_FIELD_U64, .u64 = pen_counter_get(&stream->changes_applied)},
        {"waiting", PEN_FIELD_U64, .u64 = pen_counter_get(&stream->txns_handed) - txns},
        {"applied_lsn", PEN_FIELD_TEXT,
         .text = pen_lsn_format(pen_cell_read(&stream->applied_lsn), applied)},
        {"durable_lsn", PEN_FIELD_TEXT,
         .text = pen_lsn_format(pen_cell_read(&stream->durable_lsn), durable)},
        {"memory_mb", PEN_FIELD_U64, .u64 = pen_budget_used(&stream->budget) >> 20},
    };
    size_t count = add_trouble(stream, false, fields, PROGRESS_FIELDS);
    pen_log_fields(PEN_LOG_INFO, "streaming", fields, count);
    run->shown_us = now_us;
    run->shown_txns = txns;
}

/* Until the reader, which ends last in order, or a failure says that it is over. */
static void supervise(pen_run *run)
{
    pen_stream *stream = run->stream;
    int64_t nudged_us = pen_now_us();
    while (!pen_cell_read(&stream->reader_done)) {
        pen_parker_prepare(&stream->main_parker);
        (void)pen_parker_park(&stream->main_parker, run->signal_fd, PEN_PARK_READABLE, 1000);
        take_signals(run);
        show(run);
        /* A source without any activity gives no proof that nothing commits at the very end. */
        if (stream->stop_lsn != PEN_LSN_NONE &&
            pen_cell_read(&stream->idle_lsn) == stream->stop_lsn &&
            pen_now_us() - nudged_us > 1000000 && pen_stream_stopping(stream) == PEN_STOP_NONE) {
            pen_error err;
            nudged_us = pen_now_us();
            if (!nudge_source(run, &err)) {
                pen_stream_fail(stream, &err);
            }
        }
    }
}

static const char *reason_word(pen_stop_reason reason)
{
    switch (reason) {
    case PEN_REASON_STOP_AT:
        return "stop-at";
    case PEN_REASON_CAUGHT_UP:
        return "caught-up";
    case PEN_REASON_SIGNAL:
        return "signal";
    case PEN_REASON_FAILED:
        return "failed";
    case PEN_REASON_NONE:
        break;
    }
    return "none";
}

/* The last line, for people and scripts. */
static void summarise(const pen_run *run)
{
    const pen_stream *stream = run->stream;
    pen_histogram *lag = pen_calloc(1, sizeof(*lag));
    pen_histogram_init(lag);
    for (unsigned i = 0; i < stream->worker_count; i++) {
        pen_histogram_merge(lag, &stream->workers[i]->lag);
    }
    char applied[PEN_LSN_TEXT_SIZE];
    char durable[PEN_LSN_TEXT_SIZE];
    pen_log_field fields[SUMMARY_FIELDS + TROUBLE_FIELDS] = {
        {"reason", PEN_FIELD_TEXT, .text = reason_word(stream->reason)},
        {"transactions", PEN_FIELD_U64, .u64 = pen_counter_get(&stream->txns_applied)},
        {"rows", PEN_FIELD_U64, .u64 = pen_counter_get(&stream->changes_applied)},
        {"batches", PEN_FIELD_U64, .u64 = pen_counter_get(&stream->batches_applied)},
        {"seconds", PEN_FIELD_DOUBLE, .real = (double)(pen_now_us() - run->started_us) / 1e6},
        {"lag_p50_ms", PEN_FIELD_DOUBLE, .real = (double)pen_histogram_percentile(lag, 50) / 1e3},
        {"lag_p99_ms", PEN_FIELD_DOUBLE, .real = (double)pen_histogram_percentile(lag, 99) / 1e3},
        {"lag_max_ms", PEN_FIELD_DOUBLE, .real = (double)pen_histogram_percentile(lag, 100) / 1e3},
        {"committed_lsn", PEN_FIELD_TEXT,
         .text = pen_lsn_format(pen_cell_read(&stream->applied_lsn), applied)},
        {"durable_lsn", PEN_FIELD_TEXT,
         .text = pen_lsn_format(pen_cell_read(&stream->durable_lsn), durable)},
        {"memory_peak_mb", PEN_FIELD_U64, .u64 = pen_budget_peak(&stream->budget) >> 20},
    };
    size_t count = add_trouble(stream, true, fields, SUMMARY_FIELDS);
    pen_log_fields(PEN_LOG_INFO, "stream finished", fields, count);
    free(lag);
}

static void join_all(pen_run *run)
{
    pen_stream *stream = run->stream;
    pen_thread_join(&stream->reader_thread);
    pen_thread_join(&stream->dispatcher_thread);
    for (unsigned i = 0; i < stream->worker_count; i++) {
        if (stream->workers[i] != NULL) {
            pen_thread_join(&stream->workers[i]->thread);
        }
    }
    pen_thread_join(&stream->progress_thread);
}

/* Whoever borrows goes before whoever owns: transactions point at the reader's relation versions,
 * those at the dispatcher's targets, and every block counts against the stream's budget. */
static void run_deinit(pen_run *run)
{
    pen_stream *stream = run->stream;
    release_leftovers(stream);
    for (unsigned i = 0; i < stream->worker_count; i++) {
        if (stream->workers[i] != NULL) {
            pen_worker_deinit(stream->workers[i]);
            free(stream->workers[i]);
        }
    }
    pen_progress_destroy(run->progress);
    pen_dispatcher_destroy(run->dispatcher);
    pen_reader_destroy(run->reader);
    pen_pgconn_close(run->source);
    pen_statedir_close(run->statedir);
    if (run->signal_fd >= 0) {
        close(run->signal_fd);
    }
    stream_destroy(stream);
}

bool pen_stream_run(const pen_options *options, pen_stop_reason *reason, pen_error *err)
{
    memset(err, 0, sizeof(*err));
    pen_run run = {.stream = stream_create(options, err), .signal_fd = -1};
    pen_stream *stream = run.stream;
    stop_early_on_signals();
    run.started_us = pen_now_us();
    run.shown_us = run.started_us;
    bool ok = err->kind == PEN_ERROR_NONE && prepare(&run, err) && open_signals(&run, err);
    if (ok) {
        if (!start_threads(&run, err)) {
            pen_stream_fail(stream, err);
        } else {
            supervise(&run);
        }
        join_all(&run);
        pen_conflicts_report(&stream->conflicts);
        summarise(&run);
        ok = stream->failure.kind == PEN_ERROR_NONE;
        if (!ok) {
            *err = stream->failure;
        }
    }
    *reason = stream->reason;
    run_deinit(&run);
    return ok;
}
