/* The statements as pg_dump writes them, with names that need quoting. */
#include "core/sql_scan.h"

#include <criterion/criterion.h>
#include <stdlib.h>

Test(sql_scan, a_statement_ends_at_its_own_semicolon)
{
    cr_expect_eq(pen_sql_first("a;b;"), 2);
    cr_expect_eq(pen_sql_first("a"), 1);
    cr_expect_eq(pen_sql_first(""), 0);
    cr_expect_eq(pen_sql_first("x ';' y; z"), 8);
    cr_expect_eq(pen_sql_first("x 'it''s;' y; z"), 13);
    cr_expect_eq(pen_sql_first("x \";\"\";\" y; z"), 11);
    cr_expect_eq(pen_sql_first("x (E'\\';'); z"), 11);
    cr_expect_eq(pen_sql_first("x (TYPE'\\'); z"), 12, "no escapes without E alone before it");
}

Test(sql_scan, an_index_is_built_concurrently)
{
    pen_sql_index index;
    const char *sql =
        "CREATE INDEX \"I;\"\" x\" ON \"Sch.\"\"x\".t USING btree (a, ((b || ';'::text)))"
        ";\n\nALTER TABLE \"Sch.\"\"x\".t CLUSTER ON \"I;\"\" x\";";
    cr_assert(pen_sql_read_index(sql, &index));
    cr_expect_str_eq(index.name, "\"Sch.\"\"x\".\"I;\"\" x\"");
    cr_expect_not(index.only);
    cr_expect_str_eq(
        index.alone,
        "CREATE INDEX CONCURRENTLY \"I;\"\" x\" ON \"Sch.\"\"x\".t USING btree (a, ((b "
        "|| ';'::text)));");
    cr_expect_str_eq(index.rest, "ALTER TABLE \"Sch.\"\"x\".t CLUSTER ON \"I;\"\" x\";");
    pen_sql_index_deinit(&index);
}

Test(sql_scan, a_partitioned_tables_index_is_not)
{
    pen_sql_index index;
    cr_assert(pen_sql_read_index("CREATE INDEX i ON ONLY s.\"only\" USING btree (a);", &index));
    cr_expect(index.only);
    cr_expect_null(index.alone);
    cr_expect_str_eq(index.name, "s.i");
    cr_expect_str_eq(index.rest, "");
    pen_sql_index_deinit(&index);
    cr_assert(pen_sql_read_index("CREATE INDEX i ON s.\"ONLY \" USING btree (a);", &index));
    cr_expect_not(index.only);
    pen_sql_index_deinit(&index);
}

Test(sql_scan, what_is_no_such_index_is_left_alone)
{
    pen_sql_index index;
    cr_expect_not(pen_sql_read_index("CREATE UNIQUE INDEX i ON s.t USING btree (a);", &index));
    cr_expect_not(pen_sql_read_index("CREATE STATISTICS s.i ON a, b FROM s.t;", &index));
    cr_expect_not(pen_sql_read_index("CREATE INDEX i ON t USING btree (a);", &index));
    cr_expect_not(pen_sql_read_index("", &index));
}

Test(sql_scan, a_foreign_key_is_made_not_valid_and_validated)
{
    char *not_valid = NULL;
    char *validate = NULL;
    cr_assert(pen_sql_read_foreign_key(
        "ALTER TABLE ONLY \"Sch\"\"x\".\"T x\"\n    ADD CONSTRAINT \"T x;_fkey\" FOREIGN KEY (p) "
        "REFERENCES public.p(id) ON DELETE CASCADE;",
        &not_valid, &validate));
    cr_expect_str_eq(not_valid,
                     "ALTER TABLE ONLY \"Sch\"\"x\".\"T x\"\n    ADD CONSTRAINT \"T x;_fkey\" "
                     "FOREIGN KEY (p) REFERENCES public.p(id) ON DELETE CASCADE NOT VALID");
    cr_expect_str_eq(validate,
                     "ALTER TABLE \"Sch\"\"x\".\"T x\" VALIDATE CONSTRAINT \"T x;_fkey\"");
    free(not_valid);
    free(validate);
}

Test(sql_scan, one_that_is_not_valid_on_the_source_stays_so)
{
    char *not_valid = NULL;
    char *validate = NULL;
    cr_assert(pen_sql_read_foreign_key("ALTER TABLE s.t\n    ADD CONSTRAINT c FOREIGN KEY (p) "
                                       "REFERENCES s.p(id) NOT VALID;",
                                       &not_valid, &validate));
    cr_expect_null(not_valid);
    cr_expect_str_eq(validate, "ALTER TABLE s.t VALIDATE CONSTRAINT c");
    free(validate);
    /* From PostgreSQL 18 on; the server refuses to validate such a one. */
    cr_assert(pen_sql_read_foreign_key("ALTER TABLE s.t\n    ADD CONSTRAINT c FOREIGN KEY (p) "
                                       "REFERENCES s.p(id) DEFERRABLE NOT ENFORCED;",
                                       &not_valid, &validate));
    cr_expect_null(not_valid);
    free(validate);
    cr_expect_not(pen_sql_read_foreign_key("ALTER TABLE s.t ADD CONSTRAINT c CHECK (a > 0);",
                                           &not_valid, &validate));
    cr_expect_null(not_valid);
    cr_expect_null(validate);
}
