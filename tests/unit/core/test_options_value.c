#include "core/options_table.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

Test(options_value, sizes)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"0", 0},
        {"1", 1},
        {"7B", 7},
        {"64kB", 64 << 10},
        {"256MB", 256 << 20},
        {"1GB", 1 << 30},
        {"2TB", UINT64_C(2) << 40},
        {"0007kB", 7 << 10},
        {"18446744073709551615", UINT64_MAX},
        {"18446744073709551615B", UINT64_MAX},
        {"18014398509481983kB", UINT64_MAX - 1023},
        {"16777215TB", UINT64_C(16777215) << 40},
    };
    static const char *const bad[] = {
        "",
        " ",
        "kB",
        "1.5GB",
        "1,5GB",
        "-1",
        "+1",
        " 1",
        "1 ",
        "1 kB",
        "1KB",
        "1kb",
        "1Kb",
        "1mb",
        "1Mb",
        "1gB",
        "1tb",
        "1b",
        "1k",
        "1M",
        "1PB",
        "1kBx",
        "1MBMB",
        "0x10",
        "1e3",
        "18446744073709551616",
        "99999999999999999999999",
        "18014398509481984kB",
        "16777216TB",
    };
    uint64_t bytes;
    for (size_t i = 0; i < PEN_COUNTOF(good); i++) {
        bytes = 42;
        cr_expect(pen_size_parse(good[i].text, &bytes), "%s", good[i].text);
        cr_expect_eq(bytes, good[i].bytes, "%s", good[i].text);
    }
    for (size_t i = 0; i < PEN_COUNTOF(bad); i++) {
        bytes = 42;
        cr_expect_not(pen_size_parse(bad[i], &bytes), "%s", bad[i]);
        cr_expect_eq(bytes, 42, "%s", bad[i]);
    }
}

/* Each row can be read from its own preset, shown, and found again by its flag and variable. */
Test(options_value, table_is_sound)
{
    for (int row = 0; row < PEN_OPTION_ROWS; row++) {
        const pen_option_row *it = &pen_option_rows[row];
        char name[PEN_OPTION_ENV_SIZE];
        pen_option_reader reader;
        pen_options options;
        pen_error err;
        cr_expect_eq(pen_option_find(it->flag, strlen(it->flag)), row, "%s", it->flag);
        cr_expect_str_eq(pen_option_nearest(it->flag), it->flag);
        cr_expect_lt(strlen(pen_option_env_name(row, name)), sizeof(name) - 1);
        cr_expect_eq(it->value == NULL, it->type == PEN_OPTION_SWITCH, "%s", it->flag);
        cr_expect_eq(it->help[strlen(it->help) - 1], '.', "%s", it->flag);
        pen_option_reader_init(&reader, &options);
        if (it->preset != NULL) {
            cr_assert(pen_option_set(&reader, row, PEN_LEVEL_DEFAULT, it->preset, "default", &err),
                      "%s", err.text);
            char *shown = pen_option_show(&options, row);
            cr_expect_str_eq(shown, it->preset);
            free(shown);
        }
        pen_options_deinit(&options);
    }
    char name[PEN_OPTION_ENV_SIZE];
    cr_expect_str_eq(pen_option_env_name(PEN_ROW_stop_when_caught_up, name),
                     "PENSTOCK_STOP_WHEN_CAUGHT_UP");
    cr_expect_eq(pen_option_find("sourc", 5), -1);
    cr_expect_eq(pen_option_find("sources", 7), -1);
    cr_expect_eq(pen_option_find("source=x", 6), PEN_ROW_source);
}

Test(options_value, sizes_are_shown_in_the_largest_unit)
{
    static const struct {
        uint64_t bytes;
        const char *text;
    } cases[] = {{1, "1B"},
                 {1023, "1023B"},
                 {1024, "1kB"},
                 {1025, "1025B"},
                 {1536 << 10, "1536kB"},
                 {UINT64_C(3) << 40, "3TB"},
                 {UINT64_C(1) << 63, "8388608TB"},
                 {UINT64_MAX, "18446744073709551615B"},
                 {0, "0B"}};
    for (size_t i = 0; i < PEN_COUNTOF(cases); i++) {
        pen_options options = {.memory = cases[i].bytes};
        char *shown = pen_option_show(&options, PEN_ROW_memory);
        cr_expect_str_eq(shown, cases[i].text);
        free(shown);
    }
}

/* ---- times ---- */

Test(options_value, reads_durations)
{
    static const struct {
        const char *text;
        uint64_t ns;
    } good[] = {{"0", 0},
                {"0s", 0},
                {"1ns", 1},
                {"250ns", 250},
                {"7.5us", 7500},
                {"0.001us", 1},
                {"20ms", 20000000},
                {"1s", 1000000000},
                {"1.000000001s", 1000000001},
                {"1.50us", 1500},
                {"18446744073s", UINT64_C(18446744073000000000)}};
    for (size_t i = 0; i < PEN_COUNTOF(good); i++) {
        uint64_t ns = 77;
        cr_expect(pen_duration_parse(good[i].text, &ns), "%s", good[i].text);
        cr_expect_eq(ns, good[i].ns, "%s: %lu", good[i].text, ns);
    }
    static const char *const bad[] = {"",     "1",    "us",           "1 us",     "-1us",
                                      "1.us", ".5us", "1.5ns",        "1.0001us", "1US",
                                      "1usx", "0.5",  "18446744074s", "1e3us"};
    for (size_t i = 0; i < PEN_COUNTOF(bad); i++) {
        uint64_t ns;
        cr_expect_not(pen_duration_parse(bad[i], &ns), "%s", bad[i]);
    }
}
