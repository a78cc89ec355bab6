/* Purpose: a histogram of durations with a bounded relative error, for percentiles.
 * Thread:  one writer; readers may look at any time and see counts at most a moment old.
 * Owns:    nothing; the counts are inside the struct.
 * Flow:    microseconds in; counts by bucket (powers of two, each cut into 32: error under 3.2 %).
 */
#ifndef PEN_CORE_HISTOGRAM_H
#define PEN_CORE_HISTOGRAM_H

#include "core/base.h"

#include <stdatomic.h>

#define PEN_HISTOGRAM_BUCKETS 1280 /* up to 2^44 us, some 200 days; more counts as that */

typedef struct pen_histogram {
    _Atomic(uint64_t) counts[PEN_HISTOGRAM_BUCKETS];
} pen_histogram;

void pen_histogram_init(pen_histogram *hist);
/* Counts `value_us` once; a negative one (two clocks that differ) counts as 0. Writer only. */
void pen_histogram_record(pen_histogram *hist, int64_t value_us);
/* Adds all counts of `from` to `hist`. Writer of `hist` only. */
void pen_histogram_merge(pen_histogram *hist, const pen_histogram *from);
uint64_t pen_histogram_count(const pen_histogram *hist);
/* The smallest value that at least `percent` (0 < percent <= 100) of the counts do not exceed, as
 * its bucket's upper end, microseconds; 0 when there are none. */
int64_t pen_histogram_percentile(const pen_histogram *hist, double percent);
/* How many of the counts lie in buckets that end at or below `value_us`. */
uint64_t pen_histogram_count_to(const pen_histogram *hist, int64_t value_us);
/* All values added, each as the middle of its bucket: right to 1.6 %. */
double pen_histogram_sum(const pen_histogram *hist);

#endif
