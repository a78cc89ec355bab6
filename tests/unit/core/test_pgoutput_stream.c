#include "tests/unit/core/pgoutput_rig.h"

#include <stdio.h>

Test(pgoutput_stream, start_and_stop)
{
    rig at;
    rig_init(&at);
    for (unsigned first = 0; first < 256; first++) {
        wire_stream_start(&at.out, 0xFFFFFFFE, false);
        at.out.data[5] = (uint8_t)first;
        cr_assert_eq(decode(&at), first <= 1, "first block: %u", first);
        if (first <= 1) {
            cr_assert_eq((int)at.msg.kind, PEN_MESSAGE_STREAM_START);
            cr_assert_eq(at.msg.stream_start.xid, 0xFFFFFFFE);
            cr_assert_eq(at.msg.stream_start.first, first);
        }
    }
    wire_stream_stop(&at.out);
    cr_assert(decode(&at));
    cr_assert_eq((int)at.msg.kind, PEN_MESSAGE_STREAM_STOP);
    rig_deinit(&at);
}

Test(pgoutput_stream, commit)
{
    rig at;
    rig_init(&at);
    wire_stream_commit(&at.out, 0xFFFFFFFE, 0x16B374D848, 0x16B374D878, -5);
    cr_assert(decode(&at));
    cr_assert_eq((int)at.msg.kind, PEN_MESSAGE_STREAM_COMMIT);
    cr_assert_eq(at.msg.stream_commit.xid, 0xFFFFFFFE);
    cr_assert_eq(at.msg.stream_commit.commit_lsn, 0x16B374D848);
    cr_assert_eq(at.msg.stream_commit.end_lsn, 0x16B374D878);
    cr_assert_eq(at.msg.stream_commit.commit_time, -5);
    for (unsigned flags = 1; flags < 256; flags++) {
        wire_stream_commit(&at.out, 1, 2, 3, 4);
        at.out.data[5] = (uint8_t)flags;
        char words[32];
        snprintf(words, sizeof(words), "unknown flags 0x%02X", flags);
        expect_refused(&at, words);
    }
    rig_deinit(&at);
}

Test(pgoutput_stream, abort)
{
    rig at;
    rig_init(&at);
    wire_stream_abort(&at.out, 0xFFFFFFFD, 0xFFFFFFFE);
    cr_assert(decode(&at));
    cr_assert_eq((int)at.msg.kind, PEN_MESSAGE_STREAM_ABORT);
    cr_assert_eq(at.msg.stream_abort.xid, 0xFFFFFFFD);
    cr_assert_eq(at.msg.stream_abort.subxid, 0xFFFFFFFE);
    cr_assert_eq(at.msg.stream_abort.abort_lsn, PEN_LSN_NONE);
    cr_assert_eq(at.msg.stream_abort.abort_time, 0);

    /* The two forms cannot be told apart but by what was asked for, and are not guessed. */
    wire_stream_abort(&at.out, 7, 8);
    wire_u64(&at.out, 0x16B374DA00);
    wire_u64(&at.out, (uint64_t)-6);
    expect_refused(&at, "16 bytes are left over");
    at.context.abort_has_lsn = true;
    wire_stream_abort(&at.out, 7, 8);
    expect_refused(&at, "ends early");
    wire_stream_abort(&at.out, 7, 8);
    wire_u64(&at.out, 0x16B374DA00);
    wire_u64(&at.out, (uint64_t)-6);
    cr_assert(decode(&at));
    cr_assert_eq(at.msg.stream_abort.xid, 7);
    cr_assert_eq(at.msg.stream_abort.subxid, 8);
    cr_assert_eq(at.msg.stream_abort.abort_lsn, 0x16B374DA00);
    cr_assert_eq(at.msg.stream_abort.abort_time, -6);
    rig_deinit(&at);
}

Test(pgoutput_stream, each_names_its_transaction)
{
    rig at;
    rig_init(&at);
    wire_stream_start(&at.out, 0, true);
    expect_refused(&at, "malformed Stream Start message");
    wire_stream_commit(&at.out, 0, 1, 2, 3);
    expect_refused(&at, "it names no transaction");
    wire_stream_abort(&at.out, 0, 8);
    expect_refused(&at, "it names no transaction");
    wire_stream_abort(&at.out, 7, 0);
    expect_refused(&at, "it names no transaction");
    rig_deinit(&at);
}

