#include "apply/statement.h"

#include "tests/unit/apply/change_rig.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

static rig item;
static row old_row;
static row new_row;
static pen_statements *statements;

static void set_up(void)
{
    rig_init(&item);
    statements = pen_statements_create(0);
}

static void tear_down(void)
{
    pen_statements_destroy(statements);
}

TestSuite(statement, .init = set_up, .fini = tear_down, .timeout = 60);

/* id is the key, name and note are not. */
static void three_columns(void)
{
    rig_key_column(&item, "id");
    rig_column(&item, "\"Name\"");
    rig_column(&item, "note");
}

static pen_change insert(const char *words)
{
    return change_of(&item, 'I', 0, NULL, NULL, &new_row, words);
}

static pen_change update(char old_kind, const char *old_words, const char *words)
{
    return change_of(&item, 'U', old_kind, &old_row, old_words, &new_row, words);
}

static pen_change delete_of(char old_kind, const char *words)
{
    return change_of(&item, 'D', old_kind, &old_row, words, NULL, NULL);
}

static void expect_sql(pen_change chg, bool guarded, const char *sql)
{
    cr_assert_str_eq(pen_statements_for(statements, &chg, guarded)->sql, sql);
}

/* The values that are bound, with blanks between. */
static void expect_values(pen_change chg, const char *words)
{
    const char *values[5 * RIG_COLUMNS];
    int lengths[5 * RIG_COLUMNS];
    int formats[5 * RIG_COLUMNS];
    pen_error err;
    const pen_statement *st = pen_statements_for(statements, &chg, false);
    char got[512] = "";
    cr_assert_leq(st->param_count, PEN_COUNTOF(values));
    cr_assert(pen_statement_bind(st, &chg, values, lengths, formats, &err), "%s", err.text);
    for (uint32_t i = 0; i < st->param_count; i++) {
        cr_assert_eq(formats[i], 0);
        cr_assert(values[i] == NULL || strlen(values[i]) == (size_t)lengths[i]);
        size_t used = strlen(got);
        snprintf(got + used, sizeof(got) - used, "%s%s", i == 0 ? "" : " ",
                 values[i] == NULL ? "NULL" : values[i]);
    }
    cr_assert_str_eq(got, words);
}

Test(statement, insert)
{
    three_columns();
    const char *sql = "INSERT INTO shop.item (id, \"Name\", note) OVERRIDING SYSTEM VALUE VALUES "
                      "($1, $2, $3)";
    expect_sql(insert("1 nail NULL"), false, sql);
    expect_values(insert("1 nail NULL"), "1 nail NULL");
    expect_sql(insert("1 nail NULL"), true,
               "WITH w AS (INSERT INTO shop.item (id, \"Name\", note) OVERRIDING SYSTEM VALUE "
               "VALUES ($1, $2, $3) RETURNING 1) SELECT 1 / (pg_catalog.count(*) = "
               "1)::pg_catalog.int4 FROM w");
    /* A partitioned table, or one that others inherit from, takes rows by its own name. */
    pen_statements_destroy(statements);
    statements = pen_statements_create(0);
    item.target.partitioned = true;
    expect_sql(insert("1 nail NULL"), false, sql);
}

Test(statement, insert_leaves_generated_columns_out)
{
    rig_key_column(&item, "id")->identity_always = true;
    rig_column(&item, "total")->generated = true;
    rig_column(&item, "note");
    expect_sql(insert("1 99 x"), false,
               "INSERT INTO shop.item (id, note) OVERRIDING SYSTEM VALUE VALUES ($1, $2)");
    expect_values(insert("1 99 x"), "1 x");
}

Test(statement, insert_of_nothing)
{
    expect_sql(insert(""), false, "INSERT INTO shop.item DEFAULT VALUES");
    rig_column(&item, "total")->generated = true;
    expect_values(insert("5"), "");
    expect_sql(insert("5"), true,
               "WITH w AS (INSERT INTO shop.item DEFAULT VALUES RETURNING 1) SELECT 1 / "
               "(pg_catalog.count(*) = 1)::pg_catalog.int4 FROM w");
}

