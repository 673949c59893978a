/* Vectors of 4 doubles on AVX2, for products: the names of simd_avx2.h with _double behind them. */
#ifndef KERNELS_SIMD_AVX2_DOUBLE_H
#define KERNELS_SIMD_AVX2_DOUBLE_H

#include "kernels/simd_avx2.h"

typedef __m256d vd;

enum { LANES_DOUBLE = 4 };

static inline vmask first_lanes_double(size_t n)
{
    const __m256i lane = _mm256_setr_epi64x(0, 1, 2, 3);
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x((long long)n), lane);
}
static inline vd load_double(const double *p)
{
    return _mm256_loadu_pd(p);
}
static inline vd load_some_double(const double *p, vmask m)
{
    return _mm256_maskload_pd(p, m);
}
static inline void store_double(double *p, vd a)
{
    _mm256_storeu_pd(p, a);
}
static inline void store_some_double(double *p, vmask m, vd a)
{
    _mm256_maskstore_pd(p, m, a);
}
static inline vd all_double(double a)
{
    return _mm256_set1_pd(a);
}
static inline vd zero_double(void)
{
    return _mm256_setzero_pd();
}
static inline vd fused_double(vd a, vd b, vd c)
{
    return _mm256_fmadd_pd(a, b, c);
}
/* as many floats as lanes */
static inline vd load_widened(const float *p)
{
    return _mm256_cvtps_pd(_mm_loadu_ps(p));
}
static inline double sum_lanes_double(vd a)
{
    const __m128d pair = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));
    return _mm_cvtsd_f64(_mm_add_sd(pair, _mm_unpackhi_pd(pair, pair)));
}

#endif
