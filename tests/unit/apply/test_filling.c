#include "apply/filling.h"

#include <criterion/criterion.h>

static const pen_batch_limits limits = {.rows = 10000, .bytes = 4 << 20, .transactions = 2000};

static pen_filling make(void)
{
    pen_filling filling;
    pen_filling_init(&filling, &limits, PEN_BATCH_FILL_PERCENT, (uint64_t)512 << 20, 8);
    return filling;
}

/* A target whose rows take so long, and each batch two trips; until the batches are as they will
 * stay. */
static uint64_t settles_at(int64_t row_us, int64_t trip_us)
{
    pen_filling filling = make();
    for (int i = 0; i < 100; i++) {
        uint64_t rows = pen_filling_most(&filling).rows;
        pen_filling_learn(&filling, rows, (int64_t)rows * row_us + 2 * trip_us, 2, trip_us);
    }
    return pen_filling_most(&filling).rows;
}

Test(filling, begins_small_while_nothing_is_known)
{
    pen_filling filling = make();
    cr_assert_eq(pen_filling_most(&filling).rows, PEN_FILLING_FIRST_ROWS);
    cr_assert_eq(pen_filling_enough(&filling).rows, PEN_FILLING_FIRST_ROWS);
    cr_assert_eq(pen_filling_rows_in(&filling, 1000), 0);
    /* The other limits hold whatever is known. */
    cr_assert_eq(pen_filling_most(&filling).transactions, limits.transactions);
    cr_assert_eq(pen_filling_most(&filling).bytes, limits.bytes);
}

Test(filling, a_fast_target_gets_all_that_the_limits_allow)
{
    cr_assert_eq(settles_at(4, 100), limits.rows);
    pen_filling filling = make();
    pen_filling_learn(&filling, 1000, 5000, 2, 100);
    cr_assert_eq(pen_filling_most(&filling).rows, limits.rows);
    cr_assert_eq(pen_filling_enough(&filling).rows, limits.rows / 4);
    cr_assert_eq(pen_filling_enough(&filling).transactions, limits.transactions / 4);
    cr_assert_eq(pen_filling_enough(&filling).bytes, limits.bytes / 4);
    /* And up to here who is at work already may take it, before another one is woken. */
    cr_assert_eq(pen_filling_plenty(&filling).rows, limits.rows);
    cr_assert_eq(pen_filling_plenty(&filling).transactions, limits.transactions);
    cr_assert_eq(pen_filling_plenty(&filling).bytes, limits.bytes);
}

Test(filling, where_rows_take_long_all_are_woken_at_once)
{
    pen_filling filling = make();
    pen_filling_learn(&filling, 100, 100 * 1000, 1, 0);
    cr_assert_eq(pen_filling_plenty(&filling).rows, pen_filling_enough(&filling).rows);
    pen_filling_init(&filling, &limits, 25, 1 << 20, 32);
    pen_filling_learn(&filling, 100, 400, 1, 0);
    cr_assert_lt(pen_filling_plenty(&filling).bytes, (1 << 20) / 32);
}

Test(filling, a_slow_target_gets_batches_of_some_tenths_of_a_second)
{
    for (int64_t row_us = 50; row_us <= 5000; row_us *= 3) {
        uint64_t rows = settles_at(row_us, 100);
        int64_t takes_us = (int64_t)rows * row_us;
        cr_assert(takes_us > PEN_FILLING_AIM_US * 9 / 10 && takes_us <= PEN_FILLING_AIM_US,
                  "%d us a row: %d rows", (int)row_us, (int)rows);
    }
    cr_assert_eq(settles_at(1000000, 100), PEN_FILLING_LEAST_ROWS);
}

Test(filling, a_small_batch_of_fast_rows_is_quick)
{
    pen_filling filling = make();
    pen_batch batch = {.change_count = 1};
    cr_assert_not(pen_filling_is_quick(&filling, &batch)); /* nothing is known yet */
    pen_filling_learn(&filling, 100, 100 * 20 + 2 * 10000, 2, 10000);
    cr_assert(pen_filling_is_quick(&filling, &batch)); /* however far away */
    batch.change_count = PEN_FILLING_QUICK_US / 20 - 1;
    cr_assert(pen_filling_is_quick(&filling, &batch));
    batch.change_count = PEN_FILLING_QUICK_US / 20 + 1;
    cr_assert_not(pen_filling_is_quick(&filling, &batch));
    filling = make();
    pen_filling_learn(&filling, 100, 100, 1, 0);
    batch.change_count = PEN_FILLING_QUICK_ROWS;
    cr_assert(pen_filling_is_quick(&filling, &batch));
    batch.change_count++;
    cr_assert_not(pen_filling_is_quick(&filling, &batch));
    filling = make();
    pen_filling_learn(&filling, 1, 2 * (int64_t)PEN_FILLING_QUICK_US, 1, 0);
    batch.change_count = 1;
    cr_assert_not(pen_filling_is_quick(&filling, &batch));
}

Test(filling, the_way_to_the_target_is_not_taken_for_its_rows)
{
    cr_assert_eq(settles_at(4, 150 * 1000), limits.rows);
    uint64_t near = settles_at(1000, 0);
    cr_assert_eq(settles_at(1000, 150 * 1000), near);
    /* Less than the trips is not less than nothing. */
    pen_filling filling = make();
    pen_filling_learn(&filling, 100, 10, 2, 1000);
    cr_assert_eq(pen_filling_most(&filling).rows, limits.rows);
    pen_filling_learn(&filling, 0, 1000, 1, 10);
    cr_assert_eq(pen_filling_most(&filling).rows, limits.rows);
}

Test(filling, waits_for_larger_batches_where_each_commit_is_a_long_trip)
{
    pen_filling filling = make();
    pen_filling_learn(&filling, 1000, 25000, 2, 10000);
    cr_assert_eq(pen_filling_enough(&filling).rows, limits.rows);
    cr_assert_eq(pen_filling_enough(&filling).transactions, limits.transactions);
}

Test(filling, one_batch_that_was_held_up_changes_little_and_is_forgotten)
{
    pen_filling filling = make();
    for (int i = 0; i < 20; i++) {
        pen_filling_learn(&filling, 1000, 5000, 2, 100);
    }
    pen_filling_learn(&filling, 1000, 5 * 1000 * 1000, 2, 100);
    cr_assert_lt(pen_filling_most(&filling).rows, 1000);
    for (int i = 0; i < 20; i++) {
        pen_filling_learn(&filling, 100, 500, 2, 10);
    }
    cr_assert_eq(pen_filling_most(&filling).rows, limits.rows);
}

Test(filling, every_worker_can_have_a_batch_in_memory)
{
    pen_filling filling;
    pen_filling_init(&filling, &limits, PEN_BATCH_FILL_PERCENT, 16 << 20, 7);
    cr_assert_eq(pen_filling_enough(&filling).bytes, (16 << 20) / 8 / 8);
    const pen_batch_limits tiny = {.rows = 1, .bytes = 1, .transactions = 1};
    pen_filling_init(&filling, &tiny, PEN_BATCH_FILL_PERCENT, 0, 255);
    pen_filling_learn(&filling, 1, 10, 1, 1);
    cr_assert_eq(pen_filling_enough(&filling).rows, 1);
    cr_assert_eq(pen_filling_enough(&filling).bytes, 1);
    cr_assert_eq(pen_filling_enough(&filling).transactions, 1);
}
