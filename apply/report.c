#include "apply/report.h"

#include "core/escape.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

pen_report *pen_report_create(void)
{
    return pen_calloc(1, sizeof(pen_report));
}

void pen_report_destroy(pen_report *report)
{
    if (report != NULL) {
        free(report->stream.threads);
        free(report);
    }
}

const char *pen_state_word(pen_state state)
{
    static const char *const words[] = {
        [PEN_STATE_STARTING] = "starting",   [PEN_STATE_PREPARING] = "preparing",
        [PEN_STATE_STREAMING] = "streaming", [PEN_STATE_RECOVERING] = "recovering",
        [PEN_STATE_STOPPING] = "stopping",
    };
    return words[state];
}

uint64_t pen_report_lag_bytes(const pen_report_stream *stream)
{
    pen_lsn newest = stream->source_lsn;
    pen_lsn applied = stream->applied_lsn;
    /* Everything that was given to the workers is there, so what came behind it has no changes. */
    if (applied >= stream->dispatched_lsn && stream->received_lsn > applied) {
        applied = stream->received_lsn;
    }
    return newest > applied ? newest - applied : 0;
}

void pen_report_judge(pen_report *report)
{
    bool works = report->state == PEN_STATE_PREPARING || report->state == PEN_STATE_STREAMING;
    report->healthy = works && !report->stream.disk_full;
    report->trouble[0] = '\0';
    if (report->healthy) {
        return;
    }
    if (works) {
        snprintf(report->trouble, sizeof(report->trouble),
                 "the disk with the state directory is full: nothing is received");
        return;
    }
    snprintf(report->trouble, sizeof(report->trouble), "%s%s%s", pen_state_word(report->state),
             report->reason[0] == '\0' ? "" : ": ", report->reason);
}

/* Text of any origin, as UTF-8 that no terminal acts on. */
static json_t *text_of(const char *text)
{
    char *shown = pen_escape_text(text);
    json_t *made = json_string(shown);
    free(shown);
    return made;
}

static json_t *text_or_null(const char *text)
{
    return text[0] == '\0' ? json_null() : text_of(text);
}

static json_t *lsn_of(pen_lsn lsn)
{
    char text[PEN_LSN_TEXT_SIZE];
    return lsn == PEN_LSN_NONE ? json_null() : json_string(pen_lsn_format(lsn, text));
}

static json_t *count_of(uint64_t number)
{
    return json_integer(number > INT64_MAX ? INT64_MAX : (json_int_t)number);
}

/* Digits beyond the third are noise. */
static json_t *real_of(double number)
{
    return json_real((double)(int64_t)(number * 1000 + 0.5) / 1000);
}

static json_t *time_of(int64_t unix_us)
{
    char text[40];
    time_t seconds = (time_t)(unix_us / 1000000);
    struct tm parts;
    gmtime_r(&seconds, &parts);
    size_t len = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(text + len, sizeof(text) - len, ".%03dZ", (int)(unix_us % 1000000 / 1000));
    return json_string(text);
}

static void put(json_t *object, const char *name, json_t *value)
{
    PEN_ASSERT(value != NULL && json_object_set_new(object, name, value) == 0);
}

static json_t *place_of(const pen_pgplace *place)
{
    json_t *made = json_object();
    put(made, "host", text_or_null(place->host));
    put(made, "port", text_or_null(place->port));
    put(made, "database", text_or_null(place->database));
    put(made, "user", text_or_null(place->user));
    return made;
}

static const char *doing_of(const pen_activity *activity)
{
    return !activity->runs                           ? "nothing: it does not run"
           : activity->waits_for == PEN_METRIC_COUNT ? "busy"
                                                     : pen_stages_wait(activity->waits_for);
}

static json_t *thread_of(const pen_report_thread *thread)
{
    json_t *made = json_object();
    const pen_activity *activity = &thread->activity;
    put(made, "doing", json_string(doing_of(activity)));
    put(made, "seconds", real_of((double)activity->waits_us / 1e6));
    return made;
}

