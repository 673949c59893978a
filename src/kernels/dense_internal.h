/* Private to kernels: the two ways to do a dense product. */
#ifndef KERNELS_DENSE_INTERNAL_H
#define KERNELS_DENSE_INTERNAL_H

#include "kernels/dense.h"

/* The state behind a context's dense products; NULL when memory is short. */
attn_dense *attn_dense_create(attn_isa isa);
void attn_dense_free(attn_dense *dense); /* NULL is fine */
/* Memory for one product, kept for the next one; NULL when memory is short. */
void *attn_dense_scratch(attn_dense *dense, size_t size_bytes);
const char *attn_dense_name(const attn_dense *dense);

/* c[m][n] = op(a) op(b) (+ c), with every matrix given by the strides of its elements, so that
 * one description covers the three products of a layer:
 *     forward          y  = x w^T    m = rows, n = out, k = in
 *     input gradient   dx = dy w     m = rows, n = in,  k = out
 *     weight gradient  dw = dy^T x   m = out,  n = in,  k = rows */
typedef struct attn_matrix_product {
    size_t m, n, k;
    const float *a;
    size_t a_row, a_column;
    const float *b;
    size_t b_row, b_column;
    float *c;
    size_t c_row;
    bool accumulate;
} attn_matrix_product;

/* Always works; panels of b are packed in thread-local scratch on the stack. */
void attn_dense_plain_run(const attn_kernels *kernels, size_t threads,
                          const attn_matrix_product *p);

/* Up to this many rows, in float32 and with packed bfloat16 weights, what matters is that weights are
 * read once, at memory's rate (docs/SPEED.md). */
enum { ATTN_FEW_ROWS = 8, ATTN_FEW_HALF_ROWS = 4 };

/* y[rows][out] = x[rows][in] w^T + bias for few rows; the bits of a row do not depend on how many
 * there are. */
void attn_dense_few_forward(const attn_kernels *kernels, size_t threads, size_t rows, size_t in,
                            size_t out, const float *x, const float *w, const float *bias,
                            float *y);

#ifdef ATTN_HAVE_ONEDNN
/* oneDNN behind a small face, so that none of its types leaves its file. */
typedef struct attn_onednn attn_onednn;
attn_onednn *attn_onednn_create(void); /* NULL when oneDNN declines */
void attn_onednn_free(attn_onednn *onednn);
const char *attn_onednn_name(const attn_onednn *onednn);
/* false when oneDNN cannot do this product; nothing was written then. */
bool attn_onednn_run(attn_onednn *onednn, size_t threads, const attn_matrix_product *p);
#endif

#endif
