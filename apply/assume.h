/* Purpose: what a relation version would be on a target that nobody can ask: taken from the source's
 *          Relation message alone.
 * Thread:  any.
 * Owns:    nothing; gives pen_targets.
 * Flow:    a source relation version in, a target descriptor out, for simulations and benches.
 *
 * A real run asks the target's catalogs (apply/catalog.h), and knows more: other unique indexes,
 * foreign keys, triggers, collations. */
#ifndef PEN_APPLY_ASSUME_H
#define PEN_APPLY_ASSUME_H

#include "apply/relation.h"

/* Gives a descriptor (pen_target_destroy) whose only unique index is on the replica identity's
 * columns, all of whose equal values have equal bytes where their type is not known to be another
 * matter. Without an identity, or with all columns as one, there is no index: inserts are free, and
 * updates and deletes of the whole table are kept in order. */
pen_target *pen_target_assume(const pen_relation *rel);

#endif
