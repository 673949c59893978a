/* Order statistics: known values, and the coverage of the interval by simulation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/random.h"
#include "base/statistics.h"

#include <math.h>

static void sorts(void **state)
{
    (void)state;
    double values[] = {3.0, -1.0, 2.0, INFINITY, -0.5, 3.0};
    attn_statistics_sort(values, 6);
    const double expected[] = {-1.0, -0.5, 2.0, 3.0, 3.0, INFINITY};
    for (size_t i = 0; i < 6; i++) assert_true(values[i] == expected[i]);
    attn_statistics_sort(NULL, 0);
}

static void medians(void **state)
{
    (void)state;
    const double values[] = {1.0, 2.0, 4.0, 8.0};
    assert_true(isnan(attn_statistics_median(values, 0)));
    assert_true(attn_statistics_median(values, 1) == 1.0);
    assert_true(attn_statistics_median(values, 2) == 1.5);
    assert_true(attn_statistics_median(values, 3) == 2.0);
    assert_true(attn_statistics_median(values, 4) == 3.0);
}

static void quantiles_by_nearest_rank(void **state)
{
    (void)state;
    double values[100];
    for (size_t i = 0; i < 100; i++) values[i] = (double)(i + 1);
    assert_true(attn_statistics_quantile(values, 100, 0.0) == 1.0);
    assert_true(attn_statistics_quantile(values, 100, 0.5) == 50.0);
    assert_true(attn_statistics_quantile(values, 100, 0.9) == 90.0);
    assert_true(attn_statistics_quantile(values, 100, 0.99) == 99.0);
    assert_true(attn_statistics_quantile(values, 100, 0.991) == 100.0);
    assert_true(attn_statistics_quantile(values, 100, 1.0) == 100.0);
    assert_true(attn_statistics_quantile(values, 100, 0.07) == 7.0); /* 0.07 * 100 > 7 in binary */
    assert_true(attn_statistics_quantile(values, 10, 0.99) == 10.0); /* few values: the maximum */
    assert_true(attn_statistics_quantile(values, 1, 0.5) == 1.0);
    assert_true(isnan(attn_statistics_quantile(values, 0, 0.5)));
    assert_true(isnan(attn_statistics_quantile(values, 10, 1.5)));
    assert_true(isnan(attn_statistics_quantile(values, 10, (double)NAN)));
}

static void interval_ranks(void **state)
{
    (void)state;
    static const struct {
        size_t n, rank;
    } known[] = {{6, 1}, {7, 1}, {8, 1}, {9, 2}, {10, 2}, {12, 3}, {20, 6}, {30, 10}, {100, 40}};
    double values[100];
    for (size_t i = 0; i < 100; i++) values[i] = (double)(i + 1);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const size_t n = known[i].n;
        const attn_rank_interval interval = attn_statistics_median_interval(values, n);
        assert_true(interval.is_known);
        assert_int_equal(interval.rank, known[i].rank);
        assert_true(interval.low == (double)interval.rank);
        assert_true(interval.high == (double)(n + 1 - interval.rank));
        assert_true(interval.coverage >= 0.95);
    }
    assert_true(fabs(attn_statistics_median_interval(values, 6).coverage - (1.0 - 2.0 / 64.0)) <
                1e-12);
}

static void no_interval_below_six(void **state)
{
    (void)state;
    const double values[] = {1.0, 2.0, 3.0, 4.0, 5.0};
    for (size_t n = 0; n <= 5; n++) {
        const attn_rank_interval interval = attn_statistics_median_interval(values, n);
        assert_false(interval.is_known);
        assert_true(isnan(interval.low) && isnan(interval.high));
    }
}

static void interval_of_many(void **state)
{
    (void)state;
    static double values[20000];
    for (size_t i = 0; i < 20000; i++) values[i] = (double)i;
    const attn_rank_interval interval = attn_statistics_median_interval(values, 20000);
    /* n/2 - 0.98 sqrt(n), the normal approximation */
    assert_true(interval.is_known);
    assert_in_range(interval.rank, 9859, 9863);
    assert_true(interval.coverage >= 0.95 && interval.coverage < 0.953);
}

/* Skewed draws (log-normal, median 1): the share of intervals that hold the median must be the
 * stated coverage, within five standard errors. */
static void coverage_by_simulation(void **state)
{
    (void)state;
    enum { TRIALS = 20000 };
    static const size_t sizes[] = {6, 11, 20};
    for (size_t s = 0; s < 3; s++) {
        const size_t n = sizes[s];
        size_t covered = 0;
        double stated = 0.0;
        for (size_t trial = 0; trial < TRIALS; trial++) {
            double values[20];
            for (size_t i = 0; i < n; i++)
                values[i] = exp(attn_random_normal(
                    7, attn_random_stream(ATTN_RANDOM_TEST, (uint32_t)s), trial * 20 + i));
            attn_statistics_sort(values, n);
            const attn_rank_interval interval = attn_statistics_median_interval(values, n);
            covered += interval.low <= 1.0 && 1.0 <= interval.high;
            stated = interval.coverage;
        }
        const double share = (double)covered / TRIALS;
        const double error = sqrt(stated * (1.0 - stated) / TRIALS);
        assert_true(fabs(share - stated) < 5.0 * error);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sorts),
        cmocka_unit_test(medians),
        cmocka_unit_test(quantiles_by_nearest_rank),
        cmocka_unit_test(interval_ranks),
        cmocka_unit_test(no_interval_below_six),
        cmocka_unit_test(interval_of_many),
        cmocka_unit_test(coverage_by_simulation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
