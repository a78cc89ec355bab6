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
    pen_uring_result result = pen_uring_create(entries, NULL, &ring, &err);
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
    static pen_disk_request writes[ENTRIES];
    bool back[ENTRIES] = {false};
    pen_uring *ring = create(ENTRIES);
    int fd = open_scratch();
    for (unsigned i = 0; i < ENTRIES; i++) {
        memset(bytes[i], 'a' + (int)i, SIZE);
        writes[i] = (pen_disk_request){
            .fd = fd, .data = bytes[i], .size = SIZE, .offset = (uint64_t)i * SIZE};
        cr_assert(pen_uring_queue(ring, &writes[i]));
    }
    pen_disk_request more = writes[0];
    cr_assert_not(pen_uring_queue(ring, &more), "full is a result");
    cr_assert(pen_uring_submit(ring, &err), "%s", err.text);
    for (int i = 0; i < ENTRIES; i++) {
        pen_disk_request *done;
        cr_assert(pen_uring_wait(ring, &done, &err), "%s", err.text);
        cr_assert_eq(done->sys_errno, 0);
        cr_assert_eq(done->written, (size_t)SIZE);
        cr_assert_not(back[done - writes]);
        back[done - writes] = true;
    }
    pen_disk_request *none;
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
    pen_disk_request write = {.fd = ends[1], .data = bytes, .size = SIZE};
    cr_assert(pen_uring_queue(ring, &write));
    cr_assert(pen_uring_submit(ring, &err));
    size_t filled = 0;
    pen_disk_request *done = NULL;
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
    pen_disk_request no_space = {.fd = full, .data = bytes, .size = sizeof(bytes)};
    pen_disk_request bad = {.fd = -1, .data = bytes, .size = sizeof(bytes)};
    cr_assert(pen_uring_queue(ring, &no_space));
    cr_assert(pen_uring_queue(ring, &bad));
    cr_assert(pen_uring_submit(ring, &err));
    for (int i = 0; i < 2; i++) {
        pen_disk_request *done;
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
        pen_disk_request write = {.fd = fd, .data = bytes, .size = SIZE};
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
    pen_disk_request write = {.fd = fd, .data = bytes, .size = sizeof(bytes)};
    cr_assert(pen_uring_queue(ring, &write));
    pen_disk_request *done;
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

/* ---- what is not durable by itself, syncs, registered buffers, waking ---- */

static int finish(pen_uring *ring, pen_disk_request *request)
{
    cr_assert(pen_uring_queue(ring, request));
    cr_assert(pen_uring_submit(ring, &err), "%s", err.text);
    pen_disk_request *done;
    cr_assert(pen_uring_wait(ring, &done, &err), "%s", err.text);
    cr_assert_eq(done, request);
    return request->sys_errno;
}

Test(uring, registered_buffers_are_written_like_others_and_only_in_their_bounds)
{
    enum { COUNT = 3, SIZE = 8192 };
    uint8_t *bytes = aligned_alloc(4096, (size_t)COUNT * SIZE);
    pen_uring *ring = create(2);
    int fd = open_scratch();
    pen_uring_register(ring, bytes, COUNT, SIZE);
    for (unsigned i = 0; i < COUNT; i++) {
        memset(bytes + i * SIZE, 'a' + (int)i, SIZE);
        pen_disk_request request = {.op = PEN_DISK_WRITE,
                                    .fd = fd,
                                    .data = bytes + i * SIZE + i,
                                    .size = SIZE - i,
                                    .offset = i * SIZE,
                                    .registered = i + 1};
        cr_assert_eq(finish(ring, &request), 0);
        uint8_t read[SIZE];
        cr_assert_eq(pread(fd, read, SIZE - i, i * SIZE), (ssize_t)(SIZE - i));
        cr_assert_eq(memcmp(read, bytes + i * SIZE, SIZE - i), 0);
    }
    /* The kernel itself says that it took the registered buffer and no other bytes. */
    pen_disk_request beyond = {
        .op = PEN_DISK_WRITE, .fd = fd, .data = bytes + SIZE - 10, .size = 20, .registered = 1};
    cr_assert_eq(finish(ring, &beyond), EFAULT);
    pen_uring_destroy(ring);
    free(bytes);
    close(fd);
}

Test(uring, buffers_that_the_kernel_refuses_are_written_all_the_same)
{
    uint8_t bytes[100];
    memset(bytes, 'x', sizeof(bytes));
    pen_uring *ring = create(1);
    int fd = open_scratch();
    pen_uring_register(ring, (uint8_t *)16, 1, 4096); /* not mapped */
    pen_disk_request request = {
        .op = PEN_DISK_WRITE, .fd = fd, .data = bytes, .size = sizeof(bytes), .registered = 1};
    cr_assert_eq(finish(ring, &request), 0);
    cr_assert_eq(request.written, sizeof(bytes));
    pen_uring_destroy(ring);
    close(fd);
}

Test(uring, a_sync_succeeds_on_a_file_and_fails_where_there_is_nothing_to_sync)
{
    pen_uring *ring = create(1);
    int fd = open_scratch();
    pen_disk_request request = {.op = PEN_DISK_SYNC, .fd = fd};
    cr_assert_eq(finish(ring, &request), 0);
    int null = open("/dev/null", O_WRONLY);
    request.fd = null;
    cr_assert_eq(finish(ring, &request), EINVAL);
    pen_uring_destroy(ring);
    close(null);
    close(fd);
}

Test(uring, a_completion_wakes_the_parker_once_and_none_is_lost)
{
    uint8_t bytes[512] = {0};
    pen_parker parker;
    pen_uring *ring;
    cr_assert(pen_parker_init(&parker, &err));
    if (pen_uring_create(1, &parker, &ring, &err) == PEN_URING_REFUSED) {
        cr_skip_test("%s", err.text);
    }
    int fd = open_scratch();
    pen_disk_request request = {
        .op = PEN_DISK_WRITE, .fd = fd, .data = bytes, .size = sizeof(bytes)};
    for (int round = 0; round < 500; round++) {
        request.op = round % 50 == 0 ? PEN_DISK_SYNC : PEN_DISK_WRITE;
        cr_assert(pen_uring_queue(ring, &request));
        cr_assert(pen_uring_submit(ring, &err));
        pen_disk_request *done = NULL;
        while (done == NULL) {
            pen_parker_prepare(&parker);
            cr_assert(pen_uring_poll(ring, &done, &err));
            if (done != NULL) {
                pen_parker_cancel(&parker);
            } else {
                pen_parker_park(&parker, -1, 0, PEN_PARK_FOREVER);
            }
        }
    }
    /* A completion that was taken in without sleeping may end one sleep early, and no second. */
    pen_parker_prepare(&parker);
    pen_parker_park(&parker, -1, 0, 0);
    pen_parker_prepare(&parker);
    cr_assert_eq(pen_parker_park(&parker, -1, 0, 50), 0);
    pen_uring_destroy(ring);
    pen_parker_deinit(&parker);
    close(fd);
}
