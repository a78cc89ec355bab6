#include "apply/report.h"

#include "core/text.h"

#include <inttypes.h>
#include <math.h>

/* Prometheus' text format: https://prometheus.io/docs/instrumenting/exposition_formats/. What is
 * counted comes from core/metrics.def; what else there is to tell stands here: where the stream and
 * the copy are at this moment. */

#define PREFIX "penstock_"

/* Text behind HELP, or a label's value. */
static void append_escaped(pen_text *out, const char *text, bool quoted)
{
    for (; *text != '\0'; text++) {
        char one[2] = {*text, '\0'};
        bool quote = *text == '"' && quoted;
        pen_text_append(out, *text == '\n' ? "\\n" : *text == '\\' ? "\\\\" : quote ? "\\\"" : one);
    }
}

static void open_family(pen_text *out, const char *name, const char *suffix, const char *type,
                        const char *help)
{
    pen_text_appendf(out, "# HELP " PREFIX "%s%s ", name, suffix);
    append_escaped(out, help, false);
    pen_text_appendf(out, "\n# TYPE " PREFIX "%s%s %s\n", name, suffix, type);
}

static void append_count(pen_text *out, const char *name, const char *suffix, uint64_t value,
                         pen_metric_unit unit)
{
    if (unit == PEN_UNIT_SECONDS) {
        pen_text_appendf(out, PREFIX "%s%s %" PRIu64 ".%06u\n", name, suffix, value / 1000000,
                         (unsigned)(value % 1000000));
    } else {
        pen_text_appendf(out, PREFIX "%s%s %" PRIu64 "\n", name, suffix, value);
    }
}

static void append_metrics(pen_text *out, const pen_report_stream *stream)
{
    for (size_t i = 0; i < PEN_METRIC_COUNT; i++) {
        const pen_metric_row *row = &pen_metric_rows[i];
        bool counter = row->kind == PEN_KIND_COUNTER;
        const char *suffix = counter ? "_total" : "";
        open_family(out, row->name, suffix, counter ? "counter" : "gauge", row->help);
        append_count(out, row->name, suffix, stream->sums[i], row->unit);
    }
}

/* Upper ends of the buckets, in microseconds or as they are. */
static const int64_t second_ends[] = {1000,    5000,    10000,    50000,    100000,    500000,
                                      1000000, 5000000, 10000000, 60000000, 600000000, 3600000000};
static const int64_t size_ends[] = {1,   2,   5,    10,   20,   50,    100,
                                    200, 500, 1000, 2000, 5000, 10000, 50000};

static void append_distribution(pen_text *out, const pen_metric_row *row, const pen_histogram *hist)
{
    bool seconds = row->unit == PEN_UNIT_SECONDS;
    const int64_t *ends = seconds ? second_ends : size_ends;
    size_t count = seconds ? PEN_COUNTOF(second_ends) : PEN_COUNTOF(size_ends);
    double scale = seconds ? 1e6 : 1;
    uint64_t total = pen_histogram_count(hist);
    open_family(out, row->name, "", "histogram", row->help);
    for (size_t i = 0; i < count; i++) {
        pen_text_appendf(out, PREFIX "%s_bucket{le=\"%g\"} %" PRIu64 "\n", row->name,
                         (double)ends[i] / scale, pen_histogram_count_to(hist, ends[i]));
    }
    pen_text_appendf(out, PREFIX "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", row->name, total);
    pen_text_appendf(out, PREFIX "%s_sum %.6f\n", row->name, pen_histogram_sum(hist) / scale);
    pen_text_appendf(out, PREFIX "%s_count %" PRIu64 "\n", row->name, total);
}

typedef struct fact {
    const char *name;
    const char *type;
    const char *help;
    double value;
} fact;

static void append_facts(pen_text *out, const fact *facts, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        open_family(out, facts[i].name, "", facts[i].type, facts[i].help);
        bool whole = facts[i].value == floor(facts[i].value) && facts[i].value < 1e15;
        pen_text_appendf(out, whole ? PREFIX "%s %.0f\n" : PREFIX "%s %.17g\n", facts[i].name,
                         facts[i].value);
    }
}

static unsigned busy_workers(const pen_report_stream *stream)
{
    unsigned busy = 0;
    for (unsigned i = 0; i < stream->worker_count; i++) {
        busy += stream->threads[1 + stream->dispatcher_count + i].activity.has_work;
    }
    return busy;
}

