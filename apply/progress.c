#include "apply/progress.h"

#include "apply/watchdog.h"
#include "core/kill_point.h"
#include "core/log.h"
#include "core/sqlstate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Between two durability barriers, while there is something new. */
#define BARRIER_EVERY_MS 100
/* An idle stream's position moves at most this often, so that it keeps no target awake. */
#define IDLE_EVERY_US (10 * 1000 * 1000)

struct pen_progress {
    pen_stream *stream;
    pen_pgconn *control;
    pen_checkpoint_file *file;
    pen_watchdog *watchdog;
    pen_lsn durable_lsn;
    int64_t moved_us; /* when durable_lsn last moved */
    int64_t told_us;  /* when a line told of a barrier that failed */
};

pen_progress *pen_progress_create(pen_stream *stream, pen_pgconn *control,
                                  pen_checkpoint_file *file)
{
    pen_progress *progress = pen_calloc(1, sizeof(*progress));
    progress->stream = stream;
    progress->control = control;
    pen_pgconn_make_stoppable(control, &stream->progress_parker, &stream->stop, PEN_STOP_ABORT);
    progress->file = file;
    progress->watchdog = pen_watchdog_create(stream, control);
    progress->durable_lsn = stream->resume.reported_lsn;
    return progress;
}

void pen_progress_destroy(pen_progress *progress)
{
    if (progress != NULL) {
        pen_watchdog_destroy(progress->watchdog);
        pen_pgconn_close(progress->control);
        pen_checkpoint_close(progress->file);
        free(progress);
    }
}

/* The durability barrier: one small writing transaction with synchronous_commit=on. WAL is
 * sequential, so when it is durable, everything that committed before it is; and the LSN that it
 * writes is recorded before it is reported, so that a slot which has confirmed more can be told for
 * what it is. */
static bool barrier(pen_progress *progress, pen_lsn idle_lsn, pen_error *err)
{
    const pen_stream *stream = progress->stream;
    char idle[PEN_LSN_TEXT_SIZE];
    const char *const values[] = {stream->options->name, stream->resume.run_id,
                                  pen_lsn_format(idle_lsn, idle)};
    pen_pgresult *res = NULL;
    if (!pen_pgconn_exec(progress->control, "make the applied transactions durable",
                         "UPDATE penstock.durable d"
                         " SET reported_lsn = GREATEST(d.reported_lsn, p.end_lsn, $3::pg_lsn)"
                         " FROM penstock.progress p"
                         " WHERE d.name = $1 AND d.run_id = $2 AND p.name = $1 AND p.run_id = $2"
                         /* Of this very transaction, whatever session a pooler gave it. */
                         " RETURNING d.reported_lsn,"
                         " pg_catalog.set_config('synchronous_commit', 'on', true)",
                         3, values, &res, err)) {
        return false;
    }
    const char *reported = pen_pgresult_rows(res) == 1 ? pen_pgresult_value(res, 0, 0) : NULL;
    bool ok = reported != NULL && pen_lsn_parse(reported, &progress->durable_lsn);
    pen_pgresult_clear(res);
    if (!ok) {
        return pen_error_set(
            err, PEN_ERROR_FATAL,
            "target: another penstock has taken the stream \"%s\" over; this run has "
            "stopped. Make sure that only one runs, and start again",
            stream->options->name);
    }
    return true;
}

static bool checkpoint(pen_progress *progress, pen_lsn applied, pen_error *err)
{
    const pen_stream *stream = progress->stream;
    pen_checkpoint cp = {.system_identifier = stream->resume.identity.system_identifier,
                         .timeline = stream->resume.identity.timeline,
                         .committed_lsn = applied,
                         .durable_lsn = progress->durable_lsn};
    if (stream->options->ack == PEN_ACK_SPOOLED) {
        /* In this order: an end that is older than the start only says less. */
        cp.spool_end_lsn = pen_cell_read(&stream->spool_end_lsn);
        cp.spool_start_lsn = pen_cell_read(&stream->spool_start_lsn);
    }
    snprintf(cp.database, sizeof(cp.database), "%s", stream->resume.identity.database);
    snprintf(cp.slot, sizeof(cp.slot), "%s", stream->options->slot);
    return pen_checkpoint_submit(progress->file, &cp, err);
}

