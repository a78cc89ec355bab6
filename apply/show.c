#include "apply/show.h"

#include "apply/stages.h"
#include "core/log.h"

#include <inttypes.h>
#include <unistd.h>

/* Between two progress lines: for a person who watches, and for a log. */
#define SHOW_WATCHED_US (2 * 1000 * 1000)
#define SHOW_LOGGED_US  (10 * 1000 * 1000)

#define PROGRESS_FIELDS 8
#define SUMMARY_FIELDS  13
#define TROUBLE_FIELDS  3
#define SIZE_FIELDS     6
#define METRIC_FIELDS   (PEN_METRIC_COUNT + SIZE_FIELDS)

/* Puts what did not go smoothly behind the `count` fields, and gives their number then; `always`:
 * even where it is nothing. */
static size_t add_trouble(const pen_stream *stream, const uint64_t sums[PEN_METRIC_COUNT],
                          bool always, pen_log_field *fields, size_t count)
{
    const pen_log_field trouble[TROUBLE_FIELDS] = {
        {"retries", PEN_FIELD_U64, .u64 = sums[PEN_METRIC_RETRIES]},
        {"skipped", PEN_FIELD_U64, .u64 = pen_counter_get(&stream->conflicts.skipped)},
        {"overwritten", PEN_FIELD_U64, .u64 = pen_counter_get(&stream->conflicts.overwritten)},
    };
    for (size_t i = 0; i < TROUBLE_FIELDS; i++) {
        if (always || trouble[i].u64 > 0) {
            fields[count++] = trouble[i];
        }
    }
    return count;
}

void pen_show_progress(pen_run *run)
{
    pen_stream *stream = run->stream;
    pen_progress_style style = stream->options->progress;
    bool watched = style == PEN_PROGRESS_AUTO && isatty(STDERR_FILENO);
    int64_t now_us = pen_now_us();
    if (style == PEN_PROGRESS_NONE ||
        now_us - run->shown_us < (watched ? SHOW_WATCHED_US : SHOW_LOGGED_US)) {
        return;
    }
    char applied[PEN_LSN_TEXT_SIZE];
    char durable[PEN_LSN_TEXT_SIZE];
    uint64_t sums[PEN_METRIC_COUNT];
    pen_stream_count(stream, sums);
    uint64_t txns = sums[PEN_METRIC_TRANSACTIONS];
    double seconds = (double)(now_us - run->shown_us) / 1e6;
    pen_log_field fields[PROGRESS_FIELDS + TROUBLE_FIELDS] = {
        {"transactions", PEN_FIELD_U64, .u64 = txns},
        {"rate", PEN_FIELD_DOUBLE, .real = (double)(txns - run->shown_txns) / seconds},
        {"rows", PEN_FIELD_U64, .u64 = sums[PEN_METRIC_CHANGES]},
        {"waiting", PEN_FIELD_U64, .u64 = sums[PEN_METRIC_RECEIVED_TRANSACTIONS] - txns},
        {"applied_lsn", PEN_FIELD_TEXT,
         .text = pen_lsn_format(pen_cell_read(&stream->applied_lsn), applied)},
        {"durable_lsn", PEN_FIELD_TEXT,
         .text = pen_lsn_format(pen_cell_read(&stream->durable_lsn), durable)},
        {"disk", PEN_FIELD_TEXT, .text = pen_cell_read(&stream->disk_full) ? "full" : "ok"},
        {"memory_mb", PEN_FIELD_U64, .u64 = pen_budget_used(&stream->budget) >> 20},
    };
    size_t count = add_trouble(stream, sums, false, fields, PROGRESS_FIELDS);
    pen_log_fields(PEN_LOG_INFO, "streaming", fields, count);
    run->shown_us = now_us;
    run->shown_txns = txns;
}

static const char *reason_word(pen_stop_reason reason)
{
    switch (reason) {
    case PEN_REASON_STOP_AT:
        return "stop-at";
    case PEN_REASON_CAUGHT_UP:
        return "caught-up";
    case PEN_REASON_SIGNAL:
        return "signal";
    case PEN_REASON_FAILED:
        return "failed";
    case PEN_REASON_NONE:
        break;
    }
    return "none";
}

/* What came, by kind: "Begin" and its number, and so on. */
static void show_messages(const pen_run *run)
{
    pen_log_field fields[PEN_COUNTOF(run->messages)];
    size_t count = 0;
    for (size_t kind = 0; kind < PEN_COUNTOF(run->messages); kind++) {
        if (run->messages[kind] > 0) {
            fields[count++] = (pen_log_field){pen_message_kind_name((pen_message_kind)kind),
                                              PEN_FIELD_U64, .u64 = run->messages[kind]};
        }
    }
    pen_log_fields(PEN_LOG_DEBUG, "messages received", fields, count);
}

/* Of one distribution, merged from all threads. */
static void merge(const pen_stream *stream, pen_distribution which, pen_histogram *hist)
{
    pen_histogram_init(hist);
    pen_meters_merge(stream->meters, stream->meter_count, which, hist);
}

