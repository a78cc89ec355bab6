#include "core/metrics.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pen_meter *meters;

static void set_up(void)
{
    meters = pen_alloc_lines(3 * sizeof(*meters));
    for (size_t i = 0; i < 3; i++) {
        pen_meter_init(&meters[i]);
    }
}

static void tear_down(void)
{
    free(meters);
}

TestSuite(metrics, .init = set_up, .fini = tear_down);

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text);
    size_t wanted = strlen(end);
    return length > wanted && strcmp(text + length - wanted, end) == 0;
}

Test(metrics, each_row_says_what_it_is)
{
    for (size_t i = 0; i < PEN_METRIC_COUNT; i++) {
        const pen_metric_row *row = &pen_metric_rows[i];
        cr_assert_eq(strspn(row->name, "abcdefghijklmnopqrstuvwxyz_"), strlen(row->name), "%s",
                     row->name);
        cr_assert_eq(ends_with(row->name, "_seconds"), row->unit == PEN_UNIT_SECONDS, "%s",
                     row->name);
        cr_assert_eq(ends_with(row->name, "_bytes"), row->unit == PEN_UNIT_BYTES, "%s", row->name);
        cr_assert(ends_with(row->help, "."), "%s", row->name);
        for (size_t other = 0; other < i; other++) {
            cr_assert_str_neq(row->name, pen_metric_rows[other].name);
        }
    }
    cr_assert_str_eq(pen_metric_rows[PEN_METRIC_READER_SOURCE].name, "reader_source_seconds");
    cr_assert_str_eq(pen_metric_rows[PEN_METRIC_MEMORY_USED].name, "memory_used_bytes");
    cr_assert_eq(pen_metric_rows[PEN_METRIC_MEMORY_USED].kind, PEN_KIND_GAUGE);
    cr_assert_str_eq(pen_distribution_rows[PEN_DISTRIBUTION_LAG].name, "lag_seconds");
    cr_assert_str_eq(pen_distribution_rows[PEN_DISTRIBUTION_BATCH_CHANGES].name, "batch_changes");
}

Test(metrics, a_thread_without_a_meter_counts_nothing)
{
    pen_meter_add(PEN_METRIC_BATCHES, 5);
    pen_meter_record(PEN_DISTRIBUTION_LAG, 5);
    cr_assert_eq(pen_meters_sum_of(meters, 3, PEN_METRIC_BATCHES), 0);
}

Test(metrics, all_that_was_counted_is_added)
{
    uint64_t sums[PEN_METRIC_COUNT];
    for (size_t i = 0; i < 3; i++) {
        pen_meter_begin(&meters[i], PEN_METRIC_WORKER_TIME);
        pen_meter_add(PEN_METRIC_BATCHES, i + 1);
        pen_meter_add(PEN_METRIC_BATCHES, 10);
        pen_meter_record(PEN_DISTRIBUTION_BATCH_CHANGES, (int64_t)i);
        pen_meter_end();
    }
    /* A later thread goes on in the same place. */
    pen_meter_begin(&meters[1], PEN_METRIC_WORKER_TIME);
    pen_meter_add(PEN_METRIC_BATCHES, 100);
    pen_meter_end();
    pen_meters_sum(meters, 3, sums);
    cr_assert_eq(sums[PEN_METRIC_BATCHES], 136);
    cr_assert_eq(sums[PEN_METRIC_CHANGES], 0);
    cr_assert_eq(pen_meters_sum_of(meters, 2, PEN_METRIC_BATCHES), 123);
    pen_histogram hist;
    pen_histogram_init(&hist);
    pen_meters_merge(meters, 3, PEN_DISTRIBUTION_BATCH_CHANGES, &hist);
    cr_assert_eq(pen_histogram_count(&hist), 3);
    cr_assert_eq(pen_histogram_percentile(&hist, 100), 2);
}

Test(metrics, the_time_of_threads_counts_while_they_run_and_after)
{
    pen_parker parker;
    pen_error err;
    cr_assert(pen_parker_init(&parker, &err));
    pen_meter_begin(&meters[0], PEN_METRIC_READER_TIME);
    pen_parker_prepare(&parker);
    cr_assert_eq(pen_meter_park(PEN_METRIC_READER_SOURCE, &parker, -1, 0, 20), 0);
    uint64_t running = pen_meters_sum_of(meters, 3, PEN_METRIC_READER_TIME);
    uint64_t waited = pen_meters_sum_of(meters, 3, PEN_METRIC_READER_SOURCE);
    cr_assert_geq(waited, 19000);
    cr_assert_geq(running, waited);
    pen_meter_end();
    uint64_t after = pen_meters_sum_of(meters, 3, PEN_METRIC_READER_TIME);
    cr_assert_geq(after, running);
    cr_assert_eq(pen_meters_sum_of(meters, 3, PEN_METRIC_READER_TIME), after);
    cr_assert_eq(pen_meters_sum_of(meters, 3, PEN_METRIC_WORKER_TIME), 0);
    /* A second run of it is added. */
    pen_meter_begin(&meters[0], PEN_METRIC_READER_TIME);
    pen_parker_prepare(&parker);
    (void)pen_meter_park(PEN_METRIC_READER_ROOM, &parker, -1, 0, 20);
    pen_meter_end();
    cr_assert_geq(pen_meters_sum_of(meters, 3, PEN_METRIC_READER_TIME), after + 19000);
    pen_parker_deinit(&parker);
}

static pen_parker sleeper_parker;

static void sleep_once(void *arg)
{
    pen_meter_begin(arg, PEN_METRIC_WORKER_TIME);
    pen_meter_take(INT64_C(123456789));
    pen_parker_prepare(&sleeper_parker);
    (void)pen_meter_park(PEN_METRIC_WORKER_TURN, &sleeper_parker, -1, 0, PEN_PARK_FOREVER);
    pen_meter_put();
    pen_meter_end();
}

Test(metrics, a_wait_shows_while_it_lasts)
{
    pen_thread thread = {0};
    pen_error err;
    cr_assert(pen_parker_init(&sleeper_parker, &err));
    cr_assert_not(pen_meter_look(&meters[2]).runs);
    cr_assert(pen_thread_start(&thread, PEN_ROLE_WORKER, "worker 1", sleep_once, &meters[2], &err));
    while (pen_meter_look(&meters[2]).waits_us < 20000) {
    }
    pen_activity activity = pen_meter_look(&meters[2]);
    cr_expect(activity.runs && activity.has_work);
    cr_expect_eq(activity.waits_for, PEN_METRIC_WORKER_TURN);
    cr_expect_eq(activity.committed, 123456789);
    cr_expect_geq(activity.works_us, activity.waits_us);
    uint64_t waited = pen_meters_sum_of(meters, 3, PEN_METRIC_WORKER_TURN);
    cr_expect_geq(waited, 20000, "it counts before it has ended");
    cr_expect_eq(pen_meters_sum_of(meters, 3, PEN_METRIC_WORKER_SERVER), 0);
    pen_parker_wake(&sleeper_parker);
    pen_thread_join(&thread);
    activity = pen_meter_look(&meters[2]);
    cr_expect_not(activity.runs || activity.has_work);
    cr_expect_eq(activity.waits_for, PEN_METRIC_COUNT);
    uint64_t after = pen_meters_sum_of(meters, 3, PEN_METRIC_WORKER_TURN);
    cr_expect_geq(after, waited);
    usleep(5000);
    cr_expect_eq(pen_meters_sum_of(meters, 3, PEN_METRIC_WORKER_TURN), after, "and no more after");
    pen_parker_deinit(&sleeper_parker);
}
