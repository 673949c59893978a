/* Crossovers: by interpolation in logarithms, with the tenths of the ratios as bounds, and what
 * is said when there is none. */
#include "experiment/bench_core.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { LENGTHS = 4 };

static attn_bench_crossover find(const double medians[LENGTHS], double spread)
{
    static attn_bench_row rows[LENGTHS];
    const attn_bench_row *list[LENGTHS];
    for (size_t i = 0; i < LENGTHS; i++) {
        rows[i] = (attn_bench_row){.variant = 1,
                                   .length = (size_t)256 << i,
                                   .ratio = {medians[i], medians[i] / spread, medians[i] * spread}};
        list[i] = &rows[i];
    }
    return attn_bench_find_crossover(list, LENGTHS);
}

static void test_gains_with_length(void **state)
{
    (void)state;
    const attn_bench_crossover c = find((const double[]){4.0, 2.0, 0.5, 0.25}, 1.0);
    assert_true(c.is_known && c.is_faster_after);
    assert_int_equal(c.variant, 1);
    assert_true(fabs(c.length - 512.0 * sqrt(2.0)) < 1e-6); /* halfway in logarithms */
    assert_true(fabs(c.low - c.length) < 1e-6 && fabs(c.high - c.length) < 1e-6);
}

static void test_bounds(void **state)
{
    (void)state;
    const attn_bench_crossover c = find((const double[]){4.0, 2.0, 0.5, 0.25}, 1.5);
    assert_true(c.low > 512.0 && c.low < c.length && c.length < c.high && c.high < 1024.0);
    /* the same seen from the other variant */
    const attn_bench_crossover turned = find((const double[]){0.25, 0.5, 2.0, 4.0}, 1.5);
    assert_true(turned.is_known && !turned.is_faster_after);
    assert_true(fabs(turned.length - c.length) < 1e-6);
    assert_true(fabs(turned.low - c.low) < 1e-6 && fabs(turned.high - c.high) < 1e-6);
}

static void test_open_bounds(void **state)
{
    (void)state;
    const attn_bench_crossover c = find((const double[]){1.2, 1.1, 0.95, 0.9}, 1.3);
    assert_true(c.is_known && c.is_faster_after);
    assert_true(c.low == 0.0 && isinf(c.high));
}

static void test_none(void **state)
{
    (void)state;
    const attn_bench_crossover always = find((const double[]){0.9, 0.8, 0.5, 0.4}, 1.1);
    assert_true(!always.is_known && always.is_faster_after);
    const attn_bench_crossover never = find((const double[]){4.0, 2.0, 1.5, 1.2}, 1.1);
    assert_true(!never.is_known && !never.is_faster_after);
}

/* Of several crossings the last one counts: from there on the order stays. */
static void test_last_of_several(void **state)
{
    (void)state;
    const attn_bench_crossover c = find((const double[]){0.5, 2.0, 2.0, 0.5}, 1.0);
    assert_true(c.is_known && c.is_faster_after);
    assert_true(c.length > 1024.0 && c.length < 2048.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gains_with_length), cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_open_bounds),       cmocka_unit_test(test_none),
        cmocka_unit_test(test_last_of_several),
    };
    return cmocka_run_group_tests_name("crossovers", tests, NULL, NULL);
}
