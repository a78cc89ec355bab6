/* Purpose: the dispatcher's part in a large transaction: lets its segments flow to the worker that
 *          has its batch.
 * Thread:  the dispatcher that holds the baton, to the transaction's end.
 * Owns:    a reference on the feed while it flows.
 * Flow:    segments from the reader in, resolved, to the worker out: see core/feed.h. */
#ifndef PEN_APPLY_FEEDING_H
#define PEN_APPLY_FEEDING_H

#include "apply/targets.h"
#include "core/feed.h"

/* The groups of tables that foreign keys tie together in which the newest change that acts on other
 * rows was, 0 for none: one that deletes them, and one that changes them. */
typedef struct pen_cascades {
    uint64_t deletes;
    uint64_t moves;
} pen_cascades;

typedef struct pen_feeding {
    pen_stream *stream;
    pen_targets *targets;
    pen_feed *feed;
    pen_lsn commit_lsn;
    pen_cascades cascades;
} pen_feeding;

/* Before its batch is offered: the worker may be done with `txn` before we are. */
void pen_feeding_begin(pen_feeding *feeding, pen_stream *stream, pen_targets *targets,
                       pen_txn *txn);
/* Once the batch was offered: passes segments on until the transaction ends; *discarded is set
 * where that was not by its Commit. False on a stop, and when a relation does not fit. */
PEN_MUST_CHECK bool pen_feeding_pass(pen_feeding *feeding, bool *discarded, pen_error *err);

/* Resolves the relations of all changes of `seg`, of the transaction that commits at `commit_lsn`.
 */
PEN_MUST_CHECK bool pen_feeding_resolve(pen_targets *targets, const pen_segment *seg,
                                        pen_lsn commit_lsn, pen_error *err);

/* What pen_note_cascade says, of all changes of `first` and the segments behind it. */
void pen_feeding_note_cascades(pen_cascades *cascades, const pen_segment *first);

/* Where foreign keys are enforced on the target too, ON DELETE CASCADE takes the rows that the
 * stream then tells to delete, and what sets columns of the identity, such as ON UPDATE CASCADE of
 * a key's first column, has moved those that it then tells to update. Only for a change behind such
 * a parent's, in the same transaction and among tables that are tied together, that is no conflict.
 * `chg` comes in order, with its target. */
void pen_note_cascade(pen_change *chg, pen_cascades *cascades);

#endif
