/* Purpose: the atomics that threads outside core/ may use: published numbers, handed-over pointers,
 *          counters. Memory orders are written out here, so that apply/ names only the protocol.
 * Thread:  as each function says.
 * Owns:    nothing.
 * Flow:    one thread publishes or puts, others read or take; each use carries a tag that names its
 *          pair ([TURN-1] release … / [TURN-1] acquire …). */
#ifndef PEN_CORE_SYNC_H
#define PEN_CORE_SYNC_H

#include "core/base.h"

#include <stdatomic.h>

/* A number that one thread publishes and others read: what was written before pen_cell_publish is
 * seen after a pen_cell_read that gives that number or a later one. */
typedef struct pen_cell {
    _Atomic(uint64_t) value;
} pen_cell;

static inline void pen_cell_init(pen_cell *cell, uint64_t value)
{
    atomic_init(&cell->value, value);
}

static inline void pen_cell_publish(pen_cell *cell, uint64_t value)
{
    atomic_store_explicit(&cell->value, value, memory_order_release);
}

static inline uint64_t pen_cell_read(const pen_cell *cell)
{
    return atomic_load_explicit(&cell->value, memory_order_acquire);
}

/* True for the one caller that turned `from` into `to`; orders as publish and read together. */
static inline bool pen_cell_swap(pen_cell *cell, uint64_t from, uint64_t to)
{
    return atomic_compare_exchange_strong_explicit(&cell->value, &from, to, memory_order_acq_rel,
                                                   memory_order_acquire);
}

/* A number for statistics only: orders nothing. */
typedef struct pen_counter {
    _Atomic(uint64_t) value;
} pen_counter;

/* Many threads may add. */
static inline void pen_counter_add(pen_counter *counter, uint64_t more)
{
    atomic_fetch_add_explicit(&counter->value, more, memory_order_relaxed);
}

static inline void pen_counter_set(pen_counter *counter, uint64_t value)
{
    atomic_store_explicit(&counter->value, value, memory_order_relaxed);
}

static inline uint64_t pen_counter_get(const pen_counter *counter)
{
    return atomic_load_explicit(&counter->value, memory_order_relaxed);
}

/* A place for one pointer, which whoever comes first takes away: the one atomic exchange by which
 * an idle worker takes the open batch, or the dispatcher takes it back to add to it. */
typedef struct pen_place {
    _Atomic(void *) item;
} pen_place;

/* Puts `item` (not NULL) into the empty place; only the thread that may fill the place. */
static inline void pen_place_put(pen_place *place, void *item)
{
    atomic_store_explicit(&place->item, item, memory_order_release);
}

/* Gives the item and leaves the place empty, or NULL when it was. Any thread. */
static inline void *pen_place_take(pen_place *place)
{
    /* A look before the exchange: an empty place costs idle threads no exclusive cache line. */
    if (atomic_load_explicit(&place->item, memory_order_relaxed) == NULL) {
        return NULL;
    }
    return atomic_exchange_explicit(&place->item, NULL, memory_order_acq_rel);
}

#endif
