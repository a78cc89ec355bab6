#include "tests/unit/core/pgoutput_rig.h"

#include <stdio.h>

Test(pgoutput_bad, lengths_that_lie)
{
    rig at;
    rig_init_with_relations(&at);
    const uint32_t lengths[] = {3, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFB, 0xFFFFFFFC, 0xFFFFFFFF};
    for (size_t i = 0; i < PEN_COUNTOF(lengths); i++) {
        for (unsigned column = 0; column < 3; column++) {
            wire_row(&at.out, 'I', WIRE_ITEM);
            wire_tuple(&at.out, 'N', 3);
            for (unsigned value = 0; value < column; value++) {
                wire_null(&at.out);
            }
            wire_u8(&at.out, 't');
            wire_u32(&at.out, lengths[i]);
            wire_bytes(&at.out, "ab", 2);
            cr_assert_not(decode(&at));
        }
        wire_u8(&at.out, 'M');
        wire_u8(&at.out, 0);
        wire_u64(&at.out, 1);
        wire_string(&at.out, "p");
        wire_u32(&at.out, lengths[i]);
        wire_bytes(&at.out, "ab", 2);
        expect_refused(&at, "ends early");
    }
    cr_assert(pen_budget_peak(&at.budget) <= PEN_BLOCK_SIZE);
    rig_deinit(&at);
}

Test(pgoutput_bad, an_insert_without_a_value)
{
    rig at;
    rig_init_with_relations(&at);
    wire_row(&at.out, 'I', WIRE_ITEM);
    wire_tuple(&at.out, 'N', 3);
    wire_null(&at.out);
    wire_unchanged(&at.out);
    wire_null(&at.out);
    expect_refused(&at, "value of column 2 is left out");
    rig_deinit(&at);
}

Test(pgoutput_bad, unknown_messages)
{
    rig at;
    rig_init(&at);
    cr_assert_not(decode(&at), "nothing at all");
    for (int kind = 0; kind < 256; kind++) {
        if (kind != 0 && strchr("BCORYIUDTMSEcAbPKrp", kind) != NULL) {
            continue;
        }
        wire_u8(&at.out, (unsigned)kind);
        char words[8];
        snprintf(words, sizeof(words), "0x%02X", (unsigned)kind);
        expect_refused(&at, words);
    }
    rig_deinit(&at);
}

static void set_form(rig *at, wire_form form)
{
    at->context.streamed = form.streamed;
    at->context.abort_has_lsn = form.abort_has_lsn;
}

Test(pgoutput_bad, every_prefix_is_refused)
{
    rig at;
    wire whole = {0};
    for (size_t i = 0; i < WIRE_FORMS; i++) {
        wire_form form = wire_form_of(i, &whole);
        rig_init(&at);
        /* Version in force or not: a Relation message takes another way when it is known. */
        if (form.sample > 4) {
            tell_relations(&at);
        }
        set_form(&at, form);
        for (size_t len = 0; len < whole.len; len++) {
            cr_assert_not(decode_bytes(&at, whole.data, len), "form %zu, %zu of %zu bytes", i, len,
                          whole.len);
            cr_assert_null(strstr(at.err.text, "has the kind"), "a missing byte was taken for one");
            cr_assert_null(strstr(at.err.text, "names no"), "a missing xid was taken for one");
            cr_assert_eq(at.arena.block == NULL ? 0 : at.arena.block->used, 0,
                         "a refused message keeps no memory");
        }
        cr_assert(decode_bytes(&at, whole.data, whole.len), "form %zu: %s", i, at.err.text);
        walk(&at.msg);
        rig_deinit(&at);
    }
    wire_free(&whole);
}

/* Nothing but the tuples' headers, so that each missing byte is one of those. */
Test(pgoutput_bad, every_prefix_of_an_update_without_columns_is_refused)
{
    rig at;
    rig_init_with_relations(&at);
    wire whole = {0};
    wire_row(&whole, 'U', WIRE_EMPTY);
    wire_tuple(&whole, 'K', 0);
    wire_tuple(&whole, 'N', 0);
    for (size_t len = 0; len < whole.len; len++) {
        cr_assert_not(decode_bytes(&at, whole.data, len), "%zu bytes", len);
    }
    cr_assert(decode_bytes(&at, whole.data, whole.len));
    wire_free(&whole);
    rig_deinit(&at);
}

Test(pgoutput_bad, every_trailing_byte_is_refused)
{
    rig at;
    rig_init_with_relations(&at);
    wire whole = {0};
    for (size_t i = 0; i < WIRE_FORMS; i++) {
        set_form(&at, wire_form_of(i, &whole));
        for (int last = 0; last < 256; last++) {
            wire_bytes(&at.out, whole.data, whole.len);
            wire_u8(&at.out, (unsigned)last);
            cr_assert_not(decode(&at), "form %zu and the byte %d", i, last);
        }
    }
    wire_free(&whole);
    rig_deinit(&at);
}

/* What one message may allocate at most: a block, or what a row of one-byte values needs. */
static size_t bound(size_t len)
{
    return PEN_BLOCK_SIZE + sizeof(pen_change) + PEN_CHANGE_TAIL + 17 * (len + 1);
}

