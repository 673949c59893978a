/* sdpa: exact attention, a block of whole score rows at a time: one softmax a row and no matrix
 * of T x T kept. The backward pass is flash's. */
#include "mechanisms/exact_core.h"
#include "mechanisms/kv_cache.h"

static void forward(const attn_core_call *call)
{
    const attn_visibility rule = attn_rule_all(call->layer);
    attn_tile_forward(call, &rule, ATTN_TILE_ROWS);
    if (call->cache) attn_kv_cache_fill(call, &rule);
}

static void backward(const attn_core_call *call)
{
    const attn_visibility rule = attn_rule_all(call->layer);
    attn_tile_backward(call, &rule);
}

static attn_work work(const attn_layer *layer, attn_phase phase, size_t batch, size_t length,
                      const uint32_t *document_start)
{
    const attn_visibility rule = attn_rule_all(layer);
    if (phase == ATTN_PHASE_DECODE) return attn_kv_cache_work(layer, &rule, batch, length);
    return attn_tile_work(layer, &rule, ATTN_TILE_ROWS, phase, batch, length, document_start);
}

static const attn_core core = {
    .saved = attn_tile_saved,
    .scratch = attn_tile_scratch,
    .cache = attn_all_cache,
    .forward = forward,
    .backward = backward,
    .decode = attn_all_decode,
    .oracle = attn_all_oracle,
    .work = work,
};

const attn_mechanism attn_mechanism_sdpa = {
    .title = "exact attention by fused rows: one softmax a row, no T x T matrix kept",
    .source = "the contract of torch.nn.functional.scaled_dot_product_attention, causal top-left",
    .functions = &attn_heads_functions,
    .core = &core,
};
