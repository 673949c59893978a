/* Vector kernels of the running softmax, a part of kernels_simd.h: written over the names of
 * simd_<isa>.h and the helpers that stand before its inclusion. */
#ifndef KERNELS_SIMD_RUNNING_H
#define KERNELS_SIMD_RUNNING_H

/* 2^x = 2^floor(x) 2^f, 0 <= f < 1, and 2^f = 1 + f q(f), q of degree 5 fitted for the least
 * relative error (2.0e-9; with its roundings the whole is within 1.1 u). Results below the
 * smallest normal float are 0. */
static inline vf power_of_two(vf x)
{
    const vf f = above_floor(x);
    vf q = fused(f, all(0x1.c54174p-13f), all(0x1.46d64ep-10f));
    q = fused(f, q, all(0x1.3d0b92p-7f));
    q = fused(f, q, all(0x1.c68912p-5f));
    q = fused(f, q, all(0x1.ebfd58p-3f));
    q = fused(f, q, all(0x1.62e42cp-1f));
    return scale_by_floor(fused(f, q, all(1.0f)), x, all(-126.0f));
}

/* Lane by lane the largest of a row; -inf where n ends before the first vector does. */
static inline vf largest_of_row(size_t n, const float *x)
{
    vf top = all(-INFINITY);
    size_t at = 0;
    for (; at + LANES <= n; at += LANES) top = larger(load(x + at), top);
    for (; at < n; at++) top = larger(all(x[at]), top); /* NaN is passed over */
    return top;
}

/* A row's new reference, when its largest score asks for one. Rare: kept out of the loop. */
static __attribute__((noinline)) void raise_top(const attn_running_rows *state, size_t i,
                                                float largest)
{
    float *top = &state->top[i];
    const bool is_first = *top == -INFINITY;
    if (!(largest > *top)) return;
    const float down = first_lane(power_of_two(all(*top - largest)));
    *top = largest;
    if (is_first) return;
    kernel_scale(ATTN_RUNNING_SUMS, down, state->total + i * ATTN_RUNNING_SUMS);
    kernel_scale(state->width, down, state->o + i * state->o_row);
}

static void kernel_running_softmax(size_t rows, size_t n, float factor, float *s, size_t s_row,
                                   const attn_running_rows *state)
{
    const vf by = all(factor), room = all((float)ATTN_RUNNING_ROOM);
    for (size_t i = 0; i < rows; i++) {
        float *si = s + i * s_row, *total = state->total + i * ATTN_RUNNING_SUMS;
        const vf most = largest_of_row(n, si);
        if (state->top[i] == -INFINITY || any_greater(fused(by, most, all(-state->top[i])), room))
            raise_top(state, i, factor * largest_lane(most));
        const float top = state->top[i];
        const vf shift = all(top == -INFINITY ? 0.0f : -top);
        vf sum = load(total);
        FOR_VECTORS(n)
        {
            const vf p = first_of(power_of_two(fused(by, take(si + at, left), shift)), left);
            put(si + at, left, p);
            sum = add(sum, p);
        }
        store(total, sum);
    }
}

static void kernel_running_softmax_gradient(size_t rows, size_t n, float factor, const float *top,
                                            const float *delta, float *s, size_t s_row, float *dp,
                                            size_t dp_row)
{
    const vf by = all(factor);
    for (size_t i = 0; i < rows; i++) {
        float *si = s + i * s_row, *di = dp + i * dp_row;
        const vf shift = all(-top[i]), d = all(delta[i]);
        FOR_VECTORS(n)
        {
            const vf p = power_of_two(fused(by, take(si + at, left), shift));
            put(si + at, left, p);
            put(di + at, left, mul(p, sub(take(di + at, left), d)));
        }
    }
}

#endif
