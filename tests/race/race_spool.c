/* One thread appends, reads and syncs while the fallback's thread writes: for ThreadSanitizer. A
 * plain program, since Criterion does not start there. */
#include "io/spool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RECORDS = 20000, ROUNDS = 3 };

static char dir[256];
static pen_parker parker;

static int fail(const char *what, const pen_error *err)
{
    fprintf(stderr, "race_spool: %s: %s\n", what, err->text);
    return 1;
}

/* Sleeps until `all` is durable or, without it, until there is room. */
static bool wait_for(pen_spool *spool, bool all, pen_error *err)
{
    for (;;) {
        pen_parker_prepare(&parker);
        if (!pen_spool_poll(spool, err)) {
            return false;
        }
        if (all ? !pen_spool_pos_before(pen_spool_synced(spool), pen_spool_end(spool))
                : pen_spool_has_room(spool)) {
            pen_parker_cancel(&parker);
            return true;
        }
        (void)pen_parker_park(&parker, -1, 0, PEN_PARK_FOREVER);
    }
}

static bool read_all(pen_spool_cursor *cursor, uint64_t *next, uint64_t end, pen_error *err)
{
    pen_spool_record record;
    pen_spool_pos at;
    while (*next < end) {
        if (pen_spool_cursor_next(cursor, &record, &at, err) != PEN_SPOOL_READ_RECORD) {
            return false;
        }
        if (record.wal_end != *next) {
            return pen_error_set(err, PEN_ERROR_FATAL, "record %llu where %llu should be",
                                 (unsigned long long)record.wal_end, (unsigned long long)*next);
        }
        (*next)++;
    }
    return true;
}

static bool run_round(pen_spool *spool, pen_error *err)
{
    static const uint8_t bytes[3000];
    pen_spool_cursor *cursor = pen_spool_cursor_create(spool, pen_spool_first(spool));
    uint64_t next = 0;
    bool good = true;
    bool made;
    for (uint64_t i = 0; good && i < RECORDS; i++) {
        pen_spool_record record = {
            .kind = PEN_SPOOL_MESSAGE, .wal_end = i, .payload = {bytes, 1 + i * 37 % 700}};
        if (i % 1000 == 0) {
            record.payload.len = sizeof(bytes); /* more than a buffer */
        }
        good = !pen_spool_wants_segment(spool) || pen_spool_begin_segment(spool, i, &made, err);
        (void)pen_spool_append(spool, &record);
        if (i % 100 == 0) {
            pen_spool_mark(spool, i);
            pen_spool_sync(spool);
        }
        good = good && (pen_spool_has_room(spool) || wait_for(spool, false, err)) &&
               (i % 50 != 0 || read_all(cursor, &next, i, err));
    }
    pen_spool_sync(spool);
    good = good && wait_for(spool, true, err) && read_all(cursor, &next, RECORDS, err);
    pen_spool_cursor_destroy(cursor);
    return good;
}

int main(void)
{
    pen_error err;
    bool found;
    memset(&err, 0, sizeof(err));
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof(dir), "%s/penstock-race-XXXXXX", tmp == NULL ? "/tmp" : tmp);
    if (mkdtemp(dir) == NULL || !pen_parker_init(&parker, &err)) {
        return fail("cannot begin", &err);
    }
    int rc = 0;
    for (int round = 0; rc == 0 && round < ROUNDS; round++) {
        const pen_spool_options options = {.dir = dir,
                                           .name = "race",
                                           .header = {.kind = PEN_SPOOL_STREAM},
                                           .durable = true,
                                           .segment_size = 1000000,
                                           .buffer_size = 2000,
                                           .buffer_count = 3,
                                           .parker = &parker};
        pen_spool *spool;
        if (!pen_spool_open(&options, &spool, &found, &err)) {
            rc = fail("opening", &err);
            break;
        }
        if (!run_round(spool, &err)) {
            rc = fail("at work", &err);
        }
        pen_spool_close(spool, true);
    }
    pen_parker_deinit(&parker);
    rmdir(dir);
    if (rc == 0) {
        printf("race_spool: %d rounds of %d records\n", ROUNDS, RECORDS);
    }
    return rc;
}
