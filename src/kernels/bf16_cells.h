/* Packed bfloat16 matrices: factors of products in the order in which AMX tiles read them.
 *
 * Packed numbers lie in cells, 32 x 32 numbers of a factor:
 *     a cell of a left factor   [2][16 rows][32 of k]
 *     a cell of a right factor  [2][16 columns in pairs of k: [16 pairs of k][16 columns][2]]
 * each half what one tile of 1 KiB holds. A strip is the cells of 32 rows of a left factor, or of
 * 32 columns of a right one, one after the other along k. Numbers beyond the matrix are 0. */
#ifndef KERNELS_BF16_CELLS_H
#define KERNELS_BF16_CELLS_H

#include <stddef.h>

enum { ATTN_STRIP = 32, ATTN_CELL = ATTN_STRIP * ATTN_STRIP };

static inline size_t attn_strips(size_t n)
{
    return (n + ATTN_STRIP - 1) / ATTN_STRIP;
}

/* Where a right strip holds number k of column `column`. */
static inline size_t attn_cell_place(size_t k, size_t column)
{
    return k / ATTN_STRIP * ATTN_CELL + column / 16 * 512 + k % ATTN_STRIP / 2 * 32 +
           column % 16 * 2 + k % 2;
}

#endif
