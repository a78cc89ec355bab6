#include "core/assemble.h"

/* What Begin allocates: the transaction lies in its first segment's block, as pen_txn_release
 * relies on. */
typedef struct txn_head {
    pen_txn txn;
    pen_segment segment;
} txn_head;

void pen_assembler_init(pen_assembler *assembler, pen_arena *arena)
{
    assembler->arena = arena;
    assembler->open = NULL;
    assembler->fed = (pen_txn){0};
}

void pen_assembler_discard(pen_assembler *assembler)
{
    if (assembler->open != NULL && assembler->open != &assembler->fed) {
        pen_txn_release(assembler->open);
    }
    assembler->open = NULL;
    for (pen_segment *seg; (seg = pen_assembler_take_segment(assembler)) != NULL;) {
        pen_block_release(seg->block);
    }
}

pen_txn *pen_assembler_give_open(pen_assembler *assembler)
{
    pen_txn *given = assembler->open;
    PEN_ASSERT(given != NULL && given != &assembler->fed && assembler->fed.first == NULL);
    assembler->fed = *given;
    assembler->fed.first = NULL;
    assembler->fed.last = NULL;
    assembler->open = &assembler->fed;
    return given;
}

pen_segment *pen_assembler_take_segment(pen_assembler *assembler)
{
    pen_txn *fed = &assembler->fed;
    pen_segment *seg = fed->first;
    if (seg == NULL || (seg == fed->last && assembler->open == fed)) {
        return NULL;
    }
    fed->first = seg->next;
    if (fed->first == NULL) {
        fed->last = NULL;
    }
    return seg;
}

/* Makes `segment`, which lies in the arena's current block, the last of `txn`. */
static void add_segment(pen_txn *txn, pen_segment *segment, pen_block *block)
{
    *segment = (pen_segment){.block = block};
    pen_block_acquire(block);
    if (txn->last == NULL) {
        txn->first = segment;
    } else {
        txn->last->next = segment;
    }
    txn->last = segment;
}

static void add_change(pen_assembler *assembler, pen_change *chg)
{
    pen_txn *txn = assembler->open;
    pen_block *block = assembler->arena->block;
    if (txn->last == NULL || txn->last->block != block) {
        /* The room was left by the decoder: PEN_CHANGE_TAIL. A header in a later block would be
         * freed while the segment is still in use. */
        pen_segment *segment = pen_arena_alloc(assembler->arena, sizeof(*segment));
        PEN_ASSERT(assembler->arena->block == block);
        add_segment(txn, segment, block);
    }
    pen_segment *segment = txn->last;
    PEN_ASSERT((const uint8_t *)chg >= block->data &&
               (const uint8_t *)chg < block->data + block->used);
    if (segment->last == NULL) {
        segment->first = chg;
    } else {
        segment->last->next = chg;
    }
    segment->last = chg;
    segment->change_count++;
    txn->change_count++;
}

static bool begin(pen_assembler *assembler, const pen_message *msg, pen_error *err)
{
    if (assembler->open != NULL) {
        pen_error_set(err, PEN_ERROR_FATAL,
                      "the source began transaction %u (commit LSN " PEN_LSN_FMT
                      ") inside transaction %u (commit LSN " PEN_LSN_FMT
                      "), which pgoutput does not allow; check that the source "
                      "is a PostgreSQL server, with no proxy that changes the stream",
                      msg->begin.xid, PEN_LSN_ARGS(msg->begin.commit_lsn), assembler->open->xid,
                      PEN_LSN_ARGS(assembler->open->commit_lsn));
        err->lsn = msg->begin.commit_lsn;
        return false;
    }
    txn_head *head = pen_arena_alloc(assembler->arena, sizeof(*head));
    head->txn = (pen_txn){
        .xid = msg->begin.xid,
        .commit_lsn = msg->begin.commit_lsn,
        .commit_time = msg->begin.commit_time,
    };
    add_segment(&head->txn, &head->segment, assembler->arena->block);
    assembler->open = &head->txn;
    return true;
}

