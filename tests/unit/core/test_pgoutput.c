#include "core/pgoutput.h"
#include "tests/unit/core/wire.h"

#include <criterion/criterion.h>
#include <stdio.h>

/* A decoder with all that it needs. */
typedef struct rig {
    pen_budget budget;
    pen_arena arena;
    pen_pgoutput *decoder;
    pen_message msg;
    pen_error err;
    wire out;
} rig;

static void rig_init(rig *at)
{
    memset(at, 0, sizeof(*at));
    pen_budget_init(&at->budget, SIZE_MAX, NULL);
    pen_arena_init(&at->arena, &at->budget);
    at->decoder = pen_pgoutput_create(&at->arena);
}

static void rig_deinit(rig *at)
{
    pen_pgoutput_destroy(at->decoder);
    pen_arena_deinit(&at->arena);
    cr_assert_eq(pen_budget_used(&at->budget), 0);
    wire_free(&at->out);
}

/* Decodes a copy that ends exactly where the message does, so that AddressSanitizer sees a read
 * behind it; the copy is gone afterwards, so that it sees a change that points there. */
static bool decode_bytes(rig *at, const uint8_t *bytes, size_t len)
{
    uint8_t *copy = pen_malloc(len);
    if (len > 0) {
        memcpy(copy, bytes, len);
    }
    at->err.kind = PEN_ERROR_NONE;
    bool ok = pen_pgoutput_decode(at->decoder, (pen_slice){copy, len}, &at->msg, &at->err);
    cr_assert(ok == (at->err.kind == PEN_ERROR_NONE));
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
static bool decode(rig *at)
{
    bool ok = decode_bytes(at, at->out.data, at->out.len);
    at->out.len = 0;
    return ok;
}

/* The same, on the bytes where they are: for messages whose slices are looked at. */
static void decode_kept(rig *at)
{
    cr_assert(pen_pgoutput_decode(at->decoder, wire_slice(&at->out), &at->msg, &at->err), "%s",
              at->err.text);
}

static void expect_refused(rig *at, const char *words)
{
    cr_assert_not(decode(at), "taken, but should be refused: %s", words);
    cr_assert(strstr(at->err.text, words) != NULL, "\"%s\" is not in: %s", words, at->err.text);
}

static void tell_relations(rig *at)
{
    wire_item_relation(&at->out);
    cr_assert(decode(at), "%s", at->err.text);
    wire_empty_relation(&at->out);
    cr_assert(decode(at), "%s", at->err.text);
}

static void rig_init_with_relations(rig *at)
{
    rig_init(at);
    tell_relations(at);
}

static bool slice_is(pen_slice slice, const char *text)
{
    return pen_slice_equal(slice, pen_slice_of(text));
}

static void expect_value(const pen_value *value, char kind, const void *bytes, uint32_t len)
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

static void expect_text(const pen_value *value, const char *text)
{
    expect_value(value, 't', text, (uint32_t)strlen(text));
}

/* Reads every byte that a change says it has, for AddressSanitizer to judge. */
static void walk_tuple(const pen_tuple *tuple, uint16_t count)
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

static void walk(const pen_message *msg)
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

Test(pgoutput, begin)
{
    rig at;
    rig_init(&at);
    wire_begin(&at.out, 0x16B374D848, -5, 0xFFFFFFFE);
    cr_assert(decode(&at));
    cr_assert_eq((int)at.msg.kind, PEN_MESSAGE_BEGIN);
    cr_assert_eq(at.msg.begin.commit_lsn, 0x16B374D848);
    cr_assert_eq(at.msg.begin.commit_time, -5);
    cr_assert_eq(at.msg.begin.xid, 0xFFFFFFFE);
    rig_deinit(&at);
}

Test(pgoutput, commit)
{
    rig at;
    rig_init(&at);
    wire_commit(&at.out, 0x16B374D848, 0x16B374D878, 812345678901234);
    cr_assert(decode(&at));
    cr_assert_eq((int)at.msg.kind, PEN_MESSAGE_COMMIT);
    cr_assert_eq(at.msg.commit.commit_lsn, 0x16B374D848);
    cr_assert_eq(at.msg.commit.end_lsn, 0x16B374D878);
    cr_assert_eq(at.msg.commit.commit_time, 812345678901234);
    wire_commit(&at.out, 1, 2, 3);
    at.out.data[1] = 1;
    expect_refused(&at, "unknown flags 0x01");
    rig_deinit(&at);
}

Test(pgoutput, origin_type_and_message)
{
    rig at;
    rig_init(&at);
    cr_assert(wire_sample(1, &at.out));
    decode_kept(&at);
    cr_assert_eq((int)at.msg.kind, PEN_MESSAGE_ORIGIN);
    cr_assert_eq(at.msg.origin.lsn, 0x0123456789ABCDEF);
    cr_assert(slice_is(at.msg.origin.name, "upstream"));

    cr_assert(wire_sample(2, &at.out));
    decode_kept(&at);
    cr_assert_eq((int)at.msg.kind, PEN_MESSAGE_TYPE);
    cr_assert_eq(at.msg.type.oid, 16400);
    cr_assert(slice_is(at.msg.type.schema, "shop"));
    cr_assert(slice_is(at.msg.type.name, "mood"));

    cr_assert(wire_sample(14, &at.out));
    decode_kept(&at);
    cr_assert_eq((int)at.msg.kind, PEN_MESSAGE_MESSAGE);
    cr_assert(at.msg.message.transactional);
    cr_assert_eq(at.msg.message.lsn, 0x16B374D800);
    cr_assert(slice_is(at.msg.message.prefix, "penstock"));
    cr_assert(slice_is(at.msg.message.content, "mark"));

    cr_assert(wire_sample(15, &at.out));
    decode_kept(&at);
    cr_assert_not(at.msg.message.transactional);
    cr_assert(slice_is(at.msg.message.prefix, ""));
    cr_assert(slice_is(at.msg.message.content, ""));

    at.out.data[1] = 2;
    expect_refused(&at, "unknown flags 0x02");
    rig_deinit(&at);
}

Test(pgoutput, type_of_pg_catalog)
{
    rig at;
    rig_init(&at);
    wire_u8(&at.out, 'Y');
    wire_u32(&at.out, 20);
    wire_string(&at.out, "");
    wire_string(&at.out, "int8");
    decode_kept(&at);
    cr_assert(slice_is(at.msg.type.schema, "pg_catalog"));
    rig_deinit(&at);
}

Test(pgoutput, relation)
{
    rig at;
    rig_init(&at);
    cr_assert(pen_pgoutput_relation(at.decoder, WIRE_ITEM) == NULL);
    wire_item_relation(&at.out);
    cr_assert(decode(&at));
    cr_assert_eq((int)at.msg.kind, PEN_MESSAGE_RELATION);
    const pen_relation *rel = at.msg.relation;
    cr_assert(rel == pen_pgoutput_relation(at.decoder, WIRE_ITEM));
    cr_assert_eq(rel->oid, WIRE_ITEM);
    cr_assert_eq(rel->version, 1);
    cr_assert_eq(rel->replica_identity, 'd');
    cr_assert_eq(rel->column_count, 3);
    cr_assert(slice_is(rel->schema, "shop"));
    cr_assert(slice_is(rel->table, "item"));
    cr_assert_eq(rel->table.data[rel->table.len], 0);
    cr_assert(rel->target == NULL);
    cr_assert(slice_is(rel->columns[0].name, "id"));
    cr_assert(slice_is(rel->columns[1].name, "name"));
    cr_assert(slice_is(rel->columns[2].name, "price"));
    cr_assert_eq(rel->columns[2].name.data[5], 0);
    cr_assert(rel->columns[0].is_key && !rel->columns[1].is_key && !rel->columns[2].is_key);
    cr_assert_eq(rel->columns[0].type_oid, 20);
    cr_assert_eq(rel->columns[2].type_oid, 1700);
    cr_assert_eq(rel->columns[0].type_modifier, -1);
    cr_assert_eq(rel->columns[2].type_modifier, 655366);
    rig_deinit(&at);
}

Test(pgoutput, relation_of_pg_catalog_without_columns)
{
    rig at;
    rig_init(&at);
    wire_empty_relation(&at.out);
    cr_assert(decode(&at));
    cr_assert(slice_is(at.msg.relation->schema, "pg_catalog"));
    cr_assert_eq(at.msg.relation->schema.data[10], 0);
    cr_assert_eq(at.msg.relation->column_count, 0);
    rig_deinit(&at);
}

Test(pgoutput, relation_identities_and_flags)
{
    rig at;
    rig_init(&at);
    for (int identity = 0; identity < 256; identity++) {
        wire_relation(&at.out, (uint32_t)identity, "s", "t", (char)identity, 0);
        bool known = identity == 'd' || identity == 'n' || identity == 'f' || identity == 'i';
        cr_assert_eq(decode(&at), known, "identity 0x%02X", (unsigned)identity);
    }
    for (unsigned flags = 0; flags < 256; flags++) {
        wire_relation(&at.out, 1000 + flags, "s", "t", 'd', 1);
        wire_column(&at.out, flags, "c", 25, -1);
        cr_assert_eq(decode(&at), flags <= 1, "flags 0x%02X", flags);
        /* What was refused is not in force. */
        cr_assert_eq(pen_pgoutput_relation(at.decoder, 1000 + flags) != NULL, flags <= 1);
    }
    rig_deinit(&at);
}

Test(pgoutput, relation_versions)
{
    rig at;
    rig_init(&at);
    wire_item_relation(&at.out);
    cr_assert(decode(&at));
    const pen_relation *first = at.msg.relation;
    wire_item_relation(&at.out);
    cr_assert(decode(&at));
    cr_assert(at.msg.relation == first, "the same message makes no new version");
    wire_item_insert(&at.out, "1", "old");
    cr_assert(decode(&at));
    const pen_change *old = at.msg.change;

    wire_relation(&at.out, WIRE_ITEM, "shop", "item", 'd', 1);
    wire_column(&at.out, 1, "id", 20, -1);
    cr_assert(decode(&at));
    const pen_relation *second = at.msg.relation;
    cr_assert(second != first);
    cr_assert_eq(second->version, 2);
    cr_assert_eq(second->column_count, 1);
    cr_assert(pen_pgoutput_relation(at.decoder, WIRE_ITEM) == second);
    /* The old change still has its own. */
    cr_assert(old->rel == first);
    cr_assert(slice_is(old->rel->columns[2].name, "price"));
    /* Rows are held against the new one. */
    wire_item_insert(&at.out, "1", "x");
    expect_refused(&at, "3 columns, but the Relation message of shop.item told 1");

    wire_item_relation(&at.out);
    cr_assert(decode(&at));
    cr_assert_eq(at.msg.relation->version, 3, "back again is a version of its own");
    wire_empty_relation(&at.out);
    cr_assert(decode(&at));
    cr_assert_eq(at.msg.relation->version, 4, "the numbers are the stream's");

    /* As long as the last, and different only in a column's name. */
    wire_item_relation(&at.out);
    uint8_t *letter = memmem(at.out.data, at.out.len, "price", 5);
    *letter = 'P';
    cr_assert(decode(&at));
    cr_assert_eq(at.msg.relation->version, 5);
    cr_assert(slice_is(at.msg.relation->columns[2].name, "Price"));
    rig_deinit(&at);
}

Test(pgoutput, many_relations)
{
    rig at;
    rig_init(&at);
    enum { COUNT = 5000 };
    /* Neighbours, and OIDs that are far apart. */
    for (uint32_t i = 0; i < COUNT; i++) {
        wire_relation(&at.out, i % 2 ? i : i * 800000U, "s", "t", 'd', 0);
        cr_assert(decode(&at));
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t oid = i % 2 ? i : i * 800000U;
        const pen_relation *rel = pen_pgoutput_relation(at.decoder, oid);
        cr_assert(rel != NULL && rel->oid == oid);
        cr_assert_eq(rel->version, i + 1);
    }
    cr_assert(pen_pgoutput_relation(at.decoder, COUNT + 2) == NULL);
    rig_deinit(&at);
}

Test(pgoutput, insert)
{
    rig at;
    rig_init_with_relations(&at);
    wire_item_insert(&at.out, "17", "");
    cr_assert(decode(&at));
    cr_assert_eq((int)at.msg.kind, PEN_MESSAGE_INSERT);
    const pen_change *chg = at.msg.change;
    cr_assert_eq((char)chg->kind, 'I');
    cr_assert_eq(chg->old_kind, 0);
    cr_assert(chg->next == NULL);
    cr_assert(chg->rel == pen_pgoutput_relation(at.decoder, WIRE_ITEM));
    cr_assert(chg->old_tuple.values == NULL);
    cr_assert(chg->truncated == NULL);
    cr_assert_eq(chg->bound, 0);
    expect_text(&chg->new_tuple.values[0], "17");
    expect_text(&chg->new_tuple.values[1], "");
    expect_value(&chg->new_tuple.values[2], 'n', NULL, 0);

    cr_assert(wire_sample(6, &at.out));
    cr_assert(decode(&at));
    expect_value(&at.msg.change->new_tuple.values[0], 'b', "\0\0\0\0\0\0\0\x11", 8);
    expect_value(&at.msg.change->new_tuple.values[1], 'n', NULL, 0);
    expect_value(&at.msg.change->new_tuple.values[2], 'b', "\0\1\2", 3);
    /* The first change lies untouched beside it. */
    expect_text(&chg->new_tuple.values[0], "17");

    cr_assert(wire_sample(7, &at.out));
    cr_assert(decode(&at));
    cr_assert(at.msg.change->new_tuple.values != NULL, "a row without columns is a row");
    cr_assert(at.msg.change->old_tuple.values == NULL);
    rig_deinit(&at);
}

Test(pgoutput, update)
{
    rig at;
    rig_init_with_relations(&at);
    cr_assert(wire_sample(8, &at.out));
    cr_assert(decode(&at));
    const pen_change *chg = at.msg.change;
    cr_assert_eq((char)chg->kind, 'U');
    cr_assert_eq(chg->old_kind, 0);
    cr_assert(chg->old_tuple.values == NULL);
    expect_text(&chg->new_tuple.values[0], "17");
    expect_value(&chg->new_tuple.values[1], 'u', NULL, 0);
    expect_text(&chg->new_tuple.values[2], "9.99");

    cr_assert(wire_sample(9, &at.out));
    cr_assert(decode(&at));
    chg = at.msg.change;
    cr_assert_eq(chg->old_kind, 'K');
    expect_text(&chg->old_tuple.values[0], "17");
    expect_value(&chg->old_tuple.values[1], 'n', NULL, 0);
    expect_value(&chg->old_tuple.values[2], 'n', NULL, 0);
    expect_text(&chg->new_tuple.values[0], "18");
    expect_text(&chg->new_tuple.values[1], "hammer");
    expect_text(&chg->new_tuple.values[2], "9.99");

    cr_assert(wire_sample(10, &at.out));
    cr_assert(decode(&at));
    chg = at.msg.change;
    cr_assert_eq(chg->old_kind, 'O');
    expect_text(&chg->old_tuple.values[0], "18");
    expect_text(&chg->old_tuple.values[1], "hammer");
    expect_text(&chg->old_tuple.values[2], "9.99");
    expect_text(&chg->new_tuple.values[0], "18");
    expect_value(&chg->new_tuple.values[1], 'u', NULL, 0);
    expect_value(&chg->new_tuple.values[2], 'n', NULL, 0);
    rig_deinit(&at);
}

Test(pgoutput, delete)
{
    rig at;
    rig_init_with_relations(&at);
    cr_assert(wire_sample(11, &at.out));
    cr_assert(decode(&at));
    const pen_change *chg = at.msg.change;
    cr_assert_eq((char)chg->kind, 'D');
    cr_assert_eq(chg->old_kind, 'K');
    cr_assert(chg->new_tuple.values == NULL);
    expect_text(&chg->old_tuple.values[0], "18");
    expect_value(&chg->old_tuple.values[1], 'n', NULL, 0);

    cr_assert(wire_sample(12, &at.out));
    cr_assert(decode(&at));
    chg = at.msg.change;
    cr_assert_eq(chg->old_kind, 'O');
    expect_text(&chg->old_tuple.values[1], "nail");
    expect_text(&chg->old_tuple.values[2], "0.01");
    rig_deinit(&at);
}

Test(pgoutput, tuple_kinds_of_each_message)
{
    rig at;
    rig_init_with_relations(&at);
    const char *allowed[] = {['I'] = "N", ['U'] = "N", ['D'] = "KO"};
    for (const char *kind = "IUD"; *kind != '\0'; kind++) {
        for (int tuple = 0; tuple < 256; tuple++) {
            wire_row(&at.out, *kind, WIRE_EMPTY);
            wire_tuple(&at.out, (char)tuple, 0);
            bool known = tuple != 0 && strchr(allowed[(int)*kind], tuple) != NULL;
            cr_assert_eq(decode(&at), known, "%c with %d", *kind, tuple);
        }
    }
    /* An old tuple in an Update is followed by the new one and nothing else. */
    for (int second = 0; second < 256; second++) {
        wire_row(&at.out, 'U', WIRE_EMPTY);
        wire_tuple(&at.out, 'K', 0);
        wire_tuple(&at.out, (char)second, 0);
        cr_assert_eq(decode(&at), second == 'N', "second tuple %d", second);
    }
    rig_deinit(&at);
}

Test(pgoutput, value_kinds_of_each_tuple)
{
    rig at;
    rig_init_with_relations(&at);
    for (const char *kind = "IUDV"; *kind != '\0'; kind++) {
        for (int value = 0; value < 256; value++) {
            if (value == 't' || value == 'b') {
                continue; /* have a length; tested above */
            }
            /* V: the old tuple of an Update. */
            wire_row(&at.out, *kind == 'V' ? 'U' : *kind, WIRE_ITEM);
            wire_tuple(&at.out, *kind == 'D' || *kind == 'V' ? 'O' : 'N', 3);
            wire_null(&at.out);
            wire_null(&at.out);
            wire_u8(&at.out, (unsigned)value);
            if (*kind == 'V') {
                wire_tuple(&at.out, 'N', 3);
                wire_null(&at.out);
                wire_null(&at.out);
                wire_null(&at.out);
            }
            bool known = value == 'n' || (value == 'u' && *kind != 'I');
            cr_assert_eq(decode(&at), known, "%c with value %d", *kind, value);
        }
    }
    rig_deinit(&at);
}

Test(pgoutput, truncate)
{
    rig at;
    rig_init_with_relations(&at);
    for (unsigned flags = 0; flags < 256; flags++) {
        cr_assert(wire_sample(13, &at.out));
        at.out.data[5] = (uint8_t)flags;
        bool ok = decode(&at);
        cr_assert_eq(ok, flags <= 3, "flags 0x%02X", flags);
        if (!ok) {
            continue;
        }
        const pen_change *chg = at.msg.change;
        cr_assert_eq((char)chg->kind, 'T');
        cr_assert(chg->rel == NULL);
        cr_assert(chg->old_tuple.values == NULL && chg->new_tuple.values == NULL);
        cr_assert_eq(chg->truncate_cascade, flags & 1);
        cr_assert_eq(chg->truncate_restart_identity, (flags & 2) != 0);
        cr_assert_eq(chg->truncated_count, 2);
        cr_assert(chg->truncated[0] == pen_pgoutput_relation(at.decoder, WIRE_ITEM));
        cr_assert(chg->truncated[1] == pen_pgoutput_relation(at.decoder, WIRE_EMPTY));
    }
    rig_deinit(&at);
}

Test(pgoutput, truncate_counts)
{
    rig at;
    rig_init_with_relations(&at);
    const uint32_t counts[] = {0, 1, 3, 0x40000002, 0x80000002, 0xFFFFFFFF};
    for (size_t i = 0; i < PEN_COUNTOF(counts); i++) {
        wire_u8(&at.out, 'T');
        wire_u32(&at.out, counts[i]);
        wire_u8(&at.out, 0);
        wire_u32(&at.out, WIRE_ITEM);
        wire_u32(&at.out, WIRE_EMPTY);
        expect_refused(&at, "8 bytes of OIDs");
    }
    wire_u8(&at.out, 'T');
    wire_u32(&at.out, 0);
    wire_u8(&at.out, 0);
    expect_refused(&at, "0 relations told");
    rig_deinit(&at);
}

Test(pgoutput, unknown_relation)
{
    rig at;
    rig_init(&at);
    for (size_t sample = 5; sample <= 13; sample++) {
        cr_assert(wire_sample(sample, &at.out));
        expect_refused(&at, "no Relation message told");
    }
    cr_assert_eq(pen_arena_room(&at.arena), at.arena.block == NULL ? 0 : at.arena.block->size,
                 "a refused message keeps no memory");
    rig_deinit(&at);
}

Test(pgoutput, column_count_must_be_the_relations)
{
    rig at;
    rig_init_with_relations(&at);
    const unsigned counts[] = {0, 2, 4, 0x7FFF, 0x8000, 0xFFFF};
    for (size_t i = 0; i < PEN_COUNTOF(counts); i++) {
        wire_row(&at.out, 'I', WIRE_ITEM);
        wire_tuple(&at.out, 'N', counts[i]);
        for (unsigned value = 0; value < counts[i]; value++) {
            wire_null(&at.out);
        }
        expect_refused(&at, "columns, but the Relation message of shop.item told 3");

        wire_row(&at.out, 'U', WIRE_ITEM);
        wire_tuple(&at.out, 'K', 3);
        for (unsigned value = 0; value < 3; value++) {
            wire_null(&at.out);
        }
        wire_tuple(&at.out, 'N', counts[i]);
        for (unsigned value = 0; value < counts[i]; value++) {
            wire_null(&at.out);
        }
        expect_refused(&at, "columns, but the Relation message of shop.item told 3");
    }
    rig_deinit(&at);
}

Test(pgoutput, lengths_that_lie)
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

Test(pgoutput, unknown_messages)
{
    rig at;
    rig_init(&at);
    cr_assert_not(decode(&at), "nothing at all");
    for (int kind = 0; kind < 256; kind++) {
        if (kind != 0 && strchr("BCORYIUDTM", kind) != NULL) {
            continue;
        }
        wire_u8(&at.out, (unsigned)kind);
        char words[8];
        snprintf(words, sizeof(words), "0x%02X", (unsigned)kind);
        expect_refused(&at, words);
    }
    rig_deinit(&at);
}

Test(pgoutput, every_prefix_is_refused)
{
    rig at;
    wire sample = {0};
    for (size_t i = 0; wire_sample(i, &sample); i++) {
        rig_init(&at);
        /* Version in force or not: a Relation message takes another way when it is known. */
        if (i > 4) {
            tell_relations(&at);
        }
        for (size_t len = 0; len < sample.len; len++) {
            cr_assert_not(decode_bytes(&at, sample.data, len), "sample %zu, %zu of %zu bytes", i,
                          len, sample.len);
            cr_assert_null(strstr(at.err.text, "has the kind"), "a missing byte was taken for one");
            cr_assert_eq(at.arena.block == NULL ? 0 : at.arena.block->used, 0,
                         "a refused message keeps no memory");
        }
        cr_assert(decode_bytes(&at, sample.data, sample.len), "sample %zu: %s", i, at.err.text);
        walk(&at.msg);
        rig_deinit(&at);
    }
    wire_free(&sample);
}

/* Nothing but the tuples' headers, so that each missing byte is one of those. */
Test(pgoutput, every_prefix_of_an_update_without_columns_is_refused)
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

Test(pgoutput, every_trailing_byte_is_refused)
{
    rig at;
    rig_init_with_relations(&at);
    wire sample = {0};
    for (size_t i = 0; wire_sample(i, &sample); i++) {
        for (int last = 0; last < 256; last++) {
            wire_bytes(&at.out, sample.data, sample.len);
            wire_u8(&at.out, (unsigned)last);
            cr_assert_not(decode(&at), "sample %zu and the byte %d", i, last);
        }
    }
    wire_free(&sample);
    rig_deinit(&at);
}

/* What one message may allocate at most: a block, or what a row of one-byte values needs. */
static size_t bound(size_t len)
{
    return PEN_BLOCK_SIZE + sizeof(pen_change) + PEN_CHANGE_TAIL + 17 * (len + 1);
}

/* Decodes a message that may be anything. */
static void decode_anything(const uint8_t *bytes, size_t len)
{
    rig at;
    rig_init_with_relations(&at);
    if (decode_bytes(&at, bytes, len)) {
        walk(&at.msg);
    }
    cr_assert(pen_budget_peak(&at.budget) <= bound(len));
    rig_deinit(&at);
}

Test(pgoutput, mutated_messages)
{
    const uint8_t values[] = {0x00, 0x01, 0x7F, 0x80, 0xFF};
    wire sample = {0};
    for (size_t i = 0; wire_sample(i, &sample); i++) {
        for (size_t pos = 0; pos < sample.len; pos++) {
            uint8_t was = sample.data[pos];
            for (unsigned bit = 0; bit < 8; bit++) {
                sample.data[pos] = (uint8_t)(was ^ 1U << bit);
                decode_anything(sample.data, sample.len);
            }
            for (size_t value = 0; value < sizeof(values); value++) {
                sample.data[pos] = values[value];
                decode_anything(sample.data, sample.len);
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

Test(pgoutput, random_messages)
{
    uint64_t state = 20260101;
    wire sample = {0};
    for (int round = 0; round < 20000; round++) {
        /* Random bytes behind a random prefix of a true message. */
        cr_assert(wire_sample(next_random(&state) % 17, &sample));
        sample.len = next_random(&state) % (sample.len + 1);
        for (size_t more = next_random(&state) % 40; more > 0; more--) {
            /* Letters that mean something, more often than not. */
            static const char letters[] = "ntubNKO\0\0\1\3dfi";
            uint64_t draw = next_random(&state);
            wire_u8(&sample, draw % 3 == 0 ? (uint8_t)(draw >> 8)
                                           : (uint8_t)letters[(draw >> 8) % (sizeof(letters) - 1)]);
        }
        decode_anything(sample.data, sample.len);
    }
    wire_free(&sample);
}

Test(pgoutput, many_columns_in_few_bytes)
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

Test(pgoutput, large_row)
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

Test(pgoutput, room_for_a_segment_behind_each_change)
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
