#include "apply/report.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pen_report *report;

/* Two workers behind one dispatcher, the first with a batch in hand. */
static void set_up(void)
{
    report = pen_report_create();
    report->command = "stream";
    report->name = "shop";
    report->phase = "stream";
    report->pid = 7;
    report->started_us = INT64_C(1769860800000000);
    report->phase_us = report->started_us + 1000000;
    report->now_us = report->started_us + 61500000;
    report->state = PEN_STATE_STREAMING;
    pen_report_stream *stream = &report->stream;
    stream->there = true;
    stream->dispatcher_count = 1;
    stream->worker_count = 2;
    stream->threads = pen_calloc(4, sizeof(*stream->threads));
    for (unsigned i = 0; i < 4; i++) {
        stream->threads[i].activity =
            (pen_activity){.runs = true, .waits_for = PEN_METRIC_WORKER_INPUT, .waits_us = 1500000};
    }
    stream->threads[2].activity = (pen_activity){
        .runs = true, .waits_for = PEN_METRIC_COUNT, .has_work = true, .works_us = 2000000};
    stream->threads[2].batch = 9;
    for (unsigned i = 0; i < PEN_DISTRIBUTION_COUNT; i++) {
        pen_histogram_init(&stream->distributions[i]);
    }
}

static void tear_down(void)
{
    pen_report_destroy(report);
}

TestSuite(report, .init = set_up, .fini = tear_down);

static json_t *parsed(void)
{
    char *text = pen_report_json(report);
    cr_assert_null(strchr(text, '\n'));
    json_t *made = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    cr_assert_not_null(made, "%s", text);
    free(text);
    return made;
}

static bool has(const char *text, const char *line)
{
    char wanted[300];
    snprintf(wanted, sizeof(wanted), "\n%s\n", line);
    return strstr(text, wanted) != NULL;
}

#define EXPECT_LINE(text, line) cr_expect(has(text, line), "no line \"%s\" in:\n%s", line, text)

Test(report, json_has_what_was_put_in)
{
    pen_report_stream *stream = &report->stream;
    snprintf(report->source.host, sizeof(report->source.host), "source.example");
    stream->source_lsn = 0x100000300;
    stream->received_lsn = 0x100000200;
    stream->dispatched_lsn = 0x100000200;
    stream->applied_lsn = 0x100000100;
    stream->lag_seconds = 1.2345678;
    stream->sums[PEN_METRIC_RECEIVED_TRANSACTIONS] = 5;
    stream->sums[PEN_METRIC_TRANSACTIONS] = 3;
    stream->sums[PEN_METRIC_READER_TIME] = 2500000;
    json_t *made = parsed();
    const json_t *told = json_object_get(made, "stream");
    cr_expect_str_eq(json_string_value(json_object_get(made, "started")),
                     "2026-01-31T12:00:00.000Z");
    cr_expect_eq(json_number_value(json_object_get(made, "uptime_seconds")), 61.5);
    cr_expect_str_eq(json_string_value(json_object_get(told, "applied_lsn")), "1/100");
    cr_expect(json_is_null(json_object_get(told, "durable_lsn")));
    cr_expect_eq(json_integer_value(json_object_get(told, "lag_bytes")), 0x200);
    cr_expect_eq(json_number_value(json_object_get(told, "lag_seconds")), 1.235);
    cr_expect_eq(json_integer_value(json_object_get(told, "waiting_transactions")), 2);
    const json_t *metrics = json_object_get(told, "metrics");
    cr_expect_eq(json_number_value(json_object_get(metrics, "reader_seconds")), 2.5);
    cr_expect_eq(json_object_size(metrics), (size_t)PEN_METRIC_COUNT + PEN_DISTRIBUTION_COUNT);
    const json_t *worker = json_array_get(json_object_get(told, "workers"), 0);
    cr_expect_str_eq(json_string_value(json_object_get(worker, "doing")), "busy");
    cr_expect_eq(json_integer_value(json_object_get(worker, "batch")), 9);
    cr_expect_eq(json_number_value(json_object_get(worker, "batch_seconds")), 2);
    worker = json_array_get(json_object_get(told, "workers"), 1);
    cr_expect_str_eq(json_string_value(json_object_get(worker, "doing")), "waits for a batch");
    cr_expect(json_is_null(json_object_get(worker, "batch_seconds")));
    cr_expect(json_is_null(json_object_get(told, "eager_worker")));
    const json_t *source = json_object_get(made, "source");
    cr_expect_str_eq(json_string_value(json_object_get(source, "host")), "source.example");
    cr_expect(json_is_null(json_object_get(source, "user")));
    json_decref(made);
}

Test(report, nothing_waits_behind_the_last_transaction)
{
    pen_report_stream *stream = &report->stream;
    stream->source_lsn = 0x500;
    stream->received_lsn = 0x400; /* without a change since the last one */
    stream->dispatched_lsn = 0x200;
    stream->applied_lsn = 0x200;
    cr_expect_eq(pen_report_lag_bytes(stream), 0x100);
    stream->applied_lsn = 0x1FF;
    cr_expect_eq(pen_report_lag_bytes(stream), 0x301);
    stream->source_lsn = 0;
    cr_expect_eq(pen_report_lag_bytes(stream), 0, "a position that is not known is no lag");
}

