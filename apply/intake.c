#include "apply/intake.h"

#include "apply/eager.h"
#include "apply/eager_giving.h"
#include "apply/giving.h"
#include "apply/streamed.h"
#include "core/behind.h"
#include "core/log.h"

#include <inttypes.h>
#include <stdlib.h>

struct pen_intake {
    pen_stream *stream;
    pen_intake_options options;
    pen_positions positions;
    pen_arena arena;
    pen_pgoutput *decoder;
    pen_assembler assembler;
    pen_giving giving;
    pen_streamed *streamed; /* NULL: none will come */
    pen_eager_giving eager;
    bool eager_ends;    /* the Commit of what that gives has come */
    pen_lsn reached;    /* every commit before it has come, or the target has it */
    bool needs_segment; /* of our own spool, before the next message of a block */
    bool replaying;
    bool replays_relations_only; /* of a transaction that is on the target already */
    pen_message commit;          /* the Stream Commit of the transaction that is replayed */
    pen_metric blocked;          /* why nothing could be taken in when that was asked last */
    bool skipping;               /* a large transaction that is on the target already is arriving */
    bool stopped;
    bool over_budget; /* one row alone needs more than --memory: said once a transaction */
    pen_behind behind;
    uint64_t arrival;     /* messages taken so far */
    uint64_t counts[256]; /* messages, by kind */
};

pen_intake *pen_intake_create(pen_stream *stream, const pen_intake_options *options)
{
    pen_intake *intake = pen_calloc(1, sizeof(*intake));
    intake->stream = stream;
    intake->blocked = PEN_METRIC_COUNT;
    intake->options = *options;
    pen_positions_init(&intake->positions, stream);
    pen_arena_init(&intake->arena, &stream->budget);
    intake->decoder = pen_pgoutput_create(&intake->arena);
    pen_assembler_init(&intake->assembler, &intake->arena);
    pen_giving_init(&intake->giving, stream, &intake->assembler, &intake->positions);
    if (options->spool != NULL) {
        intake->streamed = pen_streamed_create(options->spool, !options->spool_is_ours);
    }
    pen_eager_giving_init(&intake->eager, stream, intake->streamed, intake->decoder,
                          &intake->arena);
    return intake;
}

/* The Commit of the transaction that is applied while it is in progress has come, and what is left
 * of it is given first. */
static void set_eager_ends(pen_intake *intake, bool ends)
{
    if (intake->eager_ends != ends) {
        intake->eager_ends = ends;
        if (ends) {
            pen_meter_take(intake->commit.stream_commit.commit_time);
        } else {
            pen_meter_put();
        }
        pen_eager_worker_await(intake->stream->eager, ends);
    }
}

void pen_intake_let_go(pen_intake *intake)
{
    set_eager_ends(intake, false);
    pen_eager_giving_drop(&intake->eager);
    if (intake->streamed != NULL) {
        pen_streamed_forget_all(intake->streamed);
    }
}

void pen_intake_destroy(pen_intake *intake)
{
    if (intake == NULL) {
        return;
    }
    pen_eager_giving_deinit(&intake->eager);
    pen_giving_deinit(&intake->giving);
    pen_assembler_discard(&intake->assembler);
    pen_arena_deinit(&intake->arena);
    pen_streamed_destroy(intake->streamed);
    pen_pgoutput_destroy(intake->decoder);
    pen_positions_deinit(&intake->positions);
    free(intake);
}

/* What is waited for */

static uint32_t committing_xid(const pen_intake *intake)
{
    return intake->commit.stream_commit.xid;
}

