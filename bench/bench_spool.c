#include "bench/bench_spool.h"

#include "io/spool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SMALL = 60, LARGE = 8192, SMALL_COUNT = 4000000, LARGE_COUNT = 60000, SYNC_US = 100000 };

/* How the stream's spool is opened, or near to it. */
enum { SEGMENT = 64 * 1024 * 1024, BUFFER = 1024 * 1024, BUFFERS = 4 };

typedef struct run {
    pen_spool *spool;
    pen_parker parker;
    char dir[300];
    size_t len;
    size_t count;
} run;

static void check(bool ok, const pen_error *err)
{
    if (!ok) {
        fprintf(stderr, "penstock-bench: %s\n", err->text);
        exit(EXIT_FAILURE);
    }
}

static void start(run *it, bool use_uring, bool durable, size_t len)
{
    pen_error err;
    bool found;
    const char *folder = getenv("TMPDIR");
    snprintf(it->dir, sizeof(it->dir), "%s/penstock-bench-spool-%ld",
             folder == NULL ? "/tmp" : folder, (long)getpid());
    it->len = len;
    it->count = len == SMALL ? SMALL_COUNT : LARGE_COUNT;
    check(pen_parker_init(&it->parker, &err), &err);
    const pen_spool_options options = {.dir = it->dir,
                                       .name = "bench",
                                       .header = {.kind = PEN_SPOOL_STREAM},
                                       .durable = durable,
                                       .use_uring = use_uring,
                                       .segment_size = SEGMENT,
                                       .buffer_size = BUFFER,
                                       .buffer_count = BUFFERS,
                                       .parker = &it->parker};
    check(pen_spool_open(&options, &it->spool, &found, &err), &err);
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
        check(pen_spool_poll(it->spool, &err), &err);
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
    int64_t started_us = pen_now_us();
    int64_t synced_us = started_us;
    for (size_t i = 1; i <= it->count; i++) {
        bool made = true;
        if (pen_spool_wants_segment(it->spool)) {
            check(pen_spool_begin_segment(it->spool, i, &made, &err), &err);
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
            check(pen_spool_poll(it->spool, &err), &err);
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
    return (double)(pen_now_us() - started_us + 1) / 1e6;
}

static double rate(const run *it, double seconds)
{
    double count = (double)it->count;
    return it->len == SMALL ? count / seconds : count * (double)it->len / 1e6 / seconds;
}

static double run_append(bool use_uring, bool durable, size_t len)
{
    run it;
    start(&it, use_uring, durable, len);
    double seconds = append_all(&it, durable);
    end(&it);
    return rate(&it, seconds);
}

static double run_read(bool use_uring, size_t len)
{
    run it;
    pen_error err;
    pen_spool_record record;
    pen_spool_pos at;
    start(&it, use_uring, false, len);
    (void)append_all(&it, false);
    pen_spool_cursor *cursor = pen_spool_cursor_create(it.spool, pen_spool_first(it.spool));
    int64_t started_us = pen_now_us();
    size_t read = 0;
    pen_spool_read result;
    while ((result = pen_spool_cursor_next(cursor, &record, &at, &err)) == PEN_SPOOL_READ_RECORD) {
        read++;
    }
    double seconds = (double)(pen_now_us() - started_us + 1) / 1e6;
    check(result == PEN_SPOOL_READ_NOTHING, &err);
    if (read != it.count) {
        fprintf(stderr, "penstock-bench: %zu of %zu records came back\n", read, it.count);
        exit(EXIT_FAILURE);
    }
    pen_spool_cursor_destroy(cursor);
    end(&it);
    return rate(&it, seconds);
}

double bench_spool_append_60(void)
{
    return run_append(true, false, SMALL);
}

double bench_spool_append_8k(void)
{
    return run_append(true, false, LARGE);
}

double bench_spool_durable_60(void)
{
    return run_append(true, true, SMALL);
}

double bench_spool_durable_8k(void)
{
    return run_append(true, true, LARGE);
}

double bench_spool_read_60(void)
{
    return run_read(true, SMALL);
}

double bench_spool_read_8k(void)
{
    return run_read(true, LARGE);
}

double bench_thread_append_60(void)
{
    return run_append(false, false, SMALL);
}

double bench_thread_append_8k(void)
{
    return run_append(false, false, LARGE);
}

double bench_thread_durable_60(void)
{
    return run_append(false, true, SMALL);
}

double bench_thread_durable_8k(void)
{
    return run_append(false, true, LARGE);
}

double bench_thread_read_60(void)
{
    return run_read(false, SMALL);
}

double bench_thread_read_8k(void)
{
    return run_read(false, LARGE);
}
