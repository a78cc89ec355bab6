/* Random snapshots against a plain model, at every place of the circle of xids. */
#include "core/xid_snapshot.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void parse(pen_xid_snapshot *snapshot, const char *text)
{
    cr_assert(pen_xid_snapshot_parse(snapshot, text), "%s", text);
}

Test(xid_snapshot, sees_what_has_ended)
{
    pen_xid_snapshot snapshot;
    parse(&snapshot, "100:110:101,105");
    cr_expect(pen_xid_snapshot_sees(&snapshot, 99));
    cr_expect(pen_xid_snapshot_sees(&snapshot, 3));
    cr_expect(pen_xid_snapshot_sees(&snapshot, 100));
    cr_expect_not(pen_xid_snapshot_sees(&snapshot, 101));
    cr_expect(pen_xid_snapshot_sees(&snapshot, 104));
    cr_expect_not(pen_xid_snapshot_sees(&snapshot, 105));
    cr_expect(pen_xid_snapshot_sees(&snapshot, 109));
    cr_expect_not(pen_xid_snapshot_sees(&snapshot, 110));
    cr_expect_not(pen_xid_snapshot_sees(&snapshot, 5000));
    pen_xid_snapshot_deinit(&snapshot);
}

Test(xid_snapshot, knows_only_the_lower_half_of_an_xid)
{
    pen_xid_snapshot snapshot;
    /* 2^32 + 5, with 2^32 - 2 still in progress */
    parse(&snapshot, "4294967294:4294967301:4294967294,4294967298");
    cr_expect_not(pen_xid_snapshot_sees(&snapshot, 4294967294U));
    cr_expect(pen_xid_snapshot_sees(&snapshot, 4294967295U));
    cr_expect(pen_xid_snapshot_sees(&snapshot, 4294967290U));
    cr_expect_not(pen_xid_snapshot_sees(&snapshot, 2));
    cr_expect(pen_xid_snapshot_sees(&snapshot, 4));
    cr_expect_not(pen_xid_snapshot_sees(&snapshot, 5));
    cr_expect_not(pen_xid_snapshot_sees(&snapshot, 1000));
    pen_xid_snapshot_deinit(&snapshot);
}

Test(xid_snapshot, refuses_what_is_none)
{
    static const char *const wrong[] = {
        "",      "1",     "1:2",   "1:2:x", "2:1:", "1:5:3,", "1:5:3,2", "1:5:3,3",
        "1:5:5", "5:9:4", "-1:2:", "1:2: ", ":2:",  "1::",    "a:b:c"};
    for (size_t i = 0; i < PEN_COUNTOF(wrong); i++) {
        pen_xid_snapshot snapshot;
        cr_expect_not(pen_xid_snapshot_parse(&snapshot, wrong[i]), "%s", wrong[i]);
        pen_xid_snapshot_deinit(&snapshot);
    }
}

static uint64_t random_state = 88172645463325252U;

static uint64_t pick(uint64_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % below;
}

Test(xid_snapshot, agrees_with_a_plain_list)
{
    for (int turn = 0; turn < 2000; turn++) {
        uint64_t xmin = (turn % 3 == 0 ? UINT64_C(0xFFFFFFF0) : 1000) + pick(64);
        uint64_t xmax = xmin + pick(40);
        bool running[64] = {false};
        char text[1024];
        int len = snprintf(text, sizeof(text), "%" PRIu64 ":%" PRIu64 ":", xmin, xmax);
        const char *comma = "";
        for (uint64_t xid = xmin; xid < xmax; xid++) {
            if (pick(3) == 0) {
                running[xid - xmin] = true;
                len += snprintf(text + len, sizeof(text) - (size_t)len, "%s%" PRIu64, comma, xid);
                comma = ",";
            }
        }
        pen_xid_snapshot snapshot;
        parse(&snapshot, text);
        for (uint64_t xid = xmin - 50; xid < xmax + 50; xid++) {
            bool sees = xid < xmin || (xid < xmax && !running[xid - xmin]);
            cr_assert_eq(pen_xid_snapshot_sees(&snapshot, (uint32_t)xid), sees, "%s and %" PRIu64,
                         text, xid);
        }
        pen_xid_snapshot_deinit(&snapshot);
    }
}
