/* Vector kernels of products with few rows, a part of kernels_simd.h: written over the names of
 * simd_<isa>.h and the helpers that stand before its inclusion. The other factor comes from far
 * away and is read once, for FEW_ROWS rows at a time: here strips of packed weights. */
#ifndef KERNELS_SIMD_FEW_H
#define KERNELS_SIMD_FEW_H

#define TEMPLATE static inline __attribute__((always_inline))

/* What is asked for before it is needed: the machine's own prefetchers stop at each page. */
enum { AHEAD_BYTES = 4 << 10, LINE_BYTES = 64, INTO_SECOND_CACHE = 2 };
enum { FEW_MOST = 4 }; /* FEW_ROWS of the widest vectors */

/* Runs tile(i, n) for rows i, ..., i + n - 1 until all m rows are done, FEW_ROWS at a time. */
#define FEW_TILES(m, tile)                                                                         \
    do {                                                                                           \
        size_t i = 0;                                                                              \
        for (; i + FEW_ROWS <= (m); i += FEW_ROWS) tile(i, FEW_ROWS);                              \
        switch (((m)-i) % FEW_ROWS) {                                                              \
        case 3:                                                                                    \
            tile(i, 3);                                                                            \
            break;                                                                                 \
        case 2:                                                                                    \
            tile(i, 2);                                                                            \
            break;                                                                                 \
        case 1:                                                                                    \
            tile(i, 1);                                                                            \
            break;                                                                                 \
        default:                                                                                   \
            break;                                                                                 \
        }                                                                                          \
    } while (0)

TEMPLATE void strip_tile(size_t rows, size_t cells, const float *x, size_t x_row,
                         const attn_bf16 *strip, float *sums, bool accumulate, bool asks)
{
    enum { VECTORS = ATTN_STRIP / LANES, TILE = ATTN_STRIP / 2 };
    vf s[FEW_MOST][VECTORS];
    UNROLL for (size_t i = 0; i < rows; i++) UNROLL for (size_t j = 0; j < VECTORS; j++) s[i][j] =
        accumulate ? load(sums + i * ATTN_STRIP + j * LANES) : zero();
    for (size_t cell = 0; cell < cells; cell++, strip += ATTN_CELL, x += ATTN_STRIP)
        for (size_t k = 0; k < ATTN_STRIP; k += 2) {
            if (asks) {
                const char *ahead = (const char *)strip + AHEAD_BYTES + k * LINE_BYTES;
                __builtin_prefetch(ahead, 0, INTO_SECOND_CACHE);
                __builtin_prefetch(ahead + LINE_BYTES, 0, INTO_SECOND_CACHE);
            }
            UNROLL for (size_t j = 0; j < VECTORS; j++)
            {
                const size_t column = j * LANES;
                vf even, odd;
                load_pairs(strip + column / TILE * (ATTN_CELL / 2) + k * TILE + column % TILE * 2,
                           &even, &odd);
                UNROLL for (size_t i = 0; i < rows; i++)
                {
                    s[i][j] = fused(all(x[i * x_row + k]), even, s[i][j]);
                    s[i][j] = fused(all(x[i * x_row + k + 1]), odd, s[i][j]);
                }
            }
        }
    UNROLL for (size_t i = 0; i < rows; i++) UNROLL for (size_t j = 0; j < VECTORS; j++)
        store(sums + i * ATTN_STRIP + j * LANES, s[i][j]);
}

static void kernel_bf16_strip(size_t m, size_t cells, const float *x, size_t x_row,
                              const attn_bf16 *strip, float *sums, bool accumulate)
{
#define STRIP_TILE(i, tile_m)                                                                      \
    strip_tile(tile_m, cells, x + i * x_row, x_row, strip, sums + i * ATTN_STRIP, accumulate,      \
               i == 0)
    FEW_TILES(m, STRIP_TILE);
#undef STRIP_TILE
}

#include "kernels/kernels_simd_far.h"

#undef FEW_TILES
#undef TEMPLATE

#endif
