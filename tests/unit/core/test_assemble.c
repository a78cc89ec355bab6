#include "core/assemble.h"
#include "tests/unit/core/wire_samples.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>

typedef struct rig {
    pen_budget budget;
    pen_arena arena;
    pen_pgoutput *decoder;
    pen_assembler assembler;
    pen_error err;
    wire out;
} rig;

static void rig_init(rig *at)
{
    memset(at, 0, sizeof(*at));
    pen_budget_init(&at->budget, SIZE_MAX, NULL);
    pen_arena_init(&at->arena, &at->budget);
    at->decoder = pen_pgoutput_create(&at->arena);
    pen_assembler_init(&at->assembler, &at->arena);
}

static void rig_deinit(rig *at)
{
    pen_assembler_discard(&at->assembler);
    pen_pgoutput_destroy(at->decoder);
    pen_arena_deinit(&at->arena);
    cr_assert_eq(pen_budget_used(&at->budget), 0);
    wire_free(&at->out);
}

/* Decodes and adds what was written into `out`, and empties that. */
static bool add(rig *at, pen_txn **txn)
{
    pen_message msg;
    const pen_message_context context = {0};
    cr_assert(pen_pgoutput_decode(at->decoder, wire_slice(&at->out), &context, &msg, &at->err),
              "%s", at->err.text);
    bool ok = pen_assembler_add(&at->assembler, &msg, at->out.len, txn, &at->err);
    cr_assert(ok || *txn == NULL);
    at->out.len = 0;
    return ok;
}

static void add_silent(rig *at)
{
    pen_txn *txn = NULL;
    cr_assert(add(at, &txn), "%s", at->err.text);
    cr_assert_null(txn, "only a Commit gives a transaction");
}

static void expect_refused(rig *at, const char *words, pen_lsn lsn)
{
    pen_txn *txn = NULL;
    cr_assert_not(add(at, &txn));
    cr_assert_eq(at->err.kind, PEN_ERROR_FATAL);
    cr_assert_eq(at->err.lsn, lsn);
    cr_assert(strstr(at->err.text, words) != NULL, "\"%s\" is not in: %s", words, at->err.text);
}

static void begin(rig *at, pen_lsn commit_lsn)
{
    wire_begin(&at->out, commit_lsn, (int64_t)commit_lsn * 10, (uint32_t)commit_lsn + 7);
    add_silent(at);
}

static pen_txn *commit(rig *at, pen_lsn commit_lsn)
{
    pen_txn *txn = NULL;
    wire_commit(&at->out, commit_lsn, commit_lsn + 48, (int64_t)commit_lsn * 10);
    cr_assert(add(at, &txn), "%s", at->err.text);
    cr_assert_not_null(txn);
    return txn;
}

static void tell_relations(rig *at)
{
    wire_item_relation(&at->out);
    add_silent(at);
    wire_empty_relation(&at->out);
    add_silent(at);
}

/* A row whose id is `number` and whose name has `len` bytes. */
static void insert(rig *at, unsigned number, size_t len)
{
    char id[16];
    snprintf(id, sizeof(id), "%u", number);
    char *name = pen_malloc(len + 1);
    memset(name, 'a' + (int)(number % 26), len);
    name[len] = '\0';
    wire_item_insert(&at->out, id, name);
    free(name);
    add_silent(at);
}

/* Holds a transaction of rows first, first+1, … against what insert() made, and its layout against
 * what pen_txn_release relies on. Returns the number of segments. */
static unsigned check_rows(const pen_txn *txn, unsigned first, unsigned count, size_t len)
{
    unsigned number = first;
    unsigned segments = 0;
    uint64_t changes = 0;
    for (const pen_segment *seg = txn->first; seg != NULL; seg = seg->next) {
        const uint8_t *from = seg->block->data;
        const uint8_t *to = from + seg->block->used;
        const uint8_t *header = (const uint8_t *)seg;
        cr_assert(header >= from && header < to, "a segment's header lies in its own block");
        cr_assert((seg->next == NULL) == (seg == txn->last));
        uint32_t in_segment = 0;
        for (const pen_change *chg = seg->first; chg != NULL; chg = chg->next) {
            const uint8_t *place = (const uint8_t *)chg;
            cr_assert(place >= from && place < to, "a change lies in its segment's block");
            cr_assert((chg->next == NULL) == (chg == seg->last));
            char id[16];
            snprintf(id, sizeof(id), "%u", number);
            const pen_value *values = chg->new_tuple.values;
            cr_assert_str_eq((const char *)values[0].data, id);
            cr_assert_eq(values[1].len, len);
            for (size_t i = 0; i < len; i += 97) {
                cr_assert_eq(values[1].data[i], 'a' + (int)(number % 26));
            }
            number++;
            in_segment++;
        }
        cr_assert_eq(seg->change_count, in_segment);
        changes += in_segment;
        segments++;
    }
    const uint8_t *place = (const uint8_t *)txn;
    const pen_block *block = txn->first->block;
    cr_assert(place >= block->data && place < block->data + block->used);
    cr_assert_eq(number, first + count);
    cr_assert_eq(txn->change_count, changes);
    return segments;
}

