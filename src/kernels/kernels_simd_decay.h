/* Vector kernels of scores whose keys decay feature by feature, a part of kernels_simd.h: written
 * over the names of simd_<isa>.h and the helpers that stand before its inclusion. Loops run over a
 * whole block with conditions that vanish when n is one, so that sums and keys stay in registers. */
#ifndef KERNELS_SIMD_DECAY_H
#define KERNELS_SIMD_DECAY_H

/* Columns of scores from j0 on, a vector of them: keys in lanes, one feature after the other. The
 * lanes of keys behind row i hold what they will start with; their sums are not stored. */
static inline __attribute__((always_inline)) void decayed_columns(size_t j0, size_t n, size_t d,
                                                                  const float *q, const float *a,
                                                                  float *k_t, size_t k_row,
                                                                  float *scores, size_t s_row)
{
    enum { BLOCK = ATTN_DECAY_BLOCK };
    vf sums[BLOCK];
    UNROLL for (size_t i = 0; i < BLOCK; i++) sums[i] = zero();
    for (size_t f = 0; f < d; f++) {
        const vf start = take(k_t + f * k_row + j0, n - j0);
        vf k = start;
        UNROLL for (size_t i = 0; i < BLOCK; i++)
        {
            if (i > j0 && i < n) k = fill_after(mul(k, all(a[i * d + f])), i - j0, start);
            if (i >= j0 && i < n) sums[i] = fused(all(q[i * d + f]), k, sums[i]);
        }
        put(k_t + f * k_row + j0, n - j0, k);
    }
    UNROLL for (size_t i = 0; i < BLOCK; i++)
    {
        if (i < j0) put(scores + i * s_row + j0, n - j0, zero());
        if (i >= j0 && i < n) put(scores + i * s_row + j0, n - j0, first_of(sums[i], i + 1 - j0));
    }
}

static void kernel_decayed_scores(size_t n, size_t d, const float *q, const float *a, float *k_t,
                                  size_t k_row, float *scores, size_t s_row)
{
    enum { BLOCK = ATTN_DECAY_BLOCK };
    if (n == BLOCK) {
        decayed_columns(0, BLOCK, d, q, a, k_t, k_row, scores, s_row);
        if ((int)LANES < (int)BLOCK)
            decayed_columns(LANES, BLOCK, d, q, a, k_t, k_row, scores, s_row);
        return;
    }
    for (size_t j = 0; j < n; j += LANES) decayed_columns(j, n, d, q, a, k_t, k_row, scores, s_row);
}

/* Features in lanes: `left` of them. */
static inline __attribute__((always_inline)) void
decayed_gradient_lanes(size_t n, size_t d, size_t left, const float *q, const float *k,
                       const float *a, const float *ds, size_t ds_row, float *dq, float *dk)
{
    enum { BLOCK = ATTN_DECAY_BLOCK };
    vf decayed[BLOCK];
    UNROLL for (size_t i = 1; i < BLOCK; i++)
    {
        if (i >= n) continue;
        const vf by = take(a + i * d, left);
        vf sum = take(dq + i * d, left);
        decayed[i - 1] = take(k + (i - 1) * d, left);
        UNROLL for (size_t j = 0; j < BLOCK; j++)
        {
            if (j >= i) continue;
            decayed[j] = mul(decayed[j], by);
            sum = fused(all(ds[i * ds_row + j]), decayed[j], sum);
        }
        put(dq + i * d, left, sum);
    }
    UNROLL for (size_t back = 2; back <= BLOCK; back++)
    {
        if (back > n) continue;
        const size_t j = n - back;
        const vf by = take(a + (j + 1) * d, left);
        vf sum = take(dk + j * d, left);
        decayed[j + 1] = take(q + (j + 1) * d, left);
        UNROLL for (size_t i = 1; i < BLOCK; i++)
        {
            if (i <= j || i >= n) continue;
            decayed[i] = mul(decayed[i], by);
            sum = fused(all(ds[i * ds_row + j]), decayed[i], sum);
        }
        put(dk + j * d, left, sum);
    }
}

static void kernel_decayed_scores_gradient(size_t n, size_t d, const float *q, const float *k,
                                           const float *a, const float *ds, size_t ds_row,
                                           float *dq, float *dk)
{
    enum { BLOCK = ATTN_DECAY_BLOCK };
    size_t at = 0;
    for (; n == BLOCK && at + LANES <= d; at += LANES)
        decayed_gradient_lanes(BLOCK, d, LANES, q + at, k + at, a + at, ds, ds_row, dq + at,
                               dk + at);
    for (; at < d; at += LANES)
        decayed_gradient_lanes(n, d, d - at, q + at, k + at, a + at, ds, ds_row, dq + at, dk + at);
}

#endif
