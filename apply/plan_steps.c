#include "apply/plan_internal.h"

#include <stdlib.h>

/* Fewer rows than this are statements of their own: they cost the server less that way. */
#define SET_LEAST 8
/* More gain nothing, and hold the results up. */
#define SET_ROWS  2000
#define SET_BYTES (256u * 1024u)

void pen_plan_add_step(pen_plan *plan, const pen_change *subject, const pen_change *chg)
{
    pen_plan_grow(&plan->steps, &plan->step_capacity, plan->step_count, sizeof(*plan->steps));
    pen_plan_grow(&plan->changes, &plan->change_capacity, plan->change_count,
                  sizeof(const pen_change *));
    plan->steps[plan->step_count++] =
        (pen_step){.subject = subject, .first = plan->change_count, .count = 1};
    plan->changes[plan->change_count++] = chg;
}

/* Adds to the last step, which it can only be of the same table, kind and columns. */
static void extend_step(pen_plan *plan, const pen_change *chg)
{
    pen_plan_grow(&plan->changes, &plan->change_capacity, plan->change_count,
                  sizeof(const pen_change *));
    plan->changes[plan->change_count++] = chg;
    plan->steps[plan->step_count - 1].count++;
}

/* Bytes of what the statement says of `chg`; 0 when one of its values cannot be an element. */
static size_t measure(const table *t, const pen_change *chg)
{
    const pen_target *target = t->target;
    const pen_value *key =
        chg->old_tuple.values != NULL ? chg->old_tuple.values : chg->new_tuple.values;
    size_t bytes = 1;
    for (uint16_t i = 0; i < target->rel->column_count; i++) {
        const pen_target_column *column = &target->columns[i];
        bool is_key = column->is_key && chg->kind != PEN_CHANGE_INSERT;
        if (!is_key && (chg->kind == PEN_CHANGE_DELETE || column->generated)) {
            continue;
        }
        const pen_value *value = is_key ? &key[i] : &chg->new_tuple.values[i];
        uint8_t right = column->binary_type != 0 ? PEN_VALUE_BINARY : PEN_VALUE_TEXT;
        bool unchanged =
            value->kind == PEN_VALUE_UNCHANGED && !is_key && chg->kind == PEN_CHANGE_UPDATE;
        if (value->kind != right && value->kind != PEN_VALUE_NULL && !unchanged) {
            return 0;
        }
        bytes += value->kind == right ? value->len + 4 : 4;
    }
    return bytes;
}

/* The group at hand, from `from` to before `to`, of changes that name the same columns. */
static void add_steps(pen_plan *plan, const table *t, size_t from, size_t to, bool taken)
{
    bool small = to - from < SET_LEAST;
    size_t rows = 0; /* of the step that can be extended */
    size_t bytes = 0;
    for (size_t i = from; i < to; i++) {
        const item *it = plan->group[i];
        const pen_change *chg = taken ? it->taken : it->put;
        size_t more = small ? 0 : measure(t, chg);
        if (more > 0 && rows > 0 && rows < SET_ROWS && bytes + more <= SET_BYTES) {
            extend_step(plan, chg);
        } else {
            pen_plan_add_step(plan, it->subject, chg);
            rows = 0;
            bytes = 0;
        }
        rows = more > 0 ? rows + 1 : 0;
        bytes += more;
    }
}

/* Unchanged columns: names of the sets of columns that an UPDATE tells */

bool pen_plan_is_unchanged(const pen_change *chg, uint16_t column)
{
    return chg->new_tuple.values[column].kind == PEN_VALUE_UNCHANGED;
}

/* 0: all columns came. */
uint64_t pen_plan_hash_unchanged(const pen_change *chg)
{
    uint64_t hash = 0;
    for (uint16_t i = 0; i < chg->rel->column_count; i++) {
        if (pen_plan_is_unchanged(chg, i)) {
            hash = pen_plan_scatter(hash + i + 1) | 1;
        }
    }
    return hash;
}

static bool same_columns(const pen_change *a, const pen_change *b)
{
    for (uint16_t i = 0; i < a->rel->column_count; i++) {
        if (pen_plan_is_unchanged(a, i) != pen_plan_is_unchanged(b, i)) {
            return false;
        }
    }
    return true;
}

static int compare_columns(const void *left, const void *right)
{
    const item *const *a = left;
    const item *const *b = right;
    uint64_t first = pen_plan_hash_unchanged((*a)->put);
    uint64_t second = pen_plan_hash_unchanged((*b)->put);
    if (first != second) {
        return first < second ? -1 : 1;
    }
    return *a < *b ? -1 : *a > *b; /* in the order in which they came */
}

