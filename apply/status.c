#include "apply/status.h"

#include "apply/index_job.h"
#include "apply/show_copy.h"
#include "apply/stream.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* The rates are of the time since the oldest of so many samples, one a second. */
#define SAMPLES 6
/* A batch that is under way for so long holds up what comes behind it. */
#define HOLDS_UP_US (1000 * 1000)

typedef struct sample {
    int64_t at_us; /* 0: there is none */
    uint64_t sums[PEN_METRIC_COUNT];
    uint64_t copied_rows;
    uint64_t copied_bytes;
} sample;

struct pen_status {
    const pen_options *options;
    const char *command;
    pen_pgplace source;
    pen_pgplace target;
    int64_t started_us; /* of the UNIX epoch */
    pthread_mutex_t lock;
    /* under the lock */
    const char *phase;
    int64_t phase_us;
    pen_state state;
    char reason[PEN_REASON_SIZE];
    uint64_t recoveries;
    pen_stream *stream;        /* NULL: it cannot be looked at */
    pen_report_stream last;    /* what it said last; its `threads` are ours */
    const pen_copy_plan *plan; /* NULL: no copy runs */
    pen_copy_queue *queue;
    const pen_copy_job *jobs;
    unsigned job_count;
    const pen_index_pool *pool; /* NULL: none is being built */
    bool has_dir;               /* the state directory's lock is ours */
    /* set before the status thread starts, then read-only */
    int wake_fd;
    /* the status thread's */
    sample samples[SAMPLES];
    size_t sampled;
};

static int64_t unix_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

pen_status *pen_status_create(const pen_options *options, const char *command)
{
    pen_status *made = pen_calloc(1, sizeof(*made));
    made->options = options;
    made->command = command;
    made->phase = command;
    made->state = PEN_STATE_STARTING;
    made->started_us = unix_now_us();
    made->phase_us = made->started_us;
    pen_pgconn_place(options->source, &made->source);
    pen_pgconn_place(options->target, &made->target);
    pthread_mutex_init(&made->lock, NULL);
    made->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return made;
}

void pen_status_destroy(pen_status *status)
{
    if (status != NULL) {
        if (status->wake_fd >= 0) {
            close(status->wake_fd);
        }
        pthread_mutex_destroy(&status->lock);
        free(status->last.threads);
        free(status);
    }
}

/* Under the lock. */
static void set_state(pen_status *status, pen_state state, const char *reason)
{
    status->state = state;
    snprintf(status->reason, sizeof(status->reason), "%s", reason == NULL ? "" : reason);
}

void pen_status_phase(pen_status *status, const char *phase)
{
    if (status == NULL) {
        return;
    }
    pthread_mutex_lock(&status->lock);
    if (strcmp(status->phase, phase) != 0) {
        status->phase_us = unix_now_us();
    }
    status->phase = phase;
    if (status->stream == NULL && status->state != PEN_STATE_STOPPING) {
        set_state(status, PEN_STATE_PREPARING, NULL);
    }
    pthread_mutex_unlock(&status->lock);
}

void pen_status_state(pen_status *status, pen_state state, const char *reason)
{
    if (status != NULL) {
        pthread_mutex_lock(&status->lock);
        set_state(status, state, reason);
        pthread_mutex_unlock(&status->lock);
    }
}

void pen_status_recover(pen_status *status, bool again, const char *reason)
{
    if (status != NULL) {
        pthread_mutex_lock(&status->lock);
        status->recoveries += again;
        set_state(status, again ? PEN_STATE_RECOVERING : PEN_STATE_STARTING, reason);
        pthread_mutex_unlock(&status->lock);
    }
}

int pen_status_wake_fd(const pen_status *status)
{
    return status->wake_fd;
}

void pen_status_wake(const pen_status *status)
{
    const uint64_t one = 1;
    (void)!write(status->wake_fd, &one, sizeof(one));
}

