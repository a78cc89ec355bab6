#include "apply/statement.h"

#include "apply/statement_set.h"
#include "core/pgtype.h"
#include "core/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* What a statement's text depends on. Compared whole: hashes only find the bucket. */
typedef struct shape {
    const pen_target *target;
    uint8_t kind;
    bool guarded;
    bool set; /* of many changes */
    bool may_be_missing;
    char old_kind;
    uint8_t *unchanged; /* a bit for each column that came as unchanged TOAST; NULL when none did */
} shape;

typedef struct entry {
    uint64_t hash;
    shape shape;
    pen_statement statement;
} entry;

struct pen_statements {
    entry **buckets; /* open addressing, capacity a power of two */
    size_t capacity;
    size_t count;
    unsigned generation;
    uint8_t *scratch; /* the bitmap of the change looked up */
    size_t scratch_size;
};

pen_statements *pen_statements_create(unsigned generation)
{
    pen_statements *made = pen_calloc(1, sizeof(*made));
    made->generation = generation;
    made->capacity = 64;
    made->buckets = pen_calloc(made->capacity, sizeof(entry *));
    return made;
}

void pen_statements_destroy(pen_statements *statements)
{
    if (statements == NULL) {
        return;
    }
    for (size_t i = 0; i < statements->capacity; i++) {
        entry *it = statements->buckets[i];
        if (it != NULL) {
            free(it->shape.unchanged);
            free(it->statement.sql);
            free(it->statement.param_columns);
            free(it->statement.param_old);
            free(it->statement.param_types);
            free(it);
        }
    }
    free(statements->buckets);
    free(statements->scratch);
    free(statements);
}

size_t pen_statements_count(const pen_statements *statements)
{
    return statements->count;
}

/* A statement under construction. */
typedef struct builder {
    const pen_target *target;
    pen_statement *statement;
    pen_text sql;
    const char *prefix; /* what goes before the next item of a list */
    bool returns;       /* the statement can take RETURNING */
} builder;

static void add_param(builder *b, uint16_t column, bool old)
{
    pen_statement *st = b->statement;
    st->param_columns[st->param_count] = column;
    st->param_old[st->param_count] = old;
    st->param_types[st->param_count] = b->target->columns[column].binary_type;
    st->param_count++;
    pen_text_appendf(&b->sql, "$%u", st->param_count);
}

/* "ONLY" keeps a change of a parent away from the rows of the tables that inherit from it; a
 * partitioned table has no rows of its own. */
static const char *only(const pen_target *target)
{
    return target->partitioned ? "" : "ONLY ";
}

/* The condition that finds one row by its key. */
static void add_key_condition(builder *b, bool old)
{
    b->prefix = "";
    for (uint16_t i = 0; i < b->target->key_count; i++) {
        uint16_t column = b->target->key[i].index;
        pen_text_appendf(&b->sql, "%s%s %s ", b->prefix, b->target->columns[column].name,
                         b->target->columns[column].equals);
        add_param(b, column, old);
        b->prefix = " AND ";
    }
}

/* The condition that finds one row by all of its old values. Values whose `=` is not equality of
 * their bytes (1.0 and 1.00) are compared by their text, or the wrong one of two rows could be
 * taken: as quoted by %L, which tells NULL from every text and, unlike IS NULL, from a composite of
 * nulls; and byte by byte, because a text inherits the column's collation, which may ignore case.
 */
