#include "apply/reader_internal.h"

#include <stdlib.h>

/* A walsender in the middle of a large transaction sends it to its end before it agrees to stop;
 * our last status has long reached it by then. */
#define FINISH_WITHIN_MS 1000

pen_reader *pen_reader_create(pen_stream *stream, const pen_reader_parts *parts)
{
    pen_reader *reader = pen_calloc(1, sizeof(*reader));
    reader->stream = stream;
    reader->rep = parts->rep;
    reader->spool = parts->spool;
    reader->spooling = parts->spooling;
    reader->streamed = parts->streamed;
    reader->capture = parts->capture;
    reader->receiving = true;
    reader->reported_lsn = parts->reported;
    reader->heard_us = pen_now_us();
    pen_pacing_begin(&reader->pacing, pen_replication_socket(reader->rep));
    return reader;
}

void pen_reader_destroy(pen_reader *reader)
{
    if (reader == NULL) {
        return;
    }
    pen_spool_cursor_destroy(reader->cursor);
    pen_spooling_destroy(reader->spooling);
    pen_spool_close(reader->spool, false);
    pen_spool_close(reader->streamed, true);
    pen_replication_close(reader->rep);
    free(reader);
}

pen_intake_options pen_reader_intake_options(const pen_reader *reader)
{
    bool spooled = reader->spool != NULL;
    return (pen_intake_options){.spool = spooled ? reader->spool : reader->streamed,
                                .spool_is_ours = !spooled && reader->streamed != NULL,
                                .abort_has_lsn =
                                    !spooled && pen_replication_abort_has_lsn(reader->rep)};
}

/* The thread */

static void stop_receiving(pen_reader *reader)
{
    reader->receiving = false;
    if (reader->intake != NULL) {
        pen_intake_stop(reader->intake);
    }
}

/* The run of dispatcher and workers that the intake belongs to has failed. */
static void let_go(pen_reader *reader)
{
    pen_intake_let_go(reader->intake);
    reader->intake = NULL;
    pen_spool_cursor_destroy(reader->cursor);
    reader->cursor = NULL;
    /* [DETACHED-1] release: the intake is not touched any more; pairs with the acquire in main. */
    pen_cell_publish(&reader->stream->reader_detached, 1);
    pen_parker_wake(&reader->stream->main_parker);
}

/* Takes up the intake that main has made, if any. */
static void take_up(pen_reader *reader)
{
    /* [INTAKE-1] acquire: pairs with the release in main. */
    pen_intake *intake = pen_place_take(&reader->stream->next_intake);
    if (intake != NULL) {
        reader->intake = intake;
        reader->stop_lsn = reader->stream->stop_lsn;
        /* The one before may have come to its end; what it had comes again. */
        reader->receiving = true;
        if (reader->spool != NULL) {
            reader->cursor = pen_spool_cursor_create(reader->spool, pen_spool_first(reader->spool));
        }
    }
}

/* The source is lost: what has come in part comes again, what is in the spool is applied meanwhile.
 */
static void lose_source(pen_reader *reader, const pen_error *err)
{
    pen_stream *stream = reader->stream;
    const pen_spool_record session = {.kind = PEN_SPOOL_SESSION};
    pen_error ignored;
    if (reader->capture != NULL) {
        (void)!pen_capture_add(reader->capture, &session, &ignored);
    }
    pen_spooling_lose(reader->spooling);
    pen_replication_close(reader->rep);
    reader->rep = NULL;
    reader->source_failed = false;
    reader->pending = false;
    reader->source_clock = 0;
    pen_cell_publish(&stream->received_lsn, pen_reader_received_lsn(reader));
    stream->source_failure = *err;
    /* [LOST-1] release: the spool's end and the reason are written; pairs with the acquire in
     * main. */
    pen_cell_publish(&stream->source_losses, pen_cell_read(&stream->source_losses) + 1);
    pen_parker_wake(&stream->main_parker);
}

/* Takes up the connection that brings the source back, if there is one. */
static void take_up_source(pen_reader *reader)
{
    /* [SOURCE-1] acquire: pairs with the release in the thread that made it. */
    pen_replication *rep = pen_place_take(&reader->stream->next_source);
    if (rep == NULL) {
        return;
    }
    reader->rep = rep;
    reader->heard_us = pen_now_us();
    reader->send_now = true;
    pen_pacing_begin(&reader->pacing, pen_replication_socket(rep));
    pen_spool_describe(reader->spool, (uint32_t)pen_replication_server_version(rep),
                       (uint16_t)pen_replication_protocol(rep));
}

