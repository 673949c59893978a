/* sdpa: exact attention, a block of whole score rows at a time: one softmax a row and no matrix
 * of T x T kept. The backward pass is flash's. */
#include "mechanisms/exact_core.h"
#include "mechanisms/kv_cache.h"

static void forward(const attn_core_call *call)
{
    const attn_visibility rule = attn_rule_all(call->layer);
    const attn_tile_rule tiles = attn_rule_tiles(&rule, ATTN_TILE_ROWS);
    attn_exact_forward(call, &tiles);
    if (call->cache) attn_kv_cache_fill(call, &rule);
}

static void backward(const attn_core_call *call)
{
    const attn_visibility rule = attn_rule_all(call->layer);
    const attn_tile_rule tiles = attn_rule_tiles(&rule, ATTN_TILE_ROWS);
    attn_exact_backward(call, &tiles);
}

static attn_work work(const attn_layer *layer, attn_phase phase, size_t batch, size_t length,
                      const uint32_t *document_start)
{
    const attn_visibility rule = attn_rule_all(layer);
    if (phase == ATTN_PHASE_DECODE) return attn_kv_cache_work(layer, &rule, batch, length);
    const attn_tile_rule tiles = attn_rule_tiles(&rule, ATTN_TILE_ROWS);
    return attn_exact_work(layer, &tiles, phase, batch, length, document_start);
}

static const attn_core core = {
    .saved = attn_exact_saved,
    .scratch = attn_exact_scratch,
    .cache = attn_all_cache,
    .forward = forward,
    .backward = backward,
    .decode = attn_all_decode,
    .oracle = attn_all_oracle,
    .walk = ATTN_WALK_ROWS,
    .mask = attn_all_mask,
    .work = work,
};

const attn_mechanism attn_mechanism_sdpa = {
    .title = "exact attention by fused rows: one softmax a row, no T x T matrix kept",
    .source = "the contract of torch.nn.functional.scaled_dot_product_attention, causal top-left",
    .has_bf16 = true,
    .functions = &attn_heads_functions,
    .core = &core,
};
