#include "core/metrics.h"

_Thread_local pen_meter *pen_meter_current;

#define SUFFIX_NONE    ""
#define SUFFIX_SECONDS "_seconds"
#define SUFFIX_BYTES   "_bytes"

const pen_metric_row pen_metric_rows[PEN_METRIC_COUNT] = {
#define PEN_METRIC(id, name, unit, kind, help)                                                     \
    {name SUFFIX_##unit, PEN_UNIT_##unit, PEN_KIND_##kind, help},
#define PEN_DISTRIBUTION(id, name, unit, help)
#include "core/metrics.def"
#undef PEN_METRIC
#undef PEN_DISTRIBUTION
};

const pen_metric_row pen_distribution_rows[PEN_DISTRIBUTION_COUNT] = {
#define PEN_METRIC(id, name, unit, kind, help)
#define PEN_DISTRIBUTION(id, name, unit, help)                                                     \
    {name SUFFIX_##unit, PEN_UNIT_##unit, PEN_KIND_COUNTER, help},
#include "core/metrics.def"
#undef PEN_METRIC
#undef PEN_DISTRIBUTION
};

/* All loads and stores here are relaxed: a count stands for itself and publishes nothing. */

void pen_meter_init(pen_meter *meter)
{
    for (size_t i = 0; i < PEN_METRIC_COUNT; i++) {
        atomic_init(&meter->counts[i], 0);
    }
    atomic_init(&meter->since_us, 0);
    atomic_init(&meter->time, 0);
    for (size_t i = 0; i < PEN_DISTRIBUTION_COUNT; i++) {
        pen_histogram_init(&meter->distributions[i]);
    }
}

void pen_meter_begin(pen_meter *meter, pen_metric time)
{
    PEN_ASSERT(pen_meter_current == NULL);
    pen_meter_current = meter;
    atomic_store_explicit(&meter->time, time, memory_order_relaxed);
    atomic_store_explicit(&meter->since_us, pen_now_us(), memory_order_relaxed);
}

void pen_meter_end(void)
{
    pen_meter *meter = pen_meter_current;
    int64_t since_us = atomic_load_explicit(&meter->since_us, memory_order_relaxed);
    pen_meter_add((pen_metric)atomic_load_explicit(&meter->time, memory_order_relaxed),
                  (uint64_t)(pen_now_us() - since_us));
    atomic_store_explicit(&meter->since_us, 0, memory_order_relaxed);
    pen_meter_current = NULL;
}

int pen_meter_park(pen_metric wait, pen_parker *parker, int fd, int events, int timeout_ms)
{
    int64_t since_us = pen_now_us();
    int happened = pen_parker_park(parker, fd, events, timeout_ms);
    pen_meter_add(wait, (uint64_t)(pen_now_us() - since_us));
    return happened;
}

uint64_t pen_meters_sum_of(const pen_meter *meters, size_t count, pen_metric metric)
{
    int64_t now_us = pen_now_us();
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        const pen_meter *meter = &meters[i];
        int64_t since_us = atomic_load_explicit(&meter->since_us, memory_order_relaxed);
        sum += atomic_load_explicit(&meter->counts[metric], memory_order_relaxed);
        if (since_us != 0 && since_us < now_us &&
            atomic_load_explicit(&meter->time, memory_order_relaxed) == metric) {
            sum += (uint64_t)(now_us - since_us);
        }
    }
    return sum;
}

void pen_meters_sum(const pen_meter *meters, size_t count, uint64_t sums[PEN_METRIC_COUNT])
{
    for (size_t i = 0; i < PEN_METRIC_COUNT; i++) {
        sums[i] = pen_meters_sum_of(meters, count, (pen_metric)i);
    }
}

void pen_meters_merge(const pen_meter *meters, size_t count, pen_distribution which,
                      pen_histogram *hist)
{
    for (size_t i = 0; i < count; i++) {
        pen_histogram_merge(hist, &meters[i].distributions[which]);
    }
}
