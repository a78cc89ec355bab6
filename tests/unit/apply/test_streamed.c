/* A transaction in progress that is read while its blocks come, beside another one, and again at
 * its Stream Commit. (What is read only then, tests/unit/apply/test_intake.c plays at length.) */
#include "apply/streamed.h"

#include "../core/wire.h"
#include "../io/spool_rig.h"

TestSuite(streamed, .init = setup, .fini = teardown);

enum { ONE = 700, TWO = 701, SUB = 702 };

static pen_spool *spool;
static pen_streamed *streamed;
static uint64_t arrival;

static void begin(void)
{
    pen_spool_options options = durable_options(false);
    options.durable = false;
    options.segment_size = 1 << 20;
    spool = open_spool(&options, NULL);
    begin_segment(spool, 0);
    streamed = pen_streamed_create(spool, false);
    arrival = 0;
}

static void end(void)
{
    pen_streamed_destroy(streamed);
    pen_spool_close(spool, true);
}

/* A block of `xid` with `count` rows of `subxid` in the relations `first` and following. */
static void block(uint32_t xid, bool is_first, uint32_t subxid, uint32_t first, unsigned count)
{
    cr_assert(pen_streamed_start(streamed, xid, is_first, &err), "%s", err.text);
    for (unsigned i = 0; i < count; i++) {
        wire out = {0};
        wire_row(&out, 'I', first + i);
        wire_tuple(&out, 'N', 1);
        wire_null(&out);
        wire_add_xid(&out, subxid);
        const pen_spool_record record = {.kind = PEN_SPOOL_MESSAGE, .payload = {out.data, out.len}};
        const pen_spool_record keepalive = {.kind = PEN_SPOOL_KEEPALIVE, .wal_end = 5};
        pen_streamed_add(streamed, pen_spool_append(spool, &record), ++arrival);
        if (i % 3 == 0) {
            (void)pen_spool_append(spool, &keepalive);
        }
        poll_spool(spool);
        wire_free(&out);
    }
    cr_assert(pen_streamed_stop(streamed, &err), "%s", err.text);
}

static uint32_t relation_of(pen_slice bytes)
{
    pen_cursor cur = pen_cursor_over(bytes);
    (void)pen_cursor_u8(&cur);
    (void)pen_cursor_u32(&cur);
    return pen_cursor_u32(&cur);
}

/* Reads on: exactly the rows of the relations from `first` up to before `last`. */
static void expect_rows(pen_streamed_reading *reading, uint32_t first, uint32_t last)
{
    pen_slice bytes;
    uint64_t at = 0;
    for (uint32_t relation = first; relation < last; relation++) {
        cr_assert_eq((int)pen_streamed_read(streamed, reading, &bytes, &at, &err),
                     PEN_STREAMED_MESSAGE);
        cr_assert_eq(relation_of(bytes), relation);
        cr_assert_leq(at, arrival);
    }
    cr_assert_eq(pen_streamed_left(streamed, reading), 0);
    cr_assert_eq((int)pen_streamed_read(streamed, reading, &bytes, &at, &err), PEN_STREAMED_END);
}

Test(streamed, is_read_while_it_comes)
{
    pen_streamed_reading reading = {0};
    begin();
    cr_assert_not(pen_streamed_begin_reading(streamed, &reading, ONE), "nothing of it has come");
    block(ONE, true, ONE, 1000, 10);
    cr_assert(pen_streamed_begin_reading(streamed, &reading, ONE));
    cr_assert_eq(pen_streamed_left(streamed, &reading), 10);
    expect_rows(&reading, 1000, 1010);
    expect_rows(&reading, 1010, 1010);
    block(TWO, true, TWO, 5000, 4);
    expect_rows(&reading, 1010, 1010);
    block(ONE, false, ONE, 1010, 7);
    block(ONE, false, SUB, 1017, 1); /* joins the block before: nothing came in between */
    expect_rows(&reading, 1010, 1018);
    block(TWO, false, TWO, 5004, 4);
    block(ONE, false, ONE, 1018, 300);
    expect_rows(&reading, 1018, 1318);
    /* At its Commit the same once more, from the first one, and then it is forgotten. */
    cr_assert(pen_streamed_replay(streamed, ONE, false));
    pen_slice bytes;
    uint64_t at = 0;
    for (uint32_t relation = 1000; relation < 1318; relation++) {
        cr_assert_eq((int)pen_streamed_next(streamed, &bytes, &at, &err), PEN_STREAMED_MESSAGE);
        cr_assert_eq(relation_of(bytes), relation);
    }
    pen_streamed_end_reading(&reading);
    cr_assert_eq((int)pen_streamed_next(streamed, &bytes, &at, &err), PEN_STREAMED_END);
    cr_assert_eq(pen_streamed_segment_of(streamed, ONE), 0);
    cr_assert_neq(pen_streamed_segment_of(streamed, TWO), 0);
    end();
}

Test(streamed, one_that_is_refused_is_read_only_at_its_commit)
{
    pen_streamed_reading reading = {0};
    pen_slice bytes;
    uint64_t at = 0;
    begin();
    block(ONE, true, ONE, 1000, 3);
    cr_assert(pen_streamed_begin_reading(streamed, &reading, ONE));
    expect_rows(&reading, 1000, 1003);
    pen_streamed_end_reading(&reading);
    pen_streamed_refuse_reading(streamed, ONE);
    block(ONE, false, ONE, 1003, 3);
    cr_assert_not(pen_streamed_begin_reading(streamed, &reading, ONE));
    cr_assert(pen_streamed_replay(streamed, ONE, false));
    for (int i = 0; i < 6; i++) {
        cr_assert_eq((int)pen_streamed_next(streamed, &bytes, &at, &err), PEN_STREAMED_MESSAGE);
    }
    cr_assert_eq((int)pen_streamed_next(streamed, &bytes, &at, &err), PEN_STREAMED_END);
    end();
}
