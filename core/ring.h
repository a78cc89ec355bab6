/* Purpose: a bounded lock-free ring of pointers from one thread to one other.
 * Thread:  one producer (push), one consumer (pop); who that is never changes while both run.
 * Owns:    its slots; the pointers in them are the producer's until pushed, then the consumer's.
 * Flow:    whole transactions travel on it, never rows: a handoff a row is what caps throughput. */
#ifndef PEN_CORE_RING_H
#define PEN_CORE_RING_H

#include "core/base.h"

#include <stdatomic.h>

/* Fields are grouped by the thread that writes them, each group on its own cache line. Each side
 * keeps a copy of the other's position and reads the shared one only when the copy says full or
 * empty. Positions only grow; 64 bits do not wrap in a machine's life. */
typedef struct pen_ring {
    void **slots;
    uint64_t mask; /* capacity - 1 */
    /* producer */
    PEN_ALIGNED _Atomic(uint64_t) tail;
    uint64_t head_seen;
    /* consumer */
    PEN_ALIGNED _Atomic(uint64_t) head;
    uint64_t tail_seen;
} pen_ring;

/* `capacity`: slots, a power of two, at least 2. A ring on the heap, or a struct around it, comes
 * from pen_alloc_lines: malloc does not align to cache lines. */
void pen_ring_init(pen_ring *ring, size_t capacity);
/* Frees the slots, not what is still in them. */
void pen_ring_deinit(pen_ring *ring);

/* Producer. False when the ring is full: a result, not an error. `item` is not NULL. */
PEN_MUST_CHECK bool pen_ring_push(pen_ring *ring, void *item);

/* Consumer. NULL when the ring is empty: a result, not an error. */
void *pen_ring_pop(pen_ring *ring);

/* Items in it, to show; exact only when both threads stand still. */
size_t pen_ring_count(const pen_ring *ring);

#endif
