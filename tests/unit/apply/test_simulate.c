/* Drains small enough to be worked out by hand. Costs are in nanoseconds and round, times exact. */
#include "apply/hotspots.h"
#include "apply/simulate.h"
#include "tests/unit/apply/change_rig.h"

#include "core/feed.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { CHANGES_MAX = 128, KEYS_A_CHANGE = 2, TABLES = 2 };

#define UNLIMITED                                                                                  \
    {                                                                                              \
        .rows = UINT64_MAX, .bytes = UINT64_MAX, .transactions = UINT64_MAX                        \
    }

static pen_costs costs;
static pen_simulation_options options;
static const pen_simulation_watcher *watcher;
static pen_simulation *sim;
static pen_lsn lsn;

/* One batch for each transaction, of rows that cost 100, and nothing else costs anything. */
static void setup(void)
{
    costs = (pen_costs){.row = 100};
    options = (pen_simulation_options){.workers = 1,
                                       .limits = UNLIMITED,
                                       .fill = {.rows = 1, .bytes = 1, .transactions = 1},
                                       .conflict_memory = 1024 * 1024};
    options.limits.transactions = 1;
    watcher = NULL;
    sim = NULL;
    lsn = 0;
}

TestSuite(simulate, .init = setup, .timeout = 60);

static uint64_t hash_of(uint64_t key)
{
    return key == 0 ? 0 : key * UINT64_C(0x9E3779B97F4A7C15);
}

typedef struct txn {
    pen_txn txn;
    pen_segment segment;
    pen_change changes[CHANGES_MAX];
    pen_played_change played[CHANGES_MAX];
    pen_change_keys counts[CHANGES_MAX];
    pen_key keys[CHANGES_MAX * KEYS_A_CHANGE];
    uint32_t count;
    size_t key_count;
} txn;

/* A change that writes one or two keys; 0 for no second one. */
static void touch(txn *it, uint64_t key, uint64_t other)
{
    uint32_t i = it->count++;
    cr_assert_lt(i, CHANGES_MAX);
    it->changes[i] = (pen_change){.kind = PEN_CHANGE_UPDATE};
    it->played[i] =
        (pen_played_change){.row_hash = hash_of(key), .kind = PEN_CHANGE_UPDATE, .table = 0};
    it->keys[it->key_count++] = (pen_key){hash_of(key), PEN_ACCESS_WRITE};
    if (other != 0) {
        it->keys[it->key_count++] = (pen_key){hash_of(other), PEN_ACCESS_WRITE};
    }
    it->counts[i] = (pen_change_keys){.key_count = other != 0 ? 2 : 1};
}

static void begin(void)
{
    if (sim == NULL) {
        sim = pen_simulation_create(&options, &costs, watcher);
    }
}

static void add(txn *it)
{
    begin();
    for (uint32_t i = 0; i + 1 < it->count; i++) {
        it->changes[i].next = &it->changes[i + 1];
    }
    it->segment = (pen_segment){
        .first = it->changes, .last = &it->changes[it->count - 1], .change_count = it->count};
    it->txn = (pen_txn){.commit_lsn = ++lsn,
                        .first = &it->segment,
                        .last = &it->segment,
                        .change_count = it->count,
                        .bytes = it->count};
    const pen_played played = {
        .txn = &it->txn,
        .keys = {.keys = it->keys, .key_count = it->key_count, .changes = it->counts},
        .changes = it->played};
    pen_simulation_add(sim, &played);
}

/* A transaction of one change. */
static void add_one(uint64_t key, uint64_t other)
{
    txn it = {.count = 0};
    touch(&it, key, other);
    add(&it);
}

static void add_large(uint64_t rows)
{
    static pen_feed sign;
    static uint64_t by_table[TABLES];
    by_table[0] = rows;
    pen_txn large = {.commit_lsn = ++lsn, .change_count = rows, .feed = &sign};
    const pen_played played = {.txn = &large, .large_rows = by_table};
    begin();
    pen_simulation_add(sim, &played);
}

