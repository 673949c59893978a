/* Slots on one or two rows of numbers, products and transposes. An error bound is the number of
 * roundings on the way to the result, times half an ulp, times the sum of the terms' sizes. */
#include "check_kernels.h"

#include <math.h>
#include <string.h>

/* ---- matrices ---------------------------------------------------------------------------- */

typedef struct product_case {
    size_t m, n, k, gap; /* gap: floats between rows that are not part of them */
    bool is_transposed, accumulate;
} product_case;

static void check_product(check_run *run, const check_shape *shape, const product_case *p)
{
    const size_t m = p->m, n = p->n, k = p->k, gap = p->gap;
    const size_t a_row = p->is_transposed ? 1 : k + gap, a_column = p->is_transposed ? m + gap : 1;
    const size_t a_count = (p->is_transposed ? k : m) * (p->is_transposed ? m + gap : k + gap);
    const size_t b_row = n + gap, c_row = n + gap;
    const float *a = check_random(run, shape, a_count), *b = check_random(run, shape, k * b_row);
    const float *start = check_random(run, shape, m * c_row);
    float *c[2];
    for (size_t pass = 0; pass < 2; pass++) {
        c[pass] = check_copy(run, shape, m * c_row, start);
        check_table(run, pass)->product(m, n, k, a, a_row, a_column, b, b_row, c[pass], c_row,
                                        p->accumulate);
    }
    double *want = check_doubles(run, m * c_row), *bounds = check_doubles(run, m * c_row);
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n + gap; j++) {
            const size_t at = i * c_row + j;
            if (j >= n) {
                want[at] = (double)start[at]; /* must be left alone: bound 0 */
                continue;
            }
            double sum = p->accumulate ? (double)start[at] : 0.0, terms = fabs(sum);
            for (size_t q = 0; q < k; q++) {
                const double term = (double)a[i * a_row + q * a_column] * (double)b[q * b_row + j];
                sum += term;
                terms += fabs(term);
            }
            want[at] = sum;
            bounds[at] = (double)(k + 1) * (CHECK_UNIT * terms + CHECK_TINY);
        }
    check_output(run, m * c_row, c[0], c[1], want, bounds, p->is_transposed ? "a^T b" : "a b");
}

void check_slot_product(check_run *run, const check_shape *shape)
{
    static const size_t rows[] = {0, 1, 2, 3, 4, 5, 6, 7, 13}, inner[] = {0, 1, 17, 64};
    const size_t m = rows[check_below(run, 9)], k = inner[check_below(run, 4)];
    for (size_t variant = 0; variant < 4; variant++)
        check_product(run, shape,
                      &(product_case){.m = m,
                                      .n = shape->n,
                                      .k = k,
                                      .gap = check_below(run, 2) * 5,
                                      .accumulate = variant & 1,
                                      .is_transposed = variant & 2});
}

void check_slot_keep_lower(check_run *run, const check_shape *shape)
{
    const size_t n = shape->n, rows = check_below(run, 40), a_row = n + check_below(run, 2) * 3;
    const float *start = check_random(run, shape, rows * a_row);
    const float *factors = check_below(run, 2) ? check_random(run, shape, rows) : NULL;
    float *want = check_copy(run, shape, rows * a_row, start);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < n; j++) {
            float *at = want + i * a_row + j;
            *at = j > i ? 0.0f : factors ? *at * factors[rows - 1 - i + j] : *at;
        }
    for (size_t pass = 0; pass < 2; pass++) {
        float *got = check_copy(run, shape, rows * a_row, start);
        check_table(run, pass)->keep_lower(rows, n, factors, got, a_row);
        check_same_bits(run, rows * a_row, got, want, "%zu x %zu%s", rows, n,
                        factors ? " with factors" : "");
    }
}

