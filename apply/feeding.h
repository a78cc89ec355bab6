/* Purpose: the dispatcher's part in a large transaction: lets its segments flow to the worker that
 *          has its batch.
 * Thread:  the dispatcher that holds the baton, to the transaction's end.
 * Owns:    a reference on the feed while it flows.
 * Flow:    segments from the reader in, resolved, to the worker out: see core/feed.h. */
#ifndef PEN_APPLY_FEEDING_H
#define PEN_APPLY_FEEDING_H

#include "apply/targets.h"
#include "core/feed.h"

typedef struct pen_feeding {
    pen_stream *stream;
    pen_targets *targets;
    pen_feed *feed;
    pen_lsn commit_lsn;
    uint64_t cascade_group; /* see pen_note_cascade */
} pen_feeding;

/* Before its batch is offered: the worker may be done with `txn` before we are. */
void pen_feeding_begin(pen_feeding *feeding, pen_stream *stream, pen_targets *targets,
                       pen_txn *txn);
/* Once the batch was offered: passes segments on until the transaction ends. False on a stop, and
 * when a relation does not fit. */
PEN_MUST_CHECK bool pen_feeding_pass(pen_feeding *feeding, pen_error *err);

/* Resolves the relations of all changes of `seg`, of the transaction that commits at `commit_lsn`.
 */
PEN_MUST_CHECK bool pen_feeding_resolve(pen_targets *targets, const pen_segment *seg,
                                        pen_lsn commit_lsn, pen_error *err);

/* Where foreign keys are enforced on the target too, ON DELETE CASCADE takes the rows that the
 * stream then tells to delete. Only for a delete behind such a parent's, in the same transaction
 * and among tables that are tied together, a missing row is no conflict. `group` is that of the
 * newest such parent, 0 for none; `chg` comes in order, with its target. */
void pen_note_cascade(pen_change *chg, uint64_t *group);

#endif
