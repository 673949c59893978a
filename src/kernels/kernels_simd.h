/* Every vector kernel, written once over the names of simd_<isa>.h. A file that includes both
 * and fills a table with TABLE_NAME is one instruction set; see kernels_avx512.c.
 *
 * Tails are masked, never padded: memory past n is neither read nor written. */
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

/* ---- exp ---------------------------------------------------------------------------------
 * exp(x) = 2^n exp(f), n = round(x / ln 2), f = x - n ln 2 in two parts, |f| <= ln(2) / 2;
 * exp(f) = 1 + f + f^2 q(f), q of degree 4 fitted for the least relative error (3.1e-9; the
 * whole is within 1.1 ulp, measured over all floats by attncheck). Results below the smallest
 * normal float are 0. */

/* exp(f) - 1, and n */
static inline vf exponential_core(vf x, vf *n)
{
    *n = nearest_whole(mul(x, all(1.44269504f)));
    vf f = fused_negative(*n, all(0x1.62e4p-1f), x);
    f = fused_negative(*n, all(0x1.7f7d1cp-20f), f);
    vf q = fused(f, all(0x1.6a23d2p-10f), all(0x1.123a20p-7f));
    q = fused(f, q, all(0x1.5558f2p-5f));
    q = fused(f, q, all(0x1.555492p-3f));
    q = fused(f, q, all(0x1.fffffcp-2f));
    return fused(mul(f, f), q, f);
}

static inline vf exponential(vf x)
{
    const vf lowest = all(-87.33654f), highest = all(89.0f);
    const vf bounded = smaller_of(highest, larger(all(-104.0f), x)); /* NaN goes through */
    vf n;
    const vf e = exponential_core(bounded, &n);
    return scale_power(add(e, all(1.0f)), n, bounded, lowest);
}

/* One exponential, with the bits that a vector of them has. */
static inline float exponential_lane(float x)
{
    return first_lane(exponential(all(x)));
}

/* The vector at p, of which `left` floats remain: all lanes, or the first ones and zeros. */
static inline vf take(const float *p, size_t left)
{
    return left >= LANES ? load(p) : load_some(p, first_lanes(left));
}

static inline void put(float *p, size_t left, vf a)
{
    if (left >= LANES)
        store(p, a);
    else
        store_some(p, first_lanes(left), a);
}

/* Over all vectors of n floats: `at` is the place, `left` what remains from there. */
#define FOR_VECTORS(n) for (size_t at = 0, left = (n); at < (n); at += LANES, left = (n)-at)

/* ---- product -----------------------------------------------------------------------------
 * A tile of `rows` x `vectors` accumulators stays in registers over all of k. */
#define UNROLL _Pragma("GCC unroll 8")

static inline __attribute__((always_inline)) void
product_tile(size_t rows, size_t vectors, vmask last, bool is_tail, size_t k, const float *a,
             size_t a_row, size_t a_column, const float *b, size_t b_row, float *c, size_t c_row,
             bool accumulate)
{
    vf sums[PRODUCT_ROWS][PRODUCT_VECTORS];
    UNROLL for (size_t i = 0; i < rows; i++) UNROLL for (size_t j = 0; j < vectors; j++)
    {
        const float *from = c + i * c_row + j * LANES;
        sums[i][j] = !accumulate ? zero() : is_tail ? load_some(from, last) : load(from);
    }
    for (size_t p = 0; p < k; p++) {
        vf bp[PRODUCT_VECTORS];
        UNROLL for (size_t j = 0; j < vectors; j++) bp[j] =
            is_tail ? load_some(b + p * b_row + j * LANES, last) : load(b + p * b_row + j * LANES);
        UNROLL for (size_t i = 0; i < rows; i++)
        {
            const vf aip = all(a[i * a_row + p * a_column]);
            UNROLL for (size_t j = 0; j < vectors; j++) sums[i][j] = fused(aip, bp[j], sums[i][j]);
        }
    }
    UNROLL for (size_t i = 0; i < rows; i++) UNROLL for (size_t j = 0; j < vectors; j++)
    {
        float *to = c + i * c_row + j * LANES;
        if (is_tail)
            store_some(to, last, sums[i][j]);
        else
            store(to, sums[i][j]);
    }
}