/* What is asked for changes nothing, wherever it lies. */
void check_slot_product_asking(check_run *run, const check_shape *shape)
{
    static const size_t inner[] = {0, 1, 2, 17, 64};
    const size_t m = check_below(run, 7), k = inner[check_below(run, 5)], n = shape->n;
    const float *a = check_random(run, shape, m * k), *b = check_random(run, shape, k * n);
    const float *start = check_random(run, shape, m * n), *lines[32] = {0};
    for (size_t i = 0; i < k / 2; i++) lines[i] = i % 3 ? b + i * n : NULL;
    for (size_t variant = 0; variant < 4; variant++) {
        const bool accumulate = variant & 1;
        const size_t a_row = variant & 2 ? 1 : k, a_column = variant & 2 ? m : 1;
        float *want = check_copy(run, shape, m * n, start);
        float *got = check_copy(run, shape, m * n, start);
        run->kernels->product(m, n, k, a, a_row, a_column, b, n, want, n, accumulate);
        run->kernels->product_asking(m, n, k, a, a_row, a_column, b, n, got, n, accumulate, lines);
        check_same_bits(run, m * n, got, want, "%zu x %zu x %zu, asking", m, n, k);
    }
}

/* Whose last number touches the page behind. */
static double *widened_at_end(check_run *run, size_t count, const float *from)
{
    double *to = (double *)(void *)check_floats(run, 2 * count, CHECK_AT_END);
    check_widen(count, from, to);
    return to;
}

/* In double: whole numbers, whose products and sums are exact in every order. */
void check_slot_product_double(check_run *run, const check_shape *shape)
{
    static const size_t rows[] = {0, 1, 2, 3, 4, 5, 6, 13}, inner[] = {0, 1, 3, 4, 7, 64};
    const size_t m = rows[check_below(run, 8)], k = inner[check_below(run, 6)], n = shape->n;
    const size_t gap = check_below(run, 2) * 3, row = n + gap;
    float *whole = check_floats(run, m * k + k * row + m * row, CHECK_AT_END);
    check_fill_whole(run, 1000, m * k + k * row + m * row, whole);
    const float *start = whole + m * k + k * row;
    const double *a = widened_at_end(run, m * k, whole);
    const double *b = widened_at_end(run, k * row, whole + m * k);
    for (size_t variant = 0; variant < 4; variant++) {
        const bool accumulate = variant & 1;
        const size_t a_row = variant & 2 ? 1 : k, a_column = variant & 2 ? m : 1;
        double *want = check_doubles(run, m * row), *got = widened_at_end(run, m * row, start);
        double *bounds = check_doubles(run, m * row);
        memcpy(want, got, m * row * sizeof *want);
        for (size_t i = 0; i < m; i++)
            for (size_t j = 0; j < n; j++) {
                if (!accumulate) want[i * row + j] = 0.0;
                for (size_t p = 0; p < k; p++)
                    want[i * row + j] += a[i * a_row + p * a_column] * b[p * row + j];
            }
        run->kernels->product_double(m, n, k, a, a_row, a_column, b, row, got, row, accumulate);
        check_compare(run, m * row, (check_numbers){.real = got}, (check_numbers){.real = want},
                      (check_rule){.bounds = bounds}, "a b in double");
    }
}

void check_slot_transpose(check_run *run, const check_shape *shape)
{
    static const size_t counts[] = {0, 1, 7, 8, 9, 20};
    const size_t rows = shape->n, columns = counts[check_below(run, 6)];
    const size_t in_row = columns + check_below(run, 3), out_row = rows + check_below(run, 3);
    const float *in = check_random(run, shape, rows * in_row);
    const float *start = check_random(run, shape, columns * out_row);
    float *out = check_copy(run, shape, columns * out_row, start);
    float *want = check_copy(run, shape, columns * out_row, start);
    run->kernels->transpose(rows, columns, in, in_row, out, out_row);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++) want[j * out_row + i] = in[i * in_row + j];
    check_same_bits(run, columns * out_row, out, want, "transpose of %zu x %zu", rows, columns);
}

typedef void copy_slot(size_t rows, size_t n, float factor, const float *factors, const float *from,
                       size_t from_row, float *to, size_t to_row);

/* Rows of results often lie on whole cache lines. */
static size_t far_row(check_run *run, size_t n)
{
    return check_below(run, 2) ? n + check_below(run, 3) : (n + 31) / 32 * 32;
}