/* Decodes a message that may be anything. */
static void decode_anything(const uint8_t *bytes, size_t len, wire_form form)
{
    rig at;
    rig_init_with_relations(&at);
    set_form(&at, form);
    if (decode_bytes(&at, bytes, len)) {
        walk(&at.msg);
    }
    cr_assert(pen_budget_peak(&at.budget) <= bound(len));
    rig_deinit(&at);
}

Test(pgoutput_bad, mutated_messages)
{
    const uint8_t values[] = {0x00, 0x01, 0x7F, 0x80, 0xFF};
    wire sample = {0};
    for (size_t i = 0; i < WIRE_FORMS; i++) {
        wire_form form = wire_form_of(i, &sample);
        for (size_t pos = 0; pos < sample.len; pos++) {
            uint8_t was = sample.data[pos];
            for (unsigned bit = 0; bit < 8; bit++) {
                sample.data[pos] = (uint8_t)(was ^ 1U << bit);
                decode_anything(sample.data, sample.len, form);
            }
            for (size_t value = 0; value < sizeof(values); value++) {
                sample.data[pos] = values[value];
                decode_anything(sample.data, sample.len, form);
            }
            sample.data[pos] = was;
        }
    }
    wire_free(&sample);
}

/* xorshift64 (Marsaglia 2003): the same numbers each time, so that a failure comes again. */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

Test(pgoutput_bad, random_messages)
{
    uint64_t state = 20260101;
    wire sample = {0};
    for (int round = 0; round < 20000; round++) {
        /* Random bytes behind a random prefix of a true message. */
        wire_form form = wire_form_of(next_random(&state) % WIRE_FORMS, &sample);
        sample.len = next_random(&state) % (sample.len + 1);
        for (size_t more = next_random(&state) % 40; more > 0; more--) {
            /* Letters that mean something, more often than not. */
            static const char letters[] = "ntubNKO\0\0\1\3dfi";
            uint64_t draw = next_random(&state);
            wire_u8(&sample, draw % 3 == 0 ? (uint8_t)(draw >> 8)
                                           : (uint8_t)letters[(draw >> 8) % (sizeof(letters) - 1)]);
        }
        decode_anything(sample.data, sample.len, form);
    }
    wire_free(&sample);
}

Test(pgoutput_bad, many_columns_in_few_bytes)
{
    rig at;
    rig_init(&at);
    /* A relation that says it has 65535 columns, and has none. */
    wire_relation(&at.out, 1, "s", "t", 'd', 0xFFFF);
    expect_refused(&at, "65535 columns do not fit");
    /* One that has them, and a row that only says so. */
    wire_relation(&at.out, 1, "s", "t", 'd', 0xFFFF);
    for (unsigned i = 0; i < 0xFFFF; i++) {
        wire_column(&at.out, 0, "", 25, -1);
    }
    cr_assert(decode(&at), "%s", at.err.text);
    for (const char *kind = "IUD"; *kind != '\0'; kind++) {
        wire_row(&at.out, *kind, 1);
        wire_tuple(&at.out, *kind == 'I' ? 'N' : 'K', 0xFFFF);
        wire_null(&at.out);
        expect_refused(&at, "values do not fit");
    }
    cr_assert_eq(pen_budget_peak(&at.budget), 0);
    wire_row(&at.out, 'I', 1);
    wire_tuple(&at.out, 'N', 0xFFFF);
    for (unsigned i = 0; i < 0xFFFF; i++) {
        wire_null(&at.out);
    }
    cr_assert(decode(&at));
    walk(&at.msg);
    cr_assert(pen_budget_peak(&at.budget) <= bound(0xFFFF + 8));
    rig_deinit(&at);
}

Test(pgoutput_bad, large_row)
{
    rig at;
    rig_init_with_relations(&at);
    size_t len = 3 * (size_t)PEN_BLOCK_SIZE + 5;
    char *text = pen_malloc(len + 1);
    memset(text, 'x', len);
    text[len] = '\0';
    wire_item_insert(&at.out, "1", text);
    cr_assert(decode(&at));
    const pen_value *values = at.msg.change->new_tuple.values;
    expect_text(&values[0], "1");
    expect_text(&values[1], text);
    expect_value(&values[2], 'n', NULL, 0);
    cr_assert(pen_arena_room(&at.arena) >= sizeof(pen_segment));
    free(text);
    rig_deinit(&at);
}

Test(pgoutput_bad, room_for_a_segment_behind_each_change)
{
    rig at;
    rig_init_with_relations(&at);
    char text[1024];
    memset(text, 'x', sizeof(text));
    for (size_t len = 0; len < 1000; len++) {
        text[len] = '\0';
        for (int row = 0; row < 70; row++) {
            wire_item_insert(&at.out, "1", text);
            cr_assert(decode(&at));
            cr_assert((uint8_t *)at.msg.change >= at.arena.block->data &&
                      (uint8_t *)at.msg.change < at.arena.block->data + at.arena.block->used);
            cr_assert(pen_arena_room(&at.arena) >= PEN_CHANGE_TAIL);
        }
        text[len] = 'x';
    }
    rig_deinit(&at);
}
