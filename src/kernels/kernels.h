/* The slots: every inner loop that has more than one version. kernels_ref.c is the plain
 * meaning; kernels_simd.h is written once over simd_<isa>.h and compiled once per ISA.
 *
 * All slots are single-threaded and work on memory of the caller; none fails. Strides are in
 * elements. Vectors need no alignment. Outputs never overlap inputs unless said. */
#ifndef KERNELS_KERNELS_H
#define KERNELS_KERNELS_H

#include "base/cpu.h"
#include "kernels/ahead.h"
#include "kernels/kernel_arguments.h"
#include "kernels/past_caches.h"

#include <float.h>
#include <stdbool.h>
#include <stddef.h>

enum { ATTN_DECAY_BLOCK = 16 };
/* 2^x below 2^ATTN_RUNNING_LEAST is 0 in them: it changes no sum of a softmax, and products with it
 * would be denormal numbers, which processors are slow at. */
enum { ATTN_RUNNING_SUMS = 16, ATTN_RUNNING_ROOM = 8, ATTN_RUNNING_LEAST = -100 };
#define ATTN_RUNNING_START (-FLT_MAX) /* finite: -inf minus it is -inf, and 2^-inf is 0 */

typedef struct attn_kernels {
    attn_isa isa;
    attn_product_steps *product_ahead; /* NULL: product() is cut by rows, with steps between */

    /* c[m][n] = a b, or c += a b when `accumulate`. a(i, p) lies at a[i * a_row + p * a_column],
     * so a may be a transpose; b is [k][n] and c is [m][n], rows apart by b_row, c_row. Meant
     * for tiles that live in cache. */
    void (*product)(size_t m, size_t n, size_t k, const float *a, size_t a_row, size_t a_column,
                    const float *b, size_t b_row, float *c, size_t c_row, bool accumulate);

    /* The same, and asks for lines of memory by the way: asked[k / 2]; meant for a tile of 6 rows. */
    void (*product_asking)(size_t m, size_t n, size_t k, const float *a, size_t a_row,
                           size_t a_column, const float *b, size_t b_row, float *c, size_t c_row,
                           bool accumulate, const float *const *asked);

    /* The same in double, for small matrices whose inverses would magnify the rounding of float. */
    void (*product_double)(size_t m, size_t n, size_t k, const double *a, size_t a_row,
                           size_t a_column, const double *b, size_t b_row, double *c, size_t c_row,
                           bool accumulate);

    /* out[columns][rows] = in[rows][columns] transposed */
    void (*transpose)(size_t rows, size_t columns, const float *in, size_t in_row, float *out,
                      size_t out_row);

    /* Rows `to_row` apart become factor * factors[i] times those that lie `from_row` apart;
     * factors NULL: all 1. For rows that come from far away or go there. */
    void (*copy_rows)(size_t rows, size_t n, float factor, const float *factors, const float *from,
                      size_t from_row, float *to, size_t to_row);
    /* The same with results that go far, past the caches where rows are whole cache lines; and rounded
     * to the nearest. attn_end_stores() comes before another thread reads them. */
    void (*store_rows)(size_t rows, size_t n, float factor, const float *factors, const float *from,
                       size_t from_row, float *to, size_t to_row);
    void (*round_rows)(size_t rows, size_t n, float factor, const float *factors, const float *from,
                       size_t from_row, attn_bf16 *to, size_t to_row);
    float (*maximum)(size_t n, const float *x); /* -inf when n = 0; NaN is passed over */
    float (*sum)(size_t n, const float *x);
    double (*sum_squares)(size_t n, const float *x);
    float (*dot)(size_t n, const float *x, const float *y);
    double (*dot_double)(size_t n, const float *x, const float *y); /* summed in double */
    /* out[i][j] = (row i of x) . (row j of y), with m rows of x and `rows` of y. Meant for few rows
     * of x, which stay near, and rows of y from far away, each of which is read once. */
    void (*dot_rows)(size_t m, size_t rows, size_t n, const float *x, size_t x_row, attn_far_rows y,
                     float *out, size_t out_row);
    /* out[m][n] += w[m][rows] y[rows][n], for few rows of w and rows of y from far away. */
    void (*weigh_rows)(size_t m, size_t rows, size_t n, const float *w, size_t w_row,
                       attn_far_rows y, float *out, size_t out_row);
    void (*add)(size_t n, const float *x, float *y);                 /* y += x */
    void (*add_scaled)(size_t n, float a, const float *x, float *y); /* y += a x */
    void (*scale)(size_t n, float a, float *x);                      /* x *= a */

    /* x = exp(x - shift) in place; the sum of the results. exp(-inf) is 0. */
    float (*exp_shifted)(size_t n, float shift, float *x);

    /* One step of the online softmax over a tile of scores s[rows][n]: with c = the new maximum
     * of scale * s and the old top, s becomes exp(scale * s - c), correction = exp(top - c),
     * total = correction * total + row sum, top = c. A row that has seen nothing keeps top
     * -inf and total, becomes 0 and gets correction 1. scale > 0. */
    void (*online_softmax)(size_t rows, size_t n, float scale, float *s, size_t s_row, float *top,
                           float *total, float *correction);

    /* Its backward over a tile: s becomes p = exp(scale * s - top), dp becomes p * (dp - delta) */
    void (*online_softmax_gradient)(size_t rows, size_t n, float scale, const float *top,
                                    const float *delta, float *s, size_t s_row, float *dp,
                                    size_t dp_row);

    /* One step of a softmax that rarely moves its reference, in powers of two, over a tile
     * s[rows][n]. With x = factor * s: a row whose largest x is above top + ATTN_RUNNING_ROOM
     * takes it as its new top and multiplies total and o by 2^(old - new). Then s becomes
     * p = 2^(x - top), 0 for a score of -inf, and total grows by p. factor > 0. */
    void (*running_softmax)(size_t rows, size_t n, float factor, float *s, size_t s_row,
                            const attn_running_rows *state);

    /* Its backward over a tile: s becomes p = 2^(factor * s - top), dp becomes p * (dp - delta) */
    void (*running_softmax_gradient)(size_t rows, size_t n, float factor, const float *top,
                                     const float *delta, float *s, size_t s_row, float *dp,
                                     size_t dp_row);

    /* Score functions, from products s. s = scale * s + step * (first + j): a bias linear in the
     * position, whose whole numbers first + j are exact. */
    void (*add_ramp)(size_t n, float scale, float step, float first, float *s);
    /* s = cap * tanh(scale * s / cap); slope (NULL: not wanted) = 1 - (s / cap)^2 */
    void (*softcap)(size_t n, float scale, float cap, float *s, float *slope);

    /* Row i of a[rows][n] keeps its first i + 1 numbers, and is 0 behind. With factors[rows], not
     * NULL, they are multiplied by the last i + 1 of these. */
    void (*keep_lower)(size_t rows, size_t n, const float *factors, float *a, size_t a_row);

    /* row i of x[rows][n] *= factors[i] */
    void (*scale_rows)(size_t rows, size_t n, const float *factors, float *x, size_t x_row);

    /* ds = scale * p * (dp - delta): the softmax row's backward; ds may be dp */
    void (*softmax_gradient)(size_t n, float scale, const float *p, const float *dp, float delta,
                             float *ds);

    /* y = gain * (x - mean) / sqrt(variance + epsilon) + bias over one row of n */
    void (*layer_norm)(size_t n, float epsilon, const float *x, const float *gain,
                       const float *bias, float *y, float *mean, float *inverse_deviation);
    /* dx += the input gradient (dx holds the residual's gradient); dgain += dy * x_hat, dbias += dy */
    void (*layer_norm_gradient)(size_t n, const float *x, const float *gain, float mean,
                                float inverse_deviation, const float *dy, float *dx, float *dgain,
                                float *dbias);

    /* y = x Phi(x) in the tanh form of GPT-2: x / (1 + exp(-2u)), u = sqrt(2/pi)(x + 0.044715 x^3) */
    void (*gelu)(size_t n, const float *x, float *y);
    /* dx may be dy; y = gelu(x), unless NULL, with the bits that gelu() gives it */
    void (*gelu_gradient)(size_t n, const float *x, const float *dy, float *dx, float *y);

    /* y = elu(x) + 1: x + 1 above 0, else exp(x), of rows x_row apart to rows without gaps. Whether
     * each row has a number that is not below 0. */
    bool (*elu_plus_one)(size_t rows, size_t n, const float *x, size_t x_row, float *y);
    /* dx = dy * y where x <= 0, else dy * y / (x + 1), for y any multiple of phi(x); dx may be dy */
    void (*elu_plus_one_gradient)(size_t n, const float *x, const float *y, const float *dy,
                                  float *dx);

    /* Elementwise, for gates and recurrences. */
    void (*multiply)(size_t n, const float *x, float *y);                    /* y *= x */
    void (*add_product)(size_t n, const float *a, const float *b, float *y); /* y += a b */
    void (*silu)(size_t n, const float *x, float *y); /* x sigmoid(x); y may be x */
    void (*silu_gradient)(size_t n, const float *x, const float *dy, float *dx); /* dx may be dy */
    void (*log_sigmoid)(size_t n, const float *x, float *y); /* -log(1 + exp(-x)); y may be x */
    /* dx = dy (1 - sigmoid(x)); dx may be dy */
    void (*log_sigmoid_gradient)(size_t n, const float *x, const float *dy, float *dx);

    /* Turns the pairs (x[i], x[i + n]), i < n, by angles; y may be x. `sign` -1 turns back. */
    void (*rotate)(size_t n, const float *cosine, const float *sine, float sign, const float *x,
                   float *y);

    /* Scores of n <= ATTN_DECAY_BLOCK tokens whose keys forget, feature by feature and token by
     * token: with D_ij,f = a_{j+1,f} .. a_{i,f}, scores(i, j) = sum_f q_if k_jf D_ij,f for j <= i
     * and 0 behind. q and a are [n][d] without gaps, k_t [d][n] are the keys transposed, which
     * become k_jf D_{n-1,j,f}. */
    void (*decayed_scores)(size_t n, size_t d, const float *q, const float *a, float *k_t,
                           size_t k_row, float *scores, size_t s_row);
    /* From ds, the gradient of the scores with j < i: dq_i += sum_j ds_ij k_j D_ij and
     * dk_j += sum_i ds_ij q_i D_ij, all [n][d] without gaps. */
    void (*decayed_scores_gradient)(size_t n, size_t d, const float *q, const float *k,
                                    const float *a, const float *ds, size_t ds_row, float *dq,
                                    float *dk);

    /* Between storage and arithmetic; one rounding there, none back (kernels/bf16.h). */
    void (*bf16_from_float)(size_t n, const float *x, attn_bf16 *y);
    void (*bf16_to_float)(size_t n, const attn_bf16 *x, float *y);
    /* sums[m][ATTN_STRIP] = x[m][cells of ATTN_STRIP] times a strip of a packed right factor
     * (kernels/bf16_cells.h), or += when `accumulate`; x are bfloat16 numbers, widened. Meant for few
     * rows of x and a strip from far away. */
    void (*bf16_strip)(size_t m, size_t cells, const float *x, size_t x_row, const attn_bf16 *strip,
                       float *sums, bool accumulate);

    /* Loss of one row of logits, -log softmax(logits)[target], in nats. With `gradient_scale`
     * not 0 they are lost, and gradient_scale * (softmax(logits) - onehot(target)) is in
     * `gradient`, rounded, or in their place when that is NULL. */
    double (*cross_entropy)(size_t n, float *logits, size_t target, float gradient_scale,
                            attn_bf16 *gradient);

    /* One pass: m, v and the parameters p from the gradients g. */
    void (*adamw)(size_t n, const attn_adamw_step *step, const float *g, float *m, float *v,
                  float *p);
} attn_kernels;

extern const attn_kernels attn_kernels_ref;
extern const attn_kernels attn_kernels_avx2;
extern const attn_kernels attn_kernels_avx512;

/* The table for a level; levels without their own float32 kernels use the one below. */
const attn_kernels *attn_kernels_for(attn_isa isa);

#endif
