/* Random tables, random histories, and every order that the keys allow: a small model of what
 * PostgreSQL does knows all rows. Whatever the order, either the rows are those of the source's
 * order, or something was refused, which a replay in the source's order cures. Where every old row
 * is in the stream, nothing may even be refused. */
#include "apply/keys.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

enum { TABLES = 3, VALUES = 4, CHANGES = 40, NOTHING = -1 };
enum { ID, CODE, UP, NOTE, COLUMNS };

typedef enum action { NO_ACTION, CASCADE, SET_NULL } action;

/* id is the primary key; code may be unique; up may reference a table's id or its unique code. */
typedef struct table {
    bool unique_code;
    bool full; /* REPLICA IDENTITY FULL */
    int parent;
    int parent_column;
    action on_delete;
    action on_update;
    pen_relation rel;
    pen_rel_column rel_columns[COLUMNS];
    pen_target target;
    pen_target_column columns[COLUMNS];
    pen_target_key uniques[2];
    pen_target_key referenced[2];
    pen_target_reference reference;
    uint64_t cascades[TABLES];
} table;

typedef struct tuple {
    bool there;
    int values[COLUMNS]; /* NOTHING is NULL */
} tuple;

/* By table and id. */
typedef struct state {
    tuple rows[TABLES][VALUES];
} state;

typedef struct step {
    int table;
    char kind;
    tuple before;
    tuple after;
    bool may_be_missing; /* behind a parent whose ON DELETE CASCADE took it */
    pen_change chg;
    pen_value old_values[COLUMNS];
    pen_value new_values[COLUMNS];
    char text[2 * COLUMNS][4];
    pen_key keys[32];
    size_t key_count;
} step;

typedef enum outcome { DONE, REFUSED, MISSING } outcome;

static table tables[TABLES];
static step steps[CHANGES];
static size_t step_count;
static uint64_t seed;
static const pen_key_column key_columns[] = {
    {ID, PEN_KEY_INT}, {CODE, PEN_KEY_INT}, {UP, PEN_KEY_INT}};

static unsigned below(unsigned limit)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)(seed >> 33) % limit;
}

/* ---- what PostgreSQL does */

static bool has_value(const state *db, int in, int column, int value)
{
    for (int id = 0; id < VALUES; id++) {
        const tuple *at = &db->rows[in][id];
        if (at->there && at->values[column] == value) {
            return true;
        }
    }
    return false;
}

static bool taken(const state *db, int in, const tuple *it)
{
    return db->rows[in][it->values[ID]].there ||
           (tables[in].unique_code && it->values[CODE] != NOTHING &&
            has_value(db, in, CODE, it->values[CODE]));
}

static bool has_parent(const state *db, int in, const tuple *it)
{
    const table *t = &tables[in];
    return t->parent == NOTHING || it->values[UP] == NOTHING ||
           has_value(db, t->parent, t->parent_column, it->values[UP]);
}

static void note(int in, char kind, const tuple *before, const tuple *after, bool cascaded)
{
    if (step_count < CHANGES) {
        steps[step_count] = (step){.table = in, .kind = kind, .may_be_missing = cascaded};
        steps[step_count].before = before == NULL ? (tuple){0} : *before;
        steps[step_count].after = after == NULL ? (tuple){0} : *after;
    }
    step_count++;
}

static outcome remove_row(state *db, int in, int id, bool source, bool cascaded);

/* The key of a parent's row changes from `gone` to `come` (NULL when the row goes): what its
 * children do. `source`: their changes are noted for the stream. */
static outcome follow(state *db, int in, const tuple *gone, const tuple *come, bool source)
{
    for (int child = 0; child < TABLES; child++) {
        const table *t = &tables[child];
        if (t->parent != in) {
            continue;
        }
        int old_key = gone->values[t->parent_column];
        int new_key = come == NULL ? NOTHING : come->values[t->parent_column];
        action act = come == NULL ? t->on_delete : t->on_update;
        if (old_key == NOTHING || (come != NULL && old_key == new_key)) {
            continue;
        }
        for (int id = 0; id < VALUES; id++) {
            tuple *at = &db->rows[child][id];
            if (!at->there || at->values[UP] != old_key) {
                continue;
            }
            if (act == NO_ACTION) {
                return REFUSED;
            }
            if (act == CASCADE && come == NULL) {
                outcome end = remove_row(db, child, id, source, true);
                if (end != DONE) {
                    return end;
                }
                continue;
            }
            tuple before = *at;
            at->values[UP] = act == CASCADE ? new_key : NOTHING;
            if (source) {
                note(child, 'U', &before, at, false);
            }
        }
    }
    return DONE;
}

