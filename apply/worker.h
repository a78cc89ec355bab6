/* Purpose: a worker: applies one batch at a time as one target transaction, and commits it in turn.
 * Thread:  pen_worker_run is the worker's thread; init and deinit are main's.
 * Owns:    one target connection in pipeline mode, its prepared statements, and the batch it holds.
 * Flow:    the open batch in; rows and the progress row in one transaction on the target out; then
 *          the next worker in the commit chain is woken, directly.
 *
 * What is sent for a batch's changes is planned by apply/plan.c. A large transaction goes by
 * apply/large.c; what fails is applied anew by apply/replay.c, row by row by apply/rows.c, and told
 * by apply/explain.c. */
#ifndef PEN_APPLY_WORKER_H
#define PEN_APPLY_WORKER_H

#include "apply/onconflict.h"
#include "apply/sender.h"
#include "apply/stream.h"

/* Segments of a large transaction that are sent before their results are waited for and their
 * memory is given back. */
#define PEN_FED_AT_ONCE 8

typedef struct pen_worker {
    pen_stream *stream;
    unsigned number; /* from 0 */
    pen_parker parker;
    pen_thread thread;
    int backend_pid; /* set before the thread starts, then read-only */
    int64_t trip_us; /* a round trip to the target, as one took at the start */
    pen_sender sender;
    pen_plan *plan;
    /* of the batch under way */
    const pen_txn *next_txn;     /* the first one that is not on the target */
    pen_lsn previous_commit_lsn; /* what the progress row says before that one */
    pen_failure failure;         /* what failed last */
    pen_conflict_list conflicts; /* that --on-conflict has settled, in the open transaction */
    /* segments of a large transaction that were sent and are not settled; they may be sent again */
    pen_segment *sent_first;
    pen_segment *sent_last;
    size_t sent_count;
    /* replays */
    uint64_t random;         /* for the jitter of waits */
    int64_t retry_logged_us; /* when a line told of one */
    uint64_t retries_untold; /* since then */
} pen_worker;

/* Takes `conn`, a session for writing rows. The worker must stay where it is, on cache
 * lines of its own. One that could not be made is to be deinit'ed like any other. */
PEN_MUST_CHECK bool pen_worker_init(pen_worker *worker, pen_stream *stream, unsigned number,
                                    pen_pgconn *conn, pen_error *err);
void pen_worker_deinit(pen_worker *worker);
void pen_worker_run(void *worker);

/* Main, or who opens the session for it: the PID that the server knows the session by, which a
 * proxy may have told otherwise, and how long the round trip took. */
PEN_MUST_CHECK bool pen_worker_identify(pen_pgconn *conn, int *pid, int64_t *trip_us,
                                        pen_error *err);

/* For the worker's other files. */

/* The worker's thread: whether so many changes are planned, or sent as they come. */
bool pen_worker_plans(const pen_worker *worker, uint64_t change_count);
/* The worker's thread: what was planned has failed with *err, the sender knows where. Where it was
 * the target's word against a change, the changes of that table are not put together for a while.
 */
void pen_worker_distrust(pen_worker *worker, const pen_error *err);
/* The worker's thread: `txn`, the next one, is visible on the target; `change_count` of it. */
void pen_worker_applied(pen_worker *worker, const pen_txn *txn, uint64_t change_count);

#endif
