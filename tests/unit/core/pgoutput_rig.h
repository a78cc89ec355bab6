/* Purpose: a decoder with all that it needs, for its tests.
 * Thread:  one test.
 * Owns:    arena, budget, decoder and the bytes of one message, until rig_deinit.
 * Flow:    messages written into `out` in; `msg` or `err` out, with what must hold for any of them.
 */
#ifndef PEN_TESTS_PGOUTPUT_RIG_H
#define PEN_TESTS_PGOUTPUT_RIG_H

#include "core/pgoutput.h"
#include "tests/unit/core/wire_samples.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* A decoder with all that it needs. */
typedef struct rig {
    pen_budget budget;
    pen_arena arena;
    pen_pgoutput *decoder;
    pen_message_context context; /* of each message from here on; decoding counts its arrival */
    pen_message msg;
    pen_error err;
    wire out;
} rig;

static inline void rig_init(rig *at)
{
    memset(at, 0, sizeof(*at));
    pen_budget_init(&at->budget, SIZE_MAX, NULL);
    pen_arena_init(&at->arena, &at->budget);
    at->decoder = pen_pgoutput_create(&at->arena);
}

static inline void rig_deinit(rig *at)
{
    pen_pgoutput_destroy(at->decoder);
    pen_arena_deinit(&at->arena);
    cr_assert_eq(pen_budget_used(&at->budget), 0);
    wire_free(&at->out);
}

/* Decodes a copy that ends exactly where the message does, so that AddressSanitizer sees a read
 * behind it; the copy is gone afterwards, so that it sees a change that points there. */
static inline bool decode_bytes(rig *at, const uint8_t *bytes, size_t len)
{
    uint8_t *copy = pen_malloc(len);
    if (len > 0) {
        memcpy(copy, bytes, len);
    }
    at->err.kind = PEN_ERROR_NONE;
    at->context.arrival++;
    memset(&at->msg, 0xA5, sizeof(at->msg)); /* so that what is not set shows */
    bool ok =
        pen_pgoutput_decode(at->decoder, (pen_slice){copy, len}, &at->context, &at->msg, &at->err);
    cr_assert(ok == (at->err.kind == PEN_ERROR_NONE));
    if (ok) {
        uint8_t kind = 0;
        uint32_t xid = 0;
        cr_assert(pen_pgoutput_peek((pen_slice){copy, len}, at->context.streamed, &kind, &xid));
        cr_assert_eq((int)at->msg.kind, kind);
        cr_assert_eq(at->msg.xid, xid);
    }
    if (!ok) {
        cr_assert_eq((int)at->err.kind, PEN_ERROR_FATAL);
        const char *offset = strstr(at->err.text, "at offset ");
        cr_assert_not_null(offset, "%s", at->err.text);
        cr_assert_leq(strtoull(offset + strlen("at offset "), NULL, 10), len, "read beyond: %s",
                      at->err.text);
    }
    free(copy);
    return ok;
}

/* Decodes what was written into `out`, and empties that. */
static inline bool decode(rig *at)
{
    bool ok = decode_bytes(at, at->out.data, at->out.len);
    at->out.len = 0;
    return ok;
}

/* The same, on the bytes where they are: for messages whose slices are looked at. */
static inline void decode_kept(rig *at)
{
    at->context.arrival++;
    cr_assert(
        pen_pgoutput_decode(at->decoder, wire_slice(&at->out), &at->context, &at->msg, &at->err),
        "%s", at->err.text);
}

static inline void expect_refused(rig *at, const char *words)
{
    cr_assert_not(decode(at), "taken, but should be refused: %s", words);
    cr_assert(strstr(at->err.text, words) != NULL, "\"%s\" is not in: %s", words, at->err.text);
}

static inline void tell_relations(rig *at)
{
    wire_item_relation(&at->out);
    cr_assert(decode(at), "%s", at->err.text);
    wire_empty_relation(&at->out);
    cr_assert(decode(at), "%s", at->err.text);
}

static inline void rig_init_with_relations(rig *at)
{
    rig_init(at);
    tell_relations(at);
}

static inline bool slice_is(pen_slice slice, const char *text)
{
    return pen_slice_equal(slice, pen_slice_of(text));
}

static inline void expect_value(const pen_value *value, char kind, const void *bytes, uint32_t len)
{
    cr_assert_eq((char)value->kind, kind);
    cr_assert_eq(value->len, len);
    if (kind == 't' || kind == 'b') {
        cr_assert(value->data != NULL);
        cr_assert(len == 0 || memcmp(value->data, bytes, len) == 0);
        cr_assert_eq(value->data[len], 0, "no NUL behind the value");
    } else {
        cr_assert(value->data == NULL);
    }
}

static inline void expect_text(const pen_value *value, const char *text)
{
    expect_value(value, 't', text, (uint32_t)strlen(text));
}

/* Reads every byte that a change says it has, for AddressSanitizer to judge. */
static inline void walk_tuple(const pen_tuple *tuple, uint16_t count)
{
    for (uint16_t i = 0; tuple->values != NULL && i < count; i++) {
        const pen_value *value = &tuple->values[i];
        cr_assert(value->kind != 0 && strchr("nutb", value->kind) != NULL);
        if (value->data != NULL) {
            volatile uint8_t sum = 0;
            for (uint32_t at = 0; at < value->len; at++) {
                sum = (uint8_t)(sum + value->data[at]);
            }
            cr_assert_eq(value->data[value->len], 0);
        }
    }
}

static inline void walk(const pen_message *msg)
{
    if (msg->kind == PEN_MESSAGE_INSERT || msg->kind == PEN_MESSAGE_UPDATE ||
        msg->kind == PEN_MESSAGE_DELETE) {
        walk_tuple(&msg->change->old_tuple, msg->change->rel->column_count);
        walk_tuple(&msg->change->new_tuple, msg->change->rel->column_count);
    } else if (msg->kind == PEN_MESSAGE_TRUNCATE) {
        for (uint32_t i = 0; i < msg->change->truncated_count; i++) {
            cr_assert(msg->change->truncated[i] != NULL);
        }
    }
}

#endif
