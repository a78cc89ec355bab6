#include "apply/receiver.h"

#include "apply/slot.h"
#include "apply/source.h"
#include "core/log.h"

#include <stdio.h>
#include <string.h>

/* Status at least this often, and at least three times in each wal_sender_timeout. */
#define STATUS_EVERY_MS 10000
/* How long a source may be silent that has no wal_sender_timeout, and one that has a very short
 * one.
 */
#define SILENCE_MS       60000
#define SILENCE_LEAST_MS 5000
/* The spool's segments and buffers. */
#define SPOOL_SEGMENT ((size_t)64 << 20)
#define SPOOL_BUFFER  ((size_t)256 << 10)
#define SPOOL_BUFFERS 8

void pen_receiver_set_intervals(pen_stream *stream)
{
    int timeout_ms = stream->resume.wal_sender_timeout_ms;
    stream->status_interval_ms =
        timeout_ms > 0 && timeout_ms / 3 < STATUS_EVERY_MS ? timeout_ms / 3 : STATUS_EVERY_MS;
    int silence_ms = timeout_ms > 0 ? timeout_ms : SILENCE_MS;
    silence_ms = silence_ms < SILENCE_LEAST_MS ? SILENCE_LEAST_MS : silence_ms;
    if (stream->silence_limit_ms < silence_ms) {
        stream->silence_limit_ms = silence_ms; /* what it grew to in this process stays */
    }
}

/* What a spool or a captured stream says of itself. */
static pen_spool_header describe_stream(const pen_run *run, const pen_replication *rep,
                                        const char *encoding)
{
    const pen_stream *stream = run->stream;
    pen_spool_header header = {
        .system_identifier = stream->resume.identity.system_identifier,
        .timeline = stream->resume.identity.timeline,
        .server_version = (uint32_t)pen_replication_server_version(rep),
        .protocol = (uint16_t)pen_replication_protocol(rep),
    };
    snprintf(header.database, sizeof(header.database), "%s", stream->resume.identity.database);
    snprintf(header.slot, sizeof(header.slot), "%s", stream->options->slot);
    snprintf(header.encoding, sizeof(header.encoding), "%s", encoding);
    /* With --ack spooled auto means text: see pen_format_decide. */
    header.binary = stream->options->format == PEN_FORMAT_BINARY;
    return header;
}

static bool open_spool(pen_run *run, const pen_spool_header *header, bool durable,
                       pen_spool **spool, bool *found, pen_error *err)
{
    pen_spool_options options = {
        .dir = pen_statedir_spool(run->statedir),
        .name = durable ? "stream" : "streamed",
        .header = *header,
        .durable = durable,
        .use_uring = true,
        .segment_size = SPOOL_SEGMENT,
        .buffer_size = SPOOL_BUFFER,
        .buffer_count = SPOOL_BUFFERS,
        .parker = &run->stream->reader_parker,
    };
    options.header.kind = durable ? PEN_SPOOL_STREAM : PEN_SPOOL_STREAMED;
    return pen_spool_open(&options, spool, found, err);
}

/* Opens the spool of the whole stream, and reads what it holds that the target need not have yet.
 */
static bool open_stream_spool(pen_run *run, pen_reader_parts *parts, const pen_spool_header *header,
                              pen_error *err)
{
    pen_resume *resume = &run->stream->resume;
    if (run->stream->options->ack != PEN_ACK_SPOOLED && !pen_statedir_has_spool(run->statedir)) {
        return true;
    }
    if (!open_spool(run, header, true, &parts->spool, &resume->spool_found, err)) {
        return false;
    }
    parts->spooling = pen_spooling_create(parts->spool);
    if (!resume->spool_found) {
        return true;
    }
    if (!pen_spooling_recover(parts->spooling, err)) {
        return false;
    }
    bool binary = pen_spool_last_header(parts->spool)->binary;
    if (run->stream->options->ack == PEN_ACK_SPOOLED && binary != header->binary) {
        return pen_error_set(
            err, PEN_ERROR_CONFIG,
            "the spool in %s was begun with rows in %s, and may hold some that are "
            "not on the target yet: go on with --format %s; to change the format, "
            "run with --stop-when-caught-up, then once with --ack applied",
            run->stream->options->dir, binary ? "binary" : "text", binary ? "binary" : "text");
    }
    resume->spool_start_lsn = pen_spool_start_lsn(parts->spool);
    resume->spool_end_lsn = pen_spooling_changes_end_lsn(parts->spooling);
    resume->spool_received_lsn = pen_spooling_received(parts->spooling);
    return true;
}

/* A spool that an earlier run left while it was asked for, and that is not asked for now. */
static void drop_left_spool(pen_run *run, pen_reader_parts *parts)
{
    pen_spool *spool = parts->spool;
    pen_spooling_destroy(parts->spooling);
    parts->spooling = NULL;
    parts->spool = NULL;
    if (run->stream->resume.spool_found) {
        pen_log(PEN_LOG_INFO, "the spool in %s is not needed any more: all of it is on the target",
                run->stream->options->dir);
    }
    run->stream->resume.spool_found = false;
    pen_spool_close(spool, true);
}

static bool open_capture(pen_run *run, const pen_spool_header *header, pen_error *err)
{
    const char *path = run->stream->options->capture;
    if (path == NULL) {
        return true;
    }
    if (run->capture == NULL) {
        return pen_capture_create(path, header, &run->capture, err);
    }
    /* What had come in part comes again: whoever reads the file must know. */
    const pen_spool_record session = {.kind = PEN_SPOOL_SESSION};
    pen_error failed;
    if (!pen_capture_add(run->capture, &session, &failed)) {
        pen_log(PEN_LOG_WARN, "%s; the stream goes on without being captured", failed.text);
    }
    return true;
}