/* One column strip of c: all rows, `vectors` vectors wide (one, masked, for a tail). */
#define STRIP(vectors, is_tail)                                                                    \
    do {                                                                                           \
        size_t i = 0;                                                                              \
        for (; i + PRODUCT_ROWS <= m; i += PRODUCT_ROWS)                                           \
            product_tile(PRODUCT_ROWS, vectors, last, is_tail, k, a + i * a_row, a_row, a_column,  \
                         b, b_row, c + i * c_row, c_row, accumulate);                              \
        const float *ai = a + i * a_row;                                                           \
        float *ci = c + i * c_row;                                                                 \
        switch (m - i) {                                                                           \
        case 5:                                                                                    \
            product_tile(5, vectors, last, is_tail, k, ai, a_row, a_column, b, b_row, ci, c_row,   \
                         accumulate);                                                              \
            break;                                                                                 \
        case 4:                                                                                    \
            product_tile(4, vectors, last, is_tail, k, ai, a_row, a_column, b, b_row, ci, c_row,   \
                         accumulate);                                                              \
            break;                                                                                 \
        case 3:                                                                                    \
            product_tile(3, vectors, last, is_tail, k, ai, a_row, a_column, b, b_row, ci, c_row,   \
                         accumulate);                                                              \
            break;                                                                                 \
        case 2:                                                                                    \
            product_tile(2, vectors, last, is_tail, k, ai, a_row, a_column, b, b_row, ci, c_row,   \
                         accumulate);                                                              \
            break;                                                                                 \
        case 1:                                                                                    \
            product_tile(1, vectors, last, is_tail, k, ai, a_row, a_column, b, b_row, ci, c_row,   \
                         accumulate);                                                              \
            break;                                                                                 \
        default:                                                                                   \
            break;                                                                                 \
        }                                                                                          \
    } while (0)

#define STRIP_ARGUMENTS                                                                            \
    size_t m, size_t k, const float *a, size_t a_row, size_t a_column, const float *b,             \
        size_t b_row, float *c, size_t c_row, bool accumulate

static void strip_wide(STRIP_ARGUMENTS)
{
    const vmask last = first_lanes(LANES - 1); /* unused: the strip is full */
    STRIP(PRODUCT_VECTORS, false);
}

static void strip_single(STRIP_ARGUMENTS)
{
    const vmask last = first_lanes(LANES - 1); /* unused: the strip is full */
    STRIP(1, false);
}

static void strip_tail(size_t columns, STRIP_ARGUMENTS)
{
    const vmask last = first_lanes(columns);
    STRIP(1, true);
}

static void kernel_product(size_t m, size_t n, size_t k, const float *a, size_t a_row,
                           size_t a_column, const float *b, size_t b_row, float *c, size_t c_row,
                           bool accumulate)
{
    const size_t wide = PRODUCT_VECTORS * LANES;
    size_t j = 0;
    for (; j + wide <= n; j += wide)
        strip_wide(m, k, a, a_row, a_column, b + j, b_row, c + j, c_row, accumulate);
    for (; j + LANES <= n; j += LANES)
        strip_single(m, k, a, a_row, a_column, b + j, b_row, c + j, c_row, accumulate);
    if (j < n) strip_tail(n - j, m, k, a, a_row, a_column, b + j, b_row, c + j, c_row, accumulate);
}

