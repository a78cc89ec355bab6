#include "core/pgoutput_reading.h"

#include <stdarg.h>
#include <stdio.h>

enum { MESSAGE_TRANSACTIONAL = 1 };

const char *pen_message_kind_name(pen_message_kind kind)
{
    switch (kind) {
    case PEN_MESSAGE_BEGIN:
        return "Begin";
    case PEN_MESSAGE_COMMIT:
        return "Commit";
    case PEN_MESSAGE_ORIGIN:
        return "Origin";
    case PEN_MESSAGE_RELATION:
        return "Relation";
    case PEN_MESSAGE_TYPE:
        return "Type";
    case PEN_MESSAGE_INSERT:
        return "Insert";
    case PEN_MESSAGE_UPDATE:
        return "Update";
    case PEN_MESSAGE_DELETE:
        return "Delete";
    case PEN_MESSAGE_TRUNCATE:
        return "Truncate";
    case PEN_MESSAGE_MESSAGE:
        return "Message";
    case PEN_MESSAGE_STREAM_START:
        return "Stream Start";
    case PEN_MESSAGE_STREAM_STOP:
        return "Stream Stop";
    case PEN_MESSAGE_STREAM_COMMIT:
        return "Stream Commit";
    case PEN_MESSAGE_STREAM_ABORT:
        return "Stream Abort";
    case PEN_MESSAGE_BEGIN_PREPARE:
        return "Begin Prepare";
    case PEN_MESSAGE_PREPARE:
        return "Prepare";
    case PEN_MESSAGE_COMMIT_PREPARED:
        return "Commit Prepared";
    case PEN_MESSAGE_ROLLBACK_PREPARED:
        return "Rollback Prepared";
    case PEN_MESSAGE_STREAM_PREPARE:
        return "Stream Prepare";
    }
    return "unknown";
}

