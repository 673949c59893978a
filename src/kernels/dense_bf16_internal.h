/* Private to kernels: the ways to do a dense product in bfloat16. Factors are packed in strips of
 * cells (bf16_cells.h). */
#ifndef KERNELS_DENSE_BF16_INTERNAL_H
#define KERNELS_DENSE_BF16_INTERNAL_H

#include "kernels/bf16_cells.h"
#include "kernels/dense_bf16.h"

/* out[m][n] = left[m][k] right[k][n] + bias[n] */
typedef struct attn_bf16_product {
    size_t m, n, k;
    const attn_bf16 *left;        /* element (i, p) at left[i * left_row + p * left_column] */
    size_t left_row, left_column; /* one of them is 1 */
    const attn_bf16 *strips;      /* the right factor packed, or NULL and */
    const attn_bf16 *right;       /* ... as it is, rows one after the other */
    const float *bias;            /* or NULL */
    attn_dense_output out;        /* rows one after the other */
} attn_bf16_product;

/* A matrix [rows][columns] of float or bfloat16, to be packed as a right factor. */
typedef struct attn_bf16_packing {
    size_t rows, columns;
    const float *single; /* one of the two */
    const attn_bf16 *half;
    attn_bf16 *along_columns; /* strips whose k runs along the columns, or NULL */
    attn_bf16 *along_rows;    /* strips whose k runs along the rows, or NULL */
} attn_bf16_packing;

/* Always work, at every level. The plain packing does weights, from float. */
void attn_bf16_plain_pack(size_t threads, const attn_bf16_packing *packing);
void attn_bf16_plain_run(const attn_kernels *kernels, size_t threads, const attn_bf16_product *p);

#if defined(__x86_64__)
void attn_bf16_amx_pack(size_t threads, const attn_bf16_packing *packing);

/* A cell of a left strip from a matrix that holds it transposed: 32 of k down its rows, of which
 * `rows` and `columns` lie inside. */
void attn_bf16_amx_pack_left(const attn_bf16 *from, size_t row_length, size_t rows, size_t columns,
                             attn_bf16 *cell);

/* Bytes of scratch memory that a product needs, for attn_bf16_amx_run(); 64-byte aligned. */
size_t attn_bf16_amx_scratch(size_t threads, const attn_bf16_product *p);
void attn_bf16_amx_run(size_t threads, const attn_bf16_product *p, void *scratch);
#endif

#endif
