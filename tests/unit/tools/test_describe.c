#include "tools/describe.h"

#include "io/checkpoint.h"
#include "tests/unit/core/wire_samples.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static pen_spool_header header = {
    .kind = PEN_SPOOL_CAPTURE,
    .id = 0xAB,
    .segment = 1,
    .system_identifier = 7123456789012345678,
    .timeline = 2,
    .server_version = 160004,
    .protocol = 4,
    .database = "shop",
    .slot = "penstock",
    .encoding = "UTF8",
};

/* What is described, and where it went. */
static pen_describe_options options;
static pen_describer *describer;
static wire out;
static char *text;
static size_t text_len;
static FILE *memory;
static size_t seen; /* bytes of the text */

static void begin(pen_describe_options with)
{
    options = with;
    seen = 0;
    memory = open_memstream(&text, &text_len);
    cr_assert_not_null(memory);
    describer = pen_describer_create(&options, &header, memory);
}

static void end(void)
{
    pen_describer_destroy(describer);
    describer = NULL;
    wire_free(&out);
    fclose(memory);
    free(text);
}

static void begin_text(void)
{
    begin((pen_describe_options){0});
}

static void begin_json(void)
{
    begin((pen_describe_options){.style = PEN_DESCRIBE_JSON});
}

TestSuite(describe, .init = begin_text, .fini = end);
TestSuite(describe_json, .init = begin_json, .fini = end);

/* What was written since the last call. */
static const char *written(void)
{
    fflush(memory);
    const char *from = text + seen;
    seen = text_len;
    return from;
}

/* The line of what is in `out`, which is emptied. */
static const char *line_of_kind(pen_spool_record_kind kind)
{
    uint8_t *copy = pen_malloc(out.len); /* for AddressSanitizer, as long as it is */
    if (out.len > 0) {
        memcpy(copy, out.data, out.len);
    }
    pen_spool_record record = {kind, 0x1A2B3C8, 812345678901234, {copy, out.len}};
    out.len = 0;
    pen_describe_record(describer, 512, &record);
    free(copy);
    return written();
}

static void expect_line(const char *line, const char *words)
{
    char expected[4096];
    snprintf(expected, sizeof(expected), "      512  0/1A2B3C8   2025-09-28T03:34:38.901234Z  %s\n",
             words);
    cr_assert_str_eq(line, expected);
}

static void expect(const char *words)
{
    expect_line(line_of_kind(PEN_SPOOL_MESSAGE), words);
}

static void tell_item(void)
{
    wire_item_relation(&out);
    (void)line_of_kind(PEN_SPOOL_MESSAGE);
}

/* One insert into shop.item, its name as given. */
static void insert_name(const char *name)
{
    wire_item_insert(&out, "17", name);
}

Test(describe, the_frame_of_a_transaction)
{
    wire_begin(&out, 0x16B374D848, 812345678901234, 4242);
    expect("Begin  transaction 4242, commits at 16/B374D848, 2025-09-28T03:34:38.901234Z");
    wire_commit(&out, 0x16B374D848, 0x16B374D878, 0);
    expect("Commit  at 16/B374D848, ends at 16/B374D878, 2000-01-01T00:00:00.000000Z");
}

Test(describe, a_relation_with_its_columns)
{
    wire_item_relation(&out);
    expect("Relation  shop.item OID 16385, replica identity default (id type 20 key, name type 25, "
           "price type 1700 modifier 655366)");
    wire_empty_relation(&out);
    expect("Relation  pg_catalog.empty OID 16386, replica identity nothing ()");
    wire_item_relation(&out);
    expect_line(line_of_kind(PEN_SPOOL_RELATION),
                "Relation  in force here: shop.item OID 16385, replica identity default (id type "
                "20 key, name type 25, price type 1700 modifier 655366)");
}

