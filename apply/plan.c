/* What order the steps may take, and why no wrong row comes of it.
 *
 * The changes of a wave meet nobody else's (core/conflict.c), so it is about their own order. They
 * fall into ties: tables that enforced foreign keys or inheritance tie together. What happens in
 * one tie is nothing to another, but for triggers that may read anything, and those are barriers
 * for all. Within a tie the changes since the last fence are put together:
 *
 * 1. By row. Rows are told apart by the identity's value, compared whole and normalised, never by
 *    its hash. What the changes of one row come to: at most a DELETE of what was there, then an
 *    INSERT or an UPDATE. Every statement counts the rows that it found, so a row that should be
 *    there and is not fails as it would by itself. Only a row that came and went within the wave is
 *    not heard of.
 * 2. By table and kind: DELETEs, then UPDATEs, then INSERTs; tables that are referenced come before
 *    those that reference them, for DELETEs behind. Rows that are not the same commute in what they
 *    write. What they can meet in otherwise is a unique index or a foreign key, both checked at
 *    once (a table with a deferrable constraint is not put together): that is an error, or nothing.
 *    An error rolls the batch back, and the replay takes the source's order. Values that one row
 *    gives up and another takes mostly find their order here: DELETE before UPDATE before INSERT.
 *
 * A fence ends that: the changes before it are sent before it, those after it after. Fences are
 * - what changes rows that are not its own: TRUNCATE; a DELETE, or an UPDATE that may change a
 *   referenced key, where a foreign key acts on it (CASCADE, SET NULL, SET DEFAULT). A child's
 * later change must not come before such an action, which would undo it;
 * - an UPDATE that moves its row to another key;
 * - a table that comes by a second name or version: the same row has two names then;
 * - whatever cannot be an element of a set: rows without a key, or one that is not hashable,
 * columns whose values do not go into arrays, identity columns that are always generated. */
#include "apply/plan_internal.h"

#include <stdlib.h>
#include <string.h>

/* Changes that a table goes by rows after the first error, and at most. */
#define DISTRUST_FIRST 1000
#define DISTRUST_MOST  (1000u * 1000u)

pen_plan *pen_plan_create(void)
{
    pen_plan *plan = pen_calloc(1, sizeof(*plan));
    plan->last_table = NONE;
    return plan;
}

static void free_chunks(chunk *each)
{
    while (each != NULL) {
        chunk *next = each->next;
        free(each);
        each = next;
    }
}

void pen_plan_destroy(pen_plan *plan)
{
    if (plan == NULL) {
        return;
    }
    free(plan->tables);
    pen_plan_map_deinit(&plan->by_target);
    free(plan->ties);
    pen_plan_map_deinit(&plan->by_group);
    free(plan->items);
    free(plan->slots);
    free(plan->steps);
    free(plan->changes);
    free(plan->group);
    free(plan->order);
    free_chunks(plan->chunks);
    free(plan);
}

/* Memory that lives until the plan is begun anew. */
static void *take(pen_plan *plan, size_t size)
{
    enum { CHUNK_SIZE = 64 * 1024 };
    size = (size + 15) & ~(size_t)15;
    if (plan->chunks == NULL || plan->chunks->size - plan->chunks->used < size) {
        size_t room = size > CHUNK_SIZE ? size : CHUNK_SIZE;
        chunk *made = pen_malloc(sizeof(*made) + room);
        made->next = plan->chunks;
        made->used = 0;
        made->size = room;
        plan->chunks = made;
    }
    void *at = plan->chunks->data + plan->chunks->used;
    plan->chunks->used += size;
    return at;
}

void pen_plan_begin(pen_plan *plan, uint64_t change_count)
{
    size_t wanted = 64;
    while (wanted < change_count * 2 && wanted < (size_t)1 << 20) {
        wanted *= 2;
    }
    if (wanted > plan->slot_capacity) {
        free(plan->slots);
        plan->slots = pen_calloc(wanted, sizeof(*plan->slots));
        plan->slot_capacity = wanted;
    } else {
        memset(plan->slots, 0, wanted * sizeof(*plan->slots));
    }
    plan->slot_used = wanted;
    plan->item_count = 0;
    plan->step_count = 0;
    plan->change_count = 0;
    if (plan->chunks != NULL) {
        free_chunks(plan->chunks->next);
        plan->chunks->next = NULL;
        plan->chunks->used = 0;
    }
}

