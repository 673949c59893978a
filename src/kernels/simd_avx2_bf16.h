/* bfloat16 in vectors of simd_avx2.h, which includes this. */
#ifndef KERNELS_SIMD_AVX2_BF16_H
#define KERNELS_SIMD_AVX2_BF16_H

#include "kernels/bf16.h"

static inline vf load_bf16(const attn_bf16 *p)
{
    const __m128i narrow = _mm_loadu_si128((const void *)p);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(narrow), 16));
}
/* of LANES pairs the first ones and the second ones */
static inline void load_pairs(const attn_bf16 *p, vf *first, vf *second)
{
    const __m256i pairs = _mm256_loadu_si256((const void *)p);
    *first = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
    *second = _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32((int)0xffff0000u)));
}
static inline __m128i round_to_bf16(vf a)
{
    const __m256i bits = _mm256_castps_si256(a), top = _mm256_srli_epi32(bits, 16);
    const __m256i odd = _mm256_and_si256(top, _mm256_set1_epi32(1));
    const __m256i half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, half), 16);
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    const __m256i quiet = _mm256_or_si256(top, _mm256_set1_epi32(0x40));
    const __m256i result = _mm256_blendv_epi8(rounded, quiet, is_nan);
    const __m128i low = _mm256_castsi256_si128(result);
    return _mm_packus_epi32(low, _mm256_extracti128_si256(result, 1));
}
static inline void store_bf16(attn_bf16 *p, vf a)
{
    _mm_storeu_si128((void *)p, round_to_bf16(a));
}
static inline void stream_bf16(attn_bf16 *p, vf a)
{
    _mm_stream_si128((void *)p, round_to_bf16(a));
}

#endif
