#include "apply/status.h"

#include "apply/stream.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static pen_options options;
static pen_stream *stream;
static pen_status *status;

static void set_up(void)
{
    pen_error err;
    static char source[] = "postgresql://me:s3cret@source.example/shop";
    static char target[] = "host=target.example dbname=shop password=s3cret";
    static char name[] = "shop";
    static char dir[] = "./shop.penstock";
    options = (pen_options){.source = source,
                            .target = target,
                            .name = name,
                            .dir = dir,
                            .workers = 2,
                            .dispatchers = 1,
                            .memory = 1 << 24,
                            .batch_rows = 10,
                            .batch_bytes = 10,
                            .batch_transactions = 10};
    cr_assert(pen_stream_create(&options, &stream, &err), "%s", err.text);
    status = pen_status_create(&options, "migrate");
}

static void tear_down(void)
{
    pen_status_destroy(status);
    pen_stream_destroy(stream);
}

TestSuite(status, .init = set_up, .fini = tear_down);

/* Counts as worker 1 does. */
static void apply(uint64_t transactions)
{
    pen_meter_begin(pen_stream_worker_meter(stream, 0), PEN_METRIC_WORKER_TIME);
    pen_meter_add(PEN_METRIC_TRANSACTIONS, transactions);
    pen_meter_end();
}

static uint64_t applied(void)
{
    pen_report *report = pen_status_look(status);
    uint64_t transactions = report->stream.sums[PEN_METRIC_TRANSACTIONS];
    pen_report_destroy(report);
    return transactions;
}

static pen_state state(void)
{
    pen_report *report = pen_status_look(status);
    pen_state found = report->state;
    pen_report_destroy(report);
    return found;
}

Test(status, phases_and_states)
{
    cr_expect_eq(state(), PEN_STATE_STARTING);
    pen_status_phase(status, "copy");
    cr_expect_eq(state(), PEN_STATE_PREPARING);
    pen_status_recover(status, true, "target: gone");
    pen_report *report = pen_status_look(status);
    cr_expect_eq(report->state, PEN_STATE_RECOVERING);
    cr_expect_str_eq(report->reason, "target: gone");
    cr_expect_str_eq(report->phase, "copy");
    cr_expect_eq(report->recoveries, 1);
    cr_expect_not(report->healthy);
    int64_t since_us = report->phase_us;
    pen_report_destroy(report);
    usleep(2000);
    pen_status_phase(status, "copy");
    report = pen_status_look(status);
    cr_expect_eq(report->state, PEN_STATE_PREPARING, "it goes well again");
    cr_expect_str_eq(report->reason, "");
    cr_expect_eq(report->phase_us, since_us, "the same phase since then");
    cr_expect_str_eq(report->source.host, "source.example");
    cr_expect_str_eq(report->target.host, "target.example");
    cr_expect_not(report->stream.there);
    pen_report_destroy(report);
    pen_status_show_stream(status, stream);
    cr_expect_eq(state(), PEN_STATE_STREAMING);
    pen_status_phase(status, "ready");
    cr_expect_eq(state(), PEN_STATE_STREAMING, "what is streamed beside a phase");
    pen_status_state(status, PEN_STATE_STOPPING, "by a signal");
    pen_status_hide_stream(status);
    pen_status_phase(status, "stream");
    cr_expect_eq(state(), PEN_STATE_STOPPING);
}

Test(status, what_a_stream_said_remains)
{
    pen_cell_publish(&stream->applied_lsn, 100);
    pen_status_show_stream(status, stream);
    apply(5);
    cr_expect_eq(applied(), 5);
    apply(2);
    pen_cell_publish(&stream->applied_lsn, 200);
    snprintf(stream->blocker.text, sizeof(stream->blocker.text), "pid 7");
    pen_report *report = pen_status_look(status);
    cr_expect_str_eq(report->stream.blocker, "pid 7");
    pen_report_destroy(report);
    apply(1);
    pen_status_hide_stream(status);
    pen_cell_publish(&stream->applied_lsn, 300); /* by the next run, which nobody may look at yet */
    report = pen_status_look(status);
    cr_expect_eq(report->stream.sums[PEN_METRIC_TRANSACTIONS], 8, "up to its end");
    cr_expect_eq(report->stream.applied_lsn, 200);
    cr_expect_str_eq(report->stream.blocker, "", "it blocks nobody who is not there");
    pen_report_destroy(report);
}