static outcome remove_row(state *db, int in, int id, bool source, bool cascaded)
{
    tuple gone = db->rows[in][id];
    if (!gone.there) {
        return MISSING;
    }
    db->rows[in][id].there = false;
    if (source) {
        note(in, 'D', &gone, NULL, cascaded);
    }
    return follow(db, in, &gone, NULL, source);
}

static outcome insert_row(state *db, int in, const tuple *it)
{
    if (taken(db, in, it)) {
        return REFUSED;
    }
    db->rows[in][it->values[ID]] = *it;
    return has_parent(db, in, it) ? DONE : REFUSED;
}

static outcome update_row(state *db, int in, int id, const tuple *it, bool source)
{
    tuple gone = db->rows[in][id];
    if (!gone.there) {
        return MISSING;
    }
    db->rows[in][id].there = false;
    if (taken(db, in, it)) {
        return REFUSED;
    }
    db->rows[in][it->values[ID]] = *it;
    if (gone.values[UP] != it->values[UP] && !has_parent(db, in, it)) {
        return REFUSED;
    }
    if (source) {
        note(in, 'U', &gone, it, false);
    }
    return follow(db, in, &gone, it, source);
}

/* ---- the source's history */

static tuple random_tuple(void)
{
    tuple made = {.there = true};
    made.values[ID] = (int)below(VALUES);
    made.values[CODE] = (int)below(VALUES + 1) - 1;
    made.values[UP] = (int)below(VALUES + 1) - 1;
    made.values[NOTE] = (int)below(VALUES);
    return made;
}

static void random_statement(state *db)
{
    state next = *db;
    size_t noted = step_count;
    int in = (int)below(TABLES);
    int id = (int)below(VALUES);
    tuple made = random_tuple();
    outcome end = DONE;
    switch (below(3)) {
    case 0:
        end = insert_row(&next, in, &made);
        if (end == DONE) {
            note(in, 'I', NULL, &made, false);
        }
        break;
    case 1:
        for (int column = 0; column < COLUMNS; column++) {
            if (below(2) == 0) {
                made.values[column] = next.rows[in][id].values[column];
            }
        }
        end = update_row(&next, in, id, &made, true);
        break;
    default:
        end = remove_row(&next, in, id, true, false);
        break;
    }
    if (end == DONE && step_count <= CHANGES) {
        *db = next;
    } else {
        step_count = noted;
    }
}

static pen_value value_of(char *text, int value)
{
    if (value == NOTHING) {
        return (pen_value){.kind = PEN_VALUE_NULL};
    }
    int len = snprintf(text, 4, "%d", value);
    return (pen_value){.data = (const uint8_t *)text, .len = (uint32_t)len, .kind = PEN_VALUE_TEXT};
}

/* As the stream tells it. */
static void make_change(step *it)
{
    const table *t = &tables[it->table];
    it->chg = (pen_change){.rel = &t->rel, .kind = (uint8_t)it->kind};
    bool moved = it->kind == 'U' && it->before.values[ID] != it->after.values[ID];
    for (int i = 0; i < COLUMNS; i++) {
        it->new_values[i] = value_of(it->text[i], it->after.values[i]);
        it->old_values[i] = value_of(it->text[COLUMNS + i], it->before.values[i]);
        if (!t->full && i != ID) {
            it->old_values[i] = (pen_value){.kind = PEN_VALUE_NULL};
        }
    }
    if (it->kind != 'D') {
        it->chg.new_tuple.values = it->new_values;
    }
    if (it->kind != 'I' && (t->full || it->kind == 'D' || moved)) {
        it->chg.old_tuple.values = it->old_values;
        it->chg.old_kind = t->full ? 'O' : 'K';
    }
}

