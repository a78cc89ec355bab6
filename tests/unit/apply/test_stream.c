#include "apply/run.h"

#include "apply/statedir.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WORKERS = 3 };

/* As much of a stream as its threads share, without connections. */
static pen_stream *stream;
static pen_parker worker_parkers[WORKERS];

static void set_up(void)
{
    pen_error err;
    stream = pen_alloc_lines(sizeof(*stream));
    stream->worker_count = WORKERS;
    pthread_mutex_init(&stream->failure_lock, NULL);
    pen_cell_init(&stream->stop, PEN_STOP_NONE);
    pen_countdown_init(&stream->workers_left, WORKERS);
    cr_assert(pen_parker_init(&stream->main_parker, &err));
    cr_assert(pen_parker_init(&stream->reader_parker, &err));
    cr_assert(pen_parker_init(&stream->baton_parker, &err));
    cr_assert(pen_parker_init(&stream->progress_parker, &err));
    pen_handover_init(&stream->handover, WORKERS, &stream->baton_parker, &stream->stop,
                      PEN_STOP_ABORT);
    for (unsigned i = 0; i < WORKERS; i++) {
        cr_assert(pen_parker_init(&worker_parkers[i], &err));
        pen_handover_add_worker(&stream->handover, i, &worker_parkers[i]);
    }
}

static void tear_down(void)
{
    for (unsigned i = 0; i < WORKERS; i++) {
        pen_parker_deinit(&worker_parkers[i]);
    }
    pen_parker_deinit(&stream->main_parker);
    pen_parker_deinit(&stream->reader_parker);
    pen_parker_deinit(&stream->baton_parker);
    pen_parker_deinit(&stream->progress_parker);
    pthread_mutex_destroy(&stream->failure_lock);
    free(stream);
}

TestSuite(stream, .init = set_up, .fini = tear_down, .timeout = 60);

static void expect(pen_stop stop, pen_stop_reason reason)
{
    cr_assert_eq(pen_stream_stopping(stream), stop);
    cr_assert_eq(stream->reason, reason);
}

Test(stream, the_first_reason_is_kept)
{
    expect(PEN_STOP_NONE, PEN_REASON_NONE);
    pen_stream_stop(stream, PEN_STOP_DRAIN, PEN_REASON_CAUGHT_UP);
    expect(PEN_STOP_DRAIN, PEN_REASON_CAUGHT_UP);
    pen_stream_stop(stream, PEN_STOP_DRAIN, PEN_REASON_SIGNAL);
    expect(PEN_STOP_DRAIN, PEN_REASON_CAUGHT_UP);
}

Test(stream, a_stop_grows_and_does_not_shrink)
{
    pen_stream_stop(stream, PEN_STOP_DRAIN, PEN_REASON_SIGNAL);
    pen_stream_stop(stream, PEN_STOP_ABORT, PEN_REASON_SIGNAL);
    expect(PEN_STOP_ABORT, PEN_REASON_SIGNAL);
    pen_stream_stop(stream, PEN_STOP_DRAIN, PEN_REASON_STOP_AT);
    expect(PEN_STOP_ABORT, PEN_REASON_SIGNAL);
}

static pen_error failure(pen_error_kind kind, const char *text)
{
    pen_error err;
    pen_error_set(&err, kind, "%s", text);
    return err;
}

Test(stream, the_first_failure_wins)
{
    pen_error first = failure(PEN_ERROR_CONFLICT, "first; start again");
    pen_error second = failure(PEN_ERROR_FATAL, "second");
    pen_stream_fail(stream, &first);
    expect(PEN_STOP_ABORT, PEN_REASON_FAILED);
    pen_stream_fail(stream, &second);
    cr_assert_str_eq(stream->failure.text, "first; start again");
    cr_assert_eq(stream->failure.kind, PEN_ERROR_CONFLICT);
}

static void expect_text(pen_error err, const char *text)
{
    pen_stream_advise(&err);
    cr_assert_str_eq(err.text, text);
}

Test(stream, a_failure_says_what_to_do_next)
{
    expect_text(failure(PEN_ERROR_RETRY, "lost"), "lost; start again to go on, nothing is lost");
    expect_text(failure(PEN_ERROR_FATAL, "broken"),
                "broken; start again when that is mended, nothing is lost");
    expect_text(failure(PEN_ERROR_CONFLICT, "mend it and start again"), "mend it and start again");
}

