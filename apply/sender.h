/* Purpose: what a worker says on its connection: changes, the progress row, and the statements that
 *          begin, end and save its transactions; and what is to be known when one of them failed.
 * Thread:  one worker.
 * Owns:    the pipeline with its connection, and the session's prepared statements.
 * Flow:    changes in; statements into the pipeline out; a failure back, with what it was about. */
#ifndef PEN_APPLY_SENDER_H
#define PEN_APPLY_SENDER_H

#include "apply/plan.h"
#include "apply/statement.h"
#include "core/pgarray.h"
#include "io/pipeline.h"

/* A worker's own statements. */
typedef enum pen_own {
    PEN_OWN_BEGIN,
    PEN_OWN_COMMIT,
    PEN_OWN_ROLLBACK,
    PEN_OWN_DEFER,
    PEN_OWN_PROGRESS,
    PEN_OWN_APPLIED,      /* counts 1 when the progress row is at a given transaction */
    PEN_OWN_SAVE_PART,    /* a part of a large transaction */
    PEN_OWN_RELEASE_PART, /* only together with the next one: see apply/large.c */
    PEN_OWN_BACK_TO_PART,
    PEN_OWN_SAVE_ROW,
    PEN_OWN_RELEASE_ROW,
    PEN_OWN_BACK_TO_ROW,
    PEN_OWN_COUNT,
    PEN_OWN_NONE = PEN_OWN_COUNT
} pen_own;

/* What a failure was about. */
typedef struct pen_failure {
    bool answered;         /* a statement failed, and the session can go on */
    const pen_change *chg; /* the change that failed, or NULL */
    pen_own own;           /* or the statement of ours */
    int64_t rows;          /* how many rows the change changed, when that was it, else -1 */
} pen_failure;

typedef struct pen_sender {
    pen_pipeline *pipeline;
    pen_statements *statements;
    const char *stream_name;
    const char *run_id;
    pen_prepared own[PEN_OWN_COUNT];
    unsigned generation; /* of the prepared statements' names */
    bool deferred;       /* the open transaction checks its deferrable constraints at COMMIT */
    /* parameters of the statement at hand, grown as needed */
    const char **values;
    int *lengths;
    int *formats;
    size_t capacity;
    pen_arrays arrays;
} pen_sender;

/* Takes `conn`, also when it fails: a session for writing rows. Borrows the rest. */
PEN_MUST_CHECK bool pen_sender_init(pen_sender *sender, pen_pgconn *conn,
                                    const pen_pipeline_owner *owner, const char *stream_name,
                                    const char *run_id, pen_error *err);
void pen_sender_deinit(pen_sender *sender);

/* Between two batches: forgets the prepared statements when they have become too many. */
PEN_MUST_CHECK bool pen_sender_tidy(pen_sender *sender, pen_error *err);

PEN_MUST_CHECK bool pen_sender_begin(pen_sender *sender, pen_error *err);
/* One of the statements without parameters. */
PEN_MUST_CHECK bool pen_sender_own(pen_sender *sender, pen_own which, pen_error *err);
/* One change. `subject` is what pen_sender_failure names when it fails: the change itself, or the
 * one that it stands for. `guarded`: it checks its own row count on the server; otherwise its tag
 * is looked at. */
PEN_MUST_CHECK bool pen_sender_change(pen_sender *sender, const pen_change *chg,
                                      const pen_change *subject, bool guarded, pen_error *err);
/* The steps of a plan, in their order; `guarded` as above. */
PEN_MUST_CHECK bool pen_sender_steps(pen_sender *sender, const pen_step *steps, size_t count,
                                     bool guarded, pen_error *err);
/* The changes of `first` and the segments behind it, in order, counted by their tags. */
PEN_MUST_CHECK bool pen_sender_segments(pen_sender *sender, const pen_segment *first,
                                        pen_error *err);
/* Moves the progress row from the transaction before to `txn`, or divides by zero. */
PEN_MUST_CHECK bool pen_sender_progress(pen_sender *sender, const pen_txn *txn,
                                        pen_lsn previous_commit_lsn, pen_error *err);
/* COMMIT, and waits until it is answered. */
PEN_MUST_CHECK bool pen_sender_commit(pen_sender *sender, pen_error *err);
/* See pen_pipeline_drain. */
PEN_MUST_CHECK bool pen_sender_drain(pen_sender *sender, bool sync, pen_error *err);

/* After any of the above failed, before anything else. */
pen_failure pen_sender_failure(const pen_sender *sender);
/* Rolls the transaction back, whether or not something failed, or is open at all. A cancel that
 * meets the ROLLBACK itself does not keep it from happening. */
PEN_MUST_CHECK bool pen_sender_roll_back(pen_sender *sender, pen_error *err);
/* Rolls back to a savepoint (PEN_OWN_BACK_TO_…) that the transaction has; so too. */
PEN_MUST_CHECK bool pen_sender_back_to(pen_sender *sender, pen_own which, pen_error *err);
/* Asks, outside of a transaction, whether the progress row is at `txn`, by this run. */
PEN_MUST_CHECK bool pen_sender_is_applied(pen_sender *sender, const pen_txn *txn, bool *applied,
                                          pen_error *err);

#endif
