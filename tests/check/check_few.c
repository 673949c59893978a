/* Products of few rows with rows from far away, in float32 and bfloat16, and with strips of packed
 * weights: against float64, and each sum with the bits that it has alone. */
#include "check_kernels.h"

#include "kernels/bf16_cells.h"

#include <math.h>
#include <string.h>

enum { ROWS = 7, M_MOST = 6 };

/* bfloat16 numbers, and the same as floats. */
static attn_bf16 *draw_halves(check_run *run, const check_shape *shape, size_t n, float *wide)
{
    attn_bf16 *half = check_halves(run, n, shape->place);
    const float *x = check_random(run, shape, n);
    for (size_t i = 0; i < n; i++) {
        half[i] = attn_bf16_from_float(x[i]);
        wide[i] = attn_bf16_to_float(half[i]);
    }
    return half;
}

/* Rows of y of one type, and their numbers. */
static attn_far_rows draw_rows(check_run *run, const check_shape *shape, bool is_half, size_t row,
                               const float **numbers)
{
    float *wide = check_random(run, shape, ROWS * row);
    attn_far_rows y = {.row = row};
    if (is_half)
        y.half = draw_halves(run, shape, ROWS * row, wide);
    else
        y.single = wide;
    *numbers = wide;
    return y;
}

static void check_dots(check_run *run, const check_shape *shape, bool is_half)
{
    enum { TO_ROW = ROWS + 1 };
    const size_t n = shape->n, row = n + check_below(run, 3), m = 1 + check_below(run, M_MOST);
    const size_t count = m * TO_ROW;
    const float *x = check_random(run, shape, m * row), *wide = NULL;
    const float *start = check_random(run, shape, count);
    const attn_far_rows y = draw_rows(run, shape, is_half, row, &wide);
    double *want = check_doubles(run, count), *bounds = check_doubles(run, count);
    float *out[2];
    for (size_t pass = 0; pass < 2; pass++) {
        out[pass] = check_copy(run, shape, count, start);
        check_table(run, pass)->dot_rows(m, ROWS, n, x, row, y, out[pass], TO_ROW);
    }
    for (size_t i = 0; i < count; i++) {
        const float *xi = x + i / TO_ROW * row;
        const size_t j = i % TO_ROW;
        want[i] = (double)start[i];
        bounds[i] = 0.0;
        if (j == ROWS) continue;
        double sum = 0.0, terms = 0.0;
        for (size_t k = 0; k < n; k++) {
            const double term = (double)xi[k] * (double)wide[j * row + k];
            sum += term;
            terms += fabs(term);
        }
        want[i] = sum;
        bounds[i] = (double)(n + 1) * (CHECK_UNIT * terms + CHECK_TINY);
        const attn_far_rows one = {.single = is_half ? NULL : y.single + j * row,
                                   .half = is_half ? y.half + j * row : NULL,
                                   .row = row};
        float alone = 0.0f;
        run->kernels->dot_rows(1, 1, n, xi, row, one, &alone, 1);
        check_same_bits(run, 1, &out[0][i], &alone, "the sum alone");
    }
    check_output(run, count, out[0], out[1], want, bounds, is_half ? "bfloat16 dots" : "dots");
}

void check_slot_dot_rows(check_run *run, const check_shape *shape)
{
    check_dots(run, shape, false);
    check_dots(run, shape, true);
}

static void check_weighed(check_run *run, const check_shape *shape, bool is_half)
{
    const size_t n = shape->n, row = n + check_below(run, 3), m = 1 + check_below(run, M_MOST);
    const size_t to_row = n + check_below(run, 3), count = m * to_row;
    const float *w = check_random(run, shape, m * ROWS), *wide = NULL;
    const float *start = check_random(run, shape, count);
    const attn_far_rows y = draw_rows(run, shape, is_half, row, &wide);
    double *want = check_doubles(run, count), *bounds = check_doubles(run, count);
    float *out[2];
    for (size_t pass = 0; pass < 2; pass++) {
        out[pass] = check_copy(run, shape, count, start);
        check_table(run, pass)->weigh_rows(m, ROWS, n, w, ROWS, y, out[pass], to_row);
    }
    for (size_t i = 0; i < count; i++) {
        const size_t at = i % to_row;
        want[i] = (double)start[i];
        double terms = fabs(want[i]);
        for (size_t j = 0; j < ROWS && at < n; j++) {
            const double term = (double)w[i / to_row * ROWS + j] * (double)wide[j * row + at];
            want[i] += term;
            terms += fabs(term);
        }
        bounds[i] = at < n ? (double)(ROWS + 1) * (CHECK_UNIT * terms + CHECK_TINY) : 0.0;
    }
    check_output(run, count, out[0], out[1], want, bounds, is_half ? "bfloat16 rows" : "rows");
}

void check_slot_weigh_rows(check_run *run, const check_shape *shape)
{
    check_weighed(run, shape, false);
    check_weighed(run, shape, true);
}

void check_slot_bf16_strip(check_run *run, const check_shape *shape)
{
    const size_t cells = (shape->n + ATTN_STRIP - 1) / ATTN_STRIP, n = cells * ATTN_STRIP;
    const size_t row = n + check_below(run, 3), m = 1 + check_below(run, M_MOST);
    const size_t count = m * ATTN_STRIP;
    float *x = check_random(run, shape, m * row), *w = check_random(run, shape, cells * ATTN_CELL);
    const float *start = check_random(run, shape, count);
    const attn_bf16 *strip = draw_halves(run, shape, cells * ATTN_CELL, w);
    draw_halves(run, shape, m * row, x);
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        double *want = check_doubles(run, count), *bounds = check_doubles(run, count);
        float *sums[2];
        for (size_t pass = 0; pass < 2; pass++) {
            sums[pass] = check_copy(run, shape, count, start);
            check_table(run, pass)->bf16_strip(m, cells, x, row, strip, sums[pass], accumulate);
        }
        for (size_t i = 0; i < count; i++) {
            const size_t column = i % ATTN_STRIP;
            double terms = accumulate ? fabs((double)start[i]) : 0.0;
            want[i] = accumulate ? (double)start[i] : 0.0;
            for (size_t k = 0; k < n; k++) {
                /* [cell][half of the columns][pair of k][16 columns][2] */
                const size_t at =
                    k / 32 * 1024 + column / 16 * 512 + k % 32 / 2 * 32 + column % 16 * 2 + k % 2;
                const double term = (double)x[i / ATTN_STRIP * row + k] * (double)w[at];
                want[i] += term;
                terms += fabs(term);
            }
            bounds[i] = (double)(n + 1) * (CHECK_UNIT * terms + CHECK_TINY);
        }
        check_output(run, count, sums[0], sums[1], want, bounds, accumulate ? "sums +=" : "sums =");
    }
}
