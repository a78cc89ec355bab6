#include "apply/stream.h"

#include "apply/eager.h"
#include "apply/worker.h"

#include <stdlib.h>
#include <string.h>

/* Transactions that may wait between the reader and a dispatcher; --memory bounds their bytes. */
#define RING_CAPACITY 4096

pen_stop pen_stream_stopping(const pen_stream *stream)
{
    /* [STOP-1] acquire: pairs with the release in pen_stream_stop. */
    return (pen_stop)pen_cell_read(&stream->stop);
}

static void wake_all(pen_stream *stream)
{
    pen_parker_wake(&stream->reader_parker);
    pen_dealing_wake(&stream->dealing);
    pen_parker_wake(&stream->baton_parker);
    pen_parker_wake(&stream->progress_parker);
    pen_parker_wake(&stream->main_parker);
    pen_handover_wake_workers(&stream->handover);
}

void pen_stream_stop(pen_stream *stream, pen_stop stop, pen_stop_reason reason)
{
    pthread_mutex_lock(&stream->failure_lock);
    /* A failure says more than the wish to stop that came before it. */
    if (stream->reason == PEN_REASON_NONE || reason == PEN_REASON_FAILED) {
        stream->reason = reason;
    }
    if (pen_cell_read(&stream->stop) < (uint64_t)stop) {
        /* [STOP-1] release: pairs with the acquire in pen_stream_stopping, the handover and the
         * pipeline. */
        pen_cell_publish(&stream->stop, stop);
    }
    pthread_mutex_unlock(&stream->failure_lock);
    if (stop == PEN_STOP_ABORT) {
        pen_eager_worker_end(stream->eager);
    }
    wake_all(stream);
}

void pen_stream_fail(pen_stream *stream, const pen_error *err)
{
    if (err->kind == PEN_ERROR_NONE) {
        return; /* it only did as it was told */
    }
    pthread_mutex_lock(&stream->failure_lock);
    if (stream->failure.kind == PEN_ERROR_NONE) {
        stream->failure = *err;
    }
    pthread_mutex_unlock(&stream->failure_lock);
    pen_stream_stop(stream, PEN_STOP_ABORT, PEN_REASON_FAILED);
}

void pen_stream_advise(pen_error *err)
{
    if (strstr(err->text, "start again") == NULL) {
        pen_error_advise(err, err->kind == PEN_ERROR_RETRY
                                  ? "start again to go on, nothing is lost"
                                  : "start again when that is mended, nothing is lost");
    }
}

void pen_stream_worker_done(pen_stream *stream)
{
    if (pen_countdown_leave(&stream->workers_left)) {
        /* [WORKERS-1] release: every commit is in applied_lsn; pairs with the acquire in the
         * progress thread. */
        pen_cell_publish(&stream->workers_done, 1);
        pen_parker_wake(&stream->progress_parker);
        pen_eager_worker_end(stream->eager);
    }
}

pen_meter *pen_stream_reader_meter(const pen_stream *stream)
{
    return &stream->meters[0];
}

pen_meter *pen_stream_dispatcher_meter(const pen_stream *stream, unsigned number)
{
    return &stream->meters[1 + number];
}

pen_meter *pen_stream_worker_meter(const pen_stream *stream, unsigned number)
{
    return &stream->meters[1 + stream->dealing.count + number];
}

pen_meter *pen_stream_eager_meter(const pen_stream *stream)
{
    PEN_ASSERT(stream->options->streaming == PEN_STREAMING_PARALLEL);
    return &stream->meters[1 + stream->dealing.count + stream->worker_count];
}

void pen_stream_count(const pen_stream *stream, uint64_t sums[PEN_METRIC_COUNT])
{
    pen_meters_sum(stream->meters, stream->meter_count, sums);
    sums[PEN_METRIC_MEMORY_USED] = pen_budget_used(&stream->budget);
    sums[PEN_METRIC_MEMORY_PEAK] = pen_budget_peak(&stream->budget);
}

