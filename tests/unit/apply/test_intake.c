/* Random streams of a source, with transactions in progress, subtransactions that are rolled back,
 * relations that change and connections that are lost, by way of the spool and past it: what comes
 * out must be what was committed, in that order, each once. */
#include "apply/intake.h"

#include "apply/spooling.h"
#include "../core/wire.h"
#include "../io/spool_rig.h"

enum { TABLE = 4711, MOST_ROWS = 12, MOST_OPEN = 4, STEPS = 400, PARTS = 3 };

typedef struct row {
    uint32_t value;
    unsigned columns;
    unsigned part; /* subtransaction */
} row;

/* A transaction of the source. */
typedef struct source_txn {
    uint32_t xid;
    pen_lsn commit_lsn;
    pen_lsn end_lsn;
    row rows[MOST_ROWS];
    unsigned row_count;
    bool aborted[PARTS];
    /* while it is in progress */
    bool streamed;  /* a block has come */
    bool told;      /* the table, in its blocks */
    unsigned given; /* rows in blocks so far */
} source_txn;

/* The source, its stream, and what has come out at the other end. */
static struct {
    uint64_t random;
    pen_lsn lsn;
    uint32_t next_xid;
    uint32_t next_value;
    unsigned columns; /* the table's */
    bool told;        /* outside of blocks */
    source_txn open[MOST_OPEN];
    source_txn *committed;
    size_t committed_count;
    size_t out; /* committed ones that came out, or were durable before */
    /* the other end */
    pen_options options;
    pen_stream *stream;
    pen_spool *spool;
    pen_spooling *spooling; /* NULL: the stream does not go by the spool */
    pen_spool_cursor *cursor;
    pen_intake *intake;
    size_t durable; /* committed ones that the target has durably */
} w;

static unsigned pick(unsigned below)
{
    w.random ^= w.random << 13;
    w.random ^= w.random >> 7;
    w.random ^= w.random << 17;
    return (unsigned)((w.random >> 20) % below);
}

/* ---- the other end ---- */

static void check_txn(pen_txn *txn)
{
    cr_assert_lt(w.out, w.committed_count, "transaction %u came that was not committed", txn->xid);
    const source_txn *wanted = &w.committed[w.out++];
    cr_assert_eq(txn->xid, wanted->xid, "transaction %u came where %u was due", txn->xid,
                 wanted->xid);
    cr_assert_eq(txn->commit_lsn, wanted->commit_lsn);
    cr_assert_eq(txn->end_lsn, wanted->end_lsn);
    unsigned i = 0;
    for (const pen_segment *seg = txn->first; seg != NULL; seg = seg->next) {
        for (const pen_change *chg = seg->first; chg != NULL; chg = chg->next, i++) {
            while (i < wanted->row_count && wanted->aborted[wanted->rows[i].part]) {
                i++;
            }
            cr_assert_lt(i, wanted->row_count, "transaction %u has a row too many", txn->xid);
            char text[16];
            snprintf(text, sizeof(text), "%u", wanted->rows[i].value);
            cr_assert_str_eq((const char *)chg->new_tuple.values[0].data, text);
            cr_assert_eq(chg->rel->column_count, wanted->rows[i].columns);
        }
    }
    while (i < wanted->row_count && wanted->aborted[wanted->rows[i].part]) {
        i++;
    }
    cr_assert_eq(i, wanted->row_count, "transaction %u lacks rows", txn->xid);
}

/* Those without a row that counts do not come out. */
static bool is_empty(const source_txn *txn)
{
    for (unsigned i = 0; i < txn->row_count; i++) {
        if (!txn->aborted[txn->rows[i].part]) {
            return false;
        }
    }
    return true;
}

static void skip_empty(void)
{
    while (w.out < w.committed_count && is_empty(&w.committed[w.out])) {
        w.out++;
    }
}

static void take_out(void)
{
    bool ready;
    cr_assert(pen_intake_is_ready(w.intake, &ready, &err), "%s", err.text);
    cr_assert(ready);
    for (pen_txn *txn; (txn = pen_dealing_leftover(&w.stream->dealing)) != NULL;) {
        skip_empty();
        check_txn(txn);
        pen_txn_release(txn);
    }
}

static void replay(void)
{
    take_out();
    while (pen_intake_is_replaying(w.intake)) {
        cr_assert(pen_intake_replay(w.intake, &err), "%s", err.text);
        take_out();
    }
}