static bool commit(pen_assembler *assembler, const pen_message *msg, pen_error *err)
{
    pen_txn *txn = assembler->open;
    if (txn == NULL || msg->commit.commit_lsn != txn->commit_lsn) {
        pen_error_set(err, PEN_ERROR_FATAL,
                      "the source committed a transaction at " PEN_LSN_FMT
                      " that it did not begin (open: " PEN_LSN_FMT
                      "); check that the source is a PostgreSQL server, with no proxy that changes "
                      "the stream",
                      PEN_LSN_ARGS(msg->commit.commit_lsn),
                      PEN_LSN_ARGS(txn == NULL ? PEN_LSN_NONE : txn->commit_lsn));
        err->lsn = msg->commit.commit_lsn;
        return false;
    }
    if (msg->commit.end_lsn < msg->commit.commit_lsn) {
        /* Progress is reported by end LSNs: it would go back. */
        pen_error_set(err, PEN_ERROR_FATAL,
                      "the source's transaction at " PEN_LSN_FMT " ends at " PEN_LSN_FMT
                      ", before its commit record; check that the source is a PostgreSQL server, "
                      "with no proxy that changes the stream",
                      PEN_LSN_ARGS(msg->commit.commit_lsn), PEN_LSN_ARGS(msg->commit.end_lsn));
        err->lsn = msg->commit.commit_lsn;
        return false;
    }
    txn->end_lsn = msg->commit.end_lsn;
    txn->commit_time = msg->commit.commit_time;
    return true;
}

bool pen_assembler_add(pen_assembler *assembler, const pen_message *msg, size_t bytes,
                       pen_txn **txn, pen_error *err)
{
    *txn = NULL;
    switch (msg->kind) {
    case PEN_MESSAGE_BEGIN:
        if (!begin(assembler, msg, err)) {
            return false;
        }
        assembler->open->bytes += bytes;
        return true;
    case PEN_MESSAGE_COMMIT:
        if (!commit(assembler, msg, err)) {
            return false;
        }
        assembler->open->bytes += bytes;
        *txn = assembler->open;
        assembler->open = NULL;
        return true;
    case PEN_MESSAGE_INSERT:
    case PEN_MESSAGE_UPDATE:
    case PEN_MESSAGE_DELETE:
    case PEN_MESSAGE_TRUNCATE:
        if (assembler->open == NULL) {
            return pen_error_set(
                err, PEN_ERROR_FATAL,
                "the source sent a change (%s) outside a transaction; check that "
                "the source is a PostgreSQL server, with no proxy that changes the "
                "stream",
                pen_message_kind_name(msg->kind));
        }
        add_change(assembler, msg->change);
        assembler->open->bytes += bytes;
        return true;
    case PEN_MESSAGE_ORIGIN:
    case PEN_MESSAGE_RELATION:
    case PEN_MESSAGE_TYPE:
    case PEN_MESSAGE_MESSAGE:
        return true;
    case PEN_MESSAGE_STREAM_START:
    case PEN_MESSAGE_STREAM_STOP:
    case PEN_MESSAGE_STREAM_COMMIT:
    case PEN_MESSAGE_STREAM_ABORT:
    case PEN_MESSAGE_BEGIN_PREPARE:
    case PEN_MESSAGE_PREPARE:
    case PEN_MESSAGE_COMMIT_PREPARED:
    case PEN_MESSAGE_ROLLBACK_PREPARED:
    case PEN_MESSAGE_STREAM_PREPARE:
        break;
    }
    return pen_error_set(
        err, PEN_ERROR_FATAL,
        "the source sent a %s message among the transactions that come whole, where "
        "pgoutput does not allow it; check that the source is a PostgreSQL server, "
        "with no proxy that changes the stream",
        pen_message_kind_name(msg->kind));
}
