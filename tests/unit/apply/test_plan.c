/* Random histories against a model: what the plan's steps leave must be what the changes leave one
 * by one, rows that the target changes by itself included. PENSTOCK_SEEDS: how many histories. */
#include "apply/plan.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TABLES = 6, VERSIONS = 2, KEYS = 40, COLUMNS = 4, CHANGES = 6000 };

/* id is the key, a and b are not; parent references table `parent_of`. */
enum { ID, A, B, PARENT };

typedef enum action { ACTION_NONE, ACTION_CASCADE, ACTION_SET_NULL } action;

typedef struct cell {
    char text[16]; /* "" is NULL */
} cell;

typedef struct stored {
    bool there;
    cell cells[COLUMNS];
} stored;

typedef struct model {
    stored rows[TABLES][KEYS];
    const char *error; /* NULL: every change found what it had to */
} model;

/* A table in a version. */
typedef struct made {
    pen_relation rel;
    pen_rel_column rel_columns[COLUMNS];
    pen_target target;
    pen_target_column columns[COLUMNS];
    pen_key_column key;
    pen_target_key unique;
    pen_target_reference reference;
    uint64_t cascade;
} made;

/* A change with all that it points to. */
typedef struct written {
    pen_change chg;
    pen_value old_values[COLUMNS];
    pen_value new_values[COLUMNS];
    cell old_cells[COLUMNS];
    cell new_cells[COLUMNS];
    const pen_relation *truncated[2];
} written;

typedef struct history {
    made tables[TABLES][VERSIONS];
    int version[TABLES];   /* that the source tells now */
    int parent_of[TABLES]; /* -1: references none */
    action acts[TABLES];   /* what a parent's DELETE does to this one's rows */
    bool full[TABLES];     /* the whole old row comes with each change */
    model source;
    model target;
    written changes[CHANGES];
    uint64_t seen[CHANGES]; /* what a trigger that reads everything has to see, by change */
    int count;
    uint64_t random;
} history;

static unsigned draw(history *h, unsigned below)
{
    h->random ^= h->random << 13;
    h->random ^= h->random >> 7;
    h->random ^= h->random << 17;
    return (unsigned)((h->random >> 33) % below);
}

static bool chance(history *h, unsigned percent)
{
    return draw(h, 100) < percent;
}

static pen_slice slice(const char *text)
{
    return pen_slice_of(text);
}

static char *text(const char *words)
{
    return (char *)(uintptr_t)words;
}

/* ---- tables */

static void make_table(history *h, int which, int version, pen_scope scope, bool deferrable)
{
    static const char *const names[COLUMNS] = {"id", "a", "b", "parent"};
    made *t = &h->tables[which][version];
    uint64_t hash = (uint64_t)which + 100;
    int parent = h->parent_of[which];
    t->rel = (pen_relation){.oid = (uint32_t)which + 1,
                            .version = (uint32_t)(which * VERSIONS + version + 1),
                            .column_count = COLUMNS,
                            .schema = slice("s"),
                            .table = slice("t"),
                            .columns = t->rel_columns,
                            .target = &t->target};
    for (int i = 0; i < COLUMNS; i++) {
        t->rel_columns[i] = (pen_rel_column){.name = slice(names[i]), .is_key = i == ID};
        t->columns[i] = (pen_target_column){.name = text(names[i]),
                                            .is_key = i == ID && scope != PEN_SCOPE_APPEND,
                                            .equals = text("="),
                                            .array_type = 1009,
                                            .array_delimiter = ','};
    }
    t->key = (pen_key_column){.index = ID, .form = PEN_KEY_NUMERIC};
    t->unique = (pen_target_key){.spec = {.seed = hash, .columns = &t->key, .column_count = 1},
                                 .is_identity = true,
                                 .in_identity = true};
    t->reference = (pen_target_reference){.table_hash = (uint64_t)parent + 100};
    t->target = (pen_target){.rel = &t->rel,
                             .oid = (uint32_t)which + 1,
                             .name = text("s.t"),
                             .columns = t->columns,
                             .extra_columns = text(""),
                             .key = &t->key,
                             .key_count = scope == PEN_SCOPE_APPEND ? 0 : 1,
                             .whole_row = scope == PEN_SCOPE_APPEND,
                             .scope = scope,
                             .table_hash = hash,
                             .uniques = &t->unique,
                             .unique_count = scope == PEN_SCOPE_APPEND ? 0 : 1,
                             .references = &t->reference,
                             .reference_count = parent >= 0,
                             .cascades = &t->cascade,
                             .deferrable = deferrable,
                             .group_hash = hash};
}

