#include "core/text.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

Test(text, nothing_gives_an_empty_string)
{
    pen_text text = {0};
    char *taken = pen_text_take(&text);
    cr_assert_str_eq(taken, "");
    cr_assert_null(text.data);
    free(taken);
    pen_text_deinit(&text);
}

Test(text, pieces_in_their_order)
{
    pen_text text = {0};
    pen_text_append(&text, "a");
    pen_text_append(&text, "");
    pen_text_appendf(&text, "%s-%d%%", "b", 7);
    pen_text_appendf(&text, "%s", "");
    pen_text_append(&text, "%d");
    cr_assert_eq(text.len, strlen("ab-7%%d"));
    char *taken = pen_text_take(&text);
    cr_assert_str_eq(taken, "ab-7%%d");
    free(taken);
}

Test(text, taking_begins_anew)
{
    pen_text text = {0};
    pen_text_append(&text, "first");
    char *first = pen_text_take(&text);
    pen_text_append(&text, "second");
    char *second = pen_text_take(&text);
    cr_assert_str_eq(first, "first");
    cr_assert_str_eq(second, "second");
    free(first);
    free(second);
}

/* Through every length around the first capacity and its doublings, by either function. */
Test(text, grows)
{
    for (size_t piece = 1; piece < 70; piece++) {
        char letters[80];
        memset(letters, 'x', piece);
        letters[piece] = '\0';
        pen_text text = {0};
        for (size_t count = 1; count <= 40; count++) {
            if (count % 2 == 0) {
                pen_text_append(&text, letters);
            } else {
                pen_text_appendf(&text, "%s", letters);
            }
            cr_assert_eq(text.len, count * piece);
            cr_assert_eq(strlen(text.data), text.len);
            cr_assert_gt(text.capacity, text.len);
        }
        cr_assert_eq(strspn(text.data, "x"), text.len);
        pen_text_deinit(&text);
        cr_assert_null(text.data);
        cr_assert_eq(text.len, 0);
    }
}

Test(text, numbers_are_grouped_by_thousands)
{
    static const struct {
        uint64_t number;
        const char *shown;
    } cases[] = {{0, "0"},
                 {999, "999"},
                 {1000, "1,000"},
                 {123456, "123,456"},
                 {1234567, "1,234,567"},
                 {UINT64_MAX, "18,446,744,073,709,551,615"}};
    char shown[PEN_GROUPED_SIZE];
    for (size_t i = 0; i < PEN_COUNTOF(cases); i++) {
        cr_assert_str_eq(pen_group_digits(cases[i].number, shown), cases[i].shown);
    }
}