static pen_simulated finish(void)
{
    pen_simulated result = pen_simulation_finish(sim);
    const pen_path *path = &result.path;
    double sum =
        path->receive + path->free_rows + path->bound_rows + path->commits + path->processors;
    /* The chain of what waited for what is all of the time. */
    cr_expect_lt(fabs(sum - result.ns), 1e-6 * (result.ns + 1), "%f of %f", sum, result.ns);
    pen_simulation_destroy(sim);
    sim = NULL;
    lsn = 0;
    return result;
}

static void expect_ns(const pen_simulated *result, double ns)
{
    cr_expect_lt(fabs(result->ns - ns), 1e-6 * (ns + 1), "%f ns, not %f", result->ns, ns);
}

/* ---- who waits for whom ---- */

Test(simulate, independent_rows_scale_with_the_workers)
{
    for (unsigned workers = 1; workers <= 16; workers *= 2) {
        options.workers = workers;
        for (uint64_t key = 1; key <= 16; key++) {
            add_one(key, 0);
        }
        pen_simulated result = finish();
        expect_ns(&result, 1600.0 / workers);
        cr_expect_float_eq(result.first_commit_ns, 100, 1e-6);
        cr_expect_eq(result.bound_rows, 0);
        cr_expect_eq(result.batches, 16);
        cr_expect_eq(result.transactions, 16);
        cr_expect_float_eq(result.busy, 1, 1e-9);
    }
}

Test(simulate, one_hot_row_does_not_scale)
{
    for (unsigned workers = 1; workers <= 16; workers *= 4) {
        options.workers = workers;
        for (int i = 0; i < 16; i++) {
            add_one(7, 0);
        }
        pen_simulated result = finish();
        expect_ns(&result, 1600);
    }
}

/* Each shares a row with the one before: as bad as one hot row. */
Test(simulate, a_chain_does_not_scale)
{
    options.workers = 8;
    for (uint64_t key = 1; key <= 16; key++) {
        add_one(key, key + 1);
    }
    pen_simulated result = finish();
    expect_ns(&result, 1600);
    cr_expect_gt(result.path.bound_rows, 1400);
}

/* Three rows of their own and a hot one each. The first goes out in one flight, 400; the others
 * have their own rows sent by then, and the hot one follows at each turn. */
Test(simulate, free_rows_run_beside_bound_ones)
{
    options.workers = 8;
    for (uint64_t i = 0; i < 8; i++) {
        txn it = {.count = 0};
        touch(&it, 100 + 3 * i, 0);
        touch(&it, 101 + 3 * i, 0);
        touch(&it, 102 + 3 * i, 0);
        touch(&it, 7, 0);
        add(&it);
    }
    pen_simulated result = finish();
    expect_ns(&result, 400 + 7 * 100);
    cr_expect_eq(result.bound_rows, 7);
    cr_expect_eq(result.free_rows, 25);
    cr_expect_float_eq(result.path.free_rows, 400, 1e-6);
    cr_expect_float_eq(result.path.bound_rows, 700, 1e-6);
}

/* Two batches that share a row are apart by enough for the first to have committed. */
Test(simulate, a_row_whose_batch_has_committed_is_free)
{
    options.workers = 2;
    add_one(7, 0); /* 0 to 100 by the first worker, as by the second */
    add_one(8, 0);
    add_one(7, 0); /* taken at 100 */
    add_one(8, 0);
    pen_simulated result = finish();
    expect_ns(&result, 200);
    cr_expect_eq(result.bound_rows, 0);
}

/* The small one before takes 100, then it is the large one's turn; behind it everything waits. */
Test(simulate, a_large_transaction_runs_at_its_turn)
{
    options.workers = 4;
    costs.table_count = TABLES;
    add_one(1, 0);
    add_large(10);
    add_one(2, 0);
    pen_simulated result = finish();
    expect_ns(&result, 100 + 10 * 100 + 100);
    cr_expect_eq(result.large_rows, 10);
    cr_expect_eq(result.bound_rows, 1);
    cr_expect_eq(result.changes, 12);
}

