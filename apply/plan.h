/* Purpose: plans what a worker sends: many changes of a row become one, and many rows one statement.
 * Thread:  one worker.
 * Owns:    the plan, and what it makes of the changes, until it is begun anew; borrows the changes.
 * Flow:    the changes of one wave in source order in; steps, to be sent in their order, out.
 *
 * Why the steps leave the rows that the source's order would leave, or an error, stands at the top
 * of apply/plan.c. */
#ifndef PEN_APPLY_PLAN_H
#define PEN_APPLY_PLAN_H

#include "apply/relation.h"

/* One statement: of one change, or of several that are of one relation version, one kind, and name
 * the same columns: no two of the same row. */
typedef struct pen_step {
    const pen_change *subject;        /* one of the changes that were added: for messages */
    const pen_change *const *changes; /* each what the added ones come to */
    uint32_t count;
    size_t first; /* of the plan's own: where they begin while the plan is made */
} pen_step;

typedef struct pen_plan pen_plan;

pen_plan *pen_plan_create(void);
void pen_plan_destroy(pen_plan *plan); /* NULL is nothing */

/* Begins anew, for at most about so many changes. */
void pen_plan_begin(pen_plan *plan, uint64_t change_count);
/* Adds `chg`, whose relation is resolved. */
void pen_plan_add(pen_plan *plan, const pen_change *chg);
/* Gives the steps, borrowed until the plan is begun anew. */
const pen_step *pen_plan_finish(pen_plan *plan, size_t *count);
/* All of the above for the changes of `first` and the segments behind it. */
const pen_step *pen_plan_segments(pen_plan *plan, const pen_segment *first, size_t *count);

/* The target refused a step of this change, though row by row it went through, or may: the next
 * changes of the table are not put together, for longer each time. */
void pen_plan_distrust(pen_plan *plan, const pen_change *chg);

#endif
