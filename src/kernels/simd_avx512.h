/* Vectors of 16 floats on AVX-512. The same names as simd_avx2.h; kernels_simd.h is written
 * over them. Only static inline functions: nothing here may be emitted for other files. */
#ifndef KERNELS_SIMD_AVX512_H
#define KERNELS_SIMD_AVX512_H

#include "kernels/simd_unroll.h"

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>

typedef __m512 vf;
typedef __mmask16 vmask; /* lanes in use */

enum { LANES = 16, PRODUCT_ROWS = 6, PRODUCT_VECTORS = 4 };
enum { FEW_ROWS = 4, WEIGH_VECTORS = 4 };

static inline vmask first_lanes(size_t n)
{
    return (vmask)((1u << n) - 1u);
}
static inline vf load(const float *p)
{
    return _mm512_loadu_ps(p);
}
static inline vf load_some(const float *p, vmask m)
{
    return _mm512_maskz_loadu_ps(m, p);
}
static inline void store(float *p, vf a)
{
    _mm512_storeu_ps(p, a);
}
/* past the caches; p on a whole vector */
static inline void stream(float *p, vf a)
{
    _mm512_stream_ps(p, a);
}
static inline void store_some(float *p, vmask m, vf a)
{
    _mm512_mask_storeu_ps(p, m, a);
}
static inline vf all(float a)
{
    return _mm512_set1_ps(a);
}
static inline vf zero(void)
{
    return _mm512_setzero_ps();
}
static inline vf add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}
static inline vf sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}
static inline vf mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}
static inline vf quotient(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}
/* 1 / a within 1.1 u, u = 2^-24; twice as fast as a quotient. A step of Newton's from 14 bits; what
 * has none (0, infinity, NaN) keeps the first guess, which is right. */
static inline vf reciprocal(vf a)
{
    const vf guess = _mm512_rcp14_ps(a);
    const vf rest = _mm512_fnmadd_ps(a, guess, _mm512_set1_ps(1.0f));
    return _mm512_mask_fmadd_ps(guess, _mm512_cmp_ps_mask(rest, rest, _CMP_ORD_Q), rest, guess);
}
static inline vf root(vf a)
{
    return _mm512_sqrt_ps(a);
}
/* the first `left` lanes, zero in the others */
static inline vf first_of(vf a, size_t left)
{
    return left >= LANES ? a : _mm512_maskz_mov_ps(first_lanes(left), a);
}
/* the first `left` lanes, those of `fill` in the others */
static inline vf fill_after(vf a, size_t left, vf fill)
{
    return left >= LANES ? a : _mm512_mask_mov_ps(fill, first_lanes(left), a);
}
/* a b + c in one rounding */
static inline vf fused(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}
/* a b - c in one rounding */
static inline vf fused_difference(vf a, vf b, vf c)
{
    return _mm512_fmsub_ps(a, b, c);
}
/* c - a b in one rounding */
static inline vf fused_negative(vf a, vf b, vf c)
{
    return _mm512_fnmadd_ps(a, b, c);
}
/* b where either is NaN */
static inline vf larger(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}
static inline vf smaller_of(vf a, vf b)
{
    return _mm512_min_ps(a, b);
}
static inline vf choose_greater(vf a, vf b, vf then, vf otherwise)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), otherwise, then);
}
static inline bool any_greater(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0;
}
/* whether a lane is not b or less */
static inline bool any_beyond(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_NLE_UQ) != 0;
}
static inline float first_lane(vf a)
{
    return _mm512_cvtss_f32(a);
}
static inline float sum_lanes(vf a)
{
    return _mm512_reduce_add_ps(a);
}
/* the sums of four vectors behind each other */
static inline void store_sums(float *p, vf a, vf b, vf c, vf d)
{
    const vf ab = add(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const vf cd = add(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const vf s = add(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
    const __m256 t = _mm256_add_ps(_mm512_castps512_ps256(s), _mm512_extractf32x8_ps(s, 1));
    _mm_storeu_ps(p, _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1)));
}
static inline float largest_lane(vf a)
{
    return _mm512_reduce_max_ps(a);
}
static inline vf nearest_whole(vf a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* a 2^n for whole n, 0 where x < bound, NaN where x is NaN */
static inline vf scale_power(vf a, vf n, vf x, vf bound)
{
    const __mmask16 kept = _mm512_cmp_ps_mask(x, bound, _CMP_NLT_UQ);
    return _mm512_maskz_scalef_ps(kept, a, n);
}
/* x - floor(x), 0 at an infinity */
static inline vf above_floor(vf x)
{
    return _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
/* a 2^floor(x), 0 where x < bound, NaN where x is NaN */
static inline vf scale_by_floor(vf a, vf x, vf bound)
{
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, bound, _CMP_NLT_UQ), a, x);
}
/* a[i][j] and a[j][i] change places: pairs of floats, pairs of pairs, then 128-bit lanes */
static inline void transpose_square(vf a[LANES])
{
    vf b[LANES];
    UNROLL for (int i = 0; i < LANES; i += 4)
    {
        const vf low0 = _mm512_unpacklo_ps(a[i], a[i + 1]);
        const vf high0 = _mm512_unpackhi_ps(a[i], a[i + 1]);
        const vf low1 = _mm512_unpacklo_ps(a[i + 2], a[i + 3]);
        const vf high1 = _mm512_unpackhi_ps(a[i + 2], a[i + 3]);
        b[i] = _mm512_shuffle_ps(low0, low1, 0x44);
        b[i + 1] = _mm512_shuffle_ps(low0, low1, 0xee);
        b[i + 2] = _mm512_shuffle_ps(high0, high1, 0x44);
        b[i + 3] = _mm512_shuffle_ps(high0, high1, 0xee);
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        const vf even0 = _mm512_shuffle_f32x4(b[i], b[i + 4], 0x88);
        const vf odd0 = _mm512_shuffle_f32x4(b[i], b[i + 4], 0xdd);
        const vf even1 = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0x88);
        const vf odd1 = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0xdd);
        a[i] = _mm512_shuffle_f32x4(even0, even1, 0x88);
        a[i + 4] = _mm512_shuffle_f32x4(odd0, odd1, 0x88);
        a[i + 8] = _mm512_shuffle_f32x4(even0, even1, 0xdd);
        a[i + 12] = _mm512_shuffle_f32x4(odd0, odd1, 0xdd);
    }
}

#include "kernels/simd_avx512_bf16.h"

#endif
