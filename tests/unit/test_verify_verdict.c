/* Comparisons and verdicts at their edges: NaN, infinities, zeros, and merging. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "verify/compare.h"
#include "verify/verdict.h"

#include <math.h>
#include <string.h>

static void test_relative_error(void **state)
{
    (void)state;
    const double want[] = {3.0, 4.0}, near[] = {3.0, 4.5}, zero[] = {0.0, 0.0};
    const float single[] = {3.0f, 4.5f};
    assert_true(attn_norm(2, attn_reals(want)) == 5.0);
    assert_true(attn_relative_error(2, attn_reals(near), attn_reals(want), 0.0) == 0.1);
    assert_true(attn_relative_error(2, attn_singles(single), attn_reals(want), 0.0) == 0.1);
    /* the floor stands in for a small norm, and only for a smaller one */
    assert_true(attn_relative_error(2, attn_reals(near), attn_reals(want), 50.0) == 0.01);
    assert_true(attn_relative_error(2, attn_reals(near), attn_reals(want), 1.0) == 0.1);
    assert_true(attn_relative_error(2, attn_reals(zero), attn_reals(zero), 0.0) == 0.0);
    assert_true(isinf(attn_relative_error(2, attn_reals(want), attn_reals(zero), 0.0)));
    assert_true(attn_relative_error(0, attn_reals(NULL), attn_reals(NULL), 0.0) == 0.0);
    /* neither NaN nor infinity is within any tolerance, not even where both have it */
    const double odd[] = {NAN, INFINITY};
    for (size_t i = 0; i < 2; i++) {
        assert_false(attn_relative_error(1, attn_reals(odd + i), attn_reals(want), 0.0) <= 1e300);
        assert_false(attn_relative_error(1, attn_reals(want), attn_reals(odd + i), 0.0) <= 1e300);
        assert_false(attn_relative_error(1, attn_reals(odd + i), attn_reals(odd + i), 0.0) <=
                     1e300);
    }
}

static void test_verdicts(void **state)
{
    (void)state;
    const float a[] = {1.0f, 2.0f}, b[] = {1.0f, 2.000001f}, c[] = {1.0f, 2.1f}, n[] = {1.0f, NAN};
    attn_verdict v = {0};
    attn_verdict_bits(&v, 2, a, a, "a");
    assert_int_equal(v.outcome, ATTN_OUTCOME_HOLDS);
    assert_true(v.is_exact);
    attn_verdict_same(&v, 2, b, a, ATTN_ROUNDING, "b");
    assert_int_equal(v.outcome, ATTN_OUTCOME_HOLDS);
    assert_false(v.is_exact);
    assert_true(v.error > 0.0 && v.error < v.tolerance);
    attn_verdict_same(&v, 2, c, a, ATTN_ROUNDING, "row %d", 7);
    assert_int_equal(v.outcome, ATTN_OUTCOME_FAILS);
    assert_string_equal(v.text, "row 7: error 4.47e-02, tolerance 4e-06");
    attn_verdict_same(&v, 2, b, a, ATTN_ROUNDING,
                      "later"); /* changes neither text nor the worst error */
    assert_string_equal(v.text, "row 7: error 4.47e-02, tolerance 4e-06");
    assert_true(v.error > 0.04);

    v = (attn_verdict){0};
    attn_verdict_bits(&v, 2, b, a, "y");
    assert_int_equal(v.outcome, ATTN_OUTCOME_FAILS);
    assert_string_equal(v.text, "y: bits differ, first at 1 of 2: 2.00000095, not 2");
    v = (attn_verdict){0};
    attn_verdict_error(&v, NAN, 1.0, "y");
    assert_int_equal(v.outcome, ATTN_OUTCOME_FAILS);
    attn_verdict_error(&v, 0.5, 1.0, "y");
    assert_true(isnan(v.error)); /* sticks */
    v = (attn_verdict){0};
    attn_verdict_same(&v, 2, n, n, ATTN_ROUNDING, "equal bits");
    assert_int_equal(v.outcome, ATTN_OUTCOME_HOLDS);
    attn_verdict_that(&v, false, "count %d", 3);
    assert_string_equal(v.text, "count 3");
}

static void test_merging(void **state)
{
    (void)state;
    attn_verdict causal = {0}, full = {0}, skipped = {0};
    attn_verdict_skip(&skipped, "bidirectional");
    attn_verdict_error(&causal, 1e-7, 2e-5, "y");
    attn_verdict_error(&full, 3e-5, 2e-5, "y");
    attn_verdict merged = causal;
    attn_verdict_merge(&merged, &skipped, "bidirectional form");
    assert_int_equal(merged.outcome, ATTN_OUTCOME_HOLDS);
    assert_true(merged.error == 1e-7);
    attn_verdict_merge(&merged, &full, "bidirectional form");
    assert_int_equal(merged.outcome, ATTN_OUTCOME_FAILS);
    assert_true(merged.error == 3e-5);
    assert_string_equal(merged.text, "bidirectional form: y: error 3.00e-05, tolerance 2e-05");
    merged = skipped;
    attn_verdict_merge(&merged, &full, "bidirectional form");
    assert_int_equal(merged.outcome, ATTN_OUTCOME_FAILS);

    /* nothing compared is no success */
    const attn_verdict unchecked = {0};
    merged = causal;
    attn_verdict_merge(&merged, &unchecked, "bidirectional form");
    assert_int_equal(merged.outcome, ATTN_OUTCOME_FAILS);
    attn_verification all = {0};
    assert_false(attn_verification_holds(&all));
    for (size_t i = 0; i < ATTN_PROPERTIES; i++) all.of[i] = i % 2 ? causal : skipped;
    assert_true(attn_verification_holds(&all));
    all.of[ATTN_PROPERTY_MEMORY] = full;
    assert_false(attn_verification_holds(&all));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_relative_error),
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_merging),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