Test(statement, update_whose_key_did_not_change)
{
    three_columns();
    pen_change chg = update(0, NULL, "7 nail NULL");
    expect_sql(chg, false,
               "UPDATE ONLY shop.item SET \"Name\" = $1, note = $2 WHERE id "
               "OPERATOR(pg_catalog.=) $3");
    expect_values(chg, "nail NULL 7");
    expect_sql(chg, true,
               "WITH w AS (UPDATE ONLY shop.item SET \"Name\" = $1, note = $2 WHERE id "
               "OPERATOR(pg_catalog.=) $3 RETURNING 1) SELECT 1 / (pg_catalog.count(*) = "
               "1)::pg_catalog.int4 FROM w");
}

Test(statement, update_of_the_key_finds_the_row_by_the_old_one)
{
    three_columns();
    pen_change chg = update('K', "7 NULL NULL", "8 nail x");
    expect_sql(chg, false,
               "UPDATE ONLY shop.item SET id = $1, \"Name\" = $2, note = $3 WHERE id "
               "OPERATOR(pg_catalog.=) $4");
    expect_values(chg, "8 nail x 7");
}

Test(statement, update_with_the_whole_old_row_still_goes_by_the_key)
{
    three_columns();
    pen_change chg = update('O', "7 hammer y", "7 nail x");
    expect_sql(chg, false,
               "UPDATE ONLY shop.item SET id = $1, \"Name\" = $2, note = $3 WHERE id "
               "OPERATOR(pg_catalog.=) $4");
    expect_values(chg, "7 nail x 7");
}

Test(statement, update_by_two_key_columns_in_the_order_of_the_table)
{
    rig_column(&item, "note");
    rig_key_column(&item, "b");
    rig_key_column(&item, "a");
    pen_change chg = update('K', "NULL 1 2", "x 3 4");
    expect_sql(chg, false,
               "UPDATE ONLY shop.item SET note = $1, b = $2, a = $3 WHERE b "
               "OPERATOR(pg_catalog.=) $4 AND a OPERATOR(pg_catalog.=) $5");
    expect_values(chg, "x 3 4 1 2");
}

Test(statement, update_leaves_unchanged_toast_alone)
{
    three_columns();
    expect_sql(update(0, NULL, "7 - x"), false,
               "UPDATE ONLY shop.item SET note = $1 WHERE id OPERATOR(pg_catalog.=) $2");
    expect_values(update(0, NULL, "7 - x"), "x 7");
    expect_sql(update(0, NULL, "7 nail -"), false,
               "UPDATE ONLY shop.item SET \"Name\" = $1 WHERE id OPERATOR(pg_catalog.=) $2");
    expect_values(update(0, NULL, "7 nail -"), "nail 7");
}

Test(statement, update_of_nothing_looks_that_the_row_is_there)
{
    three_columns();
    pen_change chg = update(0, NULL, "7 - -");
    expect_sql(chg, false,
               "SELECT 1 FROM ONLY shop.item WHERE id OPERATOR(pg_catalog.=) $1 "
               "FOR NO KEY UPDATE");
    expect_values(chg, "7");
    /* A SELECT takes no RETURNING. */
    expect_sql(chg, true,
               "WITH w AS (SELECT 1 FROM ONLY shop.item WHERE id OPERATOR(pg_catalog.=) $1 "
               "FOR NO KEY UPDATE) SELECT 1 / (pg_catalog.count(*) = 1)::pg_catalog.int4 FROM w");
}

Test(statement, update_of_a_table_that_is_all_key)
{
    rig_key_column(&item, "a");
    rig_key_column(&item, "b");
    expect_sql(update(0, NULL, "1 2"), false,
               "SELECT 1 FROM ONLY shop.item WHERE a OPERATOR(pg_catalog.=) $1 AND b "
               "OPERATOR(pg_catalog.=) $2 FOR NO KEY UPDATE");
    expect_sql(update('K', "1 2", "1 3"), false,
               "UPDATE ONLY shop.item SET a = $1, b = $2 WHERE a OPERATOR(pg_catalog.=) $3 AND b "
               "OPERATOR(pg_catalog.=) $4");
    expect_values(update('K', "1 2", "1 3"), "1 3 1 2");
}

Test(statement, update_leaves_generated_columns_out)
{
    rig_key_column(&item, "id");
    rig_column(&item, "total")->generated = true;
    rig_column(&item, "note");
    pen_change chg = update('K', "1 NULL NULL", "2 99 x");
    expect_sql(chg, false,
               "UPDATE ONLY shop.item SET id = $1, note = $2 WHERE id OPERATOR(pg_catalog.=) $3");
    expect_values(chg, "2 x 1");
}

