/* Purpose: a target connection in libpq's pipeline mode, with bounded bytes in flight and every
 *          result looked at.
 * Thread:  one worker.
 * Owns:    the connection, and the list of what was sent and is not yet answered.
 * Flow:    prepared statements with their parameters out; row counts checked as results come back.
 *          The first failure is kept, with the subject of the statement that caused it: in a
 *          pipeline without Sync everything behind a failure is skipped by the server, so nothing
 *          runs out of order.
 *
 * Why it cannot deadlock: sending never waits for the socket alone. While bytes are left to send,
 * results are taken in as well, so the server is never stuck writing to us while we are stuck
 * writing to it. */
#ifndef PEN_IO_PIPELINE_H
#define PEN_IO_PIPELINE_H

#include "core/metrics.h"
#include "core/sync.h"
#include "core/thread.h"
#include "io/pgconn.h"

typedef struct pen_pipeline pen_pipeline;

#define PEN_ROWS_ANY         (-1) /* the statement guards itself, or its count does not matter */
#define PEN_ROWS_AT_MOST_ONE (-2)
#define PEN_ROWS_COMMIT      (-3) /* a COMMIT: its tag must say that it was none of a ROLLBACK */

/* Whether a session has a prepared statement: a preparation that the server skipped, because
 * something before it had failed, is none; one in a transaction that was rolled back stays. */
typedef enum pen_prepared {
    PEN_PREPARED_NO,
    PEN_PREPARED_SENT, /* not answered yet */
    PEN_PREPARED_YES
} pen_prepared;

/* Whose thread waits for the server, and what for besides. */
typedef struct pen_pipeline_owner {
    pen_parker *parker;   /* is listened to while it waits: */
    const pen_cell *stop; /* when this reaches */
    uint64_t stop_at;     /* waiting ends with an error of kind PEN_ERROR_NONE */
    pen_metric wait;      /* what the wait is counted as */
} pen_pipeline_owner;

/* Takes `conn`, also when it fails, and puts it into pipeline mode. What `owner` has is borrowed.
 */
PEN_MUST_CHECK bool pen_pipeline_open(pen_pgconn *conn, const pen_pipeline_owner *owner,
                                      pen_pipeline **pipeline, pen_error *err);
void pen_pipeline_close(pen_pipeline *pipeline); /* NULL is nothing */

/* Queues the preparation of a statement, and its execution. `subject` is given back by
 * pen_pipeline_failed when this one fails. *prepared (NULL: nobody wants to know) follows what the
 * server answers, and must live until then. `expected_rows` is compared with the command's tag when
 * the result comes. Both may send and take in results when more than the bound is in flight.
 * Parameters are text (format 0) or binary (1); they are copied. */
PEN_MUST_CHECK bool pen_pipeline_prepare(pen_pipeline *pipeline, const char *name, const char *sql,
                                         const void *subject, pen_prepared *prepared,
                                         pen_error *err);
/* The same, telling the types (OIDs) of the first `type_count` parameters, of which the server
 * infers those that are 0. */
PEN_MUST_CHECK bool pen_pipeline_prepare_typed(pen_pipeline *pipeline, const char *name,
                                               const char *sql, uint32_t type_count,
                                               const uint32_t *types, const void *subject,
                                               pen_prepared *prepared, pen_error *err);
PEN_MUST_CHECK bool pen_pipeline_execute(pen_pipeline *pipeline, const char *name, int value_count,
                                         const char *const *values, const int *lengths,
                                         const int *formats, int64_t expected_rows,
                                         const void *subject, pen_error *err);

/* Sends all that is queued and waits until every result is in and was right. `sync` ends the group:
 * the server commits what an implicit transaction holds, and after a failure starts executing
 * again. */
PEN_MUST_CHECK bool pen_pipeline_drain(pen_pipeline *pipeline, bool sync, pen_error *err);

/* After a function above returned false: true when it was a statement that failed, or changed a
 * wrong number of rows; then the connection can go on, once it was reset. False: it is lost, or the
 * wait was stopped. */
bool pen_pipeline_can_reset(const pen_pipeline *pipeline);
/* What the failed statement was about, or NULL. */
const void *pen_pipeline_failed(const pen_pipeline *pipeline);
/* How many rows it changed, when that was the failure, else -1. */
int64_t pen_pipeline_failed_rows(const pen_pipeline *pipeline);
/* Leaves the failure behind: ends the group that it was in, and lets go what was sent in it. An
 * open transaction stays open, and after an error of the server it can only be rolled back, whole
 * or to a savepoint. Everything that was queued runs, or was skipped: so nothing may be queued
 * behind a count that matters before that was looked at. */
PEN_MUST_CHECK bool pen_pipeline_reset(pen_pipeline *pipeline, pen_error *err);

#ifdef PEN_KILL_POINTS
/* Sends all that is queued, and waits until it has gone: for a process that dies right after. */
void pen_pipeline_push(pen_pipeline *pipeline, bool sync);
#endif

#endif
