/* What pg_restore --verbose prints, in pieces as they were seen, and what the filters choose of it.
 */
#include "apply/dump.h"

#include <criterion/criterion.h>
#include <string.h>

#define ENTRY(id, class, oid, needs, name, type, schema, sql)                                      \
    "--\n-- TOC entry " #id                                                                        \
    " (class " #class " OID " #oid ")\n" needs "-- Name: " name "; Type: " type                    \
                      "; Schema: " schema "; Owner: me; you\n-- Data Pos: 0\n--\n\n" sql "\n\n\n"

static const char *const text =
    "--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\n\n-- Dumped from database version "
    "15\n\n"
    "SET statement_timeout = 0;\n\n" ENTRY(
        5, 2615, 100, "", "Sch; Type: x", "SCHEMA", "-",
        "CREATE SCHEMA \"Sch; Type: x\";") ENTRY(6, 1247, 101, "", "color", "TYPE", "public",
                                                 "CREATE TYPE public.color AS ENUM (\n    'a'\n);")
        ENTRY(7, 1255, 102, "", "f()", "FUNCTION", "public",
              "CREATE FUNCTION f() AS $$\n--\n-- TOC entry x\n$$;\n\n\nSET default_tablespace = "
              "'';\n\n"
              "SET default_table_access_method = heap;") ENTRY(8, 1259, 200,
                                                               "-- Dependencies: 6 7 6\n", "one",
                                                               "TABLE", "public",
                                                               "CREATE TABLE public.one (a color);")
            ENTRY(9, 1259, 201, "-- Dependencies: 5\n", "two", "TABLE", "Sch; Type: x",
                  "CREATE TABLE two ();") ENTRY(10, 1259, 202, "-- Dependencies: 8 8\n", "v",
                                                "VIEW", "public", "CREATE VIEW v;")
                ENTRY(11, 1259, 203, "", "free", "SEQUENCE", "public",
                      "CREATE SEQUENCE free;") ENTRY(12, 2604, 204, "-- Dependencies: 8 11\n",
                                                     "one a", "DEFAULT", "public",
                                                     "ALTER TABLE one;")
                    ENTRY(
                        13, 2606, 205, "-- Dependencies: 8\n", "one one_pkey", "CONSTRAINT",
                        "public",
                        "ALTER TABLE ONLY public.one\n    ADD CONSTRAINT one_pkey PRIMARY KEY (a);")
                        ENTRY(14, 1259, 206, "-- Dependencies: 8\n", "u", "INDEX", "public",
                              "CREATE UNIQUE INDEX u ON public.one USING btree (a);")
                            ENTRY(15, 1259, 207, "-- Dependencies: 8\n", "i", "INDEX", "public",
                                  "CREATE INDEX i ON public.one USING btree (a);")
                                ENTRY(16, 0, 0, "-- Dependencies: 15\n", "INDEX i", "COMMENT",
                                      "public", "COMMENT ON INDEX i;")
                                    ENTRY(17, 2606, 208, "-- Dependencies: 9 13 8\n", "two fk",
                                          "FK CONSTRAINT", "Sch; Type: x",
                                          "ALTER TABLE ONLY two\n    ADD CONSTRAINT fk FOREIGN KEY "
                                          "(a) REFERENCES public.one(a);")
                                        ENTRY(18, 2620, 209, "-- Dependencies: 7 8\n", "one tg",
                                              "TRIGGER", "public", "CREATE TRIGGER tg;")
                                            ENTRY(
                                                19, 1259, 210, "-- Dependencies: 13\n", "grouped",
                                                "VIEW", "public",
                                                "CREATE VIEW grouped;") "-- Completed on "
                                                                        "2026-11-22\n\n--\n-- "
                                                                        "PostgreSQL database dump "
                                                                        "complete\n--"
                                                                        "\n\n\\unrestrict abc\n\n";

static pen_dump dump;

