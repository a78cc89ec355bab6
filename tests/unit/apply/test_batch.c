#include "apply/batch.h"

#include <criterion/criterion.h>

static pen_budget budget;
static pen_arena arena;

static void set_up(void)
{
    pen_budget_init(&budget, SIZE_MAX, NULL);
    pen_arena_init(&arena, &budget);
}

TestSuite(batch, .init = set_up);

static pen_txn *make_txn(pen_lsn commit_lsn, uint64_t changes, uint64_t bytes)
{
    pen_txn *txn = pen_arena_alloc(&arena, sizeof(*txn));
    pen_segment *segment = pen_arena_alloc(&arena, sizeof(*segment));
    *segment = (pen_segment){.block = arena.block};
    pen_block_acquire(arena.block);
    *txn = (pen_txn){.commit_lsn = commit_lsn,
                     .next = (pen_txn *)(uintptr_t)16, /* whatever it was in a ring before */
                     .first = segment,
                     .last = segment,
                     .change_count = changes,
                     .bytes = bytes};
    return txn;
}

Test(batch, keeps_its_transactions_in_order_and_counts_them)
{
    pen_batch *batch = pen_batch_create(7, 41);
    cr_assert_eq(batch->number, 7);
    cr_assert_eq(batch->previous_commit_lsn, 41);
    cr_assert_null(batch->first);
    pen_txn *txns[] = {make_txn(50, 3, 100), make_txn(60, 0, 10), make_txn(70, 5, 1)};
    for (size_t i = 0; i < PEN_COUNTOF(txns); i++) {
        pen_batch_add(batch, txns[i]);
        cr_assert_eq(batch->last, txns[i]);
        cr_assert_null(txns[i]->next);
    }
    cr_assert_eq(batch->first, txns[0]);
    cr_assert_eq(txns[0]->next, txns[1]);
    cr_assert_eq(txns[1]->next, txns[2]);
    cr_assert_eq(batch->txn_count, 3);
    cr_assert_eq(batch->change_count, 8);
    cr_assert_eq(batch->bytes, 111);
    pen_arena_deinit(&arena);
    cr_assert_gt(pen_budget_used(&budget), 0);
    pen_batch_destroy(batch);
    cr_assert_eq(pen_budget_used(&budget), 0);
}

Test(batch, destroy_of_an_empty_one)
{
    pen_batch_destroy(pen_batch_create(1, PEN_LSN_NONE));
}

Test(batch, an_empty_one_takes_any)
{
    const pen_batch_limits limits = {.rows = 1, .bytes = 1, .transactions = 1};
    pen_batch *batch = pen_batch_create(1, PEN_LSN_NONE);
    pen_txn *txn = make_txn(1, UINT32_MAX, UINT32_MAX);
    cr_assert(pen_batch_has_room(batch, txn, &limits));
    pen_txn_release(txn);
    pen_batch_destroy(batch);
}

/* Each limit by itself: what reaches it fits, one more does not. */
Test(batch, each_limit_counts)
{
    const pen_batch_limits wide = {.rows = 1000, .bytes = 1000, .transactions = 1000};
    pen_batch *batch = pen_batch_create(1, PEN_LSN_NONE);
    pen_batch_add(batch, make_txn(1, 10, 100));
    pen_txn *txn = make_txn(2, 5, 20);
    pen_batch_limits limits = wide;
    limits.transactions = 2;
    cr_assert(pen_batch_has_room(batch, txn, &limits));
    limits.transactions = 1;
    cr_assert_not(pen_batch_has_room(batch, txn, &limits));
    limits = wide;
    limits.rows = 15;
    cr_assert(pen_batch_has_room(batch, txn, &limits));
    limits.rows = 14;
    cr_assert_not(pen_batch_has_room(batch, txn, &limits));
    limits = wide;
    limits.bytes = 120;
    cr_assert(pen_batch_has_room(batch, txn, &limits));
    limits.bytes = 119;
    cr_assert_not(pen_batch_has_room(batch, txn, &limits));
    pen_txn_release(txn);
    pen_batch_destroy(batch);
}

Test(batch, is_full_at_any_of_its_limits)
{
    const pen_batch_limits limits = {.rows = 10, .bytes = 100, .transactions = 3};
    pen_batch *batch = pen_batch_create(1, PEN_LSN_NONE);
    cr_assert_not(pen_batch_is_full(batch, &limits));
    pen_batch_add(batch, make_txn(10, 4, 50));
    pen_batch_add(batch, make_txn(20, 5, 49));
    cr_assert_not(pen_batch_is_full(batch, &limits));
    pen_batch_add(batch, make_txn(30, 0, 0));
    cr_assert(pen_batch_is_full(batch, &limits));
    pen_batch_destroy(batch);
    batch = pen_batch_create(2, 30);
    pen_batch_add(batch, make_txn(40, 10, 0));
    cr_assert(pen_batch_is_full(batch, &limits));
    pen_batch_destroy(batch);
    batch = pen_batch_create(3, 40);
    pen_batch_add(batch, make_txn(50, 1, 100));
    cr_assert(pen_batch_is_full(batch, &limits));
    pen_batch_destroy(batch);
    pen_arena_deinit(&arena);
}

Test(batch, is_filled_to_a_part_of_its_limits)
{
    const pen_batch_limits limits = {.rows = 1000, .bytes = 4000, .transactions = 2};
    pen_batch_limits fill = pen_batch_fill(&limits, 25, UINT64_MAX, 1);
    cr_expect_eq(fill.rows, 250);
    cr_expect_eq(fill.bytes, 1000);
    cr_expect_eq(fill.transactions, 1, "less than one is one");
    fill = pen_batch_fill(&limits, 0, UINT64_MAX, 1);
    cr_expect_eq(fill.rows, 1);
    cr_expect_eq(fill.bytes, 1);
}

/* Each of the workers and the reader holds one, and a row in memory has up to eight times the bytes
 * that came for it. */
Test(batch, those_that_wait_to_be_filled_fit_into_memory)
{
    const pen_batch_limits limits = {.rows = UINT64_MAX, .bytes = 100 * 1000, .transactions = 100};
    pen_batch_limits fill = pen_batch_fill(&limits, 25, UINT64_C(8) * 4 * 600, 3);
    cr_expect_eq(fill.bytes, 600);
    cr_expect_eq(fill.rows, UINT64_MAX / 100 * 25 + UINT64_MAX % 100 * 25 / 100);
    cr_expect_eq(pen_batch_fill(&limits, 25, 1, 255).bytes, 1);
}
