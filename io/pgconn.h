/* Purpose: a connection to a PostgreSQL server: the only door to libpq.
 * Thread:  one connection belongs to one thread at a time.
 * Owns:    the connection; results are given to the caller, who clears them.
 * Flow:    SQL, prepared statements and CopyData out; results, CopyData and errors in words back.
 */
#ifndef PEN_IO_PGCONN_H
#define PEN_IO_PGCONN_H

#include "core/error.h"
#include "core/sync.h"
#include "core/thread.h"

typedef struct pen_pgconn pen_pgconn;
typedef struct pen_pgresult pen_pgresult;

typedef struct pen_pgconn_options {
    const char *conninfo;         /* libpq connection string or URI */
    const char *side;             /* "source" or "target", for messages */
    const char *application_name; /* shown in pg_stat_activity */
    bool replication;             /* a walsender that also takes SQL (replication=database) */
    const char *setup;            /* SET commands to run once connected, checked, or NULL */
} pen_pgconn_options;

/* Checks that `conninfo` can be read at all. Errors: PEN_ERROR_CONFIG, with passwords hidden. */
PEN_MUST_CHECK bool pen_pgconn_check_conninfo(const char *conninfo, const char *side,
                                              pen_error *err);

/* Gives `conninfo` as keywords and values without its password, for another program's arguments,
 * and that password, or NULL, for its environment; free() both. Other secrets (sslpassword) are
 * left out. Errors: as pen_pgconn_check_conninfo. */
PEN_MUST_CHECK bool pen_pgconn_split_conninfo(const char *conninfo, const char *side, char **rest,
                                              char **password, pen_error *err);

/* Where a connection string leads, without any secret, as far as the string or libpq's environment
 * says; "" where neither does. Where a service file says it, `host` is "service NAME". */
typedef struct pen_pgplace {
    char host[256];
    char port[64];
    char database[128];
    char user[128];
} pen_pgplace;
void pen_pgconn_place(const char *conninfo, pen_pgplace *place);

/* Connects and runs the setup; waits up to the string's connect_timeout, or 30 s.
 * Errors: PEN_ERROR_CONFIG for a string that cannot be read, else as classified from SQLSTATE and
 * text. */
PEN_MUST_CHECK bool pen_pgconn_open(const pen_pgconn_options *options, pen_pgconn **conn,
                                    pen_error *err);
void pen_pgconn_close(pen_pgconn *conn); /* NULL is nothing */

/* From now on pen_pgconn_exec stops waiting when `stop` reaches `stop_at` (an error of kind
 * PEN_ERROR_NONE; the connection can then only be closed). `parker` is the calling thread's; both
 * are borrowed. */
void pen_pgconn_make_stoppable(pen_pgconn *conn, pen_parker *parker, const pen_cell *stop,
                               uint64_t stop_at);

/* Server version as a number, 150018 for 15.18. */
int pen_pgconn_server_version(const pen_pgconn *conn);
/* A reported parameter ("server_encoding"), borrowed, or NULL. */
const char *pen_pgconn_parameter(const pen_pgconn *conn, const char *name);
int pen_pgconn_socket(const pen_pgconn *conn);

/* Runs one command and waits. `values` are text, NULL for NULL; with no values `sql` may hold
 * several commands. *result is given (may be NULL when the caller wants none). Errors: the server's
 * words, SQLSTATE, classified; `what` names what was tried ("read the slot"). */
PEN_MUST_CHECK bool pen_pgconn_exec(pen_pgconn *conn, const char *what, const char *sql,
                                    int value_count, const char *const *values,
                                    pen_pgresult **result, pen_error *err);

/* A query that is run again and again, which the connection keeps prepared. */
typedef struct pen_pgquery {
    const char *sql; /* a static string, one of few */
    int value_count;
    const char *const *values; /* text, NULL for NULL */
} pen_pgquery;

/* The same for such queries, all of them in one round trip. `results`: as many as `count`; NULL
 * where it fails. */
PEN_MUST_CHECK bool pen_pgconn_exec_again(pen_pgconn *conn, const char *what,
                                          const pen_pgquery *queries, size_t count,
                                          pen_pgresult **results, pen_error *err);

void pen_pgresult_clear(pen_pgresult *result); /* NULL is nothing */
int pen_pgresult_rows(const pen_pgresult *result);
/* NUL-terminated text, borrowed; NULL for NULL. `column` by number or by name; an unknown name
 * gives NULL. */
const char *pen_pgresult_value(const pen_pgresult *result, int row, int column);
const char *pen_pgresult_named(const pen_pgresult *result, int row, const char *column);
/* Rows that the command's tag counts, -1 when it counts none. */
int64_t pen_pgresult_affected(const pen_pgresult *result);
/* The command's tag ("COMMIT"), borrowed. */
const char *pen_pgresult_tag(const pen_pgresult *result);