/* ---- descriptors as the catalog makes them */

static pen_target_key key_on(uint64_t name, int column, const table *t)
{
    return (pen_target_key){
        .spec = {.seed = name, .columns = &key_columns[column], .column_count = 1},
        .in_identity = column == ID || t->full};
}

static uint64_t unique_name(int in, int column)
{
    return UINT64_C(1) << 32 | (unsigned)(in * COLUMNS + column);
}

static uint64_t reference_name(int in, int column)
{
    return UINT64_C(2) << 32 | (unsigned)(in * COLUMNS + column);
}

static void random_tables(bool full)
{
    for (int in = 0; in < TABLES; in++) {
        table *t = &tables[in];
        *t = (table){.unique_code = below(2) == 0, .full = full || below(4) == 0};
    }
    for (int in = 0; in < TABLES; in++) {
        table *t = &tables[in];
        t->parent = (int)below(TABLES + 1) - 1;
        t->parent_column =
            t->parent >= 0 && tables[t->parent].unique_code && below(2) == 0 ? CODE : ID;
        t->on_delete = (action)below(3);
        t->on_update = (action)below(3);
    }
}

static void reach(bool *hit, int from)
{
    for (int child = 0; child < TABLES; child++) {
        const table *t = &tables[child];
        if (t->parent == from && (t->on_delete != NO_ACTION || t->on_update != NO_ACTION) &&
            !hit[child]) {
            hit[child] = true;
            reach(hit, child);
        }
    }
}

static void describe(int in)
{
    table *t = &tables[in];
    pen_target *target = &t->target;
    bool hit[TABLES] = {false};
    t->rel = (pen_relation){.oid = (uint32_t)in + 1,
                            .replica_identity = t->full ? 'f' : 'd',
                            .column_count = COLUMNS,
                            .columns = t->rel_columns,
                            .target = target};
    *target = (pen_target){.rel = &t->rel,
                           .columns = t->columns,
                           .table_hash = pen_keyhash_table((uint64_t)in + 1),
                           .uniques = t->uniques,
                           .referenced = t->referenced,
                           .references = &t->reference,
                           .cascades = t->cascades};
    t->uniques[0] = key_on(unique_name(in, ID), ID, t);
    t->uniques[0].is_identity = true;
    t->uniques[1] = key_on(unique_name(in, CODE), CODE, t);
    target->unique_count = t->unique_code ? 2 : 1;
    bool names[COLUMNS] = {false};
    for (int child = 0; child < TABLES; child++) {
        if (tables[child].parent == in) {
            names[tables[child].parent_column] = true;
        }
    }
    for (int column = ID; column <= CODE; column++) {
        if (names[column]) {
            t->referenced[target->referenced_count++] =
                key_on(reference_name(in, column), column, t);
        }
    }
    if (t->parent != NOTHING) {
        t->reference = (pen_target_reference){
            .key = key_on(reference_name(t->parent, t->parent_column), UP, t),
            .table_hash = pen_keyhash_table((uint64_t)t->parent + 1)};
        target->reference_count = 1;
    }
    reach(hit, in);
    for (int child = 0; child < TABLES; child++) {
        if (hit[child]) {
            t->cascades[target->cascade_count++] = pen_keyhash_table((uint64_t)child + 1);
        }
    }
}

/* ---- the target */

static outcome apply(state *db, const step *it)
{
    switch (it->kind) {
    case 'I':
        return insert_row(db, it->table, &it->after);
    case 'U':
        return update_row(db, it->table, it->before.values[ID], &it->after, false);
    default: {
        outcome end = remove_row(db, it->table, it->before.values[ID], false, false);
        return end == MISSING && it->may_be_missing ? DONE : end;
    }
    }
}

static bool meet(const step *a, const step *b)
{
    for (size_t i = 0; i < a->key_count; i++) {
        for (size_t j = 0; j < b->key_count; j++) {
            if (a->keys[i].hash == b->keys[j].hash &&
                (a->keys[i].access == PEN_ACCESS_WRITE || b->keys[j].access == PEN_ACCESS_WRITE)) {
                return true;
            }
        }
    }
    return false;
}

