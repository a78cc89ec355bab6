#include "apply/giving.h"

void pen_giving_init(pen_giving *giving, pen_stream *stream, pen_assembler *assembler,
                     pen_positions *positions)
{
    *giving = (pen_giving){.stream = stream, .assembler = assembler, .positions = positions};
}

static void release_segment(pen_giving *giving)
{
    if (giving->segment != NULL) {
        pen_block_release(giving->segment->block);
        giving->segment = NULL;
    }
}

void pen_giving_deinit(pen_giving *giving)
{
    if (giving->waiting != NULL) {
        pen_txn_release(giving->waiting);
    }
    if (giving->feed != NULL) {
        pen_feed_release(giving->feed);
    }
    release_segment(giving);
}

/* Gives a segment into the feed; false when it is full. */
static bool push_segment(pen_giving *giving, pen_segment *seg)
{
    pen_stream *stream = giving->stream;
    if (!pen_ring_push(&giving->feed->in, seg)) {
        /* Raised, and looked at once more: see pen_flag. */
        pen_flag_raise(&stream->dealing.wants_room);
        if (!pen_ring_push(&giving->feed->in, seg)) {
            return false;
        }
    }
    pen_parker_wake(&stream->baton_parker);
    return true;
}

/* Says how the feed ends, and leaves it. */
static void end_feed(pen_giving *giving, pen_feed_state state)
{
    /* [FEED-1] release: every segment is in the ring, the Commit's fields are written; pairs with
     * the acquire in the dispatcher. */
    pen_cell_publish(&giving->feed->in_state, state);
    pen_parker_wake(&giving->stream->baton_parker);
    pen_feed_release(giving->feed);
    giving->feed = NULL;
    giving->feed_ends = false;
}

/* Gives the large transaction's segments that are filled into its feed; false when that is full. */
static bool give_segments(pen_giving *giving)
{
    for (;;) {
        if (giving->segment == NULL) {
            giving->segment = pen_assembler_take_segment(giving->assembler);
        }
        if (giving->segment == NULL) {
            break;
        }
        if (!push_segment(giving, giving->segment)) {
            return false;
        }
        giving->segment = NULL;
        giving->fed++;
    }
    if (giving->feed_ends) {
        pen_lsn end_lsn = giving->feed->end_lsn;
        end_feed(giving, PEN_FEED_COMPLETE);
        pen_positions_note_handed(giving->positions, end_lsn);
    }
    return true;
}

bool pen_giving_poll(pen_giving *giving)
{
    if (giving->waiting != NULL) {
        bool fed = giving->waiting->feed != NULL;
        pen_lsn end_lsn = giving->waiting->end_lsn;
        if (!pen_dealing_deal(&giving->stream->dealing, giving->waiting)) {
            return false;
        }
        giving->waiting = NULL;
        if (!fed) {
            pen_positions_note_handed(giving->positions, end_lsn);
        }
    }
    return giving->feed == NULL || give_segments(giving);
}

void pen_giving_put(pen_giving *giving, pen_txn *txn)
{
    PEN_ASSERT(giving->waiting == NULL);
    giving->waiting = txn;
}

void pen_giving_begin(pen_giving *giving, pen_txn *txn)
{
    giving->feed = pen_feed_create();
    giving->fed = 1;
    txn->feed = giving->feed;
    pen_giving_put(giving, txn);
}

void pen_giving_end(pen_giving *giving, const pen_txn *txn)
{
    pen_feed *feed = giving->feed;
    feed->end_lsn = txn->end_lsn;
    feed->commit_time = txn->commit_time;
    feed->change_count = txn->change_count;
    feed->bytes = txn->bytes;
    giving->feed_ends = true;
}

void pen_giving_discard(pen_giving *giving)
{
    release_segment(giving);
    end_feed(giving, PEN_FEED_DISCARDED);
}

bool pen_giving_is_feeding(const pen_giving *giving)
{
    return giving->feed != NULL;
}

bool pen_giving_is_open(const pen_giving *giving)
{
    return giving->feed != NULL && !giving->feed_ends;
}

bool pen_giving_is_in_flight(const pen_giving *giving)
{
    /* [FEED-5] acquire: pairs with the release in the worker. */
    return giving->feed != NULL && pen_cell_read(&giving->feed->done) < giving->fed;
}