/* True while nothing may be taken in, because memory is used up and will be given back. */
static bool must_wait_for_memory(pen_intake *intake)
{
    pen_stream *stream = intake->stream;
    if (!pen_budget_exhausted(&stream->budget)) {
        return false;
    }
    /* [APPLIED-1] acquire: pairs with the release in the worker. */
    bool in_flight = pen_cell_read(&stream->applied_lsn) < pen_cell_read(&stream->handed_lsn) ||
                     pen_giving_is_in_flight(&intake->giving) ||
                     pen_eager_giving_is_in_flight(&intake->eager);
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

/* Gives what there is; *blocked: what must be waited for before more is taken in, or
 * PEN_METRIC_COUNT. */
static bool give(pen_intake *intake, pen_metric *blocked, pen_error *err)
{
    bool all = pen_giving_poll(&intake->giving);
    *blocked = all ? PEN_METRIC_COUNT : PEN_METRIC_READER_ROOM;
    if (intake->eager.eager == NULL || !all || intake->stopped ||
        pen_giving_is_feeding(&intake->giving)) {
        return true; /* what lies behind a large transaction is not taken before its end */
    }
    if (!pen_eager_giving_poll(&intake->eager, intake->eager_ends, err)) {
        return false;
    }
    if (intake->eager_ends && pen_eager_giving_has(&intake->eager, committing_xid(intake)) &&
        !pen_eager_giving_is_done(&intake->eager)) {
        *blocked = PEN_METRIC_READER_EAGER;
    }
    return true;
}

bool pen_intake_is_ready(pen_intake *intake, bool *ready, pen_error *err)
{
    pen_metric giving = PEN_METRIC_COUNT;
    *ready = false;
    if ((intake->needs_segment && !make_segment(intake, err)) || !give(intake, &giving, err)) {
        return false;
    }
    intake->blocked = giving != PEN_METRIC_COUNT     ? giving
                      : intake->needs_segment        ? PEN_METRIC_READER_DISK
                      : must_wait_for_memory(intake) ? PEN_METRIC_READER_MEMORY
                                                     : PEN_METRIC_COUNT;
    *ready = intake->blocked == PEN_METRIC_COUNT;
    return true;
}

pen_metric pen_intake_blocked(const pen_intake *intake)
{
    return intake->blocked;
}

/* The end */

void pen_intake_stop(pen_intake *intake)
{
    if (intake->stopped) {
        return;
    }
    intake->stopped = true;
    intake->replaying = false;
    set_eager_ends(intake, false);
    pen_eager_giving_drop(&intake->eager);
    if (pen_giving_is_open(&intake->giving)) {
        pen_giving_discard(&intake->giving);
    }
    if (!pen_giving_is_feeding(&intake->giving)) {
        pen_assembler_discard(&intake->assembler);
    }
}

bool pen_intake_has_stopped(const pen_intake *intake)
{
    return intake->stopped;
}

bool pen_intake_finish(pen_intake *intake)
{
    return intake->stopped && pen_giving_poll(&intake->giving);
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

pen_lsn pen_intake_received(const pen_intake *intake)
{
    return intake->positions.received;
}

uint64_t pen_intake_count(const pen_intake *intake, pen_message_kind kind)
{
    return intake->counts[(uint8_t)kind];
}

uint64_t pen_intake_needed_segment(pen_intake *intake, pen_lsn durable)
{
    uint64_t open =
        intake->streamed == NULL ? UINT64_MAX : pen_streamed_first_segment(intake->streamed);
    return pen_positions_needed_segment(&intake->positions, open, durable);
}

/* Messages */

static void count_txn(const pen_intake *intake, const pen_txn *txn)
{
    pen_meter_add(PEN_METRIC_RECEIVED_BYTES, txn->bytes);
    pen_meter_add(PEN_METRIC_LATE_TRANSACTIONS, intake->behind.far);
}

static void note_reached(pen_intake *intake, pen_lsn lsn)
{
    intake->reached = lsn > intake->reached ? lsn : intake->reached;
}

/* A whole transaction came, whose first message stands in `first_segment` of the spool. */
static bool take_txn(pen_intake *intake, pen_txn *txn, pen_error *err)
{
    pen_lsn commit_lsn = txn->commit_lsn;
    pen_lsn end_lsn = txn->end_lsn;
    bool again = false;
    note_reached(intake, end_lsn);
    if (!pen_positions_note_commit(&intake->positions, commit_lsn, &again, err)) {
        if (txn != &intake->assembler.fed) { /* what was fed belongs to the assembler */
            pen_txn_release(txn);
        }
        return false;
    }
    intake->over_budget = false;
    if (pen_giving_is_feeding(&intake->giving)) {
        pen_giving_end(&intake->giving, txn);
        pen_positions_note_received(&intake->positions, end_lsn);
        count_txn(intake, txn);
    } else if (intake->skipping) {
        intake->skipping = false;
        pen_assembler_discard(&intake->assembler);
        pen_positions_note_idle(&intake->positions, end_lsn);
    } else if (again || txn->change_count == 0) {
        /* Here already, or nothing in it: only the position moves. */
        pen_txn_release(txn);
        pen_positions_note_idle(&intake->positions, end_lsn);
    } else {
        txn->behind = intake->behind.far;
        count_txn(intake, txn);
        pen_giving_put(&intake->giving, txn);
        pen_positions_note_received(&intake->positions, end_lsn);
    }
    /* The next commit record cannot lie before the end of this one. */
    if (pen_positions_is_beyond_end(&intake->positions, end_lsn)) {
        reach_end(intake);
    }
    return true;
}

/* The open transaction is larger than a batch may be. */
static bool is_large(const pen_intake *intake)
{
    const pen_stream *stream = intake->stream;
    const pen_txn *open = intake->assembler.open;
    return open->change_count > stream->filling.limits.rows ||
           open->bytes > stream->filling.limits.bytes || open->bytes > stream->budget.limit / 8;
}

/* Lets a large transaction flow to its worker from here on, or past us when the target has it. */
static void flow(pen_intake *intake)
{
    pen_txn *txn = pen_assembler_give_open(&intake->assembler);
    if (pen_positions_was_here(&intake->positions, txn->commit_lsn)) {
        intake->skipping = true;
        pen_txn_release(txn);
        return;
    }
    pen_giving_begin(&intake->giving, txn);
}

/* After a change was added. */
static void look_at_size(pen_intake *intake)
{
    if (intake->skipping) {
        for (pen_segment *seg; (seg = pen_assembler_take_segment(&intake->assembler)) != NULL;) {
            pen_block_release(seg->block);
        }
    } else if (!pen_giving_is_feeding(&intake->giving) && intake->assembler.open != NULL &&
               is_large(intake)) {
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
    if (msg->kind == PEN_MESSAGE_BEGIN) {
        pen_behind_judge(&intake->behind, msg->begin.commit_time);
    }
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

static bool refuse_commit(const pen_message *msg, pen_error *err)
{
    return pen_error_set(err, PEN_ERROR_FATAL,
                         "the source committed the streamed transaction %" PRIu32 " at " PEN_LSN_FMT
                         ", which it did not stream, or the beginning of which is not in the "
                         "spool any more; check that nothing between penstock and the source "
                         "changes the stream, and that the target was not put back to an older "
                         "state",
                         msg->stream_commit.xid, PEN_LSN_ARGS(msg->stream_commit.commit_lsn));
}

/* Takes in the messages of the transaction that has committed, from the first to the last. */
static bool replay_all(pen_intake *intake, bool relations_only, pen_error *err)
{
    const pen_message *msg = &intake->commit;
    pen_eager_giving_leave(&intake->eager, msg->stream_commit.xid);
    if (!pen_streamed_replay(intake->streamed, msg->stream_commit.xid, relations_only)) {
        return refuse_commit(msg, err);
    }
    const pen_message begin = {.kind = PEN_MESSAGE_BEGIN,
                               .begin = {.commit_lsn = msg->stream_commit.commit_lsn,
                                         .commit_time = msg->stream_commit.commit_time,
                                         .xid = msg->stream_commit.xid}};
    intake->replays_relations_only = relations_only;
    pen_pgoutput_begin_replay(intake->decoder);
    return relations_only || assemble(intake, &begin, 0, err);
}

/* A streamed transaction committed: from now on its messages are taken in, as if they came now. */
static bool begin_replay(pen_intake *intake, const pen_message *msg, pen_error *err)
{
    uint32_t xid = msg->stream_commit.xid;
    pen_lsn commit_lsn = msg->stream_commit.commit_lsn;
    if (pen_positions_is_beyond_end(&intake->positions, commit_lsn)) {
        reach_end(intake);
        return true;
    }
    bool again = pen_positions_was_here(&intake->positions, commit_lsn);
    if (again && pen_streamed_segment_of(intake->streamed, xid) == 0) {
        pen_positions_note_idle(&intake->positions,
                                msg->stream_commit.end_lsn); /* all its blocks are gone */
        return true;
    }
    if (pen_streamed_in_block(intake->streamed) ||
        pen_streamed_segment_of(intake->streamed, xid) == 0) {
        return refuse_commit(msg, err);
    }
    if (!intake->options.spool_is_ours) {
        uint64_t first = pen_streamed_segment_of(intake->streamed, xid);
        pen_positions_note_end(&intake->positions, first, msg->stream_commit.end_lsn);
    }
    intake->commit = *msg;
    intake->replaying = true;
    if (!again && pen_eager_giving_has(&intake->eager, xid)) {
        pen_eager_giving_end(&intake->eager);
        set_eager_ends(intake, true);
        return true;
    }
    return replay_all(intake, again, err);
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
        pen_positions_note_idle(&intake->positions, commit.commit.end_lsn);
        return true;
    }
    return assemble(intake, &commit, 0, err);
}

/* The transaction that was applied while it was in progress has committed, and its parts were
 * given; or it could not be applied so. */
static bool end_eager(pen_intake *intake, pen_error *err)
{
    uint32_t xid = committing_xid(intake);
    pen_txn *txn = NULL;
    set_eager_ends(intake, false);
    if (!pen_eager_giving_has(&intake->eager, xid)) {
        return replay_all(intake, false, err);
    }
    if (!pen_eager_giving_finish(&intake->eager, &intake->commit, &txn, err)) {
        return false;
    }
    intake->replaying = false;
    pen_behind_judge(&intake->behind, txn->commit_time);
    pen_streamed_forget(intake->streamed, xid);
    if (!trim_own(intake, err)) {
        pen_txn_release(txn);
        return false;
    }
    return take_txn(intake, txn, err);
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
    if (intake->eager_ends) {
        return end_eager(intake, err);
    }
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

/* True when what comes in a block now is not on the target, neither by an earlier run nor by a
 * copy: its transaction commits behind what was reached. */
static bool may_be_eager(const pen_intake *intake)
{
    const pen_stream *stream = intake->stream;
    return stream->eager != NULL &&
           (intake->options.spool_is_ours || intake->reached >= intake->positions.skip_lsn) &&
           (stream->fences.count == 0 || intake->reached >= stream->fences.end);
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
        if (ok && may_be_eager(intake)) {
            pen_eager_giving_consider(&intake->eager, msg->stream_start.xid);
        }
        intake->needs_segment =
            intake->options.spool_is_ours && pen_spool_wants_segment(intake->options.spool);
        break;
    case PEN_MESSAGE_STREAM_STOP:
        ok = pen_streamed_stop(streamed, err);
        break;
    case PEN_MESSAGE_STREAM_ABORT:
        pen_eager_giving_abort(&intake->eager, msg->stream_abort.xid, msg->stream_abort.subxid);
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
        pen_positions_note_segment(&intake->positions, at.segment);
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
        if (pen_positions_is_beyond_end(&intake->positions, msg.begin.commit_lsn)) {
            reach_end(intake);
            return true;
        }
        break;
    case PEN_MESSAGE_COMMIT:
        pen_positions_note_end(&intake->positions, at.segment, msg.commit.end_lsn);
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

void pen_intake_clock(pen_intake *intake, pen_pgtime sent)
{
    intake->behind.clock = sent;
}

bool pen_intake_is_behind(const pen_intake *intake)
{
    return intake->behind.far;
}

bool pen_intake_is_within(const pen_intake *intake)
{
    return intake->assembler.open != NULL;
}

void pen_intake_keepalive(pen_intake *intake, pen_lsn lsn)
{
    if (intake->assembler.open != NULL ||
        (intake->streamed != NULL && pen_streamed_in_block(intake->streamed))) {
        return; /* a position inside a transaction proves nothing about commits */
    }
    pen_positions_note_idle(&intake->positions, lsn);
    note_reached(intake, lsn);
    /* A commit can still come at exactly the keepalive's position. */
    if (pen_positions_is_beyond_end(&intake->positions, lsn)) {
        reach_end(intake);
    }
}

void pen_intake_flush(pen_intake *intake)
{
    if (intake != NULL) {
        pen_dealing_flush(&intake->stream->dealing);
    }
}

void pen_intake_session(pen_intake *intake)
{
    PEN_ASSERT(!intake->replaying);
    if (pen_giving_is_open(&intake->giving)) {
        pen_giving_discard(&intake->giving);
    }
    intake->skipping = false;
    pen_assembler_discard(&intake->assembler);
    pen_eager_giving_drop(&intake->eager);
    if (intake->streamed != NULL) {
        pen_streamed_forget_all(intake->streamed);
    }
    pen_positions_note_session(&intake->positions);
}