/* What every run of dispatcher and workers begins with. */
static void init_run(pen_stream *stream)
{
    pen_handover_init(&stream->handover, stream->worker_count, &stream->baton_parker, &stream->stop,
                      PEN_STOP_ABORT);
    pen_countdown_init(&stream->workers_left, stream->worker_count);
    pen_cell_init(&stream->workers_done, 0);
    pen_cell_init(&stream->progress_done, 0);
    pen_cell_init(&stream->idle_lsn, PEN_LSN_NONE);
    pen_cell_init(&stream->stop, PEN_STOP_NONE);
    stream->reason = PEN_REASON_NONE;
    memset(&stream->failure, 0, sizeof(stream->failure));
}

bool pen_stream_create(const pen_options *options, pen_stream **stream, pen_error *err)
{
    pen_stream *made = pen_alloc_lines(sizeof(*made));
    made->options = options;
    made->worker_count = (unsigned)options->workers;
    made->workers = pen_calloc(made->worker_count, sizeof(struct pen_worker *));
    const pen_batch_limits limits = {.rows = options->batch_rows,
                                     .bytes = options->batch_bytes,
                                     .transactions = options->batch_transactions};
    pen_filling_init(&made->filling, &limits, PEN_BATCH_FILL_PERCENT, options->memory,
                     made->worker_count);
    made->meter_count = 1 + options->dispatchers + options->workers +
                        (options->streaming == PEN_STREAMING_PARALLEL ? 1 : 0);
    made->meters = pen_alloc_lines(made->meter_count * sizeof(*made->meters));
    for (size_t i = 0; i < made->meter_count; i++) {
        pen_meter_init(&made->meters[i]);
    }
    pthread_mutex_init(&made->failure_lock, NULL);
    pthread_mutex_init(&made->blocker.lock, NULL);
    pen_parker *const parkers[] = {&made->main_parker, &made->reader_parker, &made->baton_parker,
                                   &made->progress_parker};
    for (size_t i = 0; i < PEN_COUNTOF(parkers); i++) {
        parkers[i]->event_fd = -1;
    }
    pen_conflicts_init(&made->conflicts);
    pen_budget_init(&made->budget, options->memory, &made->reader_parker);
    pen_place_init(&made->next_intake);
    pen_place_init(&made->next_source);
    pen_cell_init(&made->eager_failures, 0);
    init_run(made);
    for (size_t i = 0; i < PEN_COUNTOF(parkers); i++) {
        if (!pen_parker_init(parkers[i], err)) {
            pen_stream_destroy(made);
            return false;
        }
    }
    if (!pen_dealing_init(&made->dealing, (unsigned)options->dispatchers, RING_CAPACITY,
                          &made->reader_parker, &made->stop, PEN_STOP_ABORT, err)) {
        pen_stream_destroy(made);
        return false;
    }
    *stream = made;
    return true;
}

/* After all threads have ended: gives back the transactions that they left on the way. */
static void release_leftovers(pen_stream *stream)
{
    for (pen_txn *txn; (txn = pen_dealing_leftover(&stream->dealing)) != NULL;) {
        pen_txn_release(txn);
    }
    pen_batch *batch = pen_handover_leftover(&stream->handover);
    if (batch != NULL) {
        pen_batch_destroy(batch);
    }
}

void pen_stream_reset(pen_stream *stream)
{
    release_leftovers(stream);
    pen_dealing_reset(&stream->dealing);
    init_run(stream);
}

void pen_stream_destroy(pen_stream *stream)
{
    if (stream == NULL) {
        return;
    }
    release_leftovers(stream);
    pen_dealing_deinit(&stream->dealing);
    pen_parker_deinit(&stream->main_parker);
    pen_parker_deinit(&stream->reader_parker);
    pen_parker_deinit(&stream->baton_parker);
    pen_parker_deinit(&stream->progress_parker);
    pthread_mutex_destroy(&stream->failure_lock);
    pthread_mutex_destroy(&stream->blocker.lock);
    pen_conflicts_deinit(&stream->conflicts);
    pen_format_deinit(&stream->format);
    free(stream->meters);
    pen_fences_deinit(&stream->fences);
    free(stream->workers);
    free(stream);
}
