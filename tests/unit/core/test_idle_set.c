#include "core/idle_set.h"

#include <criterion/criterion.h>

Test(idle_set, is_full_with_all_and_only_then)
{
    static const unsigned counts[] = {1, 2, 63, 64, 65, 130, PEN_IDLE_MAX};
    for (size_t i = 0; i < PEN_COUNTOF(counts); i++) {
        pen_idle_set set;
        pen_idle_init(&set);
        for (unsigned member = counts[i]; member-- > 0;) {
            cr_assert_not(pen_idle_is_full(&set, counts[i]));
            pen_idle_add(&set, member);
        }
        cr_assert(pen_idle_is_full(&set, counts[i]), "of %u", counts[i]);
        cr_assert_eq(pen_idle_pick(&set, counts[i]), 0);
        cr_assert_not(pen_idle_is_full(&set, counts[i]));
    }
}
