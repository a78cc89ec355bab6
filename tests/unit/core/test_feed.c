#include "core/feed.h"

#include <criterion/criterion.h>

static pen_segment *segment_in(pen_arena *arena)
{
    pen_segment *seg = pen_arena_alloc(arena, sizeof(*seg));
    *seg = (pen_segment){.block = arena->block};
    pen_block_acquire(arena->block);
    return seg;
}

Test(feed, the_last_reference_releases_what_nobody_took)
{
    pen_budget budget;
    pen_arena arena;
    pen_budget_init(&budget, SIZE_MAX, NULL);
    pen_arena_init(&arena, &budget);
    pen_feed *feed = pen_feed_create();
    pen_feed_acquire(feed);
    for (int i = 0; i < 5; i++) {
        cr_assert(pen_ring_push(&feed->in, segment_in(&arena)));
        cr_assert(pen_ring_push(&feed->out, segment_in(&arena)));
    }
    pen_arena_deinit(&arena);
    pen_feed_release(feed);
    pen_feed_release(feed);
    cr_assert_eq(pen_budget_used(&budget), PEN_BLOCK_SIZE);
    pen_feed_release(feed);
    cr_assert_eq(pen_budget_used(&budget), 0);
}

Test(feed, goes_with_its_transaction)
{
    pen_budget budget;
    pen_arena arena;
    pen_budget_init(&budget, SIZE_MAX, NULL);
    pen_arena_init(&arena, &budget);
    pen_txn *txn = pen_arena_alloc(&arena, sizeof(*txn));
    pen_segment *seg = segment_in(&arena);
    *txn = (pen_txn){.first = seg, .last = seg, .feed = pen_feed_create()};
    cr_assert_eq(pen_cell_read(&txn->feed->in_state), PEN_FEED_OPEN);
    pen_feed *feed = txn->feed;
    cr_assert(pen_ring_push(&feed->in, segment_in(&arena)));
    pen_arena_deinit(&arena);
    pen_txn_release(txn);
    /* The reader's reference keeps the feed, and so the segment in it. */
    cr_assert_eq(pen_budget_used(&budget), PEN_BLOCK_SIZE);
    pen_feed_release(feed);
    cr_assert_eq(pen_budget_used(&budget), 0);
}