void pen_status_has_dir(pen_status *status)
{
    if (status != NULL) {
        pthread_mutex_lock(&status->lock);
        status->has_dir = true;
        pthread_mutex_unlock(&status->lock);
        pen_status_wake(status);
    }
}

const char *pen_status_dir(pen_status *status)
{
    pthread_mutex_lock(&status->lock);
    bool has_dir = status->has_dir;
    pthread_mutex_unlock(&status->lock);
    return has_dir ? status->options->dir : NULL;
}

/* The stream */

/* What one thread after the other does. */
static void read_threads(const pen_stream *stream, pen_report_stream *report)
{
    int64_t oldest = INT64_MAX;
    uint64_t committed = pen_handover_committed(&stream->handover);
    unsigned workers_at = 1 + stream->dealing.count;
    for (size_t i = 0; i < stream->meter_count; i++) {
        pen_report_thread *thread = &report->threads[i];
        thread->activity = pen_meter_look(&stream->meters[i]);
        thread->batch = 0;
        if (!thread->activity.has_work) {
            continue;
        }
        oldest = thread->activity.committed < oldest ? thread->activity.committed : oldest;
        if (i >= workers_at) { /* the reader may wait with a Commit */
            uint64_t held = pen_handover_holding(&stream->handover, (unsigned)i - workers_at);
            thread->batch = held > committed ? held : 0;
        }
    }
    int64_t now = pen_pgtime_now();
    report->lag_seconds = oldest < now ? (double)(now - oldest) / 1e6 : 0;
}

/* A counter that seems to have gone back for a moment (see pen_meters_sum) has not. */
static void read_counters(const pen_stream *stream, pen_report_stream *report)
{
    uint64_t sums[PEN_METRIC_COUNT];
    pen_stream_count(stream, sums);
    for (size_t i = 0; i < PEN_METRIC_COUNT; i++) {
        bool grows = pen_metric_rows[i].kind == PEN_KIND_COUNTER;
        report->sums[i] = grows && report->sums[i] > sums[i] ? report->sums[i] : sums[i];
    }
}

/* Many numbers: only where they are asked for. Under the lock. */
static void read_distributions(pen_status *status)
{
    const pen_stream *stream = status->stream;
    pen_report_stream *report = &status->last;
    for (size_t i = 0; stream != NULL && i < PEN_DISTRIBUTION_COUNT; i++) {
        pen_histogram_init(&report->distributions[i]);
        pen_meters_merge(stream->meters, stream->meter_count, (pen_distribution)i,
                         &report->distributions[i]);
    }
}

static void read_blocker(pen_stream *stream, char text[PEN_BLOCKER_SIZE])
{
    pen_blocker *blocker = &stream->blocker;
    pthread_mutex_lock(&blocker->lock);
    memcpy(text, blocker->text, PEN_BLOCKER_SIZE);
    pthread_mutex_unlock(&blocker->lock);
}

/* All that the stream's threads publish, in an order in which no position seems to be ahead of the
 * one before it on the way. Under the lock. */
static void read_stream(pen_status *status)
{
    pen_stream *stream = status->stream;
    pen_report_stream *report = &status->last;
    if (stream == NULL) {
        return;
    }
    report->confirmed_lsn = pen_cell_read(&stream->reported_lsn);
    report->durable_lsn = pen_cell_read(&stream->durable_lsn);
    report->applied_lsn = pen_cell_read(&stream->applied_lsn);
    report->dispatched_lsn = pen_cell_read(&stream->handed_lsn);
    report->received_lsn = pen_cell_read(&stream->received_lsn);
    /* It was asked for moments ago, and what has come since then is there for sure. */
    pen_lsn source_lsn = pen_cell_read(&stream->source_lsn);
    report->source_lsn = source_lsn > report->received_lsn ? source_lsn : report->received_lsn;
    report->disk_full = pen_cell_read(&stream->disk_full) != 0;
    report->spool_bytes = pen_cell_read(&stream->spool_bytes);
    report->skipped = pen_counter_get(&stream->conflicts.skipped);
    report->overwritten = pen_counter_get(&stream->conflicts.overwritten);
    read_blocker(stream, report->blocker);
    read_threads(stream, report);
    read_counters(stream, report);
}

