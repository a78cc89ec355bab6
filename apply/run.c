#include "apply/run.h"

#include "apply/losses.h"
#include "apply/parts.h"
#include "apply/reached.h"
#include "apply/show.h"
#include "apply/status.h"
#include "core/log.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* One recovery path: whatever connection is lost, everything that hangs on it is made anew, and the
 * stream goes on behind the progress row. A batch that was under way is rolled back or found to
 * have committed, by that row and not by guessing; a target that crashed and forgot commits, or was
 * put back to a backup, shows in it too. */

/* Between two tries: doubled from the one to the other. */
#define RETRY_FIRST_MS 100
#define RETRY_MOST_MS  10000
/* Runs that a change may end with an internal error (XX000): a proxy's or a storage's that passes,
 * but as well a damaged index or a trigger, which do not. */
#define REFUSALS_MOST 8
/* Between two looks at the source's position. */
#define ASK_SOURCE_US (2 * 1000 * 1000)
/* A stream that ran so long before it failed begins again with the first. */
#define RETRY_CALM_US (60 * 1000 * 1000)

/* For the signal handler: the file that tells that the signal is a cutover's, or NULL. */
static const char *volatile asked_path;

/* While connections are made there is nothing to finish: a signal ends the process at once, with
 * the exit code of a stop. A slot that is just being created is found by the next start; a reader
 * that fills the spool meanwhile has told the source of nothing that is not durable. */
static void stop_early(int signal)
{
    static const char stopped[] =
        "penstock: stopped while connecting; the same command goes on, nothing is lost\n";
    static const char handed[] = "penstock: handed over to the cutover\n";
    const char *path = asked_path;
    (void)signal;
    if (path != NULL && access(path, F_OK) == 0) {
        (void)!write(STDERR_FILENO, handed, sizeof(handed) - 1);
        _exit(0);
    }
    (void)!write(STDERR_FILENO, stopped, sizeof(stopped) - 1);
    _exit(3);
}

