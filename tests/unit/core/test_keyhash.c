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
    cr_assert(pen_keyhash_row(seed, values, columns, column_count, &hash));
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
    char long_text[1000];
    memset(long_text, 'x', sizeof(long_text) - 1);
    long_text[sizeof(long_text) - 1] = '\0';
    for (size_t i = 0; i < PEN_COUNTOF(kinds); i++) {
        pen_value missing = {NULL, 0, kinds[i]};
        pen_value orders[][2] = {
            {missing, text("a")}, {text("a"), missing}, {text(long_text), missing}};
        for (size_t j = 0; j < PEN_COUNTOF(orders); j++) {
            uint64_t hash = 7;
            cr_assert_not(pen_keyhash_row(SEED, orders[j], two_columns, 2, &hash));
            cr_assert_eq(hash, 7, "left alone");
        }
    }
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
