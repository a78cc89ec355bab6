#include "core/keyhash.h"

#include <criterion/criterion.h>
#include <string.h>

#define SEED UINT64_C(42)

static const pen_key_column two_columns[] = {{0, PEN_KEY_BYTES}, {1, PEN_KEY_BYTES}};

static pen_value text(const char *bytes)
{
    return (pen_value){(const uint8_t *)bytes, (uint32_t)strlen(bytes), PEN_VALUE_TEXT};
}

static uint64_t hash_of(uint64_t seed, const pen_value *values, const pen_key_column *columns,
                        size_t column_count)
{
    uint64_t hash = 0;
    pen_key_spec spec = {.seed = seed, .columns = columns, .column_count = (uint16_t)column_count};
    cr_assert_eq(pen_keyhash_row(&spec, values, NULL, &hash), PEN_KEY_HASHED);
    return hash;
}

static uint64_t hash_pair(const char *a, const char *b)
{
    pen_value values[] = {text(a), text(b)};
    return hash_of(SEED, values, two_columns, 2);
}

static uint64_t hash_trimmed(const char *bytes)
{
    pen_key_column column = {0, PEN_KEY_TRIM_BLANKS};
    pen_value value = text(bytes);
    return hash_of(SEED, &value, &column, 1);
}

Test(keyhash, same_bytes_same_hash)
{
    char copy[] = "ab";
    cr_assert_eq(hash_pair("ab", "c"), hash_pair(copy, "c"));
    cr_assert_neq(hash_pair("ab", "c"), hash_pair("ab", "d"));
    cr_assert_neq(hash_pair("ab", "c"), hash_pair("c", "ab"));
}

Test(keyhash, the_border_between_columns_counts)
{
    cr_assert_neq(hash_pair("ab", "c"), hash_pair("a", "bc"));
    cr_assert_neq(hash_pair("", "abc"), hash_pair("abc", ""));
    pen_value one = text("");
    pen_value two[] = {text(""), text("")};
    cr_assert_neq(hash_of(SEED, &one, two_columns, 1), hash_of(SEED, two, two_columns, 2));
}

Test(keyhash, the_seed_counts)
{
    pen_value value = text("1");
    cr_assert_neq(hash_of(1, &value, two_columns, 1), hash_of(2, &value, two_columns, 1));
    cr_assert_neq(pen_keyhash_table(1), pen_keyhash_table(2));
    cr_assert_eq(pen_keyhash_table(1), pen_keyhash_table(1));
}

Test(keyhash, the_whole_table_is_not_one_of_its_rows)
{
    pen_value value = text("");
    cr_assert_neq(pen_keyhash_table(SEED), hash_of(SEED, &value, two_columns, 1));
    cr_assert_neq(pen_keyhash_table(SEED), hash_of(SEED, &value, two_columns, 0));
    cr_assert_neq(pen_keyhash_table(SEED), hash_pair("", ""));
}

Test(keyhash, only_the_key_columns_count)
{
    pen_key_column columns[] = {{2, PEN_KEY_BYTES}, {0, PEN_KEY_BYTES}};
    pen_value a[] = {text("k0"), text("one"), text("k2")};
    pen_value b[] = {text("k0"), {NULL, 0, PEN_VALUE_NULL}, text("k2")};
    cr_assert_eq(hash_of(SEED, a, columns, 2), hash_of(SEED, b, columns, 2));
    pen_value pair[] = {text("k2"), text("k0")};
    cr_assert_eq(hash_of(SEED, a, columns, 2), hash_of(SEED, pair, two_columns, 2),
                 "in the order of the key");
}

