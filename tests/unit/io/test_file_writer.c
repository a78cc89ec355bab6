/* pwrite and fdatasync of this program are the test's own, so that the disk can be made to write
 * short, to be interrupted and to fail. */
#include "io/file_writer.h"

#include <criterion/criterion.h>
#include <errno.h>
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
static pen_error err;
static int fd;

/* What these two read and write is handed over by begin and wait. */
ssize_t pwrite(int to, const void *data, size_t size, off_t offset)
{
    usleep(delay_us);
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
    cr_assert(pen_file_writer_start(fd, &writer, &err), "%s", err.text);
    return writer;
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
    pen_file_writer_begin(writer, bytes, SIZE, 5000);
    cr_assert_eq(pen_file_writer_wait(writer), 0);
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
        pen_file_writer_begin(writer, bytes, SIZE, 0);
        cr_assert_eq(pen_file_writer_wait(writer), failures[i]);
        cr_assert_eq(flushes, 1);
    }
    pen_file_writer_stop(writer);
}

Test(file_writer, no_progress_is_an_error)
{
    pen_file_writer *writer = start();
    most_at_once = 0;
    pen_file_writer_begin(writer, bytes, SIZE, 0);
    cr_assert_eq(pen_file_writer_wait(writer), EIO);
    cr_assert_eq(flushes, 0);
    pen_file_writer_stop(writer);
}

Test(file_writer, poll_tells_when_it_has_finished_and_begin_does_not_wait)
{
    pen_file_writer *writer = start();
    delay_us = 200000;
    pen_file_writer_begin(writer, bytes, SIZE, 0);
    int sys_errno = -1;
    cr_assert_not(pen_file_writer_poll(writer, &sys_errno), "the disk takes longer than this");
    cr_assert_eq(pen_file_writer_wait(writer), 0);
    cr_assert(pen_file_writer_poll(writer, &sys_errno));
    cr_assert_eq(sys_errno, 0);
    pen_file_writer_stop(writer);
}

Test(file_writer, stop_finishes_what_was_begun)
{
    for (int round = 0; round < 200; round++) {
        pen_file_writer *writer = start();
        pen_file_writer_begin(writer, bytes, SIZE, 0);
        pen_file_writer_stop(writer);
        assert_written(0);
        close(fd);
    }
    pen_file_writer_stop(NULL);
}
