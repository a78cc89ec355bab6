#include "core/json.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static pen_error err;

static bool check(const char *text)
{
    return pen_json_check(pen_slice_of(text), &err);
}

Test(json, accepts_what_is_json)
{
    static const char *const good[] = {"{}",
                                       "[]",
                                       " [ ] ",
                                       "0",
                                       "-0.5e+3",
                                       "\"\"",
                                       "\"a\\\"b\\u00e9\"",
                                       "true",
                                       "null",
                                       "{\"a\": [1, {\"b\": []}, \"c\"], \"d\": {}}",
                                       "[[[]],[]]",
                                       "[0,\n1e5]"};
    for (size_t i = 0; i < PEN_COUNTOF(good); i++) {
        cr_expect(check(good[i]), "%s: %s", good[i], err.text);
    }
}

Test(json, refuses_what_is_not)
{
    static const char *const bad[] = {"",           " ",           "{",      "}",       "[",
                                      "[1",         "[1,]",        "[,1]",   "{\"a\"}", "{\"a\":}",
                                      "{\"a\":1,}", "{a:1}",       "{1:1}",  "01",      "1.",
                                      ".5",         "-",           "1e",     "+1",      "\"a",
                                      "\"\\x\"",    "\"\\u12g4\"", "\"\n\"", "tru",     "nul",
                                      "[1 2]",      "{} {}",       "1 2",    "[1}",     "{\"a\":1]",
                                      "'a'",        "[\"a\":1]"};
    for (size_t i = 0; i < PEN_COUNTOF(bad); i++) {
        cr_expect_not(check(bad[i]), "%s", bad[i]);
        cr_expect_eq(err.kind, PEN_ERROR_CONFIG);
    }
    cr_expect_not(pen_json_check((pen_slice){NULL, 0}, &err));
    cr_expect_not(check("[1, 2 3]"));
    cr_expect_str_eq(err.text, "it is no JSON at byte 6");
}

/* Every beginning of a text is another text, and none of them is read beyond its end. */
Test(json, reads_no_byte_too_many)
{
    static const char text[] = "{\"a\": [1.5e3, true, null, \"b\\u0041\\n\", {\"c\": -0}]}";
    for (size_t len = 0; len + 1 < sizeof(text); len++) {
        uint8_t *copy = pen_malloc(len + 1);
        memcpy(copy, text, len);
        cr_expect_not(pen_json_check((pen_slice){copy, len}, &err), "%zu", len);
        free(copy);
    }
    cr_expect(check(text));
}

Test(json, bounds_the_depth)
{
    char text[2 * (PEN_JSON_DEPTH + 1) + 1];
    for (size_t depth = PEN_JSON_DEPTH; depth <= PEN_JSON_DEPTH + 1; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        text[2 * depth] = '\0';
        cr_expect_eq(check(text), depth == PEN_JSON_DEPTH, "%zu", depth);
    }
}

Test(json, finds_members)
{
    pen_slice text =
        pen_slice_of("{\"a\" : {\"x\": 1}, \"b\":[\"}\", {}], \"c\": \"d\", \"b\": 0}");
    pen_slice value;
    cr_assert(pen_json_check(text, &err));
    cr_assert(pen_json_find(text, "b", &value));
    cr_expect(pen_slice_equal(value, pen_slice_of("[\"}\", {}]")));
    cr_assert(pen_json_find(text, "c", &value));
    char *shown = pen_json_text(value);
    cr_expect_str_eq(shown, "d");
    free(shown);
    cr_expect_not(pen_json_find(text, "x", &value));
    cr_expect_not(pen_json_find(pen_slice_of("[1, 2]"), "a", &value));
    cr_expect_not(pen_json_find(pen_slice_of("{}"), "a", &value));
    pen_slice key;
    size_t count = 0;
    while (pen_json_next(&text, &key, &value)) {
        count++;
    }
    cr_expect_eq(count, 4);
}

Test(json, gives_plain_values_as_text)
{
    static const char *const none[] = {"[1]", "{}", "null", "\"a\\nb\""};
    for (size_t i = 0; i < PEN_COUNTOF(none); i++) {
        cr_expect_null(pen_json_text(pen_slice_of(none[i])));
    }
    static const char *const same[] = {"1.5", "true", "false", "-3"};
    for (size_t i = 0; i < PEN_COUNTOF(same); i++) {
        char *text = pen_json_text(pen_slice_of(same[i]));
        cr_expect_str_eq(text, same[i]);
        free(text);
    }
}
