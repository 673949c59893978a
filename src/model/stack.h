/* Private to model: the residual stack from tokens to the last norm, forward and backward, with
 * all the memory that it needs. Training and generation are written over it. */
#ifndef MODEL_STACK_H
#define MODEL_STACK_H

#include "model/model.h"
#include "model/profile.h"

/* What one block leaves for its backward pass; without `keeps` all blocks share one. */
typedef struct attn_stack_block {
    float *x, *norm1;        /* [N][C]: the block's input, and what attention sees */
    float *mean1, *inverse1; /* [N] */
    float *saved;            /* the attention layer's; NULL without `keeps` */
    float *middle, *norm2;   /* [N][C]: x + attention, and what the MLP sees */
    float *mean2, *inverse2; /* [N] */
    float *up, *gelu;        /* [N][F] */
} attn_stack_block;

typedef struct attn_stack {
    const attn_model *model;
    attn_context *context;
    size_t batch, length; /* the most that one call may have */
    bool keeps;           /* forward keeps what backward needs */
    attn_profile profile;

    attn_stack_block *blocks; /* L, or 1 */
    float *last, *final;      /* [N][C]: input and output of the last norm */
    float *final_mean, *final_inverse;
    float *gradient, *branch; /* [N][C]: of the residual stream, of a norm's output */
    float *partial;           /* attn_rows_norm_partial_count() */
    float *scratch;           /* shared by all that needs memory for a moment */
    float *activation_memory, *workspace_memory;
} attn_stack;

/* `scratch_count`: elements of scratch that the caller wants at least. On failure nothing is
 * left allocated. */
ATTN_MUST_CHECK attn_status attn_stack_create(attn_stack *stack, const attn_model *model,
                                              attn_context *context, size_t batch, size_t length,
                                              bool keeps, size_t scratch_count, attn_error *error);
void attn_stack_destroy(attn_stack *stack);

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

/* Leaves the last norm's output in stack->final. */
ATTN_MUST_CHECK attn_status attn_stack_forward(attn_stack *stack, const attn_stack_input *input,
                                               attn_error *error);

/* From the gradient of stack->final, in stack->branch, to all gradients of the model but the
 * head's share of wte, which must lie in `gradients` already. */
ATTN_MUST_CHECK attn_status attn_stack_backward(attn_stack *stack, const attn_stack_input *input,
                                                float *gradients, attn_error *error);

#endif