/* What there is to be waited for: the socket, where more may be taken in, and how long at most. */
static bool choose_sleep(pen_reader *reader, int *events, int *timeout_ms, pen_error *err)
{
    pen_stream *stream = reader->stream;
    bool may_receive = reader->receiving;
    bool blocked = false;
    if (reader->intake != NULL) {
        bool ready = false;
        if (reader->receiving && !pen_intake_is_ready(reader->intake, &ready, err)) {
            return false;
        }
        blocked = !ready;
        may_receive &= ready || reader->spool != NULL;
    }
    if (reader->spool != NULL) {
        bool ready = false;
        if (reader->receiving && !pen_spooling_is_ready(reader->spooling, &ready, err)) {
            return false;
        }
        may_receive &= ready;
        blocked |= !ready || pen_spool_pos_before(pen_spool_synced(reader->spool),
                                                  pen_spool_end(reader->spool));
    } else if (reader->streamed != NULL) {
        bool room = pen_spool_has_room(reader->streamed);
        may_receive &= room;
        blocked |= !room;
    }
    may_receive &= reader->rep != NULL;
    *events = (may_receive ? PEN_PARK_READABLE : 0) | (reader->pending ? PEN_PARK_WRITABLE : 0);
    /* With memory used up by a transaction that is still arriving, the last commit before it gives
     * the way free without a wake. */
    *timeout_ms = blocked ? LOOK_AGAIN_MS : reader->stop_lsn != PEN_LSN_NONE ? ASK_EVERY_MS : 1000;
    if (*timeout_ms > stream->status_interval_ms) {
        *timeout_ms = stream->status_interval_ms;
    }
    return true;
}

/* After the parker was prepared: true when there is something to do at once. */
static bool must_look_again(const pen_reader *reader)
{
    const pen_stream *stream = reader->stream;
    pen_stop stop = pen_stream_stopping(stream);
    bool may_report = reader->rep != NULL ? pen_reader_safe_lsn(reader) > reader->reported_lsn
                                          : !pen_place_is_empty(&stream->next_source);
    if (pen_cell_read(&stream->reader_end) || may_report) {
        return true;
    }
    if (reader->intake == NULL) {
        return !pen_place_is_empty(&stream->next_intake);
    }
    return stop == PEN_STOP_ABORT || (reader->receiving && stop != PEN_STOP_NONE) ||
           (!reader->receiving && pen_cell_read(&stream->progress_done));
}

/* What the reader waits for, after choose_sleep has asked everybody. */
static pen_metric sleeps_for(const pen_reader *reader, int events)
{
    pen_metric blocked =
        reader->intake == NULL ? PEN_METRIC_COUNT : pen_intake_blocked(reader->intake);
    if (reader->receiving && blocked != PEN_METRIC_COUNT) {
        return blocked;
    }
    bool disk = reader->receiving && reader->rep != NULL && !(events & PEN_PARK_READABLE);
    return disk ? PEN_METRIC_READER_DISK : PEN_METRIC_READER_SOURCE;
}

/* Once before it sleeps on the socket, it stays away from that where more is about to come; false
 * where not. */
static bool stay_away(pen_reader *reader)
{
    int64_t since_us = pen_now_us();
    if (pen_intake_is_within(reader->intake)) {
        pen_pacing_nap();
    } else {
        if (reader->silent_us == 0) {
            reader->silent_us = since_us;
        }
        if (!pen_pacing_may_rest(&reader->pacing)) {
            return false;
        }
        pen_pacing_rest();
    }
    pen_meter_add(PEN_METRIC_READER_SOURCE, (uint64_t)(pen_now_us() - since_us));
    return true;
}

