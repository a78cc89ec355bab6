/* Random histories of a source whose transactions become visible in another order than they commit.
 * At some moment a table is copied under a snapshot. What the snapshot shows, and what the stream
 * then brings past the fence, must together be what was committed, each row once. */
#include "apply/intake.h"

#include "../core/wire.h"
#include "../io/spool_rig.h"

enum { TABLES = 3, FIRST_OID = 100, TXNS = 60, MOST_ROWS = 6, MOST_OPEN = 5 };

typedef struct source_txn {
    uint64_t xid;
    pen_lsn commit_lsn; /* 0: in progress */
    pen_lsn end_lsn;
    bool visible;
    unsigned row_count;
    unsigned tables[MOST_ROWS]; /* of the row with this number */
    bool truncates;             /* tables 0 and 1, as its last act */
} source_txn;

static struct {
    uint64_t random;
    pen_lsn lsn;
    uint64_t next_xid;
    source_txn txns[TXNS]; /* in the order in which they began */
    unsigned begun;
    unsigned order[TXNS]; /* in which they committed */
    unsigned committed;
    /* what the copies have: of transaction i, for table t */
    bool copied[TXNS][TABLES];
    pen_options options;
    pen_stream *stream;
    pen_intake *intake;
    pen_spool *spool;
} w;

static unsigned pick(unsigned below)
{
    w.random ^= w.random << 13;
    w.random ^= w.random >> 7;
    w.random ^= w.random << 17;
    return (unsigned)((w.random >> 20) % below);
}

/* ---- the source ---- */

static void begin_txn(void)
{
    source_txn *txn = &w.txns[w.begun++];
    while ((uint32_t)w.next_xid < 3 || (uint32_t)(w.next_xid + 1) < 3) {
        w.next_xid++; /* those are not given to transactions */
    }
    *txn = (source_txn){.xid = w.next_xid};
    w.next_xid += 1 + pick(3); /* with its subtransactions */
    txn->row_count = 1 + pick(MOST_ROWS);
    txn->truncates = pick(10) == 0;
    for (unsigned i = 0; i < txn->row_count; i++) {
        txn->tables[i] = pick(TABLES);
    }
}

static void step(void)
{
    unsigned i = w.begun == 0 ? 0 : pick(w.begun);
    source_txn *txn = &w.txns[i];
    unsigned open = 0;
    for (unsigned k = 0; k < w.begun; k++) {
        open += !w.txns[k].visible;
    }
    if (w.begun < TXNS && open < MOST_OPEN && pick(2) == 0) {
        begin_txn();
    } else if (i < w.begun && txn->commit_lsn == 0) {
        w.lsn += 1 + pick(30);
        txn->commit_lsn = w.lsn;
        w.lsn += 8;
        txn->end_lsn = w.lsn;
        w.order[w.committed++] = i;
    } else if (i < w.begun) {
        txn->visible = true; /* maybe long after, as with a standby that is waited for */
    }
}

/* ---- the copies ---- */

static void set_fence(unsigned table)
{
    char text[2048];
    uint64_t xmin = w.next_xid;
    int len = 0;
    for (unsigned i = w.begun; i-- > 0;) {
        xmin = w.txns[i].visible ? xmin : w.txns[i].xid;
    }
    len = snprintf(text, sizeof(text), "%llu:%llu:", (unsigned long long)xmin,
                   (unsigned long long)w.next_xid);
    const char *comma = "";
    for (unsigned i = 0; i < w.begun; i++) {
        w.copied[i][table] = w.txns[i].visible;
        if (!w.txns[i].visible) {
            len += snprintf(text + len, sizeof(text) - (size_t)len, "%s%llu", comma,
                            (unsigned long long)w.txns[i].xid);
            comma = ",";
        }
    }
    pen_fences *fences = &w.stream->fences;
    size_t number = fences->snapshot_count++;
    cr_assert(pen_xid_snapshot_parse(&fences->snapshots[number], text), "%s", text);
    fences->fences[fences->count++] =
        (pen_fence){.oid = FIRST_OID + table, .snapshot = number, .end = w.lsn + 1};
    fences->end = w.lsn + 1;
}