/* UPDATEs, by the columns that they name. */
static void add_updates(pen_plan *plan, const table *t)
{
    bool mixed = false;
    for (size_t i = 0; i < plan->group_count && !mixed; i++) {
        mixed = pen_plan_hash_unchanged(plan->group[i]->put) != 0;
    }
    if (mixed) {
        qsort(plan->group, plan->group_count, sizeof(const item *), compare_columns);
    }
    size_t from = 0;
    for (size_t i = 1; i <= plan->group_count; i++) {
        if (i == plan->group_count ||
            (mixed && !same_columns(plan->group[from]->put, plan->group[i]->put))) {
            add_steps(plan, t, from, i, false);
            from = i;
        }
    }
}

/* The end of a tie's present groups */

typedef enum part { PART_DELETES, PART_UPDATES, PART_INSERTS } part;

static bool is_in(const item *it, part which)
{
    switch (which) {
    case PART_DELETES:
        return it->taken != NULL;
    case PART_UPDATES:
        return it->put != NULL && it->put->kind == PEN_CHANGE_UPDATE;
    case PART_INSERTS:
        return it->put != NULL && it->put->kind == PEN_CHANGE_INSERT;
    }
    return false;
}

static void add_part(pen_plan *plan, const table *t, part which)
{
    plan->group_count = 0;
    for (uint32_t i = t->first; i != NONE; i = plan->items[i].next) {
        const item *it = &plan->items[i];
        if (is_in(it, which)) {
            pen_plan_grow(&plan->group, &plan->group_capacity, plan->group_count,
                          sizeof(const item *));
            plan->group[plan->group_count++] = it;
        }
    }
    if (which == PART_UPDATES) {
        add_updates(plan, t);
    } else {
        add_steps(plan, t, 0, plan->group_count, which == PART_DELETES);
    }
}

static bool references(const pen_target *child, const pen_target *parent)
{
    for (uint16_t i = 0; i < child->reference_count; i++) {
        if (child->references[i].table_hash == parent->table_hash) {
            return child->table_hash != parent->table_hash;
        }
    }
    return false;
}

/* Puts the open tables of a tie into plan->order, those that are referenced first; gives their
 * number. In a circle of references there is no right order, and the replay has to find it. */
static size_t sort_tables(pen_plan *plan, const tie *at)
{
    size_t count = 0;
    for (uint32_t i = at->first_open; i != NONE; i = plan->tables[i].next_open) {
        pen_plan_grow(&plan->order, &plan->order_capacity, count, sizeof(*plan->order));
        plan->order[count++] = i;
        plan->tables[i].depth = 0;
    }
    bool moved = count > 1;
    for (size_t round = 0; moved && round < count; round++) {
        moved = false;
        for (size_t i = 0; i < count; i++) {
            table *child = &plan->tables[plan->order[i]];
            for (size_t k = 0; k < count && child->target->reference_count > 0; k++) {
                const table *parent = &plan->tables[plan->order[k]];
                if (child->depth <= parent->depth && references(child->target, parent->target)) {
                    child->depth = parent->depth + 1;
                    moved = true;
                }
            }
        }
    }
    for (size_t i = 1; i < count; i++) { /* few, and mostly in order */
        uint32_t which = plan->order[i];
        size_t to = i;
        for (; to > 0 && plan->tables[plan->order[to - 1]].depth > plan->tables[which].depth;
             to--) {
            plan->order[to] = plan->order[to - 1];
        }
        plan->order[to] = which;
    }
    return count;
}

/* A fence: what was put together so far becomes steps. */
void pen_plan_close_tie(pen_plan *plan, tie *at)
{
    if (at->first_open == NONE) {
        return;
    }
    size_t count = sort_tables(plan, at);
    for (size_t i = count; i > 0; i--) {
        add_part(plan, &plan->tables[plan->order[i - 1]], PART_DELETES);
    }
    for (size_t i = 0; i < count; i++) {
        add_part(plan, &plan->tables[plan->order[i]], PART_UPDATES);
        add_part(plan, &plan->tables[plan->order[i]], PART_INSERTS);
    }
    for (size_t i = 0; i < count; i++) {
        plan->tables[plan->order[i]].open = false;
    }
    at->first_open = NONE;
    at->epoch = ++plan->epoch;
}

void pen_plan_close_all(pen_plan *plan)
{
    for (uint32_t i = 0; i < plan->tie_count; i++) {
        pen_plan_close_tie(plan, &plan->ties[i]);
    }
}
