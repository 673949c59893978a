/* linear: attention with the feature map phi(u) = elu(u) + 1 in place of the exponential of a
 * product, so that a state of fixed size replaces the past:
 *
 *     o_t = phi(q_t) S_t / phi(q_t) . z_t,   S_t = sum_{s<=t} phi(k_s) v_s^T,   z_t = sum phi(k_s)
 *
 * This file is the feature map; the chunked recurrence is recurrence_engine.c. */
#include "mechanisms/recurrence_engine.h"

static size_t count(const attn_layer *layer)
{
    return layer->head_dim;
}

static void features(const attn_feature_walk *walk, size_t rows, const float *x, float *phi)
{
    const attn_core_call *call = walk->call;
    const size_t d = call->layer->head_dim;
    for (size_t i = 0; i < rows; i++)
        call->context->kernels->elu_plus_one(d, x + i * call->row, phi + i * d);
    walk->work->exponential += (uint64_t)rows * d;
    walk->work->other += (uint64_t)rows * d;
}

static size_t keys(const attn_feature_walk *walk, size_t rows, bool is_first, const float *k,
                   float *phi, float *carry, bool *has_carry)
{
    (void)is_first;
    (void)carry;
    *has_carry = false; /* the features have no reference */
    features(walk, rows, k, phi);
    return rows;
}

static void features_gradient(const attn_feature_walk *walk, size_t rows, const float *x,
                              const float *phi, float *dphi, float *dx)
{
    (void)x;
    const attn_core_call *call = walk->call;
    const size_t d = call->layer->head_dim;
    for (size_t i = 0; i < rows; i++)
        call->context->kernels->elu_plus_one_gradient(d, phi + i * d, dphi + i * d,
                                                      dx + i * call->row);
    walk->work->other += (uint64_t)rows * d;
}

static attn_work head_work(const attn_layer *layer, attn_phase phase, uint64_t tokens)
{
    const uint64_t n = 2 * tokens * layer->head_dim; /* queries and keys */
    return (attn_work){.exponential = n, .other = phase == ATTN_PHASE_BACKWARD ? 2 * n : n};
}

static const attn_feature_map map = {
    .count = count,
    .keys = keys,
    .queries = features,
    .keys_gradient = features_gradient,
    .queries_gradient = features_gradient,
    .head_work = head_work,
};

/* ---- the core ---------------------------------------------------------------------------- */

static size_t scratch(const attn_layer *layer, size_t threads, size_t batch, size_t length)
{
    (void)batch;
    return attn_recurrence_scratch(layer, &map, threads, length);
}

static size_t cache(const attn_layer *layer, size_t batch, size_t capacity)
{
    (void)capacity; /* the state does not grow */
    return attn_recurrence_cache(layer, &map, batch);
}

static void forward(const attn_core_call *call)
{
    attn_recurrence_forward(call, &map);
}

static void backward(const attn_core_call *call)
{
    attn_recurrence_backward(call, &map);
}

static void decode(const attn_core_call *call)
{
    attn_recurrence_decode(call, &map);
}

static attn_work work(const attn_layer *layer, attn_phase phase, size_t batch, size_t length,
                      const uint32_t *document_start)
{
    return attn_recurrence_work(layer, &map, phase, batch, length, document_start);
}

/* phi(q) phi(k)^T, masked, divided by its row sums, times v: the definition without a state. */
static attn_node *oracle(attn_tape *tape, const attn_layer *layer, size_t head, attn_node *q,
                         attn_node *k, attn_node *v, attn_node *const *parameters,
                         const uint32_t *document_start)
{
    (void)head;
    (void)parameters;
    attn_node *a = attn_matmul(tape, attn_elu_plus_one(tape, q),
                               attn_transpose(tape, attn_elu_plus_one(tape, k)));
    a = attn_recurrence_visible(tape, layer, a, document_start);
    attn_node *o = attn_matmul(tape, a, v);
    return attn_times(tape, o, attn_reciprocal(tape, attn_row_sums(tape, a)));
}

static const attn_core core = {
    .saved = attn_recurrence_saved,
    .scratch = scratch,
    .cache = cache,
    .forward = forward,
    .backward = backward,
    .decode = decode,
    .oracle = oracle,
    .work = work,
};

const attn_mechanism attn_mechanism_linear = {
    .title = "linear attention with elu + 1 features: O(T) work, a state instead of a cache",
    .source = "Katharopoulos et al., Transformers are RNNs, 2020",
    .functions = &attn_heads_functions,
    .core = &core,
};
