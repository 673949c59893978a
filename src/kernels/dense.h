/* Dense layers over all tokens: the large products that make up most of a training step.
 * Weights are [out][in], as in torch.nn.Linear. oneDNN does them where the build has it and
 * the instruction set is not `ref`; dense_plain.c otherwise, and whenever oneDNN declines.
 *
 * Each call adds its work to context->work: 2 rows in out, and rows * out for a bias. */
#ifndef KERNELS_DENSE_H
#define KERNELS_DENSE_H

#include "kernels/context.h"

/* y[rows][out] = x[rows][in] w^T + bias; bias may be NULL */
void attn_dense_forward(attn_context *context, size_t rows, size_t in, size_t out, const float *x,
                        const float *w, const float *bias, float *y);

/* The same for inference, where there are few rows: each weight is read once, at memory's rate
 * (dense_few.c). Sums are taken in another order, so that training, which compares what a token does
 * alone and among others behind a norm, does not use it. */
void attn_dense_decode(attn_context *context, size_t rows, size_t in, size_t out, const float *x,
                       const float *w, const float *bias, float *y);

/* dx[rows][in] = dy[rows][out] w, or += when `accumulate` */
void attn_dense_input_gradient(attn_context *context, size_t rows, size_t in, size_t out,
                               const float *dy, const float *w, float *dx, bool accumulate);

/* dw[out][in] = dy^T x and dbias[out] = column sums of dy (dbias may be NULL); += when
 * `accumulate` */
void attn_dense_weight_gradient(attn_context *context, size_t rows, size_t in, size_t out,
                                const float *x, const float *dy, float *dw, float *dbias,
                                bool accumulate);

#endif
