#include "core/keyhash.h"

#include <string.h>

/* Inlined, so that the state may lie on the stack whatever version of the library is installed, and
 * so that the compiler cuts the hash down to its short form where the length is known. */
#define XXH_INLINE_ALL
#include <xxhash.h>

/* Bytes of a key that are gathered on the stack and hashed at once; a longer key is streamed. Both
 * ways give the same hash of the same bytes. */
#define SHORT_KEY 256

/* Each column begins with four bytes that say how many bytes follow. No value is as long as these
 * two say, for the protocol's lengths are of 31 bits. */
#define LENGTH_OF_NULL  UINT32_C(0xfffffffe)
#define LENGTH_OF_TABLE UINT32_C(0xffffffff)

/* numeric's binary form: base-10000 digits behind the words for their number, weight, sign, scale.
 */
enum { NUMERIC_HEADER = 8, NUMERIC_NEGATIVE = 0x4000, NUMERIC_SPECIAL = 0xc000 };

/* A value without what does not count in a comparison: some bytes made here, then a part of the
 * value itself. */
typedef struct normal {
    uint8_t head[8];
    uint32_t head_len;
    pen_slice rest;
} normal;

/* In this machine's order: no hash leaves the process. */
static void put_u64(uint8_t *at, uint64_t number)
{
    memcpy(at, &number, sizeof(number));
}

static bool is_digit(uint8_t byte)
{
    return byte >= '0' && byte <= '9';
}

static void trim_blanks(pen_slice bytes, normal *out)
{
    while (bytes.len > 0 && bytes.data[bytes.len - 1] == ' ') {
        bytes.len--;
    }
    out->rest = bytes;
}

static bool parse_int(pen_slice text, uint64_t *number)
{
    bool negative = text.len > 0 && text.data[0] == '-';
    size_t at = negative;
    /* 19 digits do not overflow 64 bits without a sign. */
    if (at == text.len || text.len - at > 19) {
        return false;
    }
    uint64_t sum = 0;
    for (; at < text.len; at++) {
        if (!is_digit(text.data[at])) {
            return false;
        }
        sum = sum * 10 + (uint64_t)(text.data[at] - '0');
    }
    *number = negative ? 0 - sum : sum;
    return true;
}

/* Of any width, as eight bytes. */
static bool normalize_int(pen_slice bytes, bool binary, normal *out)
{
    uint64_t number = 0;
    if (binary) {
        if (bytes.len != 2 && bytes.len != 4 && bytes.len != 8) {
            return false;
        }
        number = bytes.data[0] >= 0x80 ? UINT64_MAX : 0;
        for (size_t i = 0; i < bytes.len; i++) {
            number = number << 8 | bytes.data[i];
        }
    } else if (!parse_int(bytes, &number)) {
        return false;
    }
    put_u64(out->head, number);
    out->head_len = 8;
    return true;
}

/* Sign, then digits without the zeros that do not count. NaN and the infinities stay as they are.
 */
static bool normalize_numeric_text(pen_slice text, normal *out)
{
    const uint8_t *at = text.data;
    const uint8_t *end = at + text.len;
    bool negative = at < end && *at == '-';
    at += negative;
    if (at < end && (*at == 'N' || *at == 'I')) {
        out->rest = text;
        return true;
    }
    const uint8_t *point = NULL;
    for (const uint8_t *each = at; each < end; each++) {
        if (*each == '.' && point == NULL) {
            point = each;
        } else if (!is_digit(*each)) {
            return false;
        }
    }
    if (at == end) {
        return false;
    }
    while (at < end && *at == '0') {
        at++;
    }
    while (point != NULL && end > point && (end[-1] == '0' || end[-1] == '.')) {
        end--;
    }
    /* Without digits it is zero, which has no sign. */
    bool zero = at >= end;
    out->head[0] = negative && !zero ? '-' : '+';
    out->head_len = 1;
    out->rest = (pen_slice){at, zero ? 0 : (size_t)(end - at)};
    return true;
}

