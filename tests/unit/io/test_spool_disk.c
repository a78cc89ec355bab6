/* The spool on disks that are full, fail or are slow, and what it says to be durable meanwhile.
 *
 * pwrite, fdatasync and openat of this program are the test's own: they tell in which order the
 * thread works, and refuse where a test wants it. io_uring does not pass through them; it meets
 * devices that are put in the file's place. */
#include "tests/unit/io/spool_rig.h"

#include "core/sync.h"

#include <linux/filter.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

/* Of the one file that a test writes, by the thread that does: which of its bytes were written. */
enum { MAP_SIZE = 4 << 20 };
static bool is_byte_written[MAP_SIZE];
/* Up to where all of it is durable, by an fdatasync that began behind the writes. */
static pen_cell durable_end;
static pen_cell sync_delay_us;
static pen_cell write_delay_us;
static pen_counter writes;
static int refuse_open;
static int refuse_header;
static size_t header_room = PEN_SPOOL_HEADER_SIZE;

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    if (size == PEN_SPOOL_HEADER_SIZE && offset == 0 && refuse_header != 0) {
        size = header_room; /* at first a part of it */
    } else if (offset > 0 && offset < PEN_SPOOL_HEADER_SIZE && refuse_header != 0) {
        errno = refuse_header;
        return -1;
    }
    pen_counter_add(&writes, 1);
    usleep((unsigned)pen_cell_read(&write_delay_us));
    ssize_t done = syscall(SYS_pwrite64, fd, data, size, offset);
    if (done > 0 && offset >= (off_t)PEN_SPOOL_HEADER_SIZE && offset + done <= MAP_SIZE) {
        memset(is_byte_written + offset, true, (size_t)done);
    }
    return done;
}

int fdatasync(int fd)
{
    static size_t written_end = PEN_SPOOL_HEADER_SIZE;
    while (written_end < MAP_SIZE && is_byte_written[written_end]) {
        written_end++;
    }
    size_t end = written_end;
    usleep((unsigned)pen_cell_read(&sync_delay_us));
    int rc = (int)syscall(SYS_fdatasync, fd);
    if (rc == 0) {
        pen_cell_publish(&durable_end, end);
    }
    return rc;
}

int openat(int at, const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = va_arg(args, mode_t);
    va_end(args);
    if ((flags & O_CREAT) != 0 && refuse_open != 0) {
        errno = refuse_open;
        return -1;
    }
    return (int)syscall(SYS_openat, at, path, flags, mode);
}

TestSuite(spool_disk, .init = setup, .fini = teardown, .timeout = 120);

static pen_spool_options large_options(bool use_uring)
{
    pen_spool_options options = durable_options(use_uring);
    options.segment_size = (size_t)1 << 30;
    return options;
}

static void expect_all(pen_spool *spool, uint64_t first, uint64_t count, size_t len)
{
    pen_spool_cursor *cursor = pen_spool_cursor_create(spool, pen_spool_first(spool));
    for (uint64_t i = first; i < first + count; i++) {
        expect(cursor, i, len);
    }
    expect_nothing(cursor);
    pen_spool_cursor_destroy(cursor);
}

/* ---- marks ---- */

static bool has_mark(const pen_spool *spool)
{
    return pen_spool_synced_lsn(spool) != PEN_LSN_NONE;
}

BOTH_WAYS(spool_disk, a_barrier_covers_what_was_noted_before_it_was_asked_for)
{
    pen_spool_options options = large_options(use_uring);
    pen_spool *spool = open_spool(&options, NULL);
    append(spool, 1, 100);
    pen_spool_pos first_end = pen_spool_end(spool);
    pen_spool_mark(spool, 10);
    poll_spool(spool);
    cr_assert_not(has_mark(spool), "nobody asked for it");
    pen_spool_sync(spool);
    append(spool, 2, 100);
    pen_spool_mark(spool, 20);
    cr_assert_not(has_mark(spool));
    wait_until(spool, has_mark);
    cr_assert_eq(pen_spool_synced_lsn(spool), 10U);
    cr_assert_eq(pen_spool_synced(spool).offset, first_end.offset);
    for (int i = 0; i < 20; i++) {
        usleep(1000);
        poll_spool(spool);
    }
    cr_assert_eq(pen_spool_synced_lsn(spool), 10U, "nobody asked for the second");
    /* Asked for twice while one is under way: one more behind it. */
    pen_spool_sync(spool);
    append(spool, 3, 100);
    pen_spool_mark(spool, 30);
    pen_spool_sync(spool);
    pen_spool_sync(spool);
    sync_all(spool);
    cr_assert_eq(pen_spool_synced_lsn(spool), 30U);
    /* Nothing new but the mark: everything before it is durable already. */
    pen_spool_mark(spool, 40);
    pen_spool_mark(spool, 35);
    cr_assert_eq(pen_spool_synced_lsn(spool), 30U);
    pen_spool_sync(spool);
    cr_assert_eq(pen_spool_synced_lsn(spool), 40U, "at once, and not back to 35");
    pen_spool_close(spool, false);
}

