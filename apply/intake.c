#include "apply/intake.h"

#include "apply/streamed.h"
#include "core/assemble.h"
#include "core/feed.h"
#include "core/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Up to where transactions that began in one segment of the spool go. */
typedef struct segment_end {
    uint64_t segment;
    pen_lsn end_lsn; /* of the last of them that came whole */
} segment_end;

struct pen_intake {
    pen_stream *stream;
    pen_intake_options options;
    pen_arena arena;
    pen_pgoutput *decoder;
    pen_assembler assembler;
    pen_streamed *streamed; /* NULL: none will come */
    bool needs_segment;     /* of our own spool, before the next message of a block */
    bool replaying;
    bool replays_relations_only; /* of a transaction that is on the target already */
    pen_message commit;          /* the Stream Commit of the transaction that is replayed */
    pen_txn *waiting;            /* complete, but the ring was full */
    pen_feed *feed;              /* of the large transaction that is arriving, or NULL */
    pen_segment *segment;        /* of it, taken from the assembler, but the feed was full */
    uint64_t fed;   /* segments given into it, the transaction's first ones counted as one */
    bool feed_ends; /* its Commit has come; what is left of it goes into the feed */
    bool skipping;  /* a large transaction that is on the target already is arriving */
    bool stopped;
    bool over_budget;     /* one row alone needs more than --memory: said once a transaction */
    uint64_t arrival;     /* messages taken so far */
    pen_lsn skip_lsn;     /* transactions that commit at or before it were here already */
    pen_lsn commit_lsn;   /* of the newest transaction that came whole */
    pen_lsn received;     /* everything before it has arrived */
    uint64_t counts[256]; /* messages, by kind */
    /* of a spool that is not ours: the segments with messages, from the first one needed */
    segment_end *segments;
    size_t segment_count;
    size_t segment_capacity;
};

pen_intake *pen_intake_create(pen_stream *stream, const pen_intake_options *options)
{
    pen_intake *intake = pen_calloc(1, sizeof(*intake));
    intake->stream = stream;
    intake->options = *options;
    pen_arena_init(&intake->arena, &stream->budget);
    intake->decoder = pen_pgoutput_create(&intake->arena);
    pen_assembler_init(&intake->assembler, &intake->arena);
    if (options->spool != NULL) {
        intake->streamed = pen_streamed_create(options->spool, !options->spool_is_ours);
    }
    intake->skip_lsn = stream->resume.commit_lsn;
    intake->received = stream->resume.start_lsn;
    return intake;
}

void pen_intake_let_go(pen_intake *intake)
{
    if (intake->streamed != NULL) {
        pen_streamed_forget_all(intake->streamed);
    }
}

void pen_intake_destroy(pen_intake *intake)
{
    if (intake == NULL) {
        return;
    }
    if (intake->waiting != NULL) {
        pen_txn_release(intake->waiting);
    }
    if (intake->feed != NULL) {
        pen_feed_release(intake->feed);
    }
    if (intake->segment != NULL) {
        pen_block_release(intake->segment->block);
    }
    pen_assembler_discard(&intake->assembler);
    pen_arena_deinit(&intake->arena);
    pen_streamed_destroy(intake->streamed);
    pen_pgoutput_destroy(intake->decoder);
    free(intake->segments);
    free(intake);
}

/* To the dispatcher */

/* Gives a segment into the feed; false when it is full. */
static bool push_segment(pen_intake *intake, pen_segment *seg)
{
    pen_stream *stream = intake->stream;
    if (!pen_ring_push(&intake->feed->in, seg)) {
        /* Raised, and looked at once more: see pen_flag. */
        pen_flag_raise(&stream->dealing.wants_room);
        if (!pen_ring_push(&intake->feed->in, seg)) {
            return false;
        }
    }
    pen_parker_wake(&stream->baton_parker);
    return true;
}

/* A transaction up to `end_lsn` is the dispatcher's from now on. */
static void note_handed(pen_intake *intake, pen_lsn end_lsn)
{
    pen_counter_add(&intake->stream->txns_handed, 1);
    /* [HANDED-1] release: published before any later idle_lsn; pairs with the acquire in the
     * progress thread, which reads idle_lsn first. */
    pen_cell_publish(&intake->stream->handed_lsn, end_lsn);
}

