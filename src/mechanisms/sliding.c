/* sliding: each query sees its last `window` keys, itself included, and the first `sinks` keys.
 * Work grows with T window, the cache stops growing at window + sinks. */
#include "base/error.h"
#include "mechanisms/exact_core.h"
#include "mechanisms/kv_cache.h"

enum { WINDOW, SINKS };

static const attn_option options[] = {
    [WINDOW] = {"window", ATTN_OPTION_SIZE, "256", 1, 1 << 28,
                "keys that a query sees, itself included"},
    [SINKS] = {"sinks", ATTN_OPTION_SIZE, "0", 0, 1 << 28, "first keys that stay visible"},
    {.name = NULL}};

static attn_visibility rule_of(const attn_layer *layer)
{
    return (attn_visibility){.is_causal = layer->is_causal,
                             .window = layer->options[WINDOW].size,
                             .sinks = layer->options[SINKS].size};
}

static attn_status check(attn_layer *layer, attn_error *error)
{
    if (layer->options[SINKS].size > layer->positions)
        return attn_fail(error, ATTN_ESHAPE, "sliding: sinks=%zu are more than the %zu positions",
                         layer->options[SINKS].size, layer->positions);
    return ATTN_OK;
}

static void forward(const attn_core_call *call)
{
    const attn_visibility rule = rule_of(call->layer);
    const attn_tile_rule tiles = attn_rule_tiles(&rule, ATTN_TILE_ONLINE);
    attn_exact_forward(call, &tiles);
    if (call->cache) attn_kv_cache_fill(call, &rule);
}

static void backward(const attn_core_call *call)
{
    const attn_visibility rule = rule_of(call->layer);
    const attn_tile_rule tiles = attn_rule_tiles(&rule, ATTN_TILE_ONLINE);
    attn_exact_backward(call, &tiles);
}

static size_t cache(const attn_layer *layer, size_t batch, size_t capacity)
{
    const attn_visibility rule = rule_of(layer);
    return attn_kv_cache_count(layer, &rule, batch, capacity);
}

static void decode(const attn_core_call *call)
{
    const attn_visibility rule = rule_of(call->layer);
    attn_kv_cache_decode(call, &rule);
}

static attn_node *oracle(attn_tape *tape, const attn_layer *layer, size_t head, attn_node *q,
                         attn_node *k, attn_node *v, attn_node *const *parameters,
                         const uint32_t *document_start)
{
    (void)parameters;
    const attn_visibility rule = rule_of(layer);
    const attn_mask mask = attn_visibility_mask(&rule);
    return attn_oracle_attend(tape, &mask, head, attn_oracle_scores(tape, q, k), v, document_start);
}

static attn_work work(const attn_layer *layer, attn_phase phase, size_t batch, size_t length,
                      const uint32_t *document_start)
{
    const attn_visibility rule = rule_of(layer);
    if (phase == ATTN_PHASE_DECODE) return attn_kv_cache_work(layer, &rule, batch, length);
    const attn_tile_rule tiles = attn_rule_tiles(&rule, ATTN_TILE_ONLINE);
    return attn_exact_work(layer, &tiles, phase, batch, length, document_start);
}

static attn_mask mask(const attn_layer *layer, attn_visibility *room)
{
    *room = rule_of(layer);
    return attn_visibility_mask(room);
}

static const attn_core core = {
    .saved = attn_exact_saved,
    .scratch = attn_exact_scratch,
    .cache = cache,
    .forward = forward,
    .backward = backward,
    .decode = decode,
    .oracle = oracle,
    .walk = ATTN_WALK_ONLINE,
    .mask = mask,
    .work = work,
};

const attn_mechanism attn_mechanism_sliding = {
    .title = "each query sees its last `window` keys and the first `sinks`: O(T window) work",
    .source = "Beltagy et al., Longformer, 2020; sinks: Xiao et al., StreamingLLM, 2023",
    .has_bf16 = true,
    .options = options,
    .check = check,
    .functions = &attn_heads_functions,
    .core = &core,
};
