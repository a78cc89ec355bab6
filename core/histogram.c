#include "core/histogram.h"

/* Bucket b below 64 counts the value b alone. From there on each power of two 2^e is cut into 32
 * buckets of 2^(e-5) values, so that a bucket's width is at most 1/32 of its lower end. */
#define CUTS     32u
#define CUT_BITS 5u

#define LARGEST_VALUE ((UINT64_C(1) << 44) - 1)

/* All loads and stores here are relaxed: a count stands for itself and publishes nothing. */

static size_t bucket_of(uint64_t value)
{
    if (value < CUTS) {
        return (size_t)value;
    }
    if (value > LARGEST_VALUE) {
        value = LARGEST_VALUE;
    }
    unsigned exponent = 63 - (unsigned)__builtin_clzll(value);
    unsigned shift = exponent - CUT_BITS;
    return (size_t)(shift * CUTS + (value >> shift));
}

static int64_t upper_end(size_t bucket)
{
    if (bucket < (size_t)2 * CUTS) {
        return (int64_t)bucket;
    }
    unsigned shift = (unsigned)(bucket / CUTS) - 1;
    uint64_t cut = CUTS + bucket % CUTS;
    return (int64_t)(((cut + 1) << shift) - 1);
}

/* The only writer adds without a locked instruction: nobody can come between load and store. */
static void add(pen_histogram *hist, size_t bucket, uint64_t more)
{
    uint64_t count = atomic_load_explicit(&hist->counts[bucket], memory_order_relaxed);
    atomic_store_explicit(&hist->counts[bucket], count + more, memory_order_relaxed);
}

void pen_histogram_init(pen_histogram *hist)
{
    for (size_t bucket = 0; bucket < PEN_HISTOGRAM_BUCKETS; bucket++) {
        atomic_init(&hist->counts[bucket], 0);
    }
}

void pen_histogram_record(pen_histogram *hist, int64_t value_us)
{
    add(hist, bucket_of(value_us < 0 ? 0 : (uint64_t)value_us), 1);
}

void pen_histogram_merge(pen_histogram *hist, const pen_histogram *from)
{
    for (size_t bucket = 0; bucket < PEN_HISTOGRAM_BUCKETS; bucket++) {
        uint64_t more = atomic_load_explicit(&from->counts[bucket], memory_order_relaxed);
        if (more != 0) {
            add(hist, bucket, more);
        }
    }
}

uint64_t pen_histogram_count(const pen_histogram *hist)
{
    uint64_t total = 0;
    for (size_t bucket = 0; bucket < PEN_HISTOGRAM_BUCKETS; bucket++) {
        total += atomic_load_explicit(&hist->counts[bucket], memory_order_relaxed);
    }
    return total;
}

int64_t pen_histogram_percentile(const pen_histogram *hist, double percent)
{
    PEN_ASSERT(percent > 0 && percent <= 100);
    uint64_t total = pen_histogram_count(hist);
    if (total == 0) {
        return 0;
    }
    /* The rank is rounded up, but not because of the last bits of a product that is whole in
     * decimal: 99.9 % of 1000 must be 999. */
    double exact = percent * (double)total / 100 * (1 - 1e-12);
    uint64_t rank = (uint64_t)exact;
    if ((double)rank < exact) {
        rank++;
    }
    uint64_t passed = 0;
    for (size_t bucket = 0; bucket < PEN_HISTOGRAM_BUCKETS; bucket++) {
        passed += atomic_load_explicit(&hist->counts[bucket], memory_order_relaxed);
        if (passed >= rank) {
            return upper_end(bucket);
        }
    }
    /* Counts only grow, so the second pass found at least what the first one did, unless the rank
     * of more than 2^53 counts was rounded up beyond them. */
    return upper_end(PEN_HISTOGRAM_BUCKETS - 1);
}

uint64_t pen_histogram_count_to(const pen_histogram *hist, int64_t value_us)
{
    uint64_t passed = 0;
    for (size_t bucket = 0; bucket < PEN_HISTOGRAM_BUCKETS && upper_end(bucket) <= value_us;
         bucket++) {
        passed += atomic_load_explicit(&hist->counts[bucket], memory_order_relaxed);
    }
    return passed;
}

double pen_histogram_sum(const pen_histogram *hist)
{
    double sum = 0;
    int64_t below = -1; /* the upper end of the bucket before */
    for (size_t bucket = 0; bucket < PEN_HISTOGRAM_BUCKETS; bucket++) {
        int64_t end = upper_end(bucket);
        double middle = (double)(below + 1 + end) / 2;
        sum += middle * (double)atomic_load_explicit(&hist->counts[bucket], memory_order_relaxed);
        below = end;
    }
    return sum;
}
