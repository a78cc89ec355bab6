#include "io/replication.h"

#include "core/thread.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pen_replication {
    pen_pgconn *conn;
    char *slot;
    char *publication;
    bool streaming;
    uint8_t *payload; /* the CopyData that the last event borrows from */
};

/* Everything that a type's output function looks at, so that the same value is always the same
 * text, on both sides and in every session. */
static const char *const stream_settings =
    "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; "
    "SET extra_float_digits = 3; SET bytea_output = 'hex'; SET lc_monetary = 'C'; "
    "SET search_path = ''; SET statement_timeout = 0; SET lock_timeout = 0; "
    "SET idle_in_transaction_session_timeout = 0";

/* Lets the source send of what is in progress earlier than it is set to. What the user has put into
 * the connection string's options, and whatever is earlier still, stands. */
static bool limit_decoding(pen_pgconn *conn, unsigned kb, pen_error *err)
{
    char command[256];
    snprintf(command, sizeof(command),
             "SELECT set_config(name, '%ukB', false) FROM pg_settings "
             "WHERE name = 'logical_decoding_work_mem' AND setting::bigint > %u "
             "AND source <> 'client'",
             kb, kb);
    return pen_pgconn_exec(conn, "set up the stream", command, 0, NULL, NULL, err);
}

static bool identify(pen_pgconn *conn, pen_source_identity *identity, pen_error *err)
{
    pen_pgresult *res = NULL;
    if (!pen_pgconn_exec(conn, "ask which server this is", "IDENTIFY_SYSTEM", 0, NULL, &res, err)) {
        return false;
    }
    /* By name: AlloyDB returns other columns beside these. */
    const char *system = pen_pgresult_named(res, 0, "systemid");
    const char *timeline = pen_pgresult_named(res, 0, "timeline");
    const char *database = pen_pgresult_named(res, 0, "dbname");
    bool ok = system != NULL && timeline != NULL && database != NULL;
    if (ok) {
        identity->system_identifier = strtoull(system, NULL, 10);
        identity->timeline = (uint32_t)strtoul(timeline, NULL, 10);
        snprintf(identity->database, sizeof(identity->database), "%s", database);
    } else {
        pen_error_set(err, PEN_ERROR_FATAL,
                      "source: IDENTIFY_SYSTEM gave no system identifier, timeline or database; "
                      "connect directly to a PostgreSQL server, not to a pooler");
    }
    pen_pgresult_clear(res);
    return ok;
}

bool pen_replication_open(const pen_replication_options *options, pen_replication **rep,
                          pen_source_identity *identity, pen_error *err)
{
    *rep = NULL;
    pen_replication *made = pen_calloc(1, sizeof(*made));
    made->slot = pen_strdup(options->slot);
    made->publication = pen_strdup(options->publication);
    made->streaming = options->streaming;
    const pen_pgconn_options connect = {
        .conninfo = options->conninfo,
        .side = "source",
        .application_name = options->application_name,
        .replication = true,
        .setup = stream_settings,
    };
    char rest[192];
    bool ok = pen_pgconn_open(&connect, &made->conn, err);
    if (ok) {
        /* The walsender decodes each transaction inside one of its own. */
        bool has_timeout = pen_pgconn_server_version(made->conn) >= 170000;
        snprintf(rest, sizeof(rest), "SET client_encoding = '%s'%s", options->client_encoding,
                 has_timeout ? "; SET transaction_timeout = 0" : "");
        ok = pen_pgconn_exec(made->conn, "set up the stream", rest, 0, NULL, NULL, err) &&
             (options->setup == NULL || pen_pgconn_exec(made->conn, "set up the stream",
                                                        options->setup, 0, NULL, NULL, err)) &&
             (!options->streaming || options->decoding_kb == 0 ||
              limit_decoding(made->conn, options->decoding_kb, err)) &&
             identify(made->conn, identity, err);
    }
    if (!ok) {
        pen_replication_close(made);
        return false;
    }
    *rep = made;
    return true;
}

/* Doubles each `quote` in `text` and puts it around: the replication grammar's identifiers and the
 * names inside publication_names follow this rule, for which libpq's functions would add escapes
 * that the walsender's parser does not know. Gives memory that free() takes. */
static char *quote_with(const char *text, char quote)
{
    char *quoted = pen_malloc(2 * strlen(text) + 3);
    char *out = quoted;
    *out++ = quote;
    for (; *text != '\0'; text++) {
        if (*text == quote) {
            *out++ = quote;
        }
        *out++ = *text;
    }
    *out++ = quote;
    *out = '\0';
    return quoted;
}