bool pen_receiver_open(pen_run *run, const char *encoding, pen_reader_parts *parts, pen_error *err)
{
    pen_stream *stream = run->stream;
    if (!pen_source_open_stream(stream->options, stream->resume.owner, encoding, &parts->rep,
                                &stream->resume.identity, err)) {
        return false;
    }
    run->header = describe_stream(run, parts->rep, encoding);
    return open_stream_spool(run, parts, &run->header, err);
}

bool pen_receiver_make(pen_run *run, pen_reader_parts *parts, pen_error *err)
{
    pen_stream *stream = run->stream;
    pen_spool_header *header = &run->header;
    header->binary = stream->format.binary;
    pen_lsn start = stream->resume.start_lsn;
    if (stream->options->ack == PEN_ACK_SPOOLED) {
        if (!stream->resume.spool_found) {
            pen_spooling_begin(parts->spooling, stream->resume.reported_lsn);
        }
        start = pen_spooling_received(parts->spooling);
        pen_cell_init(&stream->spool_start_lsn, stream->resume.spool_found
                                                    ? stream->resume.spool_start_lsn
                                                    : stream->resume.reported_lsn);
    } else {
        drop_left_spool(run, parts);
    }
    bool found;
    if (stream->options->streaming != PEN_STREAMING_OFF && parts->spool == NULL &&
        !open_spool(run, header, false, &parts->streamed, &found, err)) {
        return false;
    }
    if (!open_capture(run, header, err) ||
        !pen_replication_start(parts->rep, start, stream->format.binary, err)) {
        return false;
    }
    parts->capture = run->capture;
    parts->reported = stream->options->ack == PEN_ACK_SPOOLED ? stream->resume.confirmed_lsn
                                                              : stream->resume.reported_lsn;
    run->reader = pen_reader_create(stream, parts);
    return true;
}

void pen_receiver_close(pen_reader_parts *parts)
{
    pen_spooling_destroy(parts->spooling);
    pen_spool_close(parts->spool, false);
    pen_spool_close(parts->streamed, true);
    pen_replication_close(parts->rep);
}

/* Where a spool begins that is not there yet. */
static bool begin_spool(pen_run *run, pen_reader_parts *parts, pen_lsn recorded, pen_error *err)
{
    pen_resume *resume = &run->stream->resume;
    if (resume->spool_found) {
        return true;
    }
    if (recorded == PEN_LSN_NONE) {
        return pen_error_set(err, PEN_ERROR_RETRY, "the spool in %s holds nothing to go on with",
                             run->stream->options->dir);
    }
    pen_spooling_begin(parts->spooling, recorded);
    resume->spool_start_lsn = recorded;
    return true;
}

bool pen_receiver_begin(pen_run *run, const pen_spool_header *there, pen_lsn recorded,
                        pen_error *err)
{
    pen_stream *stream = run->stream;
    const pen_options *options = stream->options;
    pen_resume was = stream->resume;
    pen_reader_parts parts = {.capture = NULL};
    was.identity.system_identifier = there->system_identifier;
    was.identity.timeline = there->timeline;
    snprintf(was.identity.database, sizeof(was.identity.database), "%s", there->database);
    if (!pen_receiver_open(run, there->encoding, &parts, err) ||
        !begin_spool(run, &parts, recorded, err) ||
        !pen_slot_check_server(run->source, &stream->resume.wal_sender_timeout_ms, err) ||
        !pen_resume_rejoin(&was, options, run->source, &stream->resume.identity,
                           pen_spooling_received(parts.spooling), &parts.reported, err) ||
        !open_capture(run, &run->header, err) ||
        !pen_replication_start(parts.rep, pen_spooling_received(parts.spooling), run->header.binary,
                               err)) {
        pen_receiver_close(&parts);
        return false;
    }
    pen_receiver_set_intervals(stream);
    pen_cell_init(&stream->spool_start_lsn, stream->resume.spool_start_lsn);
    parts.capture = run->capture;
    run->reader = pen_reader_create(stream, &parts);
    return pen_thread_start(&stream->reader_thread, PEN_ROLE_READER, "reader", pen_reader_run,
                            run->reader, err);
}

bool pen_receiver_begin_early(pen_run *run, pen_error *err)
{
    const pen_options *options = run->stream->options;
    pen_spool_header there;
    if (run->reader != NULL || run->source == NULL || options->ack != PEN_ACK_SPOOLED ||
        !pen_spool_peek(pen_statedir_spool(run->statedir), "stream", &there)) {
        return true;
    }
    if (!pen_receiver_begin(run, &there, PEN_LSN_NONE, err)) {
        pen_log(PEN_LOG_WARN, "%s; nothing is received while the target is away", err->text);
        return err->kind == PEN_ERROR_RETRY;
    }
    pen_log(PEN_LOG_INFO, "while the target is away the stream is received into the spool");
    return true;
}

bool pen_receiver_join(pen_run *run, pen_pgconn *control, pen_error *err)
{
    pen_stream *stream = run->stream;
    const pen_options *options = stream->options;
    const char *encoding = pen_pgconn_parameter(control, "server_encoding");
    if (run->source == NULL) {
        pen_error_set(err, PEN_ERROR_RETRY,
                      "the target is there, but now the source is away, and both are needed once "
                      "at a start");
        err->was_there = true;
        return false;
    }
    if (strcmp(encoding, run->header.encoding) != 0) {
        return pen_error_set(err, PEN_ERROR_FATAL,
                             "the spool in %s is in the encoding %s, but the target has %s: "
                             "--target is another database than before. Point it back",
                             options->dir, run->header.encoding, encoding);
    }
    return pen_format_decide(&stream->format, options, run->source, control, err);
}
