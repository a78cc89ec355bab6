#include "core/conflict.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define READ  PEN_ACCESS_READ
#define WRITE PEN_ACCESS_WRITE

static uint64_t touch1(pen_conflict *table, uint64_t hash, pen_access access, uint64_t batch,
                       uint64_t committed)
{
    pen_key key = {hash, access};
    return pen_conflict_touch(table, &key, 1, batch, committed);
}

/* A hash that falls into bucket 0 whatever the size, with its own tag. */
static uint64_t in_bucket_0(uint32_t tag)
{
    return (uint64_t)tag << 32;
}

Test(conflict, a_write_waits_for_the_last_write)
{
    pen_conflict *table = pen_conflict_create(16);
    cr_assert_eq(touch1(table, 7, WRITE, 1, 0), 0);
    cr_assert_eq(touch1(table, 7, WRITE, 2, 0), 1);
    cr_assert_eq(touch1(table, 7, WRITE, 4, 0), 2);
    cr_assert_eq(touch1(table, 8, WRITE, 4, 0), 0, "another key");
    pen_conflict_destroy(table);
}

Test(conflict, what_has_committed_binds_nobody)
{
    pen_conflict *table = pen_conflict_create(16);
    touch1(table, 7, WRITE, 1, 0);
    cr_assert_eq(touch1(table, 7, WRITE, 2, 1), 0);
    cr_assert_eq(touch1(table, 7, WRITE, 3, 1), 2);
    pen_conflict_destroy(table);
}

Test(conflict, reads_do_not_bind_reads)
{
    pen_conflict *table = pen_conflict_create(16);
    cr_assert_eq(touch1(table, 7, READ, 1, 0), 0);
    cr_assert_eq(touch1(table, 7, READ, 2, 0), 0);
    cr_assert_eq(touch1(table, 7, WRITE, 3, 0), 2);
    cr_assert_eq(touch1(table, 7, READ, 4, 0), 3);
    cr_assert_eq(touch1(table, 7, READ, 5, 0), 3);
    pen_conflict_destroy(table);
}

Test(conflict, a_writer_waits_for_a_read_that_its_own_batch_hid)
{
    pen_conflict *table = pen_conflict_create(16);
    cr_assert_eq(touch1(table, 7, READ, 5, 0), 0);
    cr_assert_eq(touch1(table, 7, READ, 7, 0), 0);
    cr_assert_eq(touch1(table, 7, READ, 7, 0), 0);
    cr_assert_eq(touch1(table, 7, WRITE, 7, 0), 5);
    cr_assert_eq(touch1(table, 7, READ, 7, 0), 5);
    pen_conflict_destroy(table);
}

Test(conflict, a_bound_is_inherited_within_a_batch)
{
    pen_conflict *table = pen_conflict_create(16);
    touch1(table, 1, WRITE, 3, 0);
    pen_key both[] = {{1, WRITE}, {2, WRITE}};
    cr_assert_eq(pen_conflict_touch(table, both, 2, 5, 0), 3);
    cr_assert_eq(touch1(table, 2, READ, 5, 0), 3, "key 2 was written by a change bound to 3");
    cr_assert_eq(touch1(table, 2, WRITE, 5, 0), 3);
    cr_assert_eq(touch1(table, 2, WRITE, 6, 0), 5);
    pen_conflict_destroy(table);
}

Test(conflict, a_reader_hands_its_bound_to_a_writer_not_to_a_reader)
{
    pen_conflict *table = pen_conflict_create(16);
    touch1(table, 1, WRITE, 3, 0);
    pen_key keys[] = {{1, WRITE}, {2, READ}};
    cr_assert_eq(pen_conflict_touch(table, keys, 2, 5, 0), 3);
    cr_assert_eq(touch1(table, 2, READ, 5, 0), 0);
    cr_assert_eq(touch1(table, 2, WRITE, 5, 0), 3);
    pen_conflict_destroy(table);
}