static void add_whole_row_condition(builder *b)
{
    const pen_target *target = b->target;
    b->prefix = "";
    pen_text_appendf(&b->sql, "(tableoid, ctid) = (SELECT tableoid, ctid FROM %s%s WHERE ",
                     only(target), target->name);
    for (uint16_t i = 0; i < target->rel->column_count; i++) {
        const pen_target_column *column = &target->columns[i];
        if (column->generated) {
            continue;
        }
        if (column->equals != NULL) { /* of the primary key, which has no NULL */
            pen_text_appendf(&b->sql, "%s%s %s ", b->prefix, column->name, column->equals);
            add_param(b, i, true);
            b->prefix = " AND ";
        }
        if (column->bytes_equal) {
            pen_text_appendf(&b->sql, "%s%s IS NOT DISTINCT FROM ", b->prefix, column->name);
            add_param(b, i, true);
        } else {
            pen_text_appendf(&b->sql,
                             "%spg_catalog.format('%%L', %s) COLLATE pg_catalog.\"C\" = "
                             "pg_catalog.format('%%L', ",
                             b->prefix, column->name);
            add_param(b, i, true);
            /* A binary value has its type, and %L shows that as the column's: no cast, which has
             * its own ideas of boolean, inet and char(n). */
            pen_text_append(&b->sql, column->binary_type != 0 ? ")" : "::pg_catalog.text)");
        }
        b->prefix = " AND ";
    }
    pen_text_appendf(&b->sql, "%s LIMIT 1)", b->prefix[0] == '\0' ? "true" : "");
}

/* True when the target may have moved the row to its new identity by itself. A row that is found by
 * all of its columns is not looked for there: it could be another one with the same. */
static bool may_have_moved(const pen_target *target, const pen_change *chg)
{
    bool may = chg->kind == PEN_CHANGE_UPDATE && chg->may_be_missing && !target->whole_row &&
               chg->old_tuple.values != NULL;
    for (uint16_t i = 0; may && i < target->key_count; i++) {
        may = chg->new_tuple.values[target->key[i].index].kind != PEN_VALUE_UNCHANGED;
    }
    return may;
}

/* Where the row goes first: who is there is this one, because on the source nobody else can be; and
 * where it was may be another by now, which the same action moved there. */
static void add_moved_condition(builder *b)
{
    pen_text_append(&b->sql, "(");
    add_key_condition(b, false);
    pen_text_append(&b->sql, ") OR (");
    add_key_condition(b, true);
    pen_text_appendf(&b->sql, " AND NOT EXISTS (SELECT 1 FROM %s%s WHERE ", only(b->target),
                     b->target->name);
    add_key_condition(b, false);
    pen_text_append(&b->sql, "))");
}

static void add_condition(builder *b, const pen_change *chg)
{
    pen_text_append(&b->sql, " WHERE ");
    if (b->target->whole_row) {
        add_whole_row_condition(b);
    } else if (may_have_moved(b->target, chg)) {
        pen_text_append(&b->sql, "(");
        add_moved_condition(b);
        pen_text_append(&b->sql, ")");
    } else {
        add_key_condition(b, chg->old_tuple.values != NULL);
    }
}

static void build_insert(builder *b)
{
    const pen_target *target = b->target;
    pen_text_appendf(&b->sql, "INSERT INTO %s", target->name);
    b->prefix = " (";
    for (uint16_t i = 0; i < target->rel->column_count; i++) {
        if (!target->columns[i].generated) {
            pen_text_appendf(&b->sql, "%s%s", b->prefix, target->columns[i].name);
            b->prefix = ", ";
        }
    }
    if (b->prefix[0] == ' ') {
        pen_text_append(&b->sql, " DEFAULT VALUES");
        return;
    }
    pen_text_append(&b->sql, ") OVERRIDING SYSTEM VALUE VALUES ");
    b->prefix = "(";
    for (uint16_t i = 0; i < target->rel->column_count; i++) {
        if (!target->columns[i].generated) {
            pen_text_append(&b->sql, b->prefix);
            add_param(b, i, false);
            b->prefix = ", ";
        }
    }
    pen_text_append(&b->sql, ")");
}

/* True when the update says what column `i` is now: not when it came as unchanged TOAST, is
 * computed here, or is of the key that the row is found by. */
static bool is_told(const pen_target *target, const pen_change *chg, uint16_t i)
{
    const pen_target_column *column = &target->columns[i];
    return chg->new_tuple.values[i].kind != PEN_VALUE_UNCHANGED && !column->generated &&
           !(column->is_key && chg->old_tuple.values == NULL);
}

