/* Kernel calls that count themselves: the work of a recurrence is what these calls were given,
 * and its closed forms are written apart. */
#ifndef MECHANISMS_COUNTED_H
#define MECHANISMS_COUNTED_H

#include "kernels/context.h"
#include "mechanisms/head_rows.h"

#include <math.h>
#include <string.h>

typedef struct attn_counted {
    const attn_kernels *kernels;
    attn_work *work;   /* of this worker */
    attn_ahead *ahead; /* to be asked for by the way; NULL: nothing */
} attn_counted;

static inline void attn_counted_product(attn_counted on, size_t m, size_t n, size_t k,
                                        const float *a, size_t a_row, size_t a_column,
                                        const float *b, size_t b_row, float *c, size_t c_row,
                                        bool accumulate)
{
    if (on.ahead)
        attn_ahead_product(on.kernels, on.ahead, m, n, k, a, a_row, a_column, b, b_row, c, c_row,
                           accumulate);
    else
        on.kernels->product(m, n, k, a, a_row, a_column, b, b_row, c, c_row, accumulate);
    on.work->matmul += 2 * (uint64_t)m * n * k;
}

static inline float attn_counted_dot(attn_counted on, size_t n, const float *x, const float *y)
{
    on.work->matmul += 2 * (uint64_t)n;
    return on.kernels->dot(n, x, y);
}

static inline void attn_counted_add(attn_counted on, size_t n, const float *x, float *y)
{
    on.kernels->add(n, x, y);
    on.work->other += n;
}

static inline void attn_counted_add_scaled(attn_counted on, size_t n, float a, const float *x,
                                           float *y)
{
    on.kernels->add_scaled(n, a, x, y);
    on.work->other += 2 * (uint64_t)n;
}

static inline void attn_counted_add_product(attn_counted on, size_t n, const float *a,
                                            const float *b, float *y)
{
    on.kernels->add_product(n, a, b, y);
    on.work->other += 2 * (uint64_t)n;
}

static inline void attn_counted_multiply(attn_counted on, size_t n, const float *x, float *y)
{
    on.kernels->multiply(n, x, y);
    on.work->other += n;
}

static inline void attn_counted_scale(attn_counted on, size_t n, float a, float *x)
{
    on.kernels->scale(n, a, x);
    on.work->other += n;
}

static inline void attn_counted_scale_rows(attn_counted on, size_t rows, size_t n,
                                           const float *factors, float *x, size_t x_row)
{
    on.kernels->scale_rows(rows, n, factors, x, x_row);
    on.work->other += (uint64_t)rows * n;
}

/* x = exp(x); the slot's shift by 0 and its sum are no work that anybody needs */
static inline void attn_counted_exp(attn_counted on, size_t n, float *x)
{
    (void)on.kernels->exp_shifted(n, 0.0f, x);
    on.work->exponential += n;
}

/* One exponential an element, and the product with x and the sum with 1 and the quotient. */
static inline void attn_counted_silu(attn_counted on, size_t n, const float *x, float *y)
{
    on.kernels->silu(n, x, y);
    on.work->exponential += n;
    on.work->other += 2 * (uint64_t)n;
}

/* The same, and the slope s + x s (1 - s) times dy. */
static inline void attn_counted_silu_gradient(attn_counted on, size_t n, const float *x,
                                              const float *dy, float *dx)
{
    on.kernels->silu_gradient(n, x, dy, dx);
    on.work->exponential += n;
    on.work->other += 7 * (uint64_t)n;
}

/* out = u / sqrt(mean(u^2) + 1e-5), the root mean square norm; returns the factor. */
static inline float attn_counted_norm(attn_counted on, size_t n, const float *u, float *out)
{
    const double mean = on.kernels->sum_squares(n, u) / (double)n;
    const float factor = 1.0f / sqrtf((float)mean + 1e-5f);
    on.work->exponential += 1;
    on.work->other += 2 * (uint64_t)n + 2;
    memcpy(out, u, n * sizeof *out);
    attn_counted_scale(on, n, factor, out);
    return factor;
}

/* The same of rows without gaps, in place. */
static inline void attn_counted_norm_rows(attn_counted on, size_t rows, size_t n, float *u,
                                          float *factors)
{
    for (size_t i = 0; i < rows; i++) {
        const double mean = on.kernels->sum_squares(n, u + i * n) / (double)n;
        factors[i] = 1.0f / sqrtf((float)mean + 1e-5f);
    }
    on.work->exponential += rows;
    on.work->other += (uint64_t)rows * (2 * n + 2);
    attn_counted_scale_rows(on, rows, n, factors, u, n);
}

/* Its gradient, in place: d becomes factor (d - out mean(out o d)). */
static inline void attn_counted_norm_gradient(attn_counted on, size_t n, const float *out,
                                              float factor, float *d)
{
    const float mean = attn_counted_dot(on, n, out, d) / (float)n;
    attn_counted_add_scaled(on, n, -mean, out, d);
    attn_counted_scale(on, n, factor, d);
    on.work->other += 2;
}

#endif