Test(describe, rows_by_the_names_of_their_columns)
{
    tell_item();
    insert_name("a hammer");
    expect("Insert  shop.item (id=17, name='a hammer', price=NULL)");
    wire_row(&out, 'I', WIRE_ITEM);
    wire_tuple(&out, 'N', 3);
    wire_binary(&out, "\0\0\0\0\0\0\0\x11", 8);
    wire_null(&out);
    wire_binary(&out, "\xFE\1\2", 3);
    expect("Insert  shop.item (id=\\x0000000000000011, name=NULL, price=\\xfe0102)");
    wire_row(&out, 'U', WIRE_ITEM);
    wire_tuple(&out, 'N', 3);
    wire_text(&out, "17");
    wire_unchanged(&out);
    wire_text(&out, "9.99");
    expect("Update  shop.item (id=17, name=(unchanged TOAST), price=9.99)");
}

Test(describe, old_keys_and_old_rows)
{
    tell_item();
    wire_row(&out, 'U', WIRE_ITEM);
    wire_tuple(&out, 'K', 3);
    wire_text(&out, "17");
    wire_null(&out);
    wire_null(&out);
    wire_tuple(&out, 'N', 3);
    wire_text(&out, "18");
    wire_text(&out, "x");
    wire_null(&out);
    expect("Update  shop.item key (id=17) becomes (id=18, name='x', price=NULL)");
    wire_row(&out, 'U', WIRE_ITEM);
    wire_tuple(&out, 'O', 3);
    wire_text(&out, "18");
    wire_text(&out, "x");
    wire_null(&out);
    wire_tuple(&out, 'N', 3);
    wire_text(&out, "18");
    wire_text(&out, "y");
    wire_null(&out);
    expect("Update  shop.item old row (id=18, name='x', price=NULL) becomes (id=18, name='y', "
           "price=NULL)");
    wire_row(&out, 'D', WIRE_ITEM);
    wire_tuple(&out, 'K', 3);
    wire_text(&out, "18");
    wire_null(&out);
    wire_null(&out);
    expect("Delete  shop.item key (id=18)");
    wire_row(&out, 'D', WIRE_ITEM);
    wire_tuple(&out, 'O', 3);
    wire_text(&out, "18");
    wire_text(&out, "y");
    wire_null(&out);
    expect("Delete  shop.item old row (id=18, name='y', price=NULL)");
}

Test(describe, the_other_messages)
{
    tell_item();
    wire_empty_relation(&out);
    (void)line_of_kind(PEN_SPOOL_MESSAGE);
    (void)wire_sample(13, &out);
    expect("Truncate  shop.item, pg_catalog.empty, cascade, restart identity");
    (void)wire_sample(14, &out);
    expect("Message  transactional, at 16/B374D800, prefix 'penstock', 4 bytes: 'mark'");
    (void)wire_sample(15, &out);
    expect("Message  not transactional, at 16/B374D900, prefix '', 0 bytes: ''");
    (void)wire_sample(1, &out);
    expect("Origin  'upstream', at 1234567/89ABCDEF there");
    (void)wire_sample(2, &out);
    expect("Type  shop.mood OID 16400");
}

Test(describe, streamed_blocks)
{
    wire_stream_start(&out, 4243, true);
    expect("Stream Start  transaction 4243, its first block");
    wire_item_relation(&out);
    wire_add_xid(&out, 4243);
    (void)line_of_kind(PEN_SPOOL_MESSAGE);
    insert_name("x");
    wire_add_xid(&out, 4244);
    expect("Insert  of 4244: shop.item (id=17, name='x', price=NULL)");
    wire_stream_stop(&out);
    expect("Stream Stop");
    insert_name("x"); /* in no block, so without an xid */
    expect("Insert  shop.item (id=17, name='x', price=NULL)");
    wire_stream_start(&out, 4243, false);
    expect("Stream Start  transaction 4243");
    insert_name("x");
    wire_add_xid(&out, 4243);
    expect("Insert  of 4243: shop.item (id=17, name='x', price=NULL)");
    wire_stream_stop(&out);
    expect("Stream Stop");
    wire_stream_abort(&out, 4243, 4244);
    expect("Stream Abort  subtransaction 4244 of transaction 4243");
    wire_stream_abort(&out, 4243, 4243);
    wire_u64(&out, 0x100);
    wire_u64(&out, 0);
    expect("Stream Abort  transaction 4243, at 0/100, 2000-01-01T00:00:00.000000Z");
    wire_stream_commit(&out, 4243, 0x100, 0x110, 0);
    expect("Stream Commit  transaction 4243, at 0/100, ends at 0/110, 2000-01-01T00:00:00.000000Z");
}

