#include "io/spool_file.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[256];
static char path[300];
static pen_error err;
static pen_spool_header header = {
    .kind = PEN_SPOOL_STREAM, .id = 99, .segment = 3, .database = "shop", .encoding = "UTF8"};

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

TestSuite(spool_file, .init = setup, .fini = teardown, .timeout = 120);

/* A file in memory, before it is saved. */
typedef struct image {
    uint8_t *bytes;
    size_t len;
} image;

static void add(image *img, pen_spool_record_kind kind, pen_lsn lsn, size_t payload_len)
{
    uint8_t *payload = pen_malloc(payload_len);
    for (size_t i = 0; i < payload_len; i++) {
        payload[i] = (uint8_t)(i * 7 + lsn);
    }
    pen_spool_record record = {kind, lsn, 5, {payload, payload_len}};
    size_t size = pen_spool_record_size(payload_len);
    img->bytes = pen_realloc(img->bytes, img->len + size);
    pen_spool_record_encode(&header, img->len, &record, img->bytes + img->len);
    img->len += size;
    free(payload);
}

static image begin(void)
{
    image img = {pen_malloc(PEN_SPOOL_HEADER_SIZE), PEN_SPOOL_HEADER_SIZE};
    pen_spool_header_encode(&header, img.bytes);
    return img;
}

static void save(const uint8_t *bytes, size_t len)
{
    FILE *out = fopen(path, "wb");
    cr_assert_not_null(out);
    cr_assert_eq(fwrite(bytes, 1, len, out), len);
    cr_assert_eq(fclose(out), 0);
}

static pen_spool_file *open_file(void)
{
    pen_spool_file *file;
    cr_assert(pen_spool_file_open(path, &file, &err), "%s", err.text);
    return file;
}

/* Reads to the end; returns how it ended, the number of records, and where. */
static pen_spool_file_result read_all(size_t *records, uint64_t *offset)
{
    pen_spool_file *file = open_file();
    pen_spool_record record;
    pen_spool_file_result result;
    *records = 0;
    while ((result = pen_spool_file_next(file, &record, &err)) == PEN_SPOOL_FILE_RECORD) {
        ++*records;
    }
    *offset = pen_spool_file_offset(file);
    pen_spool_file_close(file);
    return result;
}

static void expect_refused(const char *words)
{
    pen_spool_file *file;
    cr_assert_not(pen_spool_file_open(path, &file, &err));
    cr_assert_eq(err.kind, PEN_ERROR_FATAL);
    cr_assert(strstr(err.text, path) != NULL, "%s", err.text);
    cr_assert(strstr(err.text, words) != NULL, "%s", err.text);
}

Test(spool_file, gives_every_record_and_where_it_stands)
{
    static const size_t lens[] = {0, 1, 100, 70000, 3, 262119, 262120, 0, 3000000, 12, 262144, 1};
    image img = begin();
    uint64_t offsets[PEN_COUNTOF(lens)];
    for (size_t i = 0; i < PEN_COUNTOF(lens); i++) {
        offsets[i] = img.len;
        add(&img, lens[i] == 0 ? PEN_SPOOL_KEEPALIVE : PEN_SPOOL_MESSAGE, i + 1, lens[i]);
    }
    save(img.bytes, img.len);
    pen_spool_file *file = open_file();
    cr_assert_eq(pen_spool_file_header(file)->segment, 3);
    cr_assert_str_eq(pen_spool_file_header(file)->database, "shop");
    pen_spool_record record;
    for (size_t i = 0; i < PEN_COUNTOF(lens); i++) {
        cr_assert_eq(pen_spool_file_next(file, &record, &err), PEN_SPOOL_FILE_RECORD);
        cr_assert_eq(pen_spool_file_offset(file), offsets[i]);
        cr_assert_eq(record.wal_end, i + 1);
        cr_assert_eq(record.payload.len, lens[i]);
        for (size_t at = 0; at < lens[i]; at++) {
            cr_assert_eq(record.payload.data[at], (uint8_t)(at * 7 + i + 1));
        }
    }
    for (int twice = 0; twice < 2; twice++) {
        cr_assert_eq(pen_spool_file_next(file, &record, &err), PEN_SPOOL_FILE_END);
        cr_assert_eq(pen_spool_file_offset(file), img.len);
    }
    pen_spool_file_close(file);
    free(img.bytes);
}

Test(spool_file, only_a_header_is_whole_and_empty)
{
    image img = begin();
    save(img.bytes, img.len);
    size_t records;
    uint64_t offset;
    cr_assert_eq(read_all(&records, &offset), PEN_SPOOL_FILE_END);
    cr_assert_eq(records, 0);
    cr_assert_eq(offset, PEN_SPOOL_HEADER_SIZE);
    free(img.bytes);
}

