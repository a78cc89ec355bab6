#include "apply/reader_internal.h"
#include "core/log.h"

/* Messages taken in before status, stop and ring are looked at again. */
#define MESSAGES_AT_ONCE 512
/* How often the socket is read before what came is decoded; libpq's buffer grows with it. */
#define READS_AT_ONCE 16

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

/* Takes the next event off the connection; *received: the socket was looked at already. */
static bool poll_source(pen_reader *reader, bool *received, pen_event *event, pen_error *err)
{
    if (!pen_replication_poll(reader->rep, false, event, err)) {
        return pen_reader_source_failed(reader);
    }
    if (event->kind == PEN_EVENT_NOTHING && !*received) {
        *received = true;
        if (!pace(reader, err) || !pen_replication_poll(reader->rep, true, event, err)) {
            return pen_reader_source_failed(reader);
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
        return pen_reader_source_failed(reader);
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

bool pen_reader_receive(pen_reader *reader, bool *idle, pen_error *err)
{
    bool ok = reader->spool == NULL
                  ? receive_directly(reader, idle, err)
                  : receive_into_spool(reader, idle, err) &&
                        (reader->intake == NULL || take_from_spool(reader, idle, err));
    pen_intake_flush(reader->intake);
    return ok;
}