Test(describe, a_new_session_ends_a_block)
{
    tell_item();
    wire_stream_start(&out, 4243, true);
    (void)line_of_kind(PEN_SPOOL_MESSAGE);
    expect_line(line_of_kind(PEN_SPOOL_SESSION), "Session  a new connection begins");
    insert_name("x");
    expect("Insert  shop.item (id=17, name='x', price=NULL)");
    expect_line(line_of_kind(PEN_SPOOL_KEEPALIVE), "Keepalive");
}

Test(describe, a_segment_that_begins_inside_of_a_block)
{
    end();
    begin((pen_describe_options){.in_block = true});
    wire_item_relation(&out); /* told again at the segment's start: never in the streamed form */
    (void)line_of_kind(PEN_SPOOL_RELATION);
    insert_name("x");
    wire_add_xid(&out, 4244);
    expect("Insert  of 4244: shop.item (id=17, name='x', price=NULL)");
}

Test(describe, two_phase_messages)
{
    wire_prepared(&out, 'b', 0x100, 0x110, 0, 0, 4246, "a 'gid'");
    expect("Begin Prepare  transaction 4246 'a \\'gid\\'', at 0/100, ends at 0/110, "
           "2000-01-01T00:00:00.000000Z");
    wire_prepared(&out, 'P', 0x100, 0x110, 0, 0, 4246, "g");
    expect("Prepare  transaction 4246 'g', at 0/100, ends at 0/110, 2000-01-01T00:00:00.000000Z");
    wire_prepared(&out, 'p', 0x100, 0x110, 0, 0, 4246, "g");
    expect("Stream Prepare  transaction 4246 'g', at 0/100, ends at 0/110, "
           "2000-01-01T00:00:00.000000Z");
    wire_prepared(&out, 'K', 0x100, 0x110, 0, 0, 4246, "g");
    expect("Commit Prepared  transaction 4246 'g', at 0/100, ends at 0/110, "
           "2000-01-01T00:00:00.000000Z");
    wire_prepared(&out, 'r', 0x100, 0x110, 1000000, 2000000, 4246, "g");
    expect("Rollback Prepared  transaction 4246 'g', prepared up to 0/100, ends at 0/110, "
           "2000-01-01T00:00:02.000000Z, prepared 2000-01-01T00:00:01.000000Z");
}

Test(describe, what_cannot_be_decoded_is_told_and_does_not_end_it)
{
    insert_name("x");
    const char *line = line_of_kind(PEN_SPOOL_MESSAGE);
    cr_assert(strstr(line, "Insert  cannot be decoded: ") != NULL, "%s", line);
    cr_assert(strstr(line, "OID 16385") != NULL, "%s", line);
    wire_u8(&out, 0x07);
    line = line_of_kind(PEN_SPOOL_MESSAGE);
    cr_assert(strstr(line, "cannot be decoded: ") != NULL, "%s", line);
    line = line_of_kind(PEN_SPOOL_MESSAGE); /* no byte at all */
    cr_assert(strstr(line, "Message without content  cannot be decoded: ") != NULL, "%s", line);
    tell_item();
    insert_name("x");
    expect("Insert  shop.item (id=17, name='x', price=NULL)");
    pen_describe_summary(describer, &(pen_describe_end){.offset = 600});
    cr_assert(strstr(written(), "3 that cannot be decoded") != NULL);
}

