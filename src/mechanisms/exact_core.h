/* What the cores of exact softmax attention share: a visibility rule on the tile engine, a
 * key/value cache, and one oracle. */
#ifndef MECHANISMS_EXACT_CORE_H
#define MECHANISMS_EXACT_CORE_H

#include "mechanisms/tile_engine.h"

/* Every earlier key, or every key. */
attn_visibility attn_rule_all(const attn_layer *layer);

/* softmax(scale q k^T over what `rule` shows) v, for one head in float64. */
attn_node *attn_oracle_softmax(attn_tape *tape, const attn_visibility *rule, attn_node *q,
                               attn_node *k, attn_node *v, const uint32_t *document_start);

/* Parts of a core that sees all earlier keys. */
size_t attn_all_cache(const attn_layer *layer, size_t batch, size_t capacity);
void attn_all_decode(const attn_core_call *call);
attn_node *attn_all_oracle(attn_tape *tape, const attn_layer *layer, size_t head, attn_node *q,
                           attn_node *k, attn_node *v, attn_node *const *parameters,
                           const uint32_t *document_start);

/* FlashAttention over all earlier keys, any number of key/value heads: flash, gqa, mqa. */
extern const attn_core attn_core_flash;

#endif
