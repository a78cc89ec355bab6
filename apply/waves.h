/* Purpose: which changes of a batch go to the target together, and what is worth waiting for in
 *          between.
 * Thread:  any; nothing is kept.
 * Owns:    nothing.
 * Flow:    the bounds of a batch's changes in; the batch whose commit the next wave waits for out.
 *
 * What is bound to batches that have committed goes out at once. The rest goes out at the batch's
 * turn, or, where rows take the target long, in further waves before it. */
#ifndef PEN_APPLY_WAVES_H
#define PEN_APPLY_WAVES_H

#include "apply/filling.h"

/* A batch whose turn has come and that has at most so many changes goes out in one flight, all of
 * it guarding itself: one round trip. Above, the guards' own cost is more than the trip. */
#define PEN_ONE_FLIGHT_CHANGES PEN_FILLING_QUICK_ROWS

/* With fewer changes there is nothing to be planned. */
#define PEN_PLANNED_CHANGES 8

/* What must be gained by a wave between the first one and the turn. */
#define PEN_WORTH_A_WAVE_US 5000

/* The changes of a batch that are bound to one of these batches, both included, in source order.
 * Waves go out with rising bounds, so that no two changes of one key change places
 * (core/conflict.c). */
typedef struct pen_wave {
    uint64_t from;
    uint64_t to;
} pen_wave;

/* From how many changes on a wave is worth its round trip. */
uint64_t pen_waves_worth(const pen_filling *filling);

/* True when batch `number`, of so many changes, may have a wave worth `worth` before its turn.
 * `from`: what is bound to an earlier batch is on the target. */
bool pen_waves_may_be(uint64_t number, uint64_t change_count, uint64_t from, uint64_t worth);

/* The batch that is worth waiting for before the turn, because then `worth` changes may go out: 0
 * for none. counts[i]: how many changes are bound to batch `from` + i, up to the batch before the
 * one before batch `number`; those bound to the one before it go out at its turn. */
uint64_t pen_waves_next(const uint32_t *counts, uint64_t number, uint64_t from, uint64_t worth);

#endif
