#include "core/arena.h"

#include "core/thread.h"

#include <stdlib.h>

void pen_budget_init(pen_budget *budget, size_t limit, struct pen_parker *reader)
{
    budget->limit = limit;
    budget->reader = reader;
    atomic_init(&budget->used, 0);
    atomic_init(&budget->peak, 0);
}

size_t pen_budget_used(const pen_budget *budget)
{
    return atomic_load_explicit(&budget->used, memory_order_relaxed);
}

size_t pen_budget_peak(const pen_budget *budget)
{
    return atomic_load_explicit(&budget->peak, memory_order_relaxed);
}

bool pen_budget_exhausted(const pen_budget *budget)
{
    return pen_budget_used(budget) >= budget->limit;
}

static pen_block *block_create(pen_budget *budget, size_t size)
{
    pen_block *block = pen_malloc(sizeof(*block) + size);
    atomic_init(&block->refs, 1);
    block->size = size;
    block->used = 0;
    block->budget = budget;
    size_t used = atomic_fetch_add_explicit(&budget->used, size, memory_order_relaxed) + size;
    /* Only the reader creates blocks, so nobody else raises the peak. */
    if (used > atomic_load_explicit(&budget->peak, memory_order_relaxed)) {
        atomic_store_explicit(&budget->peak, used, memory_order_relaxed);
    }
    return block;
}

void pen_block_acquire(pen_block *block)
{
    atomic_fetch_add_explicit(&block->refs, 1, memory_order_relaxed);
}

void pen_block_release(pen_block *block)
{
    /* [BLOCK-1] release and acquire in one: the last holder frees only after every other holder's
     * reads of the block. */
    uint32_t before = atomic_fetch_sub_explicit(&block->refs, 1, memory_order_acq_rel);
    PEN_ASSERT(before > 0);
    if (before > 1) {
        return;
    }
    pen_budget *budget = block->budget;
    size_t size = block->size;
    free(block);
    /* Relaxed is enough: the wake orders it before the reader's next look ([PARK-1]). Exactly one
     * release crosses the limit downwards while the reader, who alone adds, waits. */
    size_t used = atomic_fetch_sub_explicit(&budget->used, size, memory_order_relaxed);
    if (used >= budget->limit && used - size < budget->limit && budget->reader != NULL) {
        pen_parker_wake(budget->reader);
    }
}

void pen_arena_init(pen_arena *arena, pen_budget *budget)
{
    arena->budget = budget;
    arena->block = NULL;
}

void pen_arena_deinit(pen_arena *arena)
{
    if (arena->block != NULL) {
        pen_block_release(arena->block);
        arena->block = NULL;
    }
}

static size_t round_up(size_t size)
{
    return (size + 15) & ~(size_t)15;
}

size_t pen_arena_room(const pen_arena *arena)
{
    return arena->block == NULL ? 0 : arena->block->size - arena->block->used;
}

pen_block *pen_arena_reserve(pen_arena *arena, size_t size)
{
    size = round_up(size);
    /* Even nothing is taken from a block: a table without columns has tuples of no values. */
    if (arena->block == NULL || pen_arena_room(arena) < size) {
        pen_arena_deinit(arena);
        arena->block = block_create(arena->budget, size > PEN_BLOCK_SIZE ? size : PEN_BLOCK_SIZE);
    }
    return arena->block;
}

void *pen_arena_alloc(pen_arena *arena, size_t size)
{
    size = round_up(size);
    pen_block *block = pen_arena_reserve(arena, size);
    void *ptr = block->data + block->used;
    block->used += size;
    return ptr;
}
