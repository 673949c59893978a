/* The feed-forward layer. */
#include "model/mlp.h"

#include "kernels/dense.h"
#include "kernels/dense_bf16.h"
#include "model/rows.h"

static size_t width_of(const attn_stack *s)
{
    return attn_model_configuration(s->model)->d_model;
}

size_t attn_mlp_scratch_count(const attn_stack *s)
{
    const size_t rows = s->batch * s->length, c = width_of(s), f = ATTN_MODEL_EXPANSION * c;
    if (!attn_stack_is_half(s)) return s->keeps ? rows * f : 0;
    if (!s->keeps) return attn_stack_halves(rows * f);
    return attn_stack_halves(rows * c) + 2 * attn_stack_halves(rows * f);
}

/* ---- float32 ----------------------------------------------------------------------------- */

static void forward_single(attn_stack *s, size_t rows, size_t index, const attn_stack_block *b,
                           float *y)
{
    const attn_block_offsets *at = &attn_model_layout(s->model)->blocks[index];
    const float *p = attn_model_parameters(s->model);
    const size_t c = width_of(s), f = ATTN_MODEL_EXPANSION * c;

    void (*const product)(attn_context *, size_t, size_t, size_t, const float *, const float *,
                          const float *, float *) =
        s->keeps ? attn_dense_forward : attn_dense_decode;

    uint64_t since = attn_clock_ns();
    product(s->context, rows, c, f, b->norm2, p + at->up_weight, p + at->up_bias, b->up);
    since = attn_profile_lap(&s->profile, ATTN_PART_MLP_DENSE, ATTN_PASS_FORWARD, since);
    attn_rows_gelu_forward(s->context, rows * f, b->up, b->gelu);
    since = attn_profile_lap(&s->profile, ATTN_PART_GELU, ATTN_PASS_FORWARD, since);
    product(s->context, rows, f, c, b->gelu, p + at->down_weight, p + at->down_bias, y);
    attn_profile_lap(&s->profile, ATTN_PART_MLP_DENSE, ATTN_PASS_FORWARD, since);
}

static void backward_single(attn_stack *s, size_t rows, size_t index, const attn_stack_block *b,
                            float *g)
{
    const attn_block_offsets *at = &attn_model_layout(s->model)->blocks[index];
    const float *p = attn_model_parameters(s->model);
    const size_t c = width_of(s), f = ATTN_MODEL_EXPANSION * c;
    float *wide = s->scratch; /* [rows][F] */

    uint64_t since = attn_clock_ns();
    attn_dense_weight_gradient(s->context, rows, f, c, b->gelu, s->gradient, g + at->down_weight,
                               g + at->down_bias, false);
    attn_dense_input_gradient(s->context, rows, f, c, s->gradient, p + at->down_weight, wide,
                              false);
    since = attn_profile_lap(&s->profile, ATTN_PART_MLP_DENSE, ATTN_PASS_BACKWARD, since);
    attn_rows_gelu_backward(s->context, rows * f, b->up, wide);
    since = attn_profile_lap(&s->profile, ATTN_PART_GELU, ATTN_PASS_BACKWARD, since);
    attn_dense_weight_gradient(s->context, rows, c, f, b->norm2, wide, g + at->up_weight,
                               g + at->up_bias, false);
    attn_dense_input_gradient(s->context, rows, c, f, wide, p + at->up_weight, s->branch, false);
    attn_profile_lap(&s->profile, ATTN_PART_MLP_DENSE, ATTN_PASS_BACKWARD, since);
}

/* ---- bfloat16 ---------------------------------------------------------------------------- */

static void forward_half(attn_stack *s, size_t rows, size_t index, const attn_stack_block *b,
                         float *y)
{
    const attn_block_offsets *at = &attn_model_layout(s->model)->blocks[index];
    const float *p = attn_model_parameters(s->model);
    const attn_bf16 *packed = attn_model_packed(s->model);
    const size_t c = width_of(s), f = ATTN_MODEL_EXPANSION * c;
    float *room = s->scratch;
    attn_bf16 *gelu = attn_stack_cut(&room, rows * f);

    uint64_t since = attn_clock_ns();
    attn_dense_bf16_forward(s->context, rows, c, f, b->norm2_half, packed + at->packed_up,
                            p + at->up_bias, (attn_dense_output){.half = b->up_half});
    since = attn_profile_lap(&s->profile, ATTN_PART_MLP_DENSE, ATTN_PASS_FORWARD, since);
    attn_rows_gelu_forward_half(s->context, rows * f, b->up_half, gelu);
    since = attn_profile_lap(&s->profile, ATTN_PART_GELU, ATTN_PASS_FORWARD, since);
    attn_dense_bf16_forward(s->context, rows, f, c, gelu, packed + at->packed_down,
                            p + at->down_bias, (attn_dense_output){.single = y});
    attn_profile_lap(&s->profile, ATTN_PART_MLP_DENSE, ATTN_PASS_FORWARD, since);
}

static void backward_half(attn_stack *s, size_t rows, size_t index, const attn_stack_block *b,
                          float *g)
{
    const attn_block_offsets *at = &attn_model_layout(s->model)->blocks[index];
    const attn_bf16 *packed = attn_model_packed(s->model);
    const size_t c = width_of(s), f = ATTN_MODEL_EXPANSION * c;
    float *room = s->scratch;
    attn_bf16 *dy = attn_stack_cut(&room, rows * c);
    attn_bf16 *gelu = attn_stack_cut(&room, rows * f);
    attn_bf16 *wide = attn_stack_cut(&room, rows * f);

    uint64_t since = attn_clock_ns();
    attn_dense_bf16_round(s->context, rows * c, s->gradient, dy);
    attn_dense_bf16_input_gradient(s->context, rows, f, c, dy, c, packed + at->packed_down,
                                   (attn_dense_output){.half = wide});
    since = attn_profile_lap(&s->profile, ATTN_PART_MLP_DENSE, ATTN_PASS_BACKWARD, since);
    attn_rows_gelu_backward_half(s->context, rows * f, b->up_half, gelu, wide);
    since = attn_profile_lap(&s->profile, ATTN_PART_GELU, ATTN_PASS_BACKWARD, since);
    attn_dense_bf16_weight_gradient(s->context, rows, f, c, gelu, dy, c, g + at->down_weight,
                                    g + at->down_bias, false);
    attn_dense_bf16_weight_gradient(s->context, rows, c, f, b->norm2_half, wide, f,
                                    g + at->up_weight, g + at->up_bias, false);
    attn_dense_bf16_input_gradient(s->context, rows, c, f, wide, f, packed + at->packed_up,
                                   (attn_dense_output){.single = s->branch});
    attn_profile_lap(&s->profile, ATTN_PART_MLP_DENSE, ATTN_PASS_BACKWARD, since);
}

/* ---- either ------------------------------------------------------------------------------ */

void attn_mlp_forward(attn_stack *stack, size_t rows, size_t index, const attn_stack_block *block,
                      float *y)
{
    if (attn_stack_is_half(stack))
        forward_half(stack, rows, index, block, y);
    else
        forward_single(stack, rows, index, block, y);
}

void attn_mlp_backward(attn_stack *stack, size_t rows, size_t index, const attn_stack_block *block,
                       float *gradients)
{
    if (attn_stack_is_half(stack))
        backward_half(stack, rows, index, block, gradients);
    else
        backward_single(stack, rows, index, block, gradients);
}