static bool sleep_a_while(pen_reader *reader, pen_error *err)
{
    pen_stream *stream = reader->stream;
    int events = 0;
    int timeout_ms = 0;
    pen_parker_prepare(&stream->reader_parker);
    bool ok = choose_sleep(reader, &events, &timeout_ms, err);
    if (!(events & PEN_PARK_READABLE)) {
        reader->heard = true; /* it is we who do not listen */
    }
    if (!ok || must_look_again(reader)) {
        pen_parker_cancel(&stream->reader_parker);
        return ok;
    }
    if (reader->intake != NULL && !reader->napped && (events & PEN_PARK_READABLE) &&
        stay_away(reader)) {
        pen_parker_cancel(&stream->reader_parker);
        reader->napped = true;
        return true;
    }
    int64_t since_us = pen_now_us();
    int happened =
        pen_meter_park(sleeps_for(reader, events), &stream->reader_parker,
                       events == 0 ? -1 : pen_replication_socket(reader->rep), events, timeout_ms);
    reader->heard |= (happened & PEN_PARK_READABLE) != 0; /* bytes, maybe no whole message */
    reader->was_dry |= pen_now_us() - since_us >= PEN_DRY_US;
    return true;
}

/* In order: everything that can be reported is, and the source agrees to the end. */
static bool end_in_order(pen_reader *reader, pen_error *err)
{
    if ((reader->spool != NULL && !pen_reader_finish_spool(reader, err)) ||
        !pen_reader_report(reader, true, err)) {
        return false;
    }
    if (reader->rep != NULL) {
        pen_replication_finish(reader->rep, FINISH_WITHIN_MS);
    }
    return true;
}

/* One look at everything. *ended: there is nothing more to do, ever. */
static bool step(pen_reader *reader, bool *ended, pen_error *err)
{
    pen_stream *stream = reader->stream;
    bool idle = true;
    if (reader->intake == NULL) {
        take_up(reader);
    }
    if (reader->rep == NULL) {
        take_up_source(reader);
    }
    if (reader->intake == NULL && reader->spool == NULL) {
        *ended = true; /* aborted before it began */
        return true;
    }
    /* [END-1] acquire: pairs with the release in main, which says so while there is no intake. */
    if (reader->intake == NULL && pen_cell_read(&stream->reader_end)) {
        *ended = true;
        return end_in_order(reader, err);
    }
    if (reader->intake != NULL && pen_stream_stopping(stream) == PEN_STOP_DRAIN) {
        stop_receiving(reader);
    }
    if (reader->receiving && !pen_reader_receive(reader, &idle, err)) {
        return false;
    }
    if (reader->intake != NULL && pen_intake_has_stopped(reader->intake)) {
        reader->receiving = false; /* the end that was asked for */
        bool finished = pen_intake_finish(reader->intake);
        pen_dealing_flush(&stream->dealing);
        if (finished) {
            pen_dealing_end(&stream->dealing);
        }
        /* [DONE-1] acquire: the last durable_lsn is published; pairs with the release in the
         * progress thread. */
        if (pen_cell_read(&stream->progress_done)) {
            *ended = true;
            return pen_reader_poll_spools(reader, err) && end_in_order(reader, err);
        }
    }
    return pen_reader_poll_spools(reader, err) && pen_reader_report(reader, false, err) &&
           (!idle || sleep_a_while(reader, err));
}

static bool run(pen_reader *reader, pen_error *err)
{
    pen_stream *stream = reader->stream;
    bool ended = false;
    while (!ended) {
        if (pen_stream_stopping(stream) == PEN_STOP_ABORT) {
            if (reader->spool == NULL) {
                return true;
            }
            if (reader->intake != NULL) {
                let_go(reader);
            }
        }
        if (!step(reader, &ended, err)) {
            if (!reader->source_failed || reader->spool == NULL || err->kind != PEN_ERROR_RETRY) {
                return false;
            }
            lose_source(reader, err);
            *err = (pen_error){0};
            ended = false;
        }
    }
    return true;
}

void pen_reader_run(void *arg)
{
    pen_reader *reader = arg;
    pen_stream *stream = reader->stream;
    PEN_ASSERT(pen_thread_role() == PEN_ROLE_READER);
    pen_thread_be_patient();
    pen_meter_begin(pen_stream_reader_meter(stream), PEN_METRIC_READER_TIME);
    pen_error *err = &stream->reader_failure;
    *err = (pen_error){0};
    /* Without an intake it fails alone: main may just be taking the run down that it let go of. */
    if (!run(reader, err) && reader->intake != NULL) {
        pen_stream_fail(stream, err);
    }
    pen_meter_end();
    /* [READER-1] release: pairs with the acquire in main. */
    pen_cell_publish(&stream->reader_done, 1);
    pen_parker_wake(&stream->main_parker);
}
