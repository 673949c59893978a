/* Vector kernels of the loss and of AdamW, a part of kernels_simd.h: written over the names of
 * simd_<isa>.h and the helpers that stand before its inclusion. */
#ifndef KERNELS_SIMD_TRAINING_H
#define KERNELS_SIMD_TRAINING_H

static float sum_exponentials(size_t n, float shift, const float *x)
{
    const vf by = all(shift);
    vf s = zero();
    FOR_VECTORS(n) s = add(s, first_of(exponential(sub(take(x + at, left), by)), left));
    return sum_lanes(s);
}

/* y = a x, rounded */
static void scale_to_bf16(size_t n, float a, const float *x, attn_bf16 *y)
{
    const vf by = all(a);
    size_t at = 0;
    for (; at + LANES <= n; at += LANES) store_bf16(y + at, mul(by, load(x + at)));
    for (; at < n; at++) y[at] = attn_bf16_from_float(a * x[at]);
}

static double kernel_cross_entropy(size_t n, float *logits, size_t target, float gradient_scale,
                                   attn_bf16 *gradient)
{
    enum { CHUNK = 2048 }; /* a chunk's sum is taken in float, the chunks' in double */
    const bool wants_gradient = gradient_scale != 0.0f;
    const float top = kernel_maximum(n, logits), wanted = logits[target];
    double total = 0.0;
    for (size_t first = 0; first < n; first += CHUNK) {
        const size_t count = first + CHUNK < n ? (size_t)CHUNK : n - first;
        total += (double)(wants_gradient ? kernel_exp_shifted(count, top, logits + first)
                                         : sum_exponentials(count, top, logits + first));
    }
    const float factor = (float)((double)gradient_scale / total);
    if (wants_gradient && gradient) {
        scale_to_bf16(n, factor, logits, gradient);
        gradient[target] = attn_bf16_from_float(factor * logits[target] - gradient_scale);
    } else if (wants_gradient) {
        kernel_scale(n, factor, logits);
        logits[target] -= gradient_scale;
    }
    return log(total) - (double)(wanted - top);
}

static void kernel_adamw(size_t n, const attn_adamw_step *step, const float *g, float *m, float *v,
                         float *p)
{
    const vf b1 = all(step->beta1), c1 = all(1.0f - step->beta1);
    const vf b2 = all(step->beta2), c2 = all(1.0f - step->beta2);
    const vf by = all(step->gradient_scale), epsilon = all(step->epsilon);
    const vf keep = all(1.0f - step->learning_rate * step->decay);
    const vf rate = all(step->learning_rate / step->correction1);
    const vf inverse_root = all(1.0f / sqrtf(step->correction2));
    FOR_VECTORS(n)
    {
        const vf gi = mul(by, take(g + at, left));
        const vf mi = fused(c1, gi, mul(b1, take(m + at, left)));
        const vf vi = fused(mul(c2, gi), gi, mul(b2, take(v + at, left)));
        const vf deviation = fused(root(vi), inverse_root, epsilon);
        put(m + at, left, mi);
        put(v + at, left, vi);
        put(p + at, left,
            fused_negative(rate, mul(mi, reciprocal(deviation)), mul(keep, take(p + at, left))));
    }
}

#endif