/* Takes what is in the spool, but now and then not all. */
static void read_spool(bool all)
{
    for (;;) {
        pen_spool_record record;
        pen_spool_pos at;
        if ((!all && pick(20) == 0) ||
            pen_spool_cursor_next(w.cursor, &record, &at, &err) == PEN_SPOOL_READ_NOTHING) {
            return;
        }
        switch (record.kind) {
        case PEN_SPOOL_MESSAGE:
            cr_assert(pen_intake_message(w.intake, record.payload, at, &err), "%s", err.text);
            break;
        case PEN_SPOOL_KEEPALIVE:
            pen_intake_keepalive(w.intake, record.wal_end);
            break;
        case PEN_SPOOL_RELATION:
            cr_assert(pen_intake_relation(w.intake, record.payload, &err), "%s", err.text);
            break;
        case PEN_SPOOL_SESSION:
            pen_intake_session(w.intake);
            break;
        }
        replay();
    }
}

static void open_intake(void)
{
    const pen_intake_options options = {.spool = w.spool, .spool_is_ours = w.spooling == NULL};
    w.stream->resume.commit_lsn = w.durable == 0 ? 0 : w.committed[w.durable - 1].commit_lsn;
    w.out = w.durable;
    w.intake = pen_intake_create(w.stream, &options);
    if (w.spooling != NULL) {
        w.cursor = pen_spool_cursor_create(w.spool, pen_spool_first(w.spool));
    }
}

static void close_intake(void)
{
    pen_spool_cursor_destroy(w.cursor);
    w.cursor = NULL;
    pen_intake_destroy(w.intake);
    w.intake = NULL;
}

/* ---- the source ---- */

static void give(pen_event_kind kind, pen_slice bytes)
{
    const pen_event event = {.kind = kind, .data = bytes, .wal_end = w.lsn};
    bool ready = false;
    if (w.spooling == NULL) {
        if (kind == PEN_EVENT_KEEPALIVE) {
            pen_intake_keepalive(w.intake, w.lsn);
        } else {
            cr_assert(pen_intake_message(w.intake, bytes, (pen_spool_pos){0}, &err), "%s",
                      err.text);
        }
        replay();
        return;
    }
    while (!ready) {
        poll_spool(w.spool);
        cr_assert(pen_spooling_is_ready(w.spooling, &ready, &err), "%s", err.text);
    }
    cr_assert(pen_spooling_take(w.spooling, &event, &err), "%s", err.text);
}

static void send(wire *message)
{
    give(PEN_EVENT_DATA, wire_slice(message));
    wire_free(message);
}

static void send_relation(uint32_t xid)
{
    wire out = {0};
    wire_relation(&out, TABLE, "public", "t", 'd', w.columns);
    for (unsigned i = 0; i < w.columns; i++) {
        wire_u8(&out, i == 0);
        wire_string(&out, i == 0 ? "id" : i == 1 ? "a" : "b");
        wire_u32(&out, 23);
        wire_u32(&out, UINT32_MAX);
    }
    if (xid != 0) {
        wire_add_xid(&out, xid);
    }
    send(&out);
}

static void send_row(const row *it, uint32_t xid)
{
    wire out = {0};
    char text[16];
    snprintf(text, sizeof(text), "%u", it->value);
    wire_row(&out, 'I', TABLE);
    wire_tuple(&out, 'N', it->columns);
    wire_text(&out, text);
    for (unsigned i = 1; i < it->columns; i++) {
        wire_null(&out);
    }
    if (xid != 0) {
        wire_add_xid(&out, xid);
    }
    send(&out);
}

static void make_rows(source_txn *txn, unsigned count)
{
    for (; count > 0 && txn->row_count < MOST_ROWS; count--) {
        unsigned part = pick(PARTS);
        txn->rows[txn->row_count++] = (row){
            .value = w.next_value++, .columns = w.columns, .part = txn->aborted[part] ? 0 : part};
    }
}

static void commit(source_txn *txn)
{
    w.lsn += 10 + pick(50);
    txn->commit_lsn = w.lsn;
    w.lsn += pick(2) * 8 + 1;
    txn->end_lsn = w.lsn;
    w.committed = pen_realloc(w.committed, (w.committed_count + 1) * sizeof(*w.committed));
    w.committed[w.committed_count++] = *txn;
}

