/* The spool at work: appending, reading, syncing and trimming against a model that keeps everything
 * in memory, with buffers and segments so small that all their edges are met. */
#include "tests/unit/io/spool_rig.h"

TestSuite(spool, .init = setup, .fini = teardown, .timeout = 120);

/* ---- against a model ---- */

enum { MODEL_MAX = 20000 };

typedef struct model {
    pen_spool *spool;
    pen_spool_cursor *cursors[2];
    size_t next[2]; /* the record that each reads next */
    size_t count;
    size_t first; /* not trimmed */
    size_t len[MODEL_MAX];
    pen_spool_pos at[MODEL_MAX];
    size_t marked; /* records before the last mark; it is the mark itself */
    uint64_t random;
} model;

static uint64_t next_random(model *m)
{
    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return m->random;
}

static size_t random_len(model *m)
{
    switch (next_random(m) % 20) {
    case 0:
        return 0;
    case 1:
        return 900 + next_random(m) % 200; /* about as large as a buffer */
    case 2:
        return next_random(m) % 9000; /* larger than all of them */
    case 3: {
        /* Up to the very end of a buffer. */
        size_t exact = 1000 - (size_t)(pen_spool_end(m->spool).offset % 1000);
        return exact > RECORD_OVERHEAD ? exact - RECORD_OVERHEAD : 1;
    }
    default:
        return 1 + next_random(m) % 120;
    }
}

static void model_append(model *m)
{
    size_t i = m->count++;
    m->len[i] = random_len(m);
    if (pen_spool_wants_segment(m->spool) || next_random(m) % 200 == 0) {
        begin_segment(m->spool, i);
    }
    pen_spool_pos end = pen_spool_end(m->spool);
    m->at[i] = append(m->spool, i, m->len[i]);
    cr_assert_eq(m->at[i].segment, end.segment);
    cr_assert_eq(m->at[i].offset, end.offset);
}

static void model_read(model *m, size_t which)
{
    for (uint64_t steps = next_random(m) % 30; steps > 0; steps--) {
        if (m->next[which] == m->count) {
            expect_nothing(m->cursors[which]);
            return;
        }
        pen_spool_pos at = pen_spool_cursor_pos(m->cursors[which]);
        cr_assert_eq(at.segment, m->at[m->next[which]].segment);
        cr_assert_eq(at.offset, m->at[m->next[which]].offset);
        expect(m->cursors[which], m->next[which], m->len[m->next[which]]);
        m->next[which]++;
    }
}

static void model_seek(model *m, size_t which)
{
    m->next[which] = m->first + next_random(m) % (m->count - m->first);
    pen_spool_cursor_seek(m->cursors[which], m->at[m->next[which]]);
}

static void model_trim(model *m)
{
    uint64_t segment = pen_spool_cursor_pos(m->cursors[0]).segment;
    uint64_t other = pen_spool_cursor_pos(m->cursors[1]).segment;
    segment = other < segment ? other : segment;
    cr_assert(pen_spool_trim(m->spool, segment, &err), "%s", err.text);
    pen_spool_pos first = pen_spool_first(m->spool);
    cr_assert_eq(first.segment, segment);
    while (m->first < m->count && pen_spool_pos_before(m->at[m->first], first)) {
        m->first++;
    }
    cr_assert(segment == 1 || access(segment_path(segment - 1), F_OK) != 0);
    cr_assert_eq(access(segment_path(segment), F_OK), 0);
}

static void model_check_synced(const model *m)
{
    size_t synced = (size_t)pen_spool_synced_lsn(m->spool);
    cr_assert_leq(synced, m->marked);
    cr_assert(synced == 0 || !pen_spool_pos_before(pen_spool_synced(m->spool), m->at[synced - 1]));
}

static void model_step(model *m)
{
    uint64_t what = next_random(m) % 100;
    if (m->count == 0 || (what < 70 && pen_spool_has_room(m->spool))) {
        model_append(m);
    } else if (what < 80) {
        model_read(m, what % 2);
    } else if (what < 82) {
        model_seek(m, what % 2);
    } else if (what < 84) {
        model_trim(m);
    } else if (what < 88) {
        pen_spool_mark(m->spool, m->count);
        m->marked = m->count;
    } else if (what < 92) {
        pen_spool_sync(m->spool);
    } else if (what < 99) {
        poll_spool(m->spool);
    } else {
        model_append(m); /* also without room */
    }
    model_check_synced(m);
}

