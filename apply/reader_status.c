#include "apply/reader_internal.h"
#include "core/kill_point.h"

/* The longest that a source may be silent. */
#define SILENCE_MOST_MS (60 * 60 * 1000)

pen_lsn pen_reader_safe_lsn(const pen_reader *reader)
{
    /* [DURABLE-1] acquire: pairs with the release in the progress thread. */
    return reader->spool != NULL ? pen_spool_synced_lsn(reader->spool)
                                 : pen_cell_read(&reader->stream->durable_lsn);
}

pen_lsn pen_reader_received_lsn(const pen_reader *reader)
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
    pen_lsn safe = pen_reader_safe_lsn(reader);
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
        if (!pen_replication_status(reader->rep, pen_reader_received_lsn(reader),
                                    reader->reported_lsn, asking, err)) {
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

bool pen_reader_report(pen_reader *reader, bool last, pen_error *err)
{
    pen_cell_publish(&reader->stream->received_lsn, pen_reader_received_lsn(reader));
    return reader->rep == NULL || send_status(reader, last, err) ||
           pen_reader_source_failed(reader);
}