static json_t *workers_of(const pen_report_stream *stream)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < stream->worker_count; i++) {
        const pen_report_thread *thread = &stream->threads[1 + stream->dispatcher_count + i];
        json_t *made = thread_of(thread);
        put(made, "number", json_integer((json_int_t)i + 1));
        put(made, "batch", thread->batch == 0 ? json_null() : count_of(thread->batch));
        put(made, "batch_seconds",
            thread->activity.has_work ? real_of((double)thread->activity.works_us / 1e6)
                                      : json_null());
        json_array_append_new(list, made);
    }
    return list;
}

static json_t *dispatchers_of(const pen_report_stream *stream)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < stream->dispatcher_count; i++) {
        json_array_append_new(list, thread_of(&stream->threads[1 + i]));
    }
    return list;
}

/* Every number there is, for programs, named as in core/metrics.def. */
static json_t *metrics_of(const pen_report_stream *stream)
{
    json_t *made = json_object();
    for (size_t i = 0; i < PEN_METRIC_COUNT; i++) {
        const pen_metric_row *row = &pen_metric_rows[i];
        put(made, row->name,
            row->unit == PEN_UNIT_SECONDS ? real_of((double)stream->sums[i] / 1e6)
                                          : count_of(stream->sums[i]));
    }
    for (size_t i = 0; i < PEN_DISTRIBUTION_COUNT; i++) {
        const pen_metric_row *row = &pen_distribution_rows[i];
        double scale = row->unit == PEN_UNIT_SECONDS ? 1e6 : 1;
        json_t *percentiles = json_object();
        put(percentiles, "p50",
            real_of((double)pen_histogram_percentile(&stream->distributions[i], 50) / scale));
        put(percentiles, "p99",
            real_of((double)pen_histogram_percentile(&stream->distributions[i], 99) / scale));
        put(percentiles, "max",
            real_of((double)pen_histogram_percentile(&stream->distributions[i], 100) / scale));
        put(made, row->name, percentiles);
    }
    return made;
}

static void put_positions(json_t *made, const pen_report_stream *stream)
{
    put(made, "source_lsn", lsn_of(stream->source_lsn));
    put(made, "received_lsn", lsn_of(stream->received_lsn));
    put(made, "dispatched_lsn", lsn_of(stream->dispatched_lsn));
    put(made, "applied_lsn", lsn_of(stream->applied_lsn));
    put(made, "durable_lsn", lsn_of(stream->durable_lsn));
    put(made, "confirmed_lsn", lsn_of(stream->confirmed_lsn));
    put(made, "stop_lsn", lsn_of(stream->stop_lsn));
    put(made, "lag_bytes", count_of(pen_report_lag_bytes(stream)));
    put(made, "lag_seconds", real_of(stream->lag_seconds));
}

static json_t *rates_of(const pen_report_stream *stream)
{
    json_t *made = json_object();
    put(made, "seconds", real_of(stream->seconds));
    put(made, "transactions_per_s", real_of(stream->transactions_per_s));
    put(made, "rows_per_s", real_of(stream->changes_per_s));
    put(made, "received_bytes_per_s", real_of(stream->received_bytes_per_s));
    return made;
}

static json_t *stream_of(const pen_report_stream *stream)
{
    if (!stream->there) {
        return json_null();
    }
    json_t *made = json_object();
    put_positions(made, stream);
    uint64_t received = stream->sums[PEN_METRIC_RECEIVED_TRANSACTIONS];
    uint64_t applied = stream->sums[PEN_METRIC_TRANSACTIONS];
    put(made, "transactions", count_of(applied));
    put(made, "rows", count_of(stream->sums[PEN_METRIC_CHANGES]));
    put(made, "batches", count_of(stream->sums[PEN_METRIC_BATCHES]));
    put(made, "waiting_transactions", count_of(received > applied ? received - applied : 0));
    put(made, "rates", rates_of(stream));
    put(made, "limit", json_string(pen_limit_word(stream->limit)));
    put(made, "limit_words", json_string(pen_limit_words(stream->limit)));
    put(made, "blocker", text_or_null(stream->blocker));
    put(made, "retries", count_of(stream->sums[PEN_METRIC_RETRIES]));
    put(made, "skipped", count_of(stream->skipped));
    put(made, "overwritten", count_of(stream->overwritten));
    put(made, "memory_bytes", count_of(stream->sums[PEN_METRIC_MEMORY_USED]));
    put(made, "memory_limit_bytes", count_of(stream->memory_limit));
    put(made, "spool_bytes", count_of(stream->spool_bytes));
    put(made, "disk_full", json_boolean(stream->disk_full));
    put(made, "reader", thread_of(&stream->threads[0]));
    put(made, "dispatchers", dispatchers_of(stream));
    put(made, "workers", workers_of(stream));
    put(made, "eager_worker",
        stream->has_eager ? thread_of(&stream->threads[stream->thread_count - 1]) : json_null());
    put(made, "metrics", metrics_of(stream));
    return made;
}

