/* Philox against its published vectors, and what is drawn from it. */
#include "base/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* philox4x32, 10 rounds, of Random123's kat_vectors. Counter words 0 and 1 are the index, 2 and
 * 3 the stream; key words are the seed. */
static void known_answers(void **state)
{
    (void)state;
    static const struct {
        uint64_t seed, stream, index;
        uint32_t words[4];
    } cases[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822,
         0x0370734413198a2e,
         0x85a308d3243f6a88,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t words[4];
        attn_random_words(cases[i].seed, cases[i].stream, cases[i].index, words);
        assert_memory_equal(words, cases[i].words, sizeof words);
    }
}

static void streams_are_apart(void **state)
{
    (void)state;
    assert_true(attn_random_stream(ATTN_RANDOM_SHUFFLE, 7) == (UINT64_C(2) << 32 | 7));
    uint32_t a[4], b[4];
    attn_random_words(1, attn_random_stream(ATTN_RANDOM_SHUFFLE, 0), 5, a);
    attn_random_words(1, attn_random_stream(ATTN_RANDOM_SPLIT, 0), 5, b);
    assert_memory_not_equal(a, b, sizeof a);
    attn_random_words(1, attn_random_stream(ATTN_RANDOM_SHUFFLE, 1), 5, b);
    assert_memory_not_equal(a, b, sizeof a);
}

/* Against 128-bit arithmetic where the compiler has it: the high half of bits * bound. */
static void below_is_in_range_and_even(void **state)
{
    (void)state;
    enum { N = 60000, SIDES = 6 };
    size_t counts[SIDES] = {0};
    for (uint64_t i = 0; i < N; i++) counts[attn_random_below(3, 4, i, SIDES)]++;
    double chi_squared = 0;
    for (size_t i = 0; i < SIDES; i++) {
        const double excess = (double)counts[i] - (double)N / SIDES;
        chi_squared += excess * excess / ((double)N / SIDES);
    }
    assert_true(chi_squared < 20.5); /* 5 degrees of freedom: 0.1 % of seeds are above */
    static const uint64_t bounds[] = {1, 2, 1000003, UINT64_C(1) << 33, UINT64_MAX};
    for (size_t b = 0; b < sizeof bounds / sizeof *bounds; b++)
        for (uint64_t i = 0; i < 1000; i++) {
            const uint64_t got = attn_random_below(3, 4, i, bounds[b]);
            assert_true(got < bounds[b]);
#ifdef __SIZEOF_INT128__
            uint32_t words[4];
            attn_random_words(3, 4, i, words);
            __extension__ typedef unsigned __int128 wide;
            const wide product = (wide)((uint64_t)words[0] << 32 | words[1]) * bounds[b];
            assert_true(got == (uint64_t)(product >> 64));
#endif
        }
}

static void uniforms_have_their_moments(void **state)
{
    (void)state;
    enum { N = 100000 };
    double sum = 0, squares = 0;
    for (uint64_t i = 0; i < N; i++) {
        const double u = attn_random_uniform(5, 6, i);
        assert_true(u >= 0 && u < 1);
        sum += u;
        squares += u * u;
    }
    /* deviations of the means: sqrt(1/12/N) = 0.00091 and sqrt(4/45/N) = 0.00094 */
    assert_true(fabs(sum / N - 0.5) < 0.004);
    assert_true(fabs(squares / N - 1.0 / 3.0) < 0.004);
}

static void normals_have_their_moments(void **state)
{
    (void)state;
    enum { N = 200000 };
    double moments[5] = {0}, neighbours = 0, last = 0;
    size_t beyond_two = 0;
    for (uint64_t i = 0; i < N; i++) {
        const double x = attn_random_normal(7, 8, i);
        assert_true(isfinite(x));
        double power = 1;
        for (int m = 1; m <= 4; m++) moments[m] += (power *= x) / N;
        beyond_two += fabs(x) > 2;
        neighbours += x * last / N;
        last = x;
    }
    /* tolerances are 4.5 deviations: sqrt(1, 2, 15, 96 / N), and sqrt(1 / N) for the product */
    assert_true(fabs(moments[1]) < 0.0101);
    assert_true(fabs(moments[2] - 1) < 0.0143);
    assert_true(fabs(moments[3]) < 0.039);
    assert_true(fabs(moments[4] - 3) < 0.099);
    assert_true(fabs(neighbours) < 0.0101);
    assert_true(fabs((double)beyond_two / N - 0.0455) < 0.0021);
}

/* Element i is the same whatever the length and the number of threads. */
static void filling_does_not_depend_on_the_length(void **state)
{
    (void)state;
    static const size_t lengths[] = {0, 1, 2, 3, 17, 65535, 65536, 65537, 200001};
    const size_t longest = 200001;
    float *all = calloc(longest, sizeof *all), *part = calloc(longest + 1, sizeof *part);
    assert_non_null(all);
    assert_non_null(part);
    attn_random_fill_normal(9, 10, 0.02, longest, all);
    for (size_t i = 0; i < longest; i++)
        assert_true(all[i] == (float)(0.02 * attn_random_normal(9, 10, i)));
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        part[lengths[i]] = 77;
        attn_random_fill_normal(9, 10, 0.02, lengths[i], part);
        assert_memory_equal(part, all, lengths[i] * sizeof *part);
        assert_true(part[lengths[i]] == 77);
    }
    free(all);
    free(part);
}

static void permutations_are_permutations(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 2, 3, 1000};
    size_t order[1001], again[1001];
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const size_t n = sizes[i];
        bool seen[1000] = {false};
        order[n] = 4321;
        attn_random_permutation(11, 12, n, order);
        assert_int_equal(order[n], 4321);
        for (size_t j = 0; j < n; j++) {
            assert_true(order[j] < n && !seen[order[j]]);
            seen[order[j]] = true;
        }
        attn_random_permutation(11, 12, n, again);
        assert_memory_equal(order, again, n * sizeof *order);
    }
    attn_random_permutation(11, 13, 1000, again);
    assert_memory_not_equal(order, again, sizeof again - sizeof *again);
    /* all six orders of three come about equally often */
    size_t counts[27] = {0};
    for (uint32_t stream = 0; stream < 6000; stream++) {
        attn_random_permutation(11, stream, 3, order);
        counts[9 * order[0] + 3 * order[1] + order[2]]++;
    }
    for (size_t i = 0; i < 27; i++)
        assert_true(counts[i] == 0 || (counts[i] > 850 && counts[i] < 1150));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(streams_are_apart),
        cmocka_unit_test(below_is_in_range_and_even),
        cmocka_unit_test(uniforms_have_their_moments),
        cmocka_unit_test(normals_have_their_moments),
        cmocka_unit_test(filling_does_not_depend_on_the_length),
        cmocka_unit_test(permutations_are_permutations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