/* Weight and sign, then digits without zeros at either end; the scale is left out. */
static bool normalize_numeric_binary(pen_slice bytes, normal *out)
{
    pen_cursor cur = pen_cursor_over(bytes);
    size_t count = pen_cursor_u16(&cur);
    uint16_t weight = pen_cursor_u16(&cur);
    uint16_t sign = pen_cursor_u16(&cur);
    (void)pen_cursor_u16(&cur);
    pen_slice digits = pen_cursor_bytes(&cur, count * 2);
    if (!pen_cursor_done(&cur)) {
        return false;
    }
    bool special = (sign & NUMERIC_SPECIAL) == NUMERIC_SPECIAL;
    while (digits.len > 0 && digits.data[0] == 0 && digits.data[1] == 0) {
        digits.data += 2;
        digits.len -= 2;
        weight--;
    }
    while (digits.len > 0 && digits.data[digits.len - 1] == 0 && digits.data[digits.len - 2] == 0) {
        digits.len -= 2;
    }
    if (special || digits.len == 0) {
        weight = 0;
        digits.len = 0;
    }
    if (!special && digits.len == 0) {
        sign = 0;
    }
    put_u64(out->head, (uint64_t)weight << 16 | sign);
    out->head_len = 8;
    out->rest = digits;
    return true;
}

static bool normalize_float(pen_slice bytes, bool binary, normal *out)
{
    if (!binary) {
        /* The source prints each value in one way, but for the zeros. */
        out->rest = pen_slice_equal(bytes, pen_slice_of("-0")) ? pen_slice_of("0") : bytes;
        return true;
    }
    pen_cursor cur = pen_cursor_over(bytes);
    bool single = bytes.len == 4;
    uint64_t bits = single ? (uint64_t)pen_cursor_u32(&cur) << 32 : pen_cursor_u64(&cur);
    if (!pen_cursor_done(&cur)) {
        return false;
    }
    uint64_t infinity = single ? UINT64_C(0x7f80000000000000) : UINT64_C(0x7ff0000000000000);
    uint64_t magnitude = bits & ~(UINT64_C(1) << 63);
    if (magnitude == 0) {
        bits = 0;
    } else if (magnitude > infinity) {
        bits = UINT64_MAX; /* one of the many NaNs for all */
    }
    put_u64(out->head, bits);
    out->head_len = 8;
    return true;
}

/* False when the value is not what its form says. */
static bool normalize(const pen_value *value, pen_key_form form, normal *out)
{
    pen_slice bytes = {value->data, value->len};
    bool binary = value->kind == PEN_VALUE_BINARY;
    out->head_len = 0;
    out->rest = (pen_slice){NULL, 0};
    switch (form) {
    case PEN_KEY_BYTES:
        out->rest = bytes;
        return true;
    case PEN_KEY_TRIM_BLANKS:
        trim_blanks(bytes, out);
        return true;
    case PEN_KEY_INT:
        return normalize_int(bytes, binary, out);
    case PEN_KEY_NUMERIC:
        return binary ? normalize_numeric_binary(bytes, out) : normalize_numeric_text(bytes, out);
    case PEN_KEY_FLOAT:
        return normalize_float(bytes, binary, out);
    }
    return false;
}

/* The value of a key column, from the old row where it did not come with the new one. */
static const pen_value *pick(const pen_value *values, const pen_value *before, uint16_t index)
{
    const pen_value *value = &values[index];
    return value->kind == PEN_VALUE_UNCHANGED && before != NULL ? &before[index] : value;
}

uint64_t pen_keyhash_table(uint64_t seed)
{
    /* No row's key is eight bytes of which the last four are this length. */
    const uint32_t name[2] = {0, LENGTH_OF_TABLE};
    return XXH3_64bits_withSeed(name, sizeof(name), seed);
}

