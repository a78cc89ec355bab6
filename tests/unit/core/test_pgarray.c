#include "core/pgarray.h"

#include <criterion/criterion.h>
#include <string.h>

static pen_arrays arrays;

static void tear_down(void)
{
    pen_arrays_deinit(&arrays);
}

TestSuite(pgarray, .fini = tear_down);

static void add(const char *text)
{
    pen_value value = {.kind = PEN_VALUE_NULL};
    if (text != NULL) {
        value = (pen_value){
            .data = (const uint8_t *)text, .len = (uint32_t)strlen(text), .kind = PEN_VALUE_TEXT};
    }
    pen_arrays_add(&arrays, &value);
}

static void expect_text(const char *wanted)
{
    size_t offset;
    size_t len;
    pen_arrays_end(&arrays, &offset, &len);
    cr_assert_eq(len, strlen(wanted));
    cr_assert_str_eq((const char *)arrays.data + offset, wanted);
}

Test(pgarray, text_is_quoted)
{
    pen_arrays_begin_text(&arrays, ',');
    add("1");
    add(NULL);
    add("NULL");
    add("");
    add("a \"b\" \\ {c}, d");
    expect_text("{\"1\",NULL,\"NULL\",\"\",\"a \\\"b\\\" \\\\ {c}, d\"}");
}

Test(pgarray, the_delimiter_is_the_types)
{
    pen_arrays_begin_text(&arrays, ';');
    add("(1,1),(0,0)");
    add("(2,2),(0,0)");
    expect_text("{\"(1,1),(0,0)\";\"(2,2),(0,0)\"}");
}

Test(pgarray, without_elements)
{
    pen_arrays_begin_text(&arrays, ',');
    expect_text("{}");
}

Test(pgarray, one_behind_the_other)
{
    size_t first;
    size_t second;
    size_t len;
    pen_arrays_begin_text(&arrays, ',');
    add("one");
    pen_arrays_end(&arrays, &first, &len);
    cr_assert_eq(len, strlen("{\"one\"}"));
    pen_arrays_begin_text(&arrays, ',');
    for (int i = 0; i < 1000; i++) {
        add("more than fits where the first one is");
    }
    pen_arrays_end(&arrays, &second, &len);
    cr_assert_eq(second, first + strlen("{\"one\"}") + 1);
    cr_assert_str_eq((const char *)arrays.data + first, "{\"one\"}");
    pen_arrays_clear(&arrays);
    pen_arrays_begin_text(&arrays, ',');
    add("2");
    expect_text("{\"2\"}");
}

Test(pgarray, binary)
{
    static const uint8_t seven[] = {0, 0, 0, 7};
    static const uint8_t wanted[] = {
        0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 23, 0,    0,    0,    2,
        0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 7,  0xff, 0xff, 0xff, 0xff,
    };
    const pen_value number = {.data = seven, .len = sizeof(seven), .kind = PEN_VALUE_BINARY};
    const pen_value null = {.kind = PEN_VALUE_NULL};
    size_t offset;
    size_t len;
    pen_arrays_begin_binary(&arrays, 23);
    pen_arrays_add(&arrays, &number);
    pen_arrays_add(&arrays, &null);
    pen_arrays_end(&arrays, &offset, &len);
    cr_assert_arr_eq(arrays.data + offset, wanted, sizeof(wanted));
    cr_assert_eq(len, sizeof(wanted));
    /* Without a NULL it says so: the next array does not inherit it. */
    pen_arrays_begin_binary(&arrays, 23);
    pen_arrays_add(&arrays, &number);
    pen_arrays_end(&arrays, &offset, &len);
    cr_assert_eq(arrays.data[offset + 7], 0);
    cr_assert_eq(arrays.data[offset + 15], 1);
}