Test(keyhash, null_and_unchanged_are_no_key)
{
    const uint8_t kinds[] = {PEN_VALUE_NULL, PEN_VALUE_UNCHANGED};
    const pen_key_state states[] = {PEN_KEY_NULL, PEN_KEY_UNKNOWN};
    const pen_key_spec spec = {.seed = SEED, .columns = two_columns, .column_count = 2};
    char long_text[1000];
    memset(long_text, 'x', sizeof(long_text) - 1);
    long_text[sizeof(long_text) - 1] = '\0';
    for (size_t i = 0; i < PEN_COUNTOF(kinds); i++) {
        pen_value missing = {NULL, 0, kinds[i]};
        pen_value orders[][2] = {
            {missing, text("a")}, {text("a"), missing}, {text(long_text), missing}};
        for (size_t j = 0; j < PEN_COUNTOF(orders); j++) {
            uint64_t hash = 7;
            cr_assert_eq(pen_keyhash_row(&spec, orders[j], NULL, &hash), states[i]);
            cr_assert_eq(hash, 7, "left alone");
        }
    }
}

Test(keyhash, what_did_not_come_is_taken_from_the_old_row)
{
    const pen_key_spec spec = {.seed = SEED, .columns = two_columns, .column_count = 2};
    char long_text[1000];
    memset(long_text, 'x', sizeof(long_text) - 1);
    long_text[sizeof(long_text) - 1] = '\0';
    const char *const words[] = {"a", long_text};
    for (size_t i = 0; i < PEN_COUNTOF(words); i++) {
        pen_value whole[] = {text(words[i]), text("new")};
        pen_value came[] = {{NULL, 0, PEN_VALUE_UNCHANGED}, text("new")};
        pen_value before[] = {text(words[i]), text("old")};
        uint64_t hash = 0;
        cr_assert_eq(pen_keyhash_row(&spec, came, before, &hash), PEN_KEY_HASHED);
        cr_assert_eq(hash, hash_of(SEED, whole, two_columns, 2));
    }
}

Test(keyhash, nulls_can_be_equal)
{
    const pen_key_spec spec = {
        .seed = SEED, .columns = two_columns, .column_count = 2, .nulls_equal = true};
    const pen_value null = {NULL, 0, PEN_VALUE_NULL};
    char long_text[1000];
    memset(long_text, 'x', sizeof(long_text) - 1);
    long_text[sizeof(long_text) - 1] = '\0';
    const pen_value rows[][2] = {
        {text("a"), null},       {null, text("a")},       {null, null},
        {text("a"), text("")},   {text(""), null},        {text("b"), null},
        {text(long_text), null}, {null, text(long_text)}, {text(long_text), text("")}};
    uint64_t hashes[PEN_COUNTOF(rows)];
    for (size_t i = 0; i < PEN_COUNTOF(rows); i++) {
        uint64_t again = 0;
        cr_assert_eq(pen_keyhash_row(&spec, rows[i], NULL, &hashes[i]), PEN_KEY_HASHED);
        cr_assert_eq(pen_keyhash_row(&spec, rows[i], NULL, &again), PEN_KEY_HASHED);
        cr_assert_eq(hashes[i], again);
        cr_assert_neq(hashes[i], pen_keyhash_table(SEED));
        for (size_t j = 0; j < i; j++) {
            cr_assert_neq(hashes[i], hashes[j], "%zu and %zu", i, j);
        }
    }
    pen_value unchanged[] = {null, {NULL, 0, PEN_VALUE_UNCHANGED}};
    uint64_t hash = 0;
    cr_assert_eq(pen_keyhash_row(&spec, unchanged, NULL, &hash), PEN_KEY_UNKNOWN);
}

static pen_value binary(const void *bytes, size_t len)
{
    return (pen_value){bytes, (uint32_t)len, PEN_VALUE_BINARY};
}

/* False when it is not a value of that form. */
static bool hash_form(pen_key_form form, pen_value value, uint64_t *hash)
{
    const pen_key_column column = {0, form};
    const pen_key_spec spec = {.seed = SEED, .columns = &column, .column_count = 1};
    return pen_keyhash_row(&spec, &value, NULL, hash) == PEN_KEY_HASHED;
}

