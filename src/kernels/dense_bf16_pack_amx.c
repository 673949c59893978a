/* Packing for AMX, 32 x 32 numbers at a time in vectors: weights as a whole, and cells of both factors
 * on their way into a task. Pairs of rows are interleaved where k runs along the rows; pairs are
 * transposed where a right factor comes from its columns or a left one from its rows. */
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
    attn_end_stores();
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

/* A right factor, k down the rows: rows k and k + 16 are pairs, as in cells of the left factor below. */
void attn_bf16_amx_pack_right(const attn_bf16 *from, size_t row_length, size_t rows, size_t columns,
                              attn_bf16 *cell)
{
    __m512i square[32];
    read_square(from, row_length, rows, columns, square);
    for (size_t half = 0; half < 2; half++)
        for (size_t i = 0; i < 16; i++)
            _mm512_store_si512(cell + half * ATTN_CELL / 2 + 32 * i,
                               pair_rows(square[i], square[i + 16], half));
}

/* Four pairs of columns, 16 bytes of 16 rows, as vectors that run down the rows: 16 bytes of every
 * fourth row make a vector, in which squares of 4 x 4 pairs are transposed. */
static inline void turn_pairs(const attn_bf16 *from, size_t row_length, __m512i pairs[4])
{
    __m512i r[4], t[4];
    for (size_t i = 0; i < 4; i++) {
        const attn_bf16 *at = from + i * row_length;
        r[i] = _mm512_castsi128_si512(_mm_loadu_si128((const void *)at));
        for (int lane = 1; lane < 4; lane++) {
            at += 4 * row_length;
            r[i] = _mm512_mask_broadcast_i32x4(r[i], (__mmask16)(0xf << 4 * lane),
                                               _mm_loadu_si128((const void *)at));
        }
    }
    for (size_t i = 0; i < 4; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (size_t i = 0; i < 2; i++) {
        pairs[2 * i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    }
}

void attn_bf16_amx_pack_left(const attn_bf16 *from, size_t row_length, size_t rows, size_t columns,
                             attn_bf16 *cell)
{
    const __mmask32 odd = 0xaaaaaaaa;
    _Alignas(64) attn_bf16 whole[ATTN_CELL];
    if (rows < ATTN_STRIP || columns < ATTN_STRIP) {
        __m512i square[32];
        read_square(from, row_length, rows, columns, square);
        for (size_t i = 0; i < ATTN_STRIP; i++)
            _mm512_store_si512(whole + i * ATTN_STRIP, square[i]);
        from = whole;
        row_length = ATTN_STRIP;
    }
    for (size_t column = 0; column < ATTN_STRIP; column += 8) {
        __m512i upper[4], lower[4];
        turn_pairs(from + column, row_length, upper);
        turn_pairs(from + column + 16 * row_length, row_length, lower);
        for (size_t i = 0; i < 4; i++) {
            attn_bf16 *to = cell + (column + 2 * i) * ATTN_STRIP;
            _mm512_store_si512(
                to, _mm512_mask_blend_epi16(odd, upper[i], _mm512_slli_epi32(lower[i], 16)));
            _mm512_store_si512(
                to + ATTN_STRIP,
                _mm512_mask_blend_epi16(odd, _mm512_srli_epi32(upper[i], 16), lower[i]));
        }
    }
}

/* Even and odd columns apart: the upper halves of floats. */
void attn_bf16_amx_add_rows(const attn_bf16 *from, size_t row_length, size_t rows, size_t columns,
                            float *sums)
{
    const __m512i upper = _mm512_set1_epi32((int)0xffff0000);
    const __mmask32 inside = first_32(columns);
    __m512 even[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()}, odd[2] = {even[0], even[0]};
    for (size_t i = 0; i < rows && i < ATTN_STRIP; i++) {
        const __m512i row = _mm512_maskz_loadu_epi16(inside, from + i * row_length);
        even[i % 2] = _mm512_add_ps(even[i % 2], _mm512_castsi512_ps(_mm512_slli_epi32(row, 16)));
        odd[i % 2] = _mm512_add_ps(odd[i % 2], _mm512_castsi512_ps(_mm512_and_si512(row, upper)));
    }
    const __m512i low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    const __m512 evens = _mm512_add_ps(even[0], even[1]), odds = _mm512_add_ps(odd[0], odd[1]);
    for (size_t half = 0; half < 2 && columns > 16 * half; half++) {
        const __m512i from_half = _mm512_add_epi32(low, _mm512_set1_epi32(8 * (int)half));
        const __m512 added = _mm512_permutex2var_ps(evens, from_half, odds);
        const __mmask16 some = first_16(columns - 16 * half);
        float *to = sums + 16 * half;
        _mm512_mask_storeu_ps(to, some, _mm512_add_ps(_mm512_maskz_loadu_ps(some, to), added));
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
