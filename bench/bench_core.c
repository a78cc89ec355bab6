/* What the parts cost by themselves, without servers: one line each with the median of five runs.
 * Numbers of one machine compare with each other, and with nothing else. */
#include "core/assemble.h"
#include "core/conflict.h"
#include "core/keyhash.h"
#include "core/ring.h"
#include "core/thread.h"
#include "bench/bench_decode.h"
#include "bench/bench_lag.h"
#include "bench/bench_proxy.h"
#include "bench/bench_spool.h"
#include "io/checkpoint.h"
#include "tests/unit/core/wire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RUNS = 5 };

typedef struct bench {
    const char *name;
    const char *unit;
    double (*run)(void);
    const char *what;
} bench;

/* xorshift64 (Marsaglia 2003): the same keys in each run. */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static double seconds_since(int64_t started_us)
{
    int64_t us = pen_now_us() - started_us;
    return (double)(us > 0 ? us : 1) / 1e6;
}

static void check(bool ok, const pen_error *err)
{
    if (!ok) {
        fprintf(stderr, "penstock-bench: %s\n", err->text);
        exit(EXIT_FAILURE);
    }
}

/* ---- the ring between reader and dispatcher */

enum { HANDED = 5000000, RING = 4096 };

static pen_ring ring;
static pen_parker producer;
static pen_parker consumer;

static void produce(void *arg)
{
    (void)arg;
    for (uintptr_t i = 1; i <= HANDED; i++) {
        while (!pen_ring_push(&ring, (void *)i)) {
            pen_parker_prepare(&producer);
            if (pen_ring_push(&ring, (void *)i)) {
                pen_parker_cancel(&producer);
                break;
            }
            (void)pen_parker_park(&producer, -1, 0, PEN_PARK_FOREVER);
        }
        pen_parker_wake(&consumer);
    }
}

static double run_ring(void)
{
    pen_error err;
    pen_thread thread = {.started = false};
    pen_ring_init(&ring, RING);
    check(pen_parker_init(&producer, &err) && pen_parker_init(&consumer, &err), &err);
    int64_t started_us = pen_now_us();
    check(pen_thread_start(&thread, PEN_ROLE_READER, "producer", produce, NULL, &err), &err);
    for (size_t taken = 0; taken < HANDED;) {
        if (pen_ring_pop(&ring) == NULL) {
            pen_parker_prepare(&consumer);
            if (pen_ring_pop(&ring) == NULL) {
                (void)pen_parker_park(&consumer, -1, 0, PEN_PARK_FOREVER);
                continue;
            }
            pen_parker_cancel(&consumer);
        }
        taken++;
        pen_parker_wake(&producer);
    }
    double seconds = seconds_since(started_us);
    pen_thread_join(&thread);
    pen_parker_deinit(&producer);
    pen_parker_deinit(&consumer);
    pen_ring_deinit(&ring);
    return seconds * 1e9 / HANDED;
}

/* ---- decoding: a TPC-B transaction as pgbench makes it, in text, over and over */

enum { TPCB_TXNS = 20000, TPCB_MESSAGES = 6, PLAYED = 20 };

typedef struct tpcb {
    wire stream; /* all messages, one behind the other */
    size_t *ends;
    size_t count;
} tpcb;

static tpcb tape;

static void end_message(void)
{
    tape.ends[tape.count++] = tape.stream.len;
}

static void tpcb_relation(uint32_t oid, const char *table, const char *key, const char *balance)
{
    wire_relation(&tape.stream, oid, "public", table, 'd', 4);
    wire_column(&tape.stream, 1, key, 23, -1);
    wire_column(&tape.stream, 0, "bid", 23, -1);
    wire_column(&tape.stream, 0, balance, 23, -1);
    wire_column(&tape.stream, 0, "filler", 1042, 88);
    end_message();
}

static void tpcb_update(uint32_t oid, uint64_t key)
{
    char text[24];
    static const char filler[] = "                                                            "
                                 "                        ";
    wire_row(&tape.stream, 'U', oid);
    wire_tuple(&tape.stream, 'N', 4);
    snprintf(text, sizeof(text), "%lu", key);
    wire_text(&tape.stream, text);
    wire_text(&tape.stream, "1");
    wire_text(&tape.stream, "-123456");
    wire_text(&tape.stream, filler);
    end_message();
}

