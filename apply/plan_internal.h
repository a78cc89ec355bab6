/* Purpose: what the files of a plan share: tables and the ties between them, rows, and steps.
 * Thread:  one worker; only apply/plan*.c include this.
 * Owns:    nothing by itself.
 * Flow:    apply/plan.c puts changes together by their rows, apply/plan_tables.c knows which may
 * meet, apply/plan_steps.c makes steps of them. */
#ifndef PEN_APPLY_PLAN_INTERNAL_H
#define PEN_APPLY_PLAN_INTERNAL_H

#include "apply/plan.h"

#define NONE UINT32_MAX

/* From a number to an index, by open addressing. */
typedef struct map {
    struct pair {
        uint64_t key;
        uint32_t value; /* index + 1; 0: free */
    } * pairs;
    size_t capacity; /* a power of two, or 0 */
    size_t count;
} map;

/* What the changes of one row come to. */
typedef struct item {
    uint64_t hash;
    uint32_t table;
    uint64_t epoch;            /* of the tie: from another one, it is not looked at any more */
    uint32_t next;             /* of the table, since the last fence; NONE: the last */
    const pen_value *key;      /* a tuple with its identity */
    const pen_change *taken;   /* a DELETE of what was there before, or NULL */
    const pen_change *put;     /* then an INSERT or an UPDATE, or NULL */
    const pen_change *subject; /* the last one that was added */
} item;

/* A relation version. */
typedef struct table {
    const pen_target *target;
    const pen_key_spec *identity; /* NULL: no row of it can be found again */
    uint32_t tie;
    bool inserts; /* may be put together */
    bool changes; /* DELETEs may */
    bool updates; /* UPDATEs that keep the key may */
    bool open;    /* has items since the last fence */
    uint32_t first;
    uint32_t last;
    uint32_t next_open; /* of the tie */
    uint32_t depth;     /* 0: references none of the open ones */
    uint32_t distrust;  /* changes left that go by rows */
    uint32_t distrusted;
} table;

/* Ties only grow together: a table's versions, and its partitions, are in one whatever foreign keys
 * each of them was seen with. */
typedef struct tie {
    uint32_t parent; /* of a tie that was joined to another: that one; else itself */
    uint32_t first_open;
    uint64_t epoch; /* another one behind each fence */
} tie;

typedef struct chunk {
    struct chunk *next;
    size_t used;
    size_t size;
    _Alignas(16) uint8_t data[];
} chunk;

struct pen_plan {
    table *tables;
    size_t table_count;
    size_t table_capacity;
    map by_target;
    tie *ties;
    size_t tie_count;
    size_t tie_capacity;
    map by_group;        /* ties, by group_hash and by table_hash */
    uint64_t epoch;      /* the newest of all ties */
    uint32_t last_table; /* looked up last, or NONE */
    item *items;
    size_t item_count;
    size_t item_capacity;
    uint32_t *slots; /* by hash: index of an item + 1, or 0 */
    size_t slot_capacity;
    size_t slot_used; /* how many of them this plan uses, a power of two */
    pen_step *steps;
    size_t step_count;
    size_t step_capacity;
    const pen_change **changes;
    size_t change_count;
    size_t change_capacity;
    /* scratch of the group at hand */
    const item **group;
    size_t group_count;
    size_t group_capacity;
    uint32_t *order; /* open tables of the tie at hand */
    size_t order_capacity;
    chunk *chunks; /* for changes that are put together */
};

/* Grows `*array`, of elements of `size` bytes, so that it takes one more than `count`. */
void pen_plan_grow(void *array, size_t *capacity, size_t count, size_t size);
uint64_t pen_plan_scatter(uint64_t key);
void pen_plan_map_deinit(map *m);

/* The table that `target` is, made when it is new. May move the tables. */
uint32_t pen_plan_find_table(pen_plan *plan, const pen_target *target);
tie *pen_plan_tie_of(pen_plan *plan, uint32_t which);
/* Makes the table one of those that have items. */
void pen_plan_open_table(pen_plan *plan, uint32_t which);

/* A step of one change. */
void pen_plan_add_step(pen_plan *plan, const pen_change *subject, const pen_change *chg);
/* A fence: what was put together in a tie so far, or in all, becomes steps. */
void pen_plan_close_tie(pen_plan *plan, tie *at);
void pen_plan_close_all(pen_plan *plan);
/* True when the UPDATE says nothing of the column, whose value stays. */
bool pen_plan_is_unchanged(const pen_change *chg, uint16_t column);
/* Of the set of columns that an UPDATE says nothing of; 0: it tells all. */
uint64_t pen_plan_hash_unchanged(const pen_change *chg);

#endif
