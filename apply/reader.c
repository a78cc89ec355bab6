#include "apply/reader.h"

#include "apply/pacing.h"
#include "core/kill_point.h"
#include "core/log.h"

#include <inttypes.h>
#include <stdlib.h>

/* Messages taken in before status, stop and ring are looked at again. */
#define MESSAGES_AT_ONCE 512
/* How often the socket is read before what came is decoded; libpq's buffer grows with it. */
#define READS_AT_ONCE 16
/* While an end of the stream is waited for, the source is asked for its position this often. */
#define ASK_EVERY_MS 100
/* The longest that a source may be silent. */
#define SILENCE_MOST_MS (60 * 60 * 1000)
/* Between two barriers of the spool, while there is something new. */
#define SYNC_EVERY_US (50 * 1000)
/* Between two looks at the spool's size. */
#define SIZE_EVERY_US (500 * 1000)
/* While something is waited for that nobody wakes us for. */
#define LOOK_AGAIN_MS 10

/* A walsender in the middle of a large transaction sends it to its end before it agrees to stop;
 * our last status has long reached it by then. */
#define FINISH_WITHIN_MS 1000

struct pen_reader {
    pen_stream *stream;
    pen_replication *rep;     /* NULL while the source is away, with a spool */
    pen_spool *spool;         /* the whole stream; NULL without --ack spooled */
    pen_spooling *spooling;   /* the same */
    pen_spool *streamed;      /* blocks of transactions in progress, or NULL */
    pen_capture *capture;     /* borrowed, or NULL */
    pen_intake *intake;       /* borrowed; NULL while there is no target to apply to */
    pen_spool_cursor *cursor; /* of the spool: what the intake takes next */
    bool receiving;           /* until the stop */
    bool disk_full;           /* as said in the log */
    pen_lsn stop_lsn;         /* the stream's, which is known when there is an intake */
    pen_lsn reported_lsn;     /* the flush position last sent; never goes back */
    int64_t reported_us;      /* when */
    int64_t size_told_us;     /* when the spool's size was last published */
    int64_t synced_us;        /* when the spool's last barrier was asked for */
    int64_t heard_us;         /* when something last came from the source, or could not be taken */
    bool heard;               /* something has come since then */
    bool was_dry;             /* nothing has come for a while: what comes next may be on time */
    pen_pacing pacing;
    bool napped;             /* since something came */
    int64_t silent_us;       /* since when the socket is empty; 0: something came last */
    pen_pgtime source_clock; /* what the source's clock said when it last sent something, or 0 */
    int64_t clock_read_us;   /* when that came here; only with a spool */
    bool send_now;           /* the source asked for a status */
    bool pending;            /* bytes are queued that the socket did not take */
    bool source_failed;      /* what failed last was the connection */
};

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

/* Receiving */

static void capture(pen_reader *reader, const pen_event *event)
{
    if (reader->capture == NULL) {
        return;
    }
    const pen_spool_record record = pen_event_record(event);
    pen_error err;
    if (!pen_capture_add(reader->capture, &record, &err) ||
        !pen_capture_poll(reader->capture, &err)) {
        pen_log(PEN_LOG_WARN, "%s; the stream goes on without being captured", err.text);
    }
}

/* While the source is far behind. What goes into the spool is not paced: the same thread reads
 * that, and would wait too. */
static bool pace(pen_reader *reader, pen_error *err)
{
    if (reader->spool != NULL || reader->was_dry || !pen_intake_is_behind(reader->intake)) {
        return true;
    }
    pen_dealing_flush(&reader->stream->dealing);
    int socket = pen_replication_socket(reader->rep);
    int64_t since_us = pen_now_us();
    if (pen_pacing_pause(&reader->pacing, socket) > 0) {
        pen_meter_add(PEN_METRIC_PAUSES, 1);
        pen_meter_add(PEN_METRIC_READER_PACED, (uint64_t)(pen_now_us() - since_us));
    }
    for (int i = 0; i < READS_AT_ONCE && pen_pacing_takes_more(&reader->pacing, socket); i++) {
        if (!pen_replication_receive(reader->rep, err)) {
            return false;
        }
    }
    return true;
}

/* It is the source that is lost. Returns false always. */
static bool source_failed(pen_reader *reader)
{
    reader->source_failed = true;
    return false;
}