/* GENERATED ALWAYS columns cannot be SET, yet the source can change them (SET … = DEFAULT). */
static bool tells_identity(const pen_target *target, const pen_change *chg)
{
    for (uint16_t i = 0; i < target->rel->column_count; i++) {
        if (target->columns[i].identity_always && is_told(target, chg, i)) {
            return true;
        }
    }
    return false;
}

/* " AND (a IS … OR b IS …)": whether the row's identity columns are what the update tells. */
static void add_identity_condition(builder *b, const pen_change *chg, const char *comparison,
                                   const char *joint)
{
    const pen_target *target = b->target;
    b->prefix = " AND (";
    for (uint16_t i = 0; i < target->rel->column_count; i++) {
        if (target->columns[i].identity_always && is_told(target, chg, i)) {
            pen_text_appendf(&b->sql, "%s%s %s ", b->prefix, target->columns[i].name, comparison);
            add_param(b, i, false);
            b->prefix = joint;
        }
    }
    pen_text_append(&b->sql, ")");
}

/* The UPDATE itself; where nothing can have changed, a look that the row is there. */
static void add_update(builder *b, const pen_change *chg, bool check_identity)
{
    const pen_target *target = b->target;
    bool sets = false;
    for (uint16_t i = 0; i < target->rel->column_count; i++) {
        const pen_target_column *column = &target->columns[i];
        if (!is_told(target, chg, i) || column->identity_always) {
            continue;
        }
        if (!sets) {
            pen_text_appendf(&b->sql, "UPDATE %s%s SET ", only(target), target->name);
        }
        pen_text_appendf(&b->sql, "%s%s = ", sets ? ", " : "", column->name);
        add_param(b, i, false);
        sets = true;
    }
    if (!sets) {
        pen_text_appendf(&b->sql, "SELECT 1 FROM %s%s", only(target), target->name);
    }
    add_condition(b, chg);
    if (check_identity) {
        add_identity_condition(b, chg, "IS NOT DISTINCT FROM", " AND ");
    }
    b->returns = sets;
    if (!sets) {
        pen_text_append(&b->sql, " FOR NO KEY UPDATE");
    }
}

/* An update of a table with GENERATED ALWAYS columns: an UPDATE where these did not change, and
 * where they did, the row is taken out and put in again with OVERRIDING SYSTEM VALUE; what did not
 * come is taken from the row that was there. Exactly one of the two finds the row, in one
 * statement, whose tag counts the rows of both unless it guards itself. */
static void build_identity_update(builder *b, const pen_change *chg, bool guarded)
{
    const pen_target *target = b->target;
    pen_text_append(&b->sql, "WITH u AS (");
    add_update(b, chg, true);
    pen_text_appendf(&b->sql, "%s), d AS (DELETE FROM %s%s", b->returns ? " RETURNING 1" : "",
                     only(target), target->name);
    add_condition(b, chg);
    add_identity_condition(b, chg, "IS DISTINCT FROM", " OR ");
    pen_text_appendf(&b->sql, " RETURNING *), i AS (INSERT INTO %s (", target->name);
    const char *prefix = "";
    for (uint16_t i = 0; i < target->rel->column_count; i++) {
        if (!target->columns[i].generated) {
            pen_text_appendf(&b->sql, "%s%s", prefix, target->columns[i].name);
            prefix = ", ";
        }
    }
    pen_text_appendf(&b->sql, "%s) OVERRIDING SYSTEM VALUE SELECT ", target->extra_columns);
    prefix = "";
    for (uint16_t i = 0; i < target->rel->column_count; i++) {
        if (target->columns[i].generated) {
            continue;
        }
        pen_text_append(&b->sql, prefix);
        if (is_told(target, chg, i)) {
            add_param(b, i, false);
        } else {
            pen_text_appendf(&b->sql, "d.%s", target->columns[i].name);
        }
        prefix = ", ";
    }
    pen_text_appendf(&b->sql, "%s FROM d RETURNING 1) ", target->extra_columns);
    pen_text_append(&b->sql, guarded ? "SELECT 1 / ((SELECT pg_catalog.count(*) FROM u) +"
                                       " (SELECT pg_catalog.count(*) FROM i) = 1)::pg_catalog.int4"
                                     : "SELECT 1 FROM u UNION ALL SELECT 1 FROM i");
}

