#include "tests/unit/core/pgoutput_rig.h"

#include <stdio.h>

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
