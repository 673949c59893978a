/* Paired comparison: exact ranks, A/A pairs that must not be told apart, real differences that
 * must, and the words that are withheld. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/paired.h"
#include "base/random.h"
#include "base/statistics.h"

#include <math.h>

enum { SIMULATIONS = 2000, ROUNDS_MOST = 32 };

static double normal(uint64_t simulation, uint64_t which)
{
    return attn_random_normal(5, attn_random_stream(ATTN_RANDOM_TEST, (uint32_t)simulation), which);
}

static double uniform(uint64_t simulation, uint64_t which)
{
    return attn_random_uniform(6, attn_random_stream(ATTN_RANDOM_TEST, (uint32_t)simulation),
                               which);
}

/* Two series of one and the same thing, taken in turns as the plan's square orders them. */
typedef enum noise { PLAIN, SKEWED, TIED, DRIFTING, STEPPING } noise;

static double draw(noise kind, uint64_t simulation, size_t place, size_t n_places)
{
    const double share = (double)place / (double)n_places;
    switch (kind) {
    case SKEWED: /* a floor, and now and then something in the way */
        return 1.0 - 0.05 * log(1.0 - uniform(simulation, place)) +
               (uniform(simulation, 500 + place) < 0.1 ? 0.4 : 0.0);
    case TIED: /* a clock of one percent */
        return round(100.0 * (1.0 + 0.01 * normal(simulation, place))) / 100.0;
    case DRIFTING: /* the machine warms up by a tenth, and the noise grows with it */
        return (1.0 + 0.1 * share) * exp((0.01 + 0.03 * share) * normal(simulation, place));
    case STEPPING: /* a neighbour arrives halfway */
        return exp(0.01 * normal(simulation, place)) * (share < 0.5 ? 1.0 : 1.3);
    case PLAIN:
    default:
        return exp(0.02 * normal(simulation, place));
    }
}

/* How many of 2000 comparisons claim a difference; b is `gain` times as much as a. */
static size_t count_claims(noise kind, size_t n, double gain, attn_interval_kind interval,
                           size_t simulations)
{
    size_t n_claims = 0;
    for (uint64_t s = 0; s < simulations; s++) {
        double a[ROUNDS_MOST], b[ROUNDS_MOST];
        for (size_t round = 0; round < n; round++) {
            const size_t first = 2 * round; /* AB BA AB BA */
            a[round] = draw(kind, s, first + (round % 2 ? 1 : 0), 2 * n);
            b[round] = gain * draw(kind, s, first + (round % 2 ? 0 : 1), 2 * n);
        }
        const attn_paired_options options = {.kind = interval, .seed = s};
        const attn_paired pair = attn_paired_compare(a, b, n, &options);
        n_claims += pair.verdict == ATTN_VERDICT_LOWER || pair.verdict == ATTN_VERDICT_HIGHER;
    }
    return n_claims;
}

static void one_thing_is_seldom_told_apart_from_itself(void **state)
{
    (void)state;
    static const size_t rounds[] = {6, 7, 9, 12, 17, 25};
    size_t n_claims = 0, n = 0;
    for (int kind = PLAIN; kind <= STEPPING; kind++)
        for (size_t r = 0; r < sizeof rounds / sizeof *rounds; r++) {
            const size_t claims =
                count_claims((noise)kind, rounds[r], 1.0, ATTN_INTERVAL_SIGN, SIMULATIONS);
            if (claims > SIMULATIONS / 20)
                fail_msg("noise %d, %zu rounds: %zu of %d", kind, rounds[r], claims, SIMULATIONS);
            n_claims += claims;
            n += SIMULATIONS;
        }
    print_message("%zu of %zu A/A pairs were told apart\n", n_claims, n);
    assert_true(n_claims > n / 200); /* a test that never speaks would pass too */
}

static void differences_are_found(void **state)
{
    (void)state;
    /* Twice the spread of a pair, in 12 rounds. */
    assert_true(count_claims(PLAIN, 12, 1.06, ATTN_INTERVAL_SIGN, 500) > 450);
    assert_true(count_claims(DRIFTING, 12, 1.10, ATTN_INTERVAL_SIGN, 500) > 450);
    assert_true(count_claims(STEPPING, 12, 1.06, ATTN_INTERVAL_SIGN, 500) > 400);
}

static void the_bootstrap_is_seeded_and_near_its_level(void **state)
{
    (void)state;
    double a[20], b[20];
    for (size_t i = 0; i < 20; i++) {
        a[i] = draw(SKEWED, 1, i, 40);
        b[i] = 1.2 * draw(SKEWED, 2, i, 40);
    }
    attn_paired_options options = {.kind = ATTN_INTERVAL_BOOTSTRAP, .seed = 4};
    const attn_paired one = attn_paired_compare(a, b, 20, &options);
    const attn_paired two = attn_paired_compare(a, b, 20, &options);
    assert_true(one.low == two.low && one.high == two.high);
    assert_true(one.low < one.ratio && one.ratio < one.high);
    assert_int_equal(one.verdict, ATTN_VERDICT_LOWER);
    const size_t claims = count_claims(PLAIN, 20, 1.0, ATTN_INTERVAL_BOOTSTRAP, 100);
    assert_true(claims <= 14); /* 5 expected, 3 standard errors and its known optimism */
}

