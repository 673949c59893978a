/* Packing of a head's rows for AMX, 32 x 32 numbers at a time: rows come from far apart into squares
 * that lie near, and from there into packed cells. */
#include "kernels/attention_amx.h"
#include "kernels/bf16_square_amx.h"
#include "kernels/simd_unroll.h"

enum {
    AHEAD = 64,         /* rows that are fetched before they are read: they lie far apart */
    CELLS_TOGETHER = 4, /* of a strip */
    HALF_ROWS = ATTN_STRIP / 2,
    HALF_CELL = ATTN_CELL / 2
};

static inline __m512i near_row(const attn_bf16 *square, size_t i)
{
    return _mm512_load_si512(square + i * ATTN_STRIP);
}

/* A right factor, k along the columns: rows become columns in pairs. */
static void put_right(const attn_bf16 *square, attn_bf16 *cell)
{
    for (size_t half = 0; half < 2; half++) {
        __m512i tile[HALF_ROWS];
        UNROLL for (size_t i = 0; i < HALF_ROWS; i++) tile[i] =
            near_row(square, half * HALF_ROWS + i);
        transpose_pairs(tile);
        put_tile(tile, cell + half * HALF_CELL);
    }
}

/* A right factor, k along the rows, in the order of P and dS. */
static void put_right_of_p(const attn_bf16 *square, attn_bf16 *cell)
{
    UNROLL for (size_t i = 0; i < HALF_ROWS; i++)
    {
        const __m512i row = near_row(square, i), later = near_row(square, i + HALF_ROWS);
        _mm512_store_si512(cell + i * ATTN_STRIP, pair_rows(row, later, 0));
        _mm512_store_si512(cell + HALF_CELL + i * ATTN_STRIP, pair_rows(row, later, 1));
    }
}

/* A left factor of the transpose: k along the rows. */
static void put_transposed(const attn_bf16 *square, attn_bf16 *cell)
{
    for (size_t half = 0; half < 2; half++) {
        __m512i tile[HALF_ROWS];
        UNROLL for (size_t i = 0; i < HALF_ROWS; i++) tile[i] =
            pair_rows(near_row(square, 2 * i), near_row(square, 2 * i + 1), half);
        transpose_pairs(tile);
        put_tile(tile, cell + half * HALF_CELL);
    }
}

/* The first `columns` of 32 numbers of a row, with a later row asked for. */
static inline __m512i take_half(const attn_bf16 *at, size_t row, size_t columns)
{
    _mm_prefetch((const char *)(at + AHEAD * row), _MM_HINT_T1);
    return _mm512_maskz_loadu_epi16(first_32(columns), at);
}

/* 16 floats and the next 16. */
typedef struct pair {
    __m512 low, high;
} pair;

static inline pair take_pair(const float *at, size_t row, size_t columns)
{
    const __mmask16 low = first_16(columns), high = first_16(columns > 16 ? columns - 16 : 0);
    _mm_prefetch((const char *)(at + AHEAD * row), _MM_HINT_T1);
    _mm_prefetch((const char *)(at + AHEAD * row + 16), _MM_HINT_T1);
    return (pair){_mm512_maskz_loadu_ps(low, at), _mm512_maskz_loadu_ps(high, at + 16)};
}

static inline __m512i take_single(const float *at, size_t row, size_t columns)
{
    const pair x = take_pair(at, row, columns);
    return (__m512i)_mm512_cvtne2ps_pbh(x.high, x.low);
}

static inline pair widen(__m512i rounded)
{
    const __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(rounded));
    const __m512i high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(rounded, 1));
    return (pair){_mm512_castsi512_ps(_mm512_slli_epi32(low, 16)),
                  _mm512_castsi512_ps(_mm512_slli_epi32(high, 16))};
}

/* The first `columns` of 32 numbers, `at` behind the first row's first, rounded. */
static inline __m512i take(attn_far_rows from, size_t at, size_t columns)
{
    return from.half ? take_half(from.half + at, from.row, columns)
                     : take_single(from.single + at, from.row, columns);
}

/* Cells [cell, end) of a strip of rows that begins at row `first`, as squares one after the other:
 * also what a left factor is. */
