/* Why no dependency is ever dropped, and why two waves never reorder.
 *
 * Say a key x, which here means a (bucket, tag): keys that share both share an entry and only gain
 * dependencies. A change c of batch b touches x; b is *live* while it is above `committed`. For the
 * next touch of x, in batch k, the table answers two numbers:
 *
 *   for a read:   after_write  = write if it is live and < k; write_bound if write == k
 *   for a write:  the larger of after_write and the same of read and read_bound
 *   without an entry, for both: the bucket's floor if it is live and < k; k - 1 if it is k
 *
 * The claim: for every earlier touch of x by a change c of batch b that conflicts with the next one
 * (one of both writes), the answer is
 *   (1) at least b, if b < k and b is live;
 *   (2) at least the bound of c, if b == k.
 * The bound B of a change is the largest answer over all its keys, so the claim holds for whole
 * changes. It stays true through everything that alters an entry or a floor:
 *
 * - A write by batch k sets write = k, write_bound = B. For batches after k the answer k covers
 *   all that was there before, because batches commit in order. Within k, B covers it: a write
 *   conflicts with every touch, so B is at least what the entry answered before.
 * - A read by batch k sets read = k, read_bound = B (the old one too, if read was k). It leaves
 *   `write` alone. But B does not cover older reads, with which a read does not conflict: when
 *   `read` moves up from a live batch r < k, r goes into read_bound, because a writer in k, which
 *   from now on is only told read_bound, still has to wait for r. For batches after k, k covers r.
 * - An entry whose write and read are both committed has nothing to say: (1) asks for live batches
 *   only, and batch k is never committed while its changes come. It may be reused for another key.
 * - An eviction raises the bucket's floor to the larger of write and read. Then x has no entry, and
 *   the floor answers: at least b for (1); for (2) the floor is k, so k - 1, which is at least any
 *   bound, since every answer is below its own batch.
 * - A new entry begins as one that was written at the floor (write = floor, with write_bound k - 1
 *   if that is k), and is then altered as above. So what an evicted entry of x said lives on in the
 *   new one, and a later hit need not look at the floor: evictions after that are of other keys.
 * - All keys of a change are answered before any is noted, so when noting one evicts the entry of
 *   another, B already covers what that entry said, except its reads when this change only reads.
 *   Those are in the floor, and the new entry is written at the floor.
 * - A rebase empties the table and sets every floor to the batch before the one that begins. No
 *   change of that one has been seen yet, so (2) asks nothing; all earlier ones are covered by (1).
 *
 * Every answer is below k, so a bound names an earlier batch, and waits can form no circle.
 *
 * A worker brings its batch in waves. For the first it picks a threshold T, any batch that has
 * committed, or 0, and runs the changes with bound <= T in their order; for each further one a
 * larger T that has committed, and runs what has not run and has bound <= T; the last one, when the
 * batch that the largest bound names has committed, runs the rest. Take c before d in conflict.
 * - In one batch: by (2) bound(c) <= bound(d). In the wave that d runs in, c runs before it, or has
 *   run already.
 * - In batches b < k: either b had committed when d was noted; or bound(d) >= b by (1), and d runs
 *   after a batch at or past b committed, so after b did. And c never waits for d: see above.
 *
 * A bound that comes from an earlier batch is dropped once that has committed. One that is
 * inherited within the batch is handed on even then, or (2) would fail: c noted with a bound that
 * was live, d with none, and a T below c's bound would run d first. A worker that knows what has
 * committed loses nothing by it. */
#include "core/conflict.h"

#include <stdlib.h>

#define ENTRIES 3

/* Batch numbers in here are relative to the table's base; 0 is none. */
typedef struct entry {
    uint32_t tag;         /* never 0 once used */
    uint32_t write;       /* the last batch that wrote the key */
    uint32_t read;        /* the last that read it */
    uint32_t write_bound; /* what a later touch in batch `write` inherits */
    uint32_t read_bound;  /* what a later write in batch `read` inherits */
} entry;

typedef struct bucket {
    entry entries[ENTRIES];
    uint32_t floor; /* no evicted entry was touched by a later batch */
} bucket;

_Static_assert(sizeof(bucket) == PEN_CONFLICT_BUCKET, "a probe costs one cache line");

/* A batch this far from the base begins a new one. Half of what 32 bits hold: far enough. */
#define REBASE_AT (UINT64_C(1) << 31)

struct pen_conflict {
    bucket *buckets;
    size_t bucket_count;
    uint64_t base;
    uint64_t newest; /* batch, to hold the caller to its order */
    uint64_t evictions;
};

pen_conflict *pen_conflict_create(size_t bucket_count)
{
    PEN_ASSERT(bucket_count > 0 && (bucket_count & (bucket_count - 1)) == 0);
    PEN_ASSERT(bucket_count <= SIZE_MAX / sizeof(bucket));
    pen_conflict *table = pen_calloc(1, sizeof(*table));
    table->bucket_count = bucket_count;
    table->buckets = pen_alloc_lines(bucket_count * sizeof(bucket));
    return table;
}