BOTH_WAYS(spool_disk, a_new_segment_begins_behind_what_is_durable)
{
    pen_spool_options options = large_options(use_uring);
    pen_spool *spool = open_spool(&options, NULL);
    for (uint64_t i = 0; i < 50; i++) {
        append(spool, i, 100);
        if (i % 10 == 7) {
            pen_spool_mark(spool, i);
            begin_segment(spool, i);
            cr_assert_eq(pen_spool_synced_lsn(spool), i);
            cr_assert(is_all_synced(spool));
        }
    }
    expect_all(spool, 0, 50, 100);
    pen_spool_close(spool, false);
}

/* By the order in which the thread wrote and synced. */
Test(spool_disk, a_sync_counts_only_for_what_was_written_before_it_began)
{
    pen_spool_options options = large_options(false);
    pen_spool *spool = open_spool(&options, NULL);
    begin_segment(spool, 1);
    pen_cell_publish(&sync_delay_us, 2000);
    uint64_t moves = 0;
    uint64_t before = 0;
    for (uint64_t i = 0; i < 3000; i++) {
        append(spool, i, i % 300);
        pen_spool_mark(spool, i + 1);
        if (i % 7 == 0) {
            pen_spool_sync(spool);
        }
        poll_spool(spool);
        if (!pen_spool_has_room(spool)) {
            wait_until(spool, pen_spool_has_room);
        }
        uint64_t synced = pen_spool_synced(spool).offset;
        moves += synced != before;
        before = synced;
        cr_assert(synced <= PEN_SPOOL_HEADER_SIZE || synced <= pen_cell_read(&durable_end));
    }
    cr_assert_gt(moves, 5U);
    sync_all(spool);
    cr_assert_leq(pen_spool_synced(spool).offset, pen_cell_read(&durable_end));
    pen_spool_close(spool, false);
}

/* True when no byte before `end` waits in memory for a place on the disk; skips where the file
 * system does not tell. */
static bool has_place_on_disk(int fd, uint64_t end)
{
    union {
        struct fiemap map;
        uint8_t room[sizeof(struct fiemap) + 64 * sizeof(struct fiemap_extent)];
    } answer;
    memset(&answer, 0, sizeof(answer));
    answer.map.fm_length = end;
    answer.map.fm_extent_count = 64;
    if (ioctl(fd, FS_IOC_FIEMAP, &answer.map) != 0) {
        cr_skip_test("this file system does not tell");
    }
    uint64_t covered = 0;
    for (uint32_t i = 0; i < answer.map.fm_mapped_extents; i++) {
        struct fiemap_extent extent;
        memcpy(&extent, answer.room + sizeof(struct fiemap) + i * sizeof(extent), sizeof(extent));
        if (extent.fe_logical < end &&
            (extent.fe_flags & (FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_UNKNOWN)) != 0) {
            return false;
        }
        covered = extent.fe_logical + extent.fe_length;
    }
    return covered >= end;
}

BOTH_WAYS(spool_disk, what_counts_as_durable_has_its_place_on_the_disk)
{
    pen_spool_options options = large_options(use_uring);
    options.buffer_size = 100000;
    pen_spool *spool = open_spool(&options, NULL);
    begin_segment(spool, 1);
    int fd = open(segment_path(1), O_RDONLY);
    for (uint64_t i = 0; i < 300; i++) {
        for (int more = 0; more < 4; more++) {
            append(spool, i, 5000 + i);
        }
        pen_spool_sync(spool);
        wait_until(spool, is_all_synced);
        cr_assert(has_place_on_disk(fd, pen_spool_synced(spool).offset), "%llu",
                  (unsigned long long)i);
    }
    close(fd);
    pen_spool_close(spool, true);
}