Test(conflict, an_inherited_bound_outlives_its_commit)
{
    pen_conflict *table = pen_conflict_create(16);
    touch1(table, 1, WRITE, 3, 0);
    cr_assert_eq(touch1(table, 1, WRITE, 5, 2), 3);
    cr_assert_eq(touch1(table, 1, WRITE, 5, 4), 3, "else the two would change places");
    cr_assert_eq(touch1(table, 2, WRITE, 5, 4), 0);
    pen_conflict_destroy(table);
}

Test(conflict, a_full_bucket_raises_its_floor)
{
    pen_conflict *table = pen_conflict_create(1);
    for (uint32_t tag = 1; tag <= 4; tag++) {
        cr_assert_eq(touch1(table, in_bucket_0(tag), WRITE, tag, 0), 0);
    }
    cr_assert_eq(pen_conflict_evictions(table), 1, "batch 1's entry, the oldest");
    cr_assert_eq(touch1(table, in_bucket_0(2), READ, 5, 0), 2, "still there");
    cr_assert_eq(touch1(table, in_bucket_0(1), READ, 6, 0), 1, "the floor");
    cr_assert_eq(pen_conflict_evictions(table), 2, "batch 3's");
    cr_assert_eq(touch1(table, in_bucket_0(1), READ, 7, 0), 3, "the floor went into the entry");
    cr_assert_eq(touch1(table, in_bucket_0(9), READ, 8, 6), 0, "all of the floor has committed");
    pen_conflict_destroy(table);
}

Test(conflict, committed_entries_give_room)
{
    pen_conflict *table = pen_conflict_create(1);
    for (uint32_t batch = 1; batch <= 1000; batch++) {
        cr_assert_eq(touch1(table, in_bucket_0(batch), WRITE, batch, batch - 1), 0);
    }
    cr_assert_eq(pen_conflict_evictions(table), 0);
    pen_conflict_destroy(table);
}

Test(conflict, a_floor_of_the_own_batch_binds_to_the_one_before)
{
    pen_conflict *table = pen_conflict_create(1);
    for (uint32_t tag = 1; tag <= 4; tag++) {
        cr_assert_eq(touch1(table, in_bucket_0(tag), WRITE, 9, 0), 0);
    }
    cr_assert_eq(touch1(table, in_bucket_0(5), READ, 9, 0), 8);
    cr_assert_eq(touch1(table, in_bucket_0(5), READ, 9, 0), 8);
    cr_assert_eq(touch1(table, in_bucket_0(5), READ, 10, 0), 9);
    pen_conflict_destroy(table);
}

Test(conflict, the_first_batch_is_never_bound)
{
    pen_conflict *table = pen_conflict_create(1);
    for (uint32_t tag = 1; tag <= 20; tag++) {
        cr_assert_eq(touch1(table, in_bucket_0(tag % 7 + 1), WRITE, 1, 0), 0);
    }
    cr_assert_gt(pen_conflict_evictions(table), 0);
    pen_conflict_destroy(table);
}

Test(conflict, one_change_may_name_a_key_twice)
{
    pen_conflict *table = pen_conflict_create(16);
    pen_key keys[] = {{7, WRITE}, {7, READ}, {7, WRITE}};
    cr_assert_eq(pen_conflict_touch(table, keys, 3, 1, 0), 0);
    cr_assert_eq(pen_conflict_touch(table, keys, 3, 2, 0), 1);
    cr_assert_eq(pen_conflict_touch(table, keys, 3, 2, 0), 1);
    cr_assert_eq(pen_conflict_touch(table, keys, 0, 2, 0), 0, "no key, no bound");
    pen_conflict_destroy(table);
}

Test(conflict, the_keys_of_one_change_may_evict_each_other)
{
    pen_conflict *table = pen_conflict_create(1);
    /* Key 1 was read in batches 2 and 9; of batch 9's other keys, three push its entry out before
     * it is noted again, as read only. A writer of batch 9 must still wait for batch 2. */
    touch1(table, in_bucket_0(1), READ, 2, 0);
    pen_key keys[] = {{in_bucket_0(2), READ},
                      {in_bucket_0(3), READ},
                      {in_bucket_0(4), READ},
                      {in_bucket_0(5), READ},
                      {in_bucket_0(1), READ}};
    pen_conflict_touch(table, keys, PEN_COUNTOF(keys), 9, 0);
    cr_assert_geq(touch1(table, in_bucket_0(1), WRITE, 9, 0), 2);
    pen_conflict_destroy(table);
}

