#include "io/checkpoint.h"

#include "core/crc32c.h"
#include "io/uring.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SLOT      PEN_CHECKPOINT_SLOT_SIZE
#define FILE_SIZE (2 * SLOT)

static char dir[256];
static char path[300];
static char log_path[300];
static pen_error err;

/* Each test has a directory of its own, and what it logs goes to a file there. */
static void setup(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof(dir), "%s/penstock-test-XXXXXX", tmp == NULL ? "/tmp" : tmp);
    cr_assert_not_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/checkpoint", dir);
    snprintf(log_path, sizeof(log_path), "%s/log", dir);
    int fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    cr_assert_geq(fd, 0);
    dup2(fd, STDERR_FILENO);
    close(fd);
}

static void teardown(void)
{
    unlink(path);
    unlink(log_path);
    rmdir(dir);
}

TestSuite(checkpoint, .init = setup, .fini = teardown, .timeout = 600);

/* How often `words` stand in what was logged. */
static int logged(const char *words)
{
    static char text[1 << 16];
    FILE *file = fopen(log_path, "r");
    cr_assert_not_null(file);
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    fclose(file);
    int count = 0;
    for (const char *at = text; (at = strstr(at, words)) != NULL; at++) {
        count++;
    }
    return count;
}

static pen_checkpoint state(uint64_t lsn)
{
    pen_checkpoint cp = {.system_identifier = 0x7123456789ABCDEFU,
                         .timeline = 3,
                         .committed_lsn = lsn,
                         .durable_lsn = lsn / 2};
    strcpy(cp.database, "shop");
    strcpy(cp.slot, "penstock_shop");
    return cp;
}

static void encode(uint64_t generation, uint64_t lsn, uint8_t image[SLOT])
{
    pen_checkpoint cp = state(lsn);
    cp.generation = generation;
    pen_checkpoint_encode(&cp, image);
}

static bool decode(const uint8_t *image, pen_checkpoint *cp)
{
    return pen_checkpoint_decode((pen_slice){image, SLOT}, cp);
}

static void put_file(const uint8_t *bytes, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, bytes, size), (ssize_t)size);
    close(fd);
}

static void get_file(uint8_t bytes[FILE_SIZE])
{
    int fd = open(path, O_RDONLY);
    cr_assert_geq(fd, 0);
    cr_assert_eq(read(fd, bytes, FILE_SIZE), (ssize_t)FILE_SIZE);
    close(fd);
}

static pen_checkpoint_file *open_file(bool use_uring, bool *found, pen_checkpoint *newest)
{
    pen_checkpoint_file *file;
    bool opened = pen_checkpoint_open(path, use_uring, &file, found, newest, &err);
    cr_assert(opened, "%s", err.text);
    return file;
}

/* Opens only to see what is there: the newest generation, 0 for nothing. */
static uint64_t look(pen_checkpoint *newest)
{
    bool found;
    pen_checkpoint_close(open_file(false, &found, newest));
    return found ? newest->generation : 0;
}

static void write_one(pen_checkpoint_file *file, uint64_t lsn)
{
    pen_checkpoint cp = state(lsn);
    cr_assert(pen_checkpoint_submit(file, &cp, &err), "%s", err.text);
    cr_assert(pen_checkpoint_flush(file, &err), "%s", err.text);
}

/* ---- the format ---- */