/* The table has other columns from here on: whoever was told of it must be told anew. */
static void set_columns(unsigned columns)
{
    if (columns != w.columns) {
        w.columns = columns;
        w.told = false;
        for (unsigned i = 0; i < MOST_OPEN; i++) {
            w.open[i].told = false;
        }
    }
}

/* A committed transaction, whole. Rows of another shape than the table's now are told in theirs. */
static void send_whole(const source_txn *txn)
{
    wire out = {0};
    wire_begin(&out, txn->commit_lsn, 0, txn->xid);
    send(&out);
    unsigned now = w.columns;
    for (unsigned i = 0; i < txn->row_count; i++) {
        if (txn->aborted[txn->rows[i].part]) {
            continue;
        }
        set_columns(txn->rows[i].columns);
        if (!w.told) {
            send_relation(0);
            w.told = true;
        }
        send_row(&txn->rows[i], 0);
    }
    set_columns(now);
    wire_commit(&out, txn->commit_lsn, txn->end_lsn, 0);
    send(&out);
}

/* A block with what the transaction did since the last one. */
static void send_block(source_txn *txn)
{
    wire out = {0};
    wire_stream_start(&out, txn->xid, !txn->streamed);
    send(&out);
    txn->streamed = true;
    unsigned now = w.columns;
    for (; txn->given < txn->row_count; txn->given++) {
        const row *it = &txn->rows[txn->given];
        set_columns(it->columns);
        if (!txn->told) {
            send_relation(txn->xid + it->part);
            txn->told = true;
        }
        send_row(it, txn->xid + it->part);
        if (w.spooling != NULL && pick(10) == 0) {
            give(PEN_EVENT_KEEPALIVE, (pen_slice){0});
        }
    }
    set_columns(now);
    wire_stream_stop(&out);
    send(&out);
}

static void send_abort(uint32_t xid, uint32_t subxid)
{
    wire out = {0};
    wire_stream_abort(&out, xid, subxid);
    send(&out);
}

static void step_open(source_txn *txn)
{
    wire out = {0};
    if (txn->xid == 0) {
        *txn = (source_txn){.xid = w.next_xid};
        w.next_xid += PARTS;
    }
    unsigned part = 1 + pick(PARTS - 1);
    switch (pick(6)) {
    case 0:
        if (txn->streamed && !txn->aborted[part]) {
            txn->aborted[part] = true;
            send_abort(txn->xid, txn->xid + part);
        }
        break;
    case 1:
        if (txn->streamed) {
            send_abort(txn->xid, txn->xid);
        } else if (pick(2) == 0) {
            send_abort(txn->xid, txn->xid); /* as version 18 does */
        }
        *txn = (source_txn){0};
        break;
    case 2:
        if (txn->streamed) {
            send_block(txn);
            commit(txn);
            wire_stream_commit(&out, txn->xid, txn->commit_lsn, txn->end_lsn, 0);
            send(&out);
            w.told |= txn->told;
        } else {
            commit(txn);
            send_whole(txn);
        }
        *txn = (source_txn){0};
        break;
    default:
        make_rows(txn, 1 + pick(4));
        if (pick(2) == 0) {
            send_block(txn);
        }
    }
}

static void step(void)
{
    source_txn txn = {.xid = w.next_xid};
    switch (pick(8)) {
    case 0:
        set_columns(1 + pick(3));
        break;
    case 1:
        w.lsn += pick(20);
        give(PEN_EVENT_KEEPALIVE, (pen_slice){0});
        break;
    case 2:
    case 3:
        w.next_xid += PARTS;
        make_rows(&txn, pick(5));
        commit(&txn);
        send_whole(&txn);
        break;
    default:
        step_open(&w.open[pick(MOST_OPEN)]);
    }
}

/* ---- lost connections ---- */

/* What a source sends from `received` on: what is committed behind it, then what is in progress. */
static void send_again(pen_lsn received)
{
    w.told = false;
    for (size_t i = 0; i < w.committed_count; i++) {
        if (w.committed[i].end_lsn > received) {
            send_whole(&w.committed[i]);
        }
    }
    for (unsigned i = 0; i < MOST_OPEN; i++) {
        source_txn *txn = &w.open[i];
        bool streamed = txn->streamed;
        txn->streamed = false;
        txn->told = false;
        txn->given = 0;
        if (streamed) {
            send_block(txn);
            for (unsigned part = 1; part < PARTS; part++) {
                if (txn->aborted[part]) {
                    send_abort(txn->xid, txn->xid + part);
                }
            }
        }
    }
}