void pen_status_show_stream(pen_status *status, pen_stream *stream)
{
    if (status == NULL) {
        return;
    }
    pthread_mutex_lock(&status->lock);
    pen_report_stream *last = &status->last;
    if (last->threads == NULL) {
        last->threads = pen_calloc(stream->meter_count, sizeof(*last->threads));
    }
    last->there = true;
    last->thread_count = stream->meter_count;
    last->has_eager = stream->options->streaming == PEN_STREAMING_PARALLEL;
    last->dispatcher_count = stream->dealing.count;
    last->worker_count = stream->worker_count;
    last->memory_limit = stream->options->memory;
    last->stop_lsn = stream->stop_lsn;
    status->stream = stream;
    set_state(status, PEN_STATE_STREAMING, NULL);
    pthread_mutex_unlock(&status->lock);
}

void pen_status_hide_stream(pen_status *status)
{
    if (status == NULL) {
        return;
    }
    pthread_mutex_lock(&status->lock);
    read_stream(status);
    read_distributions(status);
    status->last.blocker[0] = '\0';
    status->stream = NULL;
    pthread_mutex_unlock(&status->lock);
}

/* The copy, and the indexes */

void pen_status_show_copy(pen_status *status, const pen_copy_plan *plan, pen_copy_queue *queue,
                          const pen_copy_job *jobs, unsigned job_count)
{
    if (status != NULL) {
        pthread_mutex_lock(&status->lock);
        status->plan = plan;
        status->queue = queue;
        status->jobs = jobs;
        status->job_count = job_count;
        pthread_mutex_unlock(&status->lock);
    }
}

void pen_status_hide_copy(pen_status *status)
{
    pen_status_show_copy(status, NULL, NULL, NULL, 0);
}

void pen_status_show_indexes(pen_status *status, const pen_index_pool *pool)
{
    if (status != NULL) {
        pthread_mutex_lock(&status->lock);
        status->pool = pool;
        pthread_mutex_unlock(&status->lock);
    }
}

static bool is_told(const pen_copy_table *const *tables, unsigned count, const pen_copy_table *it)
{
    for (unsigned i = 0; i < count; i++) {
        if (tables[i] == it) {
            return true;
        }
    }
    return false;
}

/* Under the lock. */
static void read_copy(pen_status *status, pen_report_copy *report)
{
    pen_copy_queue *queue = status->queue;
    const pen_copy_table *told[PEN_REPORT_TABLES] = {NULL};
    if (status->plan == NULL) {
        return;
    }
    report->there = true;
    report->round = queue->round;
    report->jobs = status->job_count;
    report->tables = status->plan->count;
    report->rows = pen_counter_get(&queue->rows);
    report->bytes = pen_counter_get(&queue->bytes);
    pthread_mutex_lock(&queue->lock);
    report->tables_left = queue->tables_left;
    report->part = pen_copy_part(status->plan);
    for (unsigned i = 0; i < status->job_count && report->in_work < PEN_REPORT_TABLES; i++) {
        const pen_copy_table *table = status->jobs[i].table;
        if (table == NULL || is_told(told, report->in_work, table)) {
            continue;
        }
        unsigned at = report->in_work++;
        told[at] = table;
        snprintf(report->work[at].name, sizeof(report->work[at].name), "%s", table->source_name);
        report->work[at].part = pen_copy_table_part(table);
        report->work[at].rows = pen_counter_get(&table->copied_rows);
        report->work[at].bytes = pen_counter_get(&table->copied_bytes);
    }
    pthread_mutex_unlock(&queue->lock);
}

/* Samples */