Test(conflict, a_key_whose_tag_is_zero_asks_the_floor)
{
    pen_conflict *table = pen_conflict_create(1);
    uint64_t start = UINT64_C(1) << 32;
    cr_assert_eq(touch1(table, in_bucket_0(3), WRITE, start, start - 1), 0);
    /* A table just emptied knows nothing of the batches before: only the floor speaks for them. */
    uint64_t next = start + (UINT64_C(1) << 31);
    touch1(table, in_bucket_0(3), WRITE, next, start - 1);
    cr_assert_eq(touch1(table, in_bucket_0(0), WRITE, next, start - 1), next - 1);
    pen_conflict_destroy(table);
}

Test(conflict, a_new_base_may_add_a_dependency_but_drops_none)
{
    pen_conflict *table = pen_conflict_create(16);
    uint64_t limit = UINT64_C(1) << 31;
    touch1(table, 1, WRITE, 1, 0);
    touch1(table, 7, WRITE, limit - 2, limit - 3);
    cr_assert_eq(touch1(table, 7, WRITE, limit - 1, limit - 3), limit - 2);
    cr_assert_eq(touch1(table, 7, WRITE, limit, limit - 3), limit - 1);
    cr_assert_eq(touch1(table, 8, WRITE, limit, limit - 3), limit - 1, "added");
    cr_assert_eq(touch1(table, 9, WRITE, limit + 1, limit - 1), 0);
    cr_assert_eq(touch1(table, 8, WRITE, limit + 1, limit - 1), limit);
    cr_assert_eq(touch1(table, 7, WRITE, 3 * limit, 3 * limit - 1), 0);
    cr_assert_eq(touch1(table, 7, WRITE, 3 * limit + 1, 0), 3 * limit);
    pen_conflict_destroy(table);
}

/* The property, against a model that remembers every change: keys are bits of a mask. */
#define MODEL_KEYS    64
#define MODEL_CHANGES 160

typedef struct model_change {
    uint64_t reads;
    uint64_t writes;
    uint64_t batch;
    uint64_t committed;
    uint64_t bound;
} model_change;

typedef struct model_run {
    size_t bucket_count;
    uint32_t key_count; /* at most MODEL_KEYS */
    uint32_t write_percent;
    uint32_t same_batch_percent; /* how often a change stays in the batch of the one before */
    uint64_t lag;                /* committed stays behind the batch by 1 to this */
    uint64_t first_batch;
    bool distinct; /* no two keys share a bucket: bounds must be exact */
} model_run;

static uint64_t next_random(uint64_t *state)
{
    /* splitmix64, of Steele, Lea and Flood's paper of 2014 */
    uint64_t mixed = *state += UINT64_C(0x9e3779b97f4a7c15);
    mixed = (mixed ^ mixed >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ mixed >> 27) * UINT64_C(0x94d049bb133111eb);
    return mixed ^ mixed >> 31;
}

static uint64_t below(uint64_t *state, uint64_t limit)
{
    return next_random(state) % limit;
}

static bool conflicts(const model_change *a, const model_change *b)
{
    return (a->writes & (b->reads | b->writes)) != 0 || (a->reads & b->writes) != 0;
}

/* Holds the newest change's bound against every change before it. */
static void check_newest(const model_change *changes, size_t newest, const model_run *run,
                         uint64_t seed)
{
    const model_change *chg = &changes[newest];
    uint64_t exact = 0;
    for (size_t i = 0; i < newest; i++) {
        const model_change *before = &changes[i];
        if (!conflicts(before, chg)) {
            continue;
        }
        uint64_t least = 0;
        if (before->batch == chg->batch) {
            least = before->bound;
        } else if (before->batch > chg->committed) {
            least = before->batch;
        }
        exact = least > exact ? least : exact;
    }
    cr_assert_lt(chg->bound, chg->batch, "seed %lu", seed);
    cr_assert_geq(chg->bound, exact, "seed %lu: change %zu of batch %lu dropped %lu, has %lu", seed,
                  newest, chg->batch, exact, chg->bound);
    if (run->distinct && chg->bound != exact) {
        /* A read that was live when its batch's newer one hid it may have committed since. */
        cr_assert_leq(chg->bound, chg->committed, "seed %lu: change %zu: %lu instead of %lu", seed,
                      newest, chg->bound, exact);
    }
}