/* What comes while there is no room goes out by itself, but only that. */
Test(spool_disk, a_slow_disk_is_written_to_by_whole_buffers)
{
    pen_spool_options options = large_options(false);
    options.buffer_size = 10000;
    pen_spool *spool = open_spool(&options, NULL);
    begin_segment(spool, 1);
    pen_cell_publish(&write_delay_us, 500);
    for (uint64_t i = 0; i < 10000; i++) {
        append(spool, i, 60);
        if (!pen_spool_has_room(spool)) {
            wait_until(spool, pen_spool_has_room);
        }
    }
    sync_all(spool);
    uint64_t buffers = pen_spool_size(spool) / options.buffer_size;
    cr_assert_leq(pen_counter_get(&writes), buffers * 5 / 2);
    pen_spool_close(spool, true);
}

/* ---- a full disk ---- */

static bool disk_is_not_full(const pen_spool *spool)
{
    return !pen_spool_disk_is_full(spool);
}

/* Polls for a moment, as the reader does while it has nothing to receive. */
static void poll_until(pen_spool *spool, bool (*done)(const pen_spool *))
{
    for (int ms = 0; !done(spool); ms++) {
        cr_assert_lt(ms, 60000);
        usleep(1000);
        poll_spool(spool);
    }
}

BOTH_WAYS(spool_disk, a_full_disk_waits_and_goes_on)
{
    pen_spool_options options = large_options(use_uring);
    pen_spool *spool = open_spool(&options, NULL);
    append(spool, 0, 100);
    sync_all(spool);
    pen_spool_pos before = pen_spool_synced(spool);
    int fd = descriptor_of(segment_path(1));
    int64_t since_us = pen_now_us(); /* a write fails later than that */
    int kept = replace_file(fd, "/dev/full");
    pen_spool_mark(spool, 7);
    for (uint64_t i = 1; i < 60; i++) { /* more than the buffers hold */
        append(spool, i, 100);
    }
    pen_spool_sync(spool);
    poll_until(spool, pen_spool_disk_is_full);
    cr_assert_not(pen_spool_has_room(spool));
    cr_assert_eq(pen_spool_synced(spool).offset, before.offset);
    cr_assert_eq(pen_spool_synced_lsn(spool), PEN_LSN_NONE);
    append(spool, 60, 100);
    expect_all(spool, 0, 61, 100);
    bool made = true;
    cr_assert(pen_spool_begin_segment(spool, 1, &made, &err), "%s", err.text);
    cr_assert_not(made);
    append(spool, 61, 100); /* the old segment goes on */

    put_file_back(fd, kept);
    while (pen_now_us() - since_us < 700000) {
        usleep(10000);
        poll_spool(spool);
        cr_assert(pen_spool_disk_is_full(spool) || pen_now_us() - since_us > 900000,
                  "not tried again as fast as that");
    }
    poll_until(spool, disk_is_not_full);
    wait_until(spool, pen_spool_has_room);
    sync_all(spool);
    cr_assert_eq(pen_spool_synced_lsn(spool), 7U);
    expect_all(spool, 0, 62, 100);
    pen_spool_close(spool, false);
    spool = open_spool(&options, NULL);
    expect_all(spool, 0, 62, 100);
    cr_assert_eq(logged("WARN"), 0);
    pen_spool_close(spool, true);
}

BOTH_WAYS(spool_disk, closing_on_a_full_disk_does_not_wait_for_room)
{
    pen_spool_options options = large_options(use_uring);
    pen_spool *spool = open_spool(&options, NULL);
    append(spool, 0, 100);
    sync_all(spool);
    int fd = descriptor_of(segment_path(1));
    int kept = replace_file(fd, "/dev/full");
    for (uint64_t i = 1; i < 30; i++) {
        append(spool, i, 100);
    }
    poll_until(spool, pen_spool_disk_is_full);
    pen_spool_close(spool, false);
    close(kept);
    spool = open_spool(&options, NULL);
    expect_all(spool, 0, 1, 100);
    pen_spool_close(spool, true);
}