Test(describe, nothing_that_a_terminal_acts_on)
{
    tell_item();
    insert_name("a'b\\c\n\t\x1b[31m\x7f\xc2\x9b\xff \xe2\x80\xa8 \xc3\xa4");
    expect("Insert  shop.item (id=17, name='a\\'b\\\\c\\n\\t\\u001b[31m\\u007f\\u009b\\xff \\u2028 "
           "\xc3\xa4', price=NULL)");
    /* A number's column holds what it likes. */
    wire_row(&out, 'I', WIRE_ITEM);
    wire_tuple(&out, 'N', 3);
    wire_text(&out, "\x1b]0;x\x07");
    wire_null(&out);
    wire_text(&out, "NaN");
    expect("Insert  shop.item (id='\\u001b]0;x\\u0007', name=NULL, price='NaN')");
    wire_relation(&out, 1, "A \"b\"\x1b", "1c", 'f', 1);
    wire_column(&out, 0, "x y\x1b", 25, -1);
    expect(
        "Relation  \"A \\\"b\\\"\\u001b\".\"1c\" OID 1, replica identity full (\"x y\\u001b\" type "
        "25)");
}

Test(describe, long_values_are_cut_and_say_so)
{
    char name[1001] = {0};
    memset(name, 'n', 1000);
    tell_item();
    insert_name(name);
    name[60] = '\0';
    char expected[2048];
    snprintf(expected, sizeof(expected),
             "Insert  shop.item (id=17, name='%s'\xe2\x80\xa6 (1000 bytes), price=NULL)", name);
    expect(expected);
    insert_name(name);
    snprintf(expected, sizeof(expected), "Insert  shop.item (id=17, name='%s', price=NULL)", name);
    expect(expected);
    wire_row(&out, 'I', WIRE_ITEM);
    wire_tuple(&out, 'N', 3);
    wire_null(&out);
    wire_binary(&out, name, 33);
    wire_binary(&out, name, 32);
    const char *line = line_of_kind(PEN_SPOOL_MESSAGE);
    cr_assert(strstr(line, "6e6e\xe2\x80\xa6 (33 bytes), price=\\x6e6e") != NULL, "%s", line);
    cr_assert(strstr(line, "6e6e)\n") != NULL, "%s", line);
}

Test(describe, the_header)
{
    pen_describe_header(describer, "a \"file\"\x1b");
    cr_assert_str_eq(
        written(),
        "file        \"a \\\"file\\\"\\u001b\", captured stream, id 00000000000000ab\n"
        "source      database \"shop\", slot \"penstock\", system 7123456789012345678, timeline 2, "
        "PostgreSQL 16.4\n"
        "stream      protocol 4, values as text, encoding \"UTF8\"\n\n");
}

/* A stream of everything; the summary counts it. */
static void feed_all(void)
{
    for (size_t i = 0; i < WIRE_FORMS; i++) {
        wire_form form = wire_form_of(i, &out);
        if (!form.streamed) {
            (void)line_of_kind(PEN_SPOOL_MESSAGE);
        }
    }
    out.len = 0;
    (void)line_of_kind(PEN_SPOOL_KEEPALIVE);
    (void)line_of_kind(PEN_SPOOL_SESSION);
    wire_item_relation(&out);
    (void)line_of_kind(PEN_SPOOL_RELATION);
}

Test(describe, the_summary_of_everything)
{
    feed_all();
    pen_describe_summary(describer, &(pen_describe_end){.torn = true, .offset = 4000, .left = 7});
    const char *summary = written();
    cr_assert(strstr(summary, "records     32: 29 messages, 1 relations in force, 1 keepalives, 1 "
                              "sessions\n") != NULL,
              "%s", summary);
    cr_assert(strstr(summary, "2 Stream Start") != NULL, "%s", summary);
    cr_assert(strstr(summary, "3 Insert") != NULL, "%s", summary);
    cr_assert(strstr(summary, "cannot be decoded") == NULL, "%s", summary);
    cr_assert(strstr(summary, "committed   3 transactions, 2 prepared, 2 rolled back\n") != NULL,
              "%s", summary);
    cr_assert(strstr(summary, "changes     9\n") != NULL, "%s", summary);
    cr_assert(strstr(summary, "LSNs        0/1A2B3C8 to 0/1A2B3C8\n") != NULL, "%s", summary);
    cr_assert(strstr(summary, "end         torn at 4000: the 7 bytes") != NULL, "%s", summary);
}