Test(statement, update_of_a_partitioned_table)
{
    three_columns();
    item.target.partitioned = true;
    expect_sql(update(0, NULL, "7 nail x"), false,
               "UPDATE shop.item SET \"Name\" = $1, note = $2 WHERE id OPERATOR(pg_catalog.=) $3");
    expect_sql(delete_of('K', "7 NULL NULL"), false,
               "DELETE FROM shop.item WHERE id OPERATOR(pg_catalog.=) $1");
    expect_sql(update(0, NULL, "7 - -"), false,
               "SELECT 1 FROM shop.item WHERE id OPERATOR(pg_catalog.=) $1 FOR NO KEY UPDATE");
}

/* Beside the key, so that an update tells it each time. */
static void identity_columns(void)
{
    rig_key_column(&item, "id");
    rig_column(&item, "serial")->identity_always = true;
    rig_column(&item, "total")->generated = true;
    rig_column(&item, "note");
    item.target.extra_columns = rig_text(", mine");
}

Test(statement, update_that_tells_an_identity_column)
{
    identity_columns();
    pen_change chg = update(0, NULL, "1 5 99 -");
    expect_sql(chg, false,
               "WITH u AS (SELECT 1 FROM ONLY shop.item WHERE id OPERATOR(pg_catalog.=) $1 AND "
               "(serial IS NOT DISTINCT FROM $2) FOR NO KEY UPDATE), d AS (DELETE FROM ONLY "
               "shop.item WHERE id OPERATOR(pg_catalog.=) $3 AND (serial IS DISTINCT FROM $4) "
               "RETURNING *), i AS (INSERT INTO shop.item (id, serial, note, mine) OVERRIDING "
               "SYSTEM VALUE SELECT d.id, $5, d.note, mine FROM d RETURNING 1) SELECT 1 FROM u "
               "UNION ALL SELECT 1 FROM i");
    expect_values(chg, "1 5 1 5 5");
    cr_assert_eq(pen_statements_for(statements, &chg, false)->expected_rows, 1);
    cr_assert_eq(pen_statements_for(statements, &chg, true)->expected_rows, PEN_ROWS_ANY);
    chg = update('K', "1 NULL NULL NULL", "2 5 99 x");
    expect_sql(chg, true,
               "WITH u AS (UPDATE ONLY shop.item SET id = $1, note = $2 WHERE id "
               "OPERATOR(pg_catalog.=) $3 AND (serial IS NOT DISTINCT FROM $4) RETURNING 1), d AS "
               "(DELETE FROM ONLY shop.item WHERE id OPERATOR(pg_catalog.=) $5 AND (serial IS "
               "DISTINCT FROM $6) RETURNING *), i AS (INSERT INTO shop.item (id, serial, note, "
               "mine) OVERRIDING SYSTEM VALUE SELECT $7, $8, $9, mine FROM d RETURNING 1) SELECT 1 "
               "/ ((SELECT pg_catalog.count(*) FROM u) + (SELECT pg_catalog.count(*) FROM i) = "
               "1)::pg_catalog.int4");
    expect_values(chg, "2 x 1 5 1 5 2 5 x");
}

/* Where to take the row out would act on others, it is only compared. */
Test(statement, update_that_tells_an_identity_column_of_a_row_that_others_reference)
{
    identity_columns();
    item.target.delete_acts = true;
    pen_change chg = update(0, NULL, "1 5 99 x");
    expect_sql(chg, false,
               "UPDATE ONLY shop.item SET note = $1 WHERE id OPERATOR(pg_catalog.=) $2 AND (serial "
               "IS NOT DISTINCT FROM $3)");
    expect_values(chg, "x 1 5");
    cr_assert_eq(pen_statements_for(statements, &chg, false)->expected_rows, 1);
    expect_sql(chg, true,
               "WITH w AS (UPDATE ONLY shop.item SET note = $1 WHERE id OPERATOR(pg_catalog.=) $2 "
               "AND (serial IS NOT DISTINCT FROM $3) RETURNING 1) SELECT 1 / (pg_catalog.count(*) "
               "= 1)::pg_catalog.int4 FROM w");
}

Test(statement, update_by_an_identity_key_that_stayed)
{
    rig_key_column(&item, "id")->identity_always = true;
    rig_column(&item, "note");
    expect_sql(update(0, NULL, "1 x"), false,
               "UPDATE ONLY shop.item SET note = $1 WHERE id OPERATOR(pg_catalog.=) $2");
}

