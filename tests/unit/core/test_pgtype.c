#include "core/pgtype.h"

#include <criterion/criterion.h>
#include <stdlib.h>

TestSuite(pgtype, .timeout = 60);

Test(pgtype, plain_types_and_their_arrays_are_portable)
{
    static const uint32_t types[] = {16, 17, 18, 19, 20, 21, 23, 25, 26, 114, 600, 628, 650, 700,
                                     701, 869, 1042, 1043, 1082, 1083, 1114, 1184, 1186, 1266, 1560,
                                     1562, 1700, 2950, 3220, 3614, 3615, 3802, 3904, 3912, 4072,
                                     4451, 4536, 5038, 5069,
                                     /* arrays */
                                     199, 271, 1000, 1001, 1003, 1007, 1009, 1015, 1016, 1022, 1041,
                                     1115, 1182, 1185, 1187, 1231, 2951, 3807, 3905, 6150, 6157};
    for (size_t i = 0; i < PEN_COUNTOF(types); i++) {
        cr_expect(pen_pgtype_portable(types[i]), "%u", types[i]);
    }
}

Test(pgtype, what_names_objects_or_depends_on_settings_is_not)
{
    static const uint32_t types[] = {0,    24,   2202, 2203,  2204,  2205,  2206,
                                     3734, 3769, 4089, 4096,  4191, /* reg… */
                                     1008, 2207, 2208, 2209,  2210,  2211,  3735,
                                     3770, 4090, 4097, 4192, /* their arrays */
                                     142,  143,  790,  791,   22,    30,    1006,
                                     1013, /* xml … */
                                     194,  1033, 1034, 3361,  3402,  5017,  4600,
                                     4601, 3642, /* internal */
                                     2249, 2278, 705,  13000, 16384, 16390, 4294967295U};
    for (size_t i = 0; i < PEN_COUNTOF(types); i++) {
        cr_expect_not(pen_pgtype_portable(types[i]), "%u", types[i]);
    }
}

Test(pgtype, intervals)
{
    cr_assert(pen_pgtype_is_interval(1186));
    cr_assert(pen_pgtype_is_interval(1187));
    cr_assert_not(pen_pgtype_is_interval(1184));
    cr_assert_not(pen_pgtype_is_interval(0));
}

Test(pgtype, chars)
{
    cr_assert(pen_pgtype_is_char(18));
    cr_assert(pen_pgtype_is_char(1002));
    cr_assert_not(pen_pgtype_is_char(1042), "char(n) is none");
    cr_assert_not(pen_pgtype_is_char(0));
}

Test(pgtype, only_what_loses_nothing_widens)
{
    enum { INT2 = 21, INT4 = 23, INT8 = 20, TEXT = 25, VARCHAR = 1043, BPCHAR = 1042, NAME = 19 };
    static const uint32_t types[] = {INT2, INT4, INT8, TEXT, VARCHAR, BPCHAR, NAME,
                                     1700, 700,  701,  1184, 1114,    26};
    for (size_t s = 0; s < PEN_COUNTOF(types); s++) {
        for (size_t t = 0; t < PEN_COUNTOF(types); t++) {
            uint32_t source = types[s];
            uint32_t target = types[t];
            bool widens =
                source == target || (source == INT2 && target == INT4) ||
                (source == INT2 && target == INT8) || (source == INT4 && target == INT8) ||
                (source == TEXT && target == VARCHAR) || (source == VARCHAR && target == TEXT);
            cr_expect_eq(pen_pgtype_widens(source, target), widens, "%u %u", source, target);
        }
    }
}

static void expect(uint32_t type, const char *bytes, uint32_t len, const char *words)
{
    pen_text out = {0};
    const pen_value value = {(const uint8_t *)bytes, len, PEN_VALUE_BINARY};
    pen_pgtype_describe(type, &value, &out);
    char *got = pen_text_take(&out);
    cr_expect_str_eq(got, words);
    free(got);
}

Test(pgtype, describe)
{
    expect(21, "\xff\xfe", 2, "-2");
    expect(23, "\x7f\xff\xff\xff", 4, "2147483647");
    expect(23, "\x80\0\0\0", 4, "-2147483648");
    expect(20, "\x80\0\0\0\0\0\0\0", 8, "-9223372036854775808");
    expect(20, "\0\0\0\x01\0\0\0\0", 8, "4294967296");
    expect(26, "\xff\xff\xff\xff", 4, "4294967295");
    expect(16, "\x01", 1, "t");
    expect(16, "\0", 1, "f");
    expect(25, "shoe", 4, "shoe");
    expect(1043, "", 0, "");
    expect(2950, "\xa0\xee\xbc\x99\x9c\x0b\x4e\xf8\xbb\x6d\x6b\xb9\xbd\x38\x0a\x11", 16,
           "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11");
    expect(1082, "\0\0\0\x01", 4, "\\x00000001");
    expect(0, "\xff", 1, "\\xff");
}

Test(pgtype, a_value_of_another_length_is_shown_as_it_is)
{
    expect(23, "\0\0\x01", 3, "\\x000001");
    expect(20, "\0\0\0\x07", 4, "\\x00000007");
    expect(16, "", 0, "\\x");
    expect(2950, "\x01\x02", 2, "\\x0102");
    char longer[100] = {0};
    for (size_t i = 0; i + 1 < sizeof(longer); i++) {
        longer[i] = 'x';
    }
    expect(25, longer, 99, longer + 99 - 64);
}
