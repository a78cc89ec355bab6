/* Purpose: what the spool's tests share: a directory each, a spool in it, records to put in, both
 *          ways of writing.
 * Thread:  one.
 * Owns:    the directory and the log in it.
 * Flow:    included by tests/unit/io/test_spool*.c. */
#ifndef PEN_TESTS_SPOOL_RIG_H
#define PEN_TESTS_SPOOL_RIG_H

#include "io/spool.h"
#include "io/uring.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORD_OVERHEAD (pen_spool_record_size(0))

static char dir[256]; /* the test's */
static char spool_dir[280];
static char log_path[280]; /* what was logged */
static pen_error err;
static pen_parker parker;

static void setup(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof(dir), "%s/penstock-test-XXXXXX", tmp == NULL ? "/tmp" : tmp);
    cr_assert_not_null(mkdtemp(dir));
    snprintf(spool_dir, sizeof(spool_dir), "%s/spool", dir);
    snprintf(log_path, sizeof(log_path), "%s/log", dir);
    int fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    cr_assert_geq(fd, 0);
    dup2(fd, STDERR_FILENO);
    close(fd);
    cr_assert(pen_parker_init(&parker, &err));
}

static void empty_dir(const char *path)
{
    DIR *opened = opendir(path);
    for (struct dirent *entry; opened != NULL && (entry = readdir(opened)) != NULL;) {
        unlinkat(dirfd(opened), entry->d_name, 0);
    }
    if (opened != NULL) {
        closedir(opened);
    }
}

static void teardown(void)
{
    empty_dir(spool_dir);
    rmdir(spool_dir);
    empty_dir(dir);
    rmdir(dir);
}

