/* Every vector kernel, written once over the names of simd_<isa>.h. A file that includes both
 * and fills a table with TABLE_NAME is one instruction set; see kernels_avx512.c.
 *
 * Tails are masked, never padded: memory past n is neither read nor written. */
#include "kernels/bf16_cells.h"
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

/* 2^x = 2^floor(x) 2^f, 0 <= f < 1, and 2^f = 1 + f q(f), q of degree 5 fitted for the least
 * relative error (2.0e-9; with its roundings the whole is within 1.1 u). 0 below 2^least, which is
 * a normal number. */
static inline vf power_of_two_above(vf x, float least)
{
    const vf f = above_floor(x);
    vf q = fused(f, all(0x1.c54174p-13f), all(0x1.46d64ep-10f));
    q = fused(f, q, all(0x1.3d0b92p-7f));
    q = fused(f, q, all(0x1.c68912p-5f));
    q = fused(f, q, all(0x1.ebfd58p-3f));
    q = fused(f, q, all(0x1.62e42cp-1f));
    return scale_by_floor(fused(f, q, all(1.0f)), x, all(least));
}

static inline vf power_of_two(vf x)
{
    return power_of_two_above(x, -126.0f);
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

#include "kernels/kernels_simd_few.h"
#include "kernels/kernels_simd_product.h"

/* ---- rows -------------------------------------------------------------------------------- */

static float kernel_maximum(size_t n, const float *x)
{
    vf top = all(-INFINITY), tops[3] = {top, top, top}; /* none waits for the one before */
    float tail_top = -INFINITY;
    size_t at = 0;
    for (; at + 4 * LANES <= n; at += 4 * LANES) {
        top = larger(load(x + at), top);
        for (size_t i = 0; i < 3; i++) tops[i] = larger(load(x + at + (i + 1) * LANES), tops[i]);
    }
    for (; at + LANES <= n; at += LANES) top = larger(load(x + at), top);
    for (; at < n; at++)
        if (x[at] > tail_top) tail_top = x[at];
    const float most = largest_lane(larger(larger(tops[0], tops[1]), larger(tops[2], top)));
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
    vd even = zero_double(), odd = zero_double();
    size_t at = 0;
    for (; at + LANES <= n; at += LANES) {
        even = fused_double(load_widened(x + at), load_widened(y + at), even);
        odd = fused_double(load_widened(x + at + LANES_DOUBLE), load_widened(y + at + LANES_DOUBLE),
                           odd);
    }
    double total = sum_lanes_double(even) + sum_lanes_double(odd);
    for (; at < n; at++) total = fma((double)x[at], (double)y[at], total);
    return total;
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

static void kernel_keep_lower(size_t rows, size_t n, const float *factors, float *a, size_t a_row)
{
    for (size_t i = 0; i < rows; i++, a += a_row) {
        const float *by = factors ? factors + rows - 1 - i : NULL;
        FOR_VECTORS(n)
        {
            const size_t kept = i + 1 <= at ? 0 : i + 1 - at < left ? i + 1 - at : left;
            vf x = first_of(take(a + at, left), kept);
            if (by && kept) x = mul(x, take(by + at, kept));
            put(a + at, left, x);
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

/* sigmoid of GELU's doubled argument x (c1 + c3 x^2), see kernels_ref.c; here -log2(e) times c1, c3 */
static inline vf gelu_gate(vf x, vf square)
{
    const vf c1 = all(-2.3022081981443f), c3 = all(-0.1029432346127f), one = all(1.0f);
    return reciprocal(add(one, power_of_two(mul(x, fused(c3, square, c1)))));
}

static void kernel_gelu(size_t n, const float *x, float *y)
{
    FOR_VECTORS(n)
    {
        const vf xi = take(x + at, left);
        put(y + at, left, mul(xi, gelu_gate(xi, mul(xi, xi))));
    }
}

static void kernel_gelu_gradient(size_t n, const float *x, const float *dy, float *dx, float *y)
{
    const vf c1 = all(1.5957691216057308f), c3 = all(3.0f * 0.07135481282952614f), one = all(1.0f);
    FOR_VECTORS(n)
    {
        const vf xi = take(x + at, left), square = mul(xi, xi), s = gelu_gate(xi, square);
        const vf yi = mul(xi, s), bend = mul(mul(yi, sub(one, s)), fused(c3, square, c1));
        put(dx + at, left, mul(take(dy + at, left), add(s, bend)));
        if (y) put(y + at, left, yi);
    }
}

static bool kernel_elu_plus_one(size_t rows, size_t n, const float *x, size_t x_row, float *y)
{
    const vf one = all(1.0f), lowest = all(-INFINITY), below_zero = all(-FLT_TRUE_MIN);
    bool each = true;
    for (size_t i = 0; i < rows; i++, x += x_row, y += n) {
        vf top = lowest;
        FOR_VECTORS(n)
        {
            const vf xi = take(x + at, left);
            top = larger(fill_after(xi, left, lowest), top);
            put(y + at, left, choose_greater(xi, zero(), add(xi, one), exponential(xi)));
        }
        each = each && any_greater(top, below_zero);
    }
    return each;
}

static void kernel_elu_plus_one_gradient(size_t n, const float *x, const float *y, const float *dy,
                                         float *dx)
{
    const vf one = all(1.0f);
    FOR_VECTORS(n)
    {
        const vf xi = take(x + at, left), yi = take(y + at, left);
        const vf slope = choose_greater(xi, zero(), quotient(yi, add(xi, one)), yi);
        put(dx + at, left, mul(take(dy + at, left), slope));
    }
}

/* ---- bfloat16 ---------------------------------------------------------------------------- */

static void kernel_bf16_from_float(size_t n, const float *x, attn_bf16 *y)
{
    size_t at = 0;
    for (; at + LANES <= n; at += LANES) store_bf16(y + at, load(x + at));
    for (; at < n; at++) y[at] = attn_bf16_from_float(x[at]);
}

static void kernel_bf16_to_float(size_t n, const attn_bf16 *x, float *y)
{
    size_t at = 0;
    for (; at + LANES <= n; at += LANES) store(y + at, load_bf16(x + at));
    for (; at < n; at++) y[at] = attn_bf16_to_float(x[at]);
}

#include "kernels/kernels_simd_decay.h"
#include "kernels/kernels_simd_gates.h"
#include "kernels/kernels_simd_running.h"
#include "kernels/kernels_simd_scores.h"
#include "kernels/kernels_simd_training.h"

#define KERNELS_TABLE(level, its_product, its_product_ahead)                                       \
    {                                                                                              \
        .isa = level, .product_ahead = its_product_ahead, .product = its_product,                  \
        .product_asking = kernel_product_asking, .product_double = kernel_product_double,          \
        .transpose = kernel_transpose, .copy_rows = kernel_copy_rows,                              \
        .store_rows = kernel_store_rows, .round_rows = kernel_round_rows,                          \
        .maximum = kernel_maximum, .sum = kernel_sum, .sum_squares = kernel_sum_squares,           \
        .dot = kernel_dot, .dot_double = kernel_dot_double, .dot_rows = kernel_dot_rows,           \
        .weigh_rows = kernel_weigh_rows, .add = kernel_add, .add_scaled = kernel_add_scaled,       \
        .scale = kernel_scale, .exp_shifted = kernel_exp_shifted,                                  \
        .online_softmax = kernel_online_softmax,                                                   \
        .online_softmax_gradient = kernel_online_softmax_gradient,                                 \
        .running_softmax = kernel_running_softmax,                                                 \
        .running_softmax_gradient = kernel_running_softmax_gradient, .add_ramp = kernel_add_ramp,  \
        .softcap = kernel_softcap, .keep_lower = kernel_keep_lower,                                \
        .scale_rows = kernel_scale_rows, .softmax_gradient = kernel_softmax_gradient,              \
        .layer_norm = kernel_layer_norm, .layer_norm_gradient = kernel_layer_norm_gradient,        \
        .gelu = kernel_gelu, .gelu_gradient = kernel_gelu_gradient,                                \
        .elu_plus_one = kernel_elu_plus_one,                                                       \
        .elu_plus_one_gradient = kernel_elu_plus_one_gradient, .multiply = kernel_multiply,        \
        .add_product = kernel_add_product, .silu = kernel_silu,                                    \
        .silu_gradient = kernel_silu_gradient, .log_sigmoid = kernel_log_sigmoid,                  \
        .log_sigmoid_gradient = kernel_log_sigmoid_gradient, .rotate = kernel_rotate,              \
        .decayed_scores = kernel_decayed_scores,                                                   \
        .decayed_scores_gradient = kernel_decayed_scores_gradient,                                 \
        .bf16_from_float = kernel_bf16_from_float, .bf16_to_float = kernel_bf16_to_float,          \
        .bf16_strip = kernel_bf16_strip, .cross_entropy = kernel_cross_entropy,                    \
        .adamw = kernel_adamw,                                                                     \
    }