/* Applies the steps in a random order of those that the keys allow: none before one that it meets.
 */
static outcome apply_in_some_order(state *db, bool (*after)[CHANGES])
{
    bool done[CHANGES] = {false};
    for (size_t left = step_count; left > 0; left--) {
        size_t ready[CHANGES];
        unsigned ready_count = 0;
        for (size_t i = 0; i < step_count; i++) {
            bool free = !done[i];
            for (size_t j = 0; free && j < i; j++) {
                free = done[j] || !after[i][j];
            }
            if (free) {
                ready[ready_count++] = i;
            }
        }
        /* Late ones first, as far as they may: what is most unlike the source's order. */
        size_t pick = below(3) == 0 ? ready[below(ready_count)] : ready[ready_count - 1];
        done[pick] = true;
        outcome end = apply(db, &steps[pick]);
        if (end != DONE) {
            return end;
        }
    }
    return DONE;
}

static bool same(const state *a, const state *b)
{
    for (int in = 0; in < TABLES; in++) {
        for (int id = 0; id < VALUES; id++) {
            const tuple *left = &a->rows[in][id];
            const tuple *right = &b->rows[in][id];
            if (left->there != right->there ||
                (left->there && memcmp(left->values, right->values, sizeof(left->values)) != 0)) {
                return false;
            }
        }
    }
    return true;
}

static bool keys_of(pen_key_list *list, const pen_change *chg, bool with_barriers)
{
    list->count = 0;
    return pen_keys_extract(list, chg, with_barriers);
}

typedef struct tally {
    size_t right;
    size_t refused;
    size_t apart; /* pairs that share no key */
} tally;

static void one_history(uint64_t number, bool full, tally *sum)
{
    state source = {0};
    static bool after[CHANGES][CHANGES];
    pen_key_list list = {0};
    seed = number * UINT64_C(0x9E3779B97F4A7C15) + 1;
    random_tables(full);
    step_count = 0;
    for (unsigned i = 0; i < 10; i++) { /* so that there is something to reference */
        random_statement(&source);
    }
    step_count = 0;
    state begin = source;
    for (unsigned i = 0; i < 60; i++) {
        random_statement(&source);
    }
    for (int in = 0; in < TABLES; in++) {
        describe(in);
    }
    for (size_t i = 0; i < step_count; i++) {
        make_change(&steps[i]);
        cr_assert_not(keys_of(&list, &steps[i].chg, false));
        cr_assert_leq(list.count, PEN_COUNTOF(steps[i].keys));
        memcpy(steps[i].keys, list.keys, list.count * sizeof(*list.keys));
        steps[i].key_count = list.count;
        for (size_t j = 0; j < i; j++) {
            after[i][j] = meet(&steps[i], &steps[j]);
            sum->apart += !after[i][j];
        }
    }
    pen_key_list_deinit(&list);
    for (unsigned turn = 0; turn < 8; turn++) {
        state target = begin;
        outcome end = apply_in_some_order(&target, after);
        cr_assert_neq(end, MISSING, "history %lu: a row was not there", number);
        cr_assert(end == DONE || !full, "history %lu: refused though all is known", number);
        cr_assert(end != DONE || same(&source, &target), "history %lu: other rows", number);
        sum->right += end == DONE;
        sum->refused += end == REFUSED;
    }
}

Test(keys_model, all_old_rows_known, .timeout = 120)
{
    tally sum = {0};
    for (uint64_t number = 1; number <= 20000; number++) {
        one_history(number, true, &sum);
    }
    cr_assert_eq(sum.refused, 0);
    cr_assert_gt(sum.apart, 1500000, "else the keys say nothing: %zu", sum.apart);
}

Test(keys_model, old_rows_as_they_come, .timeout = 120)
{
    tally sum = {0};
    for (uint64_t number = 1; number <= 20000; number++) {
        one_history(number, false, &sum);
    }
    cr_assert_gt(sum.right, 20000, "%zu", sum.right);
    cr_assert_gt(sum.refused, 5000, "else nothing was tried: %zu", sum.refused);
}
