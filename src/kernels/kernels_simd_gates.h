/* Vector kernels of gates and recurrences, a part of kernels_simd.h: written over the names of
 * simd_<isa>.h and the helpers that stand before its inclusion. */
#ifndef KERNELS_SIMD_GATES_H
#define KERNELS_SIMD_GATES_H

static void kernel_multiply(size_t n, const float *x, float *y)
{
    FOR_VECTORS(n) put(y + at, left, mul(take(x + at, left), take(y + at, left)));
}

static void kernel_add_product(size_t n, const float *a, const float *b, float *y)
{
    FOR_VECTORS(n)
    put(y + at, left, fused(take(a + at, left), take(b + at, left), take(y + at, left)));
}

static inline vf sigmoid(vf x)
{
    const vf one = all(1.0f);
    return quotient(one, add(one, exponential(sub(zero(), x))));
}

static void kernel_silu(size_t n, const float *x, float *y)
{
    FOR_VECTORS(n)
    {
        const vf xi = take(x + at, left);
        put(y + at, left, mul(xi, sigmoid(xi)));
    }
}

static void kernel_silu_gradient(size_t n, const float *x, const float *dy, float *dx)
{
    const vf one = all(1.0f);
    FOR_VECTORS(n)
    {
        const vf xi = take(x + at, left), s = sigmoid(xi);
        const vf slope = fused(mul(xi, s), sub(one, s), s);
        put(dx + at, left, mul(take(dy + at, left), slope));
    }
}

/* log(1 + e) = 2 artanh(s) with s = e / (2 + e); for e in [0, 1] s^2 is at most 1/9, and
 * artanh(s) = s (1 + s^2 p(s^2)) with p of degree 3 fitted for the least relative error (4.5e-9). */
static inline vf log_one_plus(vf e)
{
    const vf s = quotient(e, add(all(2.0f), e)), z = mul(s, s);
    vf p = fused(z, all(0x1.1ed830p-3f), all(0x1.1ebcf8p-3f));
    p = fused(z, p, all(0x1.99d20ap-3f));
    p = fused(z, p, all(0x1.555502p-2f));
    const vf twice = add(s, s);
    return fused(mul(twice, z), p, twice);
}

static void kernel_log_sigmoid(size_t n, const float *x, float *y)
{
    FOR_VECTORS(n)
    {
        const vf xi = take(x + at, left), minus = sub(zero(), xi);
        const vf e = exponential(smaller_of(minus, xi)); /* exp(-|x|), NaN where x is */
        put(y + at, left, sub(smaller_of(zero(), xi), log_one_plus(e)));
    }
}

static void kernel_log_sigmoid_gradient(size_t n, const float *x, const float *dy, float *dx)
{
    const vf one = all(1.0f);
    FOR_VECTORS(n)
    put(dx + at, left, quotient(take(dy + at, left), add(one, exponential(take(x + at, left)))));
}

static void kernel_rotate(size_t n, const float *cosine, const float *sine, float sign,
                          const float *x, float *y)
{
    const vf by = all(sign);
    FOR_VECTORS(n)
    {
        const vf u = take(x + at, left), w = take(x + n + at, left);
        const vf c = take(cosine + at, left), s = mul(by, take(sine + at, left));
        put(y + at, left, fused_negative(w, s, mul(u, c)));
        put(y + n + at, left, fused(u, s, mul(w, c)));
    }
}

#endif
