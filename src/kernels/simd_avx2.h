/* Vectors of 8 floats on AVX2 with FMA. The same names as simd_avx512.h; kernels_simd.h is
 * written over them. Only static inline functions: nothing here may be emitted for other files. */
#ifndef KERNELS_SIMD_AVX2_H
#define KERNELS_SIMD_AVX2_H

#include "kernels/simd_unroll.h"

#include <immintrin.h>
#include <stdbool.h>
#include <stddef.h>

typedef __m256 vf;
typedef __m256i vmask; /* lanes in use: all bits of the lane */

enum { LANES = 8, PRODUCT_ROWS = 6, PRODUCT_VECTORS = 2 };
enum { FEW_ROWS = 2, WEIGH_VECTORS = 4 };

static inline vmask first_lanes(size_t n)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), lane);
}
static inline vf load(const float *p)
{
    return _mm256_loadu_ps(p);
}
static inline vf load_some(const float *p, vmask m)
{
    return _mm256_maskload_ps(p, m);
}
static inline void store(float *p, vf a)
{
    _mm256_storeu_ps(p, a);
}
/* past the caches; p on a whole vector */
static inline void stream(float *p, vf a)
{
    _mm256_stream_ps(p, a);
}
static inline void store_some(float *p, vmask m, vf a)
{
    _mm256_maskstore_ps(p, m, a);
}
static inline vf all(float a)
{
    return _mm256_set1_ps(a);
}
static inline vf zero(void)
{
    return _mm256_setzero_ps();
}
static inline vf add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}
static inline vf sub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}
static inline vf mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}
static inline vf quotient(vf a, vf b)
{
    return _mm256_div_ps(a, b);
}
/* 1 / a; simd_avx512.h has a faster one */
static inline vf reciprocal(vf a)
{
    return _mm256_div_ps(_mm256_set1_ps(1.0f), a);
}
static inline vf root(vf a)
{
    return _mm256_sqrt_ps(a);
}
/* the first `left` lanes, zero in the others */
static inline vf first_of(vf a, size_t left)
{
    return left >= LANES ? a : _mm256_and_ps(a, _mm256_castsi256_ps(first_lanes(left)));
}
/* the first `left` lanes, those of `fill` in the others */
static inline vf fill_after(vf a, size_t left, vf fill)
{
    return left >= LANES ? a : _mm256_blendv_ps(fill, a, _mm256_castsi256_ps(first_lanes(left)));
}
/* a b + c in one rounding */
static inline vf fused(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}
/* a b - c in one rounding */
static inline vf fused_difference(vf a, vf b, vf c)
{
    return _mm256_fmsub_ps(a, b, c);
}
/* c - a b in one rounding */
static inline vf fused_negative(vf a, vf b, vf c)
{
    return _mm256_fnmadd_ps(a, b, c);
}
/* b where either is NaN */
static inline vf larger(vf a, vf b)
{
    return _mm256_max_ps(a, b);
}
static inline vf smaller_of(vf a, vf b)
{
    return _mm256_min_ps(a, b);
}
static inline vf choose_greater(vf a, vf b, vf then, vf otherwise)
{
    return _mm256_blendv_ps(otherwise, then, _mm256_cmp_ps(a, b, _CMP_GT_OQ));
}
static inline bool any_greater(vf a, vf b)
{
    return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)) != 0;
}
/* whether a lane is not b or less */
static inline bool any_beyond(vf a, vf b)
{
    return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_NLE_UQ)) != 0;
}
static inline float first_lane(vf a)
{
    return _mm256_cvtss_f32(a);
}
static inline float sum_lanes(vf a)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
/* the sums of four vectors behind each other */
static inline void store_sums(float *p, vf a, vf b, vf c, vf d)
{
    const vf s = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    _mm_storeu_ps(p, _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
}
static inline float largest_lane(vf a)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
static inline vf nearest_whole(vf a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* a 2^n for whole n, 0 where x < bound, NaN where x is NaN. The power is applied in two halves,
 * since 2^128 is no float. */
static inline vf scale_power(vf a, vf n, vf x, vf bound)
{
    const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    const __m256i bias = _mm256_set1_epi32(127), rest = _mm256_sub_epi32(whole, half);
    const vf p = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    const vf q = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
    return _mm256_and_ps(_mm256_cmp_ps(x, bound, _CMP_NLT_UQ), mul(mul(a, p), q));
}
/* x - floor(x), 0 at an infinity */
static inline vf above_floor(vf x)
{
    const vf bounded = smaller_of(all(256.0f), larger(all(-256.0f), x)); /* NaN goes through */
    return sub(bounded, _mm256_floor_ps(bounded));
}
/* a 2^floor(x), 0 where x < bound, NaN where x is NaN */
static inline vf scale_by_floor(vf a, vf x, vf bound)
{
    const vf bounded = smaller_of(all(256.0f), larger(all(-256.0f), x));
    return scale_power(a, _mm256_floor_ps(bounded), x, bound);
}
/* a[i][j] and a[j][i] change places: pairs of floats, pairs of pairs, then halves */
static inline void transpose_square(vf a[LANES])
{
    vf b[LANES];
    UNROLL for (int i = 0; i < LANES; i += 4)
    {
        const vf low0 = _mm256_unpacklo_ps(a[i], a[i + 1]);
        const vf high0 = _mm256_unpackhi_ps(a[i], a[i + 1]);
        const vf low1 = _mm256_unpacklo_ps(a[i + 2], a[i + 3]);
        const vf high1 = _mm256_unpackhi_ps(a[i + 2], a[i + 3]);
        b[i] = _mm256_shuffle_ps(low0, low1, 0x44);
        b[i + 1] = _mm256_shuffle_ps(low0, low1, 0xee);
        b[i + 2] = _mm256_shuffle_ps(high0, high1, 0x44);
        b[i + 3] = _mm256_shuffle_ps(high0, high1, 0xee);
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        a[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
        a[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
}

#include "kernels/simd_avx2_bf16.h"

#endif
