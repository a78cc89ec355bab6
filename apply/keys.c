/* Why no wrong row can come of a dependency that is not here.
 *
 * Take two changes, c before d on the source. When they share a key that one of them writes, they
 * run in that order (core/conflict.c). When they share none, d may run first, or beside c; d's
 * batch still commits no earlier than c's. Three ends are allowed: the rows that the source's order
 * gives; an error; a wait that ends in one of both. An error, a lock_timeout's too, rolls the batch
 * back, and in the source's order, behind everything earlier, the batch has neither. Not allowed is
 * other rows.
 *
 * What a change can meet another in, and why that ends well:
 *
 * 1. The row itself. A statement finds its row by the identity and sets what the stream told, so
 *    changes of different rows commute in what they write. Old and new identity are keys, always
 *    known, and written. A table whose identity is not hashable, not unique here, or not checked
 *    at once is one key as a whole.
 * 2. A unique index. A value that c gives up and d takes. The new value is always known; the old
 * one only where the old row tells it (REPLICA IDENTITY FULL, or columns of the identity), and then
 *    both are keys. Where it is not known, d comes too early into the index, which sees every live
 *    row: 23505 if c has not run, a wait for c's batch if it has and is not committed. It never
 * lets both in. That holds because the index is checked as the row goes in; one that is deferrable
 *    is not, and under session_replication_role = replica never, so such a table is one key as a
 *    whole. So is one with an index that is not hashable: partial, on an expression, an exclusion
 *    constraint, on a column that is not the stream's. A key with a NULL is equal to nothing and no
 *    key, but under NULLS NOT DISTINCT.
 * 3. A foreign key that is enforced here. It only looks: d's child before c's parent, or d's
 *    parent gone before c's last child, is 23503 or a wait, never other rows. Child and parent meet
 * in the referenced key: the child reads it (new, and old where it is known), the parent writes it
 *    (the same) when it is put in, taken out or may change. An old child's value that is not known
 *    is an error or a wait as under 2.
 * 4. What a foreign key does by itself: ON DELETE or UPDATE with CASCADE, SET NULL or SET DEFAULT
 *    changes rows that no key here names. The parent's DELETE, and an UPDATE that may change the
 *    referenced key, writes the whole table of each child, and of the children's children, and so
 * on along such actions.
 * 5. A trigger of the user's. One that may read anything is a barrier for everything. One that is
 *    immutable reads nothing, but BEFORE the row goes in it may change the keys: then the table is
 * one key as a whole.
 *
 * A lock can also be waited for without such a conflict, and one wait would end only by
 * lock_timeout: an UPDATE of any column that a unique index has locks the parent's row against the
 * children's look at it, even where the referenced key stays. So a parent's update writes its
 * referenced keys unless all unique keys are known to stay. Where the identity is the only one, an
 * update without an old row is that: the children of a hot parent wait for nothing.
 *
 * The whole table is a key of its own, the same for all of a partition tree: every change of a row
 * reads it, and of a child also the referenced table's; what is above as a whole writes it, and so
 * do TRUNCATE and the first change of a new relation version. So both sides of a foreign key may
 * judge alone what they can hash: whoever cannot writes the referenced table's key, which the other
 * reads. A change that writes it needs no keys of rows.
 *
 * Names. A unique key is named by its index, that of the topmost partitioned table: so a row of a
 * leaf that comes by the leaf's name meets the same one that comes by the root's. Each of the two
 * has other indexes to find the row by, maybe; but what puts a row in, or changes it, has a new
 * row, and writes every unique key of the leaf, and under the root's name every one that any leaf
 * has. Only two DELETEs of one row share none, and between these there is what put the row in
 * again. A referenced key is named by the same index, but is another key than the unique one:
 * children need not wait for a parent whose key stays. */
#include "apply/keys.h"

#include <stdlib.h>
#include <string.h>

void pen_key_list_deinit(pen_key_list *list)
{
    free(list->keys);
    *list = (pen_key_list){0};
}

static void add(pen_key_list *list, uint64_t hash, pen_access access)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity == 0 ? 32 : list->capacity * 2;
        list->keys = pen_realloc(list->keys, list->capacity * sizeof(*list->keys));
    }
    list->keys[list->count++] = (pen_key){.hash = hash, .access = access};
}

/* The old row, as far as it tells all columns of `key`; in a 'K' tuple the others are NULL whatever
 * they hold. */
static const pen_value *old_values(const pen_target_key *key, const pen_change *chg)
{
    return chg->old_kind == 'O' || key->in_identity ? chg->old_tuple.values : NULL;
}

/* Adds one row's key; false when it cannot be known. */
static bool add_row(pen_key_list *list, const pen_target_key *key, const pen_value *values,
                    const pen_value *before, pen_access access)
{
    uint64_t hash = 0;
    switch (pen_keyhash_row(&key->spec, values, before, &hash)) {
    case PEN_KEY_HASHED:
        add(list, hash, access);
        return true;
    case PEN_KEY_NULL:
        return !key->is_identity;
    case PEN_KEY_UNKNOWN:
        break;
    }
    return false;
}

