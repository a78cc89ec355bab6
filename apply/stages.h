/* Purpose: what the threads' times say: how each stage spent its time, and which one limits.
 * Thread:  any.
 * Owns:    nothing.
 * Flow:    the numbers of core/metrics.def in; shares and words out. */
#ifndef PEN_APPLY_STAGES_H
#define PEN_APPLY_STAGES_H

#include "core/metrics.h"

typedef enum pen_limit {
    PEN_LIMIT_SOURCE,     /* it sends no more than is taken: the stream keeps up */
    PEN_LIMIT_READER,     /* receiving and decoding, one thread */
    PEN_LIMIT_DISK,       /* of the spool */
    PEN_LIMIT_MEMORY,     /* it is used up, and yet nobody behind is at work all the time */
    PEN_LIMIT_DISPATCHER, /* finding dependencies */
    PEN_LIMIT_TARGET,     /* it executes what it has */
    PEN_LIMIT_ORDER,      /* changes wait for those before: more workers do not help */
    PEN_LIMIT_WORKER      /* building statements */
} pen_limit;

/* The last stage that has something to do most of the time: those before it wait for it, or have
 * given it all that it still has to do. */
pen_limit pen_stages_limit(const uint64_t sums[PEN_METRIC_COUNT]);
/* What limits while one batch is all that goes on: by what its worker waits for, PEN_METRIC_COUNT
 * for nothing. */
pen_limit pen_stages_limit_of_batch(pen_metric waits_for);
/* In a word, for programs, and in some more, for people. */
const char *pen_limit_word(pen_limit limit);
const char *pen_limit_words(pen_limit limit);

/* What a thread does that waits as `metric`, in words ("waits for the target"). */
const char *pen_stages_wait(pen_metric metric);

#define PEN_STAGE_COUNT     4
#define PEN_STAGE_TEXT_SIZE 256
/* How stage `number`, from 0, spent its time, in a line; false when it had none. */
PEN_MUST_CHECK bool pen_stages_describe(const uint64_t sums[PEN_METRIC_COUNT], unsigned number,
                                        char text[PEN_STAGE_TEXT_SIZE]);

#endif
