/* The projections around a core: [q | k | v] = x Wqkv^T + b, o = core(q, k, v), y = o Wo^T + b.
 *
 * wq, wk and wv lie behind each other, and so do their biases: one product does all three, and
 * a token's row of W = (H + 2 Hkv) d numbers holds its queries, keys and values: bfloat16 where the
 * core's products take them so, else floats. */
#include "mechanisms/kv_cache.h"
#include "mechanisms/projection.h"

enum { HEADS_PARAMETERS = 8 }; /* declared here; the core's own follow */
enum { QKV, O };               /* projections */

static size_t row_width(const attn_layer *layer)
{
    return (layer->heads + 2 * layer->kv_heads) * layer->head_dim;
}

static void heads_declare(attn_layer *layer)
{
    const size_t C = layer->d_model, kv = layer->kv_heads * layer->head_dim;
    attn_layer_declare(layer, "wq.weight", C, C, ATTN_INITIAL_WEIGHT);
    attn_layer_declare(layer, "wk.weight", kv, C, ATTN_INITIAL_WEIGHT);
    attn_layer_declare(layer, "wv.weight", kv, C, ATTN_INITIAL_WEIGHT);
    attn_layer_declare(layer, "wq.bias", C, 0, ATTN_INITIAL_ZERO);
    attn_layer_declare(layer, "wk.bias", kv, 0, ATTN_INITIAL_ZERO);
    attn_layer_declare(layer, "wv.bias", kv, 0, ATTN_INITIAL_ZERO);
    attn_layer_declare(layer, "wo.weight", C, C, ATTN_INITIAL_RESIDUAL);
    attn_layer_declare(layer, "wo.bias", C, 0, ATTN_INITIAL_ZERO);
    attn_layer_declare_projection(layer, "wq.weight", "wq.bias", C, row_width(layer));
    attn_layer_declare_projection(layer, "wo.weight", "wo.bias", C, C);
    if (layer->mechanism->core->declare) layer->mechanism->core->declare(layer);
}

static bool has_half_rows(const attn_layer *layer)
{
    return attn_layer_core_dtype(layer) == ATTN_BF16;
}

/* Floats that hold rows of numbers of the core's type. */
static size_t rows_count(const attn_layer *layer, size_t rows, size_t width)
{
    return has_half_rows(layer) ? attn_halves(rows * width) : attn_rounded(rows * width);
}

static size_t heads_saved(const attn_layer *layer, size_t batch, size_t length)
{
    const size_t rows = batch * length;
    return rows_count(layer, rows, row_width(layer)) + attn_rounded(rows * layer->d_model) +
           attn_rounded(layer->mechanism->core->saved(layer, batch, length));
}

static size_t heads_scratch(const attn_layer *layer, size_t threads, size_t batch, size_t length)
{
    const size_t rows = batch * length;
    const size_t core = layer->mechanism->core->scratch(layer, threads, batch, length);
    const size_t rows_of_scores = threads * layer->positions; /* what other caches decode with */
    const size_t cached = attn_kv_cache_scratch(layer, threads, batch);
    const size_t decode = cached > rows_of_scores ? cached : rows_of_scores;
    return rows_count(layer, rows, row_width(layer)) + attn_rounded(rows * layer->d_model) +
           (core > decode ? core : decode);
}

void attn_core_set_rows(attn_core_call *call, const void *rows)
{
    const attn_layer *layer = call->layer;
    const size_t d = layer->head_dim, k = layer->heads * d, v = k + layer->kv_heads * d;
    const attn_bf16 *halves = has_half_rows(layer) ? rows : NULL;
    const float *singles = halves ? NULL : rows;
    call->row = row_width(layer);
    call->q = singles;
    call->k = singles ? singles + k : NULL;
    call->v = singles ? singles + v : NULL;
    call->half.q = halves;
    call->half.k = halves ? halves + k : NULL;
    call->half.v = halves ? halves + v : NULL;
}

void attn_core_set_gradients(attn_core_call *call, const void *d_o, void *rows)
{
    const attn_layer *layer = call->layer;
    const size_t d = layer->head_dim, k = layer->heads * d, v = k + layer->kv_heads * d;
    attn_bf16 *halves = has_half_rows(layer) ? rows : NULL;
    float *singles = halves ? NULL : rows;
    call->d_o = halves ? NULL : d_o;
    call->dq = singles;
    call->dk = singles ? singles + k : NULL;
    call->dv = singles ? singles + v : NULL;
    call->half.d_o = halves ? d_o : NULL;
    call->half.dq = halves;
    call->half.dk = halves ? halves + k : NULL;
    call->half.dv = halves ? halves + v : NULL;
}

/* A core call over rows of qkv; gradients are set by the caller. */
static attn_core_call core_call(attn_context *context, const attn_layer *layer,
                                const attn_call *call, const float *qkv, float *o)
{
    attn_core_call core = {.context = context,
                           .kernels = attn_core_kernels(context, layer),
                           .layer = layer,
                           .batch = call->batch,
                           .length = call->length,
                           .o = o,
                           .o_row = layer->d_model,
                           .document_start = call->document_start,
                           .cache = call->cache,
                           .cache_capacity = call->cache_capacity,
                           .position = call->position,
                           .parameters = call->parameters,
                           .gradients = call->gradients};
    attn_core_set_rows(&core, qkv);
    return core;
}

