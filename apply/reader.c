#include "apply/reader.h"

#include "core/assemble.h"
#include "core/feed.h"
#include "core/log.h"

#include <inttypes.h>
#include <stdlib.h>

/* Messages taken in before status, stop and ring are looked at again. */
#define MESSAGES_AT_ONCE 512
/* While an end of the stream is waited for, the source is asked for its position this often. */
#define ASK_EVERY_MS 100

/* A walsender in the middle of a large transaction sends it to its end before it agrees to stop;
 * our last status has long reached it by then. */
#define FINISH_WITHIN_MS 1000

struct pen_reader {
    pen_stream *stream;
    pen_replication *rep;
    pen_arena arena;
    pen_pgoutput *decoder;
    pen_assembler assembler;
    uint64_t arrived;     /* messages of the output plugin, since the start */
    pen_txn *waiting;     /* complete, but the ring was full */
    pen_feed *feed;       /* of the large transaction that is arriving, or NULL */
    pen_segment *segment; /* of it, taken from the assembler, but the feed was full */
    uint64_t fed;         /* segments given into it, the transaction's first ones counted as one */
    bool feed_ends;       /* its Commit has come; what is left of it goes into the feed */
    bool skipping;        /* a large transaction that is on the target already is arriving */
    bool receiving;       /* until the stop */
    bool over_budget;   /* one row alone needs more than --memory: said once for each transaction */
    pen_lsn commit_lsn; /* of the newest transaction that came whole */
    pen_lsn received_lsn; /* everything before it has arrived */
    pen_lsn reported_lsn; /* the flush position last sent; never goes back */
    int64_t reported_us;  /* when */
    bool send_now;        /* the source asked for a status */
    bool pending;         /* bytes are queued that the socket did not take */
};

pen_reader *pen_reader_create(pen_stream *stream, pen_replication *rep)
{
    pen_reader *reader = pen_calloc(1, sizeof(*reader));
    reader->stream = stream;
    reader->rep = rep;
    pen_arena_init(&reader->arena, &stream->budget);
    reader->decoder = pen_pgoutput_create(&reader->arena);
    pen_assembler_init(&reader->assembler, &reader->arena);
    reader->receiving = true;
    reader->received_lsn = stream->resume.start_lsn;
    reader->reported_lsn = stream->resume.reported_lsn;
    return reader;
}

void pen_reader_destroy(pen_reader *reader)
{
    if (reader == NULL) {
        return;
    }
    if (reader->waiting != NULL) {
        pen_txn_release(reader->waiting);
    }
    if (reader->feed != NULL) {
        pen_feed_release(reader->feed);
    }
    if (reader->segment != NULL) {
        pen_block_release(reader->segment->block);
    }
    pen_assembler_discard(&reader->assembler);
    pen_arena_deinit(&reader->arena);
    pen_pgoutput_destroy(reader->decoder);
    pen_replication_close(reader->rep);
    free(reader);
}

/* Pushes into a ring of the dispatcher's; false when it is full. */
static bool push(pen_reader *reader, pen_ring *ring, void *item)
{
    pen_stream *stream = reader->stream;
    if (!pen_ring_push(ring, item)) {
        /* Raised, and looked at once more: see pen_flag. */
        pen_flag_raise(&stream->reader_wants_slot);
        if (!pen_ring_push(ring, item)) {
            return false;
        }
    }
    pen_parker_wake(&stream->dispatcher_parker);
    return true;
}

/* A transaction up to `end_lsn` is the dispatcher's from now on. */
static void note_handed(pen_reader *reader, pen_lsn end_lsn)
{
    pen_counter_add(&reader->stream->txns_handed, 1);
    /* [HANDED-1] release: published before any later idle_lsn; pairs with the acquire in the
     * progress thread, which reads idle_lsn first. */
    pen_cell_publish(&reader->stream->handed_lsn, end_lsn);
}

/* Says how the feed ends, and leaves it. */
static void end_feed(pen_reader *reader, pen_feed_state state)
{
    /* [FEED-1] release: every segment is in the ring, the Commit's fields are written; pairs with
     * the acquire in the dispatcher. */
    pen_cell_publish(&reader->feed->in_state, state);
    pen_parker_wake(&reader->stream->dispatcher_parker);
    pen_feed_release(reader->feed);
    reader->feed = NULL;
    reader->feed_ends = false;
}

