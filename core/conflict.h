/* Purpose: the conflict table: which batch touched a key last, and so what must commit first.
 * Thread:  the dispatcher.
 * Owns:    its buckets, of fixed size: memory does not grow with the number of keys.
 * Flow:    key hashes of a change in, the number of the batch that it must wait for out.
 *
 * Invariant: losing an entry may add a dependency, never drop one. */
#ifndef PEN_CORE_CONFLICT_H
#define PEN_CORE_CONFLICT_H

#include "core/base.h"

/* Batches are numbered from 1 in commit order; 0 is none. */
typedef struct pen_conflict pen_conflict;

typedef enum pen_access {
    PEN_ACCESS_READ, /* conflicts with writes: the whole-table key of a row change, a FK's parent */
    PEN_ACCESS_WRITE /* conflicts with all */
} pen_access;

typedef struct pen_key {
    uint64_t hash;
    pen_access access;
} pen_key;

/* Bytes of a bucket: one cache line, of 3 entries. */
#define PEN_CONFLICT_BUCKET PEN_CACHE_LINE

/* `bucket_count`: a power of two. */
pen_conflict *pen_conflict_create(size_t bucket_count);
void pen_conflict_destroy(pen_conflict *table);

/* Notes that a change of `batch` touches `keys`, all at once, and returns what the change is bound
 * to: the number of the batch that must have committed before it may run, or 0 when it is free.
 * Always less than `batch`. `batch` never decreases between calls; `committed` is the newest
 * committed batch known to the caller, less than `batch`: an entry at or below it binds nobody.
 * Within one batch the bounds never put two conflicting changes in the wrong order: a change gets
 * at least the bound of every earlier change of its batch that it conflicts with. A bound inherited
 * so may have committed in the meantime: who compares it with that, not with 0, saves a wait. */
uint64_t pen_conflict_touch(pen_conflict *table, const pen_key *keys, size_t key_count,
                            uint64_t batch, uint64_t committed);

/* The same for a change that must wait at least for batch `at_least` (less than `batch`), whatever
 * its keys say: one that may conflict with what is not written as keys. */
uint64_t pen_conflict_touch_after(pen_conflict *table, const pen_key *keys, size_t key_count,
                                  uint64_t batch, uint64_t committed, uint64_t at_least);

/* Has the buckets of `keys` fetched from memory, for a touch that comes soon. */
void pen_conflict_prefetch(const pen_conflict *table, const pen_key *keys, size_t key_count);

/* Entries lost to full buckets so far, to show. */
uint64_t pen_conflict_evictions(const pen_conflict *table);

#endif
