/* Shared parts of exact softmax attention. */
#include "mechanisms/exact_core.h"

#include "base/memory.h"
#include "mechanisms/kv_cache.h"

#include <math.h>

attn_visibility attn_rule_all(const attn_layer *layer)
{
    return (attn_visibility){.is_causal = layer->is_causal, .window = ATTN_NO_WINDOW};
}

attn_node *attn_oracle_softmax(attn_tape *tape, const attn_visibility *rule, attn_node *q,
                               attn_node *k, attn_node *v, const uint32_t *document_start)
{
    const size_t T = q->rows;
    bool *allowed = attn_alloc_array(ATTN_MEMORY_OTHER, T * T, sizeof *allowed);
    if (!allowed) return attn_tape_fail(tape);
    for (size_t i = 0; i < T; i++)
        for (size_t j = 0; j < T; j++)
            allowed[i * T + j] =
                attn_is_visible(rule, i, j, document_start ? document_start[i] : 0);
    attn_node *s = attn_matmul(tape, q, attn_transpose(tape, k));
    attn_node *p =
        attn_softmax(tape, attn_scaled(tape, s, 1.0 / sqrt((double)q->columns)), allowed);
    attn_free(allowed);
    return attn_matmul(tape, p, v);
}

size_t attn_all_cache(const attn_layer *layer, size_t batch, size_t capacity)
{
    const attn_visibility rule = attn_rule_all(layer);
    return attn_kv_cache_count(layer, &rule, batch, capacity);
}

void attn_all_decode(const attn_core_call *call)
{
    const attn_visibility rule = attn_rule_all(call->layer);
    attn_kv_cache_decode(call, &rule);
}

attn_node *attn_all_oracle(attn_tape *tape, const attn_layer *layer, size_t head, attn_node *q,
                           attn_node *k, attn_node *v, attn_node *const *parameters,
                           const uint32_t *document_start)
{
    (void)head;
    (void)parameters;
    const attn_visibility rule = attn_rule_all(layer);
    return attn_oracle_softmax(tape, &rule, q, k, v, document_start);
}

/* ---- flash ------------------------------------------------------------------------------- */

static void flash_forward(const attn_core_call *call)
{
    const attn_visibility rule = attn_rule_all(call->layer);
    attn_tile_forward(call, &rule, ATTN_TILE_ONLINE);
    if (call->cache) attn_kv_cache_fill(call, &rule);
}

static void flash_backward(const attn_core_call *call)
{
    const attn_visibility rule = attn_rule_all(call->layer);
    attn_tile_backward(call, &rule);
}

static attn_work flash_work(const attn_layer *layer, attn_phase phase, size_t batch, size_t length,
                            const uint32_t *document_start)
{
    const attn_visibility rule = attn_rule_all(layer);
    if (phase == ATTN_PHASE_DECODE) return attn_kv_cache_work(layer, &rule, batch, length);
    return attn_tile_work(layer, &rule, ATTN_TILE_ONLINE, phase, batch, length, document_start);
}

const attn_core attn_core_flash = {
    .saved = attn_tile_saved,
    .scratch = attn_tile_scratch,
    .cache = attn_all_cache,
    .forward = flash_forward,
    .backward = flash_backward,
    .decode = attn_all_decode,
    .oracle = attn_all_oracle,
    .work = flash_work,
};
