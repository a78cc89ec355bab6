#include "core/assemble.h"

#include <stdlib.h>

/* The decoder and the assembler behind it, fed with a stream of messages. The input is a byte that
 * says how the stream was asked for, and a run of messages, each with what is to be told of it
 * (CONTROL_*) and its length in front (two bytes, network order; the last one may be cut short). */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define KEPT_TXNS 4u

enum { INPUT_ABORT_HAS_LSN = 1 };
/* The other bits: how much earlier than it is decoded the message arrived. */
enum { CONTROL_STREAMED = 1, CONTROL_REPLAY = 2, CONTROL_EARLIER_SHIFT = 2 };

/* Reads what a tuple says it has, for AddressSanitizer to judge. */
static uint64_t sum_tuple(const pen_tuple *tuple, const pen_relation *rel)
{
    uint64_t sum = 0;
    for (uint16_t i = 0; tuple->values != NULL && i < rel->column_count; i++) {
        const pen_value *value = &tuple->values[i];
        sum += value->kind;
        for (uint32_t at = 0; value->data != NULL && at < value->len; at++) {
            sum += value->data[at];
        }
        PEN_ASSERT(value->data == NULL || value->data[value->len] == 0);
    }
    return sum;
}

static uint64_t sum_relation(const pen_relation *rel)
{
    uint64_t sum = rel->schema.data[rel->schema.len] + rel->table.data[rel->table.len];
    for (uint16_t i = 0; i < rel->column_count; i++) {
        const pen_slice *name = &rel->columns[i].name;
        sum += rel->columns[i].type_oid + strlen((const char *)name->data);
        PEN_ASSERT(strlen((const char *)name->data) == name->len);
    }
    return sum;
}

static uint64_t sum_slice(pen_slice slice)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < slice.len; i++) {
        sum += slice.data[i];
    }
    return sum;
}

/* The slices that point into the input are read while that is there. */
static uint64_t sum_message(const pen_message *msg)
{
    switch (msg->kind) {
    case PEN_MESSAGE_ORIGIN:
        return sum_slice(msg->origin.name);
    case PEN_MESSAGE_TYPE:
        return sum_slice(msg->type.schema) + sum_slice(msg->type.name);
    case PEN_MESSAGE_MESSAGE:
        return sum_slice(msg->message.prefix) + sum_slice(msg->message.content);
    case PEN_MESSAGE_RELATION:
        return sum_relation(msg->relation);
    case PEN_MESSAGE_BEGIN_PREPARE:
    case PEN_MESSAGE_PREPARE:
    case PEN_MESSAGE_COMMIT_PREPARED:
    case PEN_MESSAGE_ROLLBACK_PREPARED:
    case PEN_MESSAGE_STREAM_PREPARE:
        return sum_slice(msg->prepared.gid);
    default:
        return 0;
    }
}

static uint64_t sum_txn(const pen_txn *txn)
{
    uint64_t sum = 0;
    uint64_t changes = 0;
    for (const pen_segment *seg = txn->first; seg != NULL; seg = seg->next) {
        for (const pen_change *chg = seg->first; chg != NULL; chg = chg->next) {
            changes++;
            for (uint32_t i = 0; i < chg->truncated_count; i++) {
                sum += sum_relation(chg->truncated[i]);
            }
            if (chg->rel != NULL) {
                sum += sum_tuple(&chg->old_tuple, chg->rel) + sum_tuple(&chg->new_tuple, chg->rel);
            }
        }
    }
    PEN_ASSERT(changes == txn->change_count);
    return sum;
}

typedef struct play {
    pen_budget budget;
    pen_arena arena;
    pen_assembler assembler;
    pen_pgoutput *decoder;
    pen_message_context context;
    bool replaying;
    pen_txn *kept[KEPT_TXNS]; /* some transactions, so that they are not released in their order */
    size_t txn_count;
    uint64_t decoded;
    uint64_t sum;
} play;

/* What a control byte tells of the message behind it. */
static void obey(play *at, uint8_t control)
{
    bool replay = (control & CONTROL_REPLAY) != 0;
    if (replay && !at->replaying) {
        pen_pgoutput_begin_replay(at->decoder);
    } else if (!replay && at->replaying) {
        pen_pgoutput_end_replay(at->decoder);
    }
    at->replaying = replay;
    at->context.streamed = (control & CONTROL_STREAMED) != 0;
    uint64_t earlier = control >> CONTROL_EARLIER_SHIFT;
    at->decoded++;
    at->context.arrival = at->decoded > earlier ? at->decoded - earlier : 0;
}

/* Decodes a copy that ends where the message ends. */
static bool decode(play *at, pen_slice bytes, pen_message *msg)
{
    uint8_t *copy = pen_malloc(bytes.len);
    if (bytes.len > 0) {
        memcpy(copy, bytes.data, bytes.len);
    }
    bytes.data = copy;
    pen_error err;
    size_t used = pen_budget_used(&at->budget);
    bool ok = pen_pgoutput_decode(at->decoder, bytes, &at->context, msg, &err);
    PEN_ASSERT(pen_budget_used(&at->budget) <= used + PEN_BLOCK_SIZE + 20 * bytes.len);
    uint8_t kind = 0;
    uint32_t xid = 0;
    bool peeked = pen_pgoutput_peek(bytes, at->context.streamed, &kind, &xid);
    PEN_ASSERT(!ok || (peeked && kind == msg->kind && xid == msg->xid));
    if (ok) {
        at->sum += sum_message(msg);
    }
    free(copy);
    return ok;
}

static void keep(play *at, pen_txn *txn)
{
    at->sum += sum_txn(txn);
    pen_txn **place = &at->kept[at->txn_count++ * 3 % KEPT_TXNS];
    if (*place != NULL) {
        at->sum += sum_txn(*place);
        pen_txn_release(*place);
    }
    *place = txn;
}

static void end(play *at)
{
    if (at->replaying) {
        pen_pgoutput_end_replay(at->decoder);
    }
    pen_assembler_discard(&at->assembler);
    pen_arena_deinit(&at->arena);
    for (size_t i = 0; i < KEPT_TXNS; i++) {
        if (at->kept[i] != NULL) {
            at->sum += sum_txn(at->kept[i]);
            pen_txn_release(at->kept[i]);
        }
    }
    pen_pgoutput_destroy(at->decoder);
    PEN_ASSERT(pen_budget_used(&at->budget) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    play at = {.replaying = false};
    pen_budget_init(&at.budget, SIZE_MAX, NULL);
    pen_arena_init(&at.arena, &at.budget);
    at.decoder = pen_pgoutput_create(&at.arena);
    pen_assembler_init(&at.assembler, &at.arena);

    pen_cursor input = pen_cursor_over((pen_slice){data, size});
    at.context.abort_has_lsn = (pen_cursor_u8(&input) & INPUT_ABORT_HAS_LSN) != 0;
    while (pen_cursor_left(&input) >= 3) {
        obey(&at, pen_cursor_u8(&input));
        size_t len = pen_cursor_u16(&input);
        if (len > pen_cursor_left(&input)) {
            len = pen_cursor_left(&input);
        }
        pen_message msg;
        pen_error err;
        pen_txn *txn = NULL;
        if (decode(&at, pen_cursor_bytes(&input, len), &msg) &&
            !pen_assembler_add(&at.assembler, &msg, len, &txn, &err)) {
            pen_assembler_discard(&at.assembler);
        }
        if (txn != NULL) {
            keep(&at, txn);
        }
    }
    end(&at);
    /* Uses the sum, so that no read behind it is optimised away. */
    return at.sum == UINT64_MAX ? -1 : 0;
}