/* How the stages spent their time, and how large the batches were, for people. */
static void show_stages(const uint64_t sums[PEN_METRIC_COUNT], const pen_histogram *txns,
                        const pen_histogram *changes)
{
    char text[PEN_STAGE_TEXT_SIZE];
    for (unsigned i = 0; i < PEN_STAGE_COUNT; i++) {
        if (pen_stages_describe(sums, i, text)) {
            pen_log(PEN_LOG_INFO, "%s", text);
        }
    }
    if (sums[PEN_METRIC_BATCHES] > 0) {
        pen_log(PEN_LOG_INFO,
                "batches: %" PRIu64 ", half of them with up to %" PRId64
                " transactions and %" PRId64 " changes, the largest with up to %" PRId64
                " and %" PRId64 "; limited by %s",
                sums[PEN_METRIC_BATCHES], pen_histogram_percentile(txns, 50),
                pen_histogram_percentile(changes, 50), pen_histogram_percentile(txns, 100),
                pen_histogram_percentile(changes, 100), pen_limit_words(pen_stages_limit(sums)));
    }
}

/* Every number there is, but those that have a field already, for programs. */
static size_t add_metrics(const uint64_t sums[PEN_METRIC_COUNT], const pen_histogram *txns,
                          const pen_histogram *changes, pen_log_field *fields, size_t count)
{
    for (size_t i = 0; i < PEN_METRIC_COUNT; i++) {
        const pen_metric_row *row = &pen_metric_rows[i];
        if (i == PEN_METRIC_RETRIES) {
            continue;
        }
        fields[count++] =
            row->unit == PEN_UNIT_SECONDS
                ? (pen_log_field){row->name, PEN_FIELD_DOUBLE, .real = (double)sums[i] / 1e6}
                : (pen_log_field){row->name, PEN_FIELD_U64, .u64 = sums[i]};
    }
    const struct {
        const char *name;
        const pen_histogram *hist;
        double percent;
    } sizes[SIZE_FIELDS] = {
        {"batch_transactions_p50", txns, 50},  {"batch_transactions_p99", txns, 99},
        {"batch_transactions_max", txns, 100}, {"batch_changes_p50", changes, 50},
        {"batch_changes_p99", changes, 99},    {"batch_changes_max", changes, 100},
    };
    for (size_t i = 0; i < SIZE_FIELDS; i++) {
        int64_t value = pen_histogram_percentile(sizes[i].hist, sizes[i].percent);
        fields[count++] = (pen_log_field){sizes[i].name, PEN_FIELD_U64, .u64 = (uint64_t)value};
    }
    return count;
}

/* The last line, for people and scripts. */
void pen_show_summary(const pen_run *run, pen_stop_reason reason)
{
    const pen_stream *stream = run->stream;
    show_messages(run);
    uint64_t sums[PEN_METRIC_COUNT];
    pen_histogram lag;
    pen_histogram txns;
    pen_histogram changes;
    pen_stream_count(stream, sums);
    merge(stream, PEN_DISTRIBUTION_LAG, &lag);
    merge(stream, PEN_DISTRIBUTION_BATCH_TRANSACTIONS, &txns);
    merge(stream, PEN_DISTRIBUTION_BATCH_CHANGES, &changes);
    char applied[PEN_LSN_TEXT_SIZE];
    char durable[PEN_LSN_TEXT_SIZE];
    pen_log_field fields[SUMMARY_FIELDS + TROUBLE_FIELDS + METRIC_FIELDS] = {
        {"reason", PEN_FIELD_TEXT, .text = reason_word(reason)},
        {"transactions", PEN_FIELD_U64, .u64 = sums[PEN_METRIC_TRANSACTIONS]},
        {"rows", PEN_FIELD_U64, .u64 = sums[PEN_METRIC_CHANGES]},
        {"batches", PEN_FIELD_U64, .u64 = sums[PEN_METRIC_BATCHES]},
        {"limit", PEN_FIELD_TEXT, .text = pen_limit_word(pen_stages_limit(sums))},
        {"recoveries", PEN_FIELD_U64, .u64 = run->recoveries},
        {"seconds", PEN_FIELD_DOUBLE, .real = (double)(pen_now_us() - run->started_us) / 1e6},
        {"lag_p50_ms", PEN_FIELD_DOUBLE, .real = (double)pen_histogram_percentile(&lag, 50) / 1e3},
        {"lag_p99_ms", PEN_FIELD_DOUBLE, .real = (double)pen_histogram_percentile(&lag, 99) / 1e3},
        {"lag_max_ms", PEN_FIELD_DOUBLE, .real = (double)pen_histogram_percentile(&lag, 100) / 1e3},
        {"committed_lsn", PEN_FIELD_TEXT,
         .text = pen_lsn_format(pen_cell_read(&stream->applied_lsn), applied)},
        {"durable_lsn", PEN_FIELD_TEXT,
         .text = pen_lsn_format(pen_cell_read(&stream->durable_lsn), durable)},
        {"memory_peak_mb", PEN_FIELD_U64, .u64 = pen_budget_peak(&stream->budget) >> 20},
    };
    size_t count = add_trouble(stream, sums, true, fields, SUMMARY_FIELDS);
    if (pen_log_is_json()) {
        count = add_metrics(sums, &txns, &changes, fields, count);
    } else {
        show_stages(sums, &txns, &changes);
    }
    pen_log_fields(PEN_LOG_INFO, "stream finished", fields, count);
}