/* A barrier that was cancelled, or waited too long for a lock, is tried again in the next round:
 * nothing was reported that is not durable. */
static bool put_off(pen_progress *progress, const pen_error *err)
{
    if (!pen_sqlstate_passes(err->sqlstate)) {
        return false;
    }
    int64_t now_us = pen_now_us();
    if (now_us - progress->told_us > IDLE_EVERY_US) {
        progress->told_us = now_us;
        pen_log(PEN_LOG_WARN, "%s; it is tried again", err->text);
    }
    return true;
}

/* One look at what is new. `last`: nothing more will be applied. *done: all that was is durable. */
static bool advance(pen_progress *progress, bool last, bool *done, pen_error *err)
{
    pen_stream *stream = progress->stream;
    /* [IDLE-1] acquire: read first. Everything that committed before it was handed over before, so
     * [HANDED-1] acquire: the number read next covers all of that; pair with the releases in the
     * reader. */
    pen_lsn idle = pen_cell_read(&stream->idle_lsn);
    pen_lsn handed = pen_cell_read(&stream->handed_lsn);
    /* [APPLIED-1] acquire: pairs with the release in the worker. */
    pen_lsn applied = pen_cell_read(&stream->applied_lsn);
    bool all_applied = applied >= handed;
    int64_t now_us = pen_now_us();
    bool may_move =
        last || stream->stop_lsn != PEN_LSN_NONE || now_us - progress->moved_us >= IDLE_EVERY_US;
    bool idle_moves = all_applied && idle > progress->durable_lsn && may_move;
    *done = true;
    if (applied <= progress->durable_lsn && !idle_moves) {
        return true;
    }
    PEN_KILL_POINT("barrier-before");
    /* While transactions are applied anyway, the idle position rides along. */
    if (!barrier(progress, all_applied ? idle : PEN_LSN_NONE, err)) {
        *done = false;
        return put_off(progress, err);
    }
    progress->moved_us = now_us;
    PEN_KILL_POINT("barrier-after");
    if (!checkpoint(progress, applied, err)) {
        return false;
    }
    PEN_KILL_POINT("checkpoint-submitted");
    /* [DURABLE-1] release: pairs with the acquire in the reader. */
    pen_cell_publish(&stream->durable_lsn, progress->durable_lsn);
    pen_parker_wake(&stream->reader_parker);
    return true;
}

static bool run(pen_progress *progress, pen_error *err)
{
    pen_stream *stream = progress->stream;
    bool done = true; /* false: the barrier is to be tried again */
    for (;;) {
        pen_parker_prepare(&stream->progress_parker);
        if (pen_stream_stopping(stream) == PEN_STOP_ABORT) {
            pen_parker_cancel(&stream->progress_parker);
            return true;
        }
        /* [WORKERS-1] acquire: every commit is in applied_lsn; pairs with the release in
         * pen_stream_worker_done. */
        bool last = pen_cell_read(&stream->workers_done);
        int happened = 0;
        if (!last || !done) {
            happened =
                pen_parker_park(&stream->progress_parker, pen_pgconn_socket(progress->control),
                                PEN_PARK_READABLE, BARRIER_EVERY_MS);
        } else {
            pen_parker_cancel(&stream->progress_parker);
        }
        /* Nothing was asked, so this is a notice, or the end: an idle stream notices here that the
         * target went away. */
        if ((happened & PEN_PARK_READABLE) && !pen_pgconn_consume(progress->control, err)) {
            return false;
        }
        if (!pen_checkpoint_poll(progress->file, err) || !advance(progress, last, &done, err) ||
            (!last && !pen_watchdog_look(progress->watchdog, err))) {
            return false;
        }
        if (last && done) {
            return pen_checkpoint_flush(progress->file, err);
        }
    }
}

void pen_progress_run(void *arg)
{
    pen_progress *progress = arg;
    pen_stream *stream = progress->stream;
    PEN_ASSERT(pen_thread_role() == PEN_ROLE_PROGRESS);
    pen_error err;
    if (!run(progress, &err)) {
        pen_stream_fail(stream, &err);
    }
    /* [DONE-1] release: the last durable_lsn is published; pairs with the acquire in the reader. */
    pen_cell_publish(&stream->progress_done, 1);
    pen_parker_wake(&stream->reader_parker);
}