/* Tables 0 to 2 are a family, as foreign keys tie them, or not; the others are by themselves. A new
 * version of a table may have been tied to others meanwhile. */
static void make_tables(history *h)
{
    for (int i = 0; i < TABLES; i++) {
        h->parent_of[i] = i == 1 ? 0 : i == 2 ? 1 : -1;
        h->acts[i] = h->parent_of[i] >= 0 ? (action)draw(h, 3) : ACTION_NONE;
        h->full[i] = chance(h, 30);
        for (int v = 0; v < VERSIONS; v++) {
            pen_scope scope = PEN_SCOPE_ROW;
            if (i >= 3) {
                scope = (const pen_scope[]){PEN_SCOPE_ROW, PEN_SCOPE_ROW, PEN_SCOPE_TABLE,
                                            PEN_SCOPE_ALL}[draw(h, 4)];
            }
            make_table(h, i, v, scope, i >= 3 && chance(h, 15));
        }
    }
    for (int v = 0; v < VERSIONS; v++) {
        for (int i = 0; i < 3; i++) {
            h->tables[i][v].target.group_hash = 100;
        }
        for (int child = 1; child < 3; child++) {
            made *parent = &h->tables[h->parent_of[child]][v];
            if (h->acts[child] != ACTION_NONE) {
                parent->cascade = (uint64_t)child + 100;
                parent->target.cascade_count = 1;
                parent->target.delete_acts = true;
            }
        }
    }
    if (chance(h, 50)) { /* the second version of 3 references 4 */
        h->tables[3][1].target.group_hash = 103;
        h->tables[4][1].target.group_hash = 103;
    }
}

/* ---- the model of a server */

static int key_of(const char *id)
{
    return atoi(id);
}

static const char *value_text(const pen_value *value)
{
    return value->kind == PEN_VALUE_NULL ? "" : (const char *)value->data;
}

/* What a foreign key does to the children of a row that goes. */
static void act(const history *h, model *m, int parent, int key)
{
    for (int child = 0; child < TABLES; child++) {
        if (h->parent_of[child] != parent || h->acts[child] == ACTION_NONE) {
            continue;
        }
        for (int k = 0; k < KEYS; k++) {
            stored *row = &m->rows[child][k];
            if (!row->there || row->cells[PARENT].text[0] == '\0' ||
                key_of(row->cells[PARENT].text) != key) {
                continue;
            }
            if (h->acts[child] == ACTION_CASCADE) {
                row->there = false;
                act(h, m, child, k);
            } else {
                row->cells[PARENT].text[0] = '\0';
            }
        }
    }
}

static void apply_row(const history *h, model *m, int table, const pen_change *chg)
{
    const pen_value *now = chg->new_tuple.values;
    const pen_value *key = chg->old_tuple.values != NULL ? chg->old_tuple.values : now;
    int at = key_of(value_text(&key[ID]));
    stored *row = &m->rows[table][at];
    if (chg->kind == PEN_CHANGE_DELETE) {
        if (!row->there) {
            m->error = chg->may_be_missing ? m->error : "a DELETE found no row";
            return;
        }
        row->there = false;
        act(h, m, table, at);
        return;
    }
    int to = key_of(value_text(&now[ID]));
    if (chg->kind == PEN_CHANGE_UPDATE && !row->there) {
        m->error = "an UPDATE found no row";
        return;
    }
    stored after = *row;
    if (chg->kind == PEN_CHANGE_UPDATE && at != to) {
        row->there = false;
        act(h, m, table, at);
    }
    if ((chg->kind == PEN_CHANGE_INSERT || at != to) && m->rows[table][to].there) {
        m->error = "the key is taken";
        return;
    }
    bool keeps_key = chg->kind == PEN_CHANGE_UPDATE && chg->old_tuple.values == NULL;
    for (int i = 0; i < COLUMNS; i++) {
        if (now[i].kind != PEN_VALUE_UNCHANGED && !(i == ID && keeps_key)) {
            snprintf(after.cells[i].text, sizeof(after.cells[i].text), "%s", value_text(&now[i]));
        }
    }
    after.there = true;
    m->rows[table][to] = after;
}