static void model_run(bool use_uring, bool durable, uint64_t seed)
{
    static model m;
    memset(&m, 0, sizeof(m));
    m.random = seed;
    pen_spool_options options = durable_options(use_uring);
    options.durable = durable;
    m.spool = open_spool(&options, NULL);
    for (size_t i = 0; i < 2; i++) {
        m.cursors[i] = pen_spool_cursor_create(m.spool, pen_spool_first(m.spool));
    }
    for (int step = 0; step < 4000; step++) {
        model_step(&m);
    }
    if (durable) {
        pen_spool_mark(m.spool, m.count);
        sync_all(m.spool);
        cr_assert_eq(pen_spool_synced_lsn(m.spool), m.count);
    }
    for (size_t i = 0; i < 2; i++) {
        while (m.next[i] < m.count) {
            model_read(&m, i);
        }
        expect_nothing(m.cursors[i]);
        pen_spool_cursor_destroy(m.cursors[i]);
    }
    pen_spool_pos first = pen_spool_first(m.spool);
    pen_spool_pos end = pen_spool_end(m.spool);
    uint64_t size = pen_spool_size(m.spool);
    pen_lsn start_lsn = pen_spool_start_lsn(m.spool);
    pen_spool_close(m.spool, false);

    bool found;
    m.spool = open_spool(&options, &found);
    cr_assert_eq(found, durable);
    if (durable) {
        cr_assert_eq(pen_spool_first(m.spool).segment, first.segment);
        cr_assert_eq(pen_spool_end(m.spool).segment, end.segment);
        cr_assert_eq(pen_spool_end(m.spool).offset, end.offset);
        cr_assert_eq(pen_spool_size(m.spool), size);
        cr_assert_eq(pen_spool_start_lsn(m.spool), start_lsn);
        cr_assert_eq(logged("torn"), 0);
        pen_spool_cursor *cursor = pen_spool_cursor_create(m.spool, first);
        for (size_t i = m.first; i < m.count; i++) {
            expect(cursor, i, m.len[i]);
        }
        expect_nothing(cursor);
        pen_spool_cursor_destroy(cursor);
    } else {
        cr_assert_eq(pen_spool_size(m.spool), 0U);
    }
    pen_spool_close(m.spool, true);
    cr_assert_eq(rmdir(spool_dir), 0, "nothing is left");
}

BOTH_WAYS(spool, it_keeps_what_the_model_keeps)
{
    for (uint64_t seed = 1; seed <= 6; seed++) {
        model_run(use_uring, true, seed * 7919);
        model_run(use_uring, false, seed * 104729);
    }
}

/* ---- the rest ---- */

BOTH_WAYS(spool, files_and_directory_are_private)
{
    mode_t before = umask(0);
    pen_spool_options options = durable_options(use_uring);
    pen_spool *spool = open_spool(&options, NULL);
    cr_assert_str_eq(pen_spool_method(spool), use_uring ? "io_uring" : "thread");
    append(spool, 1, 10);
    umask(before);
    struct stat status;
    cr_assert_eq(stat(spool_dir, &status), 0);
    cr_assert_eq(status.st_mode & 07777, 0700U);
    cr_assert_eq(stat(segment_path(1), &status), 0);
    cr_assert_eq(status.st_mode & 07777, 0600U);
    pen_spool_close(spool, false);
    pen_spool_close(NULL, true);
}

BOTH_WAYS(spool, an_empty_one_says_where_the_first_record_will_be)
{
    pen_spool_options options = durable_options(use_uring);
    bool found = true;
    pen_spool *spool = open_spool(&options, &found);
    cr_assert_not(found);
    cr_assert(pen_spool_wants_segment(spool));
    cr_assert(pen_spool_has_room(spool));
    cr_assert_eq(pen_spool_size(spool), 0U);
    cr_assert_eq(pen_spool_synced_lsn(spool), PEN_LSN_NONE);
    pen_spool_pos first = pen_spool_first(spool);
    pen_spool_cursor *cursor = pen_spool_cursor_create(spool, first);
    expect_nothing(cursor);
    pen_spool_sync(spool);
    poll_spool(spool);
    pen_spool_pos at = append(spool, 5, 20);
    cr_assert_eq(at.segment, first.segment);
    cr_assert_eq(at.offset, first.offset);
    expect(cursor, 5, 20);
    expect_nothing(cursor);
    pen_spool_cursor_destroy(cursor);
    pen_spool_close(spool, false);
}

