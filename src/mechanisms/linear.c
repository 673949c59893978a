/* linear: attention with the feature map phi(u) = elu(u) + 1 in place of the exponential of a
 * product, so that a state of fixed size replaces the past:
 *
 *     o_t = phi(q_t) S_t / phi(q_t) . z_t,   S_t = sum_{s<=t} phi(k_s) v_s^T,   z_t = sum phi(k_s)
 *
 * This file is the feature map; the chunked recurrence is recurrence_engine.c. */
#include "mechanisms/recurrence_engine.h"

#include <math.h>

static size_t saved(const attn_layer *layer, size_t batch, size_t length)
{
    return attn_recurrence_saved(layer, batch, length);
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
    .saved = saved,
    .scratch = attn_recurrence_scratch,
    .cache = attn_recurrence_cache,
    .forward = attn_recurrence_forward,
    .backward = attn_recurrence_backward,
    .decode = attn_recurrence_decode,
    .oracle = oracle,
    .work = attn_recurrence_work,
};

const attn_mechanism attn_mechanism_linear = {
    .title = "linear attention with elu + 1 features: O(T) work, a state instead of a cache",
    .source = "Katharopoulos et al., Transformers are RNNs, 2020",
    .functions = &attn_heads_functions,
    .core = &core,
};
