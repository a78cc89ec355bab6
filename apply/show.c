#include "apply/show.h"

#include "core/log.h"

#include <unistd.h>

/* Between two progress lines: for a person who watches, and for a log. */
#define SHOW_WATCHED_US (2 * 1000 * 1000)
#define SHOW_LOGGED_US  (10 * 1000 * 1000)

#define PROGRESS_FIELDS 8
#define SUMMARY_FIELDS  12
#define TROUBLE_FIELDS  3

/* Puts what did not go smoothly behind the `count` fields, and gives their number then; `always`:
 * even where it is nothing. */
static size_t add_trouble(const pen_stream *stream, bool always, pen_log_field *fields,
                          size_t count)
{
    const pen_log_field trouble[TROUBLE_FIELDS] = {
        {"retries", PEN_FIELD_U64, .u64 = pen_counter_get(&stream->retries)},
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
    uint64_t txns = pen_counter_get(&stream->txns_applied);
    double seconds = (double)(now_us - run->shown_us) / 1e6;
    pen_log_field fields[PROGRESS_FIELDS + TROUBLE_FIELDS] = {
        {"transactions", PEN_FIELD_U64, .u64 = txns},
        {"rate", PEN_FIELD_DOUBLE, .real = (double)(txns - run->shown_txns) / seconds},
        {"rows", PEN_FIELD_U64, .u64 = pen_counter_get(&stream->changes_applied)},
        {"waiting", PEN_FIELD_U64, .u64 = pen_counter_get(&stream->txns_handed) - txns},
        {"applied_lsn", PEN_FIELD_TEXT,
         .text = pen_lsn_format(pen_cell_read(&stream->applied_lsn), applied)},
        {"durable_lsn", PEN_FIELD_TEXT,
         .text = pen_lsn_format(pen_cell_read(&stream->durable_lsn), durable)},
        {"disk", PEN_FIELD_TEXT, .text = pen_cell_read(&stream->disk_full) ? "full" : "ok"},
        {"memory_mb", PEN_FIELD_U64, .u64 = pen_budget_used(&stream->budget) >> 20},
    };
    size_t count = add_trouble(stream, false, fields, PROGRESS_FIELDS);
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

/* The last line, for people and scripts. */
void pen_show_summary(const pen_run *run, pen_stop_reason reason)
{
    const pen_stream *stream = run->stream;
    show_messages(run);
    const pen_histogram *lag = &run->lag;
    char applied[PEN_LSN_TEXT_SIZE];
    char durable[PEN_LSN_TEXT_SIZE];
    pen_log_field fields[SUMMARY_FIELDS + TROUBLE_FIELDS] = {
        {"reason", PEN_FIELD_TEXT, .text = reason_word(reason)},
        {"transactions", PEN_FIELD_U64, .u64 = pen_counter_get(&stream->txns_applied)},
        {"rows", PEN_FIELD_U64, .u64 = pen_counter_get(&stream->changes_applied)},
        {"batches", PEN_FIELD_U64, .u64 = pen_counter_get(&stream->batches_applied)},
        {"recoveries", PEN_FIELD_U64, .u64 = run->recoveries},
        {"seconds", PEN_FIELD_DOUBLE, .real = (double)(pen_now_us() - run->started_us) / 1e6},
        {"lag_p50_ms", PEN_FIELD_DOUBLE, .real = (double)pen_histogram_percentile(lag, 50) / 1e3},
        {"lag_p99_ms", PEN_FIELD_DOUBLE, .real = (double)pen_histogram_percentile(lag, 99) / 1e3},
        {"lag_max_ms", PEN_FIELD_DOUBLE, .real = (double)pen_histogram_percentile(lag, 100) / 1e3},
        {"committed_lsn", PEN_FIELD_TEXT,
         .text = pen_lsn_format(pen_cell_read(&stream->applied_lsn), applied)},
        {"durable_lsn", PEN_FIELD_TEXT,
         .text = pen_lsn_format(pen_cell_read(&stream->durable_lsn), durable)},
        {"memory_peak_mb", PEN_FIELD_U64, .u64 = pen_budget_peak(&stream->budget) >> 20},
    };
    size_t count = add_trouble(stream, true, fields, SUMMARY_FIELDS);
    pen_log_fields(PEN_LOG_INFO, "stream finished", fields, count);
}
