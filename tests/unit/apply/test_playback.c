/* Captures made here, message by message, and what comes back of them. */
#include "apply/playback.h"
#include "io/capture.h"
#include "tests/unit/core/wire.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <unistd.h>

static char path[300];
static pen_capture *capture;
static wire out;
static pen_error err;
static pen_playback_limits limits;
static pen_playback *playback;
static pen_played played;

static void setup(void)
{
    static const pen_spool_header header = {
        .server_version = 170000, .protocol = 1, .database = "d", .slot = "s", .encoding = "UTF8"};
    const char *tmp = getenv("TMPDIR");
    snprintf(path, sizeof(path), "%s/penstock-test-playback-%ld", tmp == NULL ? "/tmp" : tmp,
             (long)getpid());
    limits = (pen_playback_limits){.rows = 100, .bytes = 1 << 20};
    cr_assert(pen_capture_create(path, &header, &capture, &err), "%s", err.text);
}

static void teardown(void)
{
    pen_playback_close(playback);
    wire_free(&out);
    unlink(path);
}

TestSuite(playback, .init = setup, .fini = teardown, .timeout = 60);

static void record(pen_spool_record_kind kind)
{
    const pen_spool_record it = {.kind = kind, .payload = wire_slice(&out)};
    cr_assert(pen_capture_add(capture, &it, &err), "%s", err.text);
    out.len = 0;
}

static void relation(uint32_t oid, const char *table, char identity, unsigned key_flags)
{
    wire_relation(&out, oid, "public", table, identity, 2);
    wire_column(&out, key_flags, "id", 23, -1);
    wire_column(&out, 0, "note", 25, -1);
    record(PEN_SPOOL_MESSAGE);
}

static void insert(uint32_t oid, const char *id)
{
    wire_row(&out, 'I', oid);
    wire_tuple(&out, 'N', 2);
    wire_text(&out, id);
    wire_text(&out, "x");
    record(PEN_SPOOL_MESSAGE);
}

static void begin(uint64_t lsn)
{
    wire_begin(&out, lsn, 0, 700);
    record(PEN_SPOOL_MESSAGE);
}

static void commit(uint64_t lsn)
{
    wire_commit(&out, lsn, lsn + 8, 0);
    record(PEN_SPOOL_MESSAGE);
}

static void transaction(uint64_t lsn, const char *id)
{
    begin(lsn);
    insert(1, id);
    commit(lsn);
}

static void open_it(void)
{
    cr_assert(pen_capture_close(capture, &err), "%s", err.text);
    cr_assert(pen_playback_open(path, &limits, NULL, false, &playback, &err), "%s", err.text);
}

static pen_playback_result next(void)
{
    pen_playback_result result = pen_playback_next(playback, &played, &err);
    return result;
}

Test(playback, gives_transactions_with_keys)
{
    relation(1, "t", 'd', 1);
    relation(2, "log", 'd', 0);
    begin(0x100);
    insert(1, "1");
    insert(1, "2");
    insert(2, "1");
    commit(0x100);
    transaction(0x200, "1");
    begin(0x300); /* without a change, as of a table that is not published */
    commit(0x300);
    transaction(0x400, "1");
    open_it();
    cr_assert_eq(next(), PEN_PLAYBACK_TXN, "%s", err.text);
    cr_expect_eq(played.txn->change_count, 3);
    cr_expect_null(played.large_rows);
    cr_assert_eq(pen_playback_table_count(playback), 2);
    cr_expect_str_eq(pen_playback_table(playback, 1)->name, "\"public\".\"log\"");
    cr_expect_eq(played.changes[0].table, 0);
    cr_expect_eq(played.changes[2].table, 1);
    cr_expect_neq(played.changes[0].row_hash, played.changes[1].row_hash);
    cr_expect_eq(played.changes[2].row_hash, 0, "a table without a key has no rows by name");
    cr_expect(played.keys.changes[0].after_all, "the first of a table waits for all before");
    cr_expect_not(played.keys.changes[1].after_all);
    cr_expect_eq(played.keys.changes[1].key_count, 2, "its row's and its table's");
    uint64_t row = played.changes[0].row_hash;
    cr_assert_eq(next(), PEN_PLAYBACK_TXN, "%s", err.text);
    cr_expect_eq(played.txn->commit_lsn, 0x200);
    cr_expect_eq(played.changes[0].row_hash, row);
    cr_assert_eq(next(), PEN_PLAYBACK_TXN, "%s", err.text);
    cr_expect_eq(played.txn->commit_lsn, 0x400);
    cr_expect_eq(next(), PEN_PLAYBACK_END);
}