Test(assemble, one_transaction)
{
    rig at;
    rig_init(&at);
    tell_relations(&at);
    begin(&at, 1000);
    insert(&at, 1, 5);
    insert(&at, 2, 5);
    insert(&at, 3, 5);
    pen_txn *txn = commit(&at, 1000);
    cr_assert_eq(txn->xid, 1007);
    cr_assert_eq(txn->commit_lsn, 1000);
    cr_assert_eq(txn->end_lsn, 1048);
    cr_assert_eq(txn->commit_time, 10000);
    cr_assert_null(txn->next);
    /* Begin 21, Commit 26, each row 8 and its values 6 + 10 + 1 bytes. */
    cr_assert_eq(txn->bytes, 21 + 26 + 3 * 25);
    cr_assert_eq(check_rows(txn, 1, 3, 5), 1);
    pen_txn_release(txn);
    rig_deinit(&at);
}

Test(assemble, every_sample)
{
    rig at;
    rig_init(&at);
    pen_txn *txn = NULL;
    for (size_t i = 0; wire_sample(i, &at.out); i++) {
        cr_assert_null(txn);
        cr_assert(add(&at, &txn), "sample %zu: %s", i, at.err.text);
    }
    cr_assert_not_null(txn);
    cr_assert_eq(txn->change_count, 9);
    const char *kind = "IIIUUUDDT";
    for (const pen_change *chg = txn->first->first; chg != NULL; chg = chg->next) {
        cr_assert_eq(chg->kind, *kind++);
    }
    cr_assert_eq(*kind, '\0');
    pen_txn_release(txn);
    rig_deinit(&at);
}

Test(assemble, transaction_without_changes)
{
    rig at;
    rig_init(&at);
    begin(&at, 5);
    pen_txn *txn = commit(&at, 5);
    cr_assert_eq(txn->change_count, 0);
    cr_assert_eq(txn->end_lsn, 53);
    cr_assert_not_null(txn->first);
    cr_assert_null(txn->first->first);
    cr_assert_eq(txn->first->change_count, 0);
    pen_txn_release(txn);
    rig_deinit(&at);
}

Test(assemble, other_messages_change_nothing)
{
    rig at;
    rig_init(&at);
    const size_t others[] = {1, 2, 3, 4, 14, 15};
    for (int inside = 0; inside < 2; inside++) {
        for (size_t i = 0; i < PEN_COUNTOF(others); i++) {
            cr_assert(wire_sample(others[i], &at.out));
            add_silent(&at);
            cr_assert_eq(at.assembler.open != NULL, inside);
        }
        if (!inside) {
            begin(&at, 9);
        }
    }
    pen_txn *txn = commit(&at, 9);
    cr_assert_eq(txn->change_count, 0);
    cr_assert_eq(txn->bytes, 21 + 26);
    pen_txn_release(txn);
    rig_deinit(&at);
}

Test(assemble, many_blocks)
{
    rig at;
    rig_init(&at);
    tell_relations(&at);
    begin(&at, 1);
    for (unsigned i = 0; i < 2000; i++) {
        insert(&at, i, 1000);
    }
    pen_txn *txn = commit(&at, 1);
    cr_assert_gt(check_rows(txn, 0, 2000, 1000), 30);
    size_t used = pen_budget_used(&at.budget);
    cr_assert_geq(used, 2000 * 1000);
    pen_txn_release(txn);
    /* The arena itself keeps the current block. */
    cr_assert_eq(pen_budget_used(&at.budget), PEN_BLOCK_SIZE);
    rig_deinit(&at);
}