Test(status, counters_never_go_back)
{
    pen_status_show_stream(status, stream);
    apply(5);
    cr_expect_eq(applied(), 5);
    pen_meter_init(
        pen_stream_worker_meter(stream, 0)); /* as a wait that is in it twice, and then once */
    apply(3);
    cr_expect_eq(applied(), 5);
    apply(3);
    cr_expect_eq(applied(), 6);
}

/* What a stream with --streaming parallel says of the thread that only it has. */
Test(status, the_eager_worker_is_one_more_thread)
{
    pen_stream_destroy(stream);
    options.streaming = PEN_STREAMING_PARALLEL;
    pen_error err;
    cr_assert(pen_stream_create(&options, &stream, &err), "%s", err.text);
    pen_status_show_stream(status, stream);
    pen_meter_begin(pen_stream_worker_meter(stream, 1), PEN_METRIC_WORKER_TIME);
    pen_meter_end();
    pen_meter_begin(pen_stream_eager_meter(stream), PEN_METRIC_EAGER_TIME);
    pen_report *report = pen_status_look(status);
    cr_expect(report->stream.has_eager);
    cr_expect(report->stream.threads[report->stream.thread_count - 1].activity.runs);
    cr_expect_not(report->stream.threads[report->stream.thread_count - 2].activity.runs);
    char *text = pen_report_json(report);
    cr_expect_not_null(strstr(text, "\"eager_worker\":{\"doing\":\"busy\""), "%s", text);
    free(text);
    pen_report_destroy(report);
    pen_meter_end();
}

Test(status, the_oldest_transaction_in_hand)
{
    pen_status_show_stream(status, stream);
    pen_meter_begin(pen_stream_worker_meter(stream, 1), PEN_METRIC_WORKER_TIME);
    pen_meter_take(pen_pgtime_now() - 5000000);
    pen_report *report = pen_status_look(status);
    cr_expect(report->stream.lag_seconds >= 5 && report->stream.lag_seconds < 20);
    pen_report_destroy(report);
    pen_meter_put();
    report = pen_status_look(status);
    cr_expect_eq(report->stream.lag_seconds, 0);
    pen_report_destroy(report);
    pen_meter_end();
    pen_meter_begin(pen_stream_reader_meter(stream), PEN_METRIC_READER_TIME);
    pen_meter_take(pen_pgtime_now() - 7000000); /* a Commit that it holds back */
    report = pen_status_look(status);
    cr_expect(report->stream.lag_seconds >= 7 && report->stream.lag_seconds < 20);
    cr_expect_eq(report->stream.threads[0].batch, 0);
    pen_report_destroy(report);
    pen_meter_take(pen_pgtime_now() + 60000000); /* a clock that is ahead */
    report = pen_status_look(status);
    cr_expect_eq(report->stream.lag_seconds, 0);
    pen_report_destroy(report);
    pen_meter_put();
    pen_meter_end();
}

Test(status, rates_are_of_the_last_samples)
{
    pen_status_show_stream(status, stream);
    apply(1000000); /* long ago */
    pen_status_sample(status);
    usleep(100000);
    apply(100);
    pen_report *report = pen_status_look(status);
    double rate = report->stream.transactions_per_s;
    cr_expect(rate > 10 && rate < 1001, "%f", rate);
    pen_report_destroy(report);
    for (int i = 0; i < 20; i++) {
        pen_status_sample(status);
    }
    report = pen_status_look(status);
    cr_expect_eq(report->stream.transactions_per_s, 0);
    pen_report_destroy(report);
}

Test(status, the_directory_is_told_once_it_is_ours)
{
    uint64_t told;
    cr_expect_null(pen_status_dir(status));
    cr_expect_eq(read(pen_status_wake_fd(status), &told, sizeof(told)), -1);
    pen_status_has_dir(status);
    cr_expect_str_eq(pen_status_dir(status), "./shop.penstock");
    cr_expect_eq(read(pen_status_wake_fd(status), &told, sizeof(told)), sizeof(told));
}

Test(status, without_a_board_nothing_is_noted)
{
    pen_status_phase(NULL, "copy");
    pen_status_state(NULL, PEN_STATE_STOPPING, "");
    pen_status_recover(NULL, true, "");
    pen_status_show_stream(NULL, stream);
    pen_status_hide_stream(NULL);
    pen_status_hide_copy(NULL);
    pen_status_show_indexes(NULL, NULL);
    pen_status_has_dir(NULL);
    pen_status_destroy(NULL);
}
