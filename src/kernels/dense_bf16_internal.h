/* Private to kernels: the ways to do a dense product in bfloat16. Factors are packed in strips of
 * cells (bf16_cells.h). */
#ifndef KERNELS_DENSE_BF16_INTERNAL_H
#define KERNELS_DENSE_BF16_INTERNAL_H

#include "kernels/bf16_cells.h"
#include "kernels/dense_bf16.h"

/* out[m][n] = left[m][k] right[k][n] + bias[n] */
typedef struct attn_bf16_product {
    size_t m, n, k;
    const attn_bf16 *left; /* [m][k], or its transpose [k][m] */
    size_t left_row;       /* from one row of it in memory to the next */
    bool left_is_transposed;
    const attn_bf16 *strips;  /* the right factor: packed; or */
    const attn_bf16 *crossed; /* ... packed as its transpose, strips of 32 of k; or */
    const attn_bf16 *right;   /* ... as it is, rows one after the other */
    const float *bias;        /* or NULL */
    attn_dense_output out;    /* its row is not 0 */
    float *left_sums;         /* NULL, or [m]: sums over k of a transposed left factor,
                                     += where out is */
} attn_bf16_product;

/* w[rows][columns], rounded, as a right factor whose k runs along the columns. */
void attn_bf16_plain_pack(size_t threads, size_t rows, size_t columns, const float *w,
                          attn_bf16 *strips);

/* Always works, at every level. */
void attn_bf16_plain_run(const attn_kernels *kernels, size_t threads, const attn_bf16_product *p);

/* Numbers of row i of the result from column j0 on, from their sums, to which the bias is added. */
void attn_bf16_put_row(const attn_kernels *kernels, const attn_bf16_product *p, size_t i, size_t j0,
                       size_t nj, float *sums);

/* For products of packed weights with at most ATTN_FEW_HALF_ROWS rows. */
void attn_bf16_few_run(const attn_kernels *kernels, size_t threads, const attn_bf16_product *p);

#if defined(__x86_64__)
void attn_bf16_amx_pack(size_t threads, size_t rows, size_t columns, const float *w,
                        attn_bf16 *strips);

/* Cells of both factors from matrices in which k runs down the rows, of which `rows` and `columns`
 * lie inside: of the left factor, which is transposed, and of the right one. Rows k and k + 16 are a
 * pair. */
void attn_bf16_amx_pack_left(const attn_bf16 *from, size_t row_length, size_t rows, size_t columns,
                             attn_bf16 *cell);
void attn_bf16_amx_pack_right(const attn_bf16 *from, size_t row_length, size_t rows, size_t columns,
                              attn_bf16 *cell);

/* sums[columns] += those of up to 32 rows and 32 columns. */
void attn_bf16_amx_add_rows(const attn_bf16 *from, size_t row_length, size_t rows, size_t columns,
                            float *sums);

/* A cell of a right factor from the one of its transpose: k and the columns change places. */
void attn_bf16_amx_turn(const attn_bf16 *from, attn_bf16 *cell);

/* Bytes of scratch memory that a product needs, for attn_bf16_amx_run(); 64-byte aligned. */
size_t attn_bf16_amx_scratch(size_t threads, const attn_bf16_product *p);
void attn_bf16_amx_run(size_t threads, const attn_bf16_product *p, void *scratch);
#endif

#endif