/* Takes the next event off the connection; *received: the socket was looked at already. */
static bool poll_source(pen_reader *reader, bool *received, pen_event *event, pen_error *err)
{
    if (!pen_replication_poll(reader->rep, false, event, err)) {
        return source_failed(reader);
    }
    if (event->kind == PEN_EVENT_NOTHING && !*received) {
        *received = true;
        if (!pace(reader, err) || !pen_replication_poll(reader->rep, true, event, err)) {
            return source_failed(reader);
        }
    }
    switch (event->kind) {
    case PEN_EVENT_NOTHING:
        return true;
    case PEN_EVENT_KEEPALIVE:
        reader->send_now |= event->reply_requested;
        break;
    case PEN_EVENT_DATA:
        break;
    case PEN_EVENT_END:
        pen_error_set(err, PEN_ERROR_RETRY,
                      "source: the server ended the stream (is it being shut down?)");
        return source_failed(reader);
    }
    reader->heard = true;
    reader->was_dry = false;
    reader->napped = false;
    if (reader->silent_us != 0) {
        pen_pacing_heard(&reader->pacing, pen_now_us() - reader->silent_us);
        reader->silent_us = 0;
    }
    reader->source_clock = event->sent;
    if (reader->spool != NULL) {
        reader->clock_read_us = pen_now_us();
    }
    capture(reader, event);
    return true;
}

/* Straight into the intake. Up to a bound; *idle: there is nothing to do before the socket, a wake
 * or the clock says so. */
static bool receive_directly(pen_reader *reader, bool *idle, pen_error *err)
{
    bool received = false;
    *idle = false;
    for (int i = 0; i < MESSAGES_AT_ONCE && !pen_intake_has_stopped(reader->intake); i++) {
        bool ready = false;
        if (!pen_intake_is_ready(reader->intake, &ready, err)) {
            return false;
        }
        if (!ready) {
            *idle = true;
            return true;
        }
        /* Also while the disk is full: at its end there is room. */
        if (pen_intake_is_replaying(reader->intake)) {
            if (!pen_intake_replay(reader->intake, err)) {
                return false;
            }
            continue;
        }
        if (reader->streamed != NULL && !pen_spool_has_room(reader->streamed)) {
            *idle = true;
            return true;
        }
        pen_event event;
        if (!poll_source(reader, &received, &event, err)) {
            return false;
        }
        if (event.kind == PEN_EVENT_NOTHING) {
            *idle = true;
            return true;
        }
        if (event.kind == PEN_EVENT_KEEPALIVE) {
            pen_intake_keepalive(reader->intake, event.wal_end);
            continue;
        }
        pen_intake_clock(reader->intake, event.sent);
        if (!pen_intake_message(reader->intake, event.data, (pen_spool_pos){0}, err)) {
            return false;
        }
    }
    return true;
}

/* From the connection into the spool. */
static bool receive_into_spool(pen_reader *reader, bool *idle, pen_error *err)
{
    bool received = false;
    for (int i = 0; i < MESSAGES_AT_ONCE && reader->rep != NULL; i++) {
        bool ready = false;
        if (!pen_spooling_is_ready(reader->spooling, &ready, err)) {
            return false;
        }
        if (!ready) {
            return true;
        }
        pen_event event;
        if (!poll_source(reader, &received, &event, err)) {
            return false;
        }
        if (event.kind == PEN_EVENT_NOTHING) {
            return true;
        }
        *idle = false;
        if (!pen_spooling_take(reader->spooling, &event, err)) {
            return false;
        }
    }
    return true;
}

/* What the source's clock says now, as far as it is known: a record that was `sent` then lies in
 * the spool. A source that has no more to send says nothing for seconds, while the record grows
 * late. */
static pen_pgtime source_clock_now(const pen_reader *reader, pen_pgtime sent)
{
    pen_pgtime now;
    if (reader->source_clock == 0 ||
        /* What came off the wire may be anything. */
        __builtin_add_overflow(reader->source_clock, pen_now_us() - reader->clock_read_us, &now)) {
        return sent;
    }
    return now;
}

/* One record of the spool into the intake; *taken false when there is none. */
static bool take_record(pen_reader *reader, bool *taken, pen_error *err)
{
    pen_spool_record record;
    pen_spool_pos at;
    *taken = false;
    switch (pen_spool_cursor_next(reader->cursor, &record, &at, err)) {
    case PEN_SPOOL_READ_NOTHING:
        return true;
    case PEN_SPOOL_READ_FAILED:
        return false;
    case PEN_SPOOL_READ_RECORD:
        break;
    }
    *taken = true;
    switch (record.kind) {
    case PEN_SPOOL_MESSAGE:
        /* What lies in the spool is late by how long it has lain there, too. */
        pen_intake_clock(reader->intake, source_clock_now(reader, record.sent));
        return pen_intake_message(reader->intake, record.payload, at, err);
    case PEN_SPOOL_KEEPALIVE:
        pen_intake_keepalive(reader->intake, record.wal_end);
        return true;
    case PEN_SPOOL_RELATION:
        return pen_intake_relation(reader->intake, record.payload, err);
    case PEN_SPOOL_SESSION:
        /* All that came before it stands before it. */
        pen_intake_session(reader->intake);
        pen_intake_keepalive(reader->intake, record.wal_end);
        return true;
    }
    return true;
}