static const pen_dump_entry *entry(uint32_t id)
{
    for (size_t i = 0; i < dump.count; i++) {
        if (dump.entries[i].id == id) {
            return &dump.entries[i];
        }
    }
    cr_assert_fail("no entry %u", id);
    return NULL;
}

static void parse(void)
{
    pen_dump_parse(text, &dump);
    cr_assert_eq(dump.count, 15);
}

Test(dump, each_object_is_read_whole)
{
    parse();
    cr_expect_str_eq(entry(5)->kind, "SCHEMA");
    cr_expect_str_eq(entry(5)->label, "SCHEMA Sch; Type: x");
    cr_expect_str_eq(entry(5)->owner, "me; you");
    cr_expect_str_eq(entry(6)->sql, "CREATE TYPE public.color AS ENUM (\n    'a'\n);");
    cr_expect_str_eq(entry(7)->sql, "CREATE FUNCTION f() AS $$\n--\n-- TOC entry x\n$$;");
    cr_expect_eq(entry(8)->need_count, 3);
    cr_expect_eq(entry(8)->needs[1], 7);
    cr_expect_eq(entry(8)->class_oid, 1259);
    cr_expect_eq(entry(8)->oid, 200);
    cr_expect_str_eq(entry(9)->label, "TABLE Sch; Type: x.two");
    cr_expect_str_eq(entry(19)->sql, "CREATE VIEW grouped;", "and nothing of the dump's end");
    pen_dump_deinit(&dump);
}

Test(dump, each_object_has_its_step)
{
    parse();
    cr_expect_eq(entry(8)->step, PEN_STEP_TABLES);
    cr_expect_eq(entry(12)->step, PEN_STEP_TABLES);
    cr_expect_eq(entry(13)->step, PEN_STEP_UNIQUE);
    cr_expect_eq(entry(14)->step, PEN_STEP_UNIQUE);
    cr_expect_eq(entry(15)->step, PEN_STEP_INDEXES);
    cr_expect_eq(entry(16)->step, PEN_STEP_INDEXES, "a comment comes with what it is on");
    cr_expect_eq(entry(17)->step, PEN_STEP_CUTOVER);
    cr_expect_eq(entry(18)->step, PEN_STEP_CUTOVER);
    cr_expect_eq(entry(19)->step, PEN_STEP_UNIQUE, "a view that needs a primary key waits for it");
    pen_dump_deinit(&dump);
}

static void expect_wanted(const char *ids)
{
    for (uint32_t id = 5; id <= 19; id++) {
        char word[8];
        snprintf(word, sizeof(word), " %u ", id);
        cr_expect_eq(entry(id)->wanted, strstr(ids, word) != NULL, "entry %u", id);
    }
    pen_dump_deinit(&dump);
}

Test(dump, a_chosen_table_brings_what_it_needs_and_what_is_its_own)
{
    const uint32_t chosen[] = {200};
    parse();
    pen_dump_choose(&dump, true, chosen, 1, NULL, 0);
    expect_wanted(" 6 7 8 11 12 13 14 15 16 18 ");
}

Test(dump, a_foreign_key_comes_with_both_its_tables)
{
    const uint32_t chosen[] = {200, 201};
    parse();
    pen_dump_choose(&dump, true, chosen, 2, NULL, 0);
    expect_wanted(" 5 6 7 8 9 11 12 13 14 15 16 17 18 ");
}

Test(dump, what_is_left_out_takes_along_what_needs_it)
{
    const uint32_t left_out[] = {200};
    parse();
    pen_dump_choose(&dump, false, NULL, 0, left_out, 1);
    expect_wanted(" 5 6 7 9 11 ");
}

