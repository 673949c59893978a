/* Packing for AMX, 32 x 32 numbers at a time in vectors. Pairs of rows are interleaved where
 * k runs along the rows; 16 x 16 pairs are transposed where a right factor comes from its columns
 * or a left one from its rows. */
#include "base/threads.h"
#include "kernels/dense_bf16_internal.h"

#include <immintrin.h>

/* The first n of 32 numbers. */
static __mmask32 first_32(size_t n)
{
    return n < 32 ? (1u << n) - 1u : ~0u;
}

static __mmask16 first_16(size_t n)
{
    return (__mmask16)(n < 16 ? (1u << n) - 1u : 0xffffu);
}

/* 16 rows of 16 pairs, transposed in place: by pairs of rows, by fours, and whole quarters. */
static void transpose_pairs(__m512i r[16])
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

/* 32 x 32 numbers from (row, column) on, zeros beyond the matrix. */
static void read_square(const attn_bf16_packing *p, size_t row, size_t column, __m512i square[32])
{
    const size_t rows = p->rows - row, columns = p->columns - column;
    const __mmask16 low = first_16(columns), high = first_16(columns > 16 ? columns - 16 : 0);
    for (size_t i = 0; i < 32; i++) {
        const size_t at = (row + i) * p->columns + column;
        if (i >= rows)
            square[i] = _mm512_setzero_si512();
        else if (p->half)
            square[i] = _mm512_maskz_loadu_epi16(first_32(columns), p->half + at);
        else
            square[i] =
                (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(high, p->single + at + 16),
                                             _mm512_maskz_loadu_ps(low, p->single + at));
    }
}

static void put_tile(const __m512i tile[16], attn_bf16 *out)
{
    for (size_t i = 0; i < 16; i++) _mm512_store_si512(out + 32 * i, tile[i]);
}

/* Rows 2i and 2i + 1 of 16 columns become row i: 16 pairs. */
static void interleave(const __m512i square[32], size_t half, __m512i tile[16])
{
    const __m512i lanes =
        _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6,
                         37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i from = _mm512_add_epi16(lanes, _mm512_set1_epi16((short)(16 * half)));
    for (size_t i = 0; i < 16; i++)
        tile[i] = _mm512_permutex2var_epi16(square[2 * i], from, square[2 * i + 1]);
}

static void pack_row_strip(void *argument, size_t strip, size_t worker)
{
    (void)worker;
    const attn_bf16_packing *p = argument;
    const size_t row_strips = attn_strips(p->rows), column_strips = attn_strips(p->columns);
    for (size_t cell = 0; cell < column_strips; cell++) {
        __m512i square[32], tile[16];
        read_square(p, strip * ATTN_STRIP, cell * ATTN_STRIP, square);
        for (size_t half = 0; p->along_rows && half < 2; half++) {
            interleave(square, half, tile);
            put_tile(tile, p->along_rows + (cell * row_strips + strip) * ATTN_CELL +
                               half * ATTN_CELL / 2);
        }
        for (size_t half = 0; p->along_columns && half < 2; half++) {
            transpose_pairs(square + 16 * half);
            put_tile(square + 16 * half, p->along_columns +
                                             (strip * column_strips + cell) * ATTN_CELL +
                                             half * ATTN_CELL / 2);
        }
    }
}

void attn_bf16_amx_pack(size_t threads, const attn_bf16_packing *packing)
{
    attn_bf16_packing p = *packing;
    attn_parallel(threads, attn_strips(p.rows), pack_row_strip, &p);
}

void attn_bf16_amx_pack_left(const attn_bf16 *from, size_t row_length, size_t rows, size_t columns,
                             attn_bf16 *cell)
{
    __m512i square[32], tile[16];
    const __mmask32 inside = first_32(columns);
    for (size_t i = 0; i < 32; i++)
        square[i] = i < rows ? _mm512_maskz_loadu_epi16(inside, from + i * row_length)
                             : _mm512_setzero_si512();
    for (size_t half = 0; half < 2; half++) {
        interleave(square, half, tile);
        transpose_pairs(tile);
        put_tile(tile, cell + half * ATTN_CELL / 2);
    }
}
