/* Vectors of 8 doubles on AVX-512, for products: the names of simd_avx512.h with _double behind them;
 * masks are those of floats. */
#ifndef KERNELS_SIMD_AVX512_DOUBLE_H
#define KERNELS_SIMD_AVX512_DOUBLE_H

#include "kernels/simd_avx512.h"

typedef __m512d vd;

enum { LANES_DOUBLE = 8 };

static inline vmask first_lanes_double(size_t n)
{
    return first_lanes(n);
}
static inline vd load_double(const double *p)
{
    return _mm512_loadu_pd(p);
}
static inline vd load_some_double(const double *p, vmask m)
{
    return _mm512_maskz_loadu_pd((__mmask8)m, p);
}
static inline void store_double(double *p, vd a)
{
    _mm512_storeu_pd(p, a);
}
static inline void store_some_double(double *p, vmask m, vd a)
{
    _mm512_mask_storeu_pd(p, (__mmask8)m, a);
}
static inline vd all_double(double a)
{
    return _mm512_set1_pd(a);
}
static inline vd zero_double(void)
{
    return _mm512_setzero_pd();
}
static inline vd fused_double(vd a, vd b, vd c)
{
    return _mm512_fmadd_pd(a, b, c);
}
/* as many floats as lanes */
static inline vd load_widened(const float *p)
{
    return _mm512_cvtps_pd(_mm256_loadu_ps(p));
}
static inline double sum_lanes_double(vd a)
{
    return _mm512_reduce_add_pd(a);
}

#endif
