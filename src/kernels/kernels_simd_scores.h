/* Vector kernels of score functions, a part of kernels_simd.h: written over the names of
 * simd_<isa>.h and the helpers that stand before its inclusion. */
#ifndef KERNELS_SIMD_SCORES_H
#define KERNELS_SIMD_SCORES_H

static void kernel_add_ramp(size_t n, float factor, float step, float first, float *s)
{
    static const float count[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const vf by = all(factor), slope = all(step), lanes = load(count);
    FOR_VECTORS(n)
    {
        const vf place = add(all(first + (float)at), lanes);
        put(s + at, left, fused(slope, place, mul(by, take(s + at, left))));
    }
}

/* tanh(x) = u / (u + 2) with u = exp(2 |x|) - 1, whose small values lose nothing: the whole
 * power of two is taken off before the 1. From 2 |x| = 40 on the quotient rounds to 1. */
static inline vf hyperbolic_tangent(vf x)
{
    const vf size = larger(x, sub(zero(), x)), one = all(1.0f);
    const vf y = smaller_of(all(40.0f), add(size, size));
    vf n;
    const vf e = exponential_core(y, &n);
    const vf u = add(scale_power(e, n, y, zero()), sub(scale_power(one, n, y, zero()), one));
    const vf t = quotient(u, add(u, all(2.0f)));
    return choose_greater(zero(), x, sub(zero(), t), t);
}

static void kernel_softcap(size_t n, float factor, float cap, float *s, float *slope)
{
    const vf by = all(factor), c = all(cap), one = all(1.0f);
    FOR_VECTORS(n)
    {
        const vf t = hyperbolic_tangent(quotient(mul(by, take(s + at, left)), c));
        put(s + at, left, mul(c, t));
        if (slope) put(slope + at, left, fused_negative(t, t, one));
    }
}

#endif