void pen_run_stop_early_on_signals(void)
{
    struct sigaction action = {.sa_handler = stop_early};
    sigset_t signals;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    /* A log that nobody reads any more (| head, a tee that died) is no reason to end. */
    signal(SIGPIPE, SIG_IGN);
    /* Last, because one may be there already. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
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
            pen_status_state(run->stream->options->status, PEN_STATE_STOPPING, "by a signal");
            pen_stream_stop(run->stream, PEN_STOP_DRAIN, PEN_REASON_SIGNAL);
        } else {
            pen_log(PEN_LOG_INFO, "stopping at once");
            pen_stream_stop(run->stream, PEN_STOP_ABORT, PEN_REASON_SIGNAL);
        }
    }
}

static void listen_to_signals(bool listen)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(listen ? SIG_BLOCK : SIG_UNBLOCK, &signals, NULL);
}

/* True when the reader has ended, or has nothing to do with the run of dispatcher and workers any
 * more: it has let go of the intake, or never took it up. */
static bool reader_is_out(pen_stream *stream)
{
    /* [READER-1] acquire: pairs with the release in the reader. */
    if (pen_cell_read(&stream->reader_done)) {
        return true;
    }
    bool aborting = pen_stream_stopping(stream) == PEN_STOP_ABORT;
    if (!stream->reader_thread.started) {
        return aborting; /* it could not be started */
    }
    /* Without the spool it ends soon.
     * [DETACHED-1] acquire: pairs with the release in the reader. */
    return stream->options->ack == PEN_ACK_SPOOLED &&
           (pen_cell_read(&stream->reader_detached) ||
            (aborting && pen_place_take(&stream->next_intake) != NULL));
}

/* Where the source's WAL is now, for whoever asks how far behind we are; never waits for the
 * answer. Where the stream is to end, the session is for that. */
static void look_at_source(pen_run *run)
{
    pen_stream *stream = run->stream;
    int64_t now_us = pen_now_us();
    pen_error ignored;
    if (stream->options->status == NULL || run->source == NULL || run->source_lost ||
        stream->stop_lsn != PEN_LSN_NONE) {
        return;
    }
    if (run->source_asked) {
        run->source_lost = !pen_pgconn_consume(run->source, &ignored);
        while (!run->source_lost && run->source_asked && !pen_pgconn_busy(run->source)) {
            pen_lsn lsn = PEN_LSN_NONE;
            pen_pgresult *res = pen_pgconn_next(run->source);
            run->source_asked = res != NULL;
            if (res != NULL && pen_pgresult_status(res) == PEN_RESULT_OK &&
                pen_pgresult_rows(res) == 1 && pen_lsn_parse(pen_pgresult_value(res, 0, 0), &lsn)) {
                pen_cell_publish(&stream->source_lsn, lsn);
            }
            pen_pgresult_clear(res);
        }
    } else if (now_us - run->source_asked_us >= ASK_SOURCE_US) {
        run->source_asked_us = now_us;
        run->source_asked = true;
        run->source_lost = !pen_pgconn_send_query(run->source, "read the source's position",
                                                  "SELECT CASE WHEN pg_catalog.pg_is_in_recovery()"
                                                  " THEN pg_catalog.pg_last_wal_replay_lsn()"
                                                  " ELSE pg_catalog.pg_current_wal_flush_lsn() END",
                                                  &ignored);
    }
}

/* Until the reader, which ends last in order, or a failure says that it is over. */
static void supervise(pen_run *run)
{
    pen_stream *stream = run->stream;
    int64_t nudged_us = pen_now_us();
    while (!reader_is_out(stream)) {
        pen_parker_prepare(&stream->main_parker);
        if (reader_is_out(stream)) {
            pen_parker_cancel(&stream->main_parker);
            return;
        }
        (void)pen_parker_park(&stream->main_parker, run->signal_fd, PEN_PARK_READABLE, 1000);
        take_signals(run);
        pen_show_progress(run);
        if (!pen_losses_see_to(run, true)) {
            pen_stream_fail(stream, &run->refused);
        }
        look_at_source(run);
        /* A source without any activity gives no proof that nothing commits at the very end. */
        if (stream->stop_lsn != PEN_LSN_NONE &&
            pen_cell_read(&stream->idle_lsn) == stream->stop_lsn &&
            pen_now_us() - nudged_us > 1000000 && pen_stream_stopping(stream) == PEN_STOP_NONE &&
            !pen_losses_is_away(run)) {
            pen_error err;
            nudged_us = pen_now_us();
            if (!pen_parts_nudge_source(run, &err)) {
                pen_stream_fail(stream, &err);
            }
        }
    }
}

/* Runs the stream until it ends in order or fails; takes down what does not outlive that. */
static bool run_once(pen_run *run, pen_stop_reason *reason, pen_error *err)
{
    pen_stream *stream = run->stream;
    listen_to_signals(false);
    bool ok = pen_parts_make(run, err);
    listen_to_signals(true);
    if (!ok) {
        *reason = PEN_REASON_FAILED;
    } else {
        run->began = true;
        pen_reached_note(stream->options);
        if (!pen_parts_start(run, err)) {
            pen_stream_fail(stream, err);
        }
        pen_status_show_stream(stream->options->status, stream);
        if (run->regain != NULL) {
            pen_status_state(stream->options->status, PEN_STATE_RECOVERING,
                             stream->source_failure.text);
        }
        supervise(run);
        bool with_reader = pen_cell_read(&stream->reader_done);
        if (with_reader) {
            pen_stream_fail(stream, &stream->reader_failure);
        }
        pen_parts_join(run, with_reader);
        pen_status_hide_stream(stream->options->status);
        ok = stream->failure.kind == PEN_ERROR_NONE;
        *reason = stream->reason;
        *err = stream->failure;
        if (ok && stream->reason == PEN_REASON_NONE) {
            /* Nobody asked for an end, so this is none: never a success that was not one. */
            ok = pen_error_set(err, PEN_ERROR_RETRY, "source: the stream ended early");
        }
    }
    bool reader_ended = !stream->reader_thread.started;
    pen_parts_unmake(run, reader_ended);
    pen_cell_publish(&stream->reader_detached, 0);
    return ok;
}

/* Sleeps, somewhere between half of `ms` and all of it, so that several that lost the same server
 * do not come back at once; false when a signal came. */
static bool wait_before_retry(pen_run *run, int64_t ms)
{
    pen_stream *stream = run->stream;
    int64_t until_us = pen_now_us() + ms * 500 + (int64_t)(random() % (ms * 500 + 1));
    for (;;) {
        int64_t left_ms = (until_us - pen_now_us()) / 1000;
        take_signals(run);
        if (run->signals > 0 || pen_cell_read(&stream->reader_done) || left_ms <= 0 ||
            !pen_losses_see_to(run, false)) {
            return run->signals == 0;
        }
        pen_parker_prepare(&stream->main_parker);
        (void)pen_parker_park(&stream->main_parker, run->signal_fd, PEN_PARK_READABLE,
                              (int)left_ms);
    }
}

/* Takes a reader down that went on without a target, and has ended or is about to. Gives its
 * failure. */
static bool take_down_reader(pen_run *run, pen_error *err)
{
    pen_thread_join(&run->stream->reader_thread);
    *err = run->stream->reader_failure;
    pen_parts_unmake(run, true);
    return err->kind == PEN_ERROR_NONE;
}

/* A reader that went on without a target ends now. */
static bool end_reader(pen_run *run, pen_error *err)
{
    pen_stream *stream = run->stream;
    if (!stream->reader_thread.started) {
        return true;
    }
    /* [END-1] release: pairs with the acquire in the reader. */
    pen_cell_publish(&stream->reader_end, 1);
    pen_parker_wake(&stream->reader_parker);
    return take_down_reader(run, err);
}

/* Looks after a reader that goes on without a target: where the source is lost too, it is made anew
 * with the rest; false when it failed for good. */
static bool look_after_reader(pen_run *run, pen_error *err)
{
    pen_stream *stream = run->stream;
    /* [READER-1] acquire: pairs with the release in the reader. */
    if (!stream->reader_thread.started || !pen_cell_read(&stream->reader_done) ||
        take_down_reader(run, err)) {
        return true;
    }
    if (err->kind == PEN_ERROR_RETRY) {
        pen_log(PEN_LOG_WARN, "%s; trying again, nothing is lost", err->text);
        return true;
    }
    return false;
}

/* Whether what ended the run may pass. */
static bool may_pass(pen_run *run, const pen_error *err)
{
    if (strcmp(err->sqlstate, "XX000") != 0 || err->lsn == PEN_LSN_NONE) {
        return err->kind == PEN_ERROR_RETRY;
    }
    run->refusals = err->lsn == run->refused_lsn ? run->refusals + 1 : 1;
    run->refused_lsn = err->lsn;
    return err->kind == PEN_ERROR_RETRY && run->refusals < REFUSALS_MOST;
}

/* Whether to try again: at a start not where the operator may have mistyped something. */
static bool may_try_again(pen_run *run, pen_error *err)
{
    return may_pass(run, err) && (run->began || pen_reached_may_wait(run->stream->options, err));
}

/* The stop by a signal did not come to its end. Of what was in flight nothing is on the target that
 * the progress row does not say, so this is as resumable as a stop in order; only what cannot pass
 * by itself is a failure all the same. */
static bool end_by_signal(pen_run *run, pen_stop_reason *reason, pen_error *err)
{
    pen_error reader_err = {0};
    if (!end_reader(run, &reader_err) && reader_err.kind != PEN_ERROR_RETRY) {
        *err = reader_err;
        *reason = PEN_REASON_FAILED;
        return false;
    }
    *reason = PEN_REASON_SIGNAL;
    return true;
}

/* Runs the stream, and again where a lost connection ended it. */
static bool run_until_end(pen_run *run, pen_stop_reason *reason, pen_error *err)
{
    int64_t retry_ms = RETRY_FIRST_MS;
    for (;;) {
        int64_t since_us = pen_now_us();
        pen_error ignored;
        if (run_once(run, reason, err)) {
            /* There is still one after a stop at once. */
            (void)!end_reader(run, &ignored);
            return true;
        }
        if (!may_try_again(run, err)) {
            (void)!end_reader(run, &ignored);
            return false;
        }
        if (run->signals > 0) {
            pen_log(PEN_LOG_WARN,
                    "%s; this cut the stop short: what was in flight is not finished, and comes "
                    "again when the same command is run again, nothing is lost",
                    err->text);
            return end_by_signal(run, reason, err);
        }
        if (pen_now_us() - since_us > RETRY_CALM_US) {
            retry_ms = RETRY_FIRST_MS;
        }
        pen_log(PEN_LOG_WARN, "%s; trying again, nothing is lost", err->text);
        run->recoveries += run->began;
        pen_status_recover(run->stream->options->status, run->began, err->text);
        if (!wait_before_retry(run, retry_ms)) {
            return end_by_signal(run, reason, err);
        }
        retry_ms = retry_ms * 2 < RETRY_MOST_MS ? retry_ms * 2 : RETRY_MOST_MS;
        if (run->refused.kind != PEN_ERROR_NONE) {
            pen_error unheard;
            *err = run->refused;
            (void)!end_reader(run, &unheard);
            *reason = PEN_REASON_FAILED;
            return false;
        }
        if (!look_after_reader(run, err)) {
            *reason = PEN_REASON_FAILED;
            return false;
        }
    }
}

static void deinit(pen_run *run)
{
    pen_error err;
    if (!pen_capture_close(run->capture, &err)) {
        pen_log(PEN_LOG_WARN, "%s", err.text);
    }
    if (run->signal_fd >= 0) {
        close(run->signal_fd);
    }
    pen_stream_destroy(run->stream);
}

bool pen_run_hold(const pen_options *options, bool hands_over, pen_statedir **dir, pen_error *err)
{
    /* A cutover asks as soon as it sees who has the lock. */
    listen_to_signals(true);
    bool ok = pen_statedir_open(options->dir, dir, err);
    if (ok) {
        asked_path = hands_over ? pen_statedir_asked(*dir) : NULL;
        pen_status_has_dir(options->status);
    }
    listen_to_signals(false);
    return ok;
}

void pen_run_let_go(pen_statedir *dir)
{
    asked_path = NULL;
    pen_statedir_close(dir);
}

bool pen_stream_run(const pen_options *options, pen_stop_reason *reason, pen_error *err)
{
    pen_statedir *dir = NULL;
    memset(err, 0, sizeof(*err));
    *reason = PEN_REASON_FAILED;
    pen_run_stop_early_on_signals();
    if (!pen_run_hold(options, false, &dir, err)) {
        return false;
    }
    bool ok = pen_stream_run_in(options, dir, reason, err);
    pen_run_let_go(dir);
    return ok;
}

bool pen_stream_run_in(const pen_options *options, pen_statedir *dir, pen_stop_reason *reason,
                       pen_error *err)
{
    memset(err, 0, sizeof(*err));
    *reason = PEN_REASON_FAILED;
    pen_run *run = pen_calloc(1, sizeof(*run));
    run->signal_fd = -1;
    run->statedir = dir;
    pen_run_stop_early_on_signals();
    run->started_us = pen_now_us();
    run->shown_us = run->started_us;
    srandom((unsigned)run->started_us);
    bool ok = pen_stream_create(options, &run->stream, err) && open_signals(run, err) &&
              run_until_end(run, reason, err);
    if (run->began) {
        pen_conflicts_report(&run->stream->conflicts);
        pen_show_summary(run, *reason);
        if (!ok) {
            pen_stream_advise(err);
        }
    }
    deinit(run);
    free(run);
    return ok;
}
