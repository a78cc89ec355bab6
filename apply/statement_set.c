#include "apply/statement_set.h"

#include "core/text.h"

/* A statement under construction. Each parameter is an array, and each array a column of `u`. */
typedef struct builder {
    const pen_target *target;
    pen_statement *statement;
    pen_text where; /* comes behind the arrays, and yet has the first of them */
    pen_text sql;
} builder;

/* Adds an array of the values of `column`, and to `out` the words for one of its elements. */
static void add_element(builder *b, pen_text *out, uint16_t column, bool of_key)
{
    pen_statement *st = b->statement;
    const pen_target_column *at = &b->target->columns[column];
    st->param_columns[st->param_count] = column;
    st->param_old[st->param_count] = of_key;
    st->param_types[st->param_count] = at->array_type;
    st->param_count++;
    pen_text_appendf(out, "u.a%u", st->param_count);
    if (at->array_cast != NULL) {
        pen_text_appendf(out, "::%s", at->array_cast);
    }
}

/* (SELECT unnest($1) AS a1, unnest($2) AS a2) AS u: in a select list the server takes the elements
 * row by row, all arrays in step, while it would first write those of each array in FROM to a
 * store of its own. An INSERT of rows with an index costs it a tenth to a third less. */
static void add_arrays(builder *b)
{
    const char *prefix = "(SELECT ";
    for (uint32_t i = 1; i <= b->statement->param_count; i++) {
        pen_text_appendf(&b->sql, "%sunnest($%u) AS a%u", prefix, i, i);
        prefix = ", ";
    }
    pen_text_append(&b->sql, ") AS u");
}

/* What finds the rows. */
static void write_where(builder *b)
{
    const pen_target *target = b->target;
    for (uint16_t i = 0; i < target->key_count; i++) {
        const pen_target_column *column = &target->columns[target->key[i].index];
        pen_text_appendf(&b->where, "%st.%s %s ", i == 0 ? " WHERE " : " AND ", column->name,
                         column->equals);
        add_element(b, &b->where, target->key[i].index, true);
    }
}

static void add_insert(builder *b)
{
    const pen_target *target = b->target;
    pen_text_appendf(&b->sql, "INSERT INTO %s", target->name);
    const char *prefix = " (";
    for (uint16_t i = 0; i < target->rel->column_count; i++) {
        if (!target->columns[i].generated) {
            pen_text_appendf(&b->sql, "%s%s", prefix, target->columns[i].name);
            prefix = ", ";
        }
    }
    prefix = ") OVERRIDING SYSTEM VALUE SELECT ";
    for (uint16_t i = 0; i < target->rel->column_count; i++) {
        if (!target->columns[i].generated) {
            pen_text_append(&b->sql, prefix);
            add_element(b, &b->sql, i, false);
            prefix = ", ";
        }
    }
    pen_text_append(&b->sql, " FROM ");
    add_arrays(b);
}

static void add_update(builder *b, const pen_change *chg)
{
    const pen_target *target = b->target;
    write_where(b);
    pen_text_appendf(&b->sql, "UPDATE %s%s AS t", target->partitioned ? "" : "ONLY ", target->name);
    const char *prefix = " SET ";
    for (uint16_t i = 0; i < target->rel->column_count; i++) {
        const pen_target_column *column = &target->columns[i];
        if (!column->is_key && !column->generated &&
            chg->new_tuple.values[i].kind != PEN_VALUE_UNCHANGED) {
            pen_text_appendf(&b->sql, "%s%s = ", prefix, column->name);
            add_element(b, &b->sql, i, false);
            prefix = ", ";
        }
    }
    pen_text_append(&b->sql, " FROM ");
    add_arrays(b);
}

static void add_delete(builder *b)
{
    write_where(b);
    pen_text_appendf(&b->sql, "DELETE FROM %s%s AS t USING ", b->target->partitioned ? "" : "ONLY ",
                     b->target->name);
    add_arrays(b);
}

void pen_statement_build_set(pen_statement *statement, const pen_change *chg, bool guarded)
{
    builder b = {.target = chg->rel->target, .statement = statement};
    if (guarded) {
        pen_text_append(&b.sql, "WITH w AS (");
    }
    switch ((pen_change_kind)chg->kind) {
    case PEN_CHANGE_INSERT:
        add_insert(&b);
        break;
    case PEN_CHANGE_UPDATE:
        add_update(&b, chg);
        break;
    case PEN_CHANGE_DELETE:
        add_delete(&b);
        break;
    case PEN_CHANGE_TRUNCATE:
        break;
    }
    if (b.where.data != NULL) {
        pen_text_append(&b.sql, b.where.data);
    }
    if (guarded) {
        pen_text_append(&b.sql, " RETURNING 1) SELECT 1 / (pg_catalog.count(*) = "
                                "pg_catalog.cardinality($1))::pg_catalog.int4 FROM w");
    }
    pen_text_deinit(&b.where);
    statement->sql = pen_text_take(&b.sql);
}

/* The tuple that parameter `i` takes its element from. */
static const pen_value *tuple_of(const pen_statement *statement, uint32_t i, const pen_change *chg)
{
    bool old = statement->param_old[i] && chg->old_tuple.values != NULL;
    return old ? chg->old_tuple.values : chg->new_tuple.values;
}

void pen_statement_bind_set(const pen_statement *statement, const pen_change *const *changes,
                            uint32_t count, pen_arrays *arrays, const char **values, int *lengths,
                            int *formats)
{
    const pen_target *target = changes[0]->rel->target;
    size_t offset = 0;
    pen_arrays_clear(arrays);
    for (uint32_t i = 0; i < statement->param_count; i++) {
        uint16_t at = statement->param_columns[i];
        const pen_target_column *column = &target->columns[at];
        size_t len = 0;
        if (column->binary_type != 0) {
            pen_arrays_begin_binary(arrays, column->binary_type);
        } else {
            pen_arrays_begin_text(arrays, column->array_delimiter);
        }
        for (uint32_t k = 0; k < count; k++) {
            pen_arrays_add(arrays, &tuple_of(statement, i, changes[k])[at]);
        }
        pen_arrays_end(arrays, &offset, &len);
        lengths[i] = (int)len;
        formats[i] = column->binary_type != 0;
    }
    /* They stay where they are now: one behind the other, each with a NUL behind it. */
    offset = 0;
    for (uint32_t i = 0; i < statement->param_count; i++) {
        values[i] = (const char *)arrays->data + offset;
        offset += (size_t)lengths[i] + 1;
    }
}
