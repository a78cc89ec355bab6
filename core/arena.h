/* Purpose: memory for everything between receive and commit, counted against --memory.
 * Thread:  an arena belongs to the reader; any thread releases blocks; the budget is shared.
 * Owns:    a block lives until its last reference is given back; the budget counts live blocks.
 * Flow:    the reader bumps allocations off a block; whoever committed them gives it back.
 *
 * One block may hold many small transactions, and no row is freed one by one: a segment of a
 * transaction keeps one reference on its block, which goes when the batch has committed. */
#ifndef PEN_CORE_ARENA_H
#define PEN_CORE_ARENA_H

#include "core/base.h"

#include <stdatomic.h>

struct pen_parker;

/* The budget. The release that brings it back under its limit wakes the reader, which may sleep for
 * memory on its parker. */
typedef struct pen_budget {
    size_t limit; /* bytes; fixed */
    struct pen_parker *reader;
    PEN_ALIGNED _Atomic(size_t) used; /* bytes */
    _Atomic(size_t) peak;             /* bytes, the largest `used` so far */
} pen_budget;

void pen_budget_init(pen_budget *budget, size_t limit, struct pen_parker *reader);

/* Bytes in use now, and the largest number so far. Any thread. */
size_t pen_budget_used(const pen_budget *budget);
size_t pen_budget_peak(const pen_budget *budget);

/* True while the budget is used up: the reader then takes nothing more from the source (but goes on
 * sending status). The budget is checked between messages, so it is overrun by one block at most,
 * plus what one message needs beyond a block's size. Before it sleeps for memory the reader must
 * give its arenas' current blocks back (pen_arena_deinit; an arena goes on from there): they count
 * too, and a block made for one message larger than the budget would keep it exhausted for ever. */
bool pen_budget_exhausted(const pen_budget *budget);

typedef struct pen_block {
    _Atomic(uint32_t) refs;
    size_t size; /* bytes behind the header */
    size_t used; /* written by the arena's owner only */
    pen_budget *budget;
    _Alignas(16) uint8_t data[];
} pen_block;

/* Size of an ordinary block, bytes. Larger requests get a block of their own. */
#define PEN_BLOCK_SIZE (64u * 1024u)

typedef struct pen_arena {
    pen_budget *budget; /* borrowed */
    pen_block *block;   /* the current one, on which the arena keeps a reference, or NULL */
} pen_arena;

void pen_arena_init(pen_arena *arena, pen_budget *budget);
/* Gives the reference on the current block back. */
void pen_arena_deinit(pen_arena *arena);

/* Makes sure that `size` bytes can be taken from the current block, beginning a new one where they
 * cannot. Returns the block, borrowed. Never fails and never waits. */
pen_block *pen_arena_reserve(pen_arena *arena, size_t size);

/* Bytes that pen_arena_alloc can still take from the current block. */
size_t pen_arena_room(const pen_arena *arena);

/* Takes `size` bytes, aligned to 16, off the current block, beginning a new one where needed. */
void *pen_arena_alloc(pen_arena *arena, size_t size);

/* One more reference on `block`; any thread that holds one already. */
void pen_block_acquire(pen_block *block);
/* Gives one reference back; the last one frees the block and wakes a reader that waits for memory.
 */
void pen_block_release(pen_block *block);

#endif
