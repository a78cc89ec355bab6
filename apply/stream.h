/* Purpose: one stream: everything that one slot's threads share. Read this first.
 * Thread:  main makes and ends it; each field says who writes it.
 * Owns:    all of its parts; nothing of penstock's state is global, so several streams can run at
 *          once.
 * Flow:    reader -> rings -> dispatchers -> open batch -> workers -> target; back from the target
 * by way of the progress thread to the source.
 *
 *   reader        receives, decodes, builds transactions (core/pgoutput, core/assemble)
 *      | dealing: a ring for each dispatcher; a single one that sleeps lends the reader its role
 *   dispatchers   hash keys; then in turn find what each change must wait for, form batches
 *      | handover: one open batch, and whoever is idle takes it
 *   workers       apply a batch as one transaction, commit in batch order
 *      | applied_lsn
 *   progress      makes it durable, then publishes durable_lsn, then writes the checkpoint
 *      | durable_lsn
 *   reader        tells the source what it may forget
 *
 * Deadlocks that could be, and why they cannot:
 * - A worker waits only for earlier batches. An earlier batch is always taken first, because there
 *   is one open batch at a time, and the worker that holds the earliest one waits for nobody.
 * - A dispatcher waits for a full open batch to be taken; a worker takes it as soon as it has
 *   committed what it holds. The other dispatchers wait for the baton, and it has that.
 * - A batch is held to be filled and nothing comes, maybe because the reader waits for memory that
 *   this batch has: when the stream has been dry for some milliseconds it is offered as it is.
 * - A batch is left to the commit before its own: it could not commit sooner, and the worker that
 *   has the one before takes it then, or the run fails.
 * - A batch waits on the target for a lock of a later one, by way of somebody's request perhaps:
 *   the watchdog (apply/watchdog.h) tells the later one to let go.
 * - The eager worker waits for batches that were formed before what it applies, and they for
 * nothing of it but its locks, as above; see apply/eager_giving.h.
 * - The reader waits for memory only while transactions that will give memory back are under way:
 *   with none, it goes beyond the budget rather than wait for itself.
 *
 * When a connection is lost, everything behind it is made anew (apply/run.c): the threads end, what
 * is in flight is dropped, and the stream goes on behind the progress row. With --ack spooled the
 * reader lives through the loss of either side: without a target it goes on receiving, and without
 * a source it goes on giving what the spool holds (apply/regain.h brings that back). */
#ifndef PEN_APPLY_STREAM_H
#define PEN_APPLY_STREAM_H

#include "apply/dealing.h"
#include "apply/fence.h"
#include "apply/filling.h"
#include "apply/format.h"
#include "apply/handover.h"
#include "apply/onconflict.h"
#include "apply/resume.h"
#include "core/metrics.h"
#include "core/options.h"
#include "core/sync.h"
#include "core/thread.h"

#include <pthread.h>

struct pen_worker;
struct pen_eager_worker;

typedef enum pen_stop {
    PEN_STOP_NONE,
    PEN_STOP_DRAIN, /* take nothing more in, finish what is here, make it durable, end */
    PEN_STOP_ABORT  /* drop everything now: something failed, or the operator insists */
} pen_stop;

typedef enum pen_stop_reason {
    PEN_REASON_NONE,
    PEN_REASON_STOP_AT,
    PEN_REASON_CAUGHT_UP,
    PEN_REASON_SIGNAL,
    PEN_REASON_FAILED
} pen_stop_reason;

/* After so many failures of what applies transactions in progress the process does without. */
#define PEN_EAGER_FAILURES 3

/* Somebody else's session on the target that holds the stream up. */
#define PEN_BLOCKER_SIZE 320
typedef struct pen_blocker {
    pthread_mutex_t lock;
    char text[PEN_BLOCKER_SIZE]; /* under the lock; "" for nobody */
} pen_blocker;

