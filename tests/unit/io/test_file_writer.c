/* pwrite and fdatasync of this program are the test's own, so that the disk can be made to write
 * short, to be interrupted and to fail. */
#include "io/file_writer.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SIZE = 10000 };

static uint8_t bytes[SIZE];
static size_t most_at_once = SIZE;
static int interrupts;
static int flush_errno;
static int flushes;
static unsigned delay_us;
static pthread_mutex_t disk = PTHREAD_MUTEX_INITIALIZER; /* who has it holds up all writes */
static pen_error err;
static int fd;

/* What these two read and write is handed over by queue and wait. */
ssize_t pwrite(int to, const void *data, size_t size, off_t offset)
{
    usleep(delay_us);
    pthread_mutex_lock(&disk);
    pthread_mutex_unlock(&disk);
    if (interrupts > 0) {
        interrupts--;
        errno = EINTR;
        return -1;
    }
    return syscall(SYS_pwrite64, to, data, size < most_at_once ? size : most_at_once, offset);
}

int fdatasync(int of)
{
    flushes++;
    if (flush_errno != 0) {
        errno = flush_errno;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, of);
}

static pen_file_writer *start(void)
{
    for (size_t i = 0; i < SIZE; i++) {
        bytes[i] = (uint8_t)(i * 31 + i / 256);
    }
    const char *tmp = getenv("TMPDIR");
    char name[300];
    snprintf(name, sizeof(name), "%s/penstock-test-XXXXXX", tmp == NULL ? "/tmp" : tmp);
    fd = mkstemp(name);
    cr_assert_geq(fd, 0);
    unlink(name);
    pen_file_writer *writer;
    cr_assert(pen_file_writer_start("writer", 4, NULL, &writer, &err), "%s", err.text);
    return writer;
}

static pen_disk_request begun;

static void begin(pen_file_writer *writer, pen_disk_op op, uint64_t offset)
{
    begun = (pen_disk_request){.op = op, .fd = fd, .data = bytes, .size = SIZE, .offset = offset};
    cr_assert(pen_file_writer_queue(writer, &begun));
}

static int finish(pen_file_writer *writer)
{
    cr_assert_eq(pen_file_writer_wait(writer), &begun);
    return begun.sys_errno;
}

static void assert_written(off_t offset)
{
    uint8_t read[SIZE];
    cr_assert_eq(pread(fd, read, SIZE, offset), (ssize_t)SIZE);
    cr_assert_eq(memcmp(read, bytes, SIZE), 0);
}

TestSuite(file_writer, .timeout = 60);

Test(file_writer, short_and_interrupted_writes_go_on_and_one_flush_follows)
{
    pen_file_writer *writer = start();
    most_at_once = 999;
    interrupts = 3;
    begin(writer, PEN_DISK_WRITE_DURABLY, 5000);
    cr_assert_eq(finish(writer), 0);
    cr_assert_eq(flushes, 1);
    cr_assert_eq(interrupts, 0);
    assert_written(5000);
    pen_file_writer_stop(writer);
}

Test(file_writer, a_failed_flush_is_told_and_not_repeated)
{
    pen_file_writer *writer = start();
    int failures[] = {EIO, EINTR, ENOSPC};
    for (size_t i = 0; i < PEN_COUNTOF(failures); i++) {
        flushes = 0;
        flush_errno = failures[i];
        begin(writer, PEN_DISK_WRITE_DURABLY, 0);
        cr_assert_eq(finish(writer), failures[i]);
        cr_assert_eq(flushes, 1);
    }
    pen_file_writer_stop(writer);
}

Test(file_writer, no_progress_is_an_error)
{
    pen_file_writer *writer = start();
    most_at_once = 0;
    begin(writer, PEN_DISK_WRITE_DURABLY, 0);
    cr_assert_eq(finish(writer), EIO);
    cr_assert_eq(flushes, 0);
    pen_file_writer_stop(writer);
}

Test(file_writer, poll_tells_when_it_has_finished_and_queue_does_not_wait)
{
    pen_file_writer *writer = start();
    pthread_mutex_lock(&disk);
    begin(writer, PEN_DISK_WRITE_DURABLY, 0);
    cr_assert_null(pen_file_writer_poll(writer), "the disk takes longer than this");
    pthread_mutex_unlock(&disk);
    cr_assert_eq(finish(writer), 0);
    cr_assert_null(pen_file_writer_poll(writer), "given back once");
    pen_file_writer_stop(writer);
}

Test(file_writer, stop_finishes_what_was_begun)
{
    for (int round = 0; round < 200; round++) {
        pen_file_writer *writer = start();
        begin(writer, PEN_DISK_WRITE_DURABLY, 0);
        pen_file_writer_stop(writer);
        assert_written(0);
        close(fd);
    }
    pen_file_writer_stop(NULL);
}

Test(file_writer, a_plain_write_is_not_flushed_and_a_sync_writes_nothing)
{
    pen_file_writer *writer = start();
    begin(writer, PEN_DISK_WRITE, 0);
    cr_assert_eq(finish(writer), 0);
    cr_assert_eq(flushes, 0);
    assert_written(0);
    begin(writer, PEN_DISK_SYNC, 0);
    begun.size = 0;
    cr_assert_eq(finish(writer), 0);
    cr_assert_eq(flushes, 1);
    cr_assert_eq(begun.written, 0U);
    pen_file_writer_stop(writer);
}

Test(file_writer, as_many_as_it_has_entries_come_back_in_order)
{
    pen_file_writer *writer = start();
    pen_disk_request requests[5];
    for (size_t i = 0; i < 5; i++) {
        requests[i] = (pen_disk_request){
            .op = PEN_DISK_WRITE, .fd = fd, .data = bytes, .size = SIZE, .offset = i * SIZE};
        cr_assert_eq(pen_file_writer_queue(writer, &requests[i]), i < 4, "full is a result");
    }
    for (size_t i = 0; i < 4; i++) {
        cr_assert_eq(pen_file_writer_wait(writer), &requests[i]);
        cr_assert_eq(requests[i].written, (size_t)SIZE);
        assert_written((off_t)(i * SIZE));
    }
    cr_assert(pen_file_writer_queue(writer, &requests[4]), "there is room again");
    pen_file_writer_stop(writer);
}

Test(file_writer, it_wakes_whoever_sleeps)
{
    pen_parker parker;
    pen_file_writer *writer;
    (void)start();
    cr_assert(pen_parker_init(&parker, &err));
    cr_assert(pen_file_writer_start("writer", 1, &parker, &writer, &err));
    for (int round = 0; round < 200; round++) {
        delay_us = round % 3 == 0 ? 2000 : 0;
        begin(writer, PEN_DISK_WRITE, 0);
        for (;;) {
            pen_parker_prepare(&parker);
            if (pen_file_writer_poll(writer) != NULL) {
                pen_parker_cancel(&parker);
                break;
            }
            pen_parker_park(&parker, -1, 0, PEN_PARK_FOREVER);
        }
    }
    pen_file_writer_stop(writer);
    pen_parker_deinit(&parker);
}
