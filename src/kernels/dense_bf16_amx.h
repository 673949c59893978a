/* Private to kernels: blocks of sums on AMX tiles, of which dense products in bfloat16 are made.
 *
 * Tiles keep the sums of one block until the next one's products begin; what becomes of them happens
 * between those products. */
#ifndef KERNELS_DENSE_BF16_AMX_H
#define KERNELS_DENSE_BF16_AMX_H

#include "attn/dtype.h"
#include "kernels/bf16_cells.h"

/* 32 x 32 sums over n_cells of k, to be multiplied; the distances are in numbers. */
typedef struct attn_bf16_block {
    const attn_bf16 *left, *right; /* the first cells */
    ptrdiff_t left_cell, right_cell;
    size_t left_row, left_half;
    size_t n_cells;
    const float *before;    /* sums of the passes before this one, or NULL */
    const attn_bf16 *ahead; /* rows of the next left strip, a line of each for a cell */
    ptrdiff_t ahead_cell;
    size_t ahead_row, ahead_rows;
} attn_bf16_block;

/* Sums that the tiles hold, and what becomes of them. */
typedef struct attn_bf16_held {
    float *sums;                      /* [32][32] */
    size_t rows, columns, row_length; /* of the result, inside the matrix; no rows: nothing yet */
    const float *bias;                /* NULL: none */
    float *single;                    /* one of the two */
    attn_bf16 *half;
} attn_bf16_held;

typedef enum attn_bf16_kind {
    ATTN_BF16_NO_RESULT,
    ATTN_BF16_HALVES,
    ATTN_BF16_SINGLES,
    ATTN_BF16_SUMS_OF_SINGLES,
    ATTN_BF16_FAR_SINGLES
} attn_bf16_kind;

/* Multiplies a block while the one before, which the tiles hold, goes where it belongs. Tiles are
 * configured. */
void attn_bf16_amx_multiply(const attn_bf16_block *block, const attn_bf16_held *held,
                            attn_bf16_kind kind);

/* What the tiles hold goes where it belongs. */
void attn_bf16_amx_drain(const attn_bf16_held *held, attn_bf16_kind kind);

#endif