/* ---- projections, in the core's type ----------------------------------------------------- */

static attn_operand read_from(const attn_layer *layer, const void *numbers)
{
    const bool is_half = has_half_rows(layer);
    return (attn_operand){.single = is_half ? NULL : numbers, .half = is_half ? numbers : NULL};
}

static attn_result write_to(const attn_layer *layer, void *numbers)
{
    const bool is_half = has_half_rows(layer);
    return (attn_result){.single = is_half ? NULL : numbers, .half = is_half ? numbers : NULL};
}

typedef void core_function(const attn_core_call *call);

static void project_around(attn_context *context, const attn_layer *layer, const attn_call *call,
                           core_function *core)
{
    const size_t rows = call->batch * call->length, C = layer->d_model;
    float *qkv = call->saved ? call->saved : call->scratch;
    float *o = qkv + rows_count(layer, rows, row_width(layer)), *rest = o + attn_rounded(rows * C);

    attn_project(context, layer, call, QKV, rows, (attn_operand){.single = call->x},
                 write_to(layer, qkv));
    attn_core_call inner = core_call(context, layer, call, qkv, o);
    inner.saved = call->saved ? rest : NULL;
    inner.scratch = call->saved ? call->scratch : rest;
    core(&inner);
    attn_projection_forward(context, layer, call, O, rows, o, call->y);
}

static void heads_forward(attn_context *context, const attn_layer *layer, const attn_call *call)
{
    project_around(context, layer, call, layer->mechanism->core->forward);
}

static void heads_decode(attn_context *context, const attn_layer *layer, const attn_call *call)
{
    project_around(context, layer, call, layer->mechanism->core->decode);
}

static void heads_backward(attn_context *context, const attn_layer *layer, const attn_call *call)
{
    const size_t rows = call->batch * call->length, C = layer->d_model;
    const size_t width = rows_count(layer, rows, row_width(layer));
    float *qkv = call->saved, *o = qkv + width, *d_qkv = call->scratch, *d_o = d_qkv + width;

    /* y = o Wo^T + b */
    attn_project_back(context, layer, call, O, rows, (attn_operand){.single = o},
                      (attn_operand){.single = call->dy}, write_to(layer, d_o));
    /* o = core(q, k, v) */
    attn_core_call inner = core_call(context, layer, call, qkv, o);
    inner.saved = o + attn_rounded(rows * C);
    inner.scratch = d_o + rows_count(layer, rows, C);
    attn_core_set_gradients(&inner, d_o, d_qkv);
    layer->mechanism->core->backward(&inner);
    /* qkv = x Wqkv^T + b */
    attn_project_back(context, layer, call, QKV, rows, (attn_operand){.single = call->x},
                      read_from(layer, d_qkv), (attn_result){.single = call->dx});
}

static attn_work heads_work(const attn_layer *layer, attn_phase phase, size_t batch, size_t length,
                            const uint32_t *document_start)
{
    const uint64_t rows = phase == ATTN_PHASE_DECODE ? batch : (uint64_t)batch * length;
    const uint64_t C = layer->d_model, W = row_width(layer);
    const uint64_t products = phase == ATTN_PHASE_BACKWARD ? 2 : 1; /* dx and dw; y */
    attn_work work = {.matmul = products * 2 * rows * C * (W + C), .other = rows * (W + C)};
    attn_work_add(&work, layer->mechanism->core->work(layer, phase, batch, length, document_start));
    return work;
}

static attn_node *heads_oracle(attn_tape *tape, const attn_layer *layer, attn_node *x,
                               attn_node *const *parameters, attn_node *memory,
                               const uint32_t *document_start)
{
    (void)memory; /* keys and values come from x */
    const size_t d = layer->head_dim;
    attn_node *q = attn_linear(tape, x, parameters[0], parameters[3]);
    attn_node *k = attn_linear(tape, x, parameters[1], parameters[4]);
    attn_node *v = attn_linear(tape, x, parameters[2], parameters[5]);
    attn_node *o = NULL;
    for (size_t h = 0; h < layer->heads; h++) {
        const size_t g = h * layer->kv_heads / layer->heads;
        attn_node *head = layer->mechanism->core->oracle(
            tape, layer, h, attn_columns(tape, q, h * d, d), attn_columns(tape, k, g * d, d),
            attn_columns(tape, v, g * d, d), parameters + HEADS_PARAMETERS, document_start);
        o = o ? attn_beside(tape, o, head) : head;
    }
    return attn_linear(tape, o, parameters[6], parameters[7]);
}

static size_t heads_cache(const attn_layer *layer, size_t batch, size_t capacity)
{
    return layer->mechanism->core->cache(layer, batch, capacity);
}

const attn_layer_functions attn_heads_functions = {
    .declare = heads_declare,
    .saved = heads_saved,
    .scratch = heads_scratch,
    .cache = heads_cache,
    .forward = heads_forward,
    .backward = heads_backward,
    .decode = heads_decode,
    .work = heads_work,
    .oracle = heads_oracle,
};