Test(pgoutput_stream, two_phase)
{
    rig at;
    rig_init(&at);
    for (const char *kind = "bPKrp"; *kind != '\0'; kind++) {
        wire_prepared(&at.out, *kind, 0x16B374DB00, 0x16B374DB30, -7, -8, 0xFFFFFFFE, "a gid");
        decode_kept(&at);
        cr_assert_eq((char)at.msg.kind, *kind);
        cr_assert_eq(at.msg.prepared.prepare_lsn, 0x16B374DB00);
        cr_assert_eq(at.msg.prepared.end_lsn, 0x16B374DB30);
        cr_assert_eq(at.msg.prepared.prepare_time, *kind == 'r' ? -7 : 0);
        cr_assert_eq(at.msg.prepared.time, -8);
        cr_assert_eq(at.msg.prepared.xid, 0xFFFFFFFE);
        cr_assert(slice_is(at.msg.prepared.gid, "a gid"));
        if (*kind != 'b') { /* has none */
            at.out.data[1] = 4;
            expect_refused(&at, "unknown flags 0x04");
        }
        at.out.len = 0;
    }
    rig_deinit(&at);
}

Test(pgoutput_stream, names_of_kinds)
{
    const struct {
        char kind;
        const char *name;
    } kinds[] = {
        {'B', "Begin"},
        {'C', "Commit"},
        {'O', "Origin"},
        {'R', "Relation"},
        {'Y', "Type"},
        {'I', "Insert"},
        {'U', "Update"},
        {'D', "Delete"},
        {'T', "Truncate"},
        {'M', "Message"},
        {'S', "Stream Start"},
        {'E', "Stream Stop"},
        {'c', "Stream Commit"},
        {'A', "Stream Abort"},
        {'b', "Begin Prepare"},
        {'P', "Prepare"},
        {'K', "Commit Prepared"},
        {'r', "Rollback Prepared"},
        {'p', "Stream Prepare"},
    };
    const char *names[256] = {NULL};
    for (size_t i = 0; i < PEN_COUNTOF(kinds); i++) {
        names[(uint8_t)kinds[i].kind] = kinds[i].name;
    }
    rig at;
    rig_init(&at);
    for (unsigned kind = 0; kind < 256; kind++) {
        const char *name = names[kind] == NULL ? "unknown" : names[kind];
        cr_assert_str_eq(pen_message_kind_name(kind), name);
        /* Errors say it, too; with two bytes no message is right. */
        char words[64];
        snprintf(words, sizeof(words), "malformed %s message", name);
        wire_u8(&at.out, kind);
        wire_u8(&at.out, 0);
        expect_refused(&at, words);
    }
    rig_deinit(&at);
}

/* The same message inside a streamed block is the same but for its xid. */
Test(pgoutput_stream, rows_and_truncate_inside_a_block)
{
    rig at;
    rig_init_with_relations(&at);
    wire whole = {0};
    for (size_t i = WIRE_SAMPLES + 5; i <= WIRE_SAMPLES + 13; i++) {
        wire_form form = wire_form_of(i, &whole);
        at.context.streamed = false;
        cr_assert(wire_sample(form.sample, &at.out));
        cr_assert(decode(&at));
        cr_assert_eq(at.msg.xid, 0);
        const pen_change *plain = at.msg.change;
        at.context.streamed = true;
        cr_assert(decode_bytes(&at, whole.data, whole.len), "form %zu: %s", i, at.err.text);
        cr_assert_eq(at.msg.xid, 4244);
        walk(&at.msg);
        const pen_change *chg = at.msg.change;
        cr_assert_eq(chg->kind, plain->kind);
        cr_assert_eq(chg->old_kind, plain->old_kind);
        cr_assert_eq(chg->rel, plain->rel);
        cr_assert_eq(chg->truncated_count, plain->truncated_count);
        cr_assert_eq(chg->truncate_cascade, plain->truncate_cascade);
        const pen_tuple *tuples[][2] = {{&chg->old_tuple, &plain->old_tuple},
                                        {&chg->new_tuple, &plain->new_tuple}};
        for (size_t t = 0; t < PEN_COUNTOF(tuples); t++) {
            cr_assert_eq(tuples[t][0]->values == NULL, tuples[t][1]->values == NULL);
            for (size_t v = 0; tuples[t][0]->values != NULL && v < chg->rel->column_count; v++) {
                const pen_value *value = &tuples[t][1]->values[v];
                expect_value(&tuples[t][0]->values[v], (char)value->kind, value->data, value->len);
            }
        }
    }
    wire_free(&whole);
    rig_deinit(&at);
}