typedef struct pen_stream {
    /* set before the threads start, then read-only */
    const pen_options *options;
    pen_resume resume;
    pen_format format;
    pen_fences fences; /* what the copy has brought already; made anew between two runs */
    pen_lsn stop_lsn; /* transactions that commit behind it are not applied; PEN_LSN_NONE: no end */
    int status_interval_ms;
    int silence_limit_ms; /* the reader's: a source that is silent for longer is lost */
    struct pen_worker **workers;
    unsigned worker_count;
    struct pen_eager_worker *eager; /* with --streaming parallel; else NULL */

    /* what the threads count, each in its own; they outlive the threads */
    pen_meter *meters;
    size_t meter_count;

    /* parts */
    pen_budget budget;
    pen_parker main_parker;
    pen_parker reader_parker;
    pen_parker baton_parker; /* of the dispatcher that holds the baton, but for its own ring */
    pen_parker progress_parker;
    pen_thread reader_thread;
    pen_thread progress_thread;

    /* reader writes */
    PEN_ALIGNED pen_cell handed_lsn; /* end of the last transaction given to a dispatcher */
    pen_cell idle_lsn;        /* every commit before it has been handed over or had no changes */
    pen_cell disk_full;       /* 1: nothing is received until the state directory has room */
    pen_cell spool_start_lsn; /* what ends at or before it is not in the spool any more */
    pen_cell spool_end_lsn;   /* what ends at or before it, and behind that, is in it, durably */
    pen_cell spool_bytes;     /* of all spools in the state directory */
    pen_cell received_lsn;    /* everything before it has arrived */
    pen_cell reported_lsn;    /* the source was told that it may forget everything before it */
    pen_cell reader_detached; /* 1: has let go of its intake, after an abort */
    pen_cell reader_done;     /* 1: until main has joined it, whatever is made anew meanwhile */
    pen_error reader_failure; /* before reader_done; PEN_ERROR_NONE: it ended in order */
    pen_error source_failure; /* before source_losses: why it was lost last */
    pen_cell source_losses;   /* how often it went on without its source, with the spool */

    /* reader and dispatchers write */
    pen_dealing dealing;

    /* who holds the baton and workers write */
    pen_handover handover;

    /* workers write, dispatchers read */
    PEN_ALIGNED pen_filling filling;

    /* workers write */
    PEN_ALIGNED pen_cell applied_lsn; /* end of the newest transaction visible on the target */
    pen_cell workers_done;            /* 1: the last worker has ended */
    pen_countdown workers_left;
    pen_conflicts conflicts; /* under its lock */

    /* the eager worker writes, the reader reads */
    PEN_ALIGNED pen_cell eager_failures; /* not made new between two runs */

    /* progress writes */
    PEN_ALIGNED pen_cell durable_lsn; /* everything before it is durable on the target */
    pen_cell progress_done;
    pen_blocker blocker;

    /* main writes */
    PEN_ALIGNED pen_place next_intake; /* pen_intake: for a reader that has none */
    pen_cell reader_end;               /* 1: a reader without an intake ends, in order */
    pen_cell source_lsn;               /* where the source's WAL was flushed to a moment ago */

    /* whoever brings a lost source back writes */
    PEN_ALIGNED pen_place next_source; /* pen_replication: for a reader that has none */

    /* anybody writes, once */
    PEN_ALIGNED pen_cell stop; /* pen_stop */
    pthread_mutex_t failure_lock;
    pen_stop_reason reason; /* under failure_lock */
    pen_error failure;      /* under failure_lock */
} pen_stream;

/* Makes what the threads share. On false nothing is left. */
PEN_MUST_CHECK bool pen_stream_create(const pen_options *options, pen_stream **stream,
                                      pen_error *err);
void pen_stream_destroy(pen_stream *stream); /* NULL is nothing */
/* Between two runs, with no thread but maybe the reader, which has no intake: gives back what is
 * left on the way, and makes all fields of the dispatcher, the workers and the progress thread new.
 */
void pen_stream_reset(pen_stream *stream);

/* For the threads: asks all to drain or abort. The first reason is kept. */
void pen_stream_stop(pen_stream *stream, pen_stop stop, pen_stop_reason reason);
/* For the threads: keeps the first failure, and aborts. An error of kind PEN_ERROR_NONE says only
 * that the thread was told to stop. */
void pen_stream_fail(pen_stream *stream, const pen_error *err);
/* Says behind a final failure what to do next, unless whoever found it knew better. */
void pen_stream_advise(pen_error *err);
/* What was asked for so far. */
pen_stop pen_stream_stopping(const pen_stream *stream);

/* What each thread counts in: the reader, dispatcher and worker `number`, from 0. */
pen_meter *pen_stream_reader_meter(const pen_stream *stream);
pen_meter *pen_stream_dispatcher_meter(const pen_stream *stream, unsigned number);
pen_meter *pen_stream_worker_meter(const pen_stream *stream, unsigned number);
/* The eager worker's; only with --streaming parallel. */
pen_meter *pen_stream_eager_meter(const pen_stream *stream);
/* Any thread: all numbers as they are now. */
void pen_stream_count(const pen_stream *stream, uint64_t sums[PEN_METRIC_COUNT]);

/* Worker's last call. */
void pen_stream_worker_done(pen_stream *stream);

#endif
