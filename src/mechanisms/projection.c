/* Dense products of layers: which kernels, and the rounding of what they are given. */
#include "mechanisms/projection.h"

#include "kernels/dense.h"
#include "kernels/dense_bf16.h"

void attn_layer_declare_projection(attn_layer *layer, const char *weight, const char *bias,
                                   size_t in, size_t out)
{
    layer->projections[layer->n_projections++] =
        (attn_projection){.in = in,
                          .out = out,
                          .weight = attn_layer_offset(layer, weight),
                          .bias = bias ? attn_layer_offset(layer, bias) : ATTN_NO_BIAS,
                          .packed = layer->packed_count};
    if (layer->dtype == ATTN_BF16) layer->packed_count += attn_dense_bf16_packed(out, in);
}

/* ---- packed weights ---------------------------------------------------------------------- */

void attn_layer_pack(attn_context *context, const attn_layer *layer, const float *parameters,
                     attn_bf16 *packed)
{
    if (layer->dtype != ATTN_BF16) return;
    for (size_t i = 0; i < layer->n_projections; i++) {
        const attn_projection *p = &layer->projections[i];
        attn_dense_bf16_pack(context, p->out, p->in, parameters + p->weight, packed + p->packed);
    }
}

/* ---- rounded factors --------------------------------------------------------------------- */

size_t attn_projection_scratch(const attn_layer *layer, size_t batch, size_t length)
{
    const size_t rows = batch * (length > layer->memory_length ? length : layer->memory_length);
    size_t most = 0;
    for (size_t i = 0; i < layer->n_projections && layer->dtype == ATTN_BF16; i++) {
        const attn_projection *p = &layer->projections[i];
        const size_t both = attn_halves(rows * p->in) + attn_halves(rows * p->out);
        if (both > most) most = both;
    }
    return most;
}

static float *room_of(const attn_context *context, const attn_layer *layer, const attn_call *call)
{
    return call->scratch + attn_rounded(layer->mechanism->functions->scratch(
                               layer, context->threads, call->batch, call->length));
}

static attn_bf16 *cut_halves(float **room, size_t count)
{
    return (attn_bf16 *)(void *)attn_cut(room, attn_halves(count));
}

/* The numbers rounded, if they are not, in memory cut off `room`. */
static const attn_bf16 *rounded(attn_context *context, size_t count, attn_operand from,
                                float **room)
{
    if (from.half) return from.half;
    attn_bf16 *to = cut_halves(room, count);
    attn_dense_bf16_round(context, count, from.single, to);
    return to;
}

/* ---- products ---------------------------------------------------------------------------- */

static attn_dense_output output(attn_result to)
{
    return (attn_dense_output){.single = to.single, .half = to.half};
}

void attn_project(attn_context *context, const attn_layer *layer, const attn_call *call,
                  size_t index, size_t rows, attn_operand x, attn_result y)
{
    const attn_projection *p = &layer->projections[index];
    const float *bias = p->bias == ATTN_NO_BIAS ? NULL : call->parameters + p->bias;
    if (layer->dtype == ATTN_F32) {
        const bool is_decoding = call->cache && call->length == 1;
        (is_decoding ? attn_dense_decode : attn_dense_forward)(
            context, rows, p->in, p->out, x.single, call->parameters + p->weight, bias, y.single);
        return;
    }
    float *room = room_of(context, layer, call);
    const attn_bf16 *half_x = rounded(context, rows * p->in, x, &room);
    attn_dense_bf16_forward(context, rows, p->in, p->out, half_x, call->packed + p->packed, bias,
                            output(y));
}

void attn_projection_forward(attn_context *context, const attn_layer *layer, const attn_call *call,
                             size_t index, size_t rows, const float *x, float *y)
{
    attn_project(context, layer, call, index, rows, (attn_operand){.single = x},
                 (attn_result){.single = y});
}

static void half_input_gradient(attn_context *context, const attn_call *call,
                                const attn_projection *p, size_t rows, const attn_bf16 *dy,
                                attn_result dx)
{
    attn_dense_bf16_input_gradient(context, rows, p->in, p->out, dy, p->out,
                                   call->packed + p->packed, output(dx));
}

void attn_projection_input_gradient(attn_context *context, const attn_layer *layer,
                                    const attn_call *call, size_t index, size_t rows,
                                    const float *dy, float *dx)
{
    const attn_projection *p = &layer->projections[index];
    if (layer->dtype == ATTN_F32) {
        attn_dense_input_gradient(context, rows, p->in, p->out, dy, call->parameters + p->weight,
                                  dx, false);
        return;
    }
    float *room = room_of(context, layer, call);
    const attn_bf16 *half_dy = rounded(context, rows * p->out, (attn_operand){.single = dy}, &room);
    half_input_gradient(context, call, p, rows, half_dy, (attn_result){.single = dx});
}

void attn_project_back(attn_context *context, const attn_layer *layer, const attn_call *call,
                       size_t index, size_t rows, attn_operand x, attn_operand dy, attn_result dx)
{
    const attn_projection *p = &layer->projections[index];
    float *dw = call->gradients + p->weight;
    float *d_bias = p->bias == ATTN_NO_BIAS ? NULL : call->gradients + p->bias;
    if (layer->dtype == ATTN_F32) {
        attn_dense_weight_gradient(context, rows, p->in, p->out, x.single, dy.single, dw, d_bias,
                                   false);
        if (dx.single)
            attn_dense_input_gradient(context, rows, p->in, p->out, dy.single,
                                      call->parameters + p->weight, dx.single, false);
        return;
    }
    float *room = room_of(context, layer, call);
    const attn_bf16 *half_dy = rounded(context, rows * p->out, dy, &room);
    const attn_bf16 *half_x = rounded(context, rows * p->in, x, &room);
    attn_dense_bf16_weight_gradient(context, rows, p->in, p->out, half_x, half_dy, p->out, dw,
                                    d_bias, false);
    if (dx.single || dx.half) half_input_gradient(context, call, p, rows, half_dy, dx);
}

void attn_projection_backward(attn_context *context, const attn_layer *layer, const attn_call *call,
                              size_t index, size_t rows, const float *x, const float *dy, float *dx)
{
    attn_project_back(context, layer, call, index, rows, (attn_operand){.single = x},
                      (attn_operand){.single = dy}, (attn_result){.single = dx});
}