static void apply(const history *h, model *m, const pen_change *chg)
{
    if (chg->kind == PEN_CHANGE_TRUNCATE) {
        for (uint32_t i = 0; i < chg->truncated_count; i++) {
            memset(m->rows[chg->truncated[i]->oid - 1], 0, sizeof(m->rows[0]));
        }
        return;
    }
    apply_row(h, m, (int)chg->rel->oid - 1, chg);
}

/* What can be read at this moment. */
static uint64_t digest(const model *m)
{
    uint64_t sum = 0;
    for (int t = 0; t < TABLES; t++) {
        for (int k = 0; k < KEYS; k++) {
            const stored *row = &m->rows[t][k];
            for (int c = 0; row->there && c < COLUMNS; c++) {
                for (const char *at = row->cells[c].text; *at != '\0'; at++) {
                    sum = sum * 31 + (uint64_t)*at;
                }
                sum = sum * 31 + (uint64_t)(c + 1);
            }
            sum = sum * 31 + row->there;
        }
    }
    return sum;
}

static bool reads_everything(const pen_change *chg)
{
    return chg->rel != NULL && ((const pen_target *)chg->rel->target)->scope == PEN_SCOPE_ALL;
}

/* ---- what the source does */

static written *begin_change(history *h, int table, pen_change_kind kind)
{
    written *w = &h->changes[h->count++];
    memset(w, 0, sizeof(*w));
    w->chg.kind = (uint8_t)kind;
    w->chg.rel = &h->tables[table][h->version[table]].rel;
    return w;
}

static void set_values(pen_value *values, cell *cells, const stored *row)
{
    for (int i = 0; i < COLUMNS; i++) {
        cells[i] = row->cells[i];
        bool null = cells[i].text[0] == '\0';
        values[i] = (pen_value){.data = null ? NULL : (const uint8_t *)cells[i].text,
                                .len = (uint32_t)strlen(cells[i].text),
                                .kind = null ? PEN_VALUE_NULL : PEN_VALUE_TEXT};
    }
}

static void tell_old(written *w, const stored *row, bool full)
{
    set_values(w->old_values, w->old_cells, row);
    w->chg.old_tuple.values = w->old_values;
    w->chg.old_kind = full ? 'O' : 'K';
    for (int i = A; i < COLUMNS && !full; i++) {
        w->old_values[i] = (pen_value){.kind = PEN_VALUE_NULL};
    }
}

static void tell_new(written *w, const stored *row)
{
    set_values(w->new_values, w->new_cells, row);
    w->chg.new_tuple.values = w->new_values;
}

/* A key in one of its spellings. */
static void spell(history *h, int key, cell *out)
{
    static const char *const forms[] = {"%d", "%d.0", "%d.00"};
    int len = snprintf(out->text, sizeof(out->text), "%d", key);
    if (chance(h, 30)) {
        snprintf(out->text + len, sizeof(out->text) - (size_t)len, "%s", forms[1 + draw(h, 2)] + 2);
    }
}

static void fill(history *h, int table, stored *row)
{
    snprintf(row->cells[A].text, sizeof(row->cells[A].text), "a%u", draw(h, 1000));
    snprintf(row->cells[B].text, sizeof(row->cells[B].text), "b%u", draw(h, 1000));
    row->cells[PARENT].text[0] = '\0';
    int parent = h->parent_of[table];
    if (parent >= 0) {
        int key = (int)draw(h, KEYS / 8); /* some have many children */
        if (h->source.rows[parent][key].there) {
            snprintf(row->cells[PARENT].text, sizeof(row->cells[PARENT].text), "%d", key);
        }
    }
}