/* From the spool into the intake. */
static bool take_from_spool(pen_reader *reader, bool *idle, pen_error *err)
{
    for (int i = 0; i < MESSAGES_AT_ONCE && !pen_intake_has_stopped(reader->intake); i++) {
        bool ready = false;
        bool taken = true;
        if (!pen_intake_is_ready(reader->intake, &ready, err)) {
            return false;
        }
        if (!ready) {
            return true;
        }
        if (!(pen_intake_is_replaying(reader->intake) ? pen_intake_replay(reader->intake, err)
                                                      : take_record(reader, &taken, err))) {
            return false;
        }
        if (!taken) {
            return true;
        }
        *idle = false;
    }
    return true;
}

/* Segments whose transactions are all durable on the target are not needed any more. */
static bool trim(pen_reader *reader, pen_error *err)
{
    /* [DURABLE-1] acquire: pairs with the release in the progress thread. */
    pen_lsn durable = pen_cell_read(&reader->stream->durable_lsn);
    uint64_t needed = pen_intake_needed_segment(reader->intake, durable);
    if (needed <= pen_spool_first(reader->spool).segment) {
        return true;
    }
    bool ok = pen_spool_trim(reader->spool, needed, err);
    pen_cell_publish(&reader->stream->spool_start_lsn, pen_spool_start_lsn(reader->spool));
    return ok;
}

static void sync_now_and_then(pen_reader *reader)
{
    int64_t now_us = pen_now_us();
    if (now_us - reader->synced_us >= SYNC_EVERY_US &&
        pen_spool_pos_before(pen_spool_synced(reader->spool), pen_spool_end(reader->spool))) {
        reader->synced_us = now_us;
        pen_spool_sync(reader->spool);
    }
}

/* Says once that the disk is full, and once that it is not any more. */
static void look_at_disk(pen_reader *reader, const pen_spool *spool)
{
    bool full = pen_spool_disk_is_full(spool);
    if (full && !reader->disk_full) {
        pen_log(PEN_LOG_ERROR,
                "the disk with the state directory %s is full (%" PRIu64
                " MB of it are the spool): nothing more is received until there is room, and "
                "nothing is lost; the source keeps its WAL meanwhile. Make room there",
                reader->stream->options->dir, pen_spool_size(spool) >> 20);
    } else if (!full && reader->disk_full) {
        pen_log(PEN_LOG_INFO, "there is room again in %s: receiving goes on",
                reader->stream->options->dir);
    }
    reader->disk_full = full;
    pen_cell_publish(&reader->stream->disk_full, full);
}

/* For whoever asks; a large spool has thousands of segments to be added up. */
static void tell_spool_size(pen_reader *reader, const pen_spool *spool)
{
    int64_t now_us = pen_now_us();
    if (now_us - reader->size_told_us >= SIZE_EVERY_US) {
        reader->size_told_us = now_us;
        pen_cell_publish(&reader->stream->spool_bytes, pen_spool_size(spool));
    }
}

static bool poll_spools(pen_reader *reader, pen_error *err)
{
    pen_spool *spool = reader->spool != NULL ? reader->spool : reader->streamed;
    if (spool == NULL) {
        return true;
    }
    if (!pen_spool_poll(spool, err)) {
        return false;
    }
    look_at_disk(reader, spool);
    tell_spool_size(reader, spool);
    if (reader->spool == NULL) {
        return true;
    }
    pen_cell_publish(&reader->stream->spool_end_lsn, pen_spool_synced_lsn(spool));
    sync_now_and_then(reader);
    return reader->intake == NULL || trim(reader, err);
}

static bool receive(pen_reader *reader, bool *idle, pen_error *err)
{
    bool ok = reader->spool == NULL
                  ? receive_directly(reader, idle, err)
                  : receive_into_spool(reader, idle, err) &&
                        (reader->intake == NULL || take_from_spool(reader, idle, err));
    pen_intake_flush(reader->intake);
    return ok;
}

/* Status */