bool pen_replication_create_slot(pen_replication *rep, pen_lsn *lsn, char *snapshot, size_t size,
                                 pen_error *err)
{
    char *slot = quote_with(rep->slot, '"');
    char command[256];
    pen_pgresult *res = NULL;
    /* The form that servers since 14 understand. */
    snprintf(command, sizeof(command),
             "CREATE_REPLICATION_SLOT %s LOGICAL pgoutput EXPORT_SNAPSHOT", slot);
    free(slot);
    if (!pen_pgconn_exec(rep->conn, "create the replication slot", command, 0, NULL, &res, err)) {
        if (strcmp(err->sqlstate, "42501") == 0) {
            pen_error_context(
                err, "this user lacks the right to replicate; run ALTER ROLE … REPLICATION "
                     "on the source (on RDS: GRANT rds_replication)");
        }
        return false;
    }
    const char *at = pen_pgresult_named(res, 0, "consistent_point");
    const char *name = pen_pgresult_named(res, 0, "snapshot_name");
    bool ok = at != NULL && name != NULL && pen_lsn_parse(at, lsn);
    if (ok) {
        snprintf(snapshot, size, "%s", name);
    }
    pen_pgresult_clear(res);
    return ok || pen_error_set(err, PEN_ERROR_FATAL,
                               "source: the new slot came without a position or a snapshot; "
                               "connect directly to a PostgreSQL server, not to a pooler");
}

bool pen_replication_start(pen_replication *rep, pen_lsn start, bool binary, pen_error *err)
{
    char *slot = quote_with(rep->slot, '"');
    char *name = quote_with(rep->publication, '"');
    char *names = quote_with(name, '\'');
    char command[512];
    const char *streaming = !rep->streaming                      ? ""
                            : pen_replication_abort_has_lsn(rep) ? ", streaming 'parallel'"
                                                                 : ", streaming 'on'";
    snprintf(command, sizeof(command),
             "START_REPLICATION SLOT %s LOGICAL " PEN_LSN_FMT
             " (proto_version '%u', publication_names %s, messages 'true'%s%s)",
             slot, PEN_LSN_ARGS(start), pen_replication_protocol(rep), names,
             binary ? ", binary 'true'" : "", streaming);
    free(slot);
    free(name);
    free(names);
    pen_pgresult *res = NULL;
    if (!pen_pgconn_exec(rep->conn, "start the stream", command, 0, NULL, &res, err)) {
        return false;
    }
    bool ok = pen_pgresult_status(res) == PEN_RESULT_COPY_BOTH;
    pen_pgresult_clear(res);
    if (!ok) {
        return pen_error_set(err, PEN_ERROR_FATAL,
                             "source: START_REPLICATION was not answered by a stream; connect "
                             "directly to a PostgreSQL server, not to a pooler");
    }
    return pen_pgconn_set_nonblocking(rep->conn, err);
}

void pen_replication_close(pen_replication *rep)
{
    if (rep != NULL) {
        pen_pgconn_copy_free(rep->payload);
        pen_pgconn_close(rep->conn);
        free(rep->slot);
        free(rep->publication);
        free(rep);
    }
}

int pen_replication_server_version(const pen_replication *rep)
{
    return pen_pgconn_server_version(rep->conn);
}

unsigned pen_replication_protocol(const pen_replication *rep)
{
    return !rep->streaming ? 1 : pen_replication_abort_has_lsn(rep) ? 4 : 2;
}

bool pen_replication_abort_has_lsn(const pen_replication *rep)
{
    return rep->streaming && pen_replication_server_version(rep) >= 160000;
}

int pen_replication_socket(const pen_replication *rep)
{
    return pen_pgconn_socket(rep->conn);
}

static bool read_payload(pen_slice payload, pen_event *event, pen_error *err)
{
    pen_cursor cur = pen_cursor_over(payload);
    uint8_t type = pen_cursor_u8(&cur);
    switch (type) {
    case 'w':
        event->kind = PEN_EVENT_DATA;
        (void)pen_cursor_u64(
            &cur); /* start of the message's WAL: the same as its end for a plugin */
        event->wal_end = pen_cursor_u64(&cur);
        event->sent = (pen_pgtime)pen_cursor_u64(&cur);
        event->data = pen_cursor_bytes(&cur, pen_cursor_left(&cur));
        break;
    case 'k':
        event->kind = PEN_EVENT_KEEPALIVE;
        event->wal_end = pen_cursor_u64(&cur);
        event->sent = (pen_pgtime)pen_cursor_u64(&cur);
        event->reply_requested = pen_cursor_u8(&cur) != 0;
        break;
    default:
        return pen_error_set(err, PEN_ERROR_FATAL,
                             "source: the stream carries a message of type 0x%02x, which the "
                             "replication protocol does not have",
                             type);
    }
    if (!pen_cursor_done(&cur)) {
        return pen_error_set(err, PEN_ERROR_FATAL,
                             "source: a message of type '%c' in the stream has a wrong length of "
                             "%zu bytes",
                             type, payload.len);
    }
    return true;
}