/* The children's changes that follow a parent's DELETE in the stream. */
static void follow(history *h, int parent, int key)
{
    for (int child = 0; child < TABLES; child++) {
        for (int k = 0; k < KEYS; k++) {
            stored *row = &h->source.rows[child][k];
            if (h->parent_of[child] != parent || !row->there ||
                row->cells[PARENT].text[0] == '\0' || key_of(row->cells[PARENT].text) != key) {
                continue;
            }
            if (h->count >= CHANGES) {
                cr_assert_fail("too many changes for the test");
            }
            if (h->acts[child] == ACTION_CASCADE) {
                written *w = begin_change(h, child, PEN_CHANGE_DELETE);
                tell_old(w, row, h->full[child]);
                w->chg.may_be_missing = true;
                row->there = false;
                follow(h, child, k);
            } else {
                stored before = *row;
                row->cells[PARENT].text[0] = '\0';
                written *w = begin_change(h, child, PEN_CHANGE_UPDATE);
                if (h->full[child]) {
                    tell_old(w, &before, true);
                }
                tell_new(w, row);
            }
        }
    }
}

static void insert(history *h, int table, int key)
{
    stored *row = &h->source.rows[table][key];
    row->there = true;
    spell(h, key, &row->cells[ID]);
    fill(h, table, row);
    tell_new(begin_change(h, table, PEN_CHANGE_INSERT), row);
}

static void update(history *h, int table, int key)
{
    stored *row = &h->source.rows[table][key];
    stored before = *row;
    bool respelled = chance(h, 10);
    fill(h, table, row);
    if (respelled) {
        spell(h, key, &row->cells[ID]);
    }
    bool moved = strcmp(before.cells[ID].text, row->cells[ID].text) != 0;
    written *w = begin_change(h, table, PEN_CHANGE_UPDATE);
    if (moved || h->full[table]) {
        tell_old(w, &before, h->full[table]);
    }
    tell_new(w, row);
    for (int i = A; i <= B; i++) {
        if (chance(h, 25)) {
            row->cells[i] = before.cells[i];
            w->new_values[i] = (pen_value){.kind = PEN_VALUE_UNCHANGED};
        }
    }
}

static void move(history *h, int table, int key, int to)
{
    stored *row = &h->source.rows[table][key];
    stored *there = &h->source.rows[table][to];
    stored before = *row;
    written *w = begin_change(h, table, PEN_CHANGE_UPDATE);
    tell_old(w, &before, h->full[table]);
    *there = before;
    row->there = false;
    spell(h, to, &there->cells[ID]);
    fill(h, table, there);
    tell_new(w, there);
    follow(h, table, key);
}

static void take_out(history *h, int table, int key)
{
    stored *row = &h->source.rows[table][key];
    tell_old(begin_change(h, table, PEN_CHANGE_DELETE), row, h->full[table]);
    row->there = false;
    follow(h, table, key);
}

/* With those that reference it, as the source would have it. */
static void truncate_tables(history *h, int table)
{
    written *w = begin_change(h, table, PEN_CHANGE_TRUNCATE);
    int both = table < 3 ? 2 : table;
    w->chg.rel = NULL;
    w->chg.truncated = w->truncated;
    for (int i = table < 3 ? 1 : table; i <= both; i++) {
        w->truncated[w->chg.truncated_count++] = &h->tables[i][h->version[i]].rel;
        memset(h->source.rows[i], 0, sizeof(h->source.rows[i]));
    }
}

static void write_history(history *h, int length)
{
    /* Cascades reach at most two tables of KEYS rows each. */
    while (h->count < length && h->count < CHANGES - 3 * KEYS * KEYS) {
        int table = (int)draw(h, TABLES);
        int key = (int)draw(h, KEYS);
        int to = (int)draw(h, KEYS);
        unsigned what = draw(h, 100);
        if (!h->source.rows[table][key].there) {
            insert(h, table, key);
        } else if (what < 60) {
            update(h, table, key);
        } else if (what < 90) {
            take_out(h, table, key);
        } else if (what < 95 && !h->source.rows[table][to].there) {
            move(h, table, key, to);
        } else if (what < 97) {
            h->version[table] = !h->version[table];
        } else if (what < 99) {
            truncate_tables(h, table);
        }
    }
}

/* ---- the test */

static bool is_mine(const history *h, const pen_change *chg)
{
    return chg >= &h->changes[0].chg && chg <= &h->changes[h->count - 1].chg;
}