Test(report, text_of_any_origin)
{
    report->note_count = 1;
    snprintf(report->notes[0].text, sizeof(report->notes[0].text), "a\x1b[31m\xff\"\n\xe2\x82 b");
    report->note_count = 1;
    json_t *made = parsed();
    const json_t *note = json_array_get(json_object_get(made, "warnings"), 0);
    const char *text = json_string_value(json_object_get(note, "message"));
    cr_assert_not_null(text);
    for (const char *at = text; *at != '\0'; at++) {
        cr_expect_geq((unsigned char)*at, 0x20);
    }
    cr_expect_not_null(strstr(text, "\""));
    json_decref(made);
}

Test(report, without_a_stream)
{
    report->stream.there = false;
    json_t *made = parsed();
    cr_expect(json_is_null(json_object_get(made, "stream")));
    cr_expect(json_is_null(json_object_get(made, "copy")));
    cr_expect(json_is_null(json_object_get(made, "indexes")));
    json_decref(made);
    char *text = pen_report_metrics(report);
    cr_expect_null(strstr(text, "penstock_applied"));
    EXPECT_LINE(text, "penstock_healthy 0");
    free(text);
}

static const char *judged(pen_state state, const char *reason, bool full)
{
    report->state = state;
    snprintf(report->reason, sizeof(report->reason), "%s", reason);
    report->stream.disk_full = full;
    pen_report_judge(report);
    cr_expect_eq(report->healthy, report->trouble[0] == '\0');
    return report->trouble;
}

Test(report, what_is_healthy)
{
    cr_expect_str_eq(judged(PEN_STATE_STREAMING, "", false), "");
    cr_expect_str_eq(judged(PEN_STATE_PREPARING, "", false), "");
    cr_expect_str_eq(judged(PEN_STATE_STARTING, "", false), "starting");
    cr_expect_str_eq(judged(PEN_STATE_RECOVERING, "target: gone", false),
                     "recovering: target: gone");
    cr_expect_str_eq(judged(PEN_STATE_STOPPING, "by a signal", true), "stopping: by a signal");
    cr_expect_str_eq(judged(PEN_STATE_STREAMING, "", true),
                     "the disk with the state directory is full: nothing is received");
}

Test(report, metrics_in_their_units)
{
    pen_report_stream *stream = &report->stream;
    report->name = "a\"b\\c\nd";
    stream->sums[PEN_METRIC_WORKER_SERVER] = 61000007;
    stream->sums[PEN_METRIC_CHANGES] = UINT64_MAX;
    stream->sums[PEN_METRIC_MEMORY_USED] = 4096;
    stream->applied_lsn = UINT64_C(0x20000000001);
    char *text = pen_report_metrics(report);
    EXPECT_LINE(text, "# TYPE penstock_worker_server_seconds_total counter");
    EXPECT_LINE(text, "penstock_worker_server_seconds_total 61.000007");
    EXPECT_LINE(text, "penstock_applied_changes_total 18446744073709551615");
    EXPECT_LINE(text, "# TYPE penstock_memory_used_bytes gauge");
    EXPECT_LINE(text, "penstock_memory_used_bytes 4096");
    EXPECT_LINE(text, "penstock_applied_lsn_bytes 2199023255553");
    EXPECT_LINE(text, "penstock_workers_with_batch 1");
    cr_expect_not_null(strstr(text, "penstock_info{name=\"a\\\"b\\\\c\\nd\",command=\"stream\""));
    free(text);
}

Test(report, a_distribution_is_a_histogram)
{
    pen_histogram *lag = &report->stream.distributions[PEN_DISTRIBUTION_LAG];
    pen_histogram_record(lag, 500);
    pen_histogram_record(lag, 500);
    pen_histogram_record(lag, 7000);
    pen_histogram_record(lag, INT64_C(7200000000));
    char *text = pen_report_metrics(report);
    EXPECT_LINE(text, "# TYPE penstock_lag_seconds histogram");
    EXPECT_LINE(text, "penstock_lag_seconds_bucket{le=\"0.001\"} 2");
    EXPECT_LINE(text, "penstock_lag_seconds_bucket{le=\"0.005\"} 2");
    EXPECT_LINE(text, "penstock_lag_seconds_bucket{le=\"0.01\"} 3");
    EXPECT_LINE(text, "penstock_lag_seconds_bucket{le=\"3600\"} 3");
    EXPECT_LINE(text, "penstock_lag_seconds_bucket{le=\"+Inf\"} 4");
    EXPECT_LINE(text, "penstock_lag_seconds_count 4");
    const char *sum = strstr(text, "\npenstock_lag_seconds_sum ");
    cr_assert_not_null(sum);
    cr_expect_float_eq(atof(sum + strlen("\npenstock_lag_seconds_sum ")), 7200.008, 7200 * 0.016);
    free(text);
}

Test(report, a_copy_and_indexes)
{
    report->copy.there = true;
    report->copy.part = 0.256;
    report->copy.tables = 3;
    report->copy.in_work = 1;
    snprintf(report->copy.work[0].name, sizeof(report->copy.work[0].name), "public.t");
    report->has_indexes = true;
    report->indexes = 5;
    report->indexes_left = 2;
    json_t *made = parsed();
    const json_t *copy = json_object_get(made, "copy");
    cr_expect_eq(json_number_value(json_object_get(copy, "percent")), 25.6);
    const json_t *table = json_array_get(json_object_get(copy, "in_work"), 0);
    cr_expect_str_eq(json_string_value(json_object_get(table, "table")), "public.t");
    cr_expect_eq(json_integer_value(json_object_get(json_object_get(made, "indexes"), "left")), 2);
    json_decref(made);
    char *text = pen_report_metrics(report);
    EXPECT_LINE(text, "penstock_copy_ratio 0.25600000000000001");
    EXPECT_LINE(text, "penstock_indexes_left 2");
    free(text);
}