static uint64_t form_of(pen_key_form form, pen_value value)
{
    uint64_t hash = 0;
    cr_assert(hash_form(form, value, &hash), "%.*s", (int)value.len, (const char *)value.data);
    return hash;
}

static void expect_same(pen_key_form form, pen_value a, pen_value b)
{
    cr_assert_eq(form_of(form, a), form_of(form, b), "%.*s and %.*s", (int)a.len,
                 (const char *)a.data, (int)b.len, (const char *)b.data);
}

static void expect_other(pen_key_form form, pen_value a, pen_value b)
{
    cr_assert_neq(form_of(form, a), form_of(form, b), "%.*s and %.*s", (int)a.len,
                  (const char *)a.data, (int)b.len, (const char *)b.data);
}

static void expect_none(pen_key_form form, pen_value value)
{
    uint64_t hash = 0;
    cr_assert_not(hash_form(form, value, &hash), "%.*s", (int)value.len, (const char *)value.data);
}

Test(keyhash, integers_of_all_widths_and_both_formats)
{
    expect_same(PEN_KEY_INT, text("-2"), binary("\xff\xfe", 2));
    expect_same(PEN_KEY_INT, text("-2"), binary("\xff\xff\xff\xfe", 4));
    expect_same(PEN_KEY_INT, text("-2"), binary("\xff\xff\xff\xff\xff\xff\xff\xfe", 8));
    expect_same(PEN_KEY_INT, text("258"), binary("\1\2", 2));
    expect_same(PEN_KEY_INT, text("258"), binary("\0\0\1\2", 4));
    expect_same(PEN_KEY_INT, text("0"), binary("\0\0", 2));
    expect_same(PEN_KEY_INT, text("9223372036854775807"),
                binary("\x7f\xff\xff\xff\xff\xff\xff\xff", 8));
    expect_same(PEN_KEY_INT, text("-9223372036854775808"), binary("\x80\0\0\0\0\0\0\0", 8));
    expect_other(PEN_KEY_INT, text("1"), text("-1"));
    expect_other(PEN_KEY_INT, text("1"), text("10"));
    expect_other(PEN_KEY_INT, binary("\0\1", 2), binary("\1\0", 2));
    const char *const bad[] = {"", "-", "1x", "1.0", " 1", "99999999999999999999"};
    for (size_t i = 0; i < PEN_COUNTOF(bad); i++) {
        expect_none(PEN_KEY_INT, text(bad[i]));
    }
    expect_none(PEN_KEY_INT, binary("\0\0\1", 3));
    expect_none(PEN_KEY_INT, binary("", 0));
}

Test(keyhash, numeric_without_its_scale)
{
    static const char *const equal[][2] = {
        {"1", "1.0"},        {"1", "1.000"},          {"1.5", "1.50"},
        {"-300", "-300.00"}, {"0", "0.000"},          {"0", "-0"},
        {"0", "-0.00"},      {"0.5", "0.50"},         {"0.5", ".5"},
        {"7", "007"},        {"0.05", "0.050"},       {"100", "100.0"},
        {"NaN", "NaN"},      {"Infinity", "Infinity"}};
    static const char *const other[][2] = {{"1", "10"},
                                           {"1", "-1"},
                                           {"1", "0.1"},
                                           {"0.5", "5"},
                                           {"0.05", "0.5"},
                                           {"1.05", "1.5"},
                                           {"100", "1"},
                                           {"0", "1"},
                                           {"NaN", "Infinity"},
                                           {"NaN", "0"},
                                           {"10.01", "1001"},
                                           {"10", "1"},
                                           {"Infinity", "-Infinity"}};
    for (size_t i = 0; i < PEN_COUNTOF(equal); i++) {
        expect_same(PEN_KEY_NUMERIC, text(equal[i][0]), text(equal[i][1]));
    }
    for (size_t i = 0; i < PEN_COUNTOF(other); i++) {
        expect_other(PEN_KEY_NUMERIC, text(other[i][0]), text(other[i][1]));
    }
    const char *const bad[] = {"", "-", "1e5", "1.2.3", "x"};
    for (size_t i = 0; i < PEN_COUNTOF(bad); i++) {
        expect_none(PEN_KEY_NUMERIC, text(bad[i]));
    }
}