/* Says how the feed ends, and leaves it. */
static void end_feed(pen_intake *intake, pen_feed_state state)
{
    /* [FEED-1] release: every segment is in the ring, the Commit's fields are written; pairs with
     * the acquire in the dispatcher. */
    pen_cell_publish(&intake->feed->in_state, state);
    pen_parker_wake(&intake->stream->baton_parker);
    pen_feed_release(intake->feed);
    intake->feed = NULL;
    intake->feed_ends = false;
}

/* Gives the large transaction's segments that are filled into its feed; false when that is full. */
static bool hand_over_segments(pen_intake *intake)
{
    for (;;) {
        if (intake->segment == NULL) {
            intake->segment = pen_assembler_take_segment(&intake->assembler);
        }
        if (intake->segment == NULL) {
            break;
        }
        if (!push_segment(intake, intake->segment)) {
            return false;
        }
        intake->segment = NULL;
        intake->fed++;
    }
    if (intake->feed_ends) {
        pen_lsn end_lsn = intake->feed->end_lsn;
        end_feed(intake, PEN_FEED_COMPLETE);
        note_handed(intake, end_lsn);
    }
    return true;
}

/* Gives what is complete to the dispatcher; false when there is no room. */
static bool hand_over(pen_intake *intake)
{
    if (intake->waiting != NULL) {
        bool fed = intake->waiting->feed != NULL;
        pen_lsn end_lsn = intake->waiting->end_lsn;
        if (!pen_dealing_deal(&intake->stream->dealing, intake->waiting)) {
            return false;
        }
        intake->waiting = NULL;
        if (!fed) {
            note_handed(intake, end_lsn);
        }
    }
    return intake->feed == NULL || hand_over_segments(intake);
}

/* True while nothing may be taken in, because memory is used up and will be given back. */
static bool must_wait_for_memory(pen_intake *intake)
{
    pen_stream *stream = intake->stream;
    if (!pen_budget_exhausted(&stream->budget)) {
        return false;
    }
    /* [APPLIED-1] acquire, [FEED-5] acquire: pair with the releases in the worker. */
    bool in_flight = pen_cell_read(&stream->applied_lsn) < pen_cell_read(&stream->handed_lsn) ||
                     (intake->feed != NULL && pen_cell_read(&intake->feed->done) < intake->fed);
    if (in_flight) {
        return true;
    }
    if (intake->assembler.open == NULL) {
        /* All that is left is the block that the next transaction would begin in: a huge row's,
         * maybe. */
        pen_arena_deinit(&intake->arena);
        return pen_budget_exhausted(&stream->budget);
    }
    if (!intake->over_budget) {
        intake->over_budget = true;
        pen_log(PEN_LOG_WARN,
                "transaction %u has a row that alone needs more than --memory (%" PRIu64
                " MB); it is taken in beyond the budget",
                intake->assembler.open->xid, stream->options->memory >> 20);
    }
    return false;
}

/* A block of a streamed transaction begins, and our spool has no segment to put it in. */
static bool make_segment(pen_intake *intake, pen_error *err)
{
    bool made = false;
    if (!pen_spool_begin_segment(intake->options.spool, PEN_LSN_NONE, &made, err)) {
        return false;
    }
    intake->needs_segment = !made;
    return true;
}

bool pen_intake_is_ready(pen_intake *intake, bool *ready, pen_error *err)
{
    *ready = false;
    if (intake->needs_segment && !make_segment(intake, err)) {
        return false;
    }
    *ready = hand_over(intake) && !intake->needs_segment && !must_wait_for_memory(intake);
    return true;
}

/* Positions and the end */

/* Everything that committed before `lsn` has been handed over, or had nothing for us. */
static void note_idle(pen_intake *intake, pen_lsn lsn)
{
    if (lsn > intake->received) {
        intake->received = lsn;
    }
    /* [IDLE-1] release: pairs with the acquire in the progress thread. */
    pen_cell_publish(&intake->stream->idle_lsn, intake->received);
}

void pen_intake_stop(pen_intake *intake)
{
    if (intake->stopped) {
        return;
    }
    intake->stopped = true;
    intake->replaying = false;
    if (intake->feed != NULL && !intake->feed_ends) {
        if (intake->segment != NULL) {
            pen_block_release(intake->segment->block);
            intake->segment = NULL;
        }
        end_feed(intake, PEN_FEED_DISCARDED);
    }
    if (!intake->feed_ends) {
        pen_assembler_discard(&intake->assembler);
    }
}

