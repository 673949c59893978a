/* Packing for AMX, 32 x 32 numbers at a time in vectors. Pairs of rows are interleaved where
 * k runs along the rows; 16 x 16 pairs are transposed where a right factor comes from its columns
 * or a left one from its rows. */
#include "base/threads.h"
#include "kernels/bf16_square_amx.h"
#include "kernels/dense_bf16_internal.h"

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
