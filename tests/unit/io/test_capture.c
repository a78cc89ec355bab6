#include "io/capture.h"
#include "io/spool_file.h"

#include "core/thread.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[256];
static char path[300];
static pen_error err;
static const pen_spool_header header = {
    .system_identifier = 77,
    .timeline = 2,
    .server_version = 170000,
    .protocol = 4,
    .database = "shop",
    .slot = "penstock",
    .encoding = "UTF8",
    .start_lsn = 0x100,
};

static void setup(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof(dir), "%s/penstock-test-XXXXXX", tmp == NULL ? "/tmp" : tmp);
    cr_assert_not_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/file", dir);
}

static void teardown(void)
{
    unlink(path);
    rmdir(dir);
}

TestSuite(capture, .init = setup, .fini = teardown, .timeout = 120);

static pen_capture *create(void)
{
    pen_capture *capture;
    cr_assert(pen_capture_create(path, &header, &capture, &err), "%s", err.text);
    return capture;
}

static pen_spool_record record_of(pen_lsn lsn, const uint8_t *bytes, size_t len)
{
    return (pen_spool_record){PEN_SPOOL_MESSAGE, lsn, 5, {bytes, len}};
}

static off_t file_size(void)
{
    struct stat status;
    cr_assert_eq(stat(path, &status), 0);
    return status.st_size;
}

/* Reads the file; checks that its records count from 1, and returns how many there are. */
static size_t count_records(pen_spool_file_result expected)
{
    pen_spool_file *file;
    pen_spool_record record;
    size_t records = 0;
    pen_spool_file_result result;
    cr_assert(pen_spool_file_open(path, &file, &err), "%s", err.text);
    while ((result = pen_spool_file_next(file, &record, &err)) == PEN_SPOOL_FILE_RECORD) {
        records++;
        cr_assert_eq(record.wal_end, records);
    }
    cr_assert_eq(result, expected);
    pen_spool_file_close(file);
    return records;
}

Test(capture, what_went_in_comes_out)
{
    static uint8_t bytes[600000];
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(i * 31);
    }
    /* Small ones, one that just fits the buffer, one byte more, and one far larger. */
    static const size_t lens[] = {10,  262144 - 25, 262144 - 24, 0, 5, sizeof(bytes),
                                  200, 131072,      131072,      7};
    pen_capture *capture = create();
    for (size_t i = 0; i < PEN_COUNTOF(lens); i++) {
        pen_spool_record record = record_of(i + 1, bytes, lens[i]);
        cr_assert(pen_capture_add(capture, &record, &err));
    }
    cr_assert_eq(pen_capture_records(capture), PEN_COUNTOF(lens));
    uint64_t size = pen_capture_size(capture);
    cr_assert(pen_capture_close(capture, &err));
    cr_assert_eq((uint64_t)file_size(), size);

    pen_spool_file *file;
    cr_assert(pen_spool_file_open(path, &file, &err), "%s", err.text);
    const pen_spool_header *read = pen_spool_file_header(file);
    cr_assert_eq(read->kind, PEN_SPOOL_CAPTURE);
    cr_assert_eq(read->segment, 1);
    cr_assert_eq(read->system_identifier, 77);
    cr_assert_str_eq(read->slot, "penstock");
    cr_assert_eq(read->start_lsn, 0x100);
    for (size_t i = 0; i < PEN_COUNTOF(lens); i++) {
        pen_spool_record record;
        cr_assert_eq(pen_spool_file_next(file, &record, &err), PEN_SPOOL_FILE_RECORD);
        cr_assert_eq(record.wal_end, i + 1);
        cr_assert(pen_slice_equal(record.payload, (pen_slice){bytes, lens[i]}));
    }
    pen_spool_file_close(file);
    cr_assert_eq(count_records(PEN_SPOOL_FILE_END), PEN_COUNTOF(lens));
}

Test(capture, two_captures_have_two_ids)
{
    uint64_t ids[2];
    for (int i = 0; i < 2; i++) {
        cr_assert(pen_capture_close(create(), &err));
        pen_spool_file *file;
        cr_assert(pen_spool_file_open(path, &file, &err), "%s", err.text);
        ids[i] = pen_spool_file_header(file)->id;
        pen_spool_file_close(file);
        unlink(path);
    }
    cr_assert_neq(ids[0], ids[1]);
}

