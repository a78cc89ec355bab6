#include "apply/positions.h"

#include <criterion/criterion.h>

static pen_options options;
static pen_stream *stream;
static pen_positions positions;
static pen_error err;

/* A stream that has everything up to the commit at 500, which ends at 510. */
static void set_up(void)
{
    options = (pen_options){.workers = 1,
                            .dispatchers = 1,
                            .memory = 64 << 20,
                            .batch_rows = 10000,
                            .batch_bytes = 16 << 20,
                            .batch_transactions = 1000};
    cr_assert(pen_stream_create(&options, &stream, &err), "%s", err.text);
    stream->resume.commit_lsn = 500;
    stream->resume.start_lsn = 510;
    pen_positions_init(&positions, stream);
}

static void tear_down(void)
{
    pen_positions_deinit(&positions);
    pen_stream_destroy(stream);
}

TestSuite(positions, .init = set_up, .fini = tear_down);

static bool came_again(pen_lsn commit_lsn)
{
    bool again = false;
    cr_assert(pen_positions_note_commit(&positions, commit_lsn, &again, &err), "%s", err.text);
    return again;
}

Test(positions, what_was_here_is_known)
{
    cr_assert(pen_positions_was_here(&positions, 500));
    cr_assert_not(pen_positions_was_here(&positions, 501));
    cr_assert(came_again(400));
    cr_assert(came_again(500));
    cr_assert_not(came_again(600));
    cr_assert_not(came_again(700));
    /* Until the connection is lost nothing comes twice. */
    bool again = false;
    cr_assert_not(pen_positions_note_commit(&positions, 700, &again, &err));
    cr_assert_eq(err.kind, PEN_ERROR_FATAL);
    cr_assert_not(pen_positions_note_commit(&positions, 650, &again, &err));
    pen_positions_note_session(&positions);
    cr_assert(came_again(600));
    cr_assert(came_again(700));
    cr_assert_not(came_again(701));
}

Test(positions, one_that_was_here_does_not_take_the_order_back)
{
    cr_assert_not(came_again(600));
    cr_assert(came_again(300));
    pen_positions_note_session(&positions);
    cr_assert(pen_positions_was_here(&positions, 600));
}

Test(positions, what_others_see_never_goes_back)
{
    pen_positions_note_idle(&positions, 400);
    cr_assert_eq(pen_cell_read(&stream->idle_lsn), 510);
    pen_positions_note_idle(&positions, 800);
    cr_assert_eq(positions.received, 800);
    cr_assert_eq(pen_cell_read(&stream->idle_lsn), 800);
    /* What has only come is not over. */
    pen_positions_note_received(&positions, 900);
    cr_assert_eq(pen_cell_read(&stream->idle_lsn), 800);
    pen_positions_note_handed(&positions, 900);
    cr_assert_eq(pen_cell_read(&stream->handed_lsn), 900);
    cr_assert_eq(pen_cell_read(&stream->idle_lsn), 800);
    pen_positions_note_idle(&positions, 850);
    cr_assert_eq(pen_cell_read(&stream->idle_lsn), 900);
}

Test(positions, the_end_is_behind_its_position)
{
    cr_assert_not(pen_positions_is_beyond_end(&positions, UINT64_MAX));
    stream->stop_lsn = 1000;
    cr_assert_not(pen_positions_is_beyond_end(&positions, 1000));
    cr_assert(pen_positions_is_beyond_end(&positions, 1001));
}

Test(positions, a_segment_is_needed_until_what_began_in_it_is_durable)
{
    cr_assert_eq(pen_positions_needed_segment(&positions, UINT64_MAX, 10000), 0);
    for (uint64_t segment = 1; segment <= 40; segment++) {
        pen_positions_note_segment(&positions, segment);
        pen_positions_note_segment(&positions, segment);
        pen_positions_note_end(&positions, segment, 1000 + 10 * segment);
        pen_positions_note_end(&positions, segment, 1000 + 10 * segment - 5);
    }
    /* One that began in segment 3 ended late. */
    pen_positions_note_end(&positions, 3, 1200);
    cr_assert_eq(pen_positions_needed_segment(&positions, UINT64_MAX, 1009), 1);
    cr_assert_eq(pen_positions_needed_segment(&positions, UINT64_MAX, 1010), 2);
    cr_assert_eq(pen_positions_needed_segment(&positions, UINT64_MAX, 1199), 3);
    cr_assert_eq(pen_positions_needed_segment(&positions, 10, 1300), 10);
    /* What stands in a segment that is gone counts for the first one that is there. */
    pen_positions_note_end(&positions, 5, 1310);
    cr_assert_eq(pen_positions_needed_segment(&positions, UINT64_MAX, 1309), 10);
    cr_assert_eq(pen_positions_needed_segment(&positions, UINT64_MAX, 1310), 32);
    /* The last one always is. */
    cr_assert_eq(pen_positions_needed_segment(&positions, UINT64_MAX, UINT64_MAX), 40);
}