bool pen_intake_has_stopped(const pen_intake *intake)
{
    return intake->stopped;
}

bool pen_intake_finish(pen_intake *intake)
{
    return intake->stopped && hand_over(intake);
}

/* The end that the operator asked for: no transaction at or before stop_lsn is still to come. */
static void reach_end(pen_intake *intake)
{
    pen_stream *stream = intake->stream;
    pen_intake_stop(intake);
    pen_stream_stop(stream, PEN_STOP_DRAIN,
                    stream->stop_lsn == stream->options->stop_at ? PEN_REASON_STOP_AT
                                                                 : PEN_REASON_CAUGHT_UP);
}

static bool is_beyond_end(const pen_intake *intake, pen_lsn lsn)
{
    pen_lsn stop_lsn = intake->stream->stop_lsn;
    return stop_lsn != PEN_LSN_NONE && lsn > stop_lsn;
}

pen_lsn pen_intake_received(const pen_intake *intake)
{
    return intake->received;
}

uint64_t pen_intake_count(const pen_intake *intake, pen_message_kind kind)
{
    return intake->counts[(uint8_t)kind];
}

/* Which segments are needed */

/* A message stands in `segment`. */
static void note_segment(pen_intake *intake, uint64_t segment)
{
    if (intake->segment_count > 0 &&
        intake->segments[intake->segment_count - 1].segment >= segment) {
        return;
    }
    if (intake->segment_count == intake->segment_capacity) {
        intake->segment_capacity =
            intake->segment_capacity == 0 ? 16 : intake->segment_capacity * 2;
        intake->segments =
            pen_realloc(intake->segments, intake->segment_capacity * sizeof(*intake->segments));
    }
    intake->segments[intake->segment_count++] = (segment_end){.segment = segment};
}

/* A transaction whose first message stands in `first` ends at `end_lsn`. */
static void note_end(pen_intake *intake, uint64_t first, pen_lsn end_lsn)
{
    for (size_t i = 0; i < intake->segment_count; i++) {
        segment_end *it = &intake->segments[i];
        if (it->segment >= first) {
            it->end_lsn = end_lsn > it->end_lsn ? end_lsn : it->end_lsn;
            return;
        }
    }
}

uint64_t pen_intake_needed_segment(pen_intake *intake, pen_lsn durable)
{
    if (intake->segment_count == 0) {
        return 0;
    }
    uint64_t streamed =
        intake->streamed == NULL ? UINT64_MAX : pen_streamed_first_segment(intake->streamed);
    size_t gone = 0;
    /* The last one is where the next transaction may begin, and an open one has begun there: a
     * segment ends between transactions. */
    while (gone + 1 < intake->segment_count && intake->segments[gone].segment < streamed &&
           intake->segments[gone].end_lsn <= durable) {
        gone++;
    }
    intake->segment_count -= gone;
    memmove(intake->segments, intake->segments + gone,
            intake->segment_count * sizeof(*intake->segments));
    return intake->segments[0].segment;
}

/* Messages */

/* A whole transaction came, whose first message stands in `first_segment` of the spool. */
static bool take_txn(pen_intake *intake, pen_txn *txn, pen_error *err)
{
    pen_lsn commit_lsn = txn->commit_lsn;
    pen_lsn end_lsn = txn->end_lsn;
    bool again = commit_lsn <= intake->skip_lsn;
    if (!again && commit_lsn <= intake->commit_lsn) {
        /* All that follows, dependencies, progress and resuming, stands on this order. */
        if (txn != &intake->assembler.fed) { /* what was fed belongs to the assembler */
            pen_txn_release(txn);
        }
        return pen_error_set(
            err, PEN_ERROR_FATAL,
            "source: a transaction committed at " PEN_LSN_FMT
            " came behind one committed at " PEN_LSN_FMT
            "; check that nothing between penstock and the source changes the stream",
            PEN_LSN_ARGS(commit_lsn), PEN_LSN_ARGS(intake->commit_lsn));
    }
    intake->commit_lsn = again ? intake->commit_lsn : commit_lsn;
    intake->over_budget = false;
    if (intake->feed != NULL) {
        intake->feed->end_lsn = end_lsn;
        intake->feed->commit_time = txn->commit_time;
        intake->feed->change_count = txn->change_count;
        intake->feed->bytes = txn->bytes;
        intake->feed_ends = true;
        intake->received = end_lsn;
    } else if (intake->skipping) {
        intake->skipping = false;
        pen_assembler_discard(&intake->assembler);
        note_idle(intake, end_lsn);
    } else if (again || txn->change_count == 0) {
        /* Here already, or nothing in it: only the position moves. */
        pen_txn_release(txn);
        note_idle(intake, end_lsn);
    } else {
        intake->waiting = txn;
        intake->received = end_lsn;
    }
    /* The next commit record cannot lie before the end of this one. */
    if (is_beyond_end(intake, end_lsn)) {
        reach_end(intake);
    }
    return true;
}