static void check_copies(check_run *run, const check_shape *shape, copy_slot *copy)
{
    enum { ROWS = 19 };
    const size_t n = shape->n, row = n + check_below(run, 3), to_row = far_row(run, n);
    const float *from = check_random(run, shape, ROWS * row);
    const float *factors = check_random(run, shape, ROWS);
    const float *start = check_random(run, shape, ROWS * to_row), factor = 0.7f;
    for (size_t variant = 0; variant < 2; variant++) {
        float *to = check_copy(run, shape, ROWS * to_row, start);
        float *want = check_copy(run, shape, ROWS * to_row, start);
        copy(ROWS, n, variant ? 1.0f : factor, variant ? NULL : factors, from, row, to, to_row);
        for (size_t i = 0; i < ROWS; i++)
            for (size_t j = 0; j < n; j++)
                want[i * to_row + j] = (variant ? 1.0f : factor * factors[i]) * from[i * row + j];
        check_same_bits(run, ROWS * to_row, to, want, variant ? "copy" : "scaled copy");
    }
}

void check_slot_copy_rows(check_run *run, const check_shape *shape)
{
    check_copies(run, shape, run->kernels->copy_rows);
}

void check_slot_store_rows(check_run *run, const check_shape *shape)
{
    check_copies(run, shape, run->kernels->store_rows);
}

void check_slot_round_rows(check_run *run, const check_shape *shape)
{
    enum { ROWS = 19 };
    const size_t n = shape->n, row = n + check_below(run, 3), to_row = far_row(run, n);
    const float *from = check_random(run, shape, ROWS * row);
    const float *factors = check_random(run, shape, ROWS), factor = 0.7f;
    for (size_t variant = 0; variant < 2; variant++) {
        attn_bf16 *to = check_halves(run, ROWS * to_row, shape->place);
        attn_bf16 *want = check_halves(run, ROWS * to_row, shape->place);
        memset(to, 0x41, ROWS * to_row * sizeof *to);
        memset(want, 0x41, ROWS * to_row * sizeof *want);
        run->kernels->round_rows(ROWS, n, variant ? 1.0f : factor, variant ? NULL : factors, from,
                                 row, to, to_row);
        for (size_t i = 0; i < ROWS; i++)
            for (size_t j = 0; j < n; j++)
                want[i * to_row + j] = attn_bf16_from_float((variant ? 1.0f : factor * factors[i]) *
                                                            from[i * row + j]);
        check_that(run, memcmp(to, want, ROWS * to_row * sizeof *to) == 0, "%s, rounded",
                   variant ? "copy" : "scaled copy");
    }
}

/* ---- one number from a row --------------------------------------------------------------- */

void check_slot_maximum(check_run *run, const check_shape *shape)
{
    const size_t n = shape->n;
    float *x = check_random(run, shape, n);
    for (size_t variant = 0; variant < 4; variant++) {
        if (n && variant == 1) x[check_below(run, n)] = NAN;
        if (n && variant == 2) x[check_below(run, n)] = INFINITY;
        for (size_t i = 0; variant == 3 && i < n; i++) x[i] = i % 2 ? -INFINITY : -1e30f;
        float want = -INFINITY;
        for (size_t i = 0; i < n; i++)
            if (x[i] > want) want = x[i]; /* NaN is passed over */
        const float got = run->kernels->maximum(n, x);
        check_same_bits(run, 1, &got, &want, "maximum, variant %zu", variant);
    }
}

void check_slot_sum(check_run *run, const check_shape *shape)
{
    const size_t n = shape->n;
    float *x = check_random(run, shape, n);
    double want = 0.0, terms = 0.0;
    for (size_t i = 0; i < n; i++) want += (double)x[i], terms += fabs((double)x[i]);
    check_number(run, (double)run->kernels->sum(n, x), (double)attn_kernels_ref.sum(n, x), want,
                 (double)n * CHECK_UNIT * terms, "sum");
    if (!n) return;
    x[check_below(run, n)] = NAN;
    check_that(run, isnan(run->kernels->sum(n, x)), "the sum of a row with a NaN is a NaN");
}

void check_slot_sum_squares(check_run *run, const check_shape *shape)
{
    const size_t n = shape->n;
    float *x = check_random(run, shape, n);
    double want = 0.0;
    for (size_t i = 0; i < n; i++) want += (double)x[i] * (double)x[i];
    check_number(run, run->kernels->sum_squares(n, x), attn_kernels_ref.sum_squares(n, x), want,
                 (double)n * DBL_EPSILON * want, "sum of squares");
    if (!n) return;
    x[check_below(run, n)] = NAN;
    check_that(run, isnan(run->kernels->sum_squares(n, x)), "a NaN stays in the sum of squares");
}