static item *add_item(pen_plan *plan, uint32_t which, uint64_t hash, const pen_value *key)
{
    table *t = &plan->tables[which];
    pen_plan_grow(&plan->items, &plan->item_capacity, plan->item_count, sizeof(*plan->items));
    uint32_t made = (uint32_t)plan->item_count++;
    plan->items[made] = (item){.hash = hash,
                               .table = which,
                               .epoch = pen_plan_tie_of(plan, which)->epoch,
                               .next = NONE,
                               .key = key};
    if (t->last == NONE) {
        t->first = made;
    } else {
        plan->items[t->last].next = made;
    }
    t->last = made;
    return &plan->items[made];
}

/* Makes the slots twice as many. */
static void add_slots(pen_plan *plan)
{
    plan->slot_used *= 2;
    if (plan->slot_used > plan->slot_capacity) {
        free(plan->slots);
        plan->slots = pen_malloc(plan->slot_used * sizeof(*plan->slots));
        plan->slot_capacity = plan->slot_used;
    }
    memset(plan->slots, 0, plan->slot_used * sizeof(*plan->slots));
    for (uint32_t i = 0; i < plan->item_count; i++) {
        size_t at = plan->items[i].hash;
        while (plan->slots[at & (plan->slot_used - 1)] != 0) {
            at++;
        }
        plan->slots[at & (plan->slot_used - 1)] = i + 1;
    }
}

/* The item of the row with that key, made when there is none. */
static item *find_item(pen_plan *plan, uint32_t which, uint64_t hash, const pen_value *key)
{
    const table *t = &plan->tables[which];
    uint64_t epoch = pen_plan_tie_of(plan, which)->epoch;
    size_t at = hash & (plan->slot_used - 1);
    for (; plan->slots[at] != 0; at = (at + 1) & (plan->slot_used - 1)) {
        item *it = &plan->items[plan->slots[at] - 1];
        if (it->hash == hash && it->table == which && it->epoch == epoch &&
            pen_keyhash_same(t->identity, it->key, key)) {
            return it;
        }
    }
    item *made = add_item(plan, which, hash, key);
    plan->slots[at] = (uint32_t)plan->item_count;
    if (plan->item_count * 2 > plan->slot_used) {
        add_slots(plan);
    }
    return made;
}

/* `put`, then the UPDATE `chg`, as one change. */
static const pen_change *merge(pen_plan *plan, const pen_change *put, const pen_change *chg)
{
    bool whole = pen_plan_hash_unchanged(chg) == 0;
    if (whole && put->kind == PEN_CHANGE_UPDATE) {
        return chg;
    }
    pen_change *made = take(plan, sizeof(*made));
    *made = *chg;
    if (put->kind == PEN_CHANGE_INSERT) {
        made->kind = PEN_CHANGE_INSERT;
        made->old_kind = 0;
        made->old_tuple.values = NULL;
    }
    if (!whole) {
        uint16_t count = chg->rel->column_count;
        pen_value *values = take(plan, count * sizeof(*values));
        for (uint16_t i = 0; i < count; i++) {
            values[i] =
                pen_plan_is_unchanged(chg, i) ? put->new_tuple.values[i] : chg->new_tuple.values[i];
        }
        made->new_tuple.values = values;
    }
    return made;
}

/* False when the change cannot follow what the item has: the source would not have done that. */
static bool join(pen_plan *plan, item *it, const pen_change *chg)
{
    switch ((pen_change_kind)chg->kind) {
    case PEN_CHANGE_INSERT:
        if (it->put != NULL) {
            return false;
        }
        it->put = chg;
        return true;
    case PEN_CHANGE_UPDATE:
        if (it->put == NULL && it->taken != NULL) {
            return false;
        }
        it->put = it->put == NULL ? chg : merge(plan, it->put, chg);
        return true;
    case PEN_CHANGE_DELETE:
        if (it->put == NULL && it->taken != NULL) {
            return false;
        }
        if (it->put == NULL || it->put->kind == PEN_CHANGE_UPDATE) {
            it->taken = chg;
        }
        it->put = NULL;
        return true;
    case PEN_CHANGE_TRUNCATE:
        break;
    }
    return false;
}

/* True when both tell the same identity, byte by byte. */
static bool key_stays(const pen_target *target, const pen_change *chg)
{
    for (uint16_t i = 0; chg->old_tuple.values != NULL && i < target->key_count; i++) {
        const pen_value *old = &chg->old_tuple.values[target->key[i].index];
        const pen_value *now = &chg->new_tuple.values[target->key[i].index];
        if (old->kind != now->kind || old->len != now->len ||
            (old->len > 0 && memcmp(old->data, now->data, old->len) != 0)) {
            return false;
        }
    }
    return true;
}

