/* Vector kernels on matrices, a part of kernels_simd.h: written over the names of simd_<isa>.h and
 * the helpers that stand before its inclusion. */
#ifndef KERNELS_SIMD_PRODUCT_H
#define KERNELS_SIMD_PRODUCT_H

#define REAL     float
#define VECTOR   vf
#define WIDTH    LANES
#define OF(name) name
#include "kernels/kernels_simd_tile.h"

#define REAL     double
#define VECTOR   vd
#define WIDTH    LANES_DOUBLE
#define OF(name) name##_double
#include "kernels/kernels_simd_tile.h"

static void kernel_product_asking(size_t m, size_t n, size_t k, const float *a, size_t a_row,
                                  size_t a_column, const float *b, size_t b_row, float *c,
                                  size_t c_row, bool accumulate, const float *const *asked)
{
    whole_product(m, n, k, a, a_row, a_column, b, b_row, c, c_row, accumulate, asked);
}

/* Squares of LANES x LANES in registers; the edges one by one. Rows a page apart, where no prefetcher of
 * the machine looks, are asked for a tile ahead. An address behind the last row does no harm. */
enum { PAGE = 1024, TILE_AHEAD = 64 }; /* floats, rows */

static void kernel_transpose(size_t rows, size_t columns, const float *in, size_t in_row,
                             float *out, size_t out_row)
{
    const size_t whole_rows = rows - rows % LANES, whole_columns = columns - columns % LANES;
    for (size_t i = 0; i < whole_rows; i += LANES)
        for (size_t j = 0; j < whole_columns; j += LANES) {
            vf square[LANES];
            const float *corner = in + i * in_row + j, *later = corner + TILE_AHEAD * in_row;
            UNROLL for (size_t r = 0; r < LANES; r++)
            {
                square[r] = load(corner + r * in_row);
                if (in_row >= PAGE) __builtin_prefetch(later + r * in_row, 0, INTO_SECOND_CACHE);
            }
            transpose_square(square);
            UNROLL for (size_t r = 0; r < LANES; r++) store(out + (j + r) * out_row + i, square[r]);
        }
    for (size_t i = 0; i < rows; i++)
        for (size_t j = i < whole_rows ? whole_columns : 0; j < columns; j++)
            out[j * out_row + i] = in[i * in_row + j];
}

/* Rows of one head lie far apart: those to come are asked for. */
enum { COPY_AHEAD = 8, COPY_LINE = 16 };

static void kernel_copy_rows(size_t rows, size_t n, float factor, const float *factors,
                             const float *from, size_t from_row, float *to, size_t to_row)
{
    for (size_t i = 0; i < rows; i++) {
        const vf by = all(factors ? factor * factors[i] : factor);
        const float *row = from + i * from_row, *next = row + COPY_AHEAD * from_row;
        float *out = to + i * to_row, *next_out = out + COPY_AHEAD * to_row;
        if (i + COPY_AHEAD < rows) {
            for (size_t j = 0; j < n; j += COPY_LINE) __builtin_prefetch(next + j);
            for (size_t j = 0; to_row > n && j < n; j += COPY_LINE)
                __builtin_prefetch(next_out + j, 1);
        }
        FOR_VECTORS(n) put(out + at, left, mul(by, take(row + at, left)));
    }
}

static void kernel_store_rows(size_t rows, size_t n, float factor, const float *factors,
                              const float *from, size_t from_row, float *to, size_t to_row)
{
    if (!attn_goes_past_caches(n * sizeof *to, to, to_row * sizeof *to)) {
        kernel_copy_rows(rows, n, factor, factors, from, from_row, to, to_row);
        return;
    }
    for (size_t i = 0; i < rows; i++) {
        const vf by = all(factors ? factor * factors[i] : factor);
        const float *row = from + i * from_row;
        for (size_t at = 0; at < n; at += LANES)
            stream(to + i * to_row + at, mul(by, load(row + at)));
    }
}

static void kernel_round_rows(size_t rows, size_t n, float factor, const float *factors,
                              const float *from, size_t from_row, attn_bf16 *to, size_t to_row)
{
    const bool is_far = attn_goes_past_caches(n * sizeof *to, to, to_row * sizeof *to);
    for (size_t i = 0; i < rows; i++) {
        const float by = factors ? factor * factors[i] : factor;
        const float *row = from + i * from_row;
        attn_bf16 *out = to + i * to_row;
        size_t at = 0;
        for (; is_far && at < n; at += LANES) stream_bf16(out + at, mul(all(by), load(row + at)));
        for (; at + LANES <= n; at += LANES) store_bf16(out + at, mul(all(by), load(row + at)));
        for (; at < n; at++) out[at] = attn_bf16_from_float(by * row[at]);
    }
}

#endif
