/* Small linear least squares: exact systems, noise, priors, and systems that leave something open. */
#include "base/least_squares.h"
#include "base/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const double free_prior[ATTN_UNKNOWNS_MAX] = {INFINITY, INFINITY, INFINITY, INFINITY};

static void test_exact_system(void **state)
{
    (void)state;
    /* units that differ by 1e15 */
    const attn_equation equations[] = {{{2.0, 1e-12}, 2.0 * 3 + 5.0, 1.0},
                                       {{1.0, -1e-12}, 3 - 5.0, 1.0},
                                       {{0.5, 4e-12}, 1.5 + 20.0, 1.0}};
    attn_solution s;
    assert_true(attn_least_squares(2, 3, equations, free_prior, &s));
    assert_true(fabs(s.x[0] - 3.0) < 1e-9 && fabs(s.x[1] / 5e12 - 1.0) < 1e-9);
}

/* The deviations that come with the solution are those of repeated noise. */
static void test_deviations(void **state)
{
    (void)state;
    enum { TRIES = 400, EQUATIONS = 12 };
    const double truth[] = {2.0, -1.0, 0.5}, error = 0.3;
    double squares[3] = {0}, claimed[3] = {0};
    for (uint64_t try = 0; try < TRIES; try++) {
        attn_equation equations[EQUATIONS];
        float noise[EQUATIONS];
        attn_solution s;
        attn_random_fill_normal(try + 1, attn_random_stream(ATTN_RANDOM_TEST, 0), 1.0, EQUATIONS,
                                noise);
        for (size_t i = 0; i < EQUATIONS; i++) {
            const double x = (double)i / EQUATIONS;
            equations[i] = (attn_equation){.factor = {1.0, x, x * x},
                                           .value = truth[0] + truth[1] * x + truth[2] * x * x +
                                                    error * (double)noise[i],
                                           .error = error};
        }
        assert_true(attn_least_squares(3, EQUATIONS, equations, free_prior, &s));
        for (size_t k = 0; k < 3; k++) {
            squares[k] += (s.x[k] - truth[k]) * (s.x[k] - truth[k]);
            claimed[k] = s.deviation[k];
        }
    }
    for (size_t k = 0; k < 3; k++) {
        const double ratio = sqrt(squares[k] / TRIES) / claimed[k];
        if (!(ratio > 0.9 && ratio < 1.1)) fail_msg("unknown %zu: %g of its deviation", k, ratio);
    }
}

static void test_priors(void **state)
{
    (void)state;
    const attn_equation equations[] = {{{1.0, 1.0}, 2.0, 0.1}, {{1.0, 1.0}, 2.0, 0.1}};
    double prior[] = {INFINITY, INFINITY};
    attn_solution s;
    /* two unknowns that only appear together */
    assert_false(attn_least_squares(2, 2, equations, prior, &s));
    /* are told apart by what is expected of them: the wider prior takes more */
    prior[0] = 1.0;
    prior[1] = 3.0;
    assert_true(attn_least_squares(2, 2, equations, prior, &s));
    assert_true(fabs(s.x[1] / s.x[0] - 9.0) < 1e-9 && s.x[0] + s.x[1] < 2.0);
    /* a prior of 0 */
    prior[0] = 0.0;
    prior[1] = INFINITY;
    assert_true(attn_least_squares(2, 2, equations, prior, &s));
    assert_true(s.x[0] == 0.0 && s.deviation[0] == 0.0 && fabs(s.x[1] - 2.0) < 1e-12);
}

static void test_refusals(void **state)
{
    (void)state;
    const attn_equation nothing = {{0.0}, 1.0, 1.0}, endless = {{1.0}, INFINITY, 1.0},
                        unknown = {{NAN}, 1.0, 1.0};
    attn_solution s;
    assert_false(attn_least_squares(1, 1, &nothing, free_prior, &s));
    assert_false(attn_least_squares(1, 1, &endless, free_prior, &s));
    assert_false(attn_least_squares(1, 1, &unknown, free_prior, &s));
    assert_false(attn_least_squares(1, 0, NULL, free_prior, &s));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exact_system), cmocka_unit_test(test_deviations),
        cmocka_unit_test(test_priors), cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