typedef enum pen_result_status {
    PEN_RESULT_OK,
    PEN_RESULT_SYNC,    /* the answer to pen_pgconn_send_sync */
    PEN_RESULT_SKIPPED, /* not executed: something before it in the pipeline failed */
    PEN_RESULT_COPY_BOTH,
    PEN_RESULT_COPY_IN,
    PEN_RESULT_COPY_OUT,
    PEN_RESULT_ERROR
} pen_result_status;
pen_result_status pen_pgresult_status(const pen_pgresult *result);
/* Makes the error of a failed result: `what` failed: the server's words, on one line. False always.
 */
bool pen_pgresult_error(const pen_pgresult *result, const char *what, pen_error *err);
/* Makes the error of a connection that failed, on one line. False always. */
bool pen_pgconn_error(const pen_pgconn *conn, const char *what, pen_error *err);

/* Non-blocking use. After pen_pgconn_set_nonblocking the send functions only queue; flush sends. */
PEN_MUST_CHECK bool pen_pgconn_set_nonblocking(pen_pgconn *conn, pen_error *err);
/* *pending: bytes are left that the socket did not take. */
PEN_MUST_CHECK bool pen_pgconn_flush(pen_pgconn *conn, bool *pending, pen_error *err);
/* Sends one query and returns; its results come by pen_pgconn_next. */
PEN_MUST_CHECK bool pen_pgconn_send_query(pen_pgconn *conn, const char *what, const char *sql,
                                          pen_error *err);
/* Takes in what the socket has; never waits. */
PEN_MUST_CHECK bool pen_pgconn_consume(pen_pgconn *conn, pen_error *err);
/* True when pen_pgconn_next would have to wait. */
bool pen_pgconn_busy(pen_pgconn *conn);
/* The next result, given; NULL where libpq ends one statement's results. */
pen_pgresult *pen_pgconn_next(pen_pgconn *conn);

/* Pipeline mode (libpq's documentation, "Pipeline Mode"). `types` are the OIDs of the first
 * `type_count` parameters; the server infers those that are 0, and the others. */
PEN_MUST_CHECK bool pen_pgconn_enter_pipeline(pen_pgconn *conn, pen_error *err);
PEN_MUST_CHECK bool pen_pgconn_send_prepare(pen_pgconn *conn, const char *name, const char *sql,
                                            int type_count, const uint32_t *types, pen_error *err);
/* `values` with `lengths` in bytes (used for binary ones only) and `formats` (0 text, 1 binary). */
PEN_MUST_CHECK bool pen_pgconn_send_execute(pen_pgconn *conn, const char *name, int value_count,
                                            const char *const *values, const int *lengths,
                                            const int *formats, pen_error *err);
/* Asks the server to send the results of all so far, without ending the pipeline's transaction. */
PEN_MUST_CHECK bool pen_pgconn_send_flush_request(pen_pgconn *conn, pen_error *err);
PEN_MUST_CHECK bool pen_pgconn_send_sync(pen_pgconn *conn, pen_error *err);

/* CopyBoth mode, for the replication stream, and COPY's two halves. */
typedef enum pen_copy_state {
    PEN_COPY_DATA,
    PEN_COPY_NOTHING, /* nothing is there now */
    PEN_COPY_END,     /* the server ended the stream; results follow */
    PEN_COPY_FAILED
} pen_copy_state;
/* Gives one CopyData payload in *data (pen_pgconn_copy_free). */
PEN_MUST_CHECK pen_copy_state pen_pgconn_copy_get(pen_pgconn *conn, uint8_t **data, size_t *size,
                                                  pen_error *err);
void pen_pgconn_copy_free(uint8_t *data);
/* Takes the next bytes of a COPY's row into `buffer`, at most `room` > 0, and waits where there are
 * none: less than `room` means that the row ends with them. So the row is in memory once, in the
 * connection, which keeps room for its largest (a power of two) until it is closed. For connections
 * that are not non-blocking. */
PEN_MUST_CHECK pen_copy_state pen_pgconn_copy_take(pen_pgconn *conn, uint8_t *buffer, size_t room,
                                                   size_t *size, pen_error *err);
PEN_MUST_CHECK bool pen_pgconn_copy_put(pen_pgconn *conn, const uint8_t *data, size_t size,
                                        pen_error *err);
PEN_MUST_CHECK bool pen_pgconn_copy_end(pen_pgconn *conn, pen_error *err);
/* Behind the data of a COPY, in either direction: waits for the server's last word. *rows is what
 * it counted. `what` names the COPY. Errors: as pen_pgconn_exec's. */
PEN_MUST_CHECK bool pen_pgconn_copy_finish(pen_pgconn *conn, const char *what, int64_t *rows,
                                           pen_error *err);

/* Any thread: asks the server to give up what it executes for `conn`, which must stay open
 * meanwhile. Whether it did shows there. */
void pen_pgconn_cancel(const pen_pgconn *conn);

/* Quoted as an identifier or literal by libpq's own functions; gives memory that free() takes.
 * Aborts only when memory runs out: text that is not in the connection's encoding is an error. */
PEN_MUST_CHECK bool pen_pgconn_quote_identifier(pen_pgconn *conn, const char *text, char **quoted,
                                                pen_error *err);
PEN_MUST_CHECK bool pen_pgconn_quote_literal(pen_pgconn *conn, const char *text, char **quoted,
                                             pen_error *err);

#endif