/* ---- costs ---- */

/* Whose turn has come sends all in one flight. The others have sent what is free by then, and each
 * COMMIT is one round trip behind the one before. */
Test(simulate, commits_in_order_cost_a_round_trip_each)
{
    costs = (pen_costs){.round_trip = 50};
    options.workers = 8;
    for (uint64_t key = 1; key <= 8; key++) {
        add_one(key, 0);
    }
    pen_simulated result = finish();
    expect_ns(&result, 8 * 50);
    cr_expect_float_eq(result.path.commits, 8 * 50, 1e-6);
}

/* Of more than 64 changes the tags are looked at before the COMMIT: two round trips. */
Test(simulate, a_large_batch_at_its_turn_costs_two_round_trips)
{
    for (uint32_t count = 64; count <= 65; count++) {
        costs = (pen_costs){.round_trip = 50};
        txn it = {.count = 0};
        for (uint32_t i = 0; i < count; i++) {
            touch(&it, 1 + i, 0);
        }
        add(&it);
        pen_simulated result = finish();
        expect_ns(&result, count == 64 ? 50 : 100);
    }
}

Test(simulate, processors_are_shared_evenly)
{
    costs.cores = 2;
    options.workers = 4;
    for (uint64_t key = 1; key <= 8; key++) {
        add_one(key, 0);
    }
    pen_simulated result = finish();
    expect_ns(&result, 8 * 100 / 2);
    cr_expect_float_eq(result.path.processors, 200, 1e-6);
    cr_expect_float_eq(result.path.free_rows, 200, 1e-6);
}

Test(simulate, waiting_needs_no_processor)
{
    double latency[TABLES] = {1000, 5};
    costs = (pen_costs){.row_latency = latency, .table_count = TABLES, .cores = 1};
    options.workers = 4;
    for (uint64_t key = 1; key <= 8; key++) {
        add_one(key, 0);
    }
    pen_simulated result = finish();
    expect_ns(&result, 2 * 1000);
}

/* 8 changes are received one after the other; the last one's row comes behind. */
Test(simulate, receiving_is_one_after_the_other)
{
    costs = (pen_costs){.receive = 100, .row = 10};
    options.workers = 4;
    for (uint64_t key = 1; key <= 8; key++) {
        add_one(key, 0);
    }
    pen_simulated result = finish();
    expect_ns(&result, 8 * 100 + 10);
    cr_expect_float_eq(result.path.receive, 800, 1e-6);
}

/* The dispatcher needs a processor too. */
Test(simulate, receiving_shares_the_processors)
{
    costs = (pen_costs){.receive = 100, .row = 100, .cores = 1};
    for (uint64_t key = 1; key <= 4; key++) {
        add_one(key, 0);
    }
    pen_simulated result = finish();
    expect_ns(&result, 4 * 200);
}

/* The first batch is taken at 100, so the third transaction finds no room until 1100. Then the last
 * one's 30 changes are received until 4100; the worker has been idle since 3100 and takes it at
 * once.
 */
Test(simulate, the_dispatcher_waits_for_room)
{
    costs = (pen_costs){.receive = 100, .batch = 1000};
    for (uint64_t key = 1; key <= 3; key++) {
        add_one(key, 0);
    }
    txn last = {.count = 0};
    for (uint32_t i = 0; i < 30; i++) {
        touch(&last, 10 + i, 0);
    }
    add(&last);
    pen_simulated result = finish();
    expect_ns(&result, 5100);
    cr_expect_float_eq(result.path.commits, 2000, 1e-6);
    cr_expect_float_eq(result.path.receive, 3100, 1e-6);
}