static void tpcb_insert(uint32_t oid, uint64_t key)
{
    char text[24];
    wire_row(&tape.stream, 'I', oid);
    wire_tuple(&tape.stream, 'N', 4);
    snprintf(text, sizeof(text), "%lu", key);
    wire_text(&tape.stream, text);
    wire_text(&tape.stream, "1");
    wire_text(&tape.stream, "2026-01-01 00:00:00.123456");
    wire_null(&tape.stream);
    end_message();
}

static void make_tape(void)
{
    uint64_t state = 20260101;
    if (tape.ends != NULL) {
        return;
    }
    tape.ends = pen_calloc(4 + TPCB_TXNS * TPCB_MESSAGES, sizeof(*tape.ends));
    tpcb_relation(1, "pgbench_accounts", "aid", "abalance");
    tpcb_relation(2, "pgbench_tellers", "tid", "tbalance");
    tpcb_relation(3, "pgbench_branches", "bid2", "bbalance");
    tpcb_relation(4, "pgbench_history", "tid", "delta");
    for (uint64_t i = 0; i < TPCB_TXNS; i++) {
        uint64_t lsn = 0x1000000 + i * 0x200;
        wire_begin(&tape.stream, lsn, 812345678901234, (uint32_t)i + 1000);
        end_message();
        tpcb_update(1, next_random(&state) % 10000000);
        tpcb_update(2, next_random(&state) % 1000);
        tpcb_update(3, next_random(&state) % 100);
        tpcb_insert(4, next_random(&state) % 1000);
        wire_commit(&tape.stream, lsn, lsn + 0x30, 812345678901234);
        end_message();
    }
}

static void free_tape(void)
{
    wire_free(&tape.stream);
    free(tape.ends);
}

/* Plays the tape PLAYED times; returns the seconds. */
static double play_tape(void)
{
    pen_error err;
    pen_budget budget;
    pen_arena arena;
    pen_assembler assembler;
    make_tape();
    pen_budget_init(&budget, SIZE_MAX, NULL);
    pen_arena_init(&arena, &budget);
    pen_assembler_init(&assembler, &arena);
    pen_pgoutput *decoder = pen_pgoutput_create(&arena);
    pen_message_context context = {0};
    int64_t started_us = pen_now_us();
    for (size_t played = 0, i = 0, begin = 0; played < PLAYED;) {
        pen_message msg;
        pen_txn *txn = NULL;
        pen_slice bytes = {tape.stream.data + begin, tape.ends[i] - begin};
        context.arrival++;
        check(pen_pgoutput_decode(decoder, bytes, &context, &msg, &err) &&
                  pen_assembler_add(&assembler, &msg, bytes.len, &txn, &err),
              &err);
        if (txn != NULL) {
            pen_txn_release(txn);
        }
        begin = tape.ends[i++];
        if (i == tape.count) {
            i = 0;
            begin = 0;
            played++;
        }
    }
    double seconds = seconds_since(started_us);
    pen_arena_deinit(&arena);
    pen_pgoutput_destroy(decoder);
    return seconds;
}

static double run_decode(void)
{
    return play_tape() * 1e9 / (PLAYED * TPCB_TXNS);
}

static double run_decode_bytes(void)
{
    double seconds = play_tape();
    return PLAYED * (double)tape.stream.len / 1e6 / seconds;
}

/* ---- hashing keys */

enum { HASHED = 5000000, KEYS = 1024 };

static volatile uint64_t sink; /* keeps what is measured from being optimised away */

static double run_keyhash(void)
{
    static char text[KEYS][12];
    static pen_value values[KEYS];
    const pen_key_column column = {.index = 0, .form = PEN_KEY_INT};
    const pen_key_spec spec = {.seed = 16385, .columns = &column, .column_count = 1};
    uint64_t state = 7;
    for (size_t i = 0; i < KEYS; i++) {
        int len = snprintf(text[i], sizeof(text[i]), "%lu", next_random(&state) % 10000000);
        values[i] = (pen_value){
            .data = (const uint8_t *)text[i], .len = (uint32_t)len, .kind = PEN_VALUE_TEXT};
    }
    uint64_t sum = 0;
    int64_t started_us = pen_now_us();
    for (size_t i = 0; i < HASHED; i++) {
        uint64_t hash = 0;
        if (pen_keyhash_row(&spec, &values[i % KEYS], NULL, &hash) == PEN_KEY_HASHED) {
            sum += hash;
        }
    }
    double seconds = seconds_since(started_us);
    sink = sum;
    return seconds * 1e9 / HASHED;
}

