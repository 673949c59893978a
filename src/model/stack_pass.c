/* The residual stack forward and backward. Residual additions are taken together with the norm
 * that follows; attention and MLP write straight into the next place of the stream. */
#include "base/error.h"
#include "kernels/dense.h"
#include "kernels/dense_bf16.h"
#include "model/mlp.h"
#include "model/rows.h"
#include "model/stack.h"

#include <string.h>

static attn_embedding embedding_of(const attn_stack *s, const attn_stack_input *in)
{
    const attn_model_config *config = attn_model_configuration(s->model);
    return (attn_embedding){.batch = in->batch,
                            .length = in->length,
                            .n = config->d_model,
                            .positions = config->positions,
                            .first_position = in->position,
                            .tokens = in->tokens,
                            .document_start = in->document_start};
}

static attn_rows_norm norm_of(const attn_stack *s, const attn_stack_input *in, const float *gain,
                              const float *bias, float *mean, float *inverse)
{
    return (attn_rows_norm){.rows = in->batch * in->length,
                            .n = attn_model_configuration(s->model)->d_model,
                            .gain = gain,
                            .bias = bias,
                            .mean = mean,
                            .inverse_deviation = inverse};
}

/* `half` in bfloat16 where it is given. */
static attn_rows_output output_of(const attn_stack *s, float *single, attn_bf16 *half)
{
    return (attn_rows_output){.single = half ? NULL : single, .half = half, .room = s->row};
}

/* The layer's failure, told to the model's caller. */
static attn_status layer_failure(attn_stack *s, attn_status status, attn_error *error)
{
    const attn_error *cause = attn_context_error(s->context);
    attn_fail(error, status, "%s", cause->text[0] ? cause->text : attn_status_text(status));
    attn_context_clear_error(s->context);
    return status;
}

/* Moves *cache, the layer's, on to the next one's. */
static attn_status attend(attn_stack *s, const attn_stack_input *in, size_t index,
                          const attn_stack_block *b, float **cache, attn_error *error)
{
    const attn_layer *layer = attn_model_layer(s->model, index);
    const attn_block_offsets *at = &attn_model_layout(s->model)->blocks[index];
    const attn_call call = {.batch = in->batch,
                            .length = in->length,
                            .parameters = attn_model_parameters(s->model) + at->attention,
                            .packed = attn_stack_packed(s, at->packed_attention),
                            .x = b->norm1,
                            .y = b->middle,
                            .saved = in->keeps ? b->saved : NULL,
                            .scratch = s->scratch,
                            .cache = *cache,
                            .cache_capacity = in->cache_capacity,
                            .position = in->position,
                            .document_start = in->document_start};
    if (*cache) *cache += attn_layer_cache_count(layer, in->batch, in->cache_capacity);
    const attn_status status = in->decodes ? attn_layer_decode(s->context, layer, &call)
                                           : attn_layer_forward(s->context, layer, &call);
    return status == ATTN_OK ? ATTN_OK : layer_failure(s, status, error);
}

/* From the block's input, with norm1 taken already, to its MLP's output in `next`; the residual
 * b->middle is left to the norm that follows. */
static attn_status block_forward(attn_stack *s, const attn_stack_input *in, size_t index,
                                 const attn_stack_block *b, float *next, float **cache,
                                 attn_error *error)
{
    const attn_block_offsets *at = &attn_model_layout(s->model)->blocks[index];
    const float *p = attn_model_parameters(s->model);

    uint64_t since = attn_clock_ns();
    const attn_status status = attend(s, in, index, b, cache, error);
    if (status != ATTN_OK) return status;
    since = attn_profile_lap(&s->profile, ATTN_PART_ATTENTION, ATTN_PASS_FORWARD, since);

    const attn_rows_norm norm2 =
        norm_of(s, in, p + at->norm2_gain, p + at->norm2_bias, b->mean2, b->inverse2);
    attn_rows_norm_forward(s->context, &norm2, b->x, b->middle,
                           output_of(s, b->norm2, b->norm2_half));
    attn_profile_lap(&s->profile, ATTN_PART_NORM, ATTN_PASS_FORWARD, since);
    attn_mlp_forward(s, in->batch * in->length, index, b, next);
    return ATTN_OK;
}

attn_status attn_stack_forward(attn_stack *stack, const attn_stack_input *in, attn_error *error)
{
    const attn_model_offsets *at = attn_model_layout(stack->model);
    const float *p = attn_model_parameters(stack->model);
    const size_t layers = attn_model_configuration(stack->model)->layers;
    const attn_embedding embedding = embedding_of(stack, in);

    uint64_t since = attn_clock_ns();
    attn_embedding_forward(stack->context, &embedding, p + at->tokens, p + at->positions,
                           stack->blocks[0].x);
    attn_profile_lap(&stack->profile, ATTN_PART_EMBEDDING, ATTN_PASS_FORWARD, since);

    const float *residual = NULL; /* of the block before */
    float *cache = in->caches;
    for (size_t l = 0; l < layers; l++) {
        const attn_stack_block *b = &stack->blocks[in->keeps ? l : 0];
        const attn_block_offsets *own = &at->blocks[l];
        float *next = l + 1 == layers ? stack->last : stack->blocks[in->keeps ? l + 1 : 0].x;
        since = attn_clock_ns();
        const attn_rows_norm norm1 =
            norm_of(stack, in, p + own->norm1_gain, p + own->norm1_bias, b->mean1, b->inverse1);
        attn_rows_norm_forward(stack->context, &norm1, residual, b->x,
                               output_of(stack, b->norm1, NULL));
        attn_profile_lap(&stack->profile, ATTN_PART_NORM, ATTN_PASS_FORWARD, since);
        const attn_status status = block_forward(stack, in, l, b, next, &cache, error);
        if (status != ATTN_OK) return status;
        residual = b->middle;
    }
    since = attn_clock_ns();
    const attn_rows_norm last = norm_of(stack, in, p + at->final_gain, p + at->final_bias,
                                        stack->final_mean, stack->final_inverse);
    attn_rows_norm_forward(stack->context, &last, residual, stack->last,
                           output_of(stack, stack->final, stack->final_half));
    attn_profile_lap(&stack->profile, ATTN_PART_NORM, ATTN_PASS_FORWARD, since);
    return ATTN_OK;
}

