/* Squares of 32 x 32 bfloat16 numbers in vectors, a row each, on their way into packed cells
 * (bf16_cells.h). Only static inline functions: nothing here may be emitted for other files. */
#ifndef KERNELS_BF16_SQUARE_AMX_H
#define KERNELS_BF16_SQUARE_AMX_H

#include "attn/dtype.h"

#include <immintrin.h>
#include <stddef.h>

/* The first n of 32 numbers. */
static inline __mmask32 first_32(size_t n)
{
    return n < 32 ? (1u << n) - 1u : ~0u;
}

static inline __mmask16 first_16(size_t n)
{
    return (__mmask16)(n < 16 ? (1u << n) - 1u : 0xffffu);
}

/* 16 rows of 16 pairs, transposed in place: by pairs of rows, by fours, and whole quarters. */
static inline void transpose_pairs(__m512i r[16])
{
    __m512i t[16];
    for (size_t i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (size_t i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (size_t i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (size_t i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

static inline void put_tile(const __m512i tile[16], attn_bf16 *out)
{
    for (size_t i = 0; i < 16; i++) _mm512_store_si512(out + 32 * i, tile[i]);
}

/* The first 16 columns of two rows as pairs, or with half = 1 the other 16. */
static inline __m512i pair_rows(__m512i even, __m512i odd, size_t half)
{
    const __m512i lanes =
        _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6,
                         37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i from = _mm512_add_epi16(lanes, _mm512_set1_epi16((short)(16 * half)));
    return _mm512_permutex2var_epi16(even, from, odd);
}

#endif