Test(pgoutput_stream, other_messages_inside_a_block)
{
    rig at;
    rig_init(&at);
    at.context.streamed = true;
    (void)wire_form_of(WIRE_SAMPLES + 1, &at.out);
    decode_kept(&at);
    cr_assert_eq((int)at.msg.kind, PEN_MESSAGE_ORIGIN);
    cr_assert_eq(at.msg.xid, 0, "Origin stands for the block");
    cr_assert_eq(at.msg.origin.lsn, 0x0123456789ABCDEF);
    (void)wire_form_of(WIRE_SAMPLES + 2, &at.out);
    decode_kept(&at);
    cr_assert_eq((int)at.msg.kind, PEN_MESSAGE_TYPE);
    cr_assert_eq(at.msg.xid, 4244);
    cr_assert_eq(at.msg.type.oid, 16400);
    cr_assert(slice_is(at.msg.type.name, "mood"));
    (void)wire_form_of(WIRE_SAMPLES + 3, &at.out);
    decode_kept(&at);
    cr_assert_eq((int)at.msg.kind, PEN_MESSAGE_RELATION);
    cr_assert_eq(at.msg.xid, 4244);
    cr_assert_eq(at.msg.relation->oid, WIRE_ITEM);
    cr_assert_eq(at.msg.relation->column_count, 3);
    (void)wire_form_of(WIRE_SAMPLES + 14, &at.out);
    decode_kept(&at);
    cr_assert_eq((int)at.msg.kind, PEN_MESSAGE_MESSAGE);
    cr_assert_eq(at.msg.xid, 4244);
    cr_assert(slice_is(at.msg.message.content, "mark"));
    rig_deinit(&at);
}

Test(pgoutput_stream, xid_zero_inside_a_block)
{
    rig at;
    rig_init_with_relations(&at);
    at.context.streamed = true;
    for (size_t i = WIRE_SAMPLES; i < 2 * WIRE_SAMPLES; i++) {
        (void)wire_form_of(i, &at.out);
        if (strchr("RYIUDTM", at.out.data[0]) == NULL) {
            continue;
        }
        memset(at.out.data + 1, 0, 4);
        uint8_t kind = 0;
        uint32_t xid = 1;
        cr_assert_not(pen_pgoutput_peek(wire_slice(&at.out), true, &kind, &xid));
        expect_refused(&at, "names no transaction");
    }
    rig_deinit(&at);
}

Test(pgoutput_stream, peek)
{
    uint8_t kind = 1;
    uint32_t xid = 1;
    cr_assert_not(pen_pgoutput_peek((pen_slice){NULL, 0}, false, &kind, &xid));
    cr_assert_not(pen_pgoutput_peek((pen_slice){NULL, 0}, true, &kind, &xid));
    cr_assert_eq(xid, 0);
    wire out = {0};
    for (unsigned first = 0; first < 256; first++) {
        bool has_xid = first != 0 && strchr("RYIUDTM", (int)first) != NULL;
        out.len = 0;
        wire_u8(&out, first);
        wire_u32(&out, 0x01020384);
        /* A copy, for AddressSanitizer to see a read behind its end. */
        for (size_t len = 1; len <= 5; len++) {
            uint8_t *copy = pen_malloc(len);
            memcpy(copy, out.data, len);
            cr_assert(pen_pgoutput_peek((pen_slice){copy, len}, false, &kind, &xid));
            cr_assert_eq(kind, first);
            cr_assert_eq(xid, 0);
            cr_assert_eq(pen_pgoutput_peek((pen_slice){copy, len}, true, &kind, &xid),
                         !has_xid || len == 5);
            cr_assert_eq(kind, first);
            cr_assert_eq(xid, has_xid && len == 5 ? 0x01020384 : 0);
            free(copy);
        }
    }
    wire_free(&out);
}
