/* Dense layers in bfloat16: the products of kernels/dense.h with both factors in bfloat16 and
 * sums in float32. Weights are [out][in] and are packed once, after each change, into the order
 * in which the products read them.
 *
 * A product of two bfloat16 numbers is exact in float32, so a result differs from the exact sum
 * by the roundings of its additions and, if it is bfloat16, one more (docs/numerics.md). Every
 * element is summed by one task in an order that depends on the sizes alone: the bits are the
 * same for any number of threads. Level `amx` counts subnormal numbers as 0.
 *
 * Sizes are at least 1. Packed weights lie on 64 bytes, as attn_alloc() gives them; nothing else
 * needs to. Scratch memory is the context's and grows at the first call of a shape at most.
 *
 * Each call adds its work to context->work: 2 rows in out, and rows * out for a bias. */
#ifndef KERNELS_DENSE_BF16_H
#define KERNELS_DENSE_BF16_H

#include "kernels/context.h"

/* Where a result goes: exactly one of the two. */
typedef struct attn_dense_output {
    float *single;
    attn_bf16 *half;
    bool accumulate; /* single += result */
    size_t row;      /* numbers from one row to the next; 0: rows lie one after the other */
    bool is_far;     /* a hint: read again only after much else, so not worth a cache */
} attn_dense_output;

/* Numbers in a packed weight matrix. */
size_t attn_dense_bf16_packed(size_t out, size_t in);

/* w[out][in], rounded, in the order that both products with weights read. */
void attn_dense_bf16_pack(attn_context *context, size_t out, size_t in, const float *w,
                          attn_bf16 *packed);

/* The same piece by piece, within a task: `rows` rows of a matrix, from w and into `packed`, which
 * are the piece's. Pieces begin at multiples of this many rows; the piece from row r on lies
 * attn_dense_bf16_packed(r, in) numbers behind the first, and is a packed matrix of its own. */
enum { ATTN_DENSE_BF16_ROWS = 32 };
void attn_dense_bf16_pack_rows(const attn_context *context, size_t rows, size_t in, const float *w,
                               attn_bf16 *packed);

/* Numbers rounded, as a factor of the products below. */
void attn_dense_bf16_round(attn_context *context, size_t count, const float *from, attn_bf16 *to);

/* y[rows][out] = x[rows][in] w^T + bias; bias may be NULL */
void attn_dense_bf16_forward(attn_context *context, size_t rows, size_t in, size_t out,
                             const attn_bf16 *x, const attn_bf16 *packed, const float *bias,
                             attn_dense_output y);

/* dx[rows][in] = dy[rows][out] w; rows of dy lie dy_row numbers apart */
void attn_dense_bf16_input_gradient(attn_context *context, size_t rows, size_t in, size_t out,
                                    const attn_bf16 *dy, size_t dy_row, const attn_bf16 *packed,
                                    attn_dense_output dx);

/* dw[out][in] = dy^T x and dbias[out] = column sums of dy (dbias may be NULL); += when
 * `accumulate` */
void attn_dense_bf16_weight_gradient(attn_context *context, size_t rows, size_t in, size_t out,
                                     const attn_bf16 *x, const attn_bf16 *dy, size_t dy_row,
                                     float *dw, float *dbias, bool accumulate);

#endif