static void build_delete(builder *b, const pen_change *chg)
{
    pen_text_appendf(&b->sql, "DELETE FROM %s%s", only(b->target), b->target->name);
    add_condition(b, chg);
}

static bool may_be_gone(const pen_change *chg)
{
    return chg->kind == PEN_CHANGE_DELETE && chg->may_be_missing;
}

/* Wraps a statement so that it divides by zero, and so aborts the transaction, on a wrong row
 * count. */
static void add_guard(builder *b, const pen_change *chg)
{
    char *plain = pen_text_take(&b->sql);
    pen_text_appendf(
        &b->sql, "WITH w AS (%s%s) SELECT 1 / (pg_catalog.count(*) %s 1)::pg_catalog.int4 FROM w",
        plain, b->returns ? " RETURNING 1" : "", may_be_gone(chg) ? "<=" : "=");
    free(plain);
}

static void build_row(pen_statement *st, const pen_change *chg, bool guarded)
{
    const pen_target *target = chg->rel->target;
    builder b = {.target = target, .statement = st, .returns = true};
    st->expected_rows = guarded ? PEN_ROWS_ANY : may_be_gone(chg) ? PEN_ROWS_AT_MOST_ONE : 1;
    switch ((pen_change_kind)chg->kind) {
    case PEN_CHANGE_INSERT:
        build_insert(&b);
        break;
    case PEN_CHANGE_UPDATE:
        if (tells_identity(target, chg) && target->delete_acts) {
            /* To take the row out would act on the rows that reference it, which the source did
             * not: only where the identity did not change. */
            add_update(&b, chg, true);
            break;
        }
        if (tells_identity(target, chg)) {
            build_identity_update(&b, chg, guarded);
            st->sql = pen_text_take(&b.sql);
            return;
        }
        add_update(&b, chg, false);
        break;
    case PEN_CHANGE_DELETE:
        build_delete(&b, chg);
        break;
    case PEN_CHANGE_TRUNCATE:
        break;
    }
    if (guarded) {
        add_guard(&b, chg);
    }
    st->sql = pen_text_take(&b.sql);
}

static void build(pen_statement *st, const pen_change *chg, bool set, bool guarded,
                  const char *name)
{
    PEN_ASSERT(chg->kind != PEN_CHANGE_TRUNCATE); /* its text is made each time */
    /* The longest, an update of identity columns in a row that may have moved, names a column at
     * most ten times. */
    size_t most = 10 * (size_t)chg->rel->column_count + 1;
    st->param_columns = pen_calloc(most, sizeof(*st->param_columns));
    st->param_old = pen_calloc(most, sizeof(*st->param_old));
    st->param_types = pen_calloc(most, sizeof(*st->param_types));
    snprintf(st->name, sizeof(st->name), "%s", name);
    if (set) {
        st->expected_rows = PEN_ROWS_ANY;
        pen_statement_build_set(st, chg, guarded);
    } else {
        build_row(st, chg, guarded);
    }
}

/* Fills the scratch bitmap; returns NULL when no column came unchanged, as for most changes. */
static uint8_t *unchanged_columns(pen_statements *statements, const pen_change *chg, size_t *size)
{
    uint16_t count = chg->rel->column_count;
    *size = ((size_t)count + 7) / 8;
    const pen_value *values = chg->new_tuple.values;
    if (chg->kind != PEN_CHANGE_UPDATE) {
        return NULL;
    }
    bool any = false;
    for (uint16_t i = 0; i < count; i++) {
        if (values[i].kind != PEN_VALUE_UNCHANGED) {
            continue;
        }
        if (!any) {
            if (statements->scratch_size < *size) {
                statements->scratch = pen_realloc(statements->scratch, *size);
                statements->scratch_size = *size;
            }
            memset(statements->scratch, 0, *size);
            any = true;
        }
        statements->scratch[i / 8] |= (uint8_t)(1U << (i % 8));
    }
    return any ? statements->scratch : NULL;
}

