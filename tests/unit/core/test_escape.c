#include "core/escape.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

/* All of `bytes`, character by character. */
static const char *escape(pen_escape_style style, const char *bytes, size_t len)
{
    static char all[256];
    pen_slice left = {(const uint8_t *)bytes, len};
    size_t used = 0;
    all[0] = '\0';
    while (left.len > 0) {
        char one[PEN_ESCAPE_SIZE];
        size_t taken = pen_escape_next(style, left, one);
        cr_assert(taken >= 1 && taken <= left.len);
        used += (size_t)snprintf(all + used, sizeof(all) - used, "%s", one);
        left = (pen_slice){left.data + taken, left.len - taken};
    }
    return all;
}

Test(escape, each_style_escapes_its_own_quotes)
{
    const char *all = "a'b\"c\\d";
    cr_assert_str_eq(escape(PEN_ESCAPE_TEXT, all, 7), "a'b\"c\\d");
    cr_assert_str_eq(escape(PEN_ESCAPE_QUOTED, all, 7), "a'b\\\"c\\\\d");
    cr_assert_str_eq(escape(PEN_ESCAPE_LITERAL, all, 7), "a\\'b\"c\\\\d");
    cr_assert_str_eq(escape(PEN_ESCAPE_JSON, all, 7), "a'b\\\"c\\\\d");
}

Test(escape, no_style_lets_a_control_character_through)
{
    for (pen_escape_style style = PEN_ESCAPE_TEXT; style <= PEN_ESCAPE_JSON; style++) {
        cr_assert_str_eq(escape(style, "\0\n\r\t\x1b\x7f\xc2\x85", 8),
                         "\\u0000\\n\\r\\t\\u001b\\u007f\\u0085");
    }
}

Test(escape, what_is_no_utf8_is_shown_byte_by_byte)
{
    /* A byte alone, overlong, a surrogate, beyond the last character. */
    const char *bad = "\xff\xc0\xaf\xed\xa0\x80\xf4\x90\x80\x80";
    cr_assert_str_eq(escape(PEN_ESCAPE_TEXT, bad, 10),
                     "\\xff\\xc0\\xaf\\xed\\xa0\\x80\\xf4\\x90\\x80\\x80");
    cr_assert_str_eq(escape(PEN_ESCAPE_JSON, bad, 2), "\\ufffd\\ufffd");
}

/* The bytes behind the slice belong to somebody else, and would make it whole. */
Test(escape, a_character_cut_by_the_end_is_none)
{
    const char *whole = "\xf0\x9f\x90\x98";
    cr_assert_str_eq(escape(PEN_ESCAPE_TEXT, whole, 4), whole);
    cr_assert_str_eq(escape(PEN_ESCAPE_TEXT, whole, 3), "\\xf0\\x9f\\x90");
    cr_assert_str_eq(escape(PEN_ESCAPE_TEXT, "\xc3\xa4", 1), "\\xc3");
}

Test(escape, a_whole_text)
{
    char *shown = pen_escape_text("a\\b \"c\"\n\x1b[0m \xff \xc3\xa9");
    cr_assert_str_eq(shown, "a\\b \"c\"\\n\\u001b[0m \\xff \xc3\xa9");
    free(shown);
    shown = pen_escape_text("");
    cr_assert_str_eq(shown, "");
    free(shown);
}