/* A statement for each row, or one for a table's rows, of which one that changes often is one. */
Test(simulate, sets_merge_rows_and_statements)
{
    options.limits.transactions = 16;
    options.fill.transactions = options.fill.rows = options.fill.bytes = 16;
    for (int sets = 0; sets <= 1; sets++) {
        costs = (pen_costs){.row = 100, .statement = 10, .batch = 5, .sets = sets == 1};
        for (uint64_t i = 0; i < 16; i++) {
            add_one(1 + i / 2, 0); /* 8 rows, each twice */
        }
        pen_simulated result = finish();
        cr_expect_eq(result.batches, 1);
        expect_ns(&result, sets ? 8 * 100 + 10 + 5 : 16 * 110 + 5);
    }
    /* Of fewer rows each is a statement. */
    costs = (pen_costs){.row = 100, .statement = 10, .sets = true};
    for (uint64_t i = 0; i < 16; i++) {
        add_one(1 + i % 7, 0);
    }
    pen_simulated result = finish();
    expect_ns(&result, 7 * 110);
    cr_expect_eq(result.sent_rows, 7);
    cr_expect_eq(result.statements, 7);
}

/* A set has 2,000 rows at most. */
Test(simulate, many_rows_of_a_table_are_several_sets)
{
    enum { ROWS = 2001 };
    options.limits.transactions = ROWS;
    options.fill.transactions = options.fill.rows = options.fill.bytes = ROWS;
    costs = (pen_costs){.row = 100, .statement = 10, .sets = true};
    for (uint64_t key = 1; key <= ROWS; key++) {
        add_one(key, 0);
    }
    pen_simulated result = finish();
    cr_expect_eq(result.sent_rows, ROWS);
    cr_expect_eq(result.statements, 2);
    expect_ns(&result, ROWS * 100 + 2 * 10);
}

/* As a worker has it: fewer than eight changes are not planned. */
Test(simulate, a_small_batch_is_sent_row_by_row)
{
    options.limits.transactions = 7;
    options.fill.transactions = options.fill.rows = options.fill.bytes = 7;
    costs = (pen_costs){.row = 100, .statement = 10, .sets = true};
    for (uint64_t i = 0; i < 7; i++) {
        add_one(5, 0);
    }
    pen_simulated result = finish();
    expect_ns(&result, 7 * 110);
}

Test(simulate, a_large_transaction_goes_in_sets)
{
    for (int sets = 0; sets <= 1; sets++) {
        costs = (pen_costs){.row = 100, .statement = 10, .sets = sets == 1};
        add_large(5000);
        pen_simulated result = finish();
        expect_ns(&result, sets ? 5000 * 100 + 3 * 10 : 5000 * 110);
    }
}

/* ---- batches ---- */

/* The idle worker takes the first alone; while it is at that the next ones fill up. */
Test(simulate, batches_fill_while_all_workers_are_busy)
{
    options.limits.transactions = 4;
    for (uint64_t key = 1; key <= 8; key++) {
        add_one(key, 0);
    }
    pen_simulated result = finish();
    cr_expect_eq(result.batches, 3); /* 1, 4, 3 */
    expect_ns(&result, 800);
}

Test(simulate, a_batch_waits_to_be_filled)
{
    options.limits.transactions = 4;
    options.fill = (pen_batch_limits){.rows = 3, .bytes = UINT64_MAX, .transactions = UINT64_MAX};
    options.workers = 8;
    for (uint64_t key = 1; key <= 8; key++) {
        add_one(key, 0);
    }
    pen_simulated result = finish();
    cr_expect_eq(result.batches, 3); /* 3, 3 and what is left: 2 */
    expect_ns(&result, 300);
}

/* 256 at first, and as many while those are under way; then what takes 200 ms. */
Test(simulate, batches_follow_what_rows_take)
{
    const double latency[TABLES] = {1e6};
    const pen_batch_limits unlimited = UNLIMITED;
    pen_filling filling;
    pen_filling_init(&filling, &unlimited, 100, UINT64_MAX, 1);
    options.limits = unlimited;
    options.filling = &filling;
    costs = (pen_costs){.row_latency = latency, .table_count = TABLES};
    for (uint64_t key = 1; key <= 1000; key++) {
        add_one(key, 0);
    }
    pen_simulated result = finish();
    cr_expect_eq(result.batches, 5, "%ju", (uintmax_t)result.batches); /* 2 * 256, 2 * 200, 88 */
    expect_ns(&result, 1000 * 1e6);
}