/* True when the UPDATE says anything of a column that is not the key. */
static bool tells(const pen_target *target, const pen_change *chg)
{
    for (uint16_t i = 0; i < target->rel->column_count; i++) {
        if (!target->columns[i].is_key && !target->columns[i].generated &&
            !pen_plan_is_unchanged(chg, i)) {
            return true;
        }
    }
    return false;
}

/* Whether the change may be put together with others. */
static bool is_joinable(const table *t, const pen_change *chg)
{
    const pen_target *target = t->target;
    bool acts = target->cascade_count > 0;
    if (chg->may_be_missing) {
        return false;
    }
    switch ((pen_change_kind)chg->kind) {
    case PEN_CHANGE_INSERT:
        return t->inserts;
    case PEN_CHANGE_UPDATE:
        return t->updates && !(acts && target->unique_count > 1) && key_stays(target, chg) &&
               tells(target, chg);
    case PEN_CHANGE_DELETE:
        return t->changes && !acts;
    case PEN_CHANGE_TRUNCATE:
        break;
    }
    return false;
}

/* Puts the change together with others of its row; false when it must go by itself. */
static bool put_together(pen_plan *plan, uint32_t which, const pen_change *chg)
{
    table *t = &plan->tables[which];
    const pen_value *key =
        chg->kind == PEN_CHANGE_DELETE ? chg->old_tuple.values : chg->new_tuple.values;
    uint64_t hash = 0;
    if (t->distrust > 0) {
        t->distrust--;
        return false;
    }
    if (!is_joinable(t, chg) ||
        (t->identity != NULL &&
         (key == NULL || pen_keyhash_row(t->identity, key, NULL, &hash) != PEN_KEY_HASHED))) {
        return false;
    }
    if (!t->open) {
        pen_plan_open_table(plan, which);
    }
    item *it =
        t->identity == NULL ? add_item(plan, which, 0, NULL) : find_item(plan, which, hash, key);
    if (!join(plan, it, chg)) {
        pen_plan_close_tie(plan, pen_plan_tie_of(plan, which));
        pen_plan_open_table(plan, which);
        it = find_item(plan, which, hash, key);
        bool joined = join(plan, it, chg);
        PEN_ASSERT(joined);
    }
    it->subject = chg;
    return true;
}

static void add_truncate(pen_plan *plan, const pen_change *chg)
{
    for (uint32_t i = 0; i < chg->truncated_count; i++) {
        const pen_target *target = chg->truncated[i]->target;
        if (target->scope == PEN_SCOPE_ALL) {
            pen_plan_close_all(plan);
        }
        pen_plan_close_tie(plan, pen_plan_tie_of(plan, pen_plan_find_table(plan, target)));
    }
    pen_plan_add_step(plan, chg, chg);
}

void pen_plan_add(pen_plan *plan, const pen_change *chg)
{
    if (chg->kind == PEN_CHANGE_TRUNCATE) {
        add_truncate(plan, chg);
        return;
    }
    const pen_target *target = chg->rel->target;
    uint32_t which = pen_plan_find_table(plan, target);
    if (put_together(plan, which, chg)) {
        return;
    }
    if (target->scope == PEN_SCOPE_ALL) {
        pen_plan_close_all(plan);
    }
    pen_plan_close_tie(plan, pen_plan_tie_of(plan, which));
    pen_plan_add_step(plan, chg, chg);
}

const pen_step *pen_plan_finish(pen_plan *plan, size_t *count)
{
    pen_plan_close_all(plan);
    for (size_t i = 0; i < plan->step_count; i++) {
        plan->steps[i].changes = plan->changes + plan->steps[i].first;
    }
    *count = plan->step_count;
    return plan->steps;
}

const pen_step *pen_plan_segments(pen_plan *plan, const pen_segment *first, size_t *count)
{
    uint64_t change_count = 0;
    for (const pen_segment *seg = first; seg != NULL; seg = seg->next) {
        change_count += seg->change_count;
    }
    pen_plan_begin(plan, change_count);
    for (const pen_segment *seg = first; seg != NULL; seg = seg->next) {
        for (const pen_change *chg = seg->first; chg != NULL; chg = chg->next) {
            pen_plan_add(plan, chg);
        }
    }
    return pen_plan_finish(plan, count);
}

void pen_plan_distrust(pen_plan *plan, const pen_change *chg)
{
    if (chg->kind == PEN_CHANGE_TRUNCATE) {
        return;
    }
    uint32_t which = pen_plan_find_table(plan, chg->rel->target);
    table *t = &plan->tables[which];
    t->distrusted = t->distrusted == 0 ? DISTRUST_FIRST : t->distrusted * 2;
    t->distrusted = t->distrusted > DISTRUST_MOST ? DISTRUST_MOST : t->distrusted;
    t->distrust = t->distrusted;
}