Test(statement, delete)
{
    three_columns();
    expect_sql(delete_of('K', "7 NULL NULL"), false,
               "DELETE FROM ONLY shop.item WHERE id OPERATOR(pg_catalog.=) $1");
    expect_values(delete_of('K', "7 NULL NULL"), "7");
    expect_sql(delete_of('O', "7 nail x"), true,
               "WITH w AS (DELETE FROM ONLY shop.item WHERE id OPERATOR(pg_catalog.=) $1 RETURNING "
               "1) SELECT 1 / (pg_catalog.count(*) = 1)::pg_catalog.int4 FROM w");
    expect_values(delete_of('O', "7 nail x"), "7");
}

Test(statement, delete_of_a_row_that_may_be_gone)
{
    three_columns();
    pen_change chg = delete_of('K', "7 NULL NULL");
    chg.may_be_missing = true;
    const char *plain = "DELETE FROM ONLY shop.item WHERE id OPERATOR(pg_catalog.=) $1";
    expect_sql(chg, false, plain);
    expect_sql(chg, true,
               "WITH w AS (DELETE FROM ONLY shop.item WHERE id OPERATOR(pg_catalog.=) $1 RETURNING "
               "1) SELECT 1 / (pg_catalog.count(*) <= 1)::pg_catalog.int4 FROM w");
    cr_assert_eq(pen_statements_for(statements, &chg, false)->expected_rows, PEN_ROWS_AT_MOST_ONE);
    /* And it is not taken for the one that must be there. */
    chg = delete_of('K', "7 NULL NULL");
    expect_sql(chg, false, plain);
    cr_assert_eq(pen_statements_for(statements, &chg, false)->expected_rows, 1);
}

/* It is where it goes already, or else still where it was. */
Test(statement, update_of_a_row_that_may_have_moved)
{
    three_columns();
    pen_change chg = update('K', "7 NULL NULL", "8 nail x");
    chg.may_be_missing = true;
    const char *where =
        "((id OPERATOR(pg_catalog.=) $4) OR (id OPERATOR(pg_catalog.=) $5 AND NOT "
        "EXISTS (SELECT 1 FROM ONLY shop.item WHERE id OPERATOR(pg_catalog.=) $6)))";
    const pen_statement *st = pen_statements_for(statements, &chg, false);
    cr_assert_not_null(strstr(st->sql, where), "%s", st->sql);
    cr_assert_eq(st->expected_rows, 1);
    expect_values(chg, "8 nail x 8 7 8");
    st = pen_statements_for(statements, &chg, true);
    cr_assert_not_null(strstr(st->sql, where), "%s", st->sql);
    cr_assert_not_null(strstr(st->sql, "pg_catalog.count(*) = 1"), "%s", st->sql);
    /* Where it goes is not known: only where it was. */
    chg = update('K', "7 NULL NULL", "- nail x");
    chg.may_be_missing = true;
    cr_assert_null(strstr(pen_statements_for(statements, &chg, false)->sql, "EXISTS"));
}

static void whole_row(void)
{
    item.rel.replica_identity = 'f';
    item.target.whole_row = true;
    rig_column(&item, "a");
    rig_column(&item, "total")->generated = true;
    rig_column(&item, "price")->bytes_equal = false;
}

#define WHOLE_ROW_WHERE(a, price)                                                                  \
    " WHERE (tableoid, ctid) = (SELECT tableoid, ctid FROM ONLY shop.item WHERE a IS NOT "         \
    "DISTINCT FROM " a " AND pg_catalog.format('%L', price) COLLATE pg_catalog.\"C\" = "           \
    "pg_catalog.format('%L', " price "::pg_catalog.text) LIMIT 1)"

Test(statement, a_row_without_a_key_is_found_by_all_of_it)
{
    whole_row();
    pen_change chg = update('O', "1 99 1.0", "2 99 1.00");
    expect_sql(chg, false,
               "UPDATE ONLY shop.item SET a = $1, price = $2" WHOLE_ROW_WHERE("$3", "$4"));
    expect_values(chg, "2 1.00 1 1.0");
    chg = delete_of('O', "1 99 NULL");
    expect_sql(chg, false, "DELETE FROM ONLY shop.item" WHOLE_ROW_WHERE("$1", "$2"));
    expect_values(chg, "1 NULL");
}