static void ranks_are_exact(void **state)
{
    (void)state;
    double a[ROUNDS_MOST], b[ROUNDS_MOST];
    for (size_t i = 0; i < ROUNDS_MOST; i++) {
        a[i] = exp(0.01 * (double)(i + 1));
        b[i] = 1.0;
    }
    static const struct {
        size_t n, rank;
    } cases[] = {{6, 1}, {8, 1}, {10, 2}, {12, 3}, {20, 6}, {30, 10}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const attn_paired pair = attn_paired_compare(a, b, cases[c].n, &(attn_paired_options){0});
        assert_true(fabs(log(pair.low) - 0.01 * (double)cases[c].rank) < 1e-12);
        assert_true(fabs(log(pair.high) - 0.01 * (double)(cases[c].n + 1 - cases[c].rank)) < 1e-12);
        assert_int_equal(pair.verdict, ATTN_VERDICT_HIGHER);
    }
    /* Five comparisons at once need eight rounds, since 2 / 2^7 is above 0.05 / 5. */
    const attn_paired_options five = {.comparisons = 5};
    assert_int_equal(attn_paired_compare(a, b, 7, &five).verdict, ATTN_VERDICT_TOO_FEW);
    assert_int_equal(attn_paired_compare(a, b, 8, &five).verdict, ATTN_VERDICT_HIGHER);
}

static void few_pairs_say_nothing(void **state)
{
    (void)state;
    const double a[] = {1, 1.01, 1.02, 0.99, 1, 1.01}, b[] = {2, 2.01, 2, 1.99, 2.02, 2.03};
    const attn_paired_options options = {0};
    for (size_t n = 0; n < 6; n++) {
        const attn_paired pair = attn_paired_compare(a, b, n, &options);
        assert_int_equal(pair.verdict, ATTN_VERDICT_TOO_FEW);
        assert_true(isnan(pair.low) && isnan(pair.high));
    }
    assert_int_equal(attn_paired_compare(a, b, 6, &options).verdict, ATTN_VERDICT_LOWER);
    /* What is no positive number is no pair. */
    const double odd[] = {1, NAN, 1.02, -1, 0, INFINITY};
    assert_int_equal(attn_paired_compare(odd, b, 6, &options).n, 2);
}

static void the_noise_floor_withholds(void **state)
{
    (void)state;
    double a[8], b[8], again[8];
    for (size_t i = 0; i < 8; i++) {
        b[i] = 1.0;
        a[i] = 1.01 + 0.001 * (double)i;
        again[i] = i % 2 ? 1.03 : 0.98;
    }
    const attn_paired twins = attn_paired_compare(again, b, 8, &(attn_paired_options){0});
    const double floor = attn_paired_floor(&twins);
    assert_true(fabs(floor - log(1.03)) < 1e-12);
    assert_int_equal(twins.verdict, ATTN_VERDICT_NOT_RESOLVED);
    assert_int_equal(attn_paired_compare(a, b, 8, &(attn_paired_options){0}).verdict,
                     ATTN_VERDICT_HIGHER);
    assert_int_equal(attn_paired_compare(a, b, 8, &(attn_paired_options){.floor = floor}).verdict,
                     ATTN_VERDICT_NOT_RESOLVED);
}

static void rounds_that_are_needed(void **state)
{
    (void)state;
    assert_int_equal(attn_paired_rounds_needed(0.0001, 0.01), 6);
    assert_int_equal(attn_paired_rounds_needed(NAN, 0.01), 0);
    assert_in_range(attn_paired_rounds_needed(0.05, 0.01), 280, 340);
    size_t last = 0;
    for (double spread = 0.001; spread < 0.2; spread *= 1.3) {
        const size_t n = attn_paired_rounds_needed(spread, 0.01);
        assert_true(n >= last);
        last = n;
    }
    /* The promise: four of five such runs tell the difference. */
    static const double differences[] = {0.03, 0.04, 0.06};
    for (size_t i = 0; i < 3; i++) {
        const size_t n = attn_paired_rounds_needed(0.02 * sqrt(2.0), differences[i]);
        assert_true(n <= ROUNDS_MOST);
        const size_t told = count_claims(PLAIN, n, 1.0 + differences[i], ATTN_INTERVAL_SIGN, 1000);
        print_message("%.0f %%: %zu rounds, told apart in %zu of 1000\n", 100.0 * differences[i], n,
                      told);
        assert_in_range(told, 760, 960);
    }
}

static void exact_counts(void **state)
{
    (void)state;
    const double a[] = {3, 3, 3}, b[] = {2, 2, 2};
    const attn_paired pair = attn_paired_compare(a, b, 3, &(attn_paired_options){0});
    assert_true(pair.is_exact && fabs(pair.ratio - 1.5) < 1e-12);
}

static void slopes(void **state)
{
    (void)state;
    const double rising[] = {10, 11, 12, 13, 14, 15}, flat[] = {5, 5, 5, 5};
    const attn_trend trend = attn_statistics_trend(rising, 6);
    assert_true(fabs(trend.rise - 5.0 / 12.5) < 1e-12 && trend.error < 1e-9);
    assert_true(attn_statistics_trend(flat, 4).rise == 0.0);
    assert_true(isnan(attn_statistics_trend(flat, 2).rise));
    const double noisy[] = {10, 12, 9, 11, 12, 10};
    const attn_trend none = attn_statistics_trend(noisy, 6);
    assert_true(fabs(none.rise) < 2.0 * none.error);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_thing_is_seldom_told_apart_from_itself),
        cmocka_unit_test(differences_are_found),
        cmocka_unit_test(the_bootstrap_is_seeded_and_near_its_level),
        cmocka_unit_test(ranks_are_exact),
        cmocka_unit_test(few_pairs_say_nothing),
        cmocka_unit_test(the_noise_floor_withholds),
        cmocka_unit_test(rounds_that_are_needed),
        cmocka_unit_test(exact_counts),
        cmocka_unit_test(slopes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