/* What came before a connection was lost comes again, in part or whole. */
Test(playback, gives_a_transaction_once)
{
    relation(1, "t", 'd', 1);
    transaction(0x100, "1");
    begin(0x200);
    insert(1, "2");
    record(PEN_SPOOL_SESSION);
    relation(1, "t", 'd', 1);
    transaction(0x100, "1");
    transaction(0x200, "2");
    begin(0x300); /* the file ends in it */
    insert(1, "3");
    open_it();
    cr_assert_eq(next(), PEN_PLAYBACK_TXN, "%s", err.text);
    cr_expect_eq(played.txn->commit_lsn, 0x100);
    cr_assert_eq(next(), PEN_PLAYBACK_TXN, "%s", err.text);
    cr_expect_eq(played.txn->commit_lsn, 0x200);
    cr_expect_eq(played.txn->change_count, 1);
    cr_expect_eq(next(), PEN_PLAYBACK_END);
}

Test(playback, counts_the_rows_of_a_large_transaction)
{
    relation(1, "t", 'd', 1);
    relation(2, "log", 'd', 0);
    for (uint64_t lsn = 0x100; lsn <= 0x200; lsn += 0x100) { /* twice: counted anew */
        begin(lsn);
        for (int i = 0; i < 3000; i++) {
            insert(i % 3 == 0 ? 2 : 1, "123456");
        }
        commit(lsn);
    }
    transaction(0x300, "1");
    open_it();
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(next(), PEN_PLAYBACK_TXN, "%s", err.text);
        cr_expect_not_null(played.txn->feed);
        cr_expect_eq(played.txn->change_count, 3000);
        cr_assert_not_null(played.large_rows);
        /* The first change is of the log, so that is table 0. */
        cr_expect_eq(played.large_rows[0], 1000);
        cr_expect_eq(played.large_rows[1], 2000);
    }
    cr_assert_eq(next(), PEN_PLAYBACK_TXN, "%s", err.text);
    cr_expect_null(played.txn->feed);
    cr_expect_eq(next(), PEN_PLAYBACK_END);
}

/* All columns are its identity: which finds the rows of the target cannot be known. */
Test(playback, takes_a_full_identity_for_none)
{
    relation(1, "t", 'f', 1);
    transaction(0x100, "1");
    open_it();
    cr_assert_eq(next(), PEN_PLAYBACK_TXN, "%s", err.text);
    cr_expect_eq(pen_playback_table(playback, 0)->scope, PEN_SCOPE_APPEND);
    cr_expect_eq(played.changes[0].row_hash, 0);
}

Test(playback, says_where_a_file_is_torn)
{
    relation(1, "t", 'd', 1);
    transaction(0x100, "1");
    transaction(0x200, "2");
    off_t size = (off_t)pen_capture_size(capture);
    cr_assert(pen_capture_close(capture, &err), "%s", err.text);
    cr_assert_eq(truncate(path, size - 3), 0);
    cr_assert(pen_playback_open(path, &limits, NULL, false, &playback, &err), "%s", err.text);
    cr_expect_eq(next(), PEN_PLAYBACK_TXN, "%s", err.text);
    cr_expect_eq(next(), PEN_PLAYBACK_TORN);
    cr_expect_not_null(strstr(err.text, "is torn at byte "), "%s", err.text);
}

Test(playback, refuses_transactions_in_progress)
{
    wire_stream_start(&out, 700, true);
    record(PEN_SPOOL_MESSAGE);
    open_it();
    cr_expect_eq(next(), PEN_PLAYBACK_FAILED);
    cr_expect_not_null(strstr(err.text, "--streaming off"), "%s", err.text);
}

Test(playback, names_the_message_that_cannot_be)
{
    begin(0x100);
    begin(0x200);
    open_it();
    cr_expect_eq(next(), PEN_PLAYBACK_FAILED);
    cr_expect_not_null(strstr(err.text, " at byte "), "%s", err.text);
}