static const char *const late = ENTRY(5, 1259, 100, "", "t", "TABLE", "public",
                                      "CREATE TABLE public.t (a int);")
    ENTRY(6, 2606, 101, "-- Dependencies: 5\n", "t t_pkey", "CONSTRAINT", "public",
          "ALTER;") ENTRY(7, 1259, 102, "-- Dependencies: 5 6\n", "m", "MATERIALIZED VIEW",
                          "public", "CREATE MATERIALIZED VIEW public.m;")
        ENTRY(8, 1259, 103, "-- Dependencies: 7\n", "m_u", "INDEX", "public",
              "CREATE UNIQUE INDEX m_u ON public.m USING btree (a);")
            ENTRY(9, 0, 0, "-- Dependencies: 8\n", "INDEX m_u", "COMMENT", "public",
                  "COMMENT ON INDEX public.m_u IS 'x\n-- y';")
                ENTRY(10, 3256, 104, "-- Dependencies: 5\n", "t", "ROW SECURITY", "public",
                      "ALTER TABLE public.t ENABLE ROW LEVEL SECURITY;")
                    ENTRY(11, 3466, 105, "", "e", "EVENT TRIGGER", "-", "CREATE EVENT TRIGGER e;")
                        ENTRY(12, 0, 0, "", "DEFAULT PRIVILEGES", "DEFAULT ACL", "-",
                              "ALTER DEFAULT PRIVILEGES;\n\nSET default_tablespace = '';")
                            ENTRY(13, 0, 0, "-- Dependencies: 5\n", "TABLE t", "COMMENT", "public",
                                  "COMMENT ON TABLE public.t IS 'x\nSET default_y';");

Test(dump, what_is_deferred_takes_its_indexes_along)
{
    pen_dump_parse(late, &dump);
    cr_assert_eq(dump.count, 9);
    cr_expect_eq(entry(7)->step, PEN_STEP_UNIQUE, "it needs a primary key");
    cr_expect_eq(entry(8)->step, PEN_STEP_INDEXES, "indexes are made before all else of a step");
    cr_expect_eq(entry(9)->step, PEN_STEP_INDEXES);
    cr_expect_eq(entry(10)->step, PEN_STEP_SECURITY);
    cr_expect_eq(entry(11)->step, PEN_STEP_LAST);
    cr_expect_eq(entry(12)->step, PEN_STEP_UNIQUE, "not before the views that are made late");
    pen_dump_deinit(&dump);
}

Test(dump, an_entrys_own_end_is_not_cut_off)
{
    pen_dump_parse(late, &dump);
    cr_expect_str_eq(entry(9)->sql, "COMMENT ON INDEX public.m_u IS 'x\n-- y';");
    cr_expect_str_eq(entry(12)->sql, "ALTER DEFAULT PRIVILEGES;");
    cr_expect_str_eq(entry(13)->sql, "COMMENT ON TABLE public.t IS 'x\nSET default_y';");
    pen_dump_deinit(&dump);
}

Test(dump, what_the_filters_take_along_is_known)
{
    const uint32_t one[] = {200};
    const uint32_t two[] = {201};
    parse();
    pen_dump_choose(&dump, true, two, 1, NULL, 0);
    for (uint32_t id = 5; id <= 19; id++) {
        cr_expect_eq(entry(id)->missed, id == 17, "entry %u", id);
    }
    pen_dump_choose(&dump, false, NULL, 0, one, 1);
    for (uint32_t id = 5; id <= 19; id++) {
        cr_expect_eq(entry(id)->missed, id == 10 || id == 17 || id == 19, "entry %u", id);
    }
    pen_dump_choose(&dump, false, NULL, 0, two, 1);
    for (uint32_t id = 5; id <= 19; id++) {
        cr_expect_not(entry(id)->missed, "entry %u: its own table is left out", id);
    }
    pen_dump_deinit(&dump);
}

Test(dump, nothing_comes_of_nothing)
{
    pen_dump_parse("", &dump);
    cr_expect_eq(dump.count, 0);
    pen_dump_parse("--\n-- TOC entry 1 (class 2 OID 3)\n--\n", &dump);
    cr_expect_eq(dump.count, 0);
    pen_dump_deinit(&dump);
}