/* How often `words` stand in what was logged. */
static inline int logged(const char *words)
{
    static char text[1 << 18];
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

/* Where io_uring is refused, as in many containers. */
static inline void skip_without_uring(void)
{
    pen_uring *ring;
    if (pen_uring_create(1, NULL, &ring, &err) == PEN_URING_REFUSED) {
        cr_skip_test("%s", err.text);
    }
    pen_uring_destroy(ring);
}

/* Makes each test twice: "<name>_by_io_uring" and "<name>_by_thread". */
#define BOTH_WAYS(suite, name)                                                                     \
    static void name(bool use_uring);                                                              \
    Test(suite, name##_by_io_uring)                                                                \
    {                                                                                              \
        skip_without_uring();                                                                      \
        name(true);                                                                                \
    }                                                                                              \
    Test(suite, name##_by_thread)                                                                  \
    {                                                                                              \
        name(false);                                                                               \
    }                                                                                              \
    static void name(bool use_uring)

static inline pen_spool_options durable_options(bool use_uring)
{
    pen_spool_options options = {.dir = spool_dir,
                                 .name = "stream",
                                 .header = {.kind = PEN_SPOOL_STREAM,
                                            .system_identifier = 7123456789,
                                            .timeline = 1,
                                            .server_version = 160004,
                                            .protocol = 1},
                                 .durable = true,
                                 .use_uring = use_uring,
                                 .segment_size = 4096,
                                 .buffer_size = 1000,
                                 .buffer_count = 3,
                                 .parker = &parker};
    strcpy(options.header.database, "shop");
    strcpy(options.header.slot, "penstock_shop");
    strcpy(options.header.encoding, "UTF8");
    return options;
}

static inline pen_spool *open_spool(const pen_spool_options *options, bool *found)
{
    pen_spool *spool;
    bool was;
    cr_assert(pen_spool_open(options, &spool, &was, &err), "%s", err.text);
    if (found != NULL) {
        *found = was;
    }
    return spool;
}

static inline void poll_spool(pen_spool *spool)
{
    cr_assert(pen_spool_poll(spool, &err), "%s", err.text);
}

static inline void begin_segment(pen_spool *spool, pen_lsn start_lsn)
{
    bool made;
    cr_assert(pen_spool_begin_segment(spool, start_lsn, &made, &err), "%s", err.text);
    cr_assert(made);
}

/* Sleeps as the reader does, until `done`; for ever when a wake is lost. */
static inline void wait_until(pen_spool *spool, bool (*done)(const pen_spool *))
{
    for (;;) {
        pen_parker_prepare(&parker);
        poll_spool(spool);
        if (done(spool)) {
            pen_parker_cancel(&parker);
            return;
        }
        pen_parker_park(&parker, -1, 0, PEN_PARK_FOREVER);
    }
}

static inline bool is_all_synced(const pen_spool *spool)
{
    return !pen_spool_pos_before(pen_spool_synced(spool), pen_spool_end(spool));
}

/* Until all that was appended is durable. */
static inline void sync_all(pen_spool *spool)
{
    pen_spool_sync(spool);
    wait_until(spool, is_all_synced);
}

/* The payload of record `number`: its length and bytes follow from the number. */
static inline void fill_payload(uint64_t number, uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        bytes[i] = (uint8_t)(number * 131 + i * 7 + i / 251);
    }
}

/* Appends record `number` with a payload of `len` bytes, beginning a segment where one is wanted.
 */
static inline pen_spool_pos append(pen_spool *spool, uint64_t number, size_t len)
{
    uint8_t *bytes = malloc(len + 1);
    fill_payload(number, bytes, len);
    if (pen_spool_wants_segment(spool)) {
        begin_segment(spool, number);
    }
    pen_spool_record record = {.kind = len == 0 ? PEN_SPOOL_KEEPALIVE : PEN_SPOOL_MESSAGE,
                               .wal_end = number,
                               .sent = (pen_pgtime)(number * 10),
                               .payload = {bytes, len}};
    pen_spool_pos at = pen_spool_append(spool, &record);
    free(bytes);
    return at;
}

/* The next record of `cursor` must be record `number` with `len` bytes. */
static inline void expect(pen_spool_cursor *cursor, uint64_t number, size_t len)
{
    pen_spool_record record;
    pen_spool_pos at;
    pen_spool_read got = pen_spool_cursor_next(cursor, &record, &at, &err);
    cr_assert_eq(got, PEN_SPOOL_READ_RECORD, "record %llu: %s", (unsigned long long)number,
                 got == PEN_SPOOL_READ_FAILED ? err.text : "nothing");
    cr_assert_eq(record.wal_end, number);
    cr_assert_eq(record.sent, (pen_pgtime)(number * 10));
    cr_assert_eq(record.kind, len == 0 ? PEN_SPOOL_KEEPALIVE : PEN_SPOOL_MESSAGE);
    cr_assert_eq(record.payload.len, len);
    uint8_t *bytes = malloc(len + 1);
    fill_payload(number, bytes, len);
    cr_assert_eq(memcmp(bytes, record.payload.data, len), 0, "record %llu",
                 (unsigned long long)number);
    free(bytes);
}

static inline void expect_nothing(pen_spool_cursor *cursor)
{
    pen_spool_record record;
    pen_spool_pos at;
    cr_assert_eq(pen_spool_cursor_next(cursor, &record, &at, &err), PEN_SPOOL_READ_NOTHING);
}

static inline const char *segment_path(uint64_t number)
{
    static char path[400];
    snprintf(path, sizeof(path), "%s/stream-%016llx.spool", spool_dir, (unsigned long long)number);
    return path;
}

/* A whole file in memory. */
typedef struct image {
    uint8_t *bytes;
    size_t size;
} image;

static inline image get_file(const char *path)
{
    struct stat status;
    int fd = open(path, O_RDONLY);
    cr_assert_geq(fd, 0, "%s", path);
    cr_assert_eq(fstat(fd, &status), 0);
    image got = {malloc((size_t)status.st_size + 1), (size_t)status.st_size};
    cr_assert_eq(read(fd, got.bytes, got.size), (ssize_t)got.size);
    close(fd);
    return got;
}

static inline void put_file(const char *path, const uint8_t *bytes, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    cr_assert_geq(fd, 0, "%s", path);
    cr_assert_eq(write(fd, bytes, size), (ssize_t)size);
    close(fd);
}

/* The spool's own descriptor of the file at `path`. */
static inline int descriptor_of(const char *path)
{
    for (int fd = 3; fd < 256; fd++) {
        char link[64];
        char target[400];
        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        ssize_t len = readlink(link, target, sizeof(target) - 1);
        if (len > 0) {
            target[len] = '\0';
            char whole[PATH_MAX];
            cr_assert_not_null(realpath(path, whole));
            if (strcmp(target, whole) == 0) {
                return fd;
            }
        }
    }
    cr_assert_fail("nobody has \"%s\" open", path);
    return -1;
}

/* Puts `device` in the place of the spool's open segment file; returns what to put back. Works for
 * both ways, because both name the file by its descriptor. */
static inline int replace_file(int fd, const char *device)
{
    int kept = dup(fd);
    int other = open(device, O_RDWR | O_CLOEXEC);
    cr_assert_geq(kept, 0);
    cr_assert_geq(other, 0);
    cr_assert_eq(dup2(other, fd), fd);
    close(other);
    return kept;
}

static inline void put_file_back(int fd, int kept)
{
    cr_assert_eq(dup2(kept, fd), fd);
    close(kept);
}

#endif
