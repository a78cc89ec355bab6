#include "core/feed.h"

#include <stdlib.h>

/* Segments on the way; --memory bounds their bytes. */
#define FEED_CAPACITY 64

pen_feed *pen_feed_create(void)
{
    pen_feed *feed = pen_alloc_lines(sizeof(*feed));
    pen_ring_init(&feed->in, FEED_CAPACITY);
    pen_ring_init(&feed->out, FEED_CAPACITY);
    pen_cell_init(&feed->in_state, PEN_FEED_OPEN);
    pen_cell_init(&feed->out_state, PEN_FEED_OPEN);
    pen_flag_init(&feed->wants_room);
    pen_flag_init(&feed->wants_segment);
    pen_cell_init(&feed->worker, 0);
    pen_cell_init(&feed->done, 0);
    atomic_init(&feed->refs, 2);
    return feed;
}

static void release_all(pen_ring *ring)
{
    for (pen_segment *seg; (seg = pen_ring_pop(ring)) != NULL;) {
        pen_block_release(seg->block);
    }
    pen_ring_deinit(ring);
}

void pen_feed_acquire(pen_feed *feed)
{
    atomic_fetch_add_explicit(&feed->refs, 1, memory_order_relaxed);
}

void pen_feed_release(pen_feed *feed)
{
    /* [FEED-4] release and acquire in one: the last holder sees all that the others did. */
    if (atomic_fetch_sub_explicit(&feed->refs, 1, memory_order_acq_rel) == 1) {
        release_all(&feed->in);
        release_all(&feed->out);
        free(feed);
    }
}
