#include "core/arena.h"
#include "core/thread.h"

#include <criterion/criterion.h>
#include <string.h>

static void setup(pen_budget *budget, pen_arena *arena, size_t limit)
{
    pen_budget_init(budget, limit, NULL);
    pen_arena_init(arena, budget);
}

Test(arena, begins_empty)
{
    pen_budget budget;
    pen_arena arena;
    setup(&budget, &arena, 1);
    cr_assert_eq(pen_arena_room(&arena), 0);
    cr_assert_eq(pen_budget_used(&budget), 0);
    cr_assert_eq(pen_budget_peak(&budget), 0);
    cr_assert_not(pen_budget_exhausted(&budget));
    pen_arena_deinit(&arena);
    pen_arena_deinit(&arena);
}

Test(arena, allocations_are_aligned_and_apart)
{
    pen_budget budget;
    pen_arena arena;
    setup(&budget, &arena, SIZE_MAX);
    uint8_t *before = NULL;
    for (size_t size = 1; size < 200; size++) {
        uint8_t *at = pen_arena_alloc(&arena, size);
        cr_assert_eq((uintptr_t)at % 16, 0);
        memset(at, (int)size, size);
        if (before != NULL) {
            cr_assert_geq(at, before + size - 1);
            cr_assert_eq(before[size - 2], (uint8_t)(size - 1), "the one before is overwritten");
        }
        before = at;
    }
    cr_assert_eq(pen_budget_used(&budget), PEN_BLOCK_SIZE);
    pen_arena_deinit(&arena);
    cr_assert_eq(pen_budget_used(&budget), 0);
}

Test(arena, block_is_filled_to_the_last_byte)
{
    pen_budget budget;
    pen_arena arena;
    setup(&budget, &arena, SIZE_MAX);
    (void)pen_arena_alloc(&arena, 16);
    const pen_block *block = arena.block;
    cr_assert_eq(pen_arena_room(&arena), PEN_BLOCK_SIZE - 16);
    uint8_t *rest = pen_arena_alloc(&arena, PEN_BLOCK_SIZE - 16);
    cr_assert_eq(arena.block, block);
    rest[PEN_BLOCK_SIZE - 17] = 1;
    cr_assert_eq(pen_arena_room(&arena), 0);
    (void)pen_arena_alloc(&arena, 1);
    /* Nobody else held the first block: only the second is left. */
    cr_assert_eq(pen_budget_used(&budget), PEN_BLOCK_SIZE);
    pen_arena_deinit(&arena);
}

Test(arena, large_request_gets_a_block_of_its_own)
{
    pen_budget budget;
    pen_arena arena;
    setup(&budget, &arena, SIZE_MAX);
    size_t size = 5 * (size_t)PEN_BLOCK_SIZE + 1;
    uint8_t *at = pen_arena_alloc(&arena, size);
    memset(at, 1, size);
    cr_assert_eq(pen_budget_used(&budget), size + 15);
    cr_assert_eq(pen_arena_room(&arena), 0);
    pen_arena_deinit(&arena);
    cr_assert_eq(pen_budget_used(&budget), 0);
    cr_assert_eq(pen_budget_peak(&budget), size + 15);
}

Test(arena, reserve_takes_nothing)
{
    pen_budget budget;
    pen_arena arena;
    setup(&budget, &arena, SIZE_MAX);
    pen_block *block = pen_arena_reserve(&arena, 100);
    cr_assert_eq(block, arena.block);
    cr_assert_eq(block->used, 0);
    cr_assert_eq(pen_arena_reserve(&arena, PEN_BLOCK_SIZE), block);
    cr_assert_eq(pen_arena_alloc(&arena, 100), block->data);
    cr_assert_eq(block->used, 112);
    /* Kept alive, or the new block could be given the old one's address. */
    pen_block_acquire(block);
    cr_assert_neq(pen_arena_reserve(&arena, PEN_BLOCK_SIZE), block);
    pen_block_release(block);
    pen_arena_deinit(&arena);
}

Test(arena, block_lives_until_its_last_reference)
{
    pen_budget budget;
    pen_arena arena;
    setup(&budget, &arena, 2 * (size_t)PEN_BLOCK_SIZE);
    uint8_t *at = pen_arena_alloc(&arena, 10);
    pen_block *block = arena.block;
    pen_block_acquire(block);
    pen_block_acquire(block);
    (void)pen_arena_alloc(&arena, PEN_BLOCK_SIZE);
    cr_assert_neq(arena.block, block);
    at[9] = 1;
    cr_assert(pen_budget_exhausted(&budget), "at the limit is used up");
    pen_block_release(block);
    at[9] = 2;
    cr_assert_eq(pen_budget_used(&budget), 2 * PEN_BLOCK_SIZE);
    pen_block_release(block);
    cr_assert_eq(pen_budget_used(&budget), PEN_BLOCK_SIZE);
    cr_assert_not(pen_budget_exhausted(&budget));
    pen_arena_deinit(&arena);
    cr_assert_eq(pen_budget_peak(&budget), 2 * PEN_BLOCK_SIZE);
}

Test(arena, release_under_the_limit_wakes_the_reader)
{
    pen_error err;
    pen_parker reader;
    cr_assert(pen_parker_init(&reader, &err));
    pen_budget budget;
    pen_arena arena;
    pen_budget_init(&budget, 2 * (size_t)PEN_BLOCK_SIZE, &reader);
    pen_arena_init(&arena, &budget);
    pen_block *blocks[3];
    for (int i = 0; i < 3; i++) {
        (void)pen_arena_alloc(&arena, PEN_BLOCK_SIZE);
        blocks[i] = arena.block;
        pen_block_acquire(arena.block);
    }
    pen_parker_prepare(&reader);
    pen_block_release(blocks[0]);
    /* Two of two blocks are in use: still nothing to wake for. */
    cr_assert_eq(pen_parker_park(&reader, -1, 0, 0), 0);
    pen_parker_prepare(&reader);
    pen_block_release(blocks[1]);
    cr_assert_neq(pen_parker_park(&reader, -1, 0, 0) & PEN_PARK_WOKEN, 0);
    pen_block_release(blocks[2]);
    pen_arena_deinit(&arena);
    cr_assert_eq(pen_budget_used(&budget), 0);
    pen_parker_deinit(&reader);
}