/* Rows of any length: the header finds its place whatever is left of a block. */
Test(assemble, every_fill_of_a_block)
{
    rig at;
    rig_init(&at);
    tell_relations(&at);
    for (unsigned len = 20000; len < 20200; len++) {
        begin(&at, len);
        for (unsigned i = 0; i < 7; i++) {
            insert(&at, i, len);
        }
        pen_txn *txn = commit(&at, len);
        cr_assert_gt(check_rows(txn, 0, 7, len), 1);
        pen_txn_release(txn);
    }
    rig_deinit(&at);
}

Test(assemble, rows_larger_than_a_block)
{
    rig at;
    rig_init(&at);
    tell_relations(&at);
    begin(&at, 1);
    for (unsigned i = 0; i < 5; i++) {
        insert(&at, i, 3 * (size_t)PEN_BLOCK_SIZE);
    }
    pen_txn *txn = commit(&at, 1);
    cr_assert_eq(check_rows(txn, 0, 5, 3 * (size_t)PEN_BLOCK_SIZE), 6);
    pen_txn_release(txn);
    rig_deinit(&at);
}

enum { TXNS = 300 };

static void make_transactions(rig *at, pen_txn *txns[TXNS])
{
    tell_relations(at);
    for (unsigned i = 0; i < TXNS; i++) {
        begin(at, i + 1);
        for (unsigned row = 0; row < i % 7; row++) {
            insert(at, row, i * 20);
        }
        txns[i] = commit(at, i + 1);
    }
}

Test(assemble, released_in_any_order)
{
    rig at;
    rig_init(&at);
    pen_txn *txns[TXNS];
    make_transactions(&at, txns);
    /* 7 has no divisor in common with TXNS: each is met once. */
    for (unsigned i = 0; i < TXNS; i++) {
        unsigned pick = (i * 7 + 5) % TXNS;
        cr_assert_eq(txns[pick]->commit_lsn, pick + 1);
        check_rows(txns[pick], 0, pick % 7, (size_t)pick * 20);
        pen_txn_release(txns[pick]);
    }
    rig_deinit(&at);
}

typedef struct half {
    pen_txn **txns;
    unsigned from;
} half;

static void *release_half(void *arg)
{
    half *mine = arg;
    for (unsigned i = mine->from; i < TXNS; i += 2) {
        check_rows(mine->txns[i], 0, i % 7, (size_t)i * 20);
        pen_txn_release(mine->txns[i]);
    }
    return NULL;
}

