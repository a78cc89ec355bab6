/* The spool by itself: appending with and without syncs, and reading back. */
#include "bench/bench.h"
#include "io/spool.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { SMALL = 60, LARGE = 8192, SMALL_COUNT = 1000000, LARGE_COUNT = 20000, SYNC_US = 100000 };

/* How the stream's spool is opened, or near to it. */
enum { SEGMENT = 64 * 1024 * 1024, BUFFER = 1024 * 1024, BUFFERS = 4 };

typedef struct run {
    pen_spool *spool;
    pen_parker parker;
    char dir[300];
    size_t len;
    size_t count;
} run;

static void start(run *it, double share, bool use_uring, bool durable, size_t len)
{
    pen_error err;
    bool found;
    bench_path(it->dir, sizeof(it->dir), "spool");
    it->len = len;
    it->count = bench_count(len == SMALL ? SMALL_COUNT : LARGE_COUNT, share);
    bench_check(pen_parker_init(&it->parker, &err), &err);
    const pen_spool_options options = {.dir = it->dir,
                                       .name = "bench",
                                       .header = {.kind = PEN_SPOOL_STREAM},
                                       .durable = durable,
                                       .use_uring = use_uring,
                                       .segment_size = SEGMENT,
                                       .buffer_size = BUFFER,
                                       .buffer_count = BUFFERS,
                                       .parker = &it->parker};
    bench_check(pen_spool_open(&options, &it->spool, &found, &err), &err);
}

static void end(run *it)
{
    pen_spool_close(it->spool, true);
    rmdir(it->dir);
    pen_parker_deinit(&it->parker);
}

/* Polls, and sleeps while there is no room or, with `all`, something is not durable. */
static void wait_for(run *it, bool all)
{
    pen_error err;
    for (;;) {
        pen_parker_prepare(&it->parker);
        bench_check(pen_spool_poll(it->spool, &err), &err);
        if (all ? !pen_spool_pos_before(pen_spool_synced(it->spool), pen_spool_end(it->spool))
                : pen_spool_has_room(it->spool)) {
            pen_parker_cancel(&it->parker);
            return;
        }
        (void)pen_parker_park(&it->parker, -1, 0, PEN_PARK_FOREVER);
    }
}

/* Appends all records; returns the seconds. */
static double append_all(run *it, bool durable)
{
    static uint8_t payload[LARGE];
    pen_error err;
    pen_spool_record record = {.kind = PEN_SPOOL_MESSAGE, .payload = {payload, it->len}};
    double started = bench_wall_ns();
    int64_t synced_us = pen_now_us();
    for (size_t i = 1; i <= it->count; i++) {
        bool made = true;
        if (pen_spool_wants_segment(it->spool)) {
            bench_check(pen_spool_begin_segment(it->spool, i, &made, &err), &err);
        }
        if (!made) {
            fprintf(stderr, "penstock-bench: the disk is full\n");
            exit(EXIT_FAILURE);
        }
        record.wal_end = i;
        (void)pen_spool_append(it->spool, &record);
        if (!pen_spool_has_room(it->spool)) {
            wait_for(it, false);
        }
        /* The reader looks at its clock once for what one read of the socket brought. */
        if (i % 64 == 0) {
            bench_check(pen_spool_poll(it->spool, &err), &err);
            int64_t now_us = durable ? pen_now_us() : synced_us;
            if (now_us - synced_us >= SYNC_US) {
                synced_us = now_us;
                pen_spool_mark(it->spool, i);
                pen_spool_sync(it->spool);
            }
        }
    }
    if (durable) {
        pen_spool_sync(it->spool);
        wait_for(it, true);
    }
    return (bench_wall_ns() - started) / 1e9;
}

static double rate(const run *it, double seconds)
{
    double count = (double)it->count;
    return it->len == SMALL ? count / seconds : count * (double)it->len / 1e6 / seconds;
}

static bool run_append(double share, bool use_uring, bool durable, size_t len, double *values)
{
    run it;
    start(&it, share, use_uring, durable, len);
    double seconds = append_all(&it, durable);
    end(&it);
    values[0] = rate(&it, seconds);
    return true;
}

static bool run_read(double share, bool use_uring, size_t len, double *values)
{
    run it;
    pen_error err;
    pen_spool_record record;
    pen_spool_pos at;
    start(&it, share, use_uring, false, len);
    (void)append_all(&it, false);
    pen_spool_cursor *cursor = pen_spool_cursor_create(it.spool, pen_spool_first(it.spool));
    double started = bench_wall_ns();
    size_t read = 0;
    pen_spool_read result;
    while ((result = pen_spool_cursor_next(cursor, &record, &at, &err)) == PEN_SPOOL_READ_RECORD) {
        read++;
    }
    double seconds = (bench_wall_ns() - started) / 1e9;
    bench_check(result == PEN_SPOOL_READ_NOTHING, &err);
    if (read != it.count) {
        fprintf(stderr, "penstock-bench: %zu of %zu records came back\n", read, it.count);
        exit(EXIT_FAILURE);
    }
    pen_spool_cursor_destroy(cursor);
    end(&it);
    values[0] = rate(&it, seconds);
    return true;
}

bool bench_spool_append_60(double share, double *values)
{
    return run_append(share, true, false, SMALL, values);
}

bool bench_spool_append_8k(double share, double *values)
{
    return run_append(share, true, false, LARGE, values);
}

bool bench_spool_durable_60(double share, double *values)
{
    return run_append(share, true, true, SMALL, values);
}

bool bench_spool_durable_8k(double share, double *values)
{
    return run_append(share, true, true, LARGE, values);
}

bool bench_spool_read_60(double share, double *values)
{
    return run_read(share, true, SMALL, values);
}

bool bench_spool_read_8k(double share, double *values)
{
    return run_read(share, true, LARGE, values);
}

bool bench_thread_append_60(double share, double *values)
{
    return run_append(share, false, false, SMALL, values);
}

bool bench_thread_append_8k(double share, double *values)
{
    return run_append(share, false, false, LARGE, values);
}

bool bench_thread_durable_60(double share, double *values)
{
    return run_append(share, false, true, SMALL, values);
}

bool bench_thread_durable_8k(double share, double *values)
{
    return run_append(share, false, true, LARGE, values);
}

bool bench_thread_read_60(double share, double *values)
{
    return run_read(share, false, SMALL, values);
}

bool bench_thread_read_8k(double share, double *values)
{
    return run_read(share, false, LARGE, values);
}
