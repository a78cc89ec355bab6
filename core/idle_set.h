/* Purpose: the set of workers that have nothing to do, for whoever has something for one of them.
 * Thread:  any.
 * Owns:    nothing.
 * Flow:    workers add and remove themselves; others take them out.
 *
 * Each adds itself and then looks once more for work; whoever has work puts it where they look and
 * then looks into the set. The same rule of exchanges as for pen_flag (core/sync.h). */
#ifndef PEN_CORE_IDLE_SET_H
#define PEN_CORE_IDLE_SET_H

#include "core/base.h"

#include <stdatomic.h>

#define PEN_IDLE_MAX 256
typedef struct pen_idle_set {
    PEN_ALIGNED _Atomic(uint64_t) words[PEN_IDLE_MAX / 64];
} pen_idle_set;

static inline void pen_idle_init(pen_idle_set *set)
{
    for (size_t i = 0; i < PEN_COUNTOF(set->words); i++) {
        atomic_init(&set->words[i], 0);
    }
}

static inline void pen_idle_add(pen_idle_set *set, unsigned member)
{
    (void)atomic_fetch_or_explicit(&set->words[member / 64], (uint64_t)1 << (member % 64),
                                   memory_order_acq_rel);
}

/* False when it is not in it: somebody has picked it, and wakes it. */
static inline bool pen_idle_remove(pen_idle_set *set, unsigned member)
{
    uint64_t bit = (uint64_t)1 << (member % 64);
    return atomic_fetch_and_explicit(&set->words[member / 64], ~bit, memory_order_acq_rel) & bit;
}

/* Takes all members of one word out, and gives them as bits: who has what all of them wait for
 * wakes them, and meets none a second time that joins again. */
static inline uint64_t pen_idle_take_word(pen_idle_set *set, unsigned word)
{
    return atomic_exchange_explicit(&set->words[word], 0, memory_order_acq_rel);
}

/* Takes the lowest member out of the first `count` ones, so that at low load few sessions do all
 * the work and stay warm, or returns -1 when none is idle. */
static inline int pen_idle_pick(pen_idle_set *set, unsigned count)
{
    for (unsigned word = 0; word * 64 < count; word++) {
        /* An exchange in effect, though it changes nothing: a plain load could be too early. */
        uint64_t members = atomic_fetch_or_explicit(&set->words[word], 0, memory_order_acq_rel);
        while (members != 0) {
            unsigned bit = (unsigned)__builtin_ctzll(members);
            uint64_t before = atomic_fetch_and_explicit(&set->words[word], ~((uint64_t)1 << bit),
                                                        memory_order_acq_rel);
            if (before & (uint64_t)1 << bit) {
                return (int)(word * 64 + bit);
            }
            members = before & ~((uint64_t)1 << bit); /* it removed itself meanwhile */
        }
    }
    return -1;
}

/* True when all of the first `count` are in it. When not, one that is missing has yet to add
 * itself, and looks once more then. */
static inline bool pen_idle_is_full(pen_idle_set *set, unsigned count)
{
    for (unsigned word = 0; word * 64 < count; word++) {
        unsigned in_word = count - word * 64;
        uint64_t all = in_word >= 64 ? UINT64_MAX : ((uint64_t)1 << in_word) - 1;
        /* An exchange in effect, as in pen_idle_pick. */
        if (atomic_fetch_or_explicit(&set->words[word], 0, memory_order_acq_rel) != all) {
            return false;
        }
    }
    return true;
}

#endif