Test(stream, a_failure_says_more_than_the_wish_to_stop)
{
    pen_stream_stop(stream, PEN_STOP_DRAIN, PEN_REASON_SIGNAL);
    pen_error err = failure(PEN_ERROR_RETRY, "lost");
    pen_stream_fail(stream, &err);
    expect(PEN_STOP_ABORT, PEN_REASON_FAILED);
    pen_stream_stop(stream, PEN_STOP_ABORT, PEN_REASON_SIGNAL);
    expect(PEN_STOP_ABORT, PEN_REASON_FAILED);
}

Test(stream, a_thread_that_did_as_it_was_told_has_not_failed)
{
    pen_error err = failure(PEN_ERROR_NONE, "stopped");
    pen_stream_fail(stream, &err);
    expect(PEN_STOP_NONE, PEN_REASON_NONE);
    cr_assert_eq(stream->failure.kind, PEN_ERROR_NONE);
}

static bool was_woken(pen_parker *parker)
{
    return (pen_parker_park(parker, -1, 0, 0) & PEN_PARK_WOKEN) != 0;
}

Test(stream, a_stop_wakes_everybody)
{
    pen_stream_stop(stream, PEN_STOP_DRAIN, PEN_REASON_SIGNAL);
    cr_assert(was_woken(&stream->main_parker));
    cr_assert(was_woken(&stream->reader_parker));
    cr_assert(was_woken(&stream->baton_parker));
    cr_assert(was_woken(&stream->progress_parker));
    for (unsigned i = 0; i < WORKERS; i++) {
        cr_assert(was_woken(&worker_parkers[i]), "worker %u sleeps on", i);
    }
}

static void *fail_once(void *arg)
{
    pen_error err = failure(PEN_ERROR_FATAL, arg);
    pen_stream_fail(stream, &err);
    return NULL;
}

Test(stream, of_failures_at_once_one_is_kept_whole)
{
    for (int round = 0; round < 200; round++) {
        char first[2000];
        char second[2000];
        memset(first, 'a', sizeof(first) - 1);
        memset(second, 'b', sizeof(second) - 1);
        stream->failure.kind = PEN_ERROR_NONE;
        pthread_t other;
        cr_assert_eq(pthread_create(&other, NULL, fail_once, second), 0);
        fail_once(first);
        pthread_join(other, NULL);
        cr_assert(strcmp(stream->failure.text, first) == 0 ||
                  strcmp(stream->failure.text, second) == 0);
    }
}

Test(stream, the_last_worker_tells_the_progress_thread)
{
    for (unsigned i = 0; i < WORKERS; i++) {
        cr_assert_not(was_woken(&stream->progress_parker));
        cr_assert_eq(pen_cell_read(&stream->workers_done), 0);
        pen_stream_worker_done(stream);
    }
    cr_assert_eq(pen_cell_read(&stream->workers_done), 1);
    cr_assert(was_woken(&stream->progress_parker));
}

/* What a run makes before it has a server is given back, whatever stops it. */
static void expect_no_start(pen_options *options, const char *words)
{
    pen_stop_reason reason = PEN_REASON_NONE;
    pen_error err;
    cr_assert_not(pen_stream_run(options, &reason, &err));
    cr_assert_eq(reason, PEN_REASON_FAILED);
    cr_assert_not_null(strstr(err.text, words), "%s", err.text);
    cr_assert_null(strstr(err.text, "s3cret"), "%s", err.text);
}

Test(stream, does_not_start_without_its_directory_or_its_source)
{
    char dir[] = "/tmp/penstock-stream-XXXXXX";
    cr_assert_not_null(mkdtemp(dir));
    pen_options options = {
        .name = (char *)(uintptr_t) "s",
        .dir = dir,
        .source = (char *)(uintptr_t) "host=/nonexistent/penstock password=s3cret",
        .target = (char *)(uintptr_t) "host=/nonexistent/penstock password=s3cret",
        .workers = 2,
        .dispatchers = 1,
        .memory = 1 << 20};
    expect_no_start(&options, "source: cannot connect");
    pen_statedir *held;
    pen_error err;
    cr_assert(pen_statedir_open(dir, &held, &err));
    expect_no_start(&options, "another penstock is running");
    pen_statedir_close(held);
    char lock[64];
    snprintf(lock, sizeof(lock), "%s/lock", dir);
    unlink(lock);
    rmdir(dir);
    options.dir = (char *)(uintptr_t) "/nonexistent/penstock";
    expect_no_start(&options, "--dir");
}