void pen_conflict_destroy(pen_conflict *table)
{
    if (table != NULL) {
        free(table->buckets);
        free(table);
    }
}

static bucket *bucket_of(const pen_conflict *table, uint64_t hash)
{
    return &table->buckets[hash & (table->bucket_count - 1)];
}

/* The half of the hash that a bucket's number does not use. An unused entry has tag 0 and must not
 * be taken for a hit, because then the floor would not be asked. */
static uint32_t tag_of(uint64_t hash)
{
    uint32_t tag = (uint32_t)(hash >> 32);
    return tag == 0 ? 1 : tag;
}

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static entry *find(bucket *line, uint32_t tag)
{
    for (size_t i = 0; i < ENTRIES; i++) {
        if (line->entries[i].tag == tag) {
            return &line->entries[i];
        }
    }
    return NULL;
}

/* What a touch in `batch` must wait for on account of one in `last`, which was bound to `bound`. */
static uint32_t answer(uint32_t last, uint32_t bound, uint32_t batch, uint32_t committed)
{
    if (last == batch) {
        return bound;
    }
    return last > committed ? last : 0;
}

static uint32_t key_bound(bucket *line, const pen_key *key, uint32_t batch, uint32_t committed)
{
    const entry *found = find(line, tag_of(key->hash));
    if (found == NULL) {
        return answer(line->floor, batch - 1, batch, committed);
    }
    uint32_t bound = answer(found->write, found->write_bound, batch, committed);
    if (key->access == PEN_ACCESS_WRITE) {
        bound = larger(bound, answer(found->read, found->read_bound, batch, committed));
    }
    return bound;
}

/* Gives an entry that may be overwritten: one with nothing to say, or else the one that will
 * soonest have nothing to say, after raising the floor for it. */
static entry *make_room(pen_conflict *table, bucket *line, uint32_t committed)
{
    entry *oldest = NULL;
    uint32_t oldest_touch = UINT32_MAX;
    for (size_t i = 0; i < ENTRIES; i++) {
        entry *candidate = &line->entries[i];
        uint32_t touch = larger(candidate->write, candidate->read);
        if (touch <= committed) {
            return candidate;
        }
        if (touch < oldest_touch) {
            oldest = candidate;
            oldest_touch = touch;
        }
    }
    line->floor = larger(line->floor, oldest_touch);
    table->evictions++;
    return oldest;
}

static void note(pen_conflict *table, const pen_key *key, uint32_t batch, uint32_t committed,
                 uint32_t bound)
{
    bucket *line = bucket_of(table, key->hash);
    uint32_t tag = tag_of(key->hash);
    entry *at = find(line, tag);
    if (at == NULL) {
        at = make_room(table, line, committed);
        *at = (entry){.tag = tag, .write = line->floor};
        at->write_bound = line->floor == batch ? batch - 1 : 0;
    }
    if (key->access == PEN_ACCESS_WRITE) {
        at->write_bound = bound; /* covers the old one: a write is answered by all there is */
        at->write = batch;
    } else {
        at->read_bound = larger(bound, answer(at->read, at->read_bound, batch, committed));
        at->read = batch;
    }
}

/* Begins a new base just below `batch`, none of whose changes has been noted yet. */
static void rebase(pen_conflict *table, uint64_t batch)
{
    PEN_ASSERT(batch > table->newest);
    table->base = batch - 2;
    for (size_t i = 0; i < table->bucket_count; i++) {
        table->buckets[i] = (bucket){.floor = 1};
    }
}

uint64_t pen_conflict_touch_after(pen_conflict *table, const pen_key *keys, size_t key_count,
                                  uint64_t batch, uint64_t committed, uint64_t at_least)
{
    PEN_ASSERT(committed < batch && at_least < batch && batch >= table->newest);
    if (batch - table->base >= REBASE_AT) {
        rebase(table, batch);
    }
    table->newest = batch;
    uint32_t own = (uint32_t)(batch - table->base);
    uint32_t done = committed > table->base ? (uint32_t)(committed - table->base) : 0;
    /* Any bound that is at least what the keys answer keeps the claim above. */
    uint32_t bound = at_least > table->base ? (uint32_t)(at_least - table->base) : 0;
    for (size_t i = 0; i < key_count; i++) {
        bound = larger(bound, key_bound(bucket_of(table, keys[i].hash), &keys[i], own, done));
    }
    for (size_t i = 0; i < key_count; i++) {
        note(table, &keys[i], own, done, bound);
    }
    return bound == 0 ? 0 : table->base + bound;
}

uint64_t pen_conflict_touch(pen_conflict *table, const pen_key *keys, size_t key_count,
                            uint64_t batch, uint64_t committed)
{
    return pen_conflict_touch_after(table, keys, key_count, batch, committed, 0);
}

void pen_conflict_prefetch(const pen_conflict *table, const pen_key *keys, size_t key_count)
{
    for (size_t i = 0; i < key_count; i++) {
        __builtin_prefetch(bucket_of(table, keys[i].hash), 1);
    }
}

uint64_t pen_conflict_evictions(const pen_conflict *table)
{
    return table->evictions;
}
