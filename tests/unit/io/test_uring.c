#include "io/uring.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static pen_error err;

static pen_uring *create(unsigned entries)
{
    pen_uring *ring;
    pen_uring_result result = pen_uring_create(entries, &ring, &err);
    if (result == PEN_URING_REFUSED) {
        cr_skip_test("%s", err.text); /* a container's seccomp profile */
    }
    cr_assert_eq(result, PEN_URING_CREATED, "%s", err.text);
    return ring;
}

static int open_scratch(void)
{
    const char *tmp = getenv("TMPDIR");
    char name[300];
    snprintf(name, sizeof(name), "%s/penstock-test-XXXXXX", tmp == NULL ? "/tmp" : tmp);
    int fd = mkstemp(name);
    cr_assert_geq(fd, 0);
    unlink(name);
    return fd;
}

TestSuite(uring, .timeout = 60);

Test(uring, many_writes_at_once_each_come_back_once)
{
    enum { ENTRIES = 8, SIZE = 3000 };
    static uint8_t bytes[ENTRIES][SIZE];
    static pen_uring_write writes[ENTRIES];
    bool back[ENTRIES] = {false};
    pen_uring *ring = create(ENTRIES);
    int fd = open_scratch();
    for (unsigned i = 0; i < ENTRIES; i++) {
        memset(bytes[i], 'a' + (int)i, SIZE);
        writes[i] = (pen_uring_write){
            .fd = fd, .data = bytes[i], .size = SIZE, .offset = (uint64_t)i * SIZE};
        cr_assert(pen_uring_queue(ring, &writes[i]));
    }
    pen_uring_write more = writes[0];
    cr_assert_not(pen_uring_queue(ring, &more), "full is a result");
    cr_assert(pen_uring_submit(ring, &err), "%s", err.text);
    for (int i = 0; i < ENTRIES; i++) {
        pen_uring_write *done;
        cr_assert(pen_uring_wait(ring, &done, &err), "%s", err.text);
        cr_assert_eq(done->sys_errno, 0);
        cr_assert_eq(done->written, (size_t)SIZE);
        cr_assert_not(back[done - writes]);
        back[done - writes] = true;
    }
    pen_uring_write *none;
    cr_assert(pen_uring_poll(ring, &none, &err));
    cr_assert_null(none);
    cr_assert(pen_uring_queue(ring, &more), "there is room again");
    pen_uring_destroy(ring);
    for (int i = 0; i < ENTRIES; i++) {
        uint8_t read[SIZE];
        cr_assert_eq(pread(fd, read, SIZE, (off_t)i * SIZE), (ssize_t)SIZE);
        cr_assert_eq(memcmp(read, bytes[i], SIZE), 0);
    }
    close(fd);
}

/* A pipe of one page that does not block gives what files rarely do: part of the write at a time.
 */
Test(uring, the_rest_of_a_short_write_follows)
{
    enum { SIZE = 20000 };
    static uint8_t bytes[SIZE];
    static uint8_t got[SIZE];
    for (size_t i = 0; i < SIZE; i++) {
        bytes[i] = (uint8_t)(i * 31 + i / 256);
    }
    int ends[2];
    cr_assert_eq(pipe2(ends, O_NONBLOCK), 0);
    cr_assert_geq(fcntl(ends[1], F_SETPIPE_SZ, 4096), 4096);
    pen_uring *ring = create(1);
    pen_uring_write write = {.fd = ends[1], .data = bytes, .size = SIZE};
    cr_assert(pen_uring_queue(ring, &write));
    cr_assert(pen_uring_submit(ring, &err));
    size_t filled = 0;
    pen_uring_write *done = NULL;
    while (filled < SIZE || done == NULL) {
        if (done == NULL) {
            cr_assert(pen_uring_poll(ring, &done, &err), "%s", err.text);
        }
        ssize_t more = read(ends[0], got + filled, SIZE - filled);
        filled += more > 0 ? (size_t)more : 0;
    }
    cr_assert_eq(done, &write);
    cr_assert_eq(write.sys_errno, 0, "%s", strerror(write.sys_errno));
    cr_assert_eq(write.written, (size_t)SIZE);
    cr_assert_eq(memcmp(got, bytes, SIZE), 0);
    pen_uring_destroy(ring);
    close(ends[0]);
    close(ends[1]);
}

Test(uring, the_errno_of_a_write_is_its_own)
{
    uint8_t bytes[10] = {0};
    pen_uring *ring = create(2);
    int full = open("/dev/full", O_WRONLY);
    cr_assert_geq(full, 0);
    pen_uring_write no_space = {.fd = full, .data = bytes, .size = sizeof(bytes)};
    pen_uring_write bad = {.fd = -1, .data = bytes, .size = sizeof(bytes)};
    cr_assert(pen_uring_queue(ring, &no_space));
    cr_assert(pen_uring_queue(ring, &bad));
    cr_assert(pen_uring_submit(ring, &err));
    for (int i = 0; i < 2; i++) {
        pen_uring_write *done;
        cr_assert(pen_uring_wait(ring, &done, &err));
        cr_assert_eq(done->sys_errno, done == &bad ? EBADF : ENOSPC);
    }
    pen_uring_destroy(ring);
    close(full);
}

Test(uring, destroy_waits_for_what_is_in_flight)
{
    for (int round = 0; round < 100; round++) {
        enum { SIZE = 100000 };
        uint8_t *bytes = malloc(SIZE);
        memset(bytes, 'x', SIZE);
        int fd = open_scratch();
        pen_uring *ring = create(1);
        pen_uring_write write = {.fd = fd, .data = bytes, .size = SIZE};
        cr_assert(pen_uring_queue(ring, &write));
        cr_assert(pen_uring_submit(ring, &err));
        pen_uring_destroy(ring);
        memset(bytes, 'y', SIZE);
        free(bytes);
        uint8_t last;
        cr_assert_eq(pread(fd, &last, 1, SIZE - 1), 1, "all of it was written");
        cr_assert_eq(last, 'x');
        close(fd);
    }
    pen_uring_destroy(NULL);
}

/* Bytes that nobody has flushed yet have no place on the disk ("delayed allocation"), where the
 * file system tells. */
Test(uring, what_is_given_back_has_its_place_on_the_disk)
{
    uint8_t bytes[4096] = {1};
    union {
        struct fiemap map;
        uint8_t room[sizeof(struct fiemap) + sizeof(struct fiemap_extent)];
    } answer;
    pen_uring *ring = create(1);
    int fd = open_scratch();
    pen_uring_write write = {.fd = fd, .data = bytes, .size = sizeof(bytes)};
    cr_assert(pen_uring_queue(ring, &write));
    pen_uring_write *done;
    cr_assert(pen_uring_wait(ring, &done, &err));
    cr_assert_eq(done->sys_errno, 0);
    memset(&answer, 0, sizeof(answer));
    answer.map.fm_length = sizeof(bytes);
    answer.map.fm_extent_count = 1;
    if (ioctl(fd, FS_IOC_FIEMAP, &answer.map) != 0) {
        cr_skip_test("this file system does not tell");
    }
    struct fiemap_extent extent;
    memcpy(&extent, answer.room + sizeof(struct fiemap), sizeof(extent));
    cr_assert_eq(answer.map.fm_mapped_extents, 1U);
    cr_assert_eq(extent.fe_flags & (FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_UNKNOWN), 0U);
    pen_uring_destroy(ring);
    close(fd);
}