static void take_squares(attn_far_rows from, size_t first, size_t rows, size_t columns, size_t cell,
                         size_t end, attn_bf16 *squares)
{
    for (size_t i = 0; i < ATTN_STRIP; i++) {
        attn_bf16 *near = squares + i * ATTN_STRIP;
        for (size_t c = cell; c < end; c++, near += ATTN_CELL) {
            const size_t at = (first + i) * from.row + c * ATTN_STRIP;
            _mm512_store_si512(near, first + i < rows ? take(from, at, columns - c * ATTN_STRIP)
                                                      : _mm512_setzero_si512());
        }
    }
}

/* The same of rows of dO, each times its factor; sums += their products with those of o. */
static void take_gradient(const attn_amx_output_rows *from, size_t first, size_t rows,
                          size_t columns, size_t cell, size_t end, attn_bf16 *squares,
                          __m512 sums[ATTN_STRIP])
{
    for (size_t i = 0; i < ATTN_STRIP; i++) {
        attn_bf16 *near = squares + i * ATTN_STRIP;
        const bool is_inside = first + i < rows;
        const __m512 factor = _mm512_set1_ps(is_inside ? from->delta[first + i] : 0.0f);
        for (size_t c = cell; c < end; c++, near += ATTN_CELL) {
            __m512i rounded = _mm512_setzero_si512();
            if (is_inside) {
                const size_t row = first + i, column = c * ATTN_STRIP, left = columns - column;
                const pair d_o = widen(take(from->d_o, row * from->d_o.row + column, left));
                const pair o = take_pair(from->o + row * from->o_row + column, from->o_row, left);
                rounded = (__m512i)_mm512_cvtne2ps_pbh(_mm512_mul_ps(d_o.high, factor),
                                                       _mm512_mul_ps(d_o.low, factor));
                const pair wide = widen(rounded);
                sums[i] = _mm512_fmadd_ps(wide.low, o.low, sums[i]);
                sums[i] = _mm512_fmadd_ps(wide.high, o.high, sums[i]);
            }
            _mm512_store_si512(near, rounded);
        }
    }
}

/* Where a strip's squares come from: one of the two. */
typedef struct source {
    attn_far_rows rows;
    const attn_amx_output_rows *gradient;
} source;

static void pack(size_t strip, size_t rows, size_t columns, const source *from,
                 const attn_amx_forms *to)
{
    const size_t cells = attn_strips(columns), strips = attn_amx_row_strips(rows);
    _Alignas(64) attn_bf16 near[CELLS_TOGETHER * ATTN_CELL];
    for (size_t s = 0; s < strips; s++) {
        const size_t first = s * ATTN_STRIP;
        __m512 sums[ATTN_STRIP];
        for (size_t i = 0; i < ATTN_STRIP; i++) sums[i] = _mm512_setzero_ps();
        for (size_t cell = 0; cell < cells; cell += CELLS_TOGETHER) {
            const size_t end = cells - cell < CELLS_TOGETHER ? cells : cell + CELLS_TOGETHER;
            const size_t along_columns = ((strip + s) * cells + cell) * ATTN_CELL;
            attn_bf16 *square = to->left ? to->left + along_columns : near;
            if (from->gradient)
                take_gradient(from->gradient, first, rows, columns, cell, end, square, sums);
            else
                take_squares(from->rows, first, rows, columns, cell, end, square);
            for (size_t c = cell; c < end; c++, square += ATTN_CELL) {
                const size_t along_rows = (c * to->row_strips + strip + s) * ATTN_CELL;
                if (to->right)
                    put_right(square, to->right + along_columns + (c - cell) * ATTN_CELL);
                if (to->right_of_p) put_right_of_p(square, to->right_of_p + along_rows);
                if (to->transposed) put_transposed(square, to->transposed + along_rows);
            }
        }
        for (size_t i = 0; from->gradient && i < ATTN_STRIP && first + i < rows; i++)
            from->gradient->delta[first + i] = _mm512_reduce_add_ps(sums[i]);
    }
}

void attn_amx_pack(size_t strip, size_t rows, size_t columns, attn_far_rows from,
                   const attn_amx_forms *to)
{
    pack(strip, rows, columns, &(source){.rows = from}, to);
}

void attn_amx_pack_gradient(size_t strip, size_t rows, size_t columns,
                            const attn_amx_output_rows *from, const attn_amx_forms *to)
{
    pack(strip, rows, columns, &(source){.gradient = from}, to);
}
