#include "core/behind.h"

#include <criterion/criterion.h>

/* What is said of a transaction that the source sends so long after its commit. */
static bool judge(pen_behind *behind, int64_t late_us)
{
    const pen_pgtime committed = 1000 * 1000 * 1000;
    behind->clock = committed + late_us;
    pen_behind_judge(behind, committed);
    return behind->far;
}

Test(behind, only_a_source_that_is_far_behind_is)
{
    pen_behind behind = {0};
    cr_assert_not(behind.far);
    cr_assert_not(judge(&behind, 0));
    cr_assert_not(judge(&behind, 20 * 1000));
    cr_assert_not(judge(&behind, PEN_BEHIND_FAR_US - 1));
    cr_assert(judge(&behind, PEN_BEHIND_FAR_US));
    cr_assert(judge(&behind, 3600 * INT64_C(1000000)));
}

Test(behind, it_does_not_change_its_mind_with_each_transaction)
{
    pen_behind behind = {0};
    cr_assert(judge(&behind, PEN_BEHIND_FAR_US));
    cr_assert(judge(&behind, PEN_BEHIND_FAR_US - 1));
    cr_assert(judge(&behind, PEN_BEHIND_NEAR_US));
    cr_assert_not(judge(&behind, PEN_BEHIND_NEAR_US - 1));
    cr_assert_not(judge(&behind, PEN_BEHIND_NEAR_US));
    cr_assert_not(judge(&behind, PEN_BEHIND_FAR_US - 1));
}

Test(behind, times_that_cannot_be_are_not_behind)
{
    pen_behind behind = {0};
    cr_assert_not(judge(&behind, -5)); /* the source's clock was set back */
    behind = (pen_behind){.clock = INT64_MAX, .far = true};
    pen_behind_judge(&behind, INT64_MIN);
    cr_assert_not(behind.far);
    behind.clock = INT64_MIN;
    pen_behind_judge(&behind, INT64_MAX);
    cr_assert_not(behind.far);
}