bool pen_reading_malformed(const pen_reading *in, const char *fmt, ...)
{
    char what[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    return pen_error_set(
        in->err, PEN_ERROR_FATAL,
        "malformed %s message from the source (%zu bytes) at offset %zu: %s; check that the source "
        "is a PostgreSQL server that speaks pgoutput, protocol versions 1 to 4, with no proxy that "
        "changes the stream",
        in->bytes.len == 0 ? "empty" : pen_message_kind_name(in->bytes.data[0]), in->bytes.len,
        in->bytes.len - pen_cursor_left(&in->cur), what);
}

bool pen_reading_not_whole(const pen_reading *in)
{
    if (in->cur.failed) {
        return pen_reading_malformed(in, "the message ends early");
    }
    return pen_reading_malformed(in, "%zu bytes are left over", pen_cursor_left(&in->cur));
}

/* The flags of a message for which none are defined yet. */
static bool read_no_flags(pen_reading *in)
{
    uint8_t flags = pen_cursor_u8(&in->cur);
    return flags == 0 || pen_reading_malformed(in, "unknown flags 0x%02X", flags);
}

/* The end of a message about the streamed transaction `xid`, by which its parts are found. */
static bool whole_with_xid(const pen_reading *in, uint32_t xid)
{
    if (!pen_reading_whole(in)) {
        return false;
    }
    return xid != 0 || pen_reading_malformed(in, "it names no transaction");
}

static bool read_begin(pen_reading *in, pen_message *msg)
{
    msg->begin.commit_lsn = pen_cursor_u64(&in->cur);
    msg->begin.commit_time = (pen_pgtime)pen_cursor_u64(&in->cur);
    msg->begin.xid = pen_cursor_u32(&in->cur);
    return pen_reading_whole(in);
}

static bool read_commit(pen_reading *in, pen_message *msg)
{
    if (!read_no_flags(in)) {
        return false;
    }
    msg->commit.commit_lsn = pen_cursor_u64(&in->cur);
    msg->commit.end_lsn = pen_cursor_u64(&in->cur);
    msg->commit.commit_time = (pen_pgtime)pen_cursor_u64(&in->cur);
    return pen_reading_whole(in);
}

static bool read_origin(pen_reading *in, pen_message *msg)
{
    msg->origin.lsn = pen_cursor_u64(&in->cur);
    msg->origin.name = pen_cursor_cstring(&in->cur);
    return pen_reading_whole(in);
}

static bool read_type(pen_reading *in, pen_message *msg)
{
    msg->type.oid = pen_cursor_u32(&in->cur);
    msg->type.schema = pen_reading_schema(pen_cursor_cstring(&in->cur));
    msg->type.name = pen_cursor_cstring(&in->cur);
    return pen_reading_whole(in);
}

static bool read_message(pen_reading *in, pen_message *msg)
{
    uint8_t flags = pen_cursor_u8(&in->cur);
    if ((flags & ~MESSAGE_TRANSACTIONAL) != 0) {
        return pen_reading_malformed(in, "unknown flags 0x%02X", flags);
    }
    msg->message.transactional = (flags & MESSAGE_TRANSACTIONAL) != 0;
    msg->message.lsn = pen_cursor_u64(&in->cur);
    msg->message.prefix = pen_cursor_cstring(&in->cur);
    uint32_t len = pen_cursor_u32(&in->cur);
    msg->message.content = pen_cursor_bytes(&in->cur, len);
    return pen_reading_whole(in);
}

static bool read_stream_start(pen_reading *in, pen_message *msg)
{
    msg->stream_start.xid = pen_cursor_u32(&in->cur);
    uint8_t first = pen_cursor_u8(&in->cur);
    if (first > 1) {
        return pen_reading_malformed(in,
                                     "first block of its transaction: 0x%02X is neither yes "
                                     "nor no",
                                     first);
    }
    msg->stream_start.first = first == 1;
    return whole_with_xid(in, msg->stream_start.xid);
}

static bool read_stream_commit(pen_reading *in, pen_message *msg)
{
    msg->stream_commit.xid = pen_cursor_u32(&in->cur);
    if (!read_no_flags(in)) {
        return false;
    }
    msg->stream_commit.commit_lsn = pen_cursor_u64(&in->cur);
    msg->stream_commit.end_lsn = pen_cursor_u64(&in->cur);
    msg->stream_commit.commit_time = (pen_pgtime)pen_cursor_u64(&in->cur);
    return whole_with_xid(in, msg->stream_commit.xid);
}

static bool read_stream_abort(pen_reading *in, pen_message *msg)
{
    msg->stream_abort.xid = pen_cursor_u32(&in->cur);
    msg->stream_abort.subxid = pen_cursor_u32(&in->cur);
    msg->stream_abort.abort_lsn = PEN_LSN_NONE;
    msg->stream_abort.abort_time = 0;
    if (in->context->abort_has_lsn) {
        msg->stream_abort.abort_lsn = pen_cursor_u64(&in->cur);
        msg->stream_abort.abort_time = (pen_pgtime)pen_cursor_u64(&in->cur);
    }
    return whole_with_xid(in, msg->stream_abort.xid) &&
           whole_with_xid(in, msg->stream_abort.subxid);
}

/* The five of two-phase decoding: alike, but Begin Prepare has no flags and Rollback Prepared two
 * times. */
static bool read_prepared(pen_reading *in, pen_message *msg)
{
    if (msg->kind != PEN_MESSAGE_BEGIN_PREPARE && !read_no_flags(in)) {
        return false;
    }
    msg->prepared.prepare_lsn = pen_cursor_u64(&in->cur);
    msg->prepared.end_lsn = pen_cursor_u64(&in->cur);
    msg->prepared.prepare_time = 0;
    if (msg->kind == PEN_MESSAGE_ROLLBACK_PREPARED) {
        msg->prepared.prepare_time = (pen_pgtime)pen_cursor_u64(&in->cur);
    }
    msg->prepared.time = (pen_pgtime)pen_cursor_u64(&in->cur);
    msg->prepared.xid = pen_cursor_u32(&in->cur);
    msg->prepared.gid = pen_cursor_cstring(&in->cur);
    return pen_reading_whole(in);
}

bool pen_reading_other(pen_reading *in, pen_message *msg)
{
    switch (msg->kind) {
    case PEN_MESSAGE_BEGIN:
        return read_begin(in, msg);
    case PEN_MESSAGE_COMMIT:
        return read_commit(in, msg);
    case PEN_MESSAGE_ORIGIN:
        return read_origin(in, msg);
    case PEN_MESSAGE_TYPE:
        return read_type(in, msg);
    case PEN_MESSAGE_MESSAGE:
        return read_message(in, msg);
    case PEN_MESSAGE_STREAM_START:
        return read_stream_start(in, msg);
    case PEN_MESSAGE_STREAM_STOP:
        return pen_reading_whole(in);
    case PEN_MESSAGE_STREAM_COMMIT:
        return read_stream_commit(in, msg);
    case PEN_MESSAGE_STREAM_ABORT:
        return read_stream_abort(in, msg);
    case PEN_MESSAGE_BEGIN_PREPARE:
    case PEN_MESSAGE_PREPARE:
    case PEN_MESSAGE_COMMIT_PREPARED:
    case PEN_MESSAGE_ROLLBACK_PREPARED:
    case PEN_MESSAGE_STREAM_PREPARE:
        return read_prepared(in, msg);
    case PEN_MESSAGE_RELATION:
    case PEN_MESSAGE_INSERT:
    case PEN_MESSAGE_UPDATE:
    case PEN_MESSAGE_DELETE:
    case PEN_MESSAGE_TRUNCATE:
        break; /* the caller's */
    }
    return pen_reading_malformed(in, "no message of pgoutput begins with the byte 0x%02X",
                                 in->bytes.data[0]);
}
