#include "core/lsn.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

Test(lsn, parse)
{
    const struct {
        const char *text;
        pen_lsn lsn;
    } good[] = {
        {"0/0", 0},
        {"0/1", 1},
        {"16/B374D848", 0x16B374D848},
        {"16/b374d848", 0x16B374D848},
        {"1/0", 0x100000000},
        {"00000001/0000000A", 0x10000000A},
        {"FFFFFFFF/FFFFFFFF", UINT64_MAX},
    };
    for (size_t i = 0; i < PEN_COUNTOF(good); i++) {
        pen_lsn lsn = 77;
        cr_assert(pen_lsn_parse(good[i].text, &lsn), "%s", good[i].text);
        cr_assert_eq(lsn, good[i].lsn, "%s", good[i].text);
    }
}

Test(lsn, parse_refuses)
{
    const char *bad[] = {
        "",     "/",    "0",           "0/",          "/0",          "0/0/0", " 0/0",
        "0/0 ", "0/ 0", "0x1/0",       "G/0",         "0/G",         "-1/0",  "+1/0",
        "0\\0", "0//0", "000000001/0", "0/000000001", "1/100000000", "0/0\n", "0:0",
        "0/@",  "0/`",  "0/g",         "0/:",
    };
    for (size_t i = 0; i < PEN_COUNTOF(bad); i++) {
        pen_lsn lsn = 77;
        cr_assert_not(pen_lsn_parse(bad[i], &lsn), "\"%s\"", bad[i]);
        cr_assert_eq(lsn, 77, "\"%s\" left it alone", bad[i]);
    }
}

Test(lsn, format)
{
    char text[PEN_LSN_TEXT_SIZE];
    cr_assert_str_eq(pen_lsn_format(0, text), "0/0");
    cr_assert_str_eq(pen_lsn_format(0x16B374D848, text), "16/B374D848");
    cr_assert_str_eq(pen_lsn_format(0x10000000A, text), "1/A");
    cr_assert_eq(pen_lsn_format(UINT64_MAX, text), text);
    cr_assert_str_eq(text, "FFFFFFFF/FFFFFFFF");
}

Test(lsn, there_and_back)
{
    for (unsigned bit = 0; bit < 64; bit++) {
        pen_lsn lsn = (pen_lsn)1 << bit | bit;
        char text[PEN_LSN_TEXT_SIZE];
        char printed[32];
        pen_lsn back = 0;
        cr_assert(pen_lsn_parse(pen_lsn_format(lsn, text), &back));
        cr_assert_eq(back, lsn);
        snprintf(printed, sizeof(printed), PEN_LSN_FMT, PEN_LSN_ARGS(lsn));
        cr_assert_str_eq(printed, text);
    }
}

Test(lsn, pgtime_counts_from_2000)
{
    struct tm epoch = {.tm_year = 100, .tm_mday = 1};
    time_t epoch_s = timegm(&epoch);
    time_t before_s = time(NULL);
    pen_pgtime now = pen_pgtime_now();
    time_t after_s = time(NULL);
    /* time() may lag behind clock_gettime by a tick of the kernel's clock. */
    cr_assert_geq(now / 1000000, before_s - epoch_s);
    cr_assert_leq(now / 1000000, after_s - epoch_s + 1);
}

Test(lsn, pgtime_as_text)
{
    static const struct {
        pen_pgtime time;
        const char *text;
    } known[] = {
        {0, "2000-01-01T00:00:00.000000Z"},
        {-1, "1999-12-31T23:59:59.999999Z"},
        {-1000000, "1999-12-31T23:59:59.000000Z"},
        {823219200123456, "2026-02-01T00:00:00.123456Z"},
        {INT64_MAX, "294277-01-09T04:00:54.775807Z"},
        {INT64_MIN, "-290278-12-22T19:59:05.224192Z"},
    };
    for (size_t i = 0; i < PEN_COUNTOF(known); i++) {
        char text[PEN_PGTIME_TEXT_SIZE];
        cr_assert_str_eq(pen_pgtime_format(known[i].time, text), known[i].text);
    }
}