/* The first takes 10 ms and the second 20. Of the third 8 rows are bound to the first and 2 to the
 * second: with a further wave the 8 are there when the second commits. */
static double third_with(pen_filling *filling)
{
    txn its[3] = {{.count = 0}, {.count = 0}, {.count = 0}};
    options.workers = 3;
    options.filling = filling;
    costs = (pen_costs){.row = 1e6};
    for (uint64_t key = 1; key <= 30; key++) {
        touch(&its[key <= 10 ? 0 : 1], key, 0);
    }
    for (uint64_t key = 3; key <= 12; key++) {
        touch(&its[2], key, 0);
    }
    for (uint64_t i = 0; i < 3; i++) {
        add(&its[i]);
    }
    pen_simulated result = finish();
    cr_expect_eq(result.bound_rows, filling == NULL ? 10 : 2);
    cr_expect_eq(result.free_rows, filling == NULL ? 30 : 38);
    return result.ns;
}

Test(simulate, what_is_bound_to_an_earlier_batch_does_not_wait_for_the_turn)
{
    pen_filling filling;
    pen_filling_init(&filling, &options.limits, 100, UINT64_MAX, 3);
    cr_expect_float_eq(third_with(NULL), 30e6, 1);
    cr_expect_float_eq(third_with(&filling), 22e6, 1);
}

Test(simulate, nothing_takes_no_time)
{
    begin();
    pen_simulated result = finish();
    expect_ns(&result, 0);
    cr_expect_eq(result.batches, 0);
}

/* ---- names ---- */

/* 12 times one row, beside rows of their own: all but the first wait for it. */
Test(simulate, hotspots_name_the_row)
{
    rig at;
    rig_init(&at);
    rig_key_column(&at, "id");
    rig_column(&at, "n");
    const pen_key_column column = {.index = 0, .form = PEN_KEY_INT};
    pen_target_key unique = {.spec = {.seed = 5, .columns = &column, .column_count = 1},
                             .is_identity = true,
                             .in_identity = true};
    at.target.uniques = &unique;
    at.target.unique_count = 1;
    pen_hotspots *hot = pen_hotspots_create();
    watcher = pen_hotspots_watcher(hot);
    options.workers = 16;
    for (uint64_t i = 0; i < 12; i++) {
        row value[2];
        txn it = {.count = 0};
        char own[16];
        snprintf(own, sizeof(own), "%lu x", 100 + i);
        touch(&it, 1, 0);
        touch(&it, 1, 0);
        it.changes[0] = change_of(&at, 'U', 0, NULL, NULL, &value[0], "7 x");
        it.changes[1] = change_of(&at, 'U', 0, NULL, NULL, &value[1], own);
        for (int c = 0; c < 2; c++) {
            cr_assert_eq(pen_keyhash_row(&unique.spec, it.changes[c].new_tuple.values, NULL,
                                         &it.keys[c].hash),
                         PEN_KEY_HASHED);
        }
        add(&it);
    }
    pen_simulated result = finish();
    cr_expect_eq(result.bound_rows, 11);
    const pen_hotspot *keys;
    cr_assert_eq(pen_hotspots_sort(hot, &keys), 1);
    cr_expect_str_eq(keys[0].name, "shop.item (id) = (7)");
    cr_expect_eq(keys[0].waits, 11);
    cr_expect_float_eq(keys[0].ns, 1100, 1e-6);
    cr_expect_eq(pen_hotspots_table(hot, 0).waits, 11);
    cr_expect_eq(pen_hotspots_table(hot, 1).waits, 0);
    pen_hotspots_destroy(hot);
}
