#include "core/nearest.h"

#include <criterion/criterion.h>
#include <string.h>

Test(nearest, distance)
{
    cr_expect_eq(pen_edit_distance("", ""), 0);
    cr_expect_eq(pen_edit_distance("abc", "abc"), 0);
    cr_expect_eq(pen_edit_distance("", "abc"), 3);
    cr_expect_eq(pen_edit_distance("abc", ""), 3);
    cr_expect_eq(pen_edit_distance("abc", "abcd"), 1);
    cr_expect_eq(pen_edit_distance("abc", "bc"), 1);
    cr_expect_eq(pen_edit_distance("abc", "axc"), 1);
    cr_expect_eq(pen_edit_distance("abcd", "acbd"), 1); /* a swap is one slip */
    cr_expect_eq(pen_edit_distance("kitten", "sitting"), 3);
    cr_expect_eq(pen_edit_distance("ca", "abc"), 3);
}

Test(nearest, long_words_are_compared_by_their_beginning)
{
    char left[200];
    char right[200];
    memset(left, 'a', sizeof(left));
    memset(right, 'a', sizeof(right));
    left[199] = right[199] = '\0';
    right[150] = 'b';
    cr_expect_eq(pen_edit_distance(left, right), 0);
    right[10] = 'b';
    cr_expect_eq(pen_edit_distance(left, right), 1);
    cr_expect_eq(pen_edit_distance(left, ""), 64);
}

Test(nearest, names_the_first_of_the_nearest)
{
    const char *const names[] = {"stream", "status", "copy"};
    cr_expect_eq(pen_nearest("straem", names, 3), 0);
    cr_expect_eq(pen_nearest("stats", names, 3), 1);
    cr_expect_eq(pen_nearest("cpoy", names, 3), 2);
    cr_expect_eq(pen_nearest("", names, 2), 0);
    cr_expect_eq(pen_nearest("s", names, 3), 0);
    cr_expect_eq(pen_nearest("stat", names, 3), 1);
    cr_expect_eq(pen_nearest("co", names, 3), 2);
}