Test(describe, the_summary_of_nothing)
{
    pen_describe_summary(describer, &(pen_describe_end){.offset = 512});
    cr_assert_str_eq(written(),
                     "\nrecords     0: 0 messages, 0 relations in force, 0 keepalives, 0 sessions\n"
                     "messages    none\ncommitted   0 transactions\nchanges     0\n"
                     "bytes       512, of messages 0\nend         whole, at 512\n");
}

Test(describe, the_range_of_lsns_is_from_the_lowest_to_the_highest)
{
    static const pen_lsn lsns[] = {0, 0x300, 0x100, 0x200, 0};
    for (size_t i = 0; i < PEN_COUNTOF(lsns); i++) {
        pen_describe_record(describer, 512,
                            &(pen_spool_record){PEN_SPOOL_KEEPALIVE, lsns[i], 0, {NULL, 0}});
    }
    pen_describe_summary(describer, &(pen_describe_end){.offset = 512});
    const char *summary = written();
    cr_assert(strstr(summary, "LSNs        0/100 to 0/300\n") != NULL, "%s", summary);
    cr_assert(strstr(summary, "times") == NULL, "%s", summary);
}

Test(describe, only_the_summary)
{
    end();
    begin((pen_describe_options){.summary_only = true});
    feed_all();
    cr_assert_str_eq(written(), "");
    pen_describe_summary(describer, &(pen_describe_end){.offset = 512});
    cr_assert(strstr(written(), "changes     9\n") != NULL);
}

static void expect_json(const char *rest)
{
    char expected[1024];
    size_t len = out.len;
    snprintf(
        expected, sizeof(expected),
        "{\"record\":\"message\",\"offset\":512,\"lsn\":\"0/1A2B3C8\",\"sent\":\"2025-09-28T03:"
        "34:38.901234Z\",\"bytes\":%zu,%s}\n",
        len, rest);
    cr_assert_str_eq(line_of_kind(PEN_SPOOL_MESSAGE), expected);
}

Test(describe_json, rows)
{
    wire_item_relation(&out);
    expect_json(
        "\"message\":\"Relation\",\"schema\":\"shop\",\"table\":\"item\",\"oid\":16385,"
        "\"replica_identity\":\"default\",\"columns\":[{\"name\":\"id\",\"type\":20,"
        "\"modifier\":-1,\"key\":true},{\"name\":\"name\",\"type\":25,\"modifier\":-1,"
        "\"key\":false},{\"name\":\"price\",\"type\":1700,\"modifier\":655366,\"key\":false}"
        "]");
    insert_name("a\"b\\\n\x1b\xff");
    expect_json("\"message\":\"Insert\",\"schema\":\"shop\",\"table\":\"item\",\"new\":{\"id\":\"17"
                "\",\"name\":\"a\\\"b\\\\\\n\\u001b\\ufffd\",\"price\":null}");
    wire_row(&out, 'U', WIRE_ITEM);
    wire_tuple(&out, 'K', 3);
    wire_text(&out, "17");
    wire_null(&out);
    wire_null(&out);
    wire_tuple(&out, 'N', 3);
    wire_binary(&out, "\x12\0", 2);
    wire_unchanged(&out);
    wire_null(&out);
    expect_json("\"message\":\"Update\",\"schema\":\"shop\",\"table\":\"item\",\"key\":{\"id\":"
                "\"17\"},\"new\":{\"id\":{\"binary\":\"1200\"},\"name\":{\"unchanged\":true},"
                "\"price\":null}");
}

Test(describe_json, values_are_whole)
{
    char name[5001] = {0};
    memset(name, 'n', 5000);
    tell_item();
    insert_name(name);
    cr_assert(strstr(line_of_kind(PEN_SPOOL_MESSAGE), name) != NULL);
}

Test(describe_json, a_problem)
{
    wire_row(&out, 'D', WIRE_ITEM);
    const char *line = line_of_kind(PEN_SPOOL_MESSAGE);
    cr_assert(strstr(line, "\"message\":\"Delete\",\"problem\":\"malformed Delete message") != NULL,
              "%s", line);
}

