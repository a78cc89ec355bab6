/* Purpose: what a stream counts about itself: the table core/metrics.def, and where the numbers are.
 * Thread:  each thread counts in a meter of its own; anybody may read, and sees numbers that are at
 *          most a moment old.
 * Owns:    a meter belongs to the stream whose thread counts in it.
 * Flow:    what happened in, from wherever it does; sums over all threads out.
 *
 * Always on, so it must cost nothing: no lock, no locked instruction, no cache line that another
 * thread writes. Clocks are read around waits only, which cost a system call anyway. */
#ifndef PEN_CORE_METRICS_H
#define PEN_CORE_METRICS_H

#include "core/histogram.h"
#include "core/lsn.h"
#include "core/thread.h"

typedef enum pen_metric {
#define PEN_METRIC(id, name, unit, kind, help) PEN_METRIC_##id,
#define PEN_DISTRIBUTION(id, name, unit, help)
#include "core/metrics.def"
#undef PEN_METRIC
#undef PEN_DISTRIBUTION
    PEN_METRIC_COUNT
} pen_metric;

typedef enum pen_distribution {
#define PEN_METRIC(id, name, unit, kind, help)
#define PEN_DISTRIBUTION(id, name, unit, help) PEN_DISTRIBUTION_##id,
#include "core/metrics.def"
#undef PEN_METRIC
#undef PEN_DISTRIBUTION
    PEN_DISTRIBUTION_COUNT
} pen_distribution;

typedef enum pen_metric_unit { PEN_UNIT_NONE, PEN_UNIT_SECONDS, PEN_UNIT_BYTES } pen_metric_unit;
typedef enum pen_metric_kind { PEN_KIND_COUNTER, PEN_KIND_GAUGE } pen_metric_kind;

/* The columns of core/metrics.def, which explains them; `name` with the unit behind it. */
typedef struct pen_metric_row {
    const char *name;
    pen_metric_unit unit;
    pen_metric_kind kind; /* of a distribution: nothing */
    const char *help;
} pen_metric_row;

extern const pen_metric_row pen_metric_rows[PEN_METRIC_COUNT];
extern const pen_metric_row pen_distribution_rows[PEN_DISTRIBUTION_COUNT];

typedef struct pen_meter {
    PEN_ALIGNED _Atomic(uint64_t) counts[PEN_METRIC_COUNT];
    _Atomic(int64_t) since_us; /* when the thread began that counts here now, 0: there is none */
    _Atomic(uint32_t) time;    /* pen_metric: what it counts its time as */
    _Atomic(uint32_t) waiting; /* pen_metric + 1: what it waits for now; 0: for nothing */
    _Atomic(int64_t) waiting_since_us;
    _Atomic(int64_t) work_since_us;  /* when it took what it has in hand now, 0: nothing */
    _Atomic(int64_t) work_committed; /* pen_pgtime: when the first of that committed */
    pen_histogram distributions[PEN_DISTRIBUTION_COUNT];
} pen_meter;

/* Aligned to a cache line. */
void pen_meter_init(pen_meter *meter);

/* The calling thread counts in `meter` (borrowed) from now on, and its time as `time`; one thread
 * at a time. */
void pen_meter_begin(pen_meter *meter, pen_metric time);
void pen_meter_end(void); /* it has nothing in hand any more */

extern _Thread_local pen_meter *pen_meter_current;

/* Counts so much; nothing in a thread that has no meter. */
static inline void pen_meter_add(pen_metric metric, uint64_t more)
{
    if (pen_meter_current != NULL) {
        _Atomic(uint64_t) *count = &pen_meter_current->counts[metric];
        /* The only writer: nobody can come between load and store. A count stands for itself. */
        uint64_t before = atomic_load_explicit(count, memory_order_relaxed);
        atomic_store_explicit(count, before + more, memory_order_relaxed);
    }
}

/* Records `value` once; a time in microseconds, of which a negative one counts as 0. */
static inline void pen_meter_record(pen_distribution which, int64_t value)
{
    if (pen_meter_current != NULL) {
        pen_histogram_record(&pen_meter_current->distributions[which], value);
    }
}

/* As pen_parker_park, and counts how long it took as `wait`. */
int pen_meter_park(pen_metric wait, pen_parker *parker, int fd, int events, int timeout_ms);

/* The calling thread has something in hand now, of which the first transaction committed at
 * `commit_time` on the source; or nothing more. */
void pen_meter_take(pen_pgtime commit_time);
void pen_meter_put(void);

/* What one thread does at this moment. */
typedef struct pen_activity {
    bool runs;
    pen_metric waits_for; /* PEN_METRIC_COUNT: for nothing, it is busy */
    int64_t waits_us;     /* for so long */
    bool has_work;        /* pen_meter_take */
    int64_t works_us;     /* for so long */
    pen_pgtime committed; /* when the first of it committed on the source */
} pen_activity;
/* Any thread; what it tells need not be of one and the same moment. */
pen_activity pen_meter_look(const pen_meter *meter);

/* Sums over `count` meters, running threads' time and waits up to now included. A wait that just
 * ends may be missing for a moment, or be in it twice: so two sums one after the other need not
 * grow. Any thread. */
void pen_meters_sum(const pen_meter *meters, size_t count, uint64_t sums[PEN_METRIC_COUNT]);
uint64_t pen_meters_sum_of(const pen_meter *meters, size_t count, pen_metric metric);
/* All that was recorded, added to `hist`. Any thread; writer of `hist`. */
void pen_meters_merge(const pen_meter *meters, size_t count, pen_distribution which,
                      pen_histogram *hist);

#endif