Test(checkpoint, encodes_and_decodes_everything)
{
    pen_checkpoint cp;
    memset(&cp, 0, sizeof(cp));
    cp.generation = UINT64_MAX;
    cp.system_identifier = 0x0102030405060708U;
    cp.timeline = UINT32_MAX;
    cp.committed_lsn = 0x1112131415161718U;
    cp.durable_lsn = 0x2122232425262728U;
    cp.spool_start_lsn = 0x3132333435363738U;
    cp.spool_end_lsn = 0x4142434445464748U;
    memset(cp.database, 'd', 63);
    memset(cp.slot, 's', 63);
    uint8_t image[SLOT];
    pen_checkpoint_encode(&cp, image);
    pen_checkpoint read;
    memset(&read, 0xEE, sizeof(read));
    cr_assert(decode(image, &read));
    cr_assert_eq(read.generation, cp.generation);
    cr_assert_eq(read.system_identifier, cp.system_identifier);
    cr_assert_eq(read.timeline, cp.timeline);
    cr_assert_eq(read.committed_lsn, cp.committed_lsn);
    cr_assert_eq(read.durable_lsn, cp.durable_lsn);
    cr_assert_eq(read.spool_start_lsn, cp.spool_start_lsn);
    cr_assert_eq(read.spool_end_lsn, cp.spool_end_lsn);
    cr_assert_eq(memcmp(read.database, cp.database, 64), 0);
    cr_assert_eq(memcmp(read.slot, cp.slot, 64), 0);
}

/* What a later version of penstock must still find where it is. */
Test(checkpoint, the_layout_on_disk_is_little_endian_and_stays)
{
    uint8_t image[SLOT];
    encode(0x0102030405060708U, 0x2122232425262728U, image);
    static const uint8_t start[] = {'P', 'E', 'N', 'S', 'T', 'O', 'C', 0xCB, 1, 0, 0, 0,
                                    3,   0,   0,   0,   8,   7,   6,   5,    4, 3, 2, 1};
    static const uint8_t committed[] = {0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21};
    cr_assert_eq(memcmp(image, start, sizeof(start)), 0);
    cr_assert_eq(memcmp(image + 32, committed, sizeof(committed)), 0);
    cr_assert_eq(memcmp(image + 64, "shop", 5), 0);
    cr_assert_eq(memcmp(image + 128, "penstock_shop", 14), 0);
}