Test(describe_json, the_summary)
{
    feed_all();
    pen_describe_summary(describer, &(pen_describe_end){.offset = 4000});
    const char *summary = written();
    cr_assert(strstr(summary, "{\"record\":\"summary\",\"records\":32,\"messages\":29,") != NULL,
              "%s", summary);
    cr_assert(strstr(summary, "\"committed\":3,\"prepared\":2,\"rolled_back\":2,\"changes\":9,") !=
                  NULL,
              "%s", summary);
    cr_assert(strstr(summary, "\"torn\":false}\n") != NULL, "%s", summary);
}

/* ---- checkpoints ---- */

static uint8_t slots[2 * PEN_CHECKPOINT_SLOT_SIZE];

static void put_slot(size_t at, uint64_t generation)
{
    pen_checkpoint cp = {
        .generation = generation,
        .system_identifier = 7123456789012345678,
        .timeline = 1,
        .database = "shop",
        .slot = "penstock",
        .committed_lsn = 0x200,
        .durable_lsn = 0x100,
    };
    pen_checkpoint_encode(&cp, slots + at * PEN_CHECKPOINT_SLOT_SIZE);
}

static bool describe_slots(size_t size)
{
    return pen_describe_checkpoint(options.style, "cp", (pen_slice){slots, size}, size, memory);
}

#define DETAILS                                                                                    \
    "committed 0/200, durable 0/100\n            of database \"shop\", slot \"penstock\", system " \
    "7123456789012345678, timeline 1\n"

Test(describe, a_checkpoint_of_two_slots)
{
    put_slot(0, 12);
    put_slot(1, 11);
    cr_assert(describe_slots(sizeof(slots)));
    cr_assert_str_eq(written(), "file        \"cp\", checkpoint\n"
                                "slot A      valid, the newest\n"
                                "            generation 12, " DETAILS "slot B      valid, older\n"
                                "            generation 11, " DETAILS);
    put_slot(1, 13);
    cr_assert(describe_slots(sizeof(slots)));
    const char *words = written();
    cr_assert(strstr(words, "slot A      valid, older\n") != NULL, "%s", words);
    cr_assert(strstr(words, "slot B      valid, the newest\n") != NULL, "%s", words);
}

Test(describe, a_checkpoint_with_a_slot_that_does_not_hold)
{
    put_slot(0, 12);
    cr_assert(describe_slots(sizeof(slots)), "an empty slot is no damage");
    cr_assert(strstr(written(), "slot B      empty") != NULL);
    put_slot(1, 13);
    slots[PEN_CHECKPOINT_SLOT_SIZE + 50] ^= 1;
    cr_assert_not(describe_slots(sizeof(slots)));
    const char *words = written();
    cr_assert(strstr(words, "slot A      valid, the newest\n") != NULL, "%s", words);
    cr_assert(strstr(words, "slot B      not valid: torn or damaged") != NULL, "%s", words);
    cr_assert_not(describe_slots(5000));
    words = written();
    cr_assert(strstr(words, "checkpoint, of 5000 bytes where it should have 8192\n") != NULL, "%s",
              words);
    cr_assert(strstr(words, "slot B      not valid: the file ends") != NULL, "%s", words);
}

Test(describe_json, a_checkpoint)
{
    put_slot(0, 12);
    cr_assert(describe_slots(sizeof(slots)));
    cr_assert_str_eq(
        written(),
        "{\"record\":\"header\",\"path\":\"cp\",\"file\":\"checkpoint\",\"bytes\":8192}\n"
        "{\"record\":\"slot\",\"letter\":\"A\",\"state\":\"newest\",\"generation\":12,"
        "\"committed_lsn\":\"0/200\",\"durable_lsn\":\"0/100\",\"database\":\"shop\",\"slot\":"
        "\"penstock\",\"system_identifier\":\"7123456789012345678\",\"timeline\":1}\n"
        "{\"record\":\"slot\",\"letter\":\"B\",\"state\":\"empty\"}\n");
}