/* ---- the stream ---- */

static void give(wire *message)
{
    bool ready = false;
    cr_assert(pen_intake_message(w.intake, wire_slice(message), (pen_spool_pos){0}, &err), "%s",
              err.text);
    wire_free(message);
    do {
        cr_assert(pen_intake_is_ready(w.intake, &ready, &err), "%s", err.text);
        if (pen_intake_is_replaying(w.intake)) {
            cr_assert(pen_intake_replay(w.intake, &err), "%s", err.text);
        }
        poll_spool(w.spool);
    } while (pen_intake_is_replaying(w.intake));
    cr_assert(pen_intake_is_ready(w.intake, &ready, &err), "%s", err.text);
}

static void tell_tables(uint32_t xid)
{
    for (unsigned table = 0; table < TABLES; table++) {
        wire out = {0};
        char name[8];
        snprintf(name, sizeof(name), "t%u", table);
        wire_relation(&out, FIRST_OID + table, "public", name, 'd', 1);
        wire_column(&out, 1, "id", 23, -1);
        if (xid != 0) {
            wire_add_xid(&out, xid);
        }
        give(&out);
    }
}

static void give_rows(const source_txn *txn, uint32_t streamed_xid)
{
    wire out = {0};
    for (unsigned i = 0; i < txn->row_count; i++) {
        char text[24];
        snprintf(text, sizeof(text), "%llu", (unsigned long long)(txn->xid * 10 + i));
        wire_row(&out, 'I', FIRST_OID + txn->tables[i]);
        wire_tuple(&out, 'N', 1);
        wire_text(&out, text);
        if (streamed_xid != 0) {
            wire_add_xid(&out, streamed_xid);
        }
        give(&out);
    }
    if (txn->truncates) {
        wire_u8(&out, 'T');
        wire_u32(&out, 2);
        wire_u8(&out, 0);
        wire_u32(&out, FIRST_OID);
        wire_u32(&out, FIRST_OID + 1);
        if (streamed_xid != 0) {
            wire_add_xid(&out, streamed_xid);
        }
        give(&out);
    }
}

/* What came out of one transaction must be just what the copies do not have. */
static void check(const source_txn *txn, unsigned number)
{
    bool wanted[MOST_ROWS + 2];
    unsigned left = 0;
    for (unsigned i = 0; i < txn->row_count; i++) {
        wanted[i] = !w.copied[number][txn->tables[i]];
        left += wanted[i];
    }
    for (unsigned table = 0; txn->truncates && table < 2; table++) {
        left += !w.copied[number][table];
    }
    pen_txn *out = pen_dealing_leftover(&w.stream->dealing);
    cr_assert_eq(out == NULL, left == 0, "transaction %u", number);
    if (out == NULL) {
        return;
    }
    cr_assert_eq(out->xid, (uint32_t)txn->xid);
    unsigned next = 0;
    for (const pen_segment *seg = out->first; seg != NULL; seg = seg->next) {
        for (const pen_change *chg = seg->first; chg != NULL; chg = chg->next) {
            if (chg->kind == PEN_CHANGE_TRUNCATE) {
                cr_assert(txn->truncates);
                for (uint32_t k = 0; k < chg->truncated_count; k++) {
                    cr_assert_not(w.copied[number][chg->truncated[k]->oid - FIRST_OID]);
                    left--;
                }
                continue;
            }
            while (next < txn->row_count && !wanted[next]) {
                next++;
            }
            char text[24];
            snprintf(text, sizeof(text), "%llu", (unsigned long long)(txn->xid * 10 + next));
            cr_assert_lt(next, txn->row_count, "a row that the copy has");
            cr_assert_str_eq((const char *)chg->new_tuple.values[0].data, text);
            next++;
            left--;
        }
    }
    cr_assert_eq(left, 0, "transaction %u lacks changes", number);
    pen_txn_release(out);
}