Test(checkpoint, every_flipped_bit_is_noticed_and_changes_nothing)
{
    uint8_t image[SLOT];
    encode(9, 1000, image);
    pen_checkpoint cp;
    memset(&cp, 0xEE, sizeof(cp));
    pen_checkpoint before = cp;
    for (size_t bit = 0; bit < (size_t)SLOT * 8; bit++) {
        image[bit / 8] ^= (uint8_t)(1U << bit % 8);
        cr_assert_not(decode(image, &cp), "bit %zu", bit);
        image[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
    cr_assert_eq(memcmp(&cp, &before, sizeof(cp)), 0);
    cr_assert(decode(image, &cp));
}

Test(checkpoint, every_other_size_is_refused)
{
    /* On the heap and of that size, so that a sanitizer sees a read beyond. */
    uint8_t image[SLOT];
    encode(9, 1000, image);
    pen_checkpoint cp;
    for (size_t size = 0; size < SLOT; size++) {
        uint8_t *some = malloc(size + 1);
        memcpy(some, image, size);
        cr_assert_not(pen_checkpoint_decode((pen_slice){some, size}, &cp));
        free(some);
    }
    cr_assert_not(pen_checkpoint_decode((pen_slice){NULL, 0}, &cp));
}

/* Puts the right CRC on whatever was changed, so that the checks behind it are reached. */
static void seal(uint8_t image[SLOT])
{
    uint32_t crc = pen_crc32c(0, image, SLOT - 4);
    for (unsigned i = 0; i < 4; i++) {
        image[SLOT - 4 + i] = (uint8_t)(crc >> (8 * i));
    }
}

Test(checkpoint, a_right_crc_is_not_enough)
{
    static const struct {
        size_t at;
        uint8_t value;
    } changes[] = {
        {0, 'p'},  /* magic */
        {7, 0},    /* magic's last byte */
        {8, 2},    /* a later version */
        {11, 1},   /* its high byte */
        {48, 64},  /* the database's name fills its field: no room for the NUL */
        {48, 255}, /* and reaches beyond */
        {49, 1},   /* the high byte of that length */
        {48, 5},   /* a NUL inside the name */
        {50, 64},  /* the same of the slot's name */
        {51, 255}, {50, 14},
    };
    pen_checkpoint cp;
    for (size_t i = 0; i < PEN_COUNTOF(changes); i++) {
        uint8_t image[SLOT];
        encode(9, 1000, image);
        image[changes[i].at] = changes[i].value;
        seal(image);
        cr_assert_not(decode(image, &cp), "change %zu", i);
    }
    uint8_t image[SLOT];
    for (size_t at = 64; at <= 128; at += 64) {
        encode(9, 1000, image);
        memset(image + at, 'x', 64); /* a name of the whole field, with no NUL to stop it */
        image[at == 64 ? 48 : 50] = 64;
        seal(image);
        cr_assert_not(decode(image, &cp));
    }
    encode(9, 1000, image);
    seal(image);
    cr_assert(decode(image, &cp), "the unchanged one must pass, or the above says nothing");
}

/* ---- what is found ---- */

Test(checkpoint, a_torn_write_at_every_offset_leaves_the_older_generation)
{
    uint8_t older[SLOT];
    uint8_t current[SLOT];
    uint8_t newer[SLOT];
    encode(41, 4100, older);
    encode(42, 4200, current);
    encode(43, 4300, newer);
    for (size_t slot = 0; slot < 2; slot++) {
        uint8_t bytes[FILE_SIZE];
        uint8_t *target = bytes + slot * SLOT;
        memcpy(bytes + (1 - slot) * SLOT, current, SLOT);
        for (size_t cut = 0; cut <= SLOT; cut++) {
            memcpy(target, newer, cut);
            memcpy(target + cut, older + cut, SLOT - cut);
            bool whole = memcmp(target, newer, SLOT) == 0;
            cr_assert_eq(whole, cut == SLOT);
            put_file(bytes, sizeof(bytes));
            pen_checkpoint newest;
            cr_assert_eq(look(&newest), whole ? 43U : 42U, "torn at %zu of slot %zu", cut, slot);
            cr_assert_eq(newest.committed_lsn, whole ? 4300U : 4200U);
        }
    }
}

Test(checkpoint, after_a_torn_write_the_torn_slot_is_overwritten)
{
    for (size_t torn = 0; torn < 2; torn++) {
        uint8_t bytes[FILE_SIZE];
        encode(42, 4200, bytes + (1 - torn) * SLOT);
        encode(43, 4300, bytes + torn * SLOT);
        bytes[torn * SLOT + 100] ^= 1;
        put_file(bytes, sizeof(bytes));
        bool found;
        pen_checkpoint newest;
        pen_checkpoint_file *file = open_file(false, &found, &newest);
        cr_assert(found);
        cr_assert_eq(newest.generation, 42U);
        cr_assert_eq(pen_checkpoint_written(file), 42U);
        cr_assert_eq(logged("torn"), (int)torn + 1);
        write_one(file, 5000);
        pen_checkpoint_close(file);
        get_file(bytes);
        pen_checkpoint kept;
        cr_assert(decode(bytes + (1 - torn) * SLOT, &kept));
        cr_assert_eq(kept.generation, 42U, "the only valid slot must never be the one written");
        cr_assert(decode(bytes + torn * SLOT, &kept));
        cr_assert_eq(kept.generation, 43U);
        cr_assert_eq(kept.committed_lsn, 5000U);
    }
}

Test(checkpoint, two_bad_slots_are_a_warning)
{
    uint8_t bytes[FILE_SIZE];
    encode(1, 100, bytes);
    encode(2, 200, bytes + SLOT);
    bytes[50] ^= 1;
    bytes[SLOT + 4000] ^= 0x80;
    put_file(bytes, sizeof(bytes));
    pen_checkpoint newest;
    cr_assert_eq(look(&newest), 0U);
    cr_assert_eq(logged("torn, truncated or not penstock's"), 1);
    cr_assert_eq(logged("WARN"), 1);
}

Test(checkpoint, a_truncated_file_gives_what_is_whole_and_is_made_whole)
{
    uint8_t whole[FILE_SIZE];
    encode(8, 800, whole);
    encode(7, 700, whole + SLOT);
    static const size_t sizes[] = {0,    1,        7,        512,           4092,         SLOT - 1,
                                   SLOT, SLOT + 1, SLOT + 8, FILE_SIZE - 4, FILE_SIZE - 1};
    for (size_t i = 0; i < PEN_COUNTOF(sizes); i++) {
        put_file(whole, sizes[i]);
        bool found;
        pen_checkpoint newest;
        pen_checkpoint_file *file = open_file(false, &found, &newest);
        cr_assert_eq(found, sizes[i] >= SLOT, "%zu bytes", sizes[i]);
        cr_assert_eq(logged("WARN"), (int)i + 1, "%zu bytes", sizes[i]);
        struct stat status;
        cr_assert_eq(stat(path, &status), 0);
        cr_assert_eq(status.st_size, (off_t)FILE_SIZE);
        write_one(file, 900);
        pen_checkpoint_close(file);
        cr_assert_eq(look(&newest), sizes[i] >= SLOT ? 9U : 1U);
    }
}

Test(checkpoint, foreign_bytes_are_a_warning_and_then_overwritten)
{
    uint8_t bytes[FILE_SIZE + 5000];
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(i * 7 + i / 256);
    }
    put_file(bytes, sizeof(bytes));
    bool found;
    pen_checkpoint newest;
    pen_checkpoint_file *file = open_file(false, &found, &newest);
    cr_assert_not(found);
    cr_assert_eq(logged("WARN"), 1);
    cr_assert_eq(pen_checkpoint_written(file), 0U);
    write_one(file, 10);
    pen_checkpoint_close(file);
    cr_assert_eq(look(&newest), 1U);
}

Test(checkpoint, the_higher_generation_wins_in_either_slot)
{
    uint8_t bytes[FILE_SIZE];
    pen_checkpoint newest;
    encode(UINT32_MAX, 1, bytes);
    encode(UINT64_C(1) << 32, 2, bytes + SLOT);
    put_file(bytes, sizeof(bytes));
    cr_assert_eq(look(&newest), UINT64_C(1) << 32);
    encode(UINT64_C(1) << 33, 3, bytes);
    put_file(bytes, sizeof(bytes));
    cr_assert_eq(look(&newest), UINT64_C(1) << 33);
    cr_assert_eq(logged("WARN"), 0);
}

Test(checkpoint, a_file_that_cannot_be_opened_is_fatal)
{
    pen_checkpoint_file *file;
    pen_checkpoint newest;
    bool found;
    const char *no[] = {dir, "/dev/full", "/nowhere/at/all", ""};
    for (size_t i = 0; i < PEN_COUNTOF(no); i++) {
        cr_assert_not(pen_checkpoint_open(no[i], true, &file, &found, &newest, &err));
        cr_assert_eq(err.kind, PEN_ERROR_FATAL);
        cr_assert_null(file);
        cr_assert_not(found);
    }
}

/* ---- writing, by both ways ---- */

/* Where these tests run in a container, its seccomp profile may refuse io_uring. */
static void skip_without_uring(void)
{
    pen_uring *ring;
    if (pen_uring_create(1, NULL, &ring, &err) == PEN_URING_REFUSED) {
        cr_skip_test("%s", err.text);
    }
    pen_uring_destroy(ring);
}

/* Makes each test twice: "<name>_by_io_uring" and "<name>_by_thread". */
#define BOTH_WAYS(name)                                                                            \
    static void name(bool use_uring);                                                              \
    Test(checkpoint, name##_by_io_uring)                                                           \
    {                                                                                              \
        skip_without_uring();                                                                      \
        name(true);                                                                                \
    }                                                                                              \
    Test(checkpoint, name##_by_thread)                                                             \
    {                                                                                              \
        name(false);                                                                               \
    }                                                                                              \
    static void name(bool use_uring)

BOTH_WAYS(a_new_file_is_private_and_of_full_size)
{
    mode_t before = umask(0);
    bool found = true;
    pen_checkpoint newest;
    pen_checkpoint_file *file = open_file(use_uring, &found, &newest);
    umask(before);
    cr_assert_not(found);
    cr_assert_eq(pen_checkpoint_written(file), 0U);
    cr_assert_str_eq(pen_checkpoint_method(file), use_uring ? "io_uring" : "thread");
    struct stat status;
    cr_assert_eq(stat(path, &status), 0);
    cr_assert_eq(status.st_mode & 07777, 0600U);
    cr_assert_eq(status.st_size, (off_t)FILE_SIZE);
    cr_assert(pen_checkpoint_flush(file, &err), "nothing to do");
    pen_checkpoint_close(file);
    /* Made and never written: found again as empty, and that is no reason to warn. */
    cr_assert_eq(look(&newest), 0U);
    cr_assert_eq(logged("WARN"), 0);
}

BOTH_WAYS(round_trip)
{
    bool found;
    pen_checkpoint newest;
    pen_checkpoint_file *file = open_file(use_uring, &found, &newest);
    write_one(file, 123456);
    cr_assert_eq(pen_checkpoint_written(file), 1U);
    pen_checkpoint_close(file);
    cr_assert_eq(look(&newest), 1U);
    pen_checkpoint cp = state(123456);
    cr_assert_eq(newest.system_identifier, cp.system_identifier);
    cr_assert_eq(newest.timeline, cp.timeline);
    cr_assert_str_eq(newest.database, cp.database);
    cr_assert_str_eq(newest.slot, cp.slot);
    cr_assert_eq(newest.committed_lsn, cp.committed_lsn);
    cr_assert_eq(newest.durable_lsn, cp.durable_lsn);
}

BOTH_WAYS(generations_alternate_between_the_slots_and_go_on_after_reopening)
{
    uint64_t generation = 0;
    for (int opened = 0; opened < 4; opened++) {
        bool found;
        pen_checkpoint newest;
        pen_checkpoint_file *file = open_file(use_uring, &found, &newest);
        cr_assert_eq(found, opened > 0);
        cr_assert(!found || newest.generation == generation);
        for (int i = 0; i < 5; i++) {
            uint8_t before[FILE_SIZE];
            uint8_t after[FILE_SIZE];
            get_file(before);
            generation++;
            write_one(file, generation * 10);
            cr_assert_eq(pen_checkpoint_written(file), generation);
            get_file(after);
            size_t written = (generation - 1) % 2 * SLOT;
            size_t other = SLOT - written;
            cr_assert_eq(memcmp(before + other, after + other, SLOT), 0, "the newer one stays");
            pen_checkpoint cp;
            cr_assert(decode(after + written, &cp));
            cr_assert_eq(cp.generation, generation);
            cr_assert_eq(cp.committed_lsn, generation * 10);
        }
        pen_checkpoint_close(file);
    }
}

BOTH_WAYS(newer_states_coalesce_and_the_last_is_on_disk_after_flush)
{
    bool found;
    pen_checkpoint newest;
    pen_checkpoint_file *file = open_file(use_uring, &found, &newest);
    enum { SUBMITS = 20000 };
    for (uint64_t lsn = 1; lsn <= SUBMITS; lsn++) {
        pen_checkpoint cp = state(lsn);
        cr_assert(pen_checkpoint_submit(file, &cp, &err), "%s", err.text);
    }
    cr_assert(pen_checkpoint_flush(file, &err), "%s", err.text);
    uint64_t written = pen_checkpoint_written(file);
    cr_assert_geq(written, 2U);
    cr_assert_lt(written, (uint64_t)SUBMITS, "each write waits for the disk, so most are merged");
    pen_checkpoint_close(file);
    cr_assert_eq(look(&newest), written);
    cr_assert_eq(newest.committed_lsn, (uint64_t)SUBMITS);
}

BOTH_WAYS(poll_alone_gets_everything_done)
{
    bool found;
    pen_checkpoint newest;
    pen_checkpoint_file *file = open_file(use_uring, &found, &newest);
    pen_checkpoint cp = state(1);
    cr_assert(pen_checkpoint_submit(file, &cp, &err));
    cp = state(2);
    cr_assert(pen_checkpoint_submit(file, &cp, &err));
    for (int ms = 0; ms < 60000; ms++) {
        cr_assert(pen_checkpoint_poll(file, &err), "%s", err.text);
        uint8_t bytes[FILE_SIZE];
        get_file(bytes);
        pen_checkpoint read;
        uint64_t written = pen_checkpoint_written(file);
        cr_assert(written == 0 || (decode(bytes + (written - 1) % 2 * SLOT, &read) &&
                                   read.generation == written),
                  "what counts as written is there");
        if (written > 0 && read.committed_lsn == 2) {
            pen_checkpoint_close(file);
            return;
        }
        usleep(1000);
    }
    cr_assert_fail("the second state never came to the disk");
}

BOTH_WAYS(close_leaves_the_file_whole_with_a_write_in_flight)
{
    for (uint64_t lsn = 1; lsn <= 50; lsn++) {
        bool found;
        pen_checkpoint newest;
        pen_checkpoint_file *file = open_file(use_uring, &found, &newest);
        pen_checkpoint cp = state(lsn);
        cr_assert(pen_checkpoint_submit(file, &cp, &err));
        pen_checkpoint_close(file);
        cr_assert_eq(look(&newest), lsn, "close waits for the write in flight");
        cr_assert_eq(newest.committed_lsn, lsn);
    }
}

/* Nothing can be written at or beyond `bytes` of any file from now on. */
static void limit_file_size(rlim_t bytes)
{
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit = {.rlim_cur = bytes, .rlim_max = RLIM_INFINITY};
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = bytes;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void a_failed_write_is_fatal(bool use_uring, rlim_t limit)
{
    bool found;
    pen_checkpoint newest;
    pen_checkpoint_file *file = open_file(use_uring, &found, &newest);
    write_one(file, 100);
    limit_file_size(limit);
    pen_checkpoint cp = state(200); /* goes to slot B, from byte 4096 on */
    cr_assert(pen_checkpoint_submit(file, &cp, &err), "it fails later");
    cr_assert_not(pen_checkpoint_flush(file, &err));
    cr_assert_eq(err.kind, PEN_ERROR_FATAL);
    cr_assert_eq(err.sys_errno, EFBIG);
    cr_assert_not_null(strstr(err.text, path));
    /* It stays so, although the disk would take writes again: never retried. */
    limit_file_size(RLIM_INFINITY);
    pen_error again;
    cr_assert_not(pen_checkpoint_poll(file, &again));
    cr_assert_str_eq(again.text, err.text);
    cr_assert_not(pen_checkpoint_submit(file, &cp, &again));
    cr_assert_eq(again.sys_errno, EFBIG);
    cr_assert_not(pen_checkpoint_flush(file, &again));
    cr_assert_eq(again.kind, PEN_ERROR_FATAL);
    cr_assert_eq(pen_checkpoint_written(file), 1U);
    pen_checkpoint_close(file);
    cr_assert_eq(look(&newest), 1U, "the other slot was not touched");
    cr_assert_eq(newest.committed_lsn, 100U);
}

BOTH_WAYS(a_failed_write_is_fatal_and_sticky)
{
    a_failed_write_is_fatal(use_uring, SLOT);
}

BOTH_WAYS(a_short_write_goes_on_and_then_fails)
{
    a_failed_write_is_fatal(use_uring, SLOT + 1904);
    /* The first part was written, so the second was really asked for at its own offset. */
    uint8_t bytes[FILE_SIZE];
    get_file(bytes);
    cr_assert_eq(bytes[SLOT], 'P');
}

BOTH_WAYS(a_new_file_on_a_full_disk_is_an_error_and_leaves_nothing)
{
    limit_file_size(SLOT);
    pen_checkpoint_file *file;
    bool found;
    pen_checkpoint newest;
    cr_assert_not(pen_checkpoint_open(path, use_uring, &file, &found, &newest, &err));
    limit_file_size(RLIM_INFINITY);
    cr_assert_eq(err.sys_errno, EFBIG);
    cr_assert_neq(access(path, F_OK), 0);
}

/* The kernel cancels what a thread left in flight when it ended; nothing may be lost by that. */
static void *submit_and_end(void *arg)
{
    pen_checkpoint cp = state(77);
    pen_error thread_err;
    return pen_checkpoint_submit(arg, &cp, &thread_err) ? NULL : arg;
}

BOTH_WAYS(a_thread_that_ends_with_a_write_in_flight_loses_nothing)
{
    for (int round = 0; round < 50; round++) {
        bool found;
        pen_checkpoint newest;
        pen_checkpoint_file *file = open_file(use_uring, &found, &newest);
        pthread_t thread;
        void *failed;
        cr_assert_eq(pthread_create(&thread, NULL, submit_and_end, file), 0);
        pthread_join(thread, &failed);
        cr_assert_null(failed);
        cr_assert(pen_checkpoint_flush(file, &err), "%s", err.text);
        pen_checkpoint_close(file);
        cr_assert_eq(look(&newest), (uint64_t)round + 1);
        cr_assert_eq(newest.committed_lsn, 77U);
    }
}

/* ---- io_uring refused ---- */

/* Makes system call `number` answer `sys_errno` for the rest of this process, as the seccomp
 * profiles of container engines do. */
static void refuse(unsigned number, unsigned sys_errno)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (sys_errno & SECCOMP_RET_DATA)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = PEN_COUNTOF(filter), .filter = filter};
    cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0), 0);
}