Test(statement, a_row_of_no_columns_is_any_one)
{
    item.target.whole_row = true;
    rig_column(&item, "total")->generated = true;
    expect_sql(delete_of('O', "99"), false,
               "DELETE FROM ONLY shop.item WHERE (tableoid, ctid) = (SELECT tableoid, ctid FROM "
               "ONLY shop.item WHERE true LIMIT 1)");
}

Test(statement, whole_rows_of_a_partitioned_table)
{
    item.target.whole_row = true;
    item.target.partitioned = true;
    rig_column(&item, "a");
    expect_sql(delete_of('O', "1"), false,
               "DELETE FROM shop.item WHERE (tableoid, ctid) = (SELECT tableoid, ctid FROM "
               "shop.item WHERE a IS NOT DISTINCT FROM $1 LIMIT 1)");
}

/* The longest statement: each column is named five times. */
Test(statement, identity_columns_of_whole_rows_have_room)
{
    item.target.whole_row = true;
    for (int i = 0; i < RIG_COLUMNS; i++) {
        rig_column(&item, "c")->identity_always = true;
    }
    pen_change chg = update('O', "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
                            "2 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16");
    const pen_statement *st = pen_statements_for(statements, &chg, false);
    cr_assert_eq(st->param_count, 5 * RIG_COLUMNS);
    /* One that changed is enough for the row to be put in anew. */
    cr_assert_not_null(strstr(st->sql, "AND (c IS NOT DISTINCT FROM $17 AND c IS NOT"));
    cr_assert_not_null(strstr(st->sql, "AND (c IS DISTINCT FROM $49 OR c IS DISTINCT"));
}

Test(statement, binary_values_and_null_are_bound_as_such)
{
    three_columns();
    item.columns[0].binary_type = 23;
    pen_change chg = insert("1 nail NULL");
    const uint8_t bytes[] = {0, 0, 0, 7, 0};
    new_row.values[0] = (pen_value){.data = bytes, .len = 4, .kind = PEN_VALUE_BINARY};
    const char *values[3];
    int lengths[3];
    int formats[3];
    pen_error err;
    cr_assert(pen_statement_bind(pen_statements_for(statements, &chg, false), &chg, values, lengths,
                                 formats, &err));
    cr_assert_eq((const void *)values[0], (const void *)bytes);
    cr_assert_eq(lengths[0], 4);
    cr_assert_eq(formats[0], 1);
    cr_assert_eq(lengths[1], 4);
    cr_assert_eq(formats[1], 0);
    cr_assert_null(values[2]);
    cr_assert_eq(formats[2], 0);
}

Test(statement, a_binary_value_that_nobody_asked_for)
{
    three_columns();
    pen_change chg = insert("1 nail NULL");
    const char *values[3];
    int lengths[3];
    int formats[3];
    pen_error err;
    new_row.values[1].kind = PEN_VALUE_BINARY;
    cr_assert_not(pen_statement_bind(pen_statements_for(statements, &chg, false), &chg, values,
                                     lengths, formats, &err));
    cr_assert_eq(err.kind, PEN_ERROR_FATAL);
    cr_assert_not_null(strstr(err.text, "sent column \"\"Name\"\" of shop.item in binary"), "%s",
                       err.text);
}

/* The types of the parameters as prepared, with blanks between; 0 is inferred. */
static void expect_types(pen_change chg, const char *words)
{
    const pen_statement *st = pen_statements_for(statements, &chg, false);
    char got[256] = "";
    for (uint32_t i = 0; i < st->param_count; i++) {
        size_t used = strlen(got);
        snprintf(got + used, sizeof(got) - used, "%s%u", i == 0 ? "" : " ", st->param_types[i]);
    }
    cr_assert_str_eq(got, words);
}

Test(statement, values_as_text_leave_their_types_to_the_server)
{
    three_columns();
    expect_types(insert("7 nail x"), "0 0 0");
    expect_types(update('K', "7 NULL NULL", "8 nail x"), "0 0 0 0");
    expect_types(delete_of('K', "7 NULL NULL"), "0");
}

Test(statement, binary_values_are_told_by_the_type_that_they_came_in)
{
    three_columns();
    item.columns[0].binary_type = 23;
    item.columns[1].binary_type = 25;
    item.columns[2].binary_type = 3802;
    expect_types(insert("7 nail x"), "23 25 3802");
    expect_types(update('K', "7 NULL NULL", "8 nail x"), "23 25 3802 23");
    expect_types(update(0, NULL, "7 - x"), "3802 23");
    expect_types(delete_of('K', "7 NULL NULL"), "23");
}