/* Plain C that the compiler makes vectors of: four rows of b for each visit of a row of c. */
static void kernel_product_double(size_t m, size_t n, size_t k, const double *a, size_t a_row,
                                  size_t a_column, const double *b, size_t b_row, double *c,
                                  size_t c_row, bool accumulate)
{
    for (size_t i = 0; i < m; i++) {
        double *restrict ci = c + i * c_row;
        const double *ai = a + i * a_row;
        size_t p = 0;
        if (!accumulate)
            for (size_t j = 0; j < n; j++) ci[j] = 0.0;
        for (; p + 4 <= k; p += 4) {
            const double a0 = ai[p * a_column], a1 = ai[(p + 1) * a_column];
            const double a2 = ai[(p + 2) * a_column], a3 = ai[(p + 3) * a_column];
            const double *restrict b0 = b + p * b_row, *restrict b1 = b0 + b_row;
            const double *restrict b2 = b1 + b_row, *restrict b3 = b2 + b_row;
            for (size_t j = 0; j < n; j++)
                ci[j] = fma(a3, b3[j], fma(a2, b2[j], fma(a1, b1[j], fma(a0, b0[j], ci[j]))));
        }
        for (; p < k; p++) {
            const double ap = ai[p * a_column];
            const double *restrict bp = b + p * b_row;
            for (size_t j = 0; j < n; j++) ci[j] = fma(ap, bp[j], ci[j]);
        }
    }
}

/* Blocks of 8 x 8 keep both sides within a few cache lines. */
static void kernel_transpose(size_t rows, size_t columns, const float *in, size_t in_row,
                             float *out, size_t out_row)
{
    enum { BLOCK = 8 };
    for (size_t i0 = 0; i0 < rows; i0 += BLOCK) {
        const size_t i1 = i0 + BLOCK < rows ? i0 + BLOCK : rows;
        for (size_t j = 0; j < columns; j++)
            for (size_t i = i0; i < i1; i++) out[j * out_row + i] = in[i * in_row + j];
    }
}

/* ---- rows -------------------------------------------------------------------------------- */

static float kernel_maximum(size_t n, const float *x)
{
    vf top = all(-INFINITY);
    float tail_top = -INFINITY;
    size_t at = 0;
    for (; at + LANES <= n; at += LANES) top = larger(load(x + at), top);
    for (; at < n; at++)
        if (x[at] > tail_top) tail_top = x[at];
    const float most = largest_lane(top);
    return most > tail_top ? most : tail_top;
}

static float kernel_sum(size_t n, const float *x)
{
    vf s = zero();
    FOR_VECTORS(n) s = add(s, take(x + at, left));
    return sum_lanes(s);
}

static double kernel_dot_double(size_t n, const float *x, const float *y)
{
    vd s = zero_double();
    FOR_VECTORS(n) s = fused_double(take(x + at, left), take(y + at, left), s);
    return sum_lanes_double(s);
}

static double kernel_sum_squares(size_t n, const float *x)
{
    return kernel_dot_double(n, x, x);
}

static float kernel_dot(size_t n, const float *x, const float *y)
{
    vf s = zero();
    FOR_VECTORS(n) s = fused(take(x + at, left), take(y + at, left), s);
    return sum_lanes(s);
}

static void kernel_add(size_t n, const float *x, float *y)
{
    FOR_VECTORS(n) put(y + at, left, add(take(y + at, left), take(x + at, left)));
}

static void kernel_add_scaled(size_t n, float a, const float *x, float *y)
{
    const vf by = all(a);
    FOR_VECTORS(n) put(y + at, left, fused(by, take(x + at, left), take(y + at, left)));
}

static void kernel_scale(size_t n, float a, float *x)
{
    const vf by = all(a);
    FOR_VECTORS(n) put(x + at, left, mul(by, take(x + at, left)));
}

static float kernel_exp_shifted(size_t n, float shift, float *x)
{
    const vf by = all(shift);
    vf s = zero();
    FOR_VECTORS(n)
    {
        const vf e = first_of(exponential(sub(take(x + at, left), by)), left);
        put(x + at, left, e);
        s = add(s, e);
    }
    return sum_lanes(s);
}

/* Rows whose tile holds no score at all; NaN stays NaN. */
static float clear_empty(size_t n, float *s)
{
    float total = 0.0f;
    for (size_t j = 0; j < n; j++) {
        if (s[j] == -INFINITY) s[j] = 0.0f;
        total += s[j];
    }
    return total;
}