/* The stream ended: says why, in the server's words where it gave some. */
static bool end_of_stream(pen_replication *rep, pen_event *event, pen_error *err)
{
    event->kind = PEN_EVENT_END;
    pen_pgresult *res = pen_pgconn_next(rep->conn);
    bool ok = res == NULL || pen_pgresult_status(res) != PEN_RESULT_ERROR ||
              pen_pgresult_error(res, "read the stream", err);
    pen_pgresult_clear(res);
    return ok || pen_error_context(err, "source");
}

bool pen_replication_receive(pen_replication *rep, pen_error *err)
{
    return pen_pgconn_consume(rep->conn, err);
}

pen_spool_record pen_event_record(const pen_event *event)
{
    bool keepalive = event->kind == PEN_EVENT_KEEPALIVE;
    return (pen_spool_record){.kind = keepalive ? PEN_SPOOL_KEEPALIVE : PEN_SPOOL_MESSAGE,
                              .wal_end = event->wal_end,
                              .sent = event->sent,
                              .payload = keepalive ? (pen_slice){0} : event->data};
}

bool pen_replication_poll(pen_replication *rep, bool receive, pen_event *event, pen_error *err)
{
    memset(event, 0, sizeof(*event));
    pen_pgconn_copy_free(rep->payload);
    rep->payload = NULL;
    if (receive && !pen_pgconn_consume(rep->conn, err)) {
        return false;
    }
    size_t size = 0;
    switch (pen_pgconn_copy_get(rep->conn, &rep->payload, &size, err)) {
    case PEN_COPY_DATA:
        return read_payload((pen_slice){rep->payload, size}, event, err);
    case PEN_COPY_NOTHING:
        event->kind = PEN_EVENT_NOTHING;
        return true;
    case PEN_COPY_END:
        return end_of_stream(rep, event, err);
    case PEN_COPY_FAILED:
    default:
        return false;
    }
}

static void put_u64(uint8_t *at, uint64_t value)
{
    for (int i = 0; i < 8; i++) {
        at[i] = (uint8_t)(value >> (56 - 8 * i));
    }
}

bool pen_replication_status(pen_replication *rep, pen_lsn received, pen_lsn flushed, bool ask_reply,
                            pen_error *err)
{
    uint8_t status[34];
    status[0] = 'r';
    put_u64(status + 1, received);
    put_u64(status + 9, flushed);
    put_u64(status + 17, flushed); /* applied: shown in pg_stat_replication, trusted by nobody */
    put_u64(status + 25, (uint64_t)pen_pgtime_now());
    status[33] = ask_reply;
    return pen_pgconn_copy_put(rep->conn, status, sizeof(status), err);
}

bool pen_replication_flush(pen_replication *rep, bool *pending, pen_error *err)
{
    return pen_pgconn_flush(rep->conn, pending, err);
}

void pen_replication_finish(pen_replication *rep, int timeout_ms)
{
    pen_error ignored;
    bool pending = true;
    int64_t deadline_us = pen_now_us() + (int64_t)timeout_ms * 1000;
    if (!pen_pgconn_copy_end(rep->conn, &ignored)) {
        return;
    }
    bool receive = false;
    int64_t left_ms = timeout_ms;
    while (left_ms > 0) {
        pen_event event;
        if (pending && !pen_pgconn_flush(rep->conn, &pending, &ignored)) {
            return;
        }
        /* What libpq has taken in already comes first: taking in more for each message would move
         * all of it each time. */
        if (!pen_replication_poll(rep, receive, &event, &ignored) || event.kind == PEN_EVENT_END) {
            return;
        }
        left_ms = (deadline_us - pen_now_us()) / 1000;
        if (event.kind == PEN_EVENT_NOTHING && receive && left_ms > 0) {
            struct pollfd fd = {.fd = pen_pgconn_socket(rep->conn),
                                .events = (short)(POLLIN | (pending ? POLLOUT : 0))};
            (void)poll(&fd, 1, (int)left_ms);
        }
        receive = event.kind == PEN_EVENT_NOTHING;
    }
}
