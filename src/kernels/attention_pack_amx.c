/* Packing of a head's rows for AMX, 32 x 32 numbers at a time. */
#include "kernels/attention_amx.h"
#include "kernels/bf16_square_amx.h"

enum { AHEAD = 32 }; /* rows that are fetched before they are read: they lie far apart */

static void put_forms(__m512i square[32], size_t strip, size_t cell, size_t cells,
                      const attn_amx_forms *to)
{
    const size_t along_columns = (strip * cells + cell) * ATTN_CELL;
    const size_t along_rows = (cell * to->row_strips + strip) * ATTN_CELL;
    for (size_t half = 0; half < 2; half++) {
        const size_t part = half * ATTN_CELL / 2;
        __m512i tile[16];
        if (to->left) put_tile(square + 16 * half, to->left + along_columns + part);
        if (to->transposed) {
            interleave(square, half, tile);
            transpose_pairs(tile);
            put_tile(tile, to->transposed + along_rows + part);
        }
        if (!to->right_of_p) continue;
        for (size_t i = 0; i < 16; i++) tile[i] = pair_rows(square[i], square[i + 16], half);
        put_tile(tile, to->right_of_p + along_rows + part);
    }
    for (size_t half = 0; to->right && half < 2; half++) {
        transpose_pairs(square + 16 * half);
        put_tile(square + 16 * half, to->right + along_columns + half * ATTN_CELL / 2);
    }
}

/* The first `columns` of 32 numbers of a row, with a later row asked for. */
static inline __m512i take_half(const attn_bf16 *at, size_t row, size_t columns)
{
    _mm_prefetch((const char *)(at + AHEAD * row), _MM_HINT_T0);
    return _mm512_maskz_loadu_epi16(first_32(columns), at);
}

static inline __m512i take_single(const float *at, size_t row, size_t columns)
{
    const __mmask16 low = first_16(columns), high = first_16(columns > 16 ? columns - 16 : 0);
    _mm_prefetch((const char *)(at + AHEAD * row), _MM_HINT_T0);
    _mm_prefetch((const char *)(at + AHEAD * row + 16), _MM_HINT_T0);
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(high, at + 16),
                                        _mm512_maskz_loadu_ps(low, at));
}

void attn_amx_pack(size_t strip, size_t rows, size_t columns, attn_far_rows from,
                   const attn_amx_forms *to)
{
    const size_t cells = attn_strips(columns), last = strip + attn_amx_row_strips(rows);
    for (size_t s = strip; s < last; s++)
        for (size_t cell = 0; cell < cells; cell++) {
            const size_t first = (s - strip) * ATTN_STRIP, left = columns - cell * ATTN_STRIP;
            __m512i square[32];
            for (size_t i = 0; i < 32; i++) {
                const size_t at = (first + i) * from.row + cell * ATTN_STRIP;
                square[i] = first + i >= rows ? _mm512_setzero_si512()
                            : from.half       ? take_half(from.half + at, from.row, left)
                                              : take_single(from.single + at, from.row, left);
            }
            put_forms(square, s, cell, cells, to);
        }
}
