#include "apply/ahead.h"

#include "apply/losses.h"
#include "apply/parts.h"
#include "apply/receiver.h"
#include "apply/source.h"
#include "core/log.h"

#include <stdio.h>
#include <stdlib.h>

/* Between two tries: doubled from the one to the other. */
#define RETRY_FIRST_MS 100
#define RETRY_MOST_MS  10000
/* Between two looks where nobody wakes. */
#define LOOK_EVERY_MS 1000

struct pen_ahead {
    /* set before the thread starts, then read-only */
    pen_options options; /* the migration's, but for what only one may have */
    pen_spool_header header;
    pen_lsn recorded;
    /* the thread's */
    pen_run run;
    pen_error failure; /* what cannot pass */
    /* main's */
    pen_thread thread;
    pen_cell stop; /* 1: it is to end */
};

static bool told_to_end(const pen_ahead *ahead)
{
    /* [AHEADEND-1] acquire: pairs with the release in pen_ahead_end. */
    return pen_cell_read(&ahead->stop) != 0;
}

/* Up to where the target has recorded that it has everything: the slot's beginning, as nothing is
 * applied before the copy is done. */
static bool read_recorded(pen_migration *migration, pen_lsn *recorded, pen_error *err)
{
    const char *const values[] = {migration->options->name};
    pen_pgresult *res = NULL;
    if (!pen_pgconn_exec(migration->target, "read where the stream begins",
                         "SELECT reported_lsn FROM penstock.durable WHERE name = $1", 1, values,
                         &res, err)) {
        return false;
    }
    bool ok = pen_pgresult_rows(res) == 1 && pen_lsn_parse(pen_pgresult_value(res, 0, 0), recorded);
    pen_pgresult_clear(res);
    return ok || pen_error_set(err, PEN_ERROR_FATAL,
                               "target: nothing says where the stream \"%s\" begins",
                               migration->options->name);
}

bool pen_ahead_check(const pen_migration *migration, pen_error *err)
{
    const pen_options *options = migration->options;
    pen_spool_header there;
    if (options->ack == PEN_ACK_SPOOLED ||
        !pen_spool_peek(pen_statedir_spool(migration->statedir), "stream", &there)) {
        return true;
    }
    return pen_error_set(err, PEN_ERROR_CONFIG,
                         "the spool in %s holds what the source has sent since the copy began, and "
                         "may have forgotten: go on with --ack spooled",
                         options->dir);
}

/* The thread */

static void wait_a_while(pen_ahead *ahead, int64_t ms)
{
    pen_parker *parker = &ahead->run.stream->main_parker;
    pen_parker_prepare(parker);
    if (told_to_end(ahead)) {
        pen_parker_cancel(parker);
        return;
    }
    (void)pen_parker_park(parker, -1, 0, (int)ms);
}

static bool begin(pen_ahead *ahead, pen_error *err)
{
    pen_run *run = &ahead->run;
    if ((run->source == NULL &&
         !pen_source_open_session(run->stream->options, "control", &run->source, err)) ||
        !pen_receiver_begin(run, &ahead->header, ahead->recorded, err)) {
        pen_parts_close_source(run);
        return false;
    }
    pen_log(PEN_LOG_INFO, "while the tables are copied the stream is received into the spool");
    return true;
}

/* One look at everything; false when something has failed, for now or for good. */
static bool look(pen_ahead *ahead, pen_error *err)
{
    pen_run *run = &ahead->run;
    if (run->reader == NULL) {
        return begin(ahead, err);
    }
    /* [READER-1] acquire: pairs with the release in the reader. */
    if (pen_cell_read(&run->stream->reader_done)) {
        pen_thread_join(&run->stream->reader_thread);
        *err = run->stream->reader_failure;
        pen_parts_unmake(run, true);
        return err->kind == PEN_ERROR_NONE;
    }
    bool ok = pen_losses_see_to(run, false);
    *err = run->refused;
    return ok;
}

static void end_reader(pen_run *run)
{
    pen_stream *stream = run->stream;
    if (stream->reader_thread.started) {
        /* [END-1] release: pairs with the acquire in the reader. */
        pen_cell_publish(&stream->reader_end, 1);
        pen_parker_wake(&stream->reader_parker);
        pen_thread_join(&stream->reader_thread);
    }
    pen_parts_unmake(run, true);
}

static void run(void *arg)
{
    pen_ahead *ahead = arg;
    int64_t retry_ms = RETRY_FIRST_MS;
    while (!told_to_end(ahead)) {
        pen_error err;
        if (look(ahead, &err)) {
            retry_ms = RETRY_FIRST_MS;
            wait_a_while(ahead, LOOK_EVERY_MS);
            continue;
        }
        if (err.kind != PEN_ERROR_RETRY) {
            ahead->failure = err;
            pen_log(PEN_LOG_WARN, "%s; nothing is received any more beside the copy", err.text);
            break;
        }
        pen_log(PEN_LOG_WARN, "%s; trying again, nothing is lost", err.text);
        wait_a_while(ahead, retry_ms);
        retry_ms = retry_ms * 2 < RETRY_MOST_MS ? retry_ms * 2 : RETRY_MOST_MS;
    }
    end_reader(&ahead->run);
}

static void destroy(pen_ahead *ahead)
{
    pen_stream_destroy(ahead->run.stream);
    free(ahead);
}

bool pen_ahead_begin(pen_migration *migration, pen_ahead **ahead, pen_error *err)
{
    const pen_options *options = migration->options;
    if (options->ack != PEN_ACK_SPOOLED || *ahead != NULL) {
        return true;
    }
    if (options->format == PEN_FORMAT_BINARY) {
        /* Whether the columns allow it is known when the stream begins. */
        pen_log(PEN_LOG_WARN, "with --format binary nothing is received while the tables are "
                              "copied: the source keeps its WAL until then");
        return true;
    }
    pen_ahead *made = pen_calloc(1, sizeof(*made));
    made->options = *options;
    made->options.status = NULL;
    made->options.capture = NULL;
    pen_cell_init(&made->stop, 0);
    const pen_source_identity *identity = &migration->resume.identity;
    made->header.system_identifier = identity->system_identifier;
    made->header.timeline = identity->timeline;
    snprintf(made->header.database, sizeof(made->header.database), "%s", identity->database);
    snprintf(made->header.encoding, sizeof(made->header.encoding), "%s",
             pen_pgconn_parameter(migration->target, "server_encoding"));
    made->run.statedir = migration->statedir;
    made->run.signal_fd = -1;
    if (!read_recorded(migration, &made->recorded, err) ||
        !pen_stream_create(&made->options, &made->run.stream, err)) {
        free(made);
        return false;
    }
    made->run.stream->resume.owner = migration->resume.owner;
    if (!pen_thread_start(&made->thread, PEN_ROLE_SOURCE, "receiver", run, made, err)) {
        destroy(made);
        return false;
    }
    *ahead = made;
    return true;
}

bool pen_ahead_end(pen_ahead *ahead, pen_error *err)
{
    if (ahead == NULL) {
        return true;
    }
    /* [AHEADEND-1] release: pairs with the acquire in told_to_end. */
    pen_cell_publish(&ahead->stop, 1);
    pen_parker_wake(&ahead->run.stream->main_parker);
    pen_thread_join(&ahead->thread);
    *err = ahead->failure;
    bool ok = err->kind == PEN_ERROR_NONE;
    destroy(ahead);
    return ok;
}
