/* Purpose: the streaming replication protocol: XLogData and keepalives in, status out.
 * Thread:  the reader.
 * Owns:    the replication connection.
 * Flow:    CopyData of the walsender in; one event at a time out, its bytes still undecoded.
 * Source:  PostgreSQL, "Streaming Replication Protocol". */
#ifndef PEN_IO_REPLICATION_H
#define PEN_IO_REPLICATION_H

#include "core/error.h"
#include "core/slice.h"
#include "core/spool_format.h"
#include "io/pgconn.h"

typedef struct pen_replication pen_replication;

/* What IDENTIFY_SYSTEM says: which server this is. */
typedef struct pen_source_identity {
    uint64_t system_identifier;
    uint32_t timeline;
    char database[64];
} pen_source_identity;

typedef struct pen_replication_options {
    const char *conninfo;
    const char *application_name;
    const char *slot;
    const char *publication;
    const char *client_encoding; /* the target's server encoding */
    const char *setup;           /* SQL to run before the stream, or NULL */
    bool streaming;              /* large transactions come while they are in progress */
    unsigned decoding_kb; /* with `streaming`: the source sends of the largest once all in progress
                             take so much of its memory, unless conninfo's options say how
                             much; 0: when its own setting says */
} pen_replication_options;

/* Connects as a walsender's client and asks who the server is. */
PEN_MUST_CHECK bool pen_replication_open(const pen_replication_options *options,
                                         pen_replication **rep, pen_source_identity *identity,
                                         pen_error *err);
/* Makes the slot; *lsn is where its stream begins. `snapshot` receives the name of the snapshot of
 * that very moment, which lives until the next command on this connection. Waits for the
 * transactions that are open on the source. */
PEN_MUST_CHECK bool pen_replication_create_slot(pen_replication *rep, pen_lsn *lsn, char *snapshot,
                                                size_t size, pen_error *err);
/* Starts the stream at `start` or the slot's confirmed position, whichever is later, with rows in
 * `binary` (of a type that has no binary form still as text) or as text; the connection is then
 * non-blocking. */
PEN_MUST_CHECK bool pen_replication_start(pen_replication *rep, pen_lsn start, bool binary,
                                          pen_error *err);
void pen_replication_close(pen_replication *rep); /* NULL is nothing */

/* The source's version, such as 160004, and pgoutput's protocol version that is asked of it: the
 * lowest that has what is wanted. 1 without streaming; 2 with it, and 4 from PostgreSQL 16 on, with
 * which the source also tells where a transaction was rolled back. */
int pen_replication_server_version(const pen_replication *rep);
unsigned pen_replication_protocol(const pen_replication *rep);
/* See pen_message_context. */
bool pen_replication_abort_has_lsn(const pen_replication *rep);

int pen_replication_socket(const pen_replication *rep);

typedef enum pen_event_kind {
    PEN_EVENT_NOTHING, /* nothing is there now: wait for the socket */
    PEN_EVENT_DATA,    /* one message of the output plugin */
    PEN_EVENT_KEEPALIVE,
    PEN_EVENT_END /* the server ended the stream */
} pen_event_kind;

typedef struct pen_event {
    pen_event_kind kind;
    pen_slice data;       /* DATA: borrowed until the next poll */
    pen_lsn wal_end;      /* the source's position as told */
    pen_pgtime sent;      /* the source's clock when it sent this */
    bool reply_requested; /* KEEPALIVE: it wants a status at once */
} pen_event;

/* A message or keepalive as spool and capture keep it; its payload is borrowed from `event`. */
pen_spool_record pen_event_record(const pen_event *event);

/* Takes in what the socket has, for later polls; never waits. */
PEN_MUST_CHECK bool pen_replication_receive(pen_replication *rep, pen_error *err);
/* Takes in what the socket has (when `receive`) and gives the next event; never waits. */
PEN_MUST_CHECK bool pen_replication_poll(pen_replication *rep, bool receive, pen_event *event,
                                         pen_error *err);

/* Queues a status: everything before `received` has arrived, everything before `flushed` is durable
 * on the target and may be forgotten by the source. `ask_reply` asks for a keepalive at once. */
PEN_MUST_CHECK bool pen_replication_status(pen_replication *rep, pen_lsn received, pen_lsn flushed,
                                           bool ask_reply, pen_error *err);
/* Sends what is queued; *pending: the socket did not take all, wait until it is writable. */
PEN_MUST_CHECK bool pen_replication_flush(pen_replication *rep, bool *pending, pen_error *err);

/* Ends the stream in order: says that we are done, and takes in and drops what the server still
 * sends until it agrees, for at most `timeout_ms`. A failure here costs nothing: positions are
 * safe. */
void pen_replication_finish(pen_replication *rep, int timeout_ms);

#endif