static void the_thread_takes_over(unsigned number, unsigned sys_errno)
{
    skip_without_uring();
    bool found;
    pen_checkpoint newest;
    pen_checkpoint_file *before = open_file(true, &found, &newest);
    cr_assert_str_eq(pen_checkpoint_method(before), "io_uring");
    pen_checkpoint_close(before);
    refuse(number, sys_errno);
    for (uint64_t round = 1; round <= 3; round++) {
        pen_checkpoint_file *file = open_file(true, &found, &newest);
        cr_assert_str_eq(pen_checkpoint_method(file), "thread");
        write_one(file, round * 100);
        pen_checkpoint_close(file);
        cr_assert_eq(look(&newest), round);
        cr_assert_eq(newest.committed_lsn, round * 100);
    }
    cr_assert_eq(logged("refuses io_uring"), 1, "said once");
    cr_assert_eq(logged(strerror((int)sys_errno)), 1, "and why");
}

Test(checkpoint, refused_by_a_seccomp_profile)
{
    the_thread_takes_over(__NR_io_uring_setup, EPERM);
}

Test(checkpoint, refused_by_a_kernel_without_it)
{
    the_thread_takes_over(__NR_io_uring_setup, ENOSYS);
}

Test(checkpoint, refused_by_a_security_module)
{
    the_thread_takes_over(__NR_io_uring_setup, EACCES);
}

Test(checkpoint, refused_only_when_a_request_is_handed_in)
{
    the_thread_takes_over(__NR_io_uring_enter, EPERM);
}

Test(checkpoint, an_error_that_is_no_refusal_is_an_error)
{
    refuse(__NR_io_uring_setup, EMFILE);
    pen_checkpoint_file *file;
    bool found;
    pen_checkpoint newest;
    cr_assert_not(pen_checkpoint_open(path, true, &file, &found, &newest, &err));
    cr_assert_eq(err.kind, PEN_ERROR_FATAL);
    cr_assert_eq(err.sys_errno, EMFILE);
    cr_assert_null(file);
}
