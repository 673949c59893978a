/* Packing for AMX, 32 x 32 numbers at a time in vectors. Pairs of rows are interleaved where
 * k runs along the rows; 16 x 16 pairs are transposed where a right factor comes from its columns
 * or a left one from its rows. */
#include "base/threads.h"
#include "kernels/bf16_square_amx.h"
#include "kernels/dense_bf16_internal.h"

/* A matrix and the strips that it is packed into, by tasks of 32 rows. */
typedef struct packing {
    size_t rows, columns;
    const float *single; /* one of the two */
    const attn_bf16 *half;
    attn_bf16 *strips;
} packing;

/* Past the caches: packed weights are read by the next step, long after. */
static inline void put_tile_far(const __m512i tile[16], attn_bf16 *out)
{
    for (size_t i = 0; i < 16; i++) _mm512_stream_si512((void *)(out + 32 * i), tile[i]);
}

/* 32 rows of weights are a strip whose cells lie along it: rows become columns. */
static void pack_weights_strip(void *argument, size_t strip, size_t worker)
{
    (void)worker;
    const packing *p = argument;
    const size_t row = strip * ATTN_STRIP, rows = p->rows - row, cells = attn_strips(p->columns);
    attn_bf16 *out = p->strips + strip * cells * ATTN_CELL;
    for (size_t column = 0; column < p->columns; column += ATTN_STRIP, out += ATTN_CELL) {
        const size_t columns = p->columns - column;
        const __mmask16 low = first_16(columns), high = first_16(columns > 16 ? columns - 16 : 0);
        const float *from = p->single + row * p->columns + column;
        for (size_t half = 0; half < 2; half++) {
            __m512i tile[16];
            for (size_t i = 0; i < 16; i++) {
                const float *line = from + (16 * half + i) * p->columns;
                tile[i] = 16 * half + i < rows
                              ? (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(high, line + 16),
                                                             _mm512_maskz_loadu_ps(low, line))
                              : _mm512_setzero_si512();
            }
            transpose_pairs(tile);
            put_tile_far(tile, out + half * ATTN_CELL / 2);
        }
    }
    _mm_sfence();
}

void attn_bf16_amx_pack(size_t threads, size_t rows, size_t columns, const float *w,
                        attn_bf16 *strips)
{
    packing p = {.rows = rows, .columns = columns, .single = w, .strips = strips};
    attn_parallel(threads, attn_strips(rows), pack_weights_strip, &p);
}

/* 32 x 32 numbers, of which `rows` and `columns` lie inside; zeros beyond. */
static void read_square(const attn_bf16 *from, size_t row_length, size_t rows, size_t columns,
                        __m512i square[32])
{
    const __mmask32 inside = first_32(columns);
    for (size_t i = 0; i < 32; i++)
        square[i] = i < rows ? _mm512_maskz_loadu_epi16(inside, from + i * row_length)
                             : _mm512_setzero_si512();
}

/* 32 rows of x are a cell of each strip. */
static void pack_right_cells(void *argument, size_t cell, size_t worker)
{
    (void)worker;
    const packing *p = argument;
    const size_t row = cell * ATTN_STRIP, cells = attn_strips(p->rows);
    attn_bf16 *out = p->strips + cell * ATTN_CELL;
    for (size_t column = 0; column < p->columns; column += ATTN_STRIP, out += cells * ATTN_CELL) {
        __m512i square[32], tile[16];
        read_square(p->half + row * p->columns + column, p->columns, p->rows - row,
                    p->columns - column, square);
        for (size_t half = 0; half < 2; half++) {
            interleave(square, half, tile);
            put_tile(tile, out + half * ATTN_CELL / 2);
        }
    }
}

void attn_bf16_amx_pack_right(size_t threads, size_t rows, size_t columns, const attn_bf16 *x,
                              attn_bf16 *strips)
{
    packing p = {.rows = rows, .columns = columns, .half = x, .strips = strips};
    attn_parallel(threads, attn_strips(rows), pack_right_cells, &p);
}

/* ---- cells by themselves ----------------------------------------------------------------- */

/* Rows of 16 pairs (x, y) summed to 16 numbers: x + y. */
static inline __m512 sum_pairs(const __m512i tile[16])
{
    const __m512bh ones = (__m512bh)_mm512_set1_epi16(0x3f80);
    __m512 even = _mm512_setzero_ps(), odd = even;
    for (size_t i = 0; i < 16; i += 2) {
        even = _mm512_dpbf16_ps(even, (__m512bh)tile[i], ones);
        odd = _mm512_dpbf16_ps(odd, (__m512bh)tile[i + 1], ones);
    }
    return _mm512_add_ps(even, odd);
}

void attn_bf16_amx_pack_left(const attn_bf16 *from, size_t row_length, size_t rows, size_t columns,
                             attn_bf16 *cell, float *sums)
{
    __m512i square[32], tile[16];
    read_square(from, row_length, rows, columns, square);
    for (size_t half = 0; half < 2; half++) {
        interleave(square, half, tile);
        if (sums && columns > 16 * half) {
            const __mmask16 inside = first_16(columns - 16 * half);
            float *to = sums + 16 * half;
            _mm512_mask_storeu_ps(
                to, inside, _mm512_add_ps(_mm512_maskz_loadu_ps(inside, to), sum_pairs(tile)));
        }
        transpose_pairs(tile);
        put_tile(tile, cell + half * ATTN_CELL / 2);
    }
}

/* 8 rows of 8 x 64 bits, transposed. */
static inline void transpose_quads(__m512i r[8])
{
    __m512i t[8];
    for (size_t i = 0; i < 8; i += 2) {
        t[i] = _mm512_unpacklo_epi64(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi64(r[i], r[i + 1]);
    }
    for (size_t i = 0; i < 2; i++) {
        const __m512i a = _mm512_shuffle_i64x2(t[i], t[i + 2], 0x88);
        const __m512i b = _mm512_shuffle_i64x2(t[i], t[i + 2], 0xdd);
        const __m512i c = _mm512_shuffle_i64x2(t[i + 4], t[i + 6], 0x88);
        const __m512i d = _mm512_shuffle_i64x2(t[i + 4], t[i + 6], 0xdd);
        r[i] = _mm512_shuffle_i64x2(a, c, 0x88);
        r[i + 2] = _mm512_shuffle_i64x2(b, d, 0x88);
        r[i + 4] = _mm512_shuffle_i64x2(a, c, 0xdd);
        r[i + 6] = _mm512_shuffle_i64x2(b, d, 0xdd);
    }
}

/* Two columns of a pair of k are 64 bits here, [column][k], and [k][column] there; these squares
 * of 64 bits are turned by eights. */
void attn_bf16_amx_turn(const attn_bf16 *from, attn_bf16 *cell)
{
    const __m512i swap = _mm512_set4_epi32(0x0f0e0b0a, 0x0d0c0908, 0x07060302, 0x05040100);
    for (size_t quarter = 0; quarter < 4; quarter++) {
        const size_t line = quarter / 2, column = quarter % 2; /* halves of the cell */
        const attn_bf16 *in = from + line * ATTN_CELL / 2 + column * ATTN_CELL / 4;
        attn_bf16 *out = cell + column * ATTN_CELL / 2 + line * ATTN_CELL / 4;
        __m512i quads[8];
        for (size_t i = 0; i < 8; i++)
            quads[i] = _mm512_shuffle_epi8(_mm512_load_si512(in + 32 * i), swap);
        transpose_quads(quads);
        for (size_t i = 0; i < 8; i++) _mm512_store_si512(out + 32 * i, quads[i]);
    }
}