Test(spool_file, a_file_cut_at_any_byte_gives_the_whole_records_before_it)
{
    image img = begin();
    uint64_t ends[4] = {img.len};
    for (size_t i = 0; i < 3; i++) {
        add(&img, PEN_SPOOL_MESSAGE, i, 10 + i);
        ends[i + 1] = img.len;
    }
    for (size_t len = PEN_SPOOL_HEADER_SIZE; len <= img.len; len++) {
        save(img.bytes, len);
        size_t whole = 0;
        while (whole < 3 && ends[whole + 1] <= len) {
            whole++;
        }
        size_t records;
        uint64_t offset;
        pen_spool_file_result result = read_all(&records, &offset);
        cr_assert_eq(result, ends[whole] == len ? PEN_SPOOL_FILE_END : PEN_SPOOL_FILE_TORN,
                     "%zu bytes", len);
        cr_assert_eq(records, whole, "%zu bytes", len);
        cr_assert_eq(offset, ends[whole], "%zu bytes", len);
    }
    free(img.bytes);
}

Test(spool_file, each_flipped_byte_ends_the_reading_at_its_record)
{
    image img = begin();
    uint64_t ends[4] = {img.len};
    for (size_t i = 0; i < 3; i++) {
        add(&img, PEN_SPOOL_MESSAGE, i, 10);
        ends[i + 1] = img.len;
    }
    for (size_t at = PEN_SPOOL_HEADER_SIZE; at < img.len; at++) {
        img.bytes[at] ^= 0x10;
        save(img.bytes, img.len);
        img.bytes[at] ^= 0x10;
        size_t whole = 0;
        while (ends[whole + 1] <= at) {
            whole++;
        }
        size_t records;
        uint64_t offset;
        cr_assert_eq(read_all(&records, &offset), PEN_SPOOL_FILE_TORN, "byte %zu", at);
        cr_assert_eq(records, whole, "byte %zu", at);
        cr_assert_eq(offset, ends[whole], "byte %zu", at);
    }
    free(img.bytes);
}

/* The address space is too small for what the length says: had it been believed, pen_malloc would
 * have aborted. */
Test(spool_file, a_length_that_lies_costs_no_memory)
{
    image img = begin();
    add(&img, PEN_SPOOL_MESSAGE, 1, 100);
    uint32_t lie = PEN_SPOOL_PAYLOAD_MAX;
    memcpy(img.bytes + PEN_SPOOL_HEADER_SIZE + 4, &lie, 4);
    save(img.bytes, img.len);
    FILE *status = fopen("/proc/self/statm", "r");
    unsigned long pages = 0;
    cr_assert_not_null(status);
    cr_assert_eq(fscanf(status, "%lu", &pages), 1);
    fclose(status);
    struct rlimit limit = {0};
    cr_assert_eq(getrlimit(RLIMIT_AS, &limit), 0);
#ifndef __SANITIZE_ADDRESS__
    limit.rlim_cur = pages * (unsigned long)sysconf(_SC_PAGESIZE) + (64UL << 20);
    cr_assert_eq(setrlimit(RLIMIT_AS, &limit), 0);
#endif
    size_t records;
    uint64_t offset;
    cr_assert_eq(read_all(&records, &offset), PEN_SPOOL_FILE_TORN);
    cr_assert_eq(offset, PEN_SPOOL_HEADER_SIZE);
    free(img.bytes);
}

/* A capture may be read while it is written. */
Test(spool_file, a_file_that_grows_is_read_on)
{
    image img = begin();
    add(&img, PEN_SPOOL_MESSAGE, 1, 100);
    size_t first = img.len;
    add(&img, PEN_SPOOL_MESSAGE, 2, 300000);
    save(img.bytes, first + 50);
    pen_spool_file *file = open_file();
    pen_spool_record record;
    cr_assert_eq(pen_spool_file_next(file, &record, &err), PEN_SPOOL_FILE_RECORD);
    cr_assert_eq(pen_spool_file_next(file, &record, &err), PEN_SPOOL_FILE_TORN);
    cr_assert_eq(pen_spool_file_offset(file), first);
    save(img.bytes, img.len);
    cr_assert_eq(pen_spool_file_next(file, &record, &err), PEN_SPOOL_FILE_RECORD);
    cr_assert_eq(record.wal_end, 2);
    cr_assert_eq(pen_spool_file_next(file, &record, &err), PEN_SPOOL_FILE_END);
    pen_spool_file_close(file);
    free(img.bytes);
}

Test(spool_file, what_is_no_such_file_is_refused_in_words)
{
    expect_refused("No such file");
    save((const uint8_t *)"", 0);
    expect_refused("is empty");
    save((const uint8_t *)"id,name\n1,x\n", 12);
    expect_refused("does not begin as one");
    image img = begin();
    save(img.bytes, 300);
    expect_refused("cut off");
    img.bytes[100] ^= 1;
    save(img.bytes, img.len);
    expect_refused("damaged");
    free(img.bytes);
    unlink(path);
    cr_assert_eq(mkfifo(path, 0600), 0);
    expect_refused("pipe");
    unlink(path);
    cr_assert_eq(mkdir(path, 0700), 0);
    expect_refused("a directory");
    rmdir(path);
}
