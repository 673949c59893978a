/* The dense products of a layer, in its dtype. In bfloat16 a product reads packed weights and
 * rounds its other factor to the nearest, unless it was rounded before; sums, biases and gradients
 * of parameters are float32, as in autocast. What it rounds lives for one call, behind the mechanism's
 * own scratch memory.
 *
 * `index` is the place of the projection among those the mechanism declared. Each call adds its
 * work to the context's: 2 rows in out, and rows * out for a bias. */
#ifndef MECHANISMS_PROJECTION_H
#define MECHANISMS_PROJECTION_H

#include "mechanisms/mechanism.h"

/* y[rows][out] = x[rows][in] w^T + bias */
void attn_projection_forward(attn_context *context, const attn_layer *layer, const attn_call *call,
                             size_t index, size_t rows, const float *x, float *y);

/* dx[rows][in] = dy[rows][out] w */
void attn_projection_input_gradient(attn_context *context, const attn_layer *layer,
                                    const attn_call *call, size_t index, size_t rows,
                                    const float *dy, float *dx);

/* The gradients of w and of the bias, dy^T x and column sums of dy, to call->gradients; and dx, if
 * not NULL, from the same rounded dy. */
void attn_projection_backward(attn_context *context, const attn_layer *layer, const attn_call *call,
                              size_t index, size_t rows, const float *x, const float *dy,
                              float *dx);

/* The same with numbers of either type, bfloat16 in layers of that dtype alone. */
void attn_project(attn_context *context, const attn_layer *layer, const attn_call *call,
                  size_t index, size_t rows, attn_operand x, attn_result y);
void attn_project_back(attn_context *context, const attn_layer *layer, const attn_call *call,
                       size_t index, size_t rows, attn_operand x, attn_operand dy, attn_result dx);

/* Floats that hold so many bfloat16 numbers, in whole cache lines. */
static inline size_t attn_halves(size_t count)
{
    return attn_rounded((count + 1) / 2);
}

/* Floats that calls need behind the mechanism's scratch memory. */
size_t attn_projection_scratch(const attn_layer *layer, size_t batch, size_t length);

#endif
