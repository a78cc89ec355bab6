/* Purpose: a worker: applies one batch at a time as one target transaction, and commits it in turn.
 * Thread:  pen_worker_run is the worker's thread; init and deinit are main's.
 * Owns:    one target connection in pipeline mode, its prepared statements, and the batch it holds.
 * Flow:    the open batch in; rows and the progress row in one transaction on the target out; then
 *          the next worker in the commit chain is woken, directly. */
#ifndef PEN_APPLY_WORKER_H
#define PEN_APPLY_WORKER_H

#include "apply/statement.h"
#include "apply/stream.h"
#include "io/pipeline.h"

/* Segments of a large transaction that are sent before their results are waited for and their
 * memory is given back. */
#define PEN_FED_AT_ONCE 8

typedef struct pen_worker {
    pen_stream *stream;
    unsigned number; /* from 0 */
    pen_parker parker;
    pen_thread thread;
    pen_pipeline *pipeline;
    pen_statements *statements;
    bool deferred; /* the open transaction checks its deferrable constraints at COMMIT */
    /* segments of a large transaction that were sent and are not settled; a failed change may lie
     * in them */
    pen_segment *sent[PEN_FED_AT_ONCE];
    size_t sent_count;
    /* parameters of the statement at hand, grown as needed */
    const char **values;
    int *lengths;
    int *formats;
    size_t capacity;
    pen_histogram lag; /* source commit to seen committed here, microseconds; the worker writes */
} pen_worker;

/* Takes `conn`, a session for writing rows. The worker must stay where it is, on cache
 * lines of its own. */
PEN_MUST_CHECK bool pen_worker_init(pen_worker *worker, pen_stream *stream, unsigned number,
                                    pen_pgconn *conn, pen_error *err);
void pen_worker_deinit(pen_worker *worker);
void pen_worker_run(void *worker);

#endif