static void kernel_online_softmax(size_t rows, size_t n, float factor, float *s, size_t s_row,
                                  float *top, float *total, float *correction)
{
    const vf by = all(factor);
    for (size_t i = 0; i < rows; i++) {
        float *si = s + i * s_row;
        const float here = factor * kernel_maximum(n, si), c = here > top[i] ? here : top[i];
        if (c == -INFINITY) {
            correction[i] = 1.0f;
            total[i] += clear_empty(n, si);
            continue;
        }
        const vf shift = all(-c);
        vf sums = zero();
        FOR_VECTORS(n)
        {
            const vf p = first_of(exponential(fused(by, take(si + at, left), shift)), left);
            put(si + at, left, p);
            sums = add(sums, p);
        }
        correction[i] = exponential_lane(top[i] - c);
        total[i] = correction[i] * total[i] + sum_lanes(sums);
        top[i] = c;
    }
}

static void kernel_online_softmax_gradient(size_t rows, size_t n, float factor, const float *top,
                                           const float *delta, float *s, size_t s_row, float *dp,
                                           size_t dp_row)
{
    const vf by = all(factor);
    for (size_t i = 0; i < rows; i++) {
        float *si = s + i * s_row, *di = dp + i * dp_row;
        const vf shift = all(-top[i]), d = all(delta[i]);
        FOR_VECTORS(n)
        {
            const vf p = exponential(fused(by, take(si + at, left), shift));
            put(si + at, left, p);
            put(di + at, left, mul(p, sub(take(di + at, left), d)));
        }
    }
}

static void kernel_scale_rows(size_t rows, size_t n, const float *factors, float *x, size_t x_row)
{
    for (size_t i = 0; i < rows; i++) kernel_scale(n, factors[i], x + i * x_row);
}

static void kernel_softmax_gradient(size_t n, float factor, const float *p, const float *dp,
                                    float delta, float *ds)
{
    const vf f = all(factor), d = all(delta);
    FOR_VECTORS(n)
    put(ds + at, left, mul(mul(f, take(p + at, left)), sub(take(dp + at, left), d)));
}

static void kernel_layer_norm(size_t n, float epsilon, const float *x, const float *gain,
                              const float *bias, float *y, float *mean, float *inverse_deviation)
{
    const float mu = kernel_sum(n, x) / (float)n;
    const vf m = all(mu);
    vf squares = zero();
    FOR_VECTORS(n)
    {
        const vf d = first_of(sub(take(x + at, left), m), left);
        squares = fused(d, d, squares);
    }
    const float r = 1.0f / sqrtf(sum_lanes(squares) / (float)n + epsilon);
    const vf by = all(r);
    FOR_VECTORS(n)
    {
        const vf x_hat = mul(sub(take(x + at, left), m), by);
        put(y + at, left, fused(x_hat, take(gain + at, left), take(bias + at, left)));
    }
    *mean = mu;
    *inverse_deviation = r;
}

static void kernel_layer_norm_gradient(size_t n, const float *x, const float *gain, float mean,
                                       float inverse_deviation, const float *dy, float *dx,
                                       float *dgain, float *dbias)
{
    const vf m = all(mean), r = all(inverse_deviation);
    vf sum_g = zero(), sum_gx = zero();
    FOR_VECTORS(n)
    {
        const vf d = take(dy + at, left), g = mul(take(gain + at, left), d);
        const vf x_hat = mul(sub(take(x + at, left), m), r);
        sum_g = add(sum_g, g);
        sum_gx = fused(g, x_hat, sum_gx);
        put(dgain + at, left, fused(d, x_hat, take(dgain + at, left)));
        put(dbias + at, left, add(d, take(dbias + at, left)));
    }
    const vf mean_g = all(sum_lanes(sum_g) / (float)n), mean_gx = all(sum_lanes(sum_gx) / (float)n);
    FOR_VECTORS(n)
    {
        const vf g = mul(take(gain + at, left), take(dy + at, left));
        const vf x_hat = mul(sub(take(x + at, left), m), r);
        const vf d = fused_negative(x_hat, mean_gx, sub(g, mean_g));
        put(dx + at, left, fused(d, r, take(dx + at, left)));
    }
}

