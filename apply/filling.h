/* Purpose: how far batches are filled: by the limits given, and by how long the target needs for
 *          them.
 * Thread:  each function says which; main makes it before they start.
 * Owns:    nothing.
 * Flow:    from the workers what each batch took; to the dispatchers how large the next one may be.
 *
 * A large batch saves statements, commits and round trips, and by far the most of that is saved at
 * a few hundred rows. Where a row costs the target a millisecond, because its page must be fetched
 * or a trigger does something, such a batch takes seconds, in which the other workers have
 * nothing: then it is many small batches that keep all of them at work. So a batch is to be one of
 * some tenths of a second, whatever that is in rows. */
#ifndef PEN_APPLY_FILLING_H
#define PEN_APPLY_FILLING_H

#include "apply/batch.h"
#include "core/sync.h"

/* What a batch is to take the target. Several times what comes with each batch, be the target some
 * tenths of a second away; little beside how late things are while batches are filled. */
#define PEN_FILLING_AIM_US (200 * 1000)
/* Rows of a batch when nothing is known of the target yet, and however slow it is. */
#define PEN_FILLING_FIRST_ROWS 256
#define PEN_FILLING_LEAST_ROWS 32

/* A batch that the target has done within so long, with so few changes, is not worth what it costs
 * to bring it there before its turn: waits in between, and wakes of three threads. */
#define PEN_FILLING_QUICK_US   1000
#define PEN_FILLING_QUICK_ROWS 64

typedef struct pen_filling {
    pen_batch_limits limits;    /* as given */
    pen_batch_limits near_fill; /* up to where one waits for more, with a target that is near */
    pen_batch_limits far_fill;  /* the same with one that is far away */
    pen_cell row_ns;            /* that a row took the target lately, and 1; 0: not known */
    pen_cell trip_us;           /* a round trip to the target */
} pen_filling;

/* Main. `percent` of `limits` is enough with a target that is near. `memory`: bytes for all that is
 * on the way, of which each of `workers` must be able to have a batch. */
void pen_filling_init(pen_filling *filling, const pen_batch_limits *limits, unsigned percent,
                      uint64_t memory, unsigned workers);

/* Worker: a batch of `rows` changes took the target so long, microseconds, without the wait for its
 * turn, in `trips` round trips of which each takes `trip_us`. */
void pen_filling_learn(pen_filling *filling, uint64_t rows, int64_t took_us, unsigned trips,
                       int64_t trip_us);

/* Any thread: how many rows take the target so long; 0 while nothing is known. */
uint64_t pen_filling_rows_in(const pen_filling *filling, uint64_t time_us);

/* Dispatcher: true for a batch that takes the target so little that it may begin when the one
 * before has committed, rather than beside that: it is sent in one flight then, without a wait for
 * its turn in between, and what comes meanwhile travels with it. False while nothing is known. */
bool pen_filling_is_quick(const pen_filling *filling, const pen_batch *batch);

/* Dispatcher: how far a batch may grow while no worker is idle. */
pen_batch_limits pen_filling_most(const pen_filling *filling);
/* Dispatcher: from where on a worker that is done may take a batch that is held to be filled. */
pen_batch_limits pen_filling_enough(const pen_filling *filling);
/* Dispatcher: from where on an idle worker is woken for it. */
pen_batch_limits pen_filling_plenty(const pen_filling *filling);

#endif
