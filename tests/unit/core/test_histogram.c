#include "core/histogram.h"

#include <criterion/criterion.h>

static pen_histogram hist;
static pen_histogram other;

static void setup(void)
{
    pen_histogram_init(&hist);
    pen_histogram_init(&other);
}

TestSuite(histogram, .init = setup);

/* The bucket's upper end for one value alone. */
static int64_t kept_as(int64_t value_us)
{
    pen_histogram_init(&hist);
    pen_histogram_record(&hist, value_us);
    return pen_histogram_percentile(&hist, 100);
}

Test(histogram, empty_gives_zero)
{
    cr_assert_eq(pen_histogram_count(&hist), 0U);
    cr_assert_eq(pen_histogram_percentile(&hist, 50), 0);
}

Test(histogram, small_values_are_exact)
{
    for (int64_t value = 0; value < 64; value++) {
        cr_assert_eq(kept_as(value), value);
    }
}

Test(histogram, error_is_bounded_and_never_downwards)
{
    for (unsigned exponent = 6; exponent < 44; exponent++) {
        int64_t power = INT64_C(1) << exponent;
        int64_t values[] = {power - 1, power, power + 1, power + power / 3, 2 * power - 1};
        for (size_t i = 0; i < PEN_COUNTOF(values); i++) {
            int64_t kept = kept_as(values[i]);
            cr_assert_geq(kept, values[i]);
            cr_assert_leq((double)(kept - values[i]), 0.032 * (double)values[i]);
        }
    }
}

Test(histogram, buckets_never_go_back)
{
    int64_t before = 0;
    for (int64_t value = 0; value < INT64_C(1) << 16; value++) {
        int64_t kept = kept_as(value);
        cr_assert_geq(kept, before);
        before = kept;
    }
}

Test(histogram, values_outside_are_counted_at_the_ends)
{
    int64_t largest = (INT64_C(1) << 44) - 1;
    cr_assert_eq(kept_as(-5), 0);
    cr_assert_eq(kept_as(INT64_MIN), 0);
    cr_assert_eq(kept_as(largest), largest);
    cr_assert_eq(kept_as(largest + 1), largest);
    cr_assert_eq(kept_as(INT64_MAX), largest);
}

Test(histogram, percentiles_of_one_to_sixty)
{
    for (int64_t value = 1; value <= 60; value++) {
        pen_histogram_record(&hist, value);
    }
    cr_assert_eq(pen_histogram_count(&hist), 60U);
    cr_assert_eq(pen_histogram_percentile(&hist, 50), 30);
    cr_assert_eq(pen_histogram_percentile(&hist, 51), 31);
    cr_assert_eq(pen_histogram_percentile(&hist, 5), 3);
    cr_assert_eq(pen_histogram_percentile(&hist, 0.001), 1);
    cr_assert_eq(pen_histogram_percentile(&hist, 100), 60);
}

Test(histogram, a_whole_rank_is_not_rounded_up)
{
    /* For each of these, percent * 1000 / 100 is a whole number in decimal. */
    for (int tenths = 1; tenths <= 1000; tenths++) {
        pen_histogram_init(&hist);
        for (int i = 0; i < 1000; i++) {
            pen_histogram_record(&hist, i < tenths ? 1 : 2);
        }
        cr_assert_eq(pen_histogram_percentile(&hist, tenths / 10.0), 1, "%d", tenths);
    }
}

Test(histogram, merge_adds_all_counts)
{
    for (int i = 0; i < 10; i++) {
        pen_histogram_record(&hist, 5);
        pen_histogram_record(&other, 5);
        pen_histogram_record(&other, 1000000);
    }
    pen_histogram_merge(&hist, &other);
    cr_assert_eq(pen_histogram_count(&hist), 30U);
    cr_assert_eq(pen_histogram_count(&other), 20U);
    cr_assert_eq(pen_histogram_percentile(&hist, 66), 5);
    cr_assert_geq(pen_histogram_percentile(&hist, 67), 1000000);
}

Test(histogram, counts_up_to_a_value_and_their_sum)
{
    const int64_t values[] = {0, 5, 5, 63, 1000, 1000000};
    double exact = 0;
    for (size_t i = 0; i < PEN_COUNTOF(values); i++) {
        pen_histogram_record(&hist, values[i]);
        exact += (double)values[i];
    }
    cr_assert_eq(pen_histogram_count_to(&hist, 0), 1);
    cr_assert_eq(pen_histogram_count_to(&hist, 4), 1);
    cr_assert_eq(pen_histogram_count_to(&hist, 5), 3);
    cr_assert_eq(pen_histogram_count_to(&hist, 63), 4);
    cr_assert_eq(pen_histogram_count_to(&hist, 1100), 5);
    cr_assert_eq(pen_histogram_count_to(&hist, INT64_MAX), 6);
    cr_assert_float_eq(pen_histogram_sum(&hist), exact, exact * 0.016);
    cr_assert_eq(pen_histogram_sum(&other), 0);
    pen_histogram_record(&other, 7);
    pen_histogram_record(&other, 7);
    cr_assert_eq(pen_histogram_sum(&other), 14, "small ones are exact");
}