/* The same as below for a key that is known to be hashable, of any length. */
static uint64_t hash_long(const pen_key_spec *spec, const pen_value *values,
                          const pen_value *before)
{
    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    XXH3_64bits_reset_withSeed(&state, spec->seed);
    for (uint16_t i = 0; i < spec->column_count; i++) {
        const pen_value *value = pick(values, before, spec->columns[i].index);
        normal it;
        uint32_t len = LENGTH_OF_NULL;
        bool is_null = value->kind == PEN_VALUE_NULL;
        if (!is_null && normalize(value, spec->columns[i].form, &it)) {
            len = it.head_len + (uint32_t)it.rest.len;
        }
        XXH3_64bits_update(&state, &len, sizeof(len));
        if (!is_null && len > 0) {
            XXH3_64bits_update(&state, it.head, it.head_len);
            if (it.rest.len > 0) {
                XXH3_64bits_update(&state, it.rest.data, it.rest.len);
            }
        }
    }
    return XXH3_64bits_digest(&state);
}

pen_key_state pen_keyhash_row(const pen_key_spec *spec, const pen_value *values,
                              const pen_value *before, uint64_t *hash)
{
    /* Each column's length goes before its bytes: ('ab', 'c') is not ('a', 'bc'). */
    uint8_t key[SHORT_KEY];
    size_t used = 0;
    bool fits = true;
    bool has_null = false;
    for (uint16_t i = 0; i < spec->column_count; i++) {
        const pen_value *value = pick(values, before, spec->columns[i].index);
        normal it = {.head_len = 0, .rest = {NULL, 0}};
        uint32_t len = LENGTH_OF_NULL;
        if (value->kind == PEN_VALUE_UNCHANGED) {
            return PEN_KEY_UNKNOWN;
        }
        if (value->kind == PEN_VALUE_NULL) {
            has_null = true;
        } else if (normalize(value, spec->columns[i].form, &it)) {
            len = it.head_len + (uint32_t)it.rest.len;
        } else {
            return PEN_KEY_UNKNOWN;
        }
        fits = fits && sizeof(len) + it.head_len + it.rest.len <= sizeof(key) - used;
        if (fits) {
            memcpy(key + used, &len, sizeof(len));
            if (it.head_len == sizeof(it.head)) { /* of a length that the compiler knows */
                memcpy(key + used + sizeof(len), it.head, sizeof(it.head));
            } else {
                memcpy(key + used + sizeof(len), it.head, it.head_len);
            }
            used += sizeof(len) + it.head_len;
            if (it.rest.len > 0) {
                memcpy(key + used, it.rest.data, it.rest.len);
                used += it.rest.len;
            }
        }
    }
    if (has_null && !spec->nulls_equal) {
        return PEN_KEY_NULL;
    }
    *hash = fits ? XXH3_64bits_withSeed(key, used, spec->seed) : hash_long(spec, values, before);
    return PEN_KEY_HASHED;
}

bool pen_keyhash_same(const pen_key_spec *spec, const pen_value *a, const pen_value *b)
{
    for (uint16_t i = 0; i < spec->column_count; i++) {
        const pen_key_column *column = &spec->columns[i];
        const pen_value *one = &a[column->index];
        const pen_value *other = &b[column->index];
        normal left = {.head_len = 0, .rest = {NULL, 0}};
        normal right = {.head_len = 0, .rest = {NULL, 0}};
        if (one->kind == PEN_VALUE_NULL || other->kind == PEN_VALUE_NULL) {
            if (one->kind != other->kind) {
                return false;
            }
            continue;
        }
        if (!normalize(one, column->form, &left) || !normalize(other, column->form, &right) ||
            left.head_len != right.head_len || memcmp(left.head, right.head, left.head_len) != 0 ||
            !pen_slice_equal(left.rest, right.rest)) {
            return false;
        }
    }
    return true;
}
