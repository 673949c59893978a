/* Decoding with cached keys and values: all of them under any mask and score, or a ring for a
 * window with sinks. They are cached in bfloat16 where a core's products take them so. */
#ifndef MECHANISMS_KV_CACHE_H
#define MECHANISMS_KV_CACHE_H

#include "mechanisms/tile_engine.h"
#include "mechanisms/visibility.h"

/* Whether the layer's cache holds bfloat16 numbers, two in a float. */
static inline bool attn_kv_is_half(const attn_layer *layer)
{
    return layer->dtype == ATTN_BF16 && layer->mechanism->has_bf16;
}

/* Floats that hold [batch][kv_heads][slots][d] keys, then the same of values; slots are `capacity`,
 * or sinks + window when that is less. */
size_t attn_kv_cache_count(const attn_layer *layer, const attn_visibility *rule, size_t batch,
                           size_t capacity);

/* Puts the keys and values of a forward call into call->cache. */
void attn_kv_cache_fill(const attn_core_call *call, const attn_visibility *rule);

/* Appends the call's one key and value and attends to all that is cached. */
void attn_kv_cache_decode(const attn_core_call *call, const attn_visibility *rule);

/* Work of attn_kv_cache_decode with `cached` tokens before the call. */
attn_work attn_kv_cache_work(const attn_layer *layer, const attn_visibility *rule, size_t batch,
                             size_t cached);

/* The same for keys that are all cached (by a rule without a window), of which the newest query
 * sees what `rule` shows, with the scores of `rule`. */
void attn_kv_cache_decode_masked(const attn_core_call *call, const attn_tile_rule *rule);
attn_work attn_kv_cache_masked_work(const attn_layer *layer, const attn_tile_rule *rule,
                                    size_t batch, size_t cached);

/* Floats of scratch memory that decoding needs. */
size_t attn_kv_cache_scratch(const attn_layer *layer, size_t threads, size_t batch);

/* ---- parts ------------------------------------------------------------------------------- */

/* Slots of a head, and that of a token. */
size_t attn_kv_slot_count(const attn_visibility *rule, size_t capacity);
size_t attn_kv_slot_of(const attn_visibility *rule, size_t position);
/* Where the slots of one head, `index` = b * kv_heads + g, begin in the cache: in its numbers. */
size_t attn_kv_keys(const attn_core_call *call, const attn_visibility *rule, size_t index);
size_t attn_kv_values(const attn_core_call *call, const attn_visibility *rule, size_t index);
/* The cache as bfloat16 numbers. */
static inline attn_bf16 *attn_kv_halves(const attn_core_call *call)
{
    return (attn_bf16 *)(void *)call->cache;
}
/* Puts token `token` of the call's k and v into the slot of `position`. */
void attn_kv_store(const attn_core_call *call, const attn_visibility *rule, size_t index,
                   size_t token, size_t position);

#endif
