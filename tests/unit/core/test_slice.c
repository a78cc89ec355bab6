#include "core/slice.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static const uint8_t bytes[] = {0x01, 0x82, 0x03, 0x84, 0x05, 0x86, 0x07, 0x88};

/* A cursor over a copy of the first `len` bytes that ends exactly there; free(*copy) afterwards. */
static pen_cursor over(size_t len, uint8_t **copy)
{
    *copy = pen_malloc(len);
    if (len > 0) {
        memcpy(*copy, bytes, len);
    }
    return pen_cursor_over((pen_slice){*copy, len});
}

Test(slice, of_and_equal)
{
    pen_slice abc = pen_slice_of("abc");
    cr_assert_eq(abc.len, 3);
    cr_assert(pen_slice_equal(abc, pen_slice_of("abc")));
    cr_assert_not(pen_slice_equal(abc, pen_slice_of("abd")));
    cr_assert_not(pen_slice_equal(abc, pen_slice_of("ab")));
    cr_assert(pen_slice_equal(pen_slice_of(""), (pen_slice){NULL, 0}));
}

Test(slice, numbers)
{
    uint8_t *copy;
    pen_cursor cur = over(8, &copy);
    cr_assert_eq(pen_cursor_u64(&cur), 0x0182038405860788);
    cr_assert(pen_cursor_done(&cur));
    free(copy);
    cur = over(7, &copy);
    cr_assert_eq(pen_cursor_u8(&cur), 0x01);
    cr_assert_eq(pen_cursor_u16(&cur), 0x8203);
    cr_assert_eq(pen_cursor_left(&cur), 4);
    cr_assert_eq(pen_cursor_u32(&cur), 0x84058607);
    cr_assert(pen_cursor_done(&cur));
    free(copy);
}

Test(slice, high_bit)
{
    const uint8_t ones[] = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};
    pen_slice all = {ones, sizeof(ones)};
    pen_cursor cur = pen_cursor_over(all);
    cr_assert_eq(pen_cursor_u64(&cur), UINT64_MAX);
    cur = pen_cursor_over(all);
    cr_assert_eq(pen_cursor_u32(&cur), UINT32_MAX);
    cr_assert_eq(pen_cursor_u16(&cur), UINT16_MAX);
    cr_assert_eq(pen_cursor_u8(&cur), UINT8_MAX);
}

Test(slice, reads_beyond_the_end_give_zero_for_good)
{
    for (size_t len = 0; len < 8; len++) {
        uint8_t *copy;
        pen_cursor cur = over(len, &copy);
        cr_assert_eq(pen_cursor_u64(&cur), 0, "%zu bytes", len);
        cr_assert(cur.failed);
        /* Even what would still fit. */
        cr_assert_eq(pen_cursor_u8(&cur), 0);
        cr_assert_eq(pen_cursor_u16(&cur), 0);
        cr_assert_eq(pen_cursor_u32(&cur), 0);
        cr_assert_null(pen_cursor_take(&cur, 0));
        cr_assert_null(pen_cursor_bytes(&cur, 0).data);
        cr_assert_null(pen_cursor_cstring(&cur).data);
        cr_assert_not(pen_cursor_done(&cur));
        free(copy);
    }
}

Test(slice, take)
{
    uint8_t *copy;
    pen_cursor cur = over(8, &copy);
    cr_assert_eq(pen_cursor_take(&cur, 3), copy);
    cr_assert_eq(pen_cursor_take(&cur, 0), copy + 3);
    cr_assert_eq(pen_cursor_take(&cur, 5), copy + 3);
    cr_assert(pen_cursor_done(&cur));
    cr_assert_null(pen_cursor_take(&cur, 1));
    cr_assert(cur.failed);
    cur = pen_cursor_over((pen_slice){copy, 8});
    cr_assert_null(pen_cursor_take(&cur, SIZE_MAX), "no overflow of the sum");
    free(copy);
}

Test(slice, bytes)
{
    uint8_t *copy;
    pen_cursor cur = over(8, &copy);
    pen_slice two = pen_cursor_bytes(&cur, 2);
    cr_assert_eq(two.data, copy);
    cr_assert_eq(two.len, 2);
    pen_slice many = pen_cursor_bytes(&cur, 7);
    cr_assert_null(many.data);
    cr_assert_eq(many.len, 0);
    cr_assert(cur.failed);
    free(copy);
}

Test(slice, cstring)
{
    char *text = pen_malloc(7);
    memcpy(text, "ab\0\0cde", 7);
    pen_cursor cur = pen_cursor_over((pen_slice){(uint8_t *)text, 7});
    pen_slice ab = pen_cursor_cstring(&cur);
    cr_assert(pen_slice_equal(ab, pen_slice_of("ab")));
    cr_assert_eq(ab.data[ab.len], 0);
    pen_slice empty = pen_cursor_cstring(&cur);
    cr_assert_eq(empty.len, 0);
    cr_assert_not_null(empty.data);
    cr_assert_not(cur.failed);
    cr_assert_null(pen_cursor_cstring(&cur).data, "no NUL behind cde");
    cr_assert(cur.failed);
    free(text);
}

Test(slice, nothing)
{
    pen_cursor cur = pen_cursor_over((pen_slice){NULL, 0});
    cr_assert(pen_cursor_done(&cur));
    cr_assert_eq(pen_cursor_left(&cur), 0);
    cr_assert_null(pen_cursor_cstring(&cur).data);
    cr_assert_not(pen_cursor_done(&cur));
}