/* Gives the large transaction's segments that are filled into its feed; false when that is full. */
static bool hand_over_segments(pen_reader *reader)
{
    for (;;) {
        if (reader->segment == NULL) {
            reader->segment = pen_assembler_take_segment(&reader->assembler);
        }
        if (reader->segment == NULL) {
            break;
        }
        if (!push(reader, &reader->feed->in, reader->segment)) {
            return false;
        }
        reader->segment = NULL;
        reader->fed++;
    }
    if (reader->feed_ends) {
        pen_lsn end_lsn = reader->feed->end_lsn;
        end_feed(reader, PEN_FEED_COMPLETE);
        note_handed(reader, end_lsn);
    }
    return true;
}

/* Gives what is complete to the dispatcher; false when there is no room. */
static bool hand_over(pen_reader *reader)
{
    if (reader->waiting != NULL) {
        bool fed = reader->waiting->feed != NULL;
        pen_lsn end_lsn = reader->waiting->end_lsn;
        if (!push(reader, &reader->stream->txns, reader->waiting)) {
            return false;
        }
        reader->waiting = NULL;
        if (!fed) {
            note_handed(reader, end_lsn);
        }
    }
    return reader->feed == NULL || hand_over_segments(reader);
}

/* Everything that committed before `lsn` has been handed over, or had nothing for us. */
static void note_idle(pen_reader *reader, pen_lsn lsn)
{
    if (lsn > reader->received_lsn) {
        reader->received_lsn = lsn;
    }
    /* [IDLE-1] release: pairs with the acquire in the progress thread. */
    pen_cell_publish(&reader->stream->idle_lsn, reader->received_lsn);
}

/* Takes nothing more in, and drops the transaction that has come in part. */
static void stop_receiving(pen_reader *reader)
{
    if (!reader->receiving) {
        return;
    }
    reader->receiving = false;
    if (reader->feed != NULL && !reader->feed_ends) {
        if (reader->segment != NULL) {
            pen_block_release(reader->segment->block);
            reader->segment = NULL;
        }
        end_feed(reader, PEN_FEED_DISCARDED);
    }
    if (!reader->feed_ends) {
        pen_assembler_discard(&reader->assembler);
    }
}

/* The end that the operator asked for: no transaction at or before stop_lsn is still to come. */
static void reach_end(pen_reader *reader)
{
    pen_stream *stream = reader->stream;
    stop_receiving(reader);
    pen_stream_stop(stream, PEN_STOP_DRAIN,
                    stream->stop_lsn == stream->options->stop_at ? PEN_REASON_STOP_AT
                                                                 : PEN_REASON_CAUGHT_UP);
}

static bool is_beyond_end(const pen_reader *reader, pen_lsn lsn)
{
    pen_lsn stop_lsn = reader->stream->stop_lsn;
    return stop_lsn != PEN_LSN_NONE && lsn > stop_lsn;
}

/* A whole transaction came. */
static bool take_txn(pen_reader *reader, pen_txn *txn, pen_error *err)
{
    pen_stream *stream = reader->stream;
    pen_lsn commit_lsn = txn->commit_lsn;
    pen_lsn end_lsn = txn->end_lsn;
    if (commit_lsn <= reader->commit_lsn) {
        /* All that follows, dependencies, progress and resuming, stands on this order. */
        if (txn != &reader->assembler.fed) { /* what was fed belongs to the assembler */
            pen_txn_release(txn);
        }
        return pen_error_set(
            err, PEN_ERROR_FATAL,
            "source: a transaction committed at " PEN_LSN_FMT
            " came behind one committed at " PEN_LSN_FMT
            "; check that nothing between penstock and the source changes the stream",
            PEN_LSN_ARGS(commit_lsn), PEN_LSN_ARGS(reader->commit_lsn));
    }
    reader->commit_lsn = commit_lsn;
    reader->over_budget = false;
    if (reader->feed != NULL) {
        reader->feed->end_lsn = end_lsn;
        reader->feed->commit_time = txn->commit_time;
        reader->feed->change_count = txn->change_count;
        reader->feed->bytes = txn->bytes;
        reader->feed_ends = true;
        reader->received_lsn = end_lsn;
    } else if (reader->skipping) {
        reader->skipping = false;
        pen_assembler_discard(&reader->assembler);
        note_idle(reader, end_lsn);
    } else if (commit_lsn <= stream->resume.commit_lsn || txn->change_count == 0) {
        /* On the target already, or nothing in it: only the position moves. */
        pen_txn_release(txn);
        note_idle(reader, end_lsn);
    } else {
        reader->waiting = txn;
        reader->received_lsn = end_lsn;
    }
    /* The next commit record cannot lie before the end of this one. */
    if (is_beyond_end(reader, end_lsn)) {
        reach_end(reader);
    }
    return true;
}