Test(capture, the_file_is_the_owners_alone)
{
    umask(0);
    cr_assert(pen_capture_close(create(), &err));
    struct stat status;
    cr_assert_eq(stat(path, &status), 0);
    cr_assert_eq(status.st_mode & 0777, 0600);
}

Test(capture, a_file_that_is_there_is_left_alone)
{
    FILE *out = fopen(path, "w");
    fputs("precious", out);
    fclose(out);
    pen_capture *capture;
    cr_assert_not(pen_capture_create(path, &header, &capture, &err));
    cr_assert_eq(err.kind, PEN_ERROR_CONFIG);
    cr_assert(strstr(err.text, "exists already; name another file or remove it") != NULL, "%s",
              err.text);
    cr_assert_eq(file_size(), 8);
    /* A link that leads nowhere is something, too. */
    unlink(path);
    cr_assert_eq(symlink("nowhere", path), 0);
    cr_assert_not(pen_capture_create(path, &header, &capture, &err));
}

Test(capture, a_directory_that_is_missing_is_told)
{
    pen_capture *capture;
    cr_assert_not(pen_capture_create("/nonexistent/x", &header, &capture, &err));
    cr_assert_eq(err.kind, PEN_ERROR_FATAL);
    cr_assert(strstr(err.text, "/nonexistent/x") != NULL);
}

Test(capture, what_waits_is_written_after_a_second)
{
    int64_t since_us = pen_now_us();
    pen_capture *capture = create();
    uint8_t byte = 'B';
    pen_spool_record record = record_of(1, &byte, 1);
    cr_assert(pen_capture_add(capture, &record, &err));
    cr_assert(pen_capture_poll(capture, &err));
    cr_assert(file_size() == PEN_SPOOL_HEADER_SIZE || pen_now_us() - since_us >= 990 * 1000);
    usleep(1100 * 1000);
    cr_assert(pen_capture_poll(capture, &err));
    cr_assert_eq(count_records(PEN_SPOOL_FILE_END), 1);
    cr_assert(pen_capture_close(capture, &err));
}

/* A file size limit stands for the disk that is full: a part of the write still succeeds. */
static void limit_files_to(rlim_t bytes)
{
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit = {bytes, bytes};
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* `len` is each record's payload; the limit lies within some flush. */
static void check_full_disk(size_t len)
{
    uint8_t *bytes = pen_calloc(1, len);
    pen_capture *capture = create();
    limit_files_to(1000000);
    size_t failures = 0;
    for (pen_lsn lsn = 1; lsn * len < 4000000; lsn++) {
        pen_spool_record record = record_of(lsn, bytes, len);
        if (!pen_capture_add(capture, &record, &err)) {
            failures++;
            cr_assert_eq(err.kind, PEN_ERROR_FATAL);
            cr_assert(strstr(err.text, "File too large") != NULL, "%s", err.text);
            cr_assert(strstr(err.text, "capturing ends here") != NULL, "%s", err.text);
        }
        cr_assert(pen_capture_poll(capture, &err));
    }
    cr_assert_eq(failures, 1, "%zu", failures);
    uint64_t records = pen_capture_records(capture);
    cr_assert_gt(records, 0);
    cr_assert_eq((uint64_t)file_size(), pen_capture_size(capture));
    cr_assert(pen_capture_close(capture, &err));
    cr_assert_eq(count_records(PEN_SPOOL_FILE_END), records);
    free(bytes);
}

Test(capture, a_full_disk_is_told_once_and_leaves_whole_records)
{
    check_full_disk(1000);
}

Test(capture, and_so_with_records_larger_than_the_buffer)
{
    check_full_disk(300000);
}

Test(capture, a_disk_that_is_full_at_the_end_is_told_by_close)
{
    pen_capture *capture = create();
    limit_files_to(PEN_SPOOL_HEADER_SIZE + 10);
    uint8_t byte = 'B';
    pen_spool_record record = record_of(1, &byte, 1);
    cr_assert(pen_capture_add(capture, &record, &err));
    cr_assert_not(pen_capture_close(capture, &err));
    cr_assert_eq(count_records(PEN_SPOOL_FILE_END), 0);
}

Test(capture, a_disk_that_is_full_at_the_start_leaves_no_file)
{
    limit_files_to(100);
    pen_capture *capture;
    cr_assert_not(pen_capture_create(path, &header, &capture, &err));
    cr_assert_neq(access(path, F_OK), 0);
}
