/* bfloat16 in vectors of simd_avx512.h, which includes this. */
#ifndef KERNELS_SIMD_AVX512_BF16_H
#define KERNELS_SIMD_AVX512_BF16_H

#include "kernels/bf16.h"

/* not vcvtneps2bf16, which turns subnormal numbers into 0 */
static inline vf load_bf16(const attn_bf16 *p)
{
    const __m256i narrow = _mm256_loadu_si256((const void *)p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
}
/* of LANES pairs the first ones and the second ones */
static inline void load_pairs(const attn_bf16 *p, vf *first, vf *second)
{
    const __m512i pairs = _mm512_loadu_si512(p);
    *first = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
    *second = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000u)));
}
static inline __m256i round_to_bf16(vf a)
{
    const __m512i bits = _mm512_castps_si512(a), top = _mm512_srli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(top, _mm512_set1_epi32(1));
    const __m512i half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, half), 16);
    const __mmask16 is_nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    const __m512i result = _mm512_mask_or_epi32(rounded, is_nan, top, _mm512_set1_epi32(0x40));
    return _mm512_cvtepi32_epi16(result);
}
static inline void store_bf16(attn_bf16 *p, vf a)
{
    _mm256_storeu_si256((void *)p, round_to_bf16(a));
}
static inline void stream_bf16(attn_bf16 *p, vf a)
{
    _mm256_stream_si256((void *)p, round_to_bf16(a));
}

#endif
