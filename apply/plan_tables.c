#include "apply/plan_internal.h"

#include <stdlib.h>
#include <xxhash.h>

/* Grows `*array`, of elements of `size` bytes, so that it takes one more than `count`. */
void pen_plan_grow(void *array, size_t *capacity, size_t count, size_t size)
{
    void **at = array;
    if (count == *capacity) {
        *capacity = *capacity == 0 ? 64 : *capacity * 2;
        *at = pen_realloc(*at, *capacity * size);
    }
}

uint64_t pen_plan_scatter(uint64_t key)
{
    return XXH3_64bits(&key, sizeof(key));
}

static uint32_t map_find(const map *m, uint64_t key)
{
    if (m->capacity == 0) {
        return NONE;
    }
    for (size_t at = pen_plan_scatter(key);; at++) {
        const struct pair *pair = &m->pairs[at & (m->capacity - 1)];
        if (pair->value == 0) {
            return NONE;
        }
        if (pair->key == key) {
            return pair->value - 1;
        }
    }
}

static void map_put(map *m, uint64_t key, uint32_t value)
{
    size_t at = pen_plan_scatter(key);
    while (m->pairs[at & (m->capacity - 1)].value != 0) {
        at++;
    }
    m->pairs[at & (m->capacity - 1)] = (struct pair){key, value + 1};
}

static void map_add(map *m, uint64_t key, uint32_t value)
{
    if (++m->count * 2 > m->capacity) {
        map larger = {.count = m->count, .capacity = m->capacity == 0 ? 64 : m->capacity * 2};
        larger.pairs = pen_calloc(larger.capacity, sizeof(*larger.pairs));
        for (size_t i = 0; i < m->capacity; i++) {
            if (m->pairs[i].value != 0) {
                map_put(&larger, m->pairs[i].key, m->pairs[i].value - 1);
            }
        }
        free(m->pairs);
        *m = larger;
    }
    map_put(m, key, value);
}

void pen_plan_map_deinit(map *m)
{
    free(m->pairs);
    *m = (map){0};
}

/* What of the table's changes may be put together. */
static void judge_table(table *t)
{
    const pen_target *target = t->target;
    bool whole = target->scope == PEN_SCOPE_ROW && !target->whole_row && target->key_count > 0;
    bool fits = !target->deferrable && (whole || target->scope == PEN_SCOPE_APPEND);
    bool always = false;
    bool sets = false;
    size_t written = 0;
    for (uint16_t i = 0; i < target->rel->column_count; i++) {
        const pen_target_column *column = &target->columns[i];
        if (column->generated && !column->is_key) {
            continue;
        }
        fits = fits && column->array_type != 0;
        always |= column->identity_always;
        sets |= !column->is_key;
        written += !column->generated;
    }
    for (uint16_t i = 0; whole && i < target->unique_count; i++) {
        if (target->uniques[i].is_identity) {
            t->identity = &target->uniques[i].spec;
        }
    }
    t->inserts = fits && written > 0;
    t->changes = fits && t->identity != NULL;
    t->updates = t->changes && sets && !always && !target->remakes_rows;
}

/* The tie that `which` has become part of. */
static uint32_t root_of(pen_plan *plan, uint32_t which)
{
    while (plan->ties[which].parent != which) {
        plan->ties[which].parent = plan->ties[plan->ties[which].parent].parent;
        which = plan->ties[which].parent;
    }
    return which;
}

/* The tie that all tables of the group are in, and all versions and partitions of the table. */
static uint32_t find_tie(pen_plan *plan, const pen_target *target)
{
    uint32_t group = map_find(&plan->by_group, target->group_hash);
    uint32_t same = map_find(&plan->by_group, target->table_hash);
    uint32_t found = group != NONE ? group : same;
    if (found == NONE) {
        pen_plan_grow(&plan->ties, &plan->tie_capacity, plan->tie_count, sizeof(*plan->ties));
        found = (uint32_t)plan->tie_count++;
        plan->ties[found] = (tie){.parent = found, .first_open = NONE, .epoch = ++plan->epoch};
    }
    if (group == NONE) {
        map_add(&plan->by_group, target->group_hash, found);
    }
    if (same == NONE && target->table_hash != target->group_hash) {
        map_add(&plan->by_group, target->table_hash, found);
    }
    found = root_of(plan, found);
    if (same != NONE && root_of(plan, same) != found) {
        pen_plan_close_all(plan);
        plan->ties[root_of(plan, same)].parent = found;
    }
    return found;
}

uint32_t pen_plan_find_table(pen_plan *plan, const pen_target *target)
{
    if (plan->last_table != NONE && plan->tables[plan->last_table].target == target) {
        return plan->last_table;
    }
    uint64_t key = (uint64_t)(uintptr_t)target;
    uint32_t found = map_find(&plan->by_target, key);
    if (found == NONE) {
        uint32_t at = find_tie(plan, target);
        pen_plan_grow(&plan->tables, &plan->table_capacity, plan->table_count,
                      sizeof(*plan->tables));
        found = (uint32_t)plan->table_count++;
        plan->tables[found] = (table){.target = target, .tie = at, .next_open = NONE};
        judge_table(&plan->tables[found]);
        map_add(&plan->by_target, key, found);
    }
    plan->last_table = found;
    return found;
}

tie *pen_plan_tie_of(pen_plan *plan, uint32_t which)
{
    return &plan->ties[root_of(plan, plan->tables[which].tie)];
}

/* True when the same row can come by either. */
static bool may_share_rows(const pen_target *a, const pen_target *b)
{
    return a->table_hash == b->table_hash && (a->oid == b->oid || a->partitioned || b->partitioned);
}

/* Makes the table one of those that have items. */
void pen_plan_open_table(pen_plan *plan, uint32_t which)
{
    table *t = &plan->tables[which];
    tie *at = pen_plan_tie_of(plan, which);
    for (uint32_t i = at->first_open; i != NONE; i = plan->tables[i].next_open) {
        if (may_share_rows(plan->tables[i].target, t->target)) {
            pen_plan_close_tie(plan, at);
            break;
        }
    }
    t->open = true;
    t->first = NONE;
    t->last = NONE;
    t->next_open = at->first_open;
    at->first_open = which;
}