/* The open transaction is larger than a batch may be. */
static bool is_large(const pen_reader *reader)
{
    const pen_stream *stream = reader->stream;
    const pen_txn *open = reader->assembler.open;
    return open->change_count > stream->limits.rows || open->bytes > stream->limits.bytes ||
           open->bytes > stream->budget.limit / 8;
}

/* Lets a large transaction flow to its worker from here on, or past us when the target has it. */
static void flow(pen_reader *reader)
{
    const pen_stream *stream = reader->stream;
    pen_txn *txn = pen_assembler_give_open(&reader->assembler);
    if (txn->commit_lsn <= stream->resume.commit_lsn) {
        reader->skipping = true;
        pen_txn_release(txn);
        return;
    }
    reader->feed = pen_feed_create();
    reader->fed = 1;
    txn->feed = reader->feed;
    reader->waiting = txn;
}

/* After a change was added. */
static void look_at_size(pen_reader *reader)
{
    if (reader->skipping) {
        for (pen_segment *seg; (seg = pen_assembler_take_segment(&reader->assembler)) != NULL;) {
            pen_block_release(seg->block);
        }
    } else if (reader->feed == NULL && reader->assembler.open != NULL && is_large(reader)) {
        flow(reader);
    }
}

static bool take_data(pen_reader *reader, pen_slice bytes, pen_error *err)
{
    pen_message msg;
    pen_txn *txn = NULL;
    const pen_message_context context = {.arrival = ++reader->arrived};
    if (!pen_pgoutput_decode(reader->decoder, bytes, &context, &msg, err)) {
        return pen_error_context(err, "source: the stream cannot be read");
    }
    if (msg.kind == PEN_MESSAGE_BEGIN && is_beyond_end(reader, msg.begin.commit_lsn)) {
        reach_end(reader);
        return true;
    }
    if (!pen_assembler_add(&reader->assembler, &msg, bytes.len, &txn, err)) {
        return pen_error_context(err, "source: the stream cannot be read");
    }
    if (txn != NULL) {
        return take_txn(reader, txn, err);
    }
    look_at_size(reader);
    return true;
}

static void take_keepalive(pen_reader *reader, const pen_event *event)
{
    reader->send_now |= event->reply_requested;
    if (reader->assembler.open != NULL) {
        return; /* a position inside a transaction proves nothing about commits */
    }
    note_idle(reader, event->wal_end);
    /* A commit can still come at exactly the keepalive's position. */
    if (is_beyond_end(reader, event->wal_end)) {
        reach_end(reader);
    }
}

/* True while nothing may be taken in, because memory is used up and will be given back. */
static bool must_wait_for_memory(pen_reader *reader)
{
    pen_stream *stream = reader->stream;
    if (!pen_budget_exhausted(&stream->budget)) {
        return false;
    }
    /* [APPLIED-1] acquire, [FEED-5] acquire: pair with the releases in the worker. */
    bool in_flight = pen_cell_read(&stream->applied_lsn) < pen_cell_read(&stream->handed_lsn) ||
                     (reader->feed != NULL && pen_cell_read(&reader->feed->done) < reader->fed);
    if (in_flight) {
        return true;
    }
    if (reader->assembler.open == NULL) {
        /* All that is left is the block that the next transaction would begin in: a huge row's,
         * maybe. */
        pen_arena_deinit(&reader->arena);
        return pen_budget_exhausted(&stream->budget);
    }
    if (!reader->over_budget) {
        reader->over_budget = true;
        pen_log(PEN_LOG_WARN,
                "transaction %u has a row that alone needs more than --memory (%" PRIu64
                " MB); it is taken in beyond the budget",
                reader->assembler.open->xid, stream->options->memory >> 20);
    }
    return false;
}

/* Takes in what is there, up to a bound. *idle: there is nothing to do before the socket, a wake or
 * the clock says so. */
static bool receive(pen_reader *reader, bool *idle, pen_error *err)
{
    bool received = false;
    *idle = false;
    for (int i = 0; i < MESSAGES_AT_ONCE && reader->receiving; i++) {
        if (!hand_over(reader) || must_wait_for_memory(reader)) {
            *idle = true;
            return true;
        }
        pen_event event;
        if (!pen_replication_poll(reader->rep, false, &event, err)) {
            return false;
        }
        if (event.kind == PEN_EVENT_NOTHING && !received) {
            received = true;
            if (!pen_replication_poll(reader->rep, true, &event, err)) {
                return false;
            }
        }
        switch (event.kind) {
        case PEN_EVENT_NOTHING:
            *idle = true;
            return true;
        case PEN_EVENT_DATA:
            if (!take_data(reader, event.data, err)) {
                return false;
            }
            break;
        case PEN_EVENT_KEEPALIVE:
            take_keepalive(reader, &event);
            break;
        case PEN_EVENT_END:
            return pen_error_set(err, PEN_ERROR_RETRY,
                                 "source: the server ended the stream (is it being shut down?)");
        }
    }
    return true;
}