Test(statement, binary_values_are_compared_as_what_they_are)
{
    /* A cast of boolean, inet or char(n) to text is not how %L shows it. */
    whole_row();
    for (uint16_t i = 0; i < item.rel.column_count; i++) {
        item.columns[i].binary_type = 1700;
    }
    pen_change chg = delete_of('O', "1 99 1.0");
    const char *sql = pen_statements_for(statements, &chg, false)->sql;
    cr_assert_not_null(strstr(sql, "format('%L', price) COLLATE pg_catalog.\"C\" = "
                                   "pg_catalog.format('%L', $"),
                       "%s", sql);
    cr_assert_null(strstr(sql, "::"), "%s", sql);
}

Test(statement, a_value_that_is_needed_and_did_not_come)
{
    whole_row();
    pen_change chg = delete_of('O', "1 99 -");
    const char *values[2];
    int lengths[2];
    int formats[2];
    pen_error err;
    cr_assert_not(pen_statement_bind(pen_statements_for(statements, &chg, false), &chg, values,
                                     lengths, formats, &err));
    cr_assert_eq(err.kind, PEN_ERROR_FATAL);
    cr_assert_not_null(strstr(err.text, "column \"price\" of shop.item"), "%s", err.text);
}

Test(statement, an_old_row_that_is_needed_and_did_not_come)
{
    whole_row();
    pen_change chg = update(0, NULL, "1 99 1.0");
    const char *values[4];
    int lengths[4];
    int formats[4];
    pen_error err;
    cr_assert_not(pen_statement_bind(pen_statements_for(statements, &chg, false), &chg, values,
                                     lengths, formats, &err));
    cr_assert_eq(err.kind, PEN_ERROR_FATAL);
    cr_assert_not_null(strstr(err.text, "did not send column \"a\" of shop.item"), "%s", err.text);
}

Test(statement, one_for_each_shape)
{
    three_columns();
    pen_statement *first[6];
    for (int round = 0; round < 2; round++) {
        const pen_change changes[] = {insert("1 a b")};
        pen_statement *st = pen_statements_for(statements, &changes[0], false);
        pen_change chg = update(0, NULL, "1 a b");
        pen_statement *plain = pen_statements_for(statements, &chg, false);
        pen_statement *guarded = pen_statements_for(statements, &chg, true);
        chg = update('K', "2 NULL NULL", "1 a b");
        pen_statement *keyed = pen_statements_for(statements, &chg, false);
        chg = update(0, NULL, "1 - b");
        pen_statement *toast = pen_statements_for(statements, &chg, false);
        chg = update(0, NULL, "1 a -");
        pen_statement *other_toast = pen_statements_for(statements, &chg, false);
        pen_statement *all[] = {st, plain, guarded, keyed, toast, other_toast};
        for (size_t i = 0; i < PEN_COUNTOF(all); i++) {
            for (size_t j = 0; j < i; j++) {
                cr_assert_neq(all[i], all[j], "%zu and %zu", i, j);
                cr_assert_str_neq(all[i]->name, all[j]->name);
            }
            cr_assert(round == 0 || all[i] == first[i], "%zu was made twice", i);
            first[i] = all[i];
        }
    }
    /* NULL or not, long or short: the values are not part of the shape. */
    pen_change chg = insert("1000 NULL NULL");
    cr_assert_eq(pen_statements_for(statements, &chg, false), first[0]);
}

/* Unchanged TOAST in every pattern of 10 columns makes 1024 shapes: beyond the first capacity. */
Test(statement, the_cache_grows_and_keeps_what_was_made)
{
    enum { TOAST = 10, SHAPES = 1 << TOAST };
    static pen_statement *made[SHAPES];
    rig_key_column(&item, "id");
    for (int i = 0; i < TOAST; i++) {
        rig_column(&item, "t");
    }
    for (int round = 0; round < 2; round++) {
        for (unsigned shape = 0; shape < SHAPES; shape++) {
            pen_change chg = update(0, NULL, "1 a a a a a a a a a a");
            for (unsigned bit = 0; bit < TOAST; bit++) {
                if (shape & 1U << bit) {
                    new_row.values[1 + bit].kind = PEN_VALUE_UNCHANGED;
                }
            }
            pen_statement *st = pen_statements_for(statements, &chg, false);
            if (round == 0) {
                cr_assert_not(st->prepared);
                st->prepared = true;
                made[shape] = st;
                char name[24];
                snprintf(name, sizeof(name), "p0_%u", shape);
                cr_assert_str_eq(st->name, name, "a name is given once");
            }
            cr_assert_eq(st, made[shape]);
            cr_assert(st->prepared);
            cr_assert_eq(st->param_count, TOAST + 1 - (unsigned)__builtin_popcount(shape));
        }
    }
}

