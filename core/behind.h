/* Purpose: judges how far the source's decoding is behind its commits.
 * Thread:  the reader.
 * Owns:    nothing.
 * Flow:    the source's clock as each message tells it, and when each transaction committed, in;
 *          whether it is far behind, and the large batch counts more than the single transaction,
 *          out.
 *
 * Both times are the source's own, so clocks that differ do not matter, and neither does the time
 * on the way. When they lie, because the source's clock was set, batches are only larger or smaller
 * than they should be. */
#ifndef PEN_CORE_BEHIND_H
#define PEN_CORE_BEHIND_H

#include "core/lsn.h"

/* Two bounds, so that a source at one of them does not change its mind with each transaction. A
 * source that keeps up is a few milliseconds behind, under load tens; a batch is filled within tens
 * of milliseconds, so from the upper bound on that adds little to what is there already. What was
 * measured stands in ARCHITECTURE.md. */
#define PEN_BEHIND_FAR_US  (200 * 1000)
#define PEN_BEHIND_NEAR_US (50 * 1000)

typedef struct pen_behind {
    pen_pgtime clock; /* the source's, when it sent what was heard last */
    bool far;
} pen_behind;

/* A transaction that committed at `commit_time` begins. */
static inline void pen_behind_judge(pen_behind *behind, pen_pgtime commit_time)
{
    pen_pgtime late_us;
    /* Both came off the wire, and may be anything. */
    bool known = !__builtin_sub_overflow(behind->clock, commit_time, &late_us);
    behind->far = known && late_us >= (behind->far ? PEN_BEHIND_NEAR_US : PEN_BEHIND_FAR_US);
}

#endif