/* What the source may forget. */
static pen_lsn safe_lsn(const pen_reader *reader)
{
    /* [DURABLE-1] acquire: pairs with the release in the progress thread. */
    return reader->spool != NULL ? pen_spool_synced_lsn(reader->spool)
                                 : pen_cell_read(&reader->stream->durable_lsn);
}

static pen_lsn received_lsn(const pen_reader *reader)
{
    pen_lsn received = reader->spooling != NULL ? pen_spooling_received(reader->spooling)
                                                : pen_intake_received(reader->intake);
    return received > reader->reported_lsn ? received : reader->reported_lsn;
}

/* A source that does not even answer is lost, though the connection may look whole: its machine
 * hangs, or a proxy on the way has lost it. It is asked for an answer at half of the time, as a
 * walsender asks us. One that only decodes for so long, without a look at what we say, would be
 * lost again and again in the same place: so each time it is given twice the time. */
static bool listen_for_source(pen_reader *reader, bool *ask, pen_error *err)
{
    pen_stream *stream = reader->stream;
    int64_t now_us = pen_now_us();
    if (reader->heard) {
        reader->heard = false;
        reader->heard_us = now_us;
    }
    int64_t silent_ms = (now_us - reader->heard_us) / 1000;
    *ask = reader->receiving && silent_ms >= stream->silence_limit_ms / 2;
    if (!*ask || silent_ms < stream->silence_limit_ms) {
        return true;
    }
    if (stream->silence_limit_ms < SILENCE_MOST_MS) {
        stream->silence_limit_ms *= 2;
    }
    return pen_error_set(err, PEN_ERROR_RETRY,
                         "source: nothing has come for %d s, not even the answer to a question: "
                         "the connection counts as lost",
                         (int)(silent_ms / 1000));
}

/* Sends a status when one is due, and there is somebody to send it to. */
static bool send_status(pen_reader *reader, bool last, pen_error *err)
{
    pen_stream *stream = reader->stream;
    int64_t now_us = pen_now_us();
    pen_lsn safe = safe_lsn(reader);
    bool silent = false;
    if (!listen_for_source(reader, &silent, err)) {
        return false;
    }
    bool near_end = reader->receiving && reader->stop_lsn != PEN_LSN_NONE;
    bool asking = near_end || silent;
    int64_t interval_us = near_end ? ASK_EVERY_MS * 1000 : stream->status_interval_ms * 1000;
    if (last || reader->send_now || safe > reader->reported_lsn ||
        now_us - reader->reported_us >= interval_us) {
        if (safe > reader->reported_lsn) {
            reader->reported_lsn = safe;
        }
        PEN_KILL_POINT("status-before");
        if (!pen_replication_status(reader->rep, received_lsn(reader), reader->reported_lsn, asking,
                                    err)) {
            return false;
        }
        pen_cell_publish(&stream->reported_lsn, reader->reported_lsn);
        reader->reported_us = now_us;
        reader->send_now = false;
        reader->pending = true;
    }
    if (!reader->pending) {
        return true;
    }
    bool ok = pen_replication_flush(reader->rep, &reader->pending, err);
    PEN_KILL_POINT("status-after");
    return ok;
}

static bool report(pen_reader *reader, bool last, pen_error *err)
{
    pen_cell_publish(&reader->stream->received_lsn, received_lsn(reader));
    return reader->rep == NULL || send_status(reader, last, err) || source_failed(reader);
}

/* Waits until everything in the spool is durable, still sending status. */
static bool finish_spool(pen_reader *reader, pen_error *err)
{
    while (pen_spool_pos_before(pen_spool_synced(reader->spool), pen_spool_end(reader->spool)) &&
           !pen_spool_disk_is_full(reader->spool)) {
        pen_spool_sync(reader->spool);
        pen_parker_prepare(&reader->stream->reader_parker);
        if (!pen_spool_poll(reader->spool, err) || !report(reader, false, err)) {
            pen_parker_cancel(&reader->stream->reader_parker);
            return false;
        }
        (void)pen_parker_park(&reader->stream->reader_parker, -1, 0, LOOK_AGAIN_MS);
    }
    return true;
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
    pen_cell_publish(&stream->received_lsn, received_lsn(reader));
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
    bool may_report = reader->rep != NULL ? safe_lsn(reader) > reader->reported_lsn
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
    if ((reader->spool != NULL && !finish_spool(reader, err)) || !report(reader, true, err)) {
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
    if (reader->receiving && !receive(reader, &idle, err)) {
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
            return poll_spools(reader, err) && end_in_order(reader, err);
        }
    }
    return poll_spools(reader, err) && report(reader, false, err) &&
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
