/* Purpose: the eager worker: applies a transaction of the source while that is in progress, in one
 *          transaction of the target, and commits it when its batch's turn has come.
 * Thread:  a thread of its own; other threads call what says so.
 * Owns:    one target connection, and the parts in its ring.
 * Flow:    parts from the dispatcher in; rows on the target out; at the end the word of the worker
 *          that has the batch, with which the progress row and COMMIT go out.
 *
 * What it does is a guess (apply/eager_giving.h says why it is a good one), and nothing depends on
 * it before its COMMIT: whatever goes wrong is rolled back, and the reader then finds it failed.
 * Only what fails after the reader has given the Commit away ends the run; the next one, which
 * begins behind the progress row as ever, does without. */
#ifndef PEN_APPLY_EAGER_H
#define PEN_APPLY_EAGER_H

#include "apply/worker.h"

typedef struct pen_eager_worker pen_eager_worker;

/* Main. Takes `conn`, a session for writing rows, also when it fails. */
PEN_MUST_CHECK bool pen_eager_worker_create(pen_stream *stream, pen_pgconn *conn,
                                            pen_eager_worker **made, pen_error *err);
PEN_MUST_CHECK bool pen_eager_worker_start(pen_eager_worker *eager, pen_error *err);
void pen_eager_worker_join(pen_eager_worker *eager); /* NULL is nothing */
/* After it was joined. Gives back the parts that nobody took. NULL is nothing. */
void pen_eager_worker_destroy(pen_eager_worker *eager);

/* Any thread; NULL is nothing: it is to end, and what it is at ends with its session. */
void pen_eager_worker_end(pen_eager_worker *eager);
/* Any thread: there is something new for it to see. */
void pen_eager_worker_wake(pen_eager_worker *eager);

/* Main: what it sleeps on. */
pen_parker *pen_eager_worker_parker(pen_eager_worker *eager);

/* Dispatcher, with the baton: gives a part, with its relations resolved and `after` set; false, and
 * nothing taken, when too many wait. */
PEN_MUST_CHECK bool pen_eager_worker_give(pen_eager_worker *eager, pen_txn *part);

/* The worker that holds `batch`, which is the Commit of such a transaction: waits for its turn, and
 * for the COMMIT. False: it is not on the target; *err says why, and worker->failure what it is
 * about. */
PEN_MUST_CHECK bool pen_eager_commit(pen_worker *worker, pen_batch *batch, pen_error *err);

/* Reader: whether the Commit of what it applies has come, so that all that follows waits for it. */
void pen_eager_worker_await(pen_eager_worker *eager, bool awaited);

/* The watchdog: the session's PID; what the reader has said with pen_eager_worker_await; the batch
 * that it commits, and the number of the transaction that is open, 0 for none; and that it is to
 * let go of that one's locks. */
int pen_eager_worker_pid(const pen_eager_worker *eager);
bool pen_eager_worker_is_awaited(const pen_eager_worker *eager);
uint64_t pen_eager_worker_batch(const pen_eager_worker *eager);
uint64_t pen_eager_worker_open(const pen_eager_worker *eager);
void pen_eager_worker_let_go(pen_eager_worker *eager, uint64_t number);

#endif