static void a_segment_waits_for_room(bool use_uring, int sys_errno, bool in_header)
{
    pen_spool_options options = large_options(use_uring);
    pen_spool *spool = open_spool(&options, NULL);
    append(spool, 0, 100);
    bool made = true;
    refuse_open = in_header ? 0 : sys_errno;
    refuse_header = in_header ? sys_errno : 0;
    header_room = 100;
    cr_assert(pen_spool_begin_segment(spool, 5, &made, &err), "%s", err.text);
    cr_assert_not(made);
    cr_assert(pen_spool_disk_is_full(spool));
    cr_assert_not(pen_spool_has_room(spool));
    cr_assert_neq(access(segment_path(2), F_OK), 0, "nothing is left behind");
    refuse_open = 0;
    refuse_header = 0;
    append(spool, 1, 100);
    poll_until(spool, pen_spool_has_room);
    cr_assert(pen_spool_disk_is_full(spool), "until one is really made");
    begin_segment(spool, 5);
    cr_assert_not(pen_spool_disk_is_full(spool));
    cr_assert_eq(append(spool, 2, 100).segment, 2U);
    sync_all(spool);
    expect_all(spool, 0, 3, 100);
    pen_spool_close(spool, false);
    spool = open_spool(&options, NULL);
    expect_all(spool, 0, 3, 100);
    pen_spool_close(spool, true);
}

BOTH_WAYS(spool_disk, a_new_segment_waits_for_room)
{
    a_segment_waits_for_room(use_uring, ENOSPC, false);
    a_segment_waits_for_room(use_uring, EDQUOT, true);
    a_segment_waits_for_room(use_uring, ENOSPC, true);
}

BOTH_WAYS(spool_disk, a_segment_that_cannot_be_made_for_another_reason_is_fatal)
{
    pen_spool_options options = large_options(use_uring);
    pen_spool *spool = open_spool(&options, NULL);
    append(spool, 0, 100);
    refuse_open = EROFS;
    bool made;
    cr_assert_not(pen_spool_begin_segment(spool, 1, &made, &err));
    cr_assert_eq(err.kind, PEN_ERROR_FATAL);
    cr_assert_eq(err.sys_errno, EROFS);
    cr_assert_not_null(strstr(err.text, segment_path(2)));
    pen_spool_close(spool, false);
}

/* Mounts a disk of `size` bytes where the spool will be; only for this process. */
static void mount_small_disk(const char *size)
{
    char options[64];
    snprintf(options, sizeof(options), "size=%s,mode=0700", size);
    cr_assert_eq(mkdir(spool_dir, 0700), 0);
    if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
        cr_skip_test("no mounts for this user: %s", strerror(errno));
    }
    (void)mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL);
    if (mount("tmpfs", spool_dir, "tmpfs", 0, options) != 0) {
        cr_skip_test("no mounts for this user: %s", strerror(errno));
    }
}

BOTH_WAYS(spool_disk, a_disk_that_is_really_full_has_room_again_when_segments_go)
{
    mount_small_disk("256k");
    pen_spool_options options = durable_options(use_uring);
    options.segment_size = 60000;
    options.buffer_size = 10000;
    pen_spool *spool = open_spool(&options, NULL);
    pen_spool_cursor *cursor = pen_spool_cursor_create(spool, pen_spool_first(spool));
    uint64_t count = 0;
    uint64_t read = 0;
    int times_full = 0;
    while (times_full < 3) {
        bool made = true;
        if (pen_spool_wants_segment(spool)) {
            cr_assert(pen_spool_begin_segment(spool, count, &made, &err), "%s", err.text);
        }
        if (made && pen_spool_has_room(spool)) {
            append(spool, count++, 777);
        }
        poll_spool(spool);
        if (pen_spool_disk_is_full(spool)) {
            times_full++;
            while (read < count) {
                expect(cursor, read++, 777);
            }
            uint64_t first = pen_spool_first(spool).segment;
            cr_assert(pen_spool_trim(spool, pen_spool_end(spool).segment, &err));
            cr_assert_gt(pen_spool_first(spool).segment, first);
            for (int ms = 0; pen_spool_disk_is_full(spool); ms++) {
                cr_assert_lt(ms, 60000);
                usleep(1000);
                poll_spool(spool);
                if (pen_spool_has_room(spool)) {
                    cr_assert(pen_spool_begin_segment(spool, count, &made, &err));
                }
            }
        }
    }
    while (read < count) {
        expect(cursor, read++, 777);
    }
    pen_spool_cursor_destroy(cursor);
    sync_all(spool);
    uint64_t first = count;
    pen_spool_close(spool, false);
    spool = open_spool(&options, NULL);
    cursor = pen_spool_cursor_create(spool, pen_spool_first(spool));
    pen_spool_record record;
    pen_spool_pos at;
    while (pen_spool_cursor_next(cursor, &record, &at, &err) == PEN_SPOOL_READ_RECORD) {
        cr_assert(first == count || record.wal_end == read);
        first = first == count ? record.wal_end : first;
        read = record.wal_end + 1;
    }
    cr_assert_eq(read, count);
    pen_spool_cursor_destroy(cursor);
    pen_spool_close(spool, true);
    umount(spool_dir);
}