/* ---- activations ------------------------------------------------------------------------- */

/* sigmoid of GELU's doubled argument x (c1 + c3 x^2), see kernels_ref.c */
static inline vf gelu_gate(vf x, vf square)
{
    const vf c1 = all(1.5957691216057308f), c3 = all(0.07135481282952614f), one = all(1.0f);
    const vf minus_u = fused_negative(x, fused(c3, square, c1), zero());
    return quotient(one, add(one, exponential(minus_u)));
}

static void kernel_gelu(size_t n, const float *x, float *y)
{
    FOR_VECTORS(n)
    {
        const vf xi = take(x + at, left);
        put(y + at, left, mul(xi, gelu_gate(xi, mul(xi, xi))));
    }
}

static void kernel_gelu_gradient(size_t n, const float *x, const float *dy, float *dx)
{
    const vf c1 = all(1.5957691216057308f), c3 = all(3.0f * 0.07135481282952614f), one = all(1.0f);
    FOR_VECTORS(n)
    {
        const vf xi = take(x + at, left), square = mul(xi, xi), s = gelu_gate(xi, square);
        const vf bend = mul(mul(mul(xi, s), sub(one, s)), fused(c3, square, c1));
        put(dx + at, left, mul(take(dy + at, left), add(s, bend)));
    }
}

static void kernel_elu_plus_one(size_t n, const float *x, float *y)
{
    const vf one = all(1.0f);
    FOR_VECTORS(n)
    {
        const vf xi = take(x + at, left);
        put(y + at, left, choose_greater(xi, zero(), add(xi, one), exponential(xi)));
    }
}

static void kernel_elu_plus_one_gradient(size_t n, const float *y, const float *dy, float *dx)
{
    const vf one = all(1.0f);
    FOR_VECTORS(n)
    {
        const vf yi = take(y + at, left), di = take(dy + at, left);
        put(dx + at, left, choose_greater(yi, one, di, mul(di, yi)));
    }
}

#include "kernels/kernels_simd_gates.h"
#include "kernels/kernels_simd_scores.h"
#include "kernels/kernels_simd_training.h"

#define KERNELS_TABLE(level)                                                                       \
    {                                                                                              \
        .isa = level, .product = kernel_product, .product_double = kernel_product_double,          \
        .transpose = kernel_transpose, .maximum = kernel_maximum, .sum = kernel_sum,               \
        .sum_squares = kernel_sum_squares, .dot = kernel_dot, .dot_double = kernel_dot_double,     \
        .add = kernel_add, .add_scaled = kernel_add_scaled, .scale = kernel_scale,                 \
        .exp_shifted = kernel_exp_shifted, .online_softmax = kernel_online_softmax,                \
        .online_softmax_gradient = kernel_online_softmax_gradient, .add_ramp = kernel_add_ramp,    \
        .softcap = kernel_softcap, .scale_rows = kernel_scale_rows,                                \
        .softmax_gradient = kernel_softmax_gradient, .layer_norm = kernel_layer_norm,              \
        .layer_norm_gradient = kernel_layer_norm_gradient, .gelu = kernel_gelu,                    \
        .gelu_gradient = kernel_gelu_gradient, .elu_plus_one = kernel_elu_plus_one,                \
        .elu_plus_one_gradient = kernel_elu_plus_one_gradient, .multiply = kernel_multiply,        \
        .add_product = kernel_add_product, .silu = kernel_silu,                                    \
        .silu_gradient = kernel_silu_gradient, .log_sigmoid = kernel_log_sigmoid,                  \
        .log_sigmoid_gradient = kernel_log_sigmoid_gradient, .rotate = kernel_rotate,              \
        .cross_entropy = kernel_cross_entropy, .adamw = kernel_adamw,                              \
    }
