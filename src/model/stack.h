/* Private to model: the residual stack from tokens to the last norm, forward and backward, with
 * all the memory that it needs. Training and generation are written over it. */
#ifndef MODEL_STACK_H
#define MODEL_STACK_H

#include "model/model.h"
#include "model/profile.h"

/* What one block leaves for its backward pass; without `keeps` all blocks share one. */
typedef struct attn_stack_block {
    float *x, *norm1;                /* [N][C]: the block's input, and what attention sees */
    float *mean1, *inverse1;         /* [N] */
    float *saved;                    /* the attention layer's; NULL without `keeps` */
    float *middle, *norm2;           /* [N][C]: x + attention, and what the MLP sees */
    float *mean2, *inverse2;         /* [N] */
    float *up, *gelu;                /* [N][F] */
    attn_bf16 *norm2_half, *up_half; /* in bfloat16 instead of norm2, up and gelu */
} attn_stack_block;

typedef struct attn_stack {
    const attn_model *model;
    attn_context *context;
    size_t batch, length; /* the most that one call may have */
    bool keeps;           /* forward keeps what backward needs */
    attn_profile profile;

    attn_stack_block *blocks; /* L, or 1 */
    float *last, *final;      /* [N][C]: input and output of the last norm */
    attn_bf16 *final_half;    /* in bfloat16 instead of final */
    float *final_mean, *final_inverse;
    float *gradient, *branch; /* [N][C]: of the residual stream, of a norm's output */
    float *partial;           /* attn_rows_norm_partial_count() */
    float *row;               /* [threads][C] */
    float *scratch;           /* shared by all that needs memory for a moment */
    float *activation_memory, *workspace_memory;
} attn_stack;

/* `scratch_count`: elements of scratch that the caller wants at least. On failure nothing is
 * left allocated. */
ATTN_MUST_CHECK attn_status attn_stack_create(attn_stack *stack, const attn_model *model,
                                              attn_context *context, size_t batch, size_t length,
                                              bool keeps, size_t scratch_count, attn_error *error);
void attn_stack_destroy(attn_stack *stack);

/* Logits [rows][V] of the last pass's tokens first, first + step, ...: behind each other, so no
 * more than tokens. */
void attn_stack_logits(attn_stack *stack, size_t first, size_t step, size_t rows, float *logits);

/* Packed weights of the model at an offset; NULL in float32. */
static inline const attn_bf16 *attn_stack_packed(const attn_stack *stack, size_t offset)
{
    const attn_bf16 *packed = attn_model_packed(stack->model);
    return packed ? packed + offset : NULL;
}

static inline bool attn_stack_is_half(const attn_stack *stack)
{
    return attn_model_configuration(stack->model)->dtype == ATTN_BF16;
}

/* Floats that hold `count` bfloat16 numbers, and such a piece cut off the front of `room`; pieces
 * start on 64-byte borders when the first does. */
static inline size_t attn_stack_halves(size_t count)
{
    return (count + 31) / 32 * 16;
}

static inline attn_bf16 *attn_stack_cut(float **room, size_t count)
{
    float *piece = *room;
    *room += attn_stack_halves(count);
    return (attn_bf16 *)(void *)piece;
}

/* One pass. */
typedef struct attn_stack_input {
    size_t batch, length;
    const uint32_t *tokens;         /* [B][T] */
    const uint32_t *document_start; /* [B][T] or NULL */
    float *caches;                  /* of all layers, behind each other; NULL: none */
    size_t cache_capacity;
    size_t position; /* decoding: tokens already in the caches */
    bool decodes;    /* one token a sequence through the caches */
    bool keeps;      /* for attn_stack_backward() */
} attn_stack_input;

/* Leaves the last norm's output in stack->final or final_half. */
ATTN_MUST_CHECK attn_status attn_stack_forward(attn_stack *stack, const attn_stack_input *input,
                                               attn_error *error);

/* From the gradient of that output, in stack->branch, to all gradients of the model but the
 * head's share of wte, which must lie in `gradients` already. */
ATTN_MUST_CHECK attn_status attn_stack_backward(attn_stack *stack, const attn_stack_input *input,
                                                float *gradients, attn_error *error);

#endif
