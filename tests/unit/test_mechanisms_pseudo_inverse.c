/* The pseudo-inverse through symmetric products against its definition, and its gradient against
 * differences of the definition, at every level and around the sizes of strips and cache lines. */
#include "attn/attn.h"
#include "base/memory.h"
#include "base/random.h"
#include "mechanisms/pseudo_inverse.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LARGEST = 100 };

static double *squares(size_t count)
{
    double *to = attn_alloc_array(ATTN_MEMORY_OTHER,
                                  count * LARGEST * attn_pseudo_inverse_row(LARGEST), sizeof *to);
    assert_non_null(to);
    return to;
}

/* Rows [n][n] of them `row` apart, with what `seed` says between low and low + 1. */
static void draw(size_t n, size_t row, uint32_t seed, double low, double *to)
{
    float numbers[LARGEST];
    for (size_t i = 0; i < n; i++) {
        attn_random_fill_normal(seed, attn_random_stream(ATTN_RANDOM_TEST, (uint32_t)i), 1.0, n,
                                numbers);
        for (size_t j = 0; j < n; j++)
            to[i * row + j] = low + 1.0 / (1.0 + exp(-(double)numbers[j]));
    }
}

/* diagonal I - a b */
static void rest(size_t n, size_t row, double diagonal, const double *a, const double *b,
                 double *to)
{
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) {
            double sum = i == j ? diagonal : 0.0;
            for (size_t k = 0; k < n; k++) sum -= a[i * row + k] * b[k * row + j];
            to[i * row + j] = sum;
        }
}

/* As pseudo_inverse.h states it; z and t are [4] squares. */
static void define(size_t n, size_t row, const double *a, double *z, double *t)
{
    const size_t count = n * row;
    double most_row = 0.0, most_column = 0.0, *y = t + count, *w = y + count, *v = w + count;
    for (size_t i = 0; i < n; i++) {
        double by_row = 0.0, by_column = 0.0;
        for (size_t j = 0; j < n; j++) {
            by_row += a[i * row + j];
            by_column += a[j * row + i];
        }
        most_row = fmax(most_row, by_row);
        most_column = fmax(most_column, by_column);
    }
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) z[i * row + j] = a[j * row + i] / (most_row * most_column);
    for (size_t k = 0; k < ATTN_PSEUDO_INVERSE_STEPS; k++) {
        rest(n, row, 0.0, a, z, y);
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < n; j++) {
                y[i * row + j] = -y[i * row + j];
                w[i * row + j] = (i == j ? 7.0 : 0.0) - y[i * row + j];
            }
        rest(n, row, 15.0, y, w, v);
        rest(n, row, 13.0, y, v, w);
        rest(n, row, 0.0, z, w, t);
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < n; j++) z[i * row + j] = -0.25 * t[i * row + j];
    }
}

static double inner(size_t n, size_t row, const double *a, const double *b)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) sum += a[i * row + j] * b[i * row + j];
    return sum;
}

/* One size at one level. */
static void check_size(const attn_kernels *kernels, size_t n)
{
    const size_t row = attn_pseudo_inverse_row(n), count = n * row;
    double *all = squares(11), *a = all, *z = a + count, *t = z + count, *dz = t + 4 * count;
    double *da = dz + count, *way = da + count, *moved = way + count, *kept = moved + count;
    double *room = attn_alloc_array(ATTN_MEMORY_OTHER, attn_pseudo_inverse_count(n), sizeof *room);
    assert_non_null(room);
    draw(n, row, 1, 0.0, a);
    for (size_t i = 0; i < n; i++) a[i * row + i] += 0.1 * (double)i; /* no two largest sums */
    define(n, row, a, z, t);
    const double *got = attn_pseudo_inverse(kernels, n, a, room);
    const double size = sqrt(inner(n, row, z, z));
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            assert_true(fabs(got[i * row + j] - z[i * row + j]) <= 1e-12 * size);
    draw(n, row, 2, -0.5, kept);
    memcpy(dz, kept, count * sizeof *dz);
    attn_pseudo_inverse_gradient(kernels, n, a, room, dz, da);
    for (uint32_t direction = 3; direction < 5; direction++) {
        const double step = 1e-5;
        double differences = 0.0;
        draw(n, row, direction, -0.5, way);
        for (int sign = -1; sign <= 1; sign += 2) {
            for (size_t i = 0; i < n; i++)
                for (size_t j = 0; j < n; j++)
                    moved[i * row + j] = a[i * row + j] + sign * step * way[i * row + j];
            define(n, row, moved, z, t);
            differences += sign * inner(n, row, kept, z) / (2.0 * step);
        }
        const double scale = sqrt(inner(n, row, da, da) * inner(n, row, way, way));
        assert_true(fabs(inner(n, row, da, way) - differences) <= 1e-7 * scale);
    }
    attn_free(room);
    attn_free(all);
}

static void test_definition(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 2, 7, 8, 31, 33, 64, 65, LARGEST};
    for (int isa = ATTN_ISA_REF; isa <= (int)attn_cpu_best_isa(); isa++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            check_size(attn_kernels_for((attn_isa)isa), sizes[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_definition)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