/* Adds the old and the new row's; false when one that is there cannot be known. */
static bool add_key(pen_key_list *list, const pen_target_key *key, const pen_change *chg,
                    pen_access access)
{
    const pen_value *before = old_values(key, chg);
    const pen_value *after = chg->new_tuple.values;
    return (before == NULL || add_row(list, key, before, NULL, access)) &&
           (after == NULL || add_row(list, key, after, before, access));
}

static bool same_value(const pen_value *a, const pen_value *b)
{
    return b->kind == PEN_VALUE_UNCHANGED ||
           (a->kind == b->kind && a->len == b->len &&
            (a->len == 0 || memcmp(a->data, b->data, a->len) == 0));
}

/* True when the update leaves `key` as it was. Without an old row the identity did not change. */
static bool key_stays(const pen_target_key *key, const pen_change *chg)
{
    if (chg->old_tuple.values == NULL) {
        return key->in_identity;
    }
    const pen_value *before = old_values(key, chg);
    for (uint16_t i = 0; before != NULL && i < key->spec.column_count; i++) {
        uint16_t column = key->spec.columns[i].index;
        if (!same_value(&before[column], &chg->new_tuple.values[column])) {
            return false;
        }
    }
    return before != NULL;
}

/* True when the change takes a key away that others may reference, or gives one: or may do so. */
static bool moves_keys(const pen_target *target, const pen_change *chg)
{
    if (chg->kind != PEN_CHANGE_UPDATE || target->scope != PEN_SCOPE_ROW || target->remakes_rows) {
        return true;
    }
    for (uint16_t i = 0; i < target->unique_count; i++) {
        if (!key_stays(&target->uniques[i], chg)) {
            return true;
        }
    }
    return false;
}

/* Unique keys and what others reference; false when one cannot be known. */
static bool add_own(pen_key_list *list, const pen_target *target, const pen_change *chg, bool moves)
{
    for (uint16_t i = 0; i < target->unique_count; i++) {
        if (!add_key(list, &target->uniques[i], chg, PEN_ACCESS_WRITE)) {
            return false;
        }
    }
    for (uint16_t i = 0; moves && i < target->referenced_count; i++) {
        if (!add_key(list, &target->referenced[i], chg, PEN_ACCESS_WRITE)) {
            return false;
        }
    }
    return true;
}

/* What the change's row references. */
static void add_references(pen_key_list *list, const pen_target *target, const pen_change *chg)
{
    for (uint16_t i = 0; i < target->reference_count; i++) {
        const pen_target_reference *ref = &target->references[i];
        /* A TRUNCATE lets go of all that was referenced. */
        bool whole = ref->whole_table || chg->kind == PEN_CHANGE_TRUNCATE;
        if (!whole && ref->key.spec.column_count > 0) {
            whole = !add_key(list, &ref->key, chg, PEN_ACCESS_READ);
        }
        add(list, ref->table_hash, whole ? PEN_ACCESS_WRITE : PEN_ACCESS_READ);
    }
}

static bool goes_by_keys(const pen_target *target, const pen_change *chg)
{
    return !target->fresh && chg->kind != PEN_CHANGE_TRUNCATE &&
           (target->scope == PEN_SCOPE_ROW ||
            (target->scope == PEN_SCOPE_APPEND && chg->kind == PEN_CHANGE_INSERT));
}

/* Adds what a change of `target` touches. */
static bool add_target(pen_key_list *list, pen_target *target, const pen_change *chg, bool barriers)
{
    uint64_t everything = pen_keyhash_table(0); /* no table has OID 0 */
    bool after_all = target->fresh || target->scope == PEN_SCOPE_ALL;
    bool moves = moves_keys(target, chg);
    bool by_keys = goes_by_keys(target, chg) && add_own(list, target, chg, moves);
    /* A version that is new may have other constraints: nothing that was hashed before can be
     * compared with it. */
    if (target->fresh) {
        target->fresh = false; /* not written otherwise: other dispatchers may be reading it */
    }
    add(list, target->table_hash, by_keys ? PEN_ACCESS_READ : PEN_ACCESS_WRITE);
    add_references(list, target, chg);
    bool acts = chg->kind == PEN_CHANGE_DELETE || (chg->kind == PEN_CHANGE_UPDATE && moves);
    for (uint16_t i = 0; acts && i < target->cascade_count; i++) {
        add(list, target->cascades[i], PEN_ACCESS_WRITE);
    }
    if (target->scope == PEN_SCOPE_ALL) {
        add(list, everything, PEN_ACCESS_WRITE);
    } else if (barriers) {
        add(list, everything, PEN_ACCESS_READ);
    }
    return after_all;
}

bool pen_keys_extract(pen_key_list *list, const pen_change *chg, bool barriers)
{
    if (chg->kind != PEN_CHANGE_TRUNCATE) {
        return add_target(list, chg->rel->target, chg, barriers);
    }
    bool after_all = false;
    for (uint32_t i = 0; i < chg->truncated_count; i++) {
        after_all |= add_target(list, chg->truncated[i]->target, chg, barriers);
    }
    return after_all;
}