static bool same_shape(const shape *a, const shape *b, size_t bitmap_size)
{
    return a->target == b->target && a->kind == b->kind && a->guarded == b->guarded &&
           a->set == b->set && a->may_be_missing == b->may_be_missing &&
           a->old_kind == b->old_kind && (a->unchanged == NULL) == (b->unchanged == NULL) &&
           (a->unchanged == NULL || memcmp(a->unchanged, b->unchanged, bitmap_size) == 0);
}

static uint64_t hash_shape(const shape *it, size_t bitmap_size)
{
    uint64_t fixed = (uint64_t)it->kind << 16 | (uint64_t)(uint8_t)it->old_kind << 8 |
                     (uint64_t)it->set << 2 | (uint64_t)it->may_be_missing << 1 | it->guarded;
    uint64_t seed = XXH3_64bits_withSeed(&it->target, sizeof(void *), fixed);
    return it->unchanged == NULL ? seed : XXH3_64bits_withSeed(it->unchanged, bitmap_size, seed);
}

static void grow(pen_statements *statements)
{
    size_t capacity = statements->capacity * 2;
    entry **buckets = pen_calloc(capacity, sizeof(entry *));
    for (size_t i = 0; i < statements->capacity; i++) {
        entry *it = statements->buckets[i];
        if (it == NULL) {
            continue;
        }
        size_t at = it->hash & (capacity - 1);
        while (buckets[at] != NULL) {
            at = (at + 1) & (capacity - 1);
        }
        buckets[at] = it;
    }
    free(statements->buckets);
    statements->buckets = buckets;
    statements->capacity = capacity;
}

/* The statement of that shape, for changes like `chg`, made when the shape is new. */
static pen_statement *find(pen_statements *statements, shape wanted, size_t bitmap_size,
                           const pen_change *chg)
{
    uint64_t hash = hash_shape(&wanted, bitmap_size);
    size_t at = hash & (statements->capacity - 1);
    for (; statements->buckets[at] != NULL; at = (at + 1) & (statements->capacity - 1)) {
        entry *it = statements->buckets[at];
        if (it->hash == hash && same_shape(&it->shape, &wanted, bitmap_size)) {
            return &it->statement;
        }
    }
    entry *made = pen_calloc(1, sizeof(*made));
    made->hash = hash;
    made->shape = wanted;
    if (wanted.unchanged != NULL) {
        made->shape.unchanged = memcpy(pen_malloc(bitmap_size), wanted.unchanged, bitmap_size);
    }
    char name[sizeof(made->statement.name)];
    snprintf(name, sizeof(name), "p%u_%zu", statements->generation, statements->count);
    build(&made->statement, chg, wanted.set, wanted.guarded, name);
    statements->buckets[at] = made;
    if (++statements->count * 2 > statements->capacity) {
        grow(statements);
    }
    return &made->statement;
}

pen_statement *pen_statements_for(pen_statements *statements, const pen_change *chg, bool guarded)
{
    size_t bitmap_size;
    shape wanted = {.target = chg->rel->target,
                    .kind = chg->kind,
                    .guarded = guarded,
                    .may_be_missing = chg->may_be_missing,
                    .old_kind = chg->old_kind,
                    .unchanged = unchanged_columns(statements, chg, &bitmap_size)};
    return find(statements, wanted, bitmap_size, chg);
}

pen_statement *pen_statements_for_set(pen_statements *statements, const pen_change *chg,
                                      bool guarded)
{
    size_t bitmap_size;
    shape wanted = {.target = chg->rel->target,
                    .kind = chg->kind,
                    .guarded = guarded,
                    .set = true,
                    .unchanged = unchanged_columns(statements, chg, &bitmap_size)};
    return find(statements, wanted, bitmap_size, chg);
}

