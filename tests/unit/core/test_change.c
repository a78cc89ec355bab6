#include "core/change.h"

#include <criterion/criterion.h>

static pen_budget budget;
static pen_arena arena;

static void set_up(void)
{
    pen_budget_init(&budget, SIZE_MAX, NULL);
    pen_arena_init(&arena, &budget);
}

TestSuite(change, .init = set_up);

static pen_segment *add_segment(pen_txn *txn)
{
    pen_segment *segment = pen_arena_alloc(&arena, sizeof(*segment));
    *segment = (pen_segment){.block = arena.block};
    pen_block_acquire(arena.block);
    if (txn->last == NULL) {
        txn->first = segment;
    } else {
        txn->last->next = segment;
    }
    txn->last = segment;
    return segment;
}

/* A transaction of `segments` segments; each but the first begins a block of its own. */
static pen_txn *make_txn(size_t segments)
{
    pen_txn *txn = pen_arena_alloc(&arena, sizeof(*txn));
    *txn = (pen_txn){.commit_lsn = 1};
    for (size_t i = 0; i < segments; i++) {
        if (i > 0) {
            (void)pen_arena_alloc(&arena, PEN_BLOCK_SIZE - 16);
            (void)pen_arena_alloc(&arena, PEN_BLOCK_SIZE / 2);
        }
        add_segment(txn);
    }
    return txn;
}

/* AddressSanitizer sees when the transaction, which lies in its first block, is read too late. */
Test(change, release_gives_every_block_back)
{
    for (size_t segments = 1; segments < 6; segments++) {
        pen_txn *txn = make_txn(segments);
        pen_arena_deinit(&arena);
        cr_assert_gt(pen_budget_used(&budget), (segments - 1) * PEN_BLOCK_SIZE / 2);
        pen_txn_release(txn);
        cr_assert_eq(pen_budget_used(&budget), 0, "%zu segments", segments);
    }
}

Test(change, transactions_of_one_block_are_released_in_any_order)
{
    pen_txn *first = make_txn(1);
    pen_txn *second = make_txn(1);
    cr_assert_eq(first->first->block, second->first->block);
    pen_arena_deinit(&arena);
    pen_txn_release(first);
    cr_assert_eq(second->commit_lsn, 1);
    cr_assert_gt(pen_budget_used(&budget), 0);
    pen_txn_release(second);
    cr_assert_eq(pen_budget_used(&budget), 0);
}