static void stream_all(void)
{
    for (unsigned i = 0; i < w.committed; i++) {
        const source_txn *txn = &w.txns[w.order[i]];
        uint32_t xid = (uint32_t)txn->xid;
        wire out = {0};
        if (pick(3) == 0) {
            wire_stream_start(&out, xid, true);
            give(&out);
            tell_tables(xid);
            give_rows(txn, xid + pick(2));
            wire_stream_stop(&out);
            give(&out);
            wire_stream_commit(&out, xid, txn->commit_lsn, txn->end_lsn, 0);
            give(&out);
        } else {
            wire_begin(&out, txn->commit_lsn, 0, xid);
            give(&out);
            tell_tables(0);
            give_rows(txn, 0);
            wire_commit(&out, txn->commit_lsn, txn->end_lsn, 0);
            give(&out);
        }
        check(txn, w.order[i]);
    }
}

static void run(uint64_t seed)
{
    memset(&w, 0, sizeof(w));
    w.random = seed * 0x9E3779B97F4A7C15U + 1;
    w.lsn = 1000;
    w.next_xid = seed % 3 == 0 ? UINT64_C(0xFFFFFFC0) : 700; /* over the end of the circle */
    w.options = (pen_options){.workers = 1,
                              .dispatchers = 1,
                              .memory = 64 << 20,
                              .batch_rows = 10000,
                              .batch_bytes = 16 << 20,
                              .batch_transactions = 1000};
    cr_assert(pen_stream_create(&w.options, &w.stream, &err), "%s", err.text);
    pen_spool_options options = durable_options(false);
    options.durable = false;
    options.name = "streamed";
    options.header.kind = PEN_SPOOL_STREAMED;
    w.spool = open_spool(&options, NULL);
    const pen_intake_options intake = {.spool = w.spool, .spool_is_ours = true};
    w.intake = pen_intake_create(w.stream, &intake);
    pen_fences *fences = &w.stream->fences;
    fences->fences = pen_calloc(TABLES, sizeof(*fences->fences));
    fences->snapshots = pen_calloc(TABLES, sizeof(*fences->snapshots));
    for (unsigned table = 0; table < TABLES; table++) {
        for (unsigned steps = pick(120); steps > 0; steps--) {
            step();
        }
        if (pick(4) > 0) {
            set_fence(table);
        }
    }
    while (w.begun < TXNS || w.committed < w.begun) {
        step();
    }
    stream_all();
    pen_intake_destroy(w.intake);
    pen_spool_close(w.spool, true);
    pen_stream_destroy(w.stream);
}

TestSuite(fence, .init = setup, .fini = teardown, .timeout = 600);

Test(fence, copy_and_stream_together_are_what_was_committed)
{
    const char *asked = getenv("PENSTOCK_SEEDS");
    uint64_t last = asked == NULL ? 300 : strtoull(asked, NULL, 10);
    for (uint64_t seed = 1; seed <= last; seed++) {
        run(seed);
    }
}

/* Behind the end of a fence an xid means nothing any more. */
Test(fence, hides_nothing_behind_its_end)
{
    pen_xid_snapshot snapshot;
    cr_assert(pen_xid_snapshot_parse(&snapshot, "100:100:"));
    pen_fence one = {.oid = 7, .snapshot = 0, .end = 500};
    const pen_fences fences = {&one, 1, &snapshot, 1, 900}; /* of another table */
    cr_expect(pen_fences_hide(&fences, 7, 99, 499));
    cr_expect_not(pen_fences_hide(&fences, 7, 99, 500));
    cr_expect_not(pen_fences_hide(&fences, 7, 100, 499));
    cr_expect_not(pen_fences_hide(&fences, 8, 99, 499));
    pen_xid_snapshot_deinit(&snapshot);
}
