#include "core/pattern.h"

#include <criterion/criterion.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>

/* `schema` NULL: the pattern has none. */
static void expect(const char *pattern, const char *schema, const char *name)
{
    char *got_schema;
    char *got_name;
    pen_error err;
    cr_assert(pen_pattern_parse(pattern, &got_schema, &got_name, &err), "%s: %s", pattern,
              err.text);
    cr_assert_str_eq(got_name, name);
    cr_assert_eq(got_schema == NULL, schema == NULL);
    if (schema != NULL) {
        cr_assert_str_eq(got_schema, schema);
    }
    free(got_schema);
    free(got_name);
}

Test(pattern, plain_names)
{
    expect("orders", NULL, "^(orders)$");
    expect("sales.orders", "^(sales)$", "^(orders)$");
    expect("a_1$b", NULL, "^(a_1\\$b)$");
    expect("größe", NULL, "^(größe)$");
}

Test(pattern, wild_cards)
{
    expect("*", NULL, "^(.*)$");
    expect("sales.ord*", "^(sales)$", "^(ord.*)$");
    expect("s?les.*_20??", "^(s.les)$", "^(.*_20..)$");
}

Test(pattern, letters_fold_outside_quotes)
{
    expect("Orders", NULL, "^(orders)$");
    expect("\"Orders\"", NULL, "^(Orders)$");
    expect("Or\"DE\"rs", NULL, "^(orDErs)$");
    expect("\"Sales\".\"Orders\"", "^(Sales)$", "^(Orders)$");
}

Test(pattern, quotes_take_everything_literally)
{
    expect("\"a*b?c\"", NULL, "^(a\\*b\\?c)$");
    expect("\"a.b\"", NULL, "^(a\\.b)$");
    expect("\"a\"\"b\"", NULL, "^(a\"b)$");
    expect("\"\"\"\"", NULL, "^(\")$");
    expect("\"a b\"", NULL, "^(a b)$");
}

/* What a regular expression would read otherwise is escaped, in and out of quotes. */
Test(pattern, nothing_is_left_of_regular_expressions)
{
    expect("a|b", NULL, "^(a\\|b)$");
    expect("a+(b)[c]{d}^e$f\\g", NULL, "^(a\\+\\(b\\)\\[c\\]\\{d\\}\\^e\\$f\\\\g)$");
    expect("\"a|b+(c)[d]{e}^f$g\\h\"", NULL, "^(a\\|b\\+\\(c\\)\\[d\\]\\{e\\}\\^f\\$g\\\\h)$");
}

static bool matches(const char *pattern, const char *text)
{
    char *schema;
    char *name;
    pen_error err;
    regex_t regex;
    cr_assert(pen_pattern_parse(pattern, &schema, &name, &err));
    cr_assert_eq(regcomp(&regex, name, REG_EXTENDED | REG_NOSUB), 0, "%s", name);
    bool found = regexec(&regex, text, 0, NULL, 0) == 0;
    regfree(&regex);
    free(schema);
    free(name);
    return found;
}

/* POSIX's extended expressions read these as PostgreSQL does. */
Test(pattern, as_a_regular_expression)
{
    cr_assert(matches("ord*", "orders"));
    cr_assert(matches("ord*", "ord"));
    cr_assert_not(matches("ord*", "my_orders"));
    cr_assert_not(matches("ord", "orders"));
    cr_assert(matches("ord?", "orde"));
    cr_assert_not(matches("ord?", "ord"));
    cr_assert(matches("\"a|b\"", "a|b"));
    cr_assert_not(matches("a|b", "a"));
    cr_assert(matches("\"a.b\"", "a.b"));
    cr_assert_not(matches("\"a.b\"", "axb"));
    cr_assert(matches("\"a\\b\"", "a\\b"));
}

Test(pattern, what_is_none)
{
    const char *const wrong[] = {"",     ".",     "a.",   ".a",     "a.b.c",
                                 "a..b", "\"a",   "\"\"", "a.\"\"", "\"\".a",
                                 "a\"",  "a.\"b", "\"",   "\"\"\"", "db.s.t"};
    for (size_t i = 0; i < PEN_COUNTOF(wrong); i++) {
        char *schema;
        char *name;
        pen_error err;
        cr_assert_not(pen_pattern_parse(wrong[i], &schema, &name, &err), "%s", wrong[i]);
        cr_assert_eq(err.kind, PEN_ERROR_CONFIG);
        cr_assert_not_null(strstr(err.text, "is not a pattern"), "%s", err.text);
        cr_assert_null(schema);
        cr_assert_null(name);
    }
}