void check_slot_dot(check_run *run, const check_shape *shape)
{
    const size_t n = shape->n;
    float *x = check_random(run, shape, n);
    const float *y = check_random(run, shape, n);
    double want = 0.0, terms = 0.0;
    for (size_t i = 0; i < n; i++) {
        want += (double)x[i] * (double)y[i];
        terms += fabs((double)x[i] * (double)y[i]);
    }
    check_number(run, (double)run->kernels->dot(n, x, y), (double)attn_kernels_ref.dot(n, x, y),
                 want, (double)(n + 1) * (CHECK_UNIT * terms + CHECK_TINY), "dot");
    if (!n) return;
    x[check_below(run, n)] = NAN;
    check_that(run, isnan(run->kernels->dot(n, x, y)), "a dot product with a NaN is a NaN");
}

void check_slot_dot_double(check_run *run, const check_shape *shape)
{
    const size_t n = shape->n;
    float *x = check_random(run, shape, n);
    const float *y = check_random(run, shape, n);
    double want = 0.0, terms = 0.0;
    for (size_t i = 0; i < n; i++) {
        want += (double)x[i] * (double)y[i];
        terms += fabs((double)x[i] * (double)y[i]);
    }
    check_number(run, run->kernels->dot_double(n, x, y), attn_kernels_ref.dot_double(n, x, y), want,
                 (double)n * DBL_EPSILON * terms, "dot in double");
    if (!n) return;
    x[check_below(run, n)] = NAN;
    check_that(run, isnan(run->kernels->dot_double(n, x, y)), "a dot product with a NaN is a NaN");
}

/* ---- rows to rows ------------------------------------------------------------------------ */

/* y += a x, which add is with a = 1, and x = a x with y = 0 */
static void check_linear(check_run *run, const check_shape *shape, bool is_scaled, bool adds)
{
    const size_t n = shape->n;
    const float a = is_scaled ? -1.7f : 1.0f;
    float *x = check_random(run, shape, n), *start = check_random(run, shape, n);
    if (n > 2) x[check_below(run, n)] = NAN, x[check_below(run, n)] = -INFINITY;
    float *y[2];
    for (size_t pass = 0; pass < 2; pass++) {
        const attn_kernels *kernels = check_table(run, pass);
        y[pass] = check_copy(run, shape, n, adds ? start : x);
        if (!adds)
            kernels->scale(n, a, y[pass]);
        else if (is_scaled)
            kernels->add_scaled(n, a, x, y[pass]);
        else
            kernels->add(n, x, y[pass]);
    }
    double *want = check_doubles(run, n), *bounds = check_doubles(run, n);
    for (size_t i = 0; i < n; i++) {
        const double term = (double)a * (double)x[i], base = adds ? (double)start[i] : 0.0;
        want[i] = base + term;
        bounds[i] = CHECK_UNIT * (2.0 * fabs(term) + fabs(base)) + CHECK_TINY;
    }
    check_output(run, n, y[0], y[1], want, bounds, "y");
}

void check_slot_add(check_run *run, const check_shape *shape)
{
    check_linear(run, shape, false, true);
}

void check_slot_add_scaled(check_run *run, const check_shape *shape)
{
    check_linear(run, shape, true, true);
}

void check_slot_scale(check_run *run, const check_shape *shape)
{
    check_linear(run, shape, true, false);
}

void check_slot_scale_rows(check_run *run, const check_shape *shape)
{
    enum { ROWS = 3 };
    const size_t n = shape->n, row = n + check_below(run, 3);
    const float *start = check_random(run, shape, ROWS * row);
    const float factors[ROWS] = {0.5f, 0.0f, 1.3f};
    float *x[2];
    for (size_t pass = 0; pass < 2; pass++) {
        x[pass] = check_copy(run, shape, ROWS * row, start);
        check_table(run, pass)->scale_rows(ROWS, n, factors, x[pass], row);
    }
    double *want = check_doubles(run, ROWS * row), *bounds = check_doubles(run, ROWS * row);
    for (size_t i = 0; i < ROWS * row; i++) {
        const bool is_inside = i % row < n;
        want[i] = (double)start[i] * (is_inside ? (double)factors[i / row] : 1.0);
        bounds[i] = is_inside ? CHECK_UNIT * fabs(want[i]) + CHECK_TINY : 0.0;
    }
    check_output(run, ROWS * row, x[0], x[1], want, bounds, "rows");
}