static void append_stream(pen_text *out, const pen_report_stream *stream)
{
    const fact facts[] = {
        {"source_lsn_bytes", "gauge", "Where the source's WAL was flushed to, as a byte position.",
         (double)stream->source_lsn},
        {"received_lsn_bytes", "gauge", "Everything before this position has arrived.",
         (double)stream->received_lsn},
        {"dispatched_lsn_bytes", "gauge",
         "End of the last transaction that was given to a dispatcher.",
         (double)stream->dispatched_lsn},
        {"applied_lsn_bytes", "gauge", "End of the newest transaction visible on the target.",
         (double)stream->applied_lsn},
        {"durable_lsn_bytes", "gauge", "Everything before this position is durable on the target.",
         (double)stream->durable_lsn},
        {"confirmed_lsn_bytes", "gauge",
         "The source was told that it may forget its WAL before this position.",
         (double)stream->confirmed_lsn},
        {"backlog_bytes", "gauge",
         "The source's WAL, as far as it is known, that is not on the target yet.",
         (double)pen_report_lag_bytes(stream)},
        {"oldest_transaction_seconds", "gauge",
         "Age of the oldest transaction under way, by the two clocks; 0 when there is none.",
         stream->lag_seconds},
        {"blocked", "gauge",
         "1 while somebody else's session on the target holds the stream up by a lock.",
         stream->blocker[0] != '\0'},
        {"workers", "gauge", "Workers.", (double)stream->worker_count},
        {"workers_with_batch", "gauge", "Workers that have a batch in hand.",
         (double)busy_workers(stream)},
        {"memory_limit_bytes", "gauge", "What --memory allows.", (double)stream->memory_limit},
        {"spool_bytes", "gauge", "Size of the spool in the state directory.",
         (double)stream->spool_bytes},
        {"disk_full", "gauge", "1 while the state directory has no room and nothing is received.",
         stream->disk_full},
        {"skipped_changes_total", "counter", "Changes that --on-conflict has left out.",
         (double)stream->skipped},
        {"overwritten_changes_total", "counter", "Changes that --on-conflict has put right.",
         (double)stream->overwritten},
    };
    append_facts(out, facts, PEN_COUNTOF(facts));
    append_metrics(out, stream);
    for (size_t i = 0; i < PEN_DISTRIBUTION_COUNT; i++) {
        append_distribution(out, &pen_distribution_rows[i], &stream->distributions[i]);
    }
}

static void append_copy(pen_text *out, const pen_report_copy *copy)
{
    const fact facts[] = {
        {"copy_ratio", "gauge", "What of the tables is copied, 0 to 1, by size.", copy->part},
        {"copy_tables", "gauge", "Tables that are to be copied.", (double)copy->tables},
        {"copy_tables_left", "gauge", "Those of them that are not whole yet.",
         (double)copy->tables_left},
        {"copy_rows", "gauge", "Rows copied in this round.", (double)copy->rows},
        {"copy_bytes", "gauge", "Bytes copied in this round.", (double)copy->bytes},
    };
    append_facts(out, facts, PEN_COUNTOF(facts));
}

char *pen_report_metrics(const pen_report *report)
{
    pen_text out = {0};
    open_family(&out, "info", "", "gauge", "What runs here; always 1.");
    pen_text_append(&out, PREFIX "info{name=\"");
    append_escaped(&out, report->name, true);
    pen_text_appendf(&out, "\",command=\"%s\",version=\"%s\",phase=\"%s\",state=\"%s\"} 1\n",
                     report->command, PEN_VERSION, report->phase, pen_state_word(report->state));
    const fact facts[] = {
        {"start_time_seconds", "gauge", "When the process started, in seconds of the UNIX epoch.",
         (double)report->started_us / 1e6},
        {"healthy", "gauge", "1 while /healthz answers with 200.", report->healthy},
        {"recoveries_total", "counter", "Times that a lost connection was made anew.",
         (double)report->recoveries},
    };
    append_facts(&out, facts, PEN_COUNTOF(facts));
    if (report->stream.there) {
        append_stream(&out, &report->stream);
    }
    if (report->copy.there) {
        append_copy(&out, &report->copy);
    }
    if (report->has_indexes) {
        const fact indexes[] = {
            {"indexes", "gauge", "Indexes and the like that are being built.",
             (double)report->indexes},
            {"indexes_left", "gauge", "Those of them that are not built yet.",
             (double)report->indexes_left},
        };
        append_facts(&out, indexes, PEN_COUNTOF(indexes));
    }
    return pen_text_take(&out);
}