static pen_spool_options small_options(bool durable)
{
    pen_spool_options options = durable_options(pick(2) == 0);
    options.durable = durable;
    options.name = durable ? "stream" : "streamed";
    options.header.kind = durable ? PEN_SPOOL_STREAM : PEN_SPOOL_STREAMED;
    options.segment_size = 1000 + pick(4000);
    options.buffer_size = 100 + pick(1000);
    return options;
}

/* The process dies, maybe with bytes that never reached the disk, and begins anew. */
static void crash(void)
{
    close_intake();
    pen_lsn acked = pen_spool_synced_lsn(w.spool);
    pen_spooling_destroy(w.spooling);
    pen_spool_close(w.spool, false);
    const pen_spool_options options = small_options(true);
    bool found;
    w.spool = open_spool(&options, &found);
    w.spooling = pen_spooling_create(w.spool);
    if (found) {
        cr_assert(pen_spooling_recover(w.spooling, &err), "%s", err.text);
    } else {
        pen_spooling_begin(w.spooling, 0);
    }
    cr_assert_geq(pen_spooling_received(w.spooling), acked, "what was acknowledged is gone");
    open_intake();
    send_again(pen_spooling_received(w.spooling));
}

static void make_durable(void)
{
    if (w.out > w.durable) {
        w.durable += pick((unsigned)(w.out - w.durable) + 1);
    }
    pen_lsn durable = w.durable == 0 ? 0 : w.committed[w.durable - 1].end_lsn;
    uint64_t needed = pen_intake_needed_segment(w.intake, durable);
    if (needed > pen_spool_first(w.spool).segment) {
        cr_assert(pen_spool_trim(w.spool, needed, &err), "%s", err.text);
    }
    cr_assert_leq(pen_spool_start_lsn(w.spool), durable > 0 ? durable : 1,
                  "a segment went whose transactions are not durable");
}

static void begin(uint64_t seed, bool by_spool)
{
    memset(&w, 0, sizeof(w));
    w.random = seed * 0x9E3779B97F4A7C15U + 1;
    w.lsn = 1000;
    w.next_xid = 700;
    w.columns = 1;
    w.options = (pen_options){.workers = 1,
                              .dispatchers = 1,
                              .memory = 64 << 20,
                              .batch_rows = 10000,
                              .batch_bytes = 16 << 20,
                              .batch_transactions = 1000};
    cr_assert(pen_stream_create(&w.options, &w.stream, &err), "%s", err.text);
    const pen_spool_options options = small_options(by_spool);
    w.spool = open_spool(&options, NULL);
    if (by_spool) {
        w.spooling = pen_spooling_create(w.spool);
        pen_spooling_begin(w.spooling, 0);
    }
    open_intake();
}

static void end(void)
{
    skip_empty();
    cr_assert_eq(w.out, w.committed_count, "%zu of %zu transactions came out", w.out,
                 w.committed_count);
    close_intake();
    pen_spooling_destroy(w.spooling);
    pen_spool_close(w.spool, true);
    pen_stream_destroy(w.stream);
    free(w.committed);
}

TestSuite(intake, .init = setup, .fini = teardown, .timeout = 600);

/* PENSTOCK_SEEDS asks for a longer run. */
static uint64_t seeds(uint64_t usual)
{
    const char *asked = getenv("PENSTOCK_SEEDS");
    return asked == NULL ? usual : strtoull(asked, NULL, 10);
}

Test(intake, gives_what_was_committed)
{
    uint64_t last = seeds(100);
    for (uint64_t seed = 1; seed <= last; seed++) {
        begin(seed, false);
        for (int i = 0; i < STEPS; i++) {
            step();
            poll_spool(w.spool);
        }
        end();
    }
}

Test(intake, gives_what_was_committed_through_the_spool_and_crashes)
{
    uint64_t last = seeds(10);
    for (uint64_t seed = 1; seed <= last; seed++) {
        begin(seed, true);
        for (int i = 0; i < STEPS; i++) {
            step();
            if (pick(3) > 0) {
                read_spool(pick(2) == 0);
            }
            if (pick(20) == 0) {
                make_durable();
            }
            if (pick(10) == 0) {
                sync_all(w.spool);
            } else if (pick(60) == 0) {
                crash();
            }
        }
        read_spool(true);
        end();
    }
}