/* A statement of many rows: no row twice, all of one shape. */
static void check_set(const pen_step *step)
{
    const pen_change *first = step->changes[0];
    bool seen[KEYS] = {false};
    for (uint32_t i = 0; i < step->count; i++) {
        const pen_change *chg = step->changes[i];
        cr_assert(chg->rel == first->rel && chg->kind == first->kind);
        cr_assert(!chg->may_be_missing && !((const pen_target *)chg->rel->target)->deferrable);
        const pen_value *key =
            chg->old_tuple.values != NULL ? chg->old_tuple.values : chg->new_tuple.values;
        int at = key_of(value_text(&key[ID]));
        cr_assert(!seen[at], "a row twice in one statement");
        seen[at] = true;
        for (int c = 0; chg->kind == PEN_CHANGE_UPDATE && c < COLUMNS; c++) {
            cr_assert_eq(chg->new_tuple.values[c].kind == PEN_VALUE_UNCHANGED,
                         first->new_tuple.values[c].kind == PEN_VALUE_UNCHANGED);
        }
    }
}

static void compare(const history *h, uint64_t seed)
{
    cr_assert_null(h->target.error, "seed %lu: %s", seed, h->target.error);
    for (int t = 0; t < TABLES; t++) {
        for (int k = 0; k < KEYS; k++) {
            const stored *want = &h->source.rows[t][k];
            const stored *have = &h->target.rows[t][k];
            cr_assert_eq(want->there, have->there, "seed %lu: row %d of table %d %s", seed, k, t,
                         want->there ? "is missing" : "is too many");
            for (int c = 0; want->there && c < COLUMNS; c++) {
                cr_assert_str_eq(have->cells[c].text, want->cells[c].text,
                                 "seed %lu: column %d of row %d of table %d", seed, c, k, t);
            }
        }
    }
}

/* Changes that went into statements of many rows. */
static uint64_t run_history(uint64_t seed)
{
    static history h;
    memset(&h, 0, sizeof(h));
    h.random = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
    (void)draw(&h, 2);
    make_tables(&h);
    pen_plan *plan = pen_plan_create();
    uint64_t in_sets = 0;
    int rounds = 1 + (int)draw(&h, 3);
    for (int round = 0; round < rounds; round++) {
        static model in_order;
        in_order = h.target;
        h.count = 0;
        write_history(&h, 20 + (int)draw(&h, 600));
        if (chance(&h, 5) && h.count > 0) {
            pen_plan_distrust(plan, &h.changes[draw(&h, (unsigned)h.count)].chg);
        }
        pen_plan_begin(plan, chance(&h, 80) ? (uint64_t)h.count : draw(&h, 10));
        for (int i = 0; i < h.count; i++) {
            pen_plan_add(plan, &h.changes[i].chg);
        }
        for (int i = 0; i < h.count; i++) {
            apply(&h, &in_order, &h.changes[i].chg);
            h.seen[i] = reads_everything(&h.changes[i].chg) ? digest(&in_order) : 0;
        }
        size_t count;
        const pen_step *steps = pen_plan_finish(plan, &count);
        for (size_t i = 0; i < count; i++) {
            cr_assert(is_mine(&h, steps[i].subject));
            if (steps[i].count > 1) {
                check_set(&steps[i]);
                in_sets += steps[i].count;
            }
            for (uint32_t k = 0; k < steps[i].count; k++) {
                apply(&h, &h.target, steps[i].changes[k]);
            }
            if (reads_everything(steps[i].subject)) {
                const written *w = (const written *)(const void *)steps[i].subject;
                cr_assert_eq(digest(&h.target), h.seen[w - h.changes],
                             "seed %lu: a trigger saw other rows", seed);
            }
        }
        compare(&h, seed);
    }
    pen_plan_destroy(plan);
    return in_sets;
}

Test(plan, leaves_what_the_changes_leave_one_by_one, .timeout = 3600)
{
    const char *asked = getenv("PENSTOCK_SEEDS");
    uint64_t seeds = asked == NULL ? 3000 : strtoull(asked, NULL, 10);
    uint64_t in_sets = 0;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        in_sets += run_history(seed);
    }
    cr_assert_gt(in_sets, seeds * 5);
}