/* ---- a disk that fails ---- */

/* Polls until the spool fails, and then it must go on saying so. */
static void assert_fails(pen_spool *spool, int sys_errno, const char *what)
{
    while (pen_spool_poll(spool, &err)) {
        usleep(1000);
    }
    cr_assert_eq(err.kind, PEN_ERROR_FATAL);
    cr_assert_eq(err.sys_errno, sys_errno, "%s", err.text);
    cr_assert_not_null(strstr(err.text, segment_path(1)), "%s", err.text);
    cr_assert_not_null(strstr(err.text, what), "%s", err.text);
    pen_error again;
    bool made;
    pen_spool_sync(spool);
    cr_assert_not(pen_spool_poll(spool, &again));
    cr_assert_str_eq(again.text, err.text);
    cr_assert_not(pen_spool_begin_segment(spool, 1, &made, &again));
    cr_assert_str_eq(again.text, err.text);
}

BOTH_WAYS(spool_disk, a_failed_sync_is_fatal)
{
    pen_spool_options options = large_options(use_uring);
    pen_spool *spool = open_spool(&options, NULL);
    begin_segment(spool, 1);
    int fd = descriptor_of(segment_path(1));
    int kept = replace_file(fd, "/dev/null"); /* takes any bytes and cannot sync */
    append(spool, 1, 100);
    pen_spool_mark(spool, 5);
    pen_spool_sync(spool);
    assert_fails(spool, EINVAL, "durable");
    put_file_back(fd, kept);
    assert_fails(spool, EINVAL, "durable");
    cr_assert_eq(pen_spool_synced_lsn(spool), PEN_LSN_NONE);
    pen_spool_close(spool, false);
}

BOTH_WAYS(spool_disk, a_failed_write_is_fatal)
{
    pen_spool_options options = large_options(use_uring);
    pen_spool *spool = open_spool(&options, NULL);
    begin_segment(spool, 1);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = 2000; /* the first write is short, the rest of it fails */
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    append(spool, 1, 5000);
    pen_spool_sync(spool);
    assert_fails(spool, EFBIG, "cannot write");
    limit.rlim_cur = limit.rlim_max;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_fails(spool, EFBIG, "cannot write");
    pen_spool_close(spool, false);
}

/* ---- io_uring refused ---- */

/* Makes system call `number`, with `arg` as its second argument where that is not negative, answer
 * `sys_errno` for the rest of this process, as the seccomp profiles of container engines do. */
static void refuse(unsigned number, int arg, unsigned sys_errno)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | (arg < 0 ? BPF_JGE : BPF_JEQ) | BPF_K, arg < 0 ? 0 : (unsigned)arg, 0,
                 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (sys_errno & SECCOMP_RET_DATA)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = PEN_COUNTOF(filter), .filter = filter};
    cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0), 0);
}

static void assert_works(const char *method)
{
    pen_spool_options options = large_options(true);
    pen_spool *spool = open_spool(&options, NULL);
    cr_assert_str_eq(pen_spool_method(spool), method);
    for (uint64_t i = 0; i < 100; i++) {
        append(spool, i, 200);
    }
    sync_all(spool);
    expect_all(spool, 0, 100, 200);
    pen_spool_close(spool, false);
    spool = open_spool(&options, NULL);
    expect_all(spool, 0, 100, 200);
    pen_spool_close(spool, true);
}

Test(spool_disk, the_thread_takes_over_where_io_uring_is_refused)
{
    refuse(__NR_io_uring_setup, -1, EPERM);
    assert_works("thread");
    assert_works("thread");
    cr_assert_eq(logged("refuses io_uring"), 1, "said once");
}

/* IORING_REGISTER_BUFFERS is 0: before 5.12 it counts against RLIMIT_MEMLOCK. */
Test(spool_disk, io_uring_does_without_registered_buffers)
{
    skip_without_uring();
    refuse(__NR_io_uring_register, 0, ENOMEM);
    assert_works("io_uring");
    cr_assert_eq(logged("register"), 0, "quietly");
}