/* Borrowed until the next append, whatever the disk does meanwhile. */
BOTH_WAYS(spool, a_record_stays_where_it_is_while_others_poll_and_read)
{
    enum { LARGE = 1000000 };
    pen_spool_options options = durable_options(use_uring);
    options.segment_size = (size_t)1 << 30; /* a new segment would have it all written */
    pen_spool *spool = open_spool(&options, NULL);
    append(spool, 1, LARGE); /* has memory of its own */
    append(spool, 2, 100);
    pen_spool_cursor *one = pen_spool_cursor_create(spool, pen_spool_first(spool));
    pen_spool_cursor *other = pen_spool_cursor_create(spool, pen_spool_first(spool));
    pen_spool_record record;
    pen_spool_pos at;
    cr_assert_eq(pen_spool_cursor_next(one, &record, &at, &err), PEN_SPOOL_READ_RECORD);
    sync_all(spool);
    uint8_t *freed = malloc(LARGE + 100); /* whoever allocates now gets what was given back */
    memset(freed, 0xEE, LARGE + 100);
    expect(other, 1, LARGE);
    expect(other, 2, 100);
    static uint8_t bytes[LARGE];
    fill_payload(1, bytes, sizeof(bytes));
    cr_assert_eq(memcmp(record.payload.data, bytes, sizeof(bytes)), 0);
    free(freed);
    pen_spool_cursor_destroy(one);
    pen_spool_cursor_destroy(other);
    pen_spool_close(spool, false);
}

BOTH_WAYS(spool, room_ends_with_the_buffers_and_comes_back)
{
    pen_spool_options options = durable_options(use_uring);
    options.segment_size = (size_t)1 << 30;
    pen_spool *spool = open_spool(&options, NULL);
    size_t refused = 0;
    for (uint64_t i = 0; i < 20000; i++) {
        append(spool, i, 400);
        if (!pen_spool_has_room(spool)) {
            refused++;
            wait_until(spool, pen_spool_has_room);
        }
    }
    cr_assert_gt(refused, 0U, "the disk is slower than this");
    cr_assert_not(pen_spool_disk_is_full(spool));
    pen_spool_close(spool, true);
}

BOTH_WAYS(spool, records_larger_than_everything)
{
    pen_spool_options options = durable_options(use_uring);
    pen_spool *spool = open_spool(&options, NULL);
    static const size_t lens[] = {1000, 3000, 5000000, 1, 70000000, 12, 0};
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < PEN_COUNTOF(lens); i++) {
            append(spool, i, lens[i]);
        }
        /* Once from memory, once from the file. */
        pen_spool_cursor *cursor = pen_spool_cursor_create(spool, pen_spool_first(spool));
        for (size_t i = 0; i < PEN_COUNTOF(lens) * ((size_t)round + 1); i++) {
            expect(cursor, i % PEN_COUNTOF(lens), lens[i % PEN_COUNTOF(lens)]);
        }
        expect_nothing(cursor);
        pen_spool_cursor_destroy(cursor);
        sync_all(spool);
        pen_spool_close(spool, false);
        spool = open_spool(&options, NULL);
    }
    pen_spool_close(spool, true);
}

Test(spool, what_is_in_memory_is_written_before_it_is_given_up)
{
    pen_spool_options options = durable_options(false);
    options.segment_size = (size_t)1 << 30;
    pen_spool *spool = open_spool(&options, NULL);
    pen_spool_cursor *cursor = pen_spool_cursor_create(spool, pen_spool_first(spool));
    /* Never polled: nothing is ever known to be written, so all of it stays in memory. */
    for (uint64_t i = 0; i < 2000; i++) {
        append(spool, i, 50);
    }
    cr_assert_not(pen_spool_has_room(spool));
    for (uint64_t i = 0; i < 2000; i++) {
        expect(cursor, i, 50);
    }
    for (uint64_t i = 2000; i < 3000; i++) {
        poll_spool(spool);
        append(spool, i, 50);
        expect(cursor, i, 50);
    }
    pen_spool_cursor_destroy(cursor);
    pen_spool_close(spool, false);
}

/* A new server version, protocol or format needs a header of its own. */
Test(spool, a_changed_stream_begins_a_segment)
{
    pen_spool_options options = durable_options(false);
    pen_spool *spool = open_spool(&options, NULL);
    append(spool, 0, 10);
    sync_all(spool);
    pen_spool_close(spool, false);
    for (int change = 0; change < 4; change++) {
        options.header.timeline += change == 0;
        options.header.server_version += change == 1;
        options.header.protocol = change >= 2 ? 2 : 1;
        options.header.binary = change == 3;
        spool = open_spool(&options, NULL);
        cr_assert(pen_spool_wants_segment(spool), "%d", change);
        pen_spool_pos at = append(spool, (uint64_t)change + 1, 10);
        cr_assert_eq(at.segment, (uint64_t)change + 2);
        cr_assert_not(pen_spool_wants_segment(spool));
        sync_all(spool);
        pen_spool_close(spool, false);
    }
}