/* ---- probing the conflict table, as large as the former's, a transaction at a time as it does */

enum {
    PROBED = 3000000,
    CHANGES_A_TXN = 100,
    CHANGES_A_BATCH = 1000,
    BATCHES_BEHIND = 8,
    BUCKETS = 64 * 1024,
    KEYS_MOST = 4
};

/* Nanoseconds a key, each change with `key_count` of them: rows of a million, and its table last,
 * which every change reads. */
static double probe(size_t key_count)
{
    pen_conflict *table = pen_conflict_create(BUCKETS);
    uint64_t state = 11;
    uint64_t sum = 0;
    uint64_t table_hash = pen_keyhash_table(16385);
    double seconds = 0;
    static pen_key keys[CHANGES_A_TXN * KEYS_MOST];
    for (uint64_t i = 0; i < PROBED; i += CHANGES_A_TXN) {
        for (size_t k = 0; k < CHANGES_A_TXN * key_count; k++) {
            bool last = k % key_count == key_count - 1;
            keys[k] = (pen_key){.hash = last ? table_hash
                                             : (next_random(&state) % 1000000) *
                                                   UINT64_C(0x9E3779B97F4A7C15),
                                .access = last ? PEN_ACCESS_READ : PEN_ACCESS_WRITE};
        }
        uint64_t batch = 1 + i / CHANGES_A_BATCH;
        uint64_t committed = batch > BATCHES_BEHIND ? batch - BATCHES_BEHIND : 0;
        int64_t started_us = pen_now_us();
        pen_conflict_prefetch(table, keys, CHANGES_A_TXN * key_count);
        for (size_t c = 0; c < CHANGES_A_TXN; c++) {
            sum += pen_conflict_touch(table, keys + c * key_count, key_count, batch, committed);
        }
        seconds += (double)(pen_now_us() - started_us) / 1e6;
    }
    sink = sum;
    pen_conflict_destroy(table);
    return seconds * 1e9 / PROBED / (double)key_count;
}

static double run_conflict(void)
{
    return probe(2);
}

static double run_conflict_wide(void)
{
    return probe(KEYS_MOST);
}

/* ---- what the progress thread waits when it hands a checkpoint over */

enum { SUBMITTED = 300, EVERY_US = 300 };

static double run_checkpoint(void)
{
    pen_error err;
    pen_checkpoint_file *file = NULL;
    pen_checkpoint newest;
    bool found = false;
    const char *folder = getenv("TMPDIR");
    char path[512];
    snprintf(path, sizeof(path), "%s/penstock-bench-%ld", folder == NULL ? "/tmp" : folder,
             (long)getpid());
    check(pen_checkpoint_open(path, true, &file, &found, &newest, &err), &err);
    pen_checkpoint cp = {.system_identifier = 1, .timeline = 1, .database = "d", .slot = "s"};
    double seconds = 0;
    for (uint64_t i = 1; i <= SUBMITTED; i++) {
        cp.committed_lsn = cp.durable_lsn = i;
        int64_t started_us = pen_now_us();
        check(pen_checkpoint_submit(file, &cp, &err), &err);
        seconds += (double)(pen_now_us() - started_us) / 1e6;
        usleep(EVERY_US);
        check(pen_checkpoint_poll(file, &err), &err);
    }
    check(pen_checkpoint_flush(file, &err), &err);
    pen_checkpoint_close(file);
    unlink(path);
    return seconds * 1e6 / SUBMITTED;
}