void attn_stack_logits(attn_stack *stack, size_t first, size_t step, size_t rows, float *logits)
{
    const attn_model_offsets *at = attn_model_layout(stack->model);
    const attn_model_config *config = attn_model_configuration(stack->model);
    const size_t c = config->d_model, v = config->vocabulary;
    /* The rows move to the front, where none is read any more. */
    if (stack->final_half) {
        attn_bf16 *x = stack->final_half + first * c;
        for (size_t i = 1; step > 1 && i < rows; i++)
            memmove(x + i * c, x + i * step * c, c * sizeof *x);
        attn_dense_bf16_forward(stack->context, rows, c, v, x,
                                attn_stack_packed(stack, at->packed_head), NULL,
                                (attn_dense_output){.single = logits});
    } else {
        float *x = stack->final + first * c;
        for (size_t i = 1; step > 1 && i < rows; i++)
            memmove(x + i * c, x + i * step * c, c * sizeof *x);
        attn_dense_decode(stack->context, rows, c, v, x,
                          attn_model_parameters(stack->model) + at->tokens, NULL, logits);
    }
}

/* ---- backward: s->gradient is the gradient of the stream, s->branch that of a norm's output -- */

/* next = middle + mlp(norm2(middle)) */
static void mlp_backward(attn_stack *s, const attn_stack_input *in, size_t index, float *g)
{
    const attn_stack_block *b = &s->blocks[index];
    const attn_block_offsets *at = &attn_model_layout(s->model)->blocks[index];
    const float *p = attn_model_parameters(s->model);
    attn_mlp_backward(s, in->batch * in->length, index, b, g);

    const uint64_t since = attn_clock_ns();
    const attn_rows_norm norm2 =
        norm_of(s, in, p + at->norm2_gain, p + at->norm2_bias, b->mean2, b->inverse2);
    attn_rows_norm_backward(s->context, &norm2, b->middle, s->branch, s->gradient, true, s->partial,
                            g + at->norm2_gain, g + at->norm2_bias);
    attn_profile_lap(&s->profile, ATTN_PART_NORM, ATTN_PASS_BACKWARD, since);
}

/* middle = x + attention(norm1(x)) */
static attn_status attention_backward(attn_stack *s, const attn_stack_input *in, size_t index,
                                      float *g, attn_error *error)
{
    const attn_stack_block *b = &s->blocks[index];
    const attn_block_offsets *at = &attn_model_layout(s->model)->blocks[index];
    const float *p = attn_model_parameters(s->model);
    const attn_call call = {.batch = in->batch,
                            .length = in->length,
                            .parameters = p + at->attention,
                            .packed = attn_stack_packed(s, at->packed_attention),
                            .x = b->norm1,
                            .saved = b->saved,
                            .scratch = s->scratch,
                            .document_start = in->document_start,
                            .dy = s->gradient,
                            .dx = s->branch,
                            .gradients = g + at->attention};
    uint64_t since = attn_clock_ns();
    const attn_status status =
        attn_layer_backward(s->context, attn_model_layer(s->model, index), &call);
    if (status != ATTN_OK) return layer_failure(s, status, error);
    since = attn_profile_lap(&s->profile, ATTN_PART_ATTENTION, ATTN_PASS_BACKWARD, since);

    const attn_rows_norm norm1 =
        norm_of(s, in, p + at->norm1_gain, p + at->norm1_bias, b->mean1, b->inverse1);
    attn_rows_norm_backward(s->context, &norm1, b->x, s->branch, s->gradient, true, s->partial,
                            g + at->norm1_gain, g + at->norm1_bias);
    attn_profile_lap(&s->profile, ATTN_PART_NORM, ATTN_PASS_BACKWARD, since);
    return ATTN_OK;
}

attn_status attn_stack_backward(attn_stack *stack, const attn_stack_input *in, float *gradients,
                                attn_error *error)
{
    const attn_model_offsets *at = attn_model_layout(stack->model);
    const float *p = attn_model_parameters(stack->model);

    uint64_t since = attn_clock_ns();
    const attn_rows_norm last = norm_of(stack, in, p + at->final_gain, p + at->final_bias,
                                        stack->final_mean, stack->final_inverse);
    attn_rows_norm_backward(stack->context, &last, stack->last, stack->branch, stack->gradient,
                            false, stack->partial, gradients + at->final_gain,
                            gradients + at->final_bias);
    attn_profile_lap(&stack->profile, ATTN_PART_NORM, ATTN_PASS_BACKWARD, since);

    for (size_t l = attn_model_configuration(stack->model)->layers; l-- > 0;) {
        mlp_backward(stack, in, l, gradients);
        const attn_status status = attention_backward(stack, in, l, gradients, error);
        if (status != ATTN_OK) return status;
    }
    since = attn_clock_ns();
    const attn_embedding embedding = embedding_of(stack, in);
    attn_embedding_backward(stack->context, &embedding, stack->gradient, gradients + at->tokens,
                            gradients + at->positions);
    attn_profile_lap(&stack->profile, ATTN_PART_EMBEDDING, ATTN_PASS_BACKWARD, since);
    return ATTN_OK;
}
