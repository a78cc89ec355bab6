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

/* Puts `value` in and gives what was there, as publish and read in one. Of two exchanges on one
 * cell one comes first, and the later one sees what was done before the earlier. */
static inline uint64_t pen_cell_exchange(pen_cell *cell, uint64_t value)
{
    return atomic_exchange_explicit(&cell->value, value, memory_order_acq_rel);
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

static inline uint64_t pen_counter_get(const pen_counter *counter)
{
    return atomic_load_explicit(&counter->value, memory_order_relaxed);
}

/* How many threads are still at something. */
typedef struct pen_countdown {
    _Atomic(uint64_t) left;
} pen_countdown;

static inline void pen_countdown_init(pen_countdown *countdown, uint64_t left)
{
    atomic_init(&countdown->left, left);
}

/* True for the last one; it sees all that the others did before. */
PEN_MUST_CHECK static inline bool pen_countdown_leave(pen_countdown *countdown)
{
    return atomic_fetch_sub_explicit(&countdown->left, 1, memory_order_acq_rel) == 1;
}

/* A place for one pointer, which whoever comes first takes away: the one atomic exchange by which
 * an idle worker takes the open batch, or the dispatcher takes it back to add to it. */
typedef struct pen_place {
    _Atomic(void *) item;
} pen_place;

static inline void pen_place_init(pen_place *place)
{
    atomic_init(&place->item, NULL);
}

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

/* True while nothing is in it; only a hint to anybody but the thread that may fill it. */
static inline bool pen_place_is_empty(const pen_place *place)
{
    return atomic_load_explicit(&place->item, memory_order_acquire) == NULL;
}

/* "I am about to sleep until you have done that": the sleeper raises it and then looks once more;
 * the other does it and then lowers. Both exchange, and of two exchanges on one variable one comes
 * first: either the sleeper sees what was done, or the other gets true and must wake. A plain store
 * and load on each side could both be too early. */
typedef struct pen_flag {
    _Atomic(uint32_t) raised;
} pen_flag;

static inline void pen_flag_init(pen_flag *flag)
{
    atomic_init(&flag->raised, 0);
}

static inline void pen_flag_raise(pen_flag *flag)
{
    (void)atomic_exchange_explicit(&flag->raised, 1, memory_order_acq_rel);
}

/* True when it was raised: the caller wakes the sleeper. */
PEN_MUST_CHECK static inline bool pen_flag_lower(pen_flag *flag)
{
    return atomic_exchange_explicit(&flag->raised, 0, memory_order_acq_rel) != 0;
}

#endif