/* As numeric_send gives it: the number of digits, weight, sign, scale; digits of base 10000. */
#define NUM(count, weight, sign, scale, digits)                                                    \
    binary("\0" count weight sign "\0" scale digits, 8 + sizeof(digits) - 1)

Test(keyhash, numeric_in_binary)
{
    pen_value one = NUM("\1", "\0\0", "\0\0", "\0", "\0\1");
    pen_value one_00 = NUM("\1", "\0\0", "\0\0", "\2", "\0\1");
    pen_value one_trailing = NUM("\2", "\0\0", "\0\0", "\4", "\0\1\0\0");
    pen_value one_leading = NUM("\2", "\0\1", "\0\0", "\0", "\0\0\0\1");
    pen_value minus_one = NUM("\1", "\0\0", "\x40\0", "\0", "\0\1");
    pen_value ten_thousand = NUM("\1", "\0\1", "\0\0", "\0", "\0\1");
    pen_value zero = NUM("\0", "\0\0", "\0\0", "\0", "");
    pen_value zero_00 = NUM("\0", "\0\0", "\0\0", "\2", "");
    pen_value zero_digit = NUM("\1", "\0\3", "\x40\0", "\2", "\0\0");
    pen_value nan = NUM("\0", "\0\0", "\xc0\0", "\0", "");
    pen_value nan_scaled = NUM("\0", "\0\5", "\xc0\0", "\7", "");
    pen_value infinity = NUM("\0", "\0\0", "\xd0\0", "\x20", "");
    pen_value minus_infinity = NUM("\0", "\0\0", "\xf0\0", "\x20", "");
    expect_same(PEN_KEY_NUMERIC, one, one_00);
    expect_same(PEN_KEY_NUMERIC, one, one_trailing);
    expect_same(PEN_KEY_NUMERIC, one, one_leading);
    expect_same(PEN_KEY_NUMERIC, zero, zero_00);
    expect_same(PEN_KEY_NUMERIC, zero, zero_digit);
    expect_same(PEN_KEY_NUMERIC, nan, nan_scaled);
    expect_other(PEN_KEY_NUMERIC, one, minus_one);
    expect_other(PEN_KEY_NUMERIC, one, ten_thousand);
    expect_other(PEN_KEY_NUMERIC, one, zero);
    expect_other(PEN_KEY_NUMERIC, zero, nan);
    expect_other(PEN_KEY_NUMERIC, nan, infinity);
    expect_other(PEN_KEY_NUMERIC, infinity, minus_infinity);
    one.len--;
    expect_none(PEN_KEY_NUMERIC, one);
    zero.len = 7;
    expect_none(PEN_KEY_NUMERIC, zero);
}

Test(keyhash, floats_have_one_zero_and_one_nan)
{
    expect_same(PEN_KEY_FLOAT, text("0"), text("-0"));
    expect_other(PEN_KEY_FLOAT, text("0.1"), text("-0.1"));
    expect_other(PEN_KEY_FLOAT, text("NaN"), text("0"));
    expect_same(PEN_KEY_FLOAT, binary("\0\0\0\0", 4), binary("\x80\0\0\0", 4));
    expect_same(PEN_KEY_FLOAT, binary("\0\0\0\0\0\0\0\0", 8), binary("\x80\0\0\0\0\0\0\0", 8));
    expect_same(PEN_KEY_FLOAT, binary("\x7f\xc0\0\0", 4), binary("\xff\xc0\0\1", 4));
    expect_same(PEN_KEY_FLOAT, binary("\x7f\xf8\0\0\0\0\0\0", 8),
                binary("\xff\xf8\0\0\0\0\0\1", 8));
    expect_other(PEN_KEY_FLOAT, binary("\x7f\xc0\0\0", 4), binary("\x7f\x80\0\0", 4));
    expect_other(PEN_KEY_FLOAT, binary("\x7f\x80\0\0", 4), binary("\xff\x80\0\0", 4));
    expect_other(PEN_KEY_FLOAT, binary("\x3f\x80\0\0", 4), binary("\xbf\x80\0\0", 4));
    expect_other(PEN_KEY_FLOAT, binary("\x7f\xf0\0\0\0\0\0\0", 8),
                 binary("\x7f\xf0\0\0\0\0\0\1", 8));
    expect_none(PEN_KEY_FLOAT, binary("\0\0\0", 3));
    expect_none(PEN_KEY_FLOAT, binary("\0\0\0\0\0", 5));
}