/* Sends a status when one is due. */
static bool report(pen_reader *reader, bool last, pen_error *err)
{
    pen_stream *stream = reader->stream;
    int64_t now_us = pen_now_us();
    /* [DURABLE-1] acquire: pairs with the release in the progress thread. */
    pen_lsn durable = pen_cell_read(&stream->durable_lsn);
    bool asking = reader->receiving && stream->stop_lsn != PEN_LSN_NONE;
    int64_t interval_us = asking ? ASK_EVERY_MS * 1000 : stream->status_interval_ms * 1000;
    if (last || reader->send_now || durable > reader->reported_lsn ||
        now_us - reader->reported_us >= interval_us) {
        if (durable > reader->reported_lsn) {
            reader->reported_lsn = durable;
        }
        pen_lsn received = reader->received_lsn > reader->reported_lsn ? reader->received_lsn
                                                                       : reader->reported_lsn;
        if (!pen_replication_status(reader->rep, received, reader->reported_lsn, asking, err)) {
            return false;
        }
        reader->reported_us = now_us;
        reader->send_now = false;
        reader->pending = true;
    }
    return !reader->pending || pen_replication_flush(reader->rep, &reader->pending, err);
}

static void sleep_a_while(pen_reader *reader)
{
    pen_stream *stream = reader->stream;
    pen_parker_prepare(&stream->reader_parker);
    bool full = reader->waiting != NULL || reader->segment != NULL;
    bool blocked = full || must_wait_for_memory(reader);
    bool ready = (full && hand_over(reader)) ||
                 (!reader->receiving && pen_cell_read(&stream->progress_done)) ||
                 (reader->receiving && pen_stream_stopping(stream) != PEN_STOP_NONE) ||
                 pen_stream_stopping(stream) == PEN_STOP_ABORT ||
                 pen_cell_read(&stream->durable_lsn) > reader->reported_lsn;
    if (ready) {
        pen_parker_cancel(&stream->reader_parker);
        return;
    }
    int events = (reader->receiving && !blocked ? PEN_PARK_READABLE : 0) |
                 (reader->pending ? PEN_PARK_WRITABLE : 0);
    /* With memory used up by a transaction that is still arriving, the last commit before it gives
     * the way free without a wake. */
    int timeout_ms = blocked ? 10 : stream->stop_lsn != PEN_LSN_NONE ? ASK_EVERY_MS : 1000;
    if (timeout_ms > stream->status_interval_ms) {
        timeout_ms = stream->status_interval_ms;
    }
    (void)pen_parker_park(&stream->reader_parker,
                          events == 0 ? -1 : pen_replication_socket(reader->rep), events,
                          timeout_ms);
}

/* Nothing more goes into the ring. */
static void close_input(pen_reader *reader)
{
    pen_stream *stream = reader->stream;
    if (pen_cell_read(&stream->input_done)) {
        return;
    }
    /* [INPUT-1] release: everything pushed before is in the ring; pairs with the acquire in the
     * dispatcher. */
    pen_cell_publish(&stream->input_done, 1);
    pen_parker_wake(&stream->dispatcher_parker);
}

static bool run(pen_reader *reader, pen_error *err)
{
    pen_stream *stream = reader->stream;
    for (;;) {
        pen_stop stop = pen_stream_stopping(stream);
        if (stop == PEN_STOP_ABORT) {
            return true;
        }
        if (stop == PEN_STOP_DRAIN) {
            stop_receiving(reader);
        }
        bool idle = true;
        if (reader->receiving && !receive(reader, &idle, err)) {
            return false;
        }
        if (!reader->receiving && hand_over(reader)) {
            close_input(reader);
        }
        /* [DONE-1] acquire: the last durable_lsn is published; pairs with the release in the
         * progress thread. */
        bool last = !reader->receiving && pen_cell_read(&stream->progress_done);
        if (!report(reader, last, err)) {
            return false;
        }
        if (last) {
            pen_replication_finish(reader->rep, FINISH_WITHIN_MS);
            return true;
        }
        if (idle) {
            sleep_a_while(reader);
        }
    }
}

void pen_reader_run(void *arg)
{
    pen_reader *reader = arg;
    PEN_ASSERT(pen_thread_role() == PEN_ROLE_READER);
    pen_error err;
    if (!run(reader, &err)) {
        pen_stream_fail(reader->stream, &err);
    }
    pen_cell_publish(&reader->stream->reader_done, 1);
    pen_parker_wake(&reader->stream->main_parker);
}
