/* Vectors of 16 floats on AVX-512. The same names as simd_avx2.h; kernels_simd.h is written
 * over them. Only static inline functions: nothing here may be emitted for other files. */
#ifndef KERNELS_SIMD_AVX512_H
#define KERNELS_SIMD_AVX512_H

#include "kernels/bf16.h"
#include "kernels/simd_unroll.h"

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>

typedef __m512 vf;
typedef __mmask16 vmask; /* lanes in use */

enum { LANES = 16, PRODUCT_ROWS = 6, PRODUCT_VECTORS = 4 };

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
static inline float first_lane(vf a)
{
    return _mm512_cvtss_f32(a);
}
static inline float sum_lanes(vf a)
{
    return _mm512_reduce_add_ps(a);
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
/* bfloat16; not vcvtneps2bf16, which turns subnormal numbers into 0 */
static inline vf load_bf16(const attn_bf16 *p)
{
    const __m256i narrow = _mm256_loadu_si256((const void *)p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
}
static inline void store_bf16(attn_bf16 *p, vf a)
{
    const __m512i bits = _mm512_castps_si512(a), top = _mm512_srli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(top, _mm512_set1_epi32(1));
    const __m512i half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, half), 16);
    const __mmask16 is_nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    const __m512i result = _mm512_mask_or_epi32(rounded, is_nan, top, _mm512_set1_epi32(0x40));
    _mm256_storeu_si256((void *)p, _mm512_cvtepi32_epi16(result));
}

#endif