void pen_status_sample(pen_status *status)
{
    sample *it = &status->samples[status->sampled++ % SAMPLES];
    pthread_mutex_lock(&status->lock);
    read_stream(status);
    it->at_us = pen_now_us();
    memcpy(it->sums, status->last.sums, sizeof(it->sums));
    it->copied_rows = status->queue == NULL ? 0 : pen_counter_get(&status->queue->rows);
    it->copied_bytes = status->queue == NULL ? 0 : pen_counter_get(&status->queue->bytes);
    pthread_mutex_unlock(&status->lock);
}

static double rate(uint64_t now, uint64_t before, double seconds)
{
    return now > before && seconds > 0 ? (double)(now - before) / seconds : 0;
}

/* The other workers may have nothing to do because one batch takes so long: small ones behind it
 * are left to its commit. */
static void look_at_batches(pen_report_stream *stream)
{
    int64_t longest_us = HOLDS_UP_US;
    for (unsigned i = 0; i < stream->worker_count; i++) {
        const pen_report_thread *thread = &stream->threads[1 + stream->dispatcher_count + i];
        if (thread->batch != 0 && thread->activity.works_us >= longest_us) {
            longest_us = thread->activity.works_us;
            stream->limit = pen_stages_limit_of_batch(thread->activity.waits_for);
        }
    }
}

/* What happened since the oldest sample. */
static void read_rates(const pen_status *status, pen_report *report)
{
    const sample *oldest =
        &status->samples[status->sampled < SAMPLES ? 0 : status->sampled % SAMPLES];
    pen_report_stream *stream = &report->stream;
    uint64_t since[PEN_METRIC_COUNT];
    if (oldest->at_us == 0) {
        stream->limit = pen_stages_limit(stream->sums);
        return;
    }
    double seconds = (double)(pen_now_us() - oldest->at_us) / 1e6;
    for (size_t i = 0; i < PEN_METRIC_COUNT; i++) {
        uint64_t now = stream->sums[i];
        since[i] = now > oldest->sums[i] ? now - oldest->sums[i] : 0;
    }
    stream->seconds = seconds;
    stream->limit = pen_stages_limit(since);
    stream->transactions_per_s = rate(since[PEN_METRIC_TRANSACTIONS], 0, seconds);
    stream->changes_per_s = rate(since[PEN_METRIC_CHANGES], 0, seconds);
    stream->received_bytes_per_s = rate(since[PEN_METRIC_RECEIVED_BYTES], 0, seconds);
    report->copy.seconds = seconds;
    report->copy.rows_per_s = rate(report->copy.rows, oldest->copied_rows, seconds);
    report->copy.bytes_per_s = rate(report->copy.bytes, oldest->copied_bytes, seconds);
}

pen_report *pen_status_look(pen_status *status)
{
    pen_report *report = pen_report_create();
    report->command = status->command;
    report->name = status->options->name;
    report->pid = (int)getpid();
    report->now_us = unix_now_us();
    report->started_us = status->started_us;
    report->source = status->source;
    report->target = status->target;
    pthread_mutex_lock(&status->lock);
    report->phase = status->phase;
    report->phase_us = status->phase_us;
    report->state = status->state;
    memcpy(report->reason, status->reason, sizeof(report->reason));
    report->recoveries = status->recoveries;
    read_stream(status);
    read_distributions(status);
    report->stream = status->last;
    if (report->stream.there) {
        size_t size = report->stream.thread_count * sizeof(*report->stream.threads);
        report->stream.threads = memcpy(pen_malloc(size), status->last.threads, size);
    }
    read_copy(status, &report->copy);
    if (status->pool != NULL) {
        report->has_indexes = true;
        report->indexes = status->pool->items.count;
        report->indexes_left = pen_index_pool_left(status->pool);
    }
    pthread_mutex_unlock(&status->lock);
    read_rates(status, report);
    if (report->stream.there && report->stream.limit == PEN_LIMIT_SOURCE) {
        look_at_batches(&report->stream);
    }
    report->note_count = pen_log_recall(report->notes);
    pen_report_judge(report);
    return report;
}
