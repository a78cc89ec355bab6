/* The ring between two threads, hashing of keys, and the conflict table. */
#include "bench/bench.h"

#include "core/conflict.h"
#include "core/keyhash.h"
#include "core/ring.h"
#include "core/thread.h"

#include <stdio.h>
#include <string.h>

/* ---- the ring between reader and dispatcher */

enum { HANDED = 3000000, RING = 4096 };

static pen_ring ring;
static pen_parker producer;
static pen_parker consumer;
static size_t handed;

static void produce(void *arg)
{
    (void)arg;
    for (uintptr_t i = 1; i <= handed; i++) {
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

bool bench_ring(double share, double *values)
{
    pen_error err;
    pen_thread thread = {.started = false};
    handed = bench_count(HANDED, share);
    pen_ring_init(&ring, RING);
    bench_check(pen_parker_init(&producer, &err) && pen_parker_init(&consumer, &err), &err);
    double started = bench_wall_ns();
    bench_check(pen_thread_start(&thread, PEN_ROLE_READER, "producer", produce, NULL, &err), &err);
    for (size_t taken = 0; taken < handed;) {
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
    values[0] = (bench_wall_ns() - started) / (double)handed;
    pen_thread_join(&thread);
    pen_parker_deinit(&producer);
    pen_parker_deinit(&consumer);
    pen_ring_deinit(&ring);
    return true;
}

/* ---- hashing keys */

enum { HASHED = 5000000, ROWS = 1024, WIDE_COLUMNS = 3, VALUE_SIZE = 24 };

/* Hashes rows of `column_count` columns, in turn; nanoseconds a key. */
static double hash_rows(double share, const pen_key_spec *spec, const pen_value *values)
{
    size_t count = bench_count(HASHED, share);
    uint64_t sum = 0;
    double started = bench_cpu_ns();
    for (size_t i = 0; i < count; i++) {
        uint64_t hash = 0;
        if (pen_keyhash_row(spec, values + (i % ROWS) * spec->column_count, NULL, &hash) ==
            PEN_KEY_HASHED) {
            sum += hash;
        }
    }
    double took = bench_cpu_ns() - started;
    bench_keep(sum);
    return took / (double)count;
}

bool bench_key_hash_text(double share, double *values)
{
    static char text[ROWS][VALUE_SIZE];
    static pen_value rows[ROWS];
    const pen_key_column column = {.index = 0, .form = PEN_KEY_INT};
    const pen_key_spec spec = {.seed = 16385, .columns = &column, .column_count = 1};
    uint64_t state = 7;
    for (size_t i = 0; i < ROWS; i++) {
        int len = snprintf(text[i], VALUE_SIZE, "%lu", bench_random(&state) % 10000000);
        rows[i] = (pen_value){
            .data = (const uint8_t *)text[i], .len = (uint32_t)len, .kind = PEN_VALUE_TEXT};
    }
    values[0] = hash_rows(share, &spec, rows);
    return true;
}

bool bench_key_hash_binary(double share, double *values)
{
    static uint8_t bytes[ROWS][8];
    static pen_value rows[ROWS];
    const pen_key_column column = {.index = 0, .form = PEN_KEY_INT};
    const pen_key_spec spec = {.seed = 16385, .columns = &column, .column_count = 1};
    uint64_t state = 7;
    for (size_t i = 0; i < ROWS; i++) {
        uint64_t number = bench_random(&state) % 10000000;
        for (size_t byte = 0; byte < 8; byte++) {
            bytes[i][byte] = (uint8_t)(number >> (56 - 8 * byte));
        }
        rows[i] = (pen_value){.data = bytes[i], .len = 8, .kind = PEN_VALUE_BINARY};
    }
    values[0] = hash_rows(share, &spec, rows);
    return true;
}

bool bench_key_hash_wide(double share, double *values)
{
    static char text[ROWS][WIDE_COLUMNS][VALUE_SIZE];
    static pen_value rows[ROWS * WIDE_COLUMNS];
    static const pen_key_column columns[WIDE_COLUMNS] = {
        {.index = 0, .form = PEN_KEY_INT},
        {.index = 1, .form = PEN_KEY_BYTES},
        {.index = 2, .form = PEN_KEY_NUMERIC},
    };
    const pen_key_spec spec = {.seed = 16385, .columns = columns, .column_count = WIDE_COLUMNS};
    uint64_t state = 7;
    for (size_t i = 0; i < ROWS * WIDE_COLUMNS; i++) {
        char *at = text[i / WIDE_COLUMNS][i % WIDE_COLUMNS];
        uint64_t number = bench_random(&state) % 10000000;
        int len = 0;
        switch (i % WIDE_COLUMNS) {
        case 0:
            len = snprintf(at, VALUE_SIZE, "%lu", number);
            break;
        case 1:
            len = snprintf(at, VALUE_SIZE, "customer-%lu", number);
            break;
        default:
            len = snprintf(at, VALUE_SIZE, "%lu.500", number);
            break;
        }
        rows[i] =
            (pen_value){.data = (const uint8_t *)at, .len = (uint32_t)len, .kind = PEN_VALUE_TEXT};
    }
    values[0] = hash_rows(share, &spec, rows);
    return true;
}

/* ---- probing the conflict table, as large as the former's, a transaction at a time as it does */

enum {
    PROBED = 3000000,
    CHANGES_A_TXN = 100,
    TXNS_A_TURN = 32, /* between two looks at the clock */
    CHANGES_A_BATCH = 1000,
    BATCHES_BEHIND = 8,
    BUCKETS = 64 * 1024,
    KEYS_MOST = 4,
    KEYS_A_TURN = CHANGES_A_TXN * TXNS_A_TURN * KEYS_MOST
};

/* Rows of a million with `key_count` keys each, their table's last, which every change reads. */
static void make_keys(pen_key *keys, size_t count, size_t key_count, uint64_t *state)
{
    uint64_t table_hash = pen_keyhash_table(16385);
    for (size_t k = 0; k < count; k++) {
        bool last = k % key_count == key_count - 1;
        keys[k] =
            (pen_key){.hash = last ? table_hash
                                   : (bench_random(state) % 1000000) * UINT64_C(0x9E3779B97F4A7C15),
                      .access = last ? PEN_ACCESS_READ : PEN_ACCESS_WRITE};
    }
}

static bool probe(double share, size_t key_count, double *values)
{
    static pen_key keys[KEYS_A_TURN];
    pen_conflict *table = pen_conflict_create(BUCKETS);
    size_t count = bench_count(PROBED / (CHANGES_A_TXN * TXNS_A_TURN), share);
    uint64_t state = 11;
    uint64_t sum = 0;
    uint64_t change = 0;
    double took = 0;
    for (size_t turn = 0; turn < count; turn++) {
        make_keys(keys, CHANGES_A_TXN * TXNS_A_TURN * key_count, key_count, &state);
        double started = bench_cpu_ns();
        for (size_t txn = 0; txn < TXNS_A_TURN; txn++, change += CHANGES_A_TXN) {
            const pen_key *its = keys + txn * CHANGES_A_TXN * key_count;
            uint64_t batch = 1 + change / CHANGES_A_BATCH;
            uint64_t committed = batch > BATCHES_BEHIND ? batch - BATCHES_BEHIND : 0;
            pen_conflict_prefetch(table, its, CHANGES_A_TXN * key_count);
            for (size_t c = 0; c < CHANGES_A_TXN; c++) {
                sum += pen_conflict_touch(table, its + c * key_count, key_count, batch, committed);
            }
        }
        took += bench_cpu_ns() - started;
    }
    bench_keep(sum);
    pen_conflict_destroy(table);
    double probed = (double)change * (double)key_count;
    values[0] = probed * 1e9 / took;
    values[1] = took / probed;
    return true;
}

bool bench_conflict(double share, double *values)
{
    return probe(share, 2, values);
}

bool bench_conflict_wide(double share, double *values)
{
    return probe(share, KEYS_MOST, values);
}
