/* Purpose: what the relation versions of the stream are on the target, found out when they first come.
 * Thread:  the dispatcher that holds the baton, but where a function says any dispatcher.
 * Owns:    the catalog connection and all target descriptors, to the end of the run.
 * Flow:    changes whose relations are not known yet in; their `target` set.
 *
 * Why several dispatchers see the same. A version is *settled* once its descriptor is there and its
 * first change has got its keys: from then on the descriptor is only read. Until then, who holds
 * the baton alone may look at it: it resolves the version, gives its changes their keys, the first
 * of them as the first (`fresh`), and then publishes that it is settled. A dispatcher without the
 * baton gives keys to changes of settled versions only, and leaves the others until it has the
 * baton. As the descriptor of a settled version is the same whoever reads it and whenever, so are
 * the keys; and which change is the first is decided in commit order, because the baton goes in
 * that order.
 *
 * One more thing decides on keys: whether any table so far is a barrier (PEN_SCOPE_ALL), for then
 * every change reads one key more. A transaction whose keys were made before such a table was
 * resolved may come behind it. So with the keys it is kept what was known then, and who dispatches
 * them with the baton compares: where it is not the same any more, they are made again.
 *
 * A worker reads `target` once it holds a batch: its dispatcher had the baton, so all that was
 * resolved for it happened before, and the batch was handed over after. */
#ifndef PEN_APPLY_TARGETS_H
#define PEN_APPLY_TARGETS_H

#include "apply/stream.h"

typedef struct pen_targets pen_targets;

/* Takes `catalog`, a session on the target in autocommit. */
pen_targets *pen_targets_create(pen_stream *stream, pen_pgconn *catalog);
/* After all threads have ended. NULL is nothing. */
void pen_targets_destroy(pen_targets *targets);

/* Sets the target of every relation of `chg` that has none. */
PEN_MUST_CHECK bool pen_targets_resolve(pen_targets *targets, const pen_change *chg,
                                        pen_error *err);
/* The same for all changes of a part of a transaction in progress, which may yet be rolled back:
 * *fits is false where one of them is better left to its Commit, because the target lacks its table
 * or a column, or a trigger there may read anything. Errors: those that are not about the changes.
 */
PEN_MUST_CHECK bool pen_targets_resolve_early(pen_targets *targets, const pen_txn *part, bool *fits,
                                              pen_error *err);
/* The keys of `chg` have been extracted: its versions are settled from now on. */
void pen_targets_settle(const pen_change *chg);

/* Any dispatcher: true when every version of `chg` is settled. */
bool pen_targets_are_settled(const pen_change *chg);
/* Any dispatcher: true when some table so far is a barrier for everything. */
bool pen_targets_have_barriers(const pen_targets *targets);

#endif