Test(statement, two_relation_versions_share_nothing)
{
    three_columns();
    rig other;
    rig_init(&other);
    rig_key_column(&other, "id");
    rig_column(&other, "\"Name\"");
    rig_column(&other, "note");
    pen_change mine = insert("1 a b");
    pen_change theirs = mine;
    theirs.rel = &other.rel;
    cr_assert_neq(pen_statements_for(statements, &mine, false),
                  pen_statements_for(statements, &theirs, false));
}

Test(statement, truncate)
{
    rig second;
    rig_init(&second);
    second.target.name = rig_text("shop.\"Order\"");
    second.target.partitioned = true;
    const pen_relation *rels[] = {&item.rel, &second.rel};
    pen_change chg = {.kind = PEN_CHANGE_TRUNCATE, .truncated = rels, .truncated_count = 1};
    char *sql = pen_statement_truncate(&chg);
    cr_assert_str_eq(sql, "TRUNCATE ONLY shop.item");
    free(sql);
    chg.truncated_count = 2;
    chg.truncate_cascade = true; /* the message lists every table: CASCADE could only take more */
    sql = pen_statement_truncate(&chg);
    cr_assert_str_eq(sql, "TRUNCATE ONLY shop.item, shop.\"Order\"");
    free(sql);
    chg.truncate_restart_identity = true;
    sql = pen_statement_truncate(&chg);
    cr_assert_str_eq(sql, "TRUNCATE ONLY shop.item, shop.\"Order\" RESTART IDENTITY");
    free(sql);
}

static void expect_described(pen_change chg, const char *words)
{
    char text[256];
    pen_change_describe(&chg, text, sizeof(text));
    cr_assert_str_eq(text, words);
}

Test(statement, describe)
{
    three_columns();
    expect_described(insert("7 nail x"), "INSERT into shop.item, key id=7");
    expect_described(update(0, NULL, "7 nail x"), "UPDATE of shop.item, key id=7");
    expect_described(update('K', "7 NULL NULL", "8 nail x"), "UPDATE of shop.item, key id=7");
    expect_described(delete_of('K', "7 NULL NULL"), "DELETE from shop.item, key id=7");
    const pen_relation *rels[] = {&item.rel};
    expect_described((pen_change){.kind = 'T', .truncated = rels, .truncated_count = 1},
                     "TRUNCATE of shop.item");
    pen_change chg = insert("7 nail x");
    new_row.values[0].kind = PEN_VALUE_BINARY;
    expect_described(chg, "INSERT into shop.item, key id=\\x37");
    const uint8_t seven[] = {0, 0, 0, 7, 0};
    item.columns[0].binary_type = 23;
    new_row.values[0] = (pen_value){.data = seven, .len = 4, .kind = PEN_VALUE_BINARY};
    expect_described(chg, "INSERT into shop.item, key id=7");
    new_row.values[0].kind = PEN_VALUE_UNCHANGED;
    expect_described(chg, "INSERT into shop.item, key id=?");
    /* Before the target was looked at there is no key to name. */
    item.rel.target = NULL;
    expect_described(chg, "INSERT into shop.item");
}

Test(statement, describe_names_every_key_column_and_is_cut)
{
    rig_key_column(&item, "a");
    rig_key_column(&item, "b");
    pen_change chg = insert("7 8");
    expect_described(chg, "INSERT into shop.item, key a=7, b=8");
    char text[12];
    pen_change_describe(&chg, text, sizeof(text));
    cr_assert_str_eq(text, "INSERT into");
    char longer[100];
    memset(longer, 'x', sizeof(longer));
    longer[99] = '\0';
    new_row.values[0].data = (const uint8_t *)longer;
    new_row.values[0].len = 99;
    char whole[256];
    pen_change_describe(&chg, whole, sizeof(whole));
    cr_assert_eq(strlen(whole), strlen("INSERT into shop.item, key a=, b=8") + 64);
}
