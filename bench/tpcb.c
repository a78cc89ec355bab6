#include "bench/tpcb.h"

#include "apply/assume.h"
#include "bench/bench.h"
#include "core/assemble.h"
#include "tests/unit/core/wire.h"

#include <stdio.h>
#include <stdlib.h>

enum { TXNS = 20000, MESSAGES = TPCB_CHANGES + 2, TABLES = 4, LSN_STEP = 0x200 };

struct tpcb {
    wire stream; /* all messages, one behind the other */
    size_t *ends;
    size_t count;
    size_t at;      /* the message that comes next */
    uint64_t round; /* how often all were played */
    pen_budget budget;
    pen_arena arena;
    pen_assembler assembler;
    pen_pgoutput *decoder;
    pen_message_context context;
    pen_target *targets[TABLES];
};

static void end_message(tpcb *it)
{
    it->ends[it->count++] = it->stream.len;
}

static void make_relation(tpcb *it, uint32_t oid, const char *table, bool has_key,
                          const char *const names[4])
{
    wire_relation(&it->stream, oid, "public", table, 'd', 4);
    wire_column(&it->stream, has_key, names[0], 23, -1);
    wire_column(&it->stream, 0, names[1], 23, -1);
    wire_column(&it->stream, 0, names[2], oid == TABLES ? 1114 : 23, -1);
    wire_column(&it->stream, 0, "filler", 1042, 88);
    end_message(it);
}

static void make_update(tpcb *it, uint32_t oid, uint64_t key)
{
    char text[24];
    static const char filler[] = "                                                            "
                                 "                        ";
    wire_row(&it->stream, 'U', oid);
    wire_tuple(&it->stream, 'N', 4);
    snprintf(text, sizeof(text), "%lu", key);
    wire_text(&it->stream, text);
    wire_text(&it->stream, "1");
    wire_text(&it->stream, "-123456");
    wire_text(&it->stream, filler);
    end_message(it);
}

static void make_insert(tpcb *it, uint32_t oid, uint64_t key)
{
    char text[24];
    wire_row(&it->stream, 'I', oid);
    wire_tuple(&it->stream, 'N', 4);
    snprintf(text, sizeof(text), "%lu", key);
    wire_text(&it->stream, text);
    wire_text(&it->stream, "1");
    wire_text(&it->stream, "2026-01-01 00:00:00.123456");
    wire_null(&it->stream);
    end_message(it);
}

static void make_messages(tpcb *it)
{
    static const char *const names[TABLES][4] = {{"aid", "bid", "abalance", ""},
                                                 {"tid", "bid", "tbalance", ""},
                                                 {"bid", "id", "bbalance", ""},
                                                 {"tid", "bid", "mtime", ""}};
    static const char *const tables[TABLES] = {"pgbench_accounts", "pgbench_tellers",
                                               "pgbench_branches", "pgbench_history"};
    uint64_t state = 20260101;
    it->ends = pen_calloc(TABLES + (size_t)TXNS * MESSAGES, sizeof(*it->ends));
    for (uint32_t i = 0; i < TABLES; i++) {
        make_relation(it, i + 1, tables[i], i + 1 < TABLES, names[i]);
    }
    for (uint64_t i = 0; i < TXNS; i++) {
        uint64_t lsn = 0x1000000 + i * LSN_STEP;
        wire_begin(&it->stream, lsn, 812345678901234, (uint32_t)i + 1000);
        end_message(it);
        make_update(it, 1, bench_random(&state) % 10000000);
        make_update(it, 2, bench_random(&state) % 1000);
        make_update(it, 3, bench_random(&state) % 100);
        make_insert(it, 4, bench_random(&state) % 1000);
        wire_commit(&it->stream, lsn, lsn + 0x30, 812345678901234);
        end_message(it);
    }
}

tpcb *tpcb_create(void)
{
    tpcb *it = pen_calloc(1, sizeof(*it));
    make_messages(it);
    pen_budget_init(&it->budget, SIZE_MAX, NULL);
    pen_arena_init(&it->arena, &it->budget);
    pen_assembler_init(&it->assembler, &it->arena);
    it->decoder = pen_pgoutput_create(&it->arena);
    return it;
}

void tpcb_destroy(tpcb *it)
{
    pen_assembler_discard(&it->assembler);
    pen_arena_deinit(&it->arena);
    for (size_t i = 0; i < TABLES; i++) {
        pen_target_destroy(it->targets[i]);
    }
    pen_pgoutput_destroy(it->decoder);
    wire_free(&it->stream);
    free(it->ends);
    free(it);
}

static void take_relation(tpcb *it, const pen_relation *rel)
{
    if (rel->target == NULL) {
        it->targets[rel->oid - 1] = pen_target_assume(rel);
        /* Versions are const for all but who sets their targets. */
        ((pen_relation *)(uintptr_t)rel)->target = it->targets[rel->oid - 1];
    }
}

pen_txn *tpcb_next(tpcb *it)
{
    pen_error err;
    pen_txn *txn = NULL;
    while (txn == NULL) {
        pen_message msg;
        size_t begin = it->at == 0 ? 0 : it->ends[it->at - 1];
        pen_slice bytes = {it->stream.data + begin, it->ends[it->at] - begin};
        it->context.arrival++;
        bench_check(pen_pgoutput_decode(it->decoder, bytes, &it->context, &msg, &err) &&
                        pen_assembler_add(&it->assembler, &msg, bytes.len, &txn, &err),
                    &err);
        if (msg.kind == PEN_MESSAGE_RELATION) {
            take_relation(it, msg.relation);
        }
        if (++it->at == it->count) {
            it->at = TABLES;
            it->round++;
        }
    }
    /* The last message is a Commit, so that transaction is still of the round before. */
    uint64_t round = it->at == TABLES ? it->round - 1 : it->round;
    txn->commit_lsn += round * TXNS * LSN_STEP;
    txn->end_lsn += round * TXNS * LSN_STEP;
    return txn;
}

double tpcb_bytes(const tpcb *it)
{
    return (double)it->stream.len / TXNS;
}
