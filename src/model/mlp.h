/* Private to model: the feed-forward layer of a block, y = w_down gelu(w_up x + b_up) + b_down, in
 * the model's dtype.
 *
 * In bfloat16 x, w_up x + b_up and its GELU are bfloat16, and so are the gradients that products
 * take; y, dx and the gradients of parameters are float32. The GELU is taken again by the backward
 * pass instead of being kept. */
#ifndef MODEL_MLP_H
#define MODEL_MLP_H

#include "model/stack.h"

/* Floats of scratch that both directions need. */
size_t attn_mlp_scratch_count(const attn_stack *stack);

/* From the block's second norm to `y` [rows][C]. */
void attn_mlp_forward(attn_stack *stack, size_t rows, size_t index, const attn_stack_block *block,
                      float *y);

/* From dy in stack->gradient to dx in stack->branch, and the gradients of the parameters. */
void attn_mlp_backward(attn_stack *stack, size_t rows, size_t index, const attn_stack_block *block,
                       float *gradients);

#endif