bool pen_statement_bind(const pen_statement *statement, const pen_change *chg, const char **values,
                        int *lengths, int *formats, pen_error *err)
{
    for (uint32_t i = 0; i < statement->param_count; i++) {
        const pen_value *tuple =
            statement->param_old[i] ? chg->old_tuple.values : chg->new_tuple.values;
        const pen_value *value = tuple == NULL ? NULL : &tuple[statement->param_columns[i]];
        if (value == NULL || value->kind == PEN_VALUE_UNCHANGED) {
            return pen_error_set(
                err, PEN_ERROR_FATAL,
                "the source did not send column \"%s\" of %s.%s, which is needed to find the row; "
                "ALTER "
                "TABLE … REPLICA IDENTITY on the source so that it is sent",
                (const char *)chg->rel->columns[statement->param_columns[i]].name.data,
                (const char *)chg->rel->schema.data, (const char *)chg->rel->table.data);
        }
        if (value->kind == PEN_VALUE_BINARY && statement->param_types[i] == 0) {
            /* The target would take the bytes for whatever type it infers. */
            return pen_error_set(
                err, PEN_ERROR_FATAL,
                "the source sent column \"%s\" of %s.%s in binary although text was asked for",
                (const char *)chg->rel->columns[statement->param_columns[i]].name.data,
                (const char *)chg->rel->schema.data, (const char *)chg->rel->table.data);
        }
        values[i] = value->kind == PEN_VALUE_NULL ? NULL : (const char *)value->data;
        lengths[i] = (int)value->len;
        formats[i] = value->kind == PEN_VALUE_BINARY;
    }
    return true;
}

char *pen_statement_truncate(const pen_change *chg)
{
    /* Without CASCADE: the message lists every table that the source truncated. */
    pen_text sql = {0};
    const char *prefix = "TRUNCATE ";
    for (uint32_t i = 0; i < chg->truncated_count; i++) {
        const pen_target *target = chg->truncated[i]->target;
        pen_text_appendf(&sql, "%s%s%s", prefix, only(target), target->name);
        prefix = ", ";
    }
    pen_text_append(&sql, chg->truncate_restart_identity ? " RESTART IDENTITY" : "");
    return pen_text_take(&sql);
}

static const char *verb(uint8_t kind)
{
    switch ((pen_change_kind)kind) {
    case PEN_CHANGE_INSERT:
        return "INSERT into";
    case PEN_CHANGE_UPDATE:
        return "UPDATE of";
    case PEN_CHANGE_DELETE:
        return "DELETE from";
    case PEN_CHANGE_TRUNCATE:
        return "TRUNCATE of";
    }
    return "change of";
}

void pen_change_describe(const pen_change *chg, char *text, size_t size)
{
    const pen_relation *rel = chg->kind == PEN_CHANGE_TRUNCATE ? chg->truncated[0] : chg->rel;
    pen_text out = {0};
    pen_text_appendf(&out, "%s %s.%s", verb(chg->kind), (const char *)rel->schema.data,
                     (const char *)rel->table.data);
    const pen_target *target = rel->target;
    const pen_value *values =
        chg->old_tuple.values != NULL ? chg->old_tuple.values : chg->new_tuple.values;
    for (uint16_t i = 0; target != NULL && values != NULL && i < target->key_count; i++) {
        const pen_value *value = &values[target->key[i].index];
        const pen_target_column *column = &target->columns[target->key[i].index];
        pen_text_appendf(&out, "%s%s=", i == 0 ? ", key " : ", ", column->name);
        if (value->kind == PEN_VALUE_BINARY) {
            pen_pgtype_describe(column->binary_type, value, &out);
        } else {
            pen_text_appendf(&out, "%.64s",
                             value->kind == PEN_VALUE_TEXT ? (const char *)value->data : "?");
        }
    }
    char *whole = pen_text_take(&out);
    snprintf(text, size, "%s", whole);
    free(whole);
}