static json_t *copy_of(const pen_report_copy *copy)
{
    if (!copy->there) {
        return json_null();
    }
    json_t *made = json_object();
    json_t *work = json_array();
    put(made, "round", json_integer(copy->round));
    put(made, "percent", real_of(copy->part * 100));
    put(made, "tables", count_of(copy->tables));
    put(made, "tables_left", count_of(copy->tables_left));
    put(made, "rows", count_of(copy->rows));
    put(made, "bytes", count_of(copy->bytes));
    put(made, "rows_per_s", real_of(copy->rows_per_s));
    put(made, "bytes_per_s", real_of(copy->bytes_per_s));
    put(made, "jobs", count_of(copy->jobs));
    for (unsigned i = 0; i < copy->in_work; i++) {
        json_t *table = json_object();
        put(table, "table", text_of(copy->work[i].name));
        put(table, "percent", real_of(copy->work[i].part * 100));
        put(table, "rows", count_of(copy->work[i].rows));
        put(table, "bytes", count_of(copy->work[i].bytes));
        json_array_append_new(work, table);
    }
    put(made, "in_work", work);
    return made;
}

static json_t *indexes_of(const pen_report *report)
{
    if (!report->has_indexes) {
        return json_null();
    }
    json_t *made = json_object();
    put(made, "total", count_of(report->indexes));
    put(made, "left", count_of(report->indexes_left));
    return made;
}

static json_t *notes_of(const pen_report *report)
{
    json_t *list = json_array();
    for (size_t i = 0; i < report->note_count; i++) {
        const pen_log_note *note = &report->notes[i];
        json_t *made = json_object();
        put(made, "time", time_of(note->unix_us));
        put(made, "level", json_string(note->level == PEN_LOG_ERROR ? "error" : "warn"));
        put(made, "message", text_of(note->text));
        json_array_append_new(list, made);
    }
    return list;
}

static double seconds_between(int64_t from_us, int64_t to_us)
{
    return to_us > from_us ? (double)(to_us - from_us) / 1e6 : 0;
}

char *pen_report_json(const pen_report *report)
{
    json_t *made = json_object();
    put(made, "running", json_true());
    put(made, "name", text_of(report->name));
    put(made, "pid", json_integer(report->pid));
    put(made, "version", json_string(PEN_VERSION));
    put(made, "command", text_of(report->command));
    put(made, "time", time_of(report->now_us));
    put(made, "started", time_of(report->started_us));
    put(made, "uptime_seconds", real_of(seconds_between(report->started_us, report->now_us)));
    put(made, "state", json_string(pen_state_word(report->state)));
    put(made, "reason", text_or_null(report->reason));
    put(made, "phase", text_of(report->phase));
    put(made, "phase_since", time_of(report->phase_us));
    put(made, "phase_seconds", real_of(seconds_between(report->phase_us, report->now_us)));
    put(made, "healthy", json_boolean(report->healthy));
    put(made, "trouble", text_or_null(report->trouble));
    put(made, "source", place_of(&report->source));
    put(made, "target", place_of(&report->target));
    put(made, "recoveries", count_of(report->recoveries));
    put(made, "copy", copy_of(&report->copy));
    put(made, "indexes", indexes_of(report));
    put(made, "stream", stream_of(&report->stream));
    put(made, "warnings", notes_of(report));
    char *text = json_dumps(made, JSON_COMPACT);
    PEN_ASSERT(text != NULL);
    json_decref(made);
    return text;
}
