#include "apply/statement_set.h"

#include "tests/unit/apply/change_rig.h"

#include <criterion/criterion.h>
#include <stdio.h>

static rig item;
static row old_row;
static row new_row;
static pen_statements *statements;
static pen_arrays arrays;

/* id and "Code" are the key, name, points and total are not; total is generated. */
static void set_up(void)
{
    rig_init(&item);
    statements = pen_statements_create(0);
    rig_key_column(&item, "id")->array_type = 1007;
    rig_key_column(&item, "\"Code\"")->array_type = 1009;
    rig_column(&item, "name")->array_type = 1009;
    pen_target_column *points = rig_column(&item, "points");
    points->array_type = 1009;
    points->array_cast = rig_text("point[]");
    rig_column(&item, "total")->generated = true;
    for (int i = 0; i < item.rel.column_count; i++) {
        item.columns[i].array_delimiter = ',';
    }
}

static void tear_down(void)
{
    pen_statements_destroy(statements);
    pen_arrays_deinit(&arrays);
}

TestSuite(statement_set, .init = set_up, .fini = tear_down, .timeout = 60);

static void expect_sql(pen_change chg, bool guarded, const char *sql)
{
    const pen_statement *st = pen_statements_for_set(statements, &chg, guarded);
    cr_assert_str_eq(st->sql, sql);
    cr_assert_eq(st->expected_rows, PEN_ROWS_ANY);
}

/* Parameter `i` of a statement for these changes. */
static void expect_param(const pen_change *const *changes, uint32_t count, uint32_t i,
                         uint32_t type, const char *wanted)
{
    const char *values[16];
    int lengths[16];
    int formats[16];
    const pen_statement *st = pen_statements_for_set(statements, changes[0], false);
    cr_assert_lt(i, st->param_count);
    pen_statement_bind_set(st, changes, count, &arrays, values, lengths, formats);
    cr_assert_str_eq(values[i], wanted);
    cr_assert_eq(lengths[i], (int)strlen(wanted));
    cr_assert_eq(formats[i], 0);
    cr_assert_eq(st->param_types[i], type);
}

Test(statement_set, insert)
{
    pen_change one = change_of(&item, 'I', 0, NULL, NULL, &new_row, "1 x nail {(1,2)} 9");
    pen_change two = change_of(&item, 'I', 0, NULL, NULL, &old_row, "2 y NULL NULL 9");
    const pen_change *both[] = {&one, &two};
    const char *plain =
        "INSERT INTO shop.item (id, \"Code\", name, points) OVERRIDING SYSTEM VALUE "
        "SELECT u.a1, u.a2, u.a3, u.a4::point[] FROM (SELECT unnest($1) AS a1, unnest($2) AS a2, "
        "unnest($3) AS a3, unnest($4) AS a4) AS u";
    expect_sql(one, false, plain);
    expect_param(both, 2, 0, 1007, "{\"1\",\"2\"}");
    expect_param(both, 2, 2, 1009, "{\"nail\",NULL}");
    expect_param(both, 2, 3, 1009, "{\"{(1,2)}\",NULL}");
    char guarded[1024];
    snprintf(guarded, sizeof(guarded),
             "WITH w AS (%s RETURNING 1) SELECT 1 / (pg_catalog.count(*) = "
             "pg_catalog.cardinality($1))::pg_catalog.int4 FROM w",
             plain);
    expect_sql(one, true, guarded);
}

Test(statement_set, update_sets_what_came_and_never_the_key)
{
    pen_change chg = change_of(&item, 'U', 0, NULL, NULL, &new_row, "1 x nail - 9");
    const pen_change *only[] = {&chg};
    const char *sql = "UPDATE ONLY shop.item AS t SET name = u.a3 FROM (SELECT unnest($1) AS a1, "
                      "unnest($2) AS a2, unnest($3) AS a3) AS u WHERE t.id OPERATOR(pg_catalog.=) "
                      "u.a1 AND t.\"Code\" "
                      "OPERATOR(pg_catalog.=) u.a2";
    expect_sql(chg, false, sql);
    expect_param(only, 1, 0, 1007, "{\"1\"}");
    expect_param(only, 1, 2, 1009, "{\"nail\"}");
    /* The whole old row came with it: the same statement, and the key is the old row's. */
    pen_change full =
        change_of(&item, 'U', 'O', &old_row, "1 x bolt NULL 9", &new_row, "1 x nail - 9");
    expect_sql(full, false, sql);
    /* Other columns came: another statement. */
    pen_change all = change_of(&item, 'U', 0, NULL, NULL, &new_row, "1 x nail {} 9");
    expect_sql(all, false,
               "UPDATE ONLY shop.item AS t SET name = u.a3, points = u.a4::point[] FROM "
               "(SELECT unnest($1) AS a1, unnest($2) AS a2, unnest($3) AS a3, unnest($4) AS a4) AS "
               "u WHERE t.id OPERATOR(pg_catalog.=) "
               "u.a1 AND t.\"Code\" OPERATOR(pg_catalog.=) u.a2");
}

Test(statement_set, delete)
{
    pen_change chg = change_of(&item, 'D', 'K', &old_row, "1 x NULL NULL NULL", NULL, NULL);
    const pen_change *only[] = {&chg};
    expect_sql(chg, false,
               "DELETE FROM ONLY shop.item AS t USING (SELECT unnest($1) AS a1, unnest($2) AS a2) "
               "AS u WHERE t.id "
               "OPERATOR(pg_catalog.=) u.a1 AND t.\"Code\" OPERATOR(pg_catalog.=) u.a2");
    expect_param(only, 1, 1, 1009, "{\"x\"}");
}

Test(statement_set, a_partitioned_table_is_not_only_itself)
{
    item.target.partitioned = true;
    pen_change chg = change_of(&item, 'D', 'K', &old_row, "1 x NULL NULL NULL", NULL, NULL);
    expect_sql(chg, false,
               "DELETE FROM shop.item AS t USING (SELECT unnest($1) AS a1, unnest($2) AS a2) AS u "
               "WHERE t.id "
               "OPERATOR(pg_catalog.=) u.a1 AND t.\"Code\" OPERATOR(pg_catalog.=) u.a2");
}

Test(statement_set, of_one_and_of_many_are_two_statements)
{
    pen_change chg = change_of(&item, 'D', 'K', &old_row, "1 x NULL NULL NULL", NULL, NULL);
    const pen_statement *one = pen_statements_for(statements, &chg, false);
    const pen_statement *many = pen_statements_for_set(statements, &chg, false);
    cr_assert_neq(one, many);
    cr_assert_str_neq(one->name, many->name);
    cr_assert_eq(pen_statements_for(statements, &chg, false), one);
}
