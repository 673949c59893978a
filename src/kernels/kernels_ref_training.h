/* The loss and AdamW in plain C, a part of kernels_ref.c. */
#ifndef KERNELS_REF_TRAINING_H
#define KERNELS_REF_TRAINING_H

static double cross_entropy(size_t n, float *logits, size_t target, float gradient_scale,
                            attn_bf16 *gradient)
{
    const float top = maximum(n, logits), wanted = logits[target];
    double total = 0.0;
    if (gradient_scale == 0.0f) {
        for (size_t i = 0; i < n; i++) total += (double)expf(logits[i] - top);
        return log(total) - (double)(wanted - top);
    }
    for (size_t i = 0; i < n; i++) {
        logits[i] = expf(logits[i] - top);
        total += (double)logits[i];
    }
    const float factor = gradient_scale / (float)total;
    for (size_t i = 0; i < n; i++) logits[i] *= factor;
    logits[target] -= gradient_scale;
    if (gradient) bf16_from_float(n, logits, gradient);
    return log(total) - (double)(wanted - top);
}

static void adamw(size_t n, const attn_adamw_step *step, const float *g, float *m, float *v,
                  float *p)
{
    const float b1 = step->beta1, b2 = step->beta2;
    const float keep = 1.0f - step->learning_rate * step->decay;
    const float rate = step->learning_rate / step->correction1;
    const float root = 1.0f / sqrtf(step->correction2);
    for (size_t i = 0; i < n; i++) {
        const float gi = step->gradient_scale * g[i];
        m[i] = b1 * m[i] + (1.0f - b1) * gi;
        v[i] = b2 * v[i] + (1.0f - b2) * gi * gi;
        p[i] = keep * p[i] - rate * m[i] / (sqrtf(v[i]) * root + step->epsilon);
    }
}

#endif