Test(keyhash, blanks_are_trimmed_in_binary_too)
{
    expect_same(PEN_KEY_TRIM_BLANKS, binary("ab  ", 4), text("ab"));
    expect_other(PEN_KEY_TRIM_BLANKS, binary(" ab", 3), text("ab"));
}

Test(keyhash, blanks_at_the_end_of_char_n_do_not_count)
{
    cr_assert_eq(hash_trimmed("ab"), hash_trimmed("ab   "));
    cr_assert_eq(hash_trimmed(""), hash_trimmed("    "));
    cr_assert_neq(hash_trimmed("ab"), hash_trimmed(" ab"));
    cr_assert_neq(hash_trimmed("a b"), hash_trimmed("ab"));
    cr_assert_neq(hash_trimmed("ab"), hash_trimmed("ab\t"));
    cr_assert_neq(hash_pair("ab", ""), hash_pair("ab ", ""), "where bytes are compared they do");
}

Test(keyhash, binary_values_may_hold_any_byte)
{
    const uint8_t a[] = {0, 0, 1, 0};
    const uint8_t b[] = {0, 0, 2, 0};
    pen_value first = {a, 4, PEN_VALUE_BINARY};
    pen_value second = {b, 4, PEN_VALUE_BINARY};
    pen_value shorter = {a, 3, PEN_VALUE_BINARY};
    uint64_t hash = hash_of(SEED, &first, two_columns, 1);
    cr_assert_neq(hash, hash_of(SEED, &second, two_columns, 1));
    cr_assert_neq(hash, hash_of(SEED, &shorter, two_columns, 1));
}

/* Around the length where a key no longer fits the stack: every byte of every length counts, and
 * blanks behind a long value are trimmed too. */
Test(keyhash, long_keys)
{
    enum { LONGEST = 1100 };
    static char bytes[LONGEST + 3];
    pen_key_column trimmed = {0, PEN_KEY_TRIM_BLANKS};
    uint64_t last = 0;
    for (uint32_t len = 200; len <= LONGEST; len++) {
        memset(bytes, 'x', len);
        pen_value value = {(const uint8_t *)bytes, len, PEN_VALUE_TEXT};
        uint64_t hash = hash_of(SEED, &value, two_columns, 1);
        cr_assert_neq(hash, last);
        last = hash;
        bytes[len - 1] = 'y';
        cr_assert_neq(hash_of(SEED, &value, two_columns, 1), hash, "length %u", len);
        bytes[len - 1] = 'x';
        bytes[len] = ' ';
        bytes[len + 1] = ' ';
        value.len = len + 2;
        cr_assert_eq(hash_of(SEED, &value, &trimmed, 1), hash, "length %u", len);
    }
    memset(bytes, 'x', LONGEST);
    pen_value values[] = {{(const uint8_t *)bytes, 600, PEN_VALUE_TEXT},
                          {(const uint8_t *)bytes, 500, PEN_VALUE_TEXT}};
    uint64_t hash = hash_of(SEED, values, two_columns, 2);
    values[0].len = 500;
    values[1].len = 600;
    cr_assert_neq(hash_of(SEED, values, two_columns, 2), hash);
}