/* The open transaction is larger than a batch may be. */
static bool is_large(const pen_intake *intake)
{
    const pen_stream *stream = intake->stream;
    const pen_txn *open = intake->assembler.open;
    return open->change_count > stream->limits.rows || open->bytes > stream->limits.bytes ||
           open->bytes > stream->budget.limit / 8;
}

/* Lets a large transaction flow to its worker from here on, or past us when the target has it. */
static void flow(pen_intake *intake)
{
    pen_txn *txn = pen_assembler_give_open(&intake->assembler);
    if (txn->commit_lsn <= intake->skip_lsn) {
        intake->skipping = true;
        pen_txn_release(txn);
        return;
    }
    intake->feed = pen_feed_create();
    intake->fed = 1;
    txn->feed = intake->feed;
    intake->waiting = txn;
}

/* After a change was added. */
static void look_at_size(pen_intake *intake)
{
    if (intake->skipping) {
        for (pen_segment *seg; (seg = pen_assembler_take_segment(&intake->assembler)) != NULL;) {
            pen_block_release(seg->block);
        }
    } else if (intake->feed == NULL && intake->assembler.open != NULL && is_large(intake)) {
        flow(intake);
    }
}

/* True for a change that the copy of its table has brought already. */
static bool is_copied(const pen_intake *intake, const pen_message *msg)
{
    const pen_fences *fences = &intake->stream->fences;
    const pen_txn *open = intake->assembler.open;
    bool is_change = msg->kind == PEN_MESSAGE_INSERT || msg->kind == PEN_MESSAGE_UPDATE ||
                     msg->kind == PEN_MESSAGE_DELETE || msg->kind == PEN_MESSAGE_TRUNCATE;
    return fences->count > 0 && open != NULL && is_change &&
           !pen_fences_pass(fences, open->xid, open->commit_lsn, msg->change);
}

static bool assemble(pen_intake *intake, const pen_message *msg, size_t bytes, pen_error *err)
{
    pen_txn *txn = NULL;
    if (is_copied(intake, msg)) {
        return true;
    }
    if (!pen_assembler_add(&intake->assembler, msg, bytes, &txn, err)) {
        return pen_error_context(err, "source: the stream cannot be read");
    }
    if (txn != NULL) {
        return take_txn(intake, txn, err);
    }
    look_at_size(intake);
    return true;
}

/* Of our own spool, up to the end of the newest segment when nothing is needed any more. */
static bool trim_own(const pen_intake *intake, pen_error *err)
{
    pen_spool *spool = intake->options.spool;
    if (!intake->options.spool_is_ours) {
        return true;
    }
    uint64_t first = pen_streamed_first_segment(intake->streamed);
    uint64_t newest = pen_spool_end(spool).segment;
    return pen_spool_trim(spool, first < newest ? first : newest, err);
}

