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
    atomic_init(&meter->waiting, 0);
    atomic_init(&meter->waiting_since_us, 0);
    atomic_init(&meter->work_since_us, 0);
    atomic_init(&meter->work_committed, 0);
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
    pen_meter_put();
    int64_t since_us = atomic_load_explicit(&meter->since_us, memory_order_relaxed);
    pen_meter_add((pen_metric)atomic_load_explicit(&meter->time, memory_order_relaxed),
                  (uint64_t)(pen_now_us() - since_us));
    atomic_store_explicit(&meter->since_us, 0, memory_order_relaxed);
    pen_meter_current = NULL;
}

int pen_meter_park(pen_metric wait, pen_parker *parker, int fd, int events, int timeout_ms)
{
    pen_meter *meter = pen_meter_current;
    int64_t since_us = pen_now_us();
    if (meter != NULL) {
        atomic_store_explicit(&meter->waiting_since_us, since_us, memory_order_relaxed);
        atomic_store_explicit(&meter->waiting, (uint32_t)wait + 1, memory_order_relaxed);
    }
    int happened = pen_parker_park(parker, fd, events, timeout_ms);
    if (meter != NULL) {
        atomic_store_explicit(&meter->waiting, 0, memory_order_relaxed);
    }
    pen_meter_add(wait, (uint64_t)(pen_now_us() - since_us));
    return happened;
}

void pen_meter_take(pen_pgtime commit_time)
{
    if (pen_meter_current != NULL) {
        pen_meter *meter = pen_meter_current;
        atomic_store_explicit(&meter->work_committed, commit_time, memory_order_relaxed);
        atomic_store_explicit(&meter->work_since_us, pen_now_us(), memory_order_relaxed);
    }
}

void pen_meter_put(void)
{
    if (pen_meter_current != NULL) {
        atomic_store_explicit(&pen_meter_current->work_since_us, 0, memory_order_relaxed);
    }
}

static int64_t passed(int64_t since_us, int64_t now_us)
{
    return since_us < now_us ? now_us - since_us : 0;
}

pen_activity pen_meter_look(const pen_meter *meter)
{
    int64_t now_us = pen_now_us();
    uint32_t waiting = atomic_load_explicit(&meter->waiting, memory_order_relaxed);
    int64_t waiting_us = atomic_load_explicit(&meter->waiting_since_us, memory_order_relaxed);
    int64_t work_us = atomic_load_explicit(&meter->work_since_us, memory_order_relaxed);
    return (pen_activity){
        .runs = atomic_load_explicit(&meter->since_us, memory_order_relaxed) != 0,
        .waits_for = waiting == 0 ? PEN_METRIC_COUNT : (pen_metric)(waiting - 1),
        .waits_us = waiting == 0 ? 0 : passed(waiting_us, now_us),
        .has_work = work_us != 0,
        .works_us = work_us == 0 ? 0 : passed(work_us, now_us),
        .committed = atomic_load_explicit(&meter->work_committed, memory_order_relaxed),
    };
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
        if (atomic_load_explicit(&meter->waiting, memory_order_relaxed) == (uint32_t)metric + 1) {
            sum += (uint64_t)passed(
                atomic_load_explicit(&meter->waiting_since_us, memory_order_relaxed), now_us);
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