static const bench benches[] = {
    {"ring-handoff", "ns/item", run_ring, "a pointer from one thread to another"},
    {"decode-transaction", "ns/transaction", run_decode, "TPC-B: three updates and an insert"},
    {"decode-bytes", "MB/s", run_decode_bytes, "the same by its bytes"},
    {"key-hash", "ns/key", run_keyhash, "one integer column as text"},
    {"conflict-probe", "ns/key", run_conflict, "a row's key and its table's"},
    {"conflict-probe-wide", "ns/key", run_conflict_wide, "three keys of a row and its table's"},
    {"checkpoint-submit", "us/submit", run_checkpoint, "handing a state to the writer"},
    {"spool-append-60", "records/s", bench_spool_append_60, "payloads of 60 bytes, by io_uring"},
    {"spool-append-8k", "MB/s", bench_spool_append_8k, "payloads of 8 kB"},
    {"spool-durable-60", "records/s", bench_spool_durable_60,
     "a sync every 100 ms, and at the end"},
    {"spool-durable-8k", "MB/s", bench_spool_durable_8k, "the same with 8 kB"},
    {"spool-read-60", "records/s", bench_spool_read_60, "a cursor over files, each record checked"},
    {"spool-read-8k", "MB/s", bench_spool_read_8k, "the same with 8 kB"},
    {"thread-append-60", "records/s", bench_thread_append_60, "the same six by the thread"},
    {"thread-append-8k", "MB/s", bench_thread_append_8k, ""},
    {"thread-durable-60", "records/s", bench_thread_durable_60, ""},
    {"thread-durable-8k", "MB/s", bench_thread_durable_8k, ""},
    {"thread-read-60", "records/s", bench_thread_read_60, ""},
    {"thread-read-8k", "MB/s", bench_thread_read_8k, ""},
};

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;
    return (left > right) - (left < right);
}

static void measure(const bench *it)
{
    double results[RUNS];
    for (size_t i = 0; i < RUNS; i++) {
        results[i] = it->run();
    }
    qsort(results, RUNS, sizeof(results[0]), compare);
    printf("%-20s %-16s %12.2f\n", it->name, it->unit, results[RUNS / 2]);
    fflush(stdout);
}

static void print_help(void)
{
    printf("Usage: penstock-bench [--only NAME]\n"
           "       penstock-bench decode FILE\n"
           "       penstock-bench lag --source CONNINFO --target CONNINFO --out FILE [--rate N] "
           "[--seconds N]\n"
           "                          [--wait SECONDS] [--first ID] [--seed N]\n"
           "       penstock-bench proxy --to PORT [--delay-us N]\n"
           "The second decodes a captured stream from memory. The third writes markers into the "
           "source's\n"
           "bench_marker at random times and notes when each is seen on the target; the fourth "
           "prints the\n"
           "port on which it passes connections on, each byte N us later: parts of tools/bench, "
           "which makes\n"
           "what they need. The first prints name, unit and the median of %d runs, a line for each "
           "of:\n\n",
           RUNS);
    for (size_t i = 0; i < PEN_COUNTOF(benches); i++) {
        printf("  %-20s %-16s %s\n", benches[i].name, benches[i].unit, benches[i].what);
    }
    printf("\nCheckpoint and spool are written below TMPDIR, or /tmp.\n");
}

int main(int argc, char **argv)
{
    const char *only = NULL;
    if (argc == 3 && strcmp(argv[1], "decode") == 0) {
        return bench_decode(argv[2]);
    }
    if (argc > 1 && strcmp(argv[1], "lag") == 0) {
        return bench_lag(argc - 2, argv + 2);
    }
    if (argc > 1 && strcmp(argv[1], "proxy") == 0) {
        return bench_proxy(argc - 2, argv + 2);
    }
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            print_help();
            return EXIT_SUCCESS;
        }
        if (strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
            only = argv[++i];
        } else {
            fprintf(stderr,
                    "penstock-bench: \"%s\" is not understood, or lacks its value; see "
                    "--help\n",
                    argv[i]);
            return 2;
        }
    }
    size_t measured = 0;
    for (size_t i = 0; i < PEN_COUNTOF(benches); i++) {
        if (only == NULL || strcmp(only, benches[i].name) == 0) {
            measure(&benches[i]);
            measured++;
        }
    }
    free_tape();
    if (measured == 0) {
        fprintf(stderr, "penstock-bench: there is no \"%s\"; --help lists what there is\n", only);
        return 2;
    }
    return EXIT_SUCCESS;
}
