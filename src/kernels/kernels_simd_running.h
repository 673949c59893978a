/* Vector kernels of the running softmax, a part of kernels_simd.h: written over the names of
 * simd_<isa>.h and the helpers that stand before its inclusion. */
#ifndef KERNELS_SIMD_RUNNING_H
#define KERNELS_SIMD_RUNNING_H

enum { SHORT_VECTORS = 8 };

/* The powers that a running softmax takes; see ATTN_RUNNING_LEAST. */
static inline vf running_power(vf x)
{
    return power_of_two_above(x, (float)ATTN_RUNNING_LEAST);
}

/* A row's new reference. Rare: kept out of the loop. */
static __attribute__((noinline)) void raise_top(const attn_running_rows *state, size_t i,
                                                float largest)
{
    if (state->has_whole_tops) largest = ceilf(largest);
    if (state->top[i] > ATTN_RUNNING_START) { /* else they are 0 */
        const float down = first_lane(running_power(all(state->top[i] - largest)));
        kernel_scale(ATTN_RUNNING_SUMS, down, state->total + i * ATTN_RUNNING_SUMS);
        kernel_scale(state->width, down, state->o + i * state->o_row);
    }
    state->top[i] = largest;
}

/* A row of `whole` floats, a multiple of LANES, and `left` more: lane by lane the largest. NaN is
 * passed over. */
static inline __attribute__((always_inline)) vf largest_of_row(size_t whole, size_t left,
                                                               const float *s)
{
    vf most = all(-INFINITY);
    if (left) most = larger(fill_after(take(s + whole, left), left, most), most);
    for (size_t at = 0; at < whole; at += LANES) most = larger(load(s + at), most);
    return most;
}

/* Whether row i takes a new reference, of its scores s[n]. */
static __attribute__((noinline)) bool rises(size_t n, float factor, const float *s,
                                            const attn_running_rows *state, size_t i)
{
    const float largest = factor * largest_lane(largest_of_row(n, 0, s));
    if (!(largest - state->top[i] > (float)ATTN_RUNNING_ROOM)) return false;
    raise_top(state, i, largest);
    return true;
}

/* The row becomes its powers of two; their sums are added to total. */
static inline __attribute__((always_inline)) void exponential_row(size_t whole, size_t left, vf by,
                                                                  vf top, float *s, float *total)
{
    vf sum = load(total);
    for (size_t at = 0; at < whole; at += LANES) {
        const vf p = running_power(fused_difference(by, load(s + at), top));
        store(s + at, p);
        sum = add(sum, p);
    }
    if (left) {
        const vf p = running_power(fused_difference(by, take(s + whole, left), top));
        put(s + whole, left, p);
        sum = add(sum, first_of(p, left));
    }
    store(total, sum);
}

/* References first, so that the second loop keeps its constants in registers. */
static inline __attribute__((always_inline)) void running_rows(size_t rows, size_t whole,
                                                               size_t left, float factor, float *s,
                                                               size_t s_row,
                                                               const attn_running_rows *state)
{
    const vf by = all(factor), room = all((float)ATTN_RUNNING_ROOM);
    for (size_t i = 0; i < rows; i++) {
        const vf most = largest_of_row(whole, left, s + i * s_row);
        if (any_greater(fused_difference(by, most, all(state->top[i])), room))
            raise_top(state, i, factor * largest_lane(most));
    }
    const float *top = state->top;
    float *total = state->total;
    for (size_t i = 0; i < rows; i++)
        exponential_row(whole, left, by, all(top[i]), s + i * s_row, total + i * ATTN_RUNNING_SUMS);
}

/* Rows that fit the registers: but for a first time, scores are looked at only where a sum of powers
 * says that one may be far above the reference. */
static inline __attribute__((always_inline)) void short_rows(size_t rows, size_t vectors,
                                                             float factor, float *s, size_t s_row,
                                                             const attn_running_rows *state)
{
    const vf by = all(factor), most = all((float)(1 << ATTN_RUNNING_ROOM));
    for (size_t i = 0; i < rows; i++, s += s_row) {
        vf p[SHORT_VECTORS], sum;
        float *total = state->total + i * ATTN_RUNNING_SUMS;
        if (state->top[i] == ATTN_RUNNING_START) rises(vectors * LANES, factor, s, state, i);
        do {
            const vf top = all(state->top[i]);
            UNROLL for (size_t j = 0; j < vectors; j++) p[j] =
                running_power(fused_difference(by, load(s + j * LANES), top));
            sum = add(p[0], p[1]);
            UNROLL for (size_t j = 2; j < vectors; j++) sum = add(sum, p[j]);
        } while (any_beyond(sum, most) && rises(vectors * LANES, factor, s, state, i));
        UNROLL for (size_t j = 0; j < vectors; j++) store(s + j * LANES, p[j]);
        store(total, add(load(total), sum));
    }
}

static void kernel_running_softmax(size_t rows, size_t n, float factor, float *s, size_t s_row,
                                   const attn_running_rows *state)
{
    const size_t left = n % LANES;
    if (n == SHORT_VECTORS * LANES)
        short_rows(rows, SHORT_VECTORS, factor, s, s_row, state);
    else if (n == SHORT_VECTORS / 2 * LANES)
        short_rows(rows, SHORT_VECTORS / 2, factor, s, s_row, state);
    else if (left == 0)
        running_rows(rows, n, 0, factor, s, s_row, state);
    else
        running_rows(rows, n - left, left, factor, s, s_row, state);
}

static void kernel_running_softmax_gradient(size_t rows, size_t n, float factor, const float *top,
                                            const float *delta, float *s, size_t s_row, float *dp,
                                            size_t dp_row)
{
    const vf by = all(factor);
    for (size_t i = 0; i < rows; i++) {
        float *si = s + i * s_row, *di = dp + i * dp_row;
        const vf c = all(top[i]), d = all(delta[i]);
        size_t at = 0;
        for (; at + LANES <= n; at += LANES) {
            const vf p = running_power(fused_difference(by, load(si + at), c));
            store(si + at, p);
            store(di + at, mul(p, sub(load(di + at), d)));
        }
        if (at < n) {
            const vf p = running_power(fused_difference(by, take(si + at, n - at), c));
            put(si + at, n - at, p);
            put(di + at, n - at, mul(p, sub(take(di + at, n - at), d)));
        }
    }
}

#endif
