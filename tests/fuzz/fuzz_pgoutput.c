#include "core/assemble.h"

#include <stdlib.h>

/* The decoder and the assembler behind it, fed with a stream of messages: the input is a run of
 * them, each with its length in front (two bytes, network order; the last one may be cut short). */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { KEPT_TXNS = 4 };

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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pen_budget budget;
    pen_arena arena;
    pen_assembler assembler;
    pen_budget_init(&budget, SIZE_MAX, NULL);
    pen_arena_init(&arena, &budget);
    pen_pgoutput *decoder = pen_pgoutput_create(&arena);
    pen_assembler_init(&assembler, &arena);
    /* Some transactions are kept, so that they are not released in their order. */
    pen_txn *kept[KEPT_TXNS] = {NULL};
    size_t txn_count = 0;
    uint64_t sum = 0;

    pen_cursor input = pen_cursor_over((pen_slice){data, size});
    while (pen_cursor_left(&input) >= 2) {
        size_t len = pen_cursor_u16(&input);
        if (len > pen_cursor_left(&input)) {
            len = pen_cursor_left(&input);
        }
        /* A copy that ends where the message ends. */
        uint8_t *copy = pen_malloc(len);
        memcpy(copy, pen_cursor_take(&input, len), len);
        pen_message msg;
        pen_error err;
        const pen_message_context context = {0};
        size_t used = pen_budget_used(&budget);
        bool ok = pen_pgoutput_decode(decoder, (pen_slice){copy, len}, &context, &msg, &err);
        PEN_ASSERT(pen_budget_used(&budget) <= used + PEN_BLOCK_SIZE + 20 * len);
        if (ok) {
            sum += sum_message(&msg);
        }
        free(copy);
        pen_txn *txn = NULL;
        if (ok && !pen_assembler_add(&assembler, &msg, len, &txn, &err)) {
            pen_assembler_discard(&assembler);
        }
        if (txn != NULL) {
            sum += sum_txn(txn);
            pen_txn **place = &kept[txn_count++ * 3 % KEPT_TXNS];
            if (*place != NULL) {
                sum += sum_txn(*place);
                pen_txn_release(*place);
            }
            *place = txn;
        }
    }

    pen_assembler_discard(&assembler);
    pen_arena_deinit(&arena);
    for (size_t i = 0; i < KEPT_TXNS; i++) {
        if (kept[i] != NULL) {
            sum += sum_txn(kept[i]);
            pen_txn_release(kept[i]);
        }
    }
    pen_pgoutput_destroy(decoder);
    PEN_ASSERT(pen_budget_used(&budget) == 0);
    /* Uses the sum, so that no read behind it is optimised away. */
    return sum == UINT64_MAX ? -1 : 0;
}