Test(assemble, released_by_other_threads)
{
    rig at;
    rig_init(&at);
    pen_txn *txns[TXNS];
    make_transactions(&at, txns);
    half halves[2] = {{txns, 0}, {txns, 1}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(pthread_create(&threads[i], NULL, release_half, &halves[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    rig_deinit(&at);
}

Test(assemble, discard)
{
    rig at;
    rig_init(&at);
    tell_relations(&at);
    pen_assembler_discard(&at.assembler);
    begin(&at, 1);
    for (unsigned i = 0; i < 200; i++) {
        insert(&at, i, 2000);
    }
    pen_assembler_discard(&at.assembler);
    cr_assert_eq(pen_budget_used(&at.budget), PEN_BLOCK_SIZE);
    /* The stream begins the same transaction again. */
    begin(&at, 1);
    insert(&at, 0, 3);
    pen_txn *txn = commit(&at, 1);
    check_rows(txn, 0, 1, 3);
    pen_txn_release(txn);
    rig_deinit(&at);
}

/* Takes the segments that are filled, checks that their rows go on at `number`, and gives them
 * back. */
static unsigned take_rows(rig *at, unsigned number)
{
    for (pen_segment *seg; (seg = pen_assembler_take_segment(&at->assembler)) != NULL;) {
        for (const pen_change *chg = seg->first; chg != NULL; chg = chg->next) {
            char id[16];
            snprintf(id, sizeof(id), "%u", number++);
            cr_assert_str_eq((const char *)chg->new_tuple.values[0].data, id);
        }
        pen_block_release(seg->block);
    }
    return number;
}

Test(assemble, given_away_before_its_commit)
{
    rig at;
    rig_init(&at);
    tell_relations(&at);
    begin(&at, 5);
    for (unsigned i = 0; i < 150; i++) {
        insert(&at, i, 2000);
    }
    pen_txn *first = pen_assembler_give_open(&at.assembler);
    cr_assert_eq(first->commit_lsn, 5);
    check_rows(first, 0, 150, 2000);
    cr_assert_null(pen_assembler_take_segment(&at.assembler));
    unsigned number = 150;
    for (unsigned i = 150; i < 2000; i++) {
        insert(&at, i, 2000);
        number = take_rows(&at, number);
        cr_assert_leq(number, i, "the segment that is being filled stays");
    }
    /* What was given away is not touched any more, and memory does not grow with the rest. */
    check_rows(first, 0, 150, 2000);
    cr_assert_leq(pen_budget_used(&at.budget), 150 * 2100 + 4 * PEN_BLOCK_SIZE);
    pen_txn *rest = commit(&at, 5);
    cr_assert_eq(rest->end_lsn, 53);
    cr_assert_eq(rest->change_count, 2000);
    cr_assert_eq(take_rows(&at, number), 2000);
    pen_txn_release(first);
    /* The next one is an ordinary one again. */
    begin(&at, 6);
    insert(&at, 0, 3);
    pen_txn *txn = commit(&at, 6);
    check_rows(txn, 0, 1, 3);
    pen_txn_release(txn);
    rig_deinit(&at);
}

Test(assemble, given_away_and_discarded)
{
    rig at;
    rig_init(&at);
    tell_relations(&at);
    begin(&at, 5);
    insert(&at, 0, 10);
    pen_txn_release(pen_assembler_give_open(&at.assembler));
    for (unsigned i = 1; i < 100; i++) {
        insert(&at, i, 2000);
    }
    pen_assembler_discard(&at.assembler);
    cr_assert_eq(pen_budget_used(&at.budget), PEN_BLOCK_SIZE);
    begin(&at, 5);
    pen_txn_release(commit(&at, 5));
    rig_deinit(&at);
}

Test(assemble, rows_outside_a_transaction)
{
    rig at;
    rig_init(&at);
    tell_relations(&at);
    for (size_t sample = 5; sample <= 13; sample++) {
        cr_assert(wire_sample(sample, &at.out));
        expect_refused(&at, "outside a transaction", PEN_LSN_NONE);
    }
    begin(&at, 1);
    pen_txn_release(commit(&at, 1));
    cr_assert(wire_sample(5, &at.out));
    expect_refused(&at, "outside a transaction", PEN_LSN_NONE);
    rig_deinit(&at);
}

/* What frames streamed transactions is the caller's to handle, and two-phase decoding is never
 * asked for: neither may be taken for nothing. */
Test(assemble, streaming_and_two_phase)
{
    for (int inside = 0; inside < 2; inside++) {
        rig at;
        rig_init(&at);
        if (inside) {
            begin(&at, 1);
        }
        for (const char *kind = "SEcAbPKrp"; *kind != '\0'; kind++) {
            const pen_message msg = {.kind = (uint8_t)*kind};
            pen_txn *txn = NULL;
            cr_assert_not(pen_assembler_add(&at.assembler, &msg, 10, &txn, &at.err), "%c", *kind);
            cr_assert_null(txn);
            cr_assert_eq(at.err.kind, PEN_ERROR_FATAL);
            cr_assert_not_null(strstr(at.err.text, pen_message_kind_name(msg.kind)));
        }
        if (inside) {
            pen_txn_release(commit(&at, 1));
        }
        rig_deinit(&at);
    }
}

Test(assemble, begin_inside_a_transaction)
{
    rig at;
    rig_init(&at);
    begin(&at, 0x100000002);
    wire_begin(&at.out, 0x300000004, 0, 77);
    expect_refused(&at, "began transaction 77 (commit LSN 3/4) inside transaction 9", 0x300000004);
    /* The open one is as it was. */
    pen_txn_release(commit(&at, 0x100000002));
    rig_deinit(&at);
}

Test(assemble, commit_that_does_not_fit)
{
    rig at;
    rig_init(&at);
    wire_commit(&at.out, 5, 6, 0);
    expect_refused(&at, "at 0/5 that it did not begin (open: 0/0)", 5);
    wire_commit(&at.out, 0, 6, 0);
    expect_refused(&at, "did not begin", 0);
    begin(&at, 5);
    wire_commit(&at.out, 6, 7, 0);
    expect_refused(&at, "at 0/6 that it did not begin (open: 0/5)", 6);
    wire_commit(&at.out, 5, 4, 0);
    expect_refused(&at, "ends at 0/4, before its commit record", 5);
    pen_txn_release(commit(&at, 5));
    rig_deinit(&at);
}