/* A streamed transaction committed: from now on its messages are taken in, as if they came now. */
static bool begin_replay(pen_intake *intake, const pen_message *msg, pen_error *err)
{
    uint32_t xid = msg->stream_commit.xid;
    pen_lsn commit_lsn = msg->stream_commit.commit_lsn;
    if (is_beyond_end(intake, commit_lsn)) {
        reach_end(intake);
        return true;
    }
    bool again = commit_lsn <= intake->skip_lsn;
    if (again && pen_streamed_segment_of(intake->streamed, xid) == 0) {
        note_idle(intake, msg->stream_commit.end_lsn); /* all its blocks are gone */
        return true;
    }
    if (pen_streamed_in_block(intake->streamed) ||
        !pen_streamed_replay(intake->streamed, xid, again)) {
        return pen_error_set(err, PEN_ERROR_FATAL,
                             "the source committed the streamed transaction %" PRIu32
                             " at " PEN_LSN_FMT
                             ", which it did not stream, or the beginning of which is not in the "
                             "spool any more; check that nothing between penstock and the source "
                             "changes the stream, and that the target was not put back to an older "
                             "state",
                             xid, PEN_LSN_ARGS(commit_lsn));
    }
    if (!intake->options.spool_is_ours) {
        uint64_t first = pen_streamed_segment_of(intake->streamed, xid);
        note_end(intake, first, msg->stream_commit.end_lsn);
    }
    const pen_message begin = {.kind = PEN_MESSAGE_BEGIN,
                               .begin = {.commit_lsn = commit_lsn,
                                         .commit_time = msg->stream_commit.commit_time,
                                         .xid = xid}};
    intake->commit = *msg;
    intake->replaying = true;
    intake->replays_relations_only = again;
    pen_pgoutput_begin_replay(intake->decoder);
    return again || assemble(intake, &begin, 0, err);
}

/* All of it is in. */
static bool end_replay(pen_intake *intake, pen_error *err)
{
    const pen_message commit = {
        .kind = PEN_MESSAGE_COMMIT,
        .commit = {.commit_lsn = intake->commit.stream_commit.commit_lsn,
                   .end_lsn = intake->commit.stream_commit.end_lsn,
                   .commit_time = intake->commit.stream_commit.commit_time}};
    intake->replaying = false;
    pen_pgoutput_end_replay(intake->decoder);
    if (!trim_own(intake, err)) {
        return false;
    }
    if (intake->replays_relations_only) {
        note_idle(intake, commit.commit.end_lsn);
        return true;
    }
    return assemble(intake, &commit, 0, err);
}

bool pen_intake_is_replaying(const pen_intake *intake)
{
    return intake->replaying;
}

bool pen_intake_replay(pen_intake *intake, pen_error *err)
{
    pen_slice bytes;
    pen_message msg;
    pen_message_context context = {.streamed = true};
    switch (pen_streamed_next(intake->streamed, &bytes, &context.arrival, err)) {
    case PEN_STREAMED_MESSAGE:
        break;
    case PEN_STREAMED_END:
        return end_replay(intake, err);
    case PEN_STREAMED_FAILED:
        return false;
    }
    return (pen_pgoutput_decode(intake->decoder, bytes, &context, &msg, err) ||
            pen_error_context(err, "source: the stream cannot be read")) &&
           (intake->replays_relations_only || assemble(intake, &msg, bytes.len, err));
}

/* A message inside a block waits in the spool for its transaction's end. */
static bool keep_streamed(pen_intake *intake, pen_slice bytes, pen_spool_pos at, pen_error *err)
{
    uint8_t kind = 0;
    uint32_t xid = 0;
    if (!pen_pgoutput_peek(bytes, true, &kind, &xid)) {
        return pen_error_set(err, PEN_ERROR_FATAL,
                             "source: the stream carries a message of %zu bytes inside a streamed "
                             "block, which is too short for one",
                             bytes.len);
    }
    intake->counts[kind]++;
    if (intake->options.spool_is_ours) {
        const pen_spool_record record = {.kind = PEN_SPOOL_MESSAGE, .payload = bytes};
        at = pen_spool_append(intake->options.spool, &record);
    }
    pen_streamed_add(intake->streamed, at, intake->arrival);
    return true;
}

