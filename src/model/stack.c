/* The memory of the residual stack: one block of activations, one of workspace, carved once. */
#include "model/stack.h"

#include "base/error.h"
#include "base/memory.h"
#include "model/mlp.h"
#include "model/rows.h"

/* Hands out 64-byte aligned pieces of one block; without a block it only adds up. */
typedef struct carver {
    float *block;
    size_t used;
    bool overflows;
} carver;

static float *carve(carver *c, size_t rows, size_t columns)
{
    size_t count = 0, end = 0;
    if (!attn_size_multiply(rows, columns, &count) || !attn_size_add(count, 15, &count) ||
        !attn_size_add(c->used, count - count % 16, &end))
        c->overflows = true;
    float *piece = c->block ? c->block + c->used : NULL;
    c->used = end;
    return piece;
}

static attn_bf16 *carve_halves(carver *c, size_t rows, size_t columns)
{
    return (attn_bf16 *)(void *)carve(c, rows, (columns + 1) / 2);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t n_blocks(const attn_stack *s)
{
    return s->keeps ? attn_model_configuration(s->model)->layers : 1;
}

static void carve_activations(attn_stack *s, carver *c)
{
    const size_t n = s->batch * s->length, width = attn_model_configuration(s->model)->d_model;
    for (size_t i = 0; i < n_blocks(s); i++) {
        attn_stack_block *b = &s->blocks[i];
        b->x = carve(c, n, width);
        b->norm1 = carve(c, n, width);
        b->mean1 = carve(c, n, 1);
        b->inverse1 = carve(c, n, 1);
        if (s->keeps)
            b->saved = carve(
                c, attn_layer_saved_count(attn_model_layer(s->model, i), s->batch, s->length), 1);
        b->middle = carve(c, n, width);
        b->mean2 = carve(c, n, 1);
        b->inverse2 = carve(c, n, 1);
        if (attn_stack_is_half(s)) {
            b->norm2_half = carve_halves(c, n, width);
            b->up_half = carve_halves(c, n, ATTN_MODEL_EXPANSION * width);
        } else {
            b->norm2 = carve(c, n, width);
            b->up = carve(c, n, ATTN_MODEL_EXPANSION * width);
            b->gelu = carve(c, n, ATTN_MODEL_EXPANSION * width);
        }
    }
    s->last = s->keeps ? carve(c, n, width) : s->blocks[0].x;
    if (attn_stack_is_half(s))
        s->final_half = carve_halves(c, n, width);
    else
        s->final = carve(c, n, width);
    s->final_mean = carve(c, n, 1);
    s->final_inverse = carve(c, n, 1);
}

static void carve_workspace(attn_stack *s, carver *c, size_t scratch_count)
{
    const size_t n = s->batch * s->length, width = attn_model_configuration(s->model)->d_model;
    size_t n_kinds = 0;
    const attn_model_kind *kinds = attn_model_kinds(s->model, &n_kinds);
    for (size_t i = 0; i < n_kinds; i++) {
        const attn_layer *layer = kinds[i].layer;
        scratch_count =
            larger(scratch_count, attn_layer_scratch_count(layer, s->context, s->batch, s->length));
        if (attn_layer_is_causal(layer)) /* the others do not decode, nor take every length */
            scratch_count =
                larger(scratch_count, attn_layer_scratch_count(layer, s->context, s->batch, 1));
    }
    scratch_count = larger(scratch_count, attn_mlp_scratch_count(s));
    s->row = carve(c, s->context->threads, width);
    if (s->keeps) {
        s->gradient = carve(c, n, width);
        s->branch = carve(c, n, width);
        s->partial = carve(c, attn_rows_norm_partial_count(width), 1);
    }
    s->scratch = carve(c, scratch_count, 1);
}

/* Sizes first, then the blocks, then their pieces. */
static attn_status take_memory(attn_stack *s, size_t scratch_count, attn_error *error)
{
    s->blocks = attn_alloc_array(ATTN_MEMORY_OTHER, n_blocks(s), sizeof *s->blocks);
    if (!s->blocks) return attn_fail(error, ATTN_EMEMORY, "no memory for a model's activations");
    carver activations = {0}, workspace = {0};
    carve_activations(s, &activations);
    carve_workspace(s, &workspace, scratch_count);
    if (!activations.overflows && !workspace.overflows) {
        s->activation_memory =
            attn_alloc_array(ATTN_MEMORY_ACTIVATIONS, activations.used, sizeof(float));
        s->workspace_memory =
            attn_alloc_array(ATTN_MEMORY_WORKSPACE, workspace.used, sizeof(float));
    }
    if (!s->activation_memory || !s->workspace_memory)
        return attn_fail(error, ATTN_EMEMORY,
                         "no memory for the activations of %zu sequences of %zu tokens: "
                         "take a smaller batch or length",
                         s->batch, s->length);
    activations = (carver){.block = s->activation_memory};
    workspace = (carver){.block = s->workspace_memory};
    carve_activations(s, &activations);
    carve_workspace(s, &workspace, scratch_count);
    return ATTN_OK;
}

attn_status attn_stack_create(attn_stack *stack, const attn_model *model, attn_context *context,
                              size_t batch, size_t length, bool keeps, size_t scratch_count,
                              attn_error *error)
{
    const attn_model_config *config = attn_model_configuration(model);
    *stack = (attn_stack){
        .model = model, .context = context, .batch = batch, .length = length, .keeps = keeps};
    if (batch == 0 || length == 0)
        return attn_fail(error, ATTN_ESHAPE,
                         "a batch of %zu sequences of %zu tokens: give sizes above 0", batch,
                         length);
    if (length > config->positions)
        return attn_fail(error, ATTN_ESHAPE,
                         "sequences of %zu tokens, but the model has %zu positions: "
                         "take shorter sequences or a model with more positions",
                         length, config->positions);
    if (batch > SIZE_MAX / sizeof(float) / 64 / length / config->d_model)
        return attn_fail(error, ATTN_ESHAPE, "%zu sequences of %zu tokens do not fit into memory",
                         batch, length);
    const attn_status status = take_memory(stack, scratch_count, error);
    if (status != ATTN_OK) attn_stack_destroy(stack);
    return status;
}

void attn_stack_destroy(attn_stack *stack)
{
    attn_free(stack->workspace_memory);
    attn_free(stack->activation_memory);
    attn_free(stack->blocks);
    *stack = (attn_stack){0};
}
