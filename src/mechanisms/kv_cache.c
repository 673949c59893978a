/* Key/value caches. Token j keeps slot j; behind the sinks a window's slots are used in turn, so
 * that every occupied slot is always visible to the newest query. */
#include "mechanisms/kv_cache.h"

#include <string.h>

size_t attn_kv_slot_count(const attn_visibility *rule, size_t capacity)
{
    if (rule->window == ATTN_NO_WINDOW) return capacity;
    return attn_smaller(capacity, rule->sinks + rule->window);
}

size_t attn_kv_slot_of(const attn_visibility *rule, size_t position)
{
    if (rule->window == ATTN_NO_WINDOW || position < rule->sinks) return position;
    return rule->sinks + (position - rule->sinks) % rule->window;
}

size_t attn_kv_cache_count(const attn_layer *layer, const attn_visibility *rule, size_t batch,
                           size_t capacity)
{
    const size_t numbers =
        2 * batch * layer->kv_heads * attn_kv_slot_count(rule, capacity) * layer->head_dim;
    return attn_kv_is_half(layer) ? numbers / 2 : numbers;
}

size_t attn_kv_keys(const attn_core_call *call, const attn_visibility *rule, size_t index)
{
    return index * attn_kv_slot_count(rule, call->cache_capacity) * call->layer->head_dim;
}

/* Half a cache further. */
size_t attn_kv_values(const attn_core_call *call, const attn_visibility *rule, size_t index)
{
    return attn_kv_keys(call, rule, call->batch * call->layer->kv_heads + index);
}

/* A row of k or v, of either type. */
static void store_row(const attn_core_call *call, const float *single, const attn_bf16 *half,
                      size_t from, size_t to)
{
    const size_t d = call->layer->head_dim;
    if (half)
        memcpy(attn_kv_halves(call) + to, half + from, d * sizeof *half);
    else if (attn_kv_is_half(call->layer))
        call->context->kernels->bf16_from_float(d, single + from, attn_kv_halves(call) + to);
    else
        memcpy(call->cache + to, single + from, d * sizeof *single);
}

void attn_kv_store(const attn_core_call *call, const attn_visibility *rule, size_t index,
                   size_t token, size_t position)
{
    const size_t d = call->layer->head_dim, kv = call->layer->kv_heads;
    const size_t from = (index / kv * call->length + token) * call->row + index % kv * d;
    const size_t to = attn_kv_slot_of(rule, position) * d;
    store_row(call, call->k, call->half.k, from, attn_kv_keys(call, rule, index) + to);
    store_row(call, call->v, call->half.v, from, attn_kv_values(call, rule, index) + to);
}

void attn_kv_cache_fill(const attn_core_call *call, const attn_visibility *rule)
{
    for (size_t index = 0; index < call->batch * call->layer->kv_heads; index++)
        for (size_t t = 0; t < call->length; t++) attn_kv_store(call, rule, index, t, t);
}
