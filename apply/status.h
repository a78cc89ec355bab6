/* Purpose: the board on which a run notes how it goes, for whoever asks from outside.
 * Thread:  create and destroy are main's; each other function says who may call it. Readers are the
 *          status thread (apply/service.h).
 * Owns:    what was noted, under its lock; borrows the parts of a run that it was shown, until they
 *          are taken away again.
 * Flow:    phases, states and parts of a run in; a report (apply/report.h) of any moment out.
 *
 * The data path does not know it: what the threads count they count anyway (core/metrics.h), and
 * positions are published for each other. Reading them takes no lock of theirs. The board's own
 * lock is held by main for the time of an assignment, and by the reader while it copies numbers, so
 * nobody waits for an outside client by it. Every function takes NULL for the board: then there is
 * none, and nothing is done. */
#ifndef PEN_APPLY_STATUS_H
#define PEN_APPLY_STATUS_H

#include "apply/report.h"
#include "core/options.h"

struct pen_stream;
struct pen_copy_plan;
struct pen_copy_queue;
struct pen_copy_job;
struct pen_index_pool;

typedef struct pen_status pen_status;

/* `command` is a constant, `options` borrowed. */
pen_status *pen_status_create(const pen_options *options, const char *command);
void pen_status_destroy(pen_status *status);

/* Any thread: what is under way from now on; a constant. Says too that it goes well, as far as that
 * is not a stream's business. */
void pen_status_phase(pen_status *status, const char *phase);
/* Any thread: the state, and why; "" or NULL for no reason. */
void pen_status_state(pen_status *status, pen_state state, const char *reason);
/* Main: a lost connection is made anew, for this reason. */
void pen_status_recover(pen_status *status, bool again, const char *reason);

/* Main: the stream's threads have started and can be looked at; or they are about to be taken down,
 * and what it says remains. */
void pen_status_show_stream(pen_status *status, struct pen_stream *stream);
void pen_status_hide_stream(pen_status *status);

/* Main: a round of the copy runs; or is over. */
void pen_status_show_copy(pen_status *status, const struct pen_copy_plan *plan,
                          struct pen_copy_queue *queue, const struct pen_copy_job *jobs,
                          unsigned job_count);
void pen_status_hide_copy(pen_status *status);

/* Any one thread: indexes are being built; NULL: they are not any more. */
void pen_status_show_indexes(pen_status *status, const struct pen_index_pool *pool);

/* Main: the state directory's lock is ours, so the control socket in it may be. */
void pen_status_has_dir(pen_status *status);
/* The status thread: that directory, borrowed; NULL while it is not ours. */
const char *pen_status_dir(pen_status *status);
/* What becomes readable when there is something new for the status thread; any thread wakes. */
int pen_status_wake_fd(const pen_status *status);
void pen_status_wake(const pen_status *status);

/* The status thread: notes the counters of this moment, about once a second, for the rates. */
void pen_status_sample(pen_status *status);
/* The status thread: how it goes now; give it back by pen_report_destroy. */
pen_report *pen_status_look(pen_status *status);

#endif
