#include "core/ring.h"

#include <stdlib.h>

void pen_ring_init(pen_ring *ring, size_t capacity)
{
    PEN_ASSERT(capacity >= 2 && (capacity & (capacity - 1)) == 0);
    ring->slots = pen_calloc(capacity, sizeof(*ring->slots));
    ring->mask = capacity - 1;
    atomic_init(&ring->tail, 0);
    atomic_init(&ring->head, 0);
    ring->head_seen = 0;
    ring->tail_seen = 0;
}

void pen_ring_deinit(pen_ring *ring)
{
    free(ring->slots);
    ring->slots = NULL;
}

bool pen_ring_push(pen_ring *ring, void *item)
{
    PEN_ASSERT(item != NULL);
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    if (tail - ring->head_seen > ring->mask) {
        /* [RING-2] acquire: the consumer is done with the slots before `head`; pairs with the
         * release in pen_ring_pop. */
        ring->head_seen = atomic_load_explicit(&ring->head, memory_order_acquire);
        if (tail - ring->head_seen > ring->mask) {
            return false;
        }
    }
    ring->slots[tail & ring->mask] = item;
    /* [RING-1] release: publishes the slot; pairs with the acquire in pen_ring_pop. */
    atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
    return true;
}

void *pen_ring_pop(pen_ring *ring)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    if (head == ring->tail_seen) {
        /* [RING-1] acquire: pairs with the release in pen_ring_push. */
        ring->tail_seen = atomic_load_explicit(&ring->tail, memory_order_acquire);
        if (head == ring->tail_seen) {
            return NULL;
        }
    }
    void *item = ring->slots[head & ring->mask];
    /* [RING-2] release: gives the slot back; pairs with the acquire in pen_ring_push. */
    atomic_store_explicit(&ring->head, head + 1, memory_order_release);
    return item;
}

size_t pen_ring_count(const pen_ring *ring)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    return tail > head ? (size_t)(tail - head) : 0;
}