static void run_model(const model_run *run, uint64_t seed)
{
    uint64_t state = seed;
    uint64_t hashes[MODEL_KEYS];
    for (size_t i = 0; i < run->key_count; i++) {
        hashes[i] = next_random(&state);
        if (run->distinct) {
            hashes[i] = (hashes[i] & ~UINT64_C(0xff)) | i;
        }
    }
    pen_conflict *table = pen_conflict_create(run->bucket_count);
    model_change changes[MODEL_CHANGES];
    uint64_t batch = run->first_batch;
    uint64_t committed = batch - 1;
    for (size_t i = 0; i < MODEL_CHANGES; i++) {
        if (i > 0 && below(&state, 100) >= run->same_batch_percent) {
            batch += 1 + (below(&state, 8) == 0 ? below(&state, 3) : 0);
        }
        /* Committed advances on its own, in the middle of batches too, and never lags too far. */
        uint64_t lag = 1 + below(&state, run->lag);
        if (batch > lag && batch - lag > committed) {
            committed = batch - lag;
        }
        model_change *chg = &changes[i];
        *chg = (model_change){.batch = batch, .committed = committed};
        pen_key keys[5];
        size_t key_count = 1 + below(&state, PEN_COUNTOF(keys));
        for (size_t j = 0; j < key_count; j++) {
            uint64_t key = below(&state, run->key_count);
            bool write = below(&state, 100) < run->write_percent;
            keys[j] = (pen_key){hashes[key], write ? WRITE : READ};
            *(write ? &chg->writes : &chg->reads) |= UINT64_C(1) << key;
        }
        chg->bound = pen_conflict_touch(table, keys, key_count, batch, committed);
        check_newest(changes, i, run, seed);
    }
    pen_conflict_destroy(table);
}

static void run_models(model_run run, uint64_t first_seed, size_t runs)
{
    static const uint32_t write_percents[] = {10, 30, 60, 100};
    static const uint32_t same_batch_percents[] = {0, 50, 80, 95};
    static const uint64_t lags[] = {1, 3, 10, 1000};
    static const uint32_t key_counts[] = {2, 5, 12, MODEL_KEYS};
    for (size_t i = 0; i < runs; i++) {
        run.write_percent = write_percents[i % 4];
        run.same_batch_percent = same_batch_percents[i / 4 % 4];
        run.lag = lags[i / 16 % 4];
        run.key_count = key_counts[i / 64 % 4];
        run_model(&run, first_seed + i);
    }
}

Test(conflict, property_one_bucket)
{
    run_models((model_run){.bucket_count = 1, .first_batch = 1}, 10000, 2048);
}

Test(conflict, property_two_buckets)
{
    run_models((model_run){.bucket_count = 2, .first_batch = 1}, 20000, 2048);
}

Test(conflict, property_sixteen_buckets)
{
    run_models((model_run){.bucket_count = 16, .first_batch = 1}, 30000, 2048);
}

Test(conflict, property_exact_where_there_is_room)
{
    run_models((model_run){.bucket_count = 256, .first_batch = 1, .distinct = true}, 40000, 2048);
}

Test(conflict, property_across_a_new_base)
{
    /* Base 0 is left at 2^31; these runs come to it after some batches, each at another place. */
    for (uint64_t before = 0; before < 16; before++) {
        model_run run = {.bucket_count = (size_t)1 << before % 5,
                         .first_batch = (UINT64_C(1) << 31) - 1 - before};
        run_models(run, 50000 + 1000 * before, 256);
    }
}