static bool take_streaming(pen_intake *intake, const pen_message *msg, pen_error *err)
{
    pen_streamed *streamed = intake->streamed;
    if (streamed == NULL || intake->assembler.open != NULL) {
        return pen_error_set(err, PEN_ERROR_FATAL,
                             "source: the stream carries a %s message, which was not asked for or "
                             "stands inside a transaction; check that nothing between penstock and "
                             "the source changes the stream",
                             pen_message_kind_name(msg->kind));
    }
    bool ok = false;
    switch (msg->kind) {
    case PEN_MESSAGE_STREAM_START:
        ok = pen_streamed_start(streamed, msg->stream_start.xid, msg->stream_start.first, err);
        intake->needs_segment =
            intake->options.spool_is_ours && pen_spool_wants_segment(intake->options.spool);
        break;
    case PEN_MESSAGE_STREAM_STOP:
        ok = pen_streamed_stop(streamed, err);
        break;
    case PEN_MESSAGE_STREAM_ABORT:
        if (pen_streamed_abort(streamed, msg->stream_abort.xid, msg->stream_abort.subxid, err)) {
            return trim_own(intake, err);
        }
        break;
    default:
        PEN_ASSERT(msg->kind == PEN_MESSAGE_STREAM_COMMIT);
        return begin_replay(intake, msg, err);
    }
    return ok || pen_error_context(err, "source: the stream cannot be read");
}

bool pen_intake_message(pen_intake *intake, pen_slice bytes, pen_spool_pos at, pen_error *err)
{
    intake->arrival++;
    bool spooled = intake->options.spool != NULL && !intake->options.spool_is_ours;
    if (spooled) {
        note_segment(intake, at.segment);
    }
    if (intake->streamed != NULL && pen_streamed_in_block(intake->streamed) && bytes.len > 0 &&
        bytes.data[0] != PEN_MESSAGE_STREAM_STOP) {
        return keep_streamed(intake, bytes, at, err);
    }
    pen_message msg;
    const pen_message_context context = {.arrival = intake->arrival,
                                         .abort_has_lsn = spooled
                                                              ? pen_pgoutput_abort_tells_lsn(bytes)
                                                              : intake->options.abort_has_lsn};
    if (!pen_pgoutput_decode(intake->decoder, bytes, &context, &msg, err)) {
        return pen_error_context(err, "source: the stream cannot be read");
    }
    intake->counts[(uint8_t)msg.kind]++;
    switch (msg.kind) {
    case PEN_MESSAGE_STREAM_START:
    case PEN_MESSAGE_STREAM_STOP:
    case PEN_MESSAGE_STREAM_ABORT:
    case PEN_MESSAGE_STREAM_COMMIT:
        return take_streaming(intake, &msg, err);
    case PEN_MESSAGE_BEGIN:
        if (is_beyond_end(intake, msg.begin.commit_lsn)) {
            reach_end(intake);
            return true;
        }
        break;
    case PEN_MESSAGE_COMMIT:
        note_end(intake, at.segment, msg.commit.end_lsn);
        break;
    default:
        break;
    }
    return assemble(intake, &msg, bytes.len, err);
}

bool pen_intake_relation(pen_intake *intake, pen_slice bytes, pen_error *err)
{
    pen_message msg;
    /* It was told before all that is in the segment: whatever is known otherwise is newer. */
    const pen_message_context context = {.arrival = 0};
    return pen_pgoutput_decode(intake->decoder, bytes, &context, &msg, err) ||
           pen_error_context(err, "the spool cannot be read");
}

void pen_intake_keepalive(pen_intake *intake, pen_lsn lsn)
{
    if (intake->assembler.open != NULL ||
        (intake->streamed != NULL && pen_streamed_in_block(intake->streamed))) {
        return; /* a position inside a transaction proves nothing about commits */
    }
    note_idle(intake, lsn);
    /* A commit can still come at exactly the keepalive's position. */
    if (is_beyond_end(intake, lsn)) {
        reach_end(intake);
    }
}

bool pen_intake_session(pen_intake *intake, pen_error *err)
{
    PEN_ASSERT(!intake->replaying);
    if (intake->feed != NULL && !intake->feed_ends) {
        return pen_error_set(err, PEN_ERROR_RETRY,
                             "source: the connection was lost in the middle of the transaction "
                             "that commits at " PEN_LSN_FMT ", a part of which is on its way to "
                             "the target",
                             PEN_LSN_ARGS(intake->assembler.open->commit_lsn));
    }
    intake->skipping = false;
    pen_assembler_discard(&intake->assembler);
    if (intake->streamed != NULL) {
        pen_streamed_forget_all(intake->streamed);
    }
    if (intake->commit_lsn > intake->skip_lsn) {
        intake->skip_lsn = intake->commit_lsn;
    }
    return true;
}
