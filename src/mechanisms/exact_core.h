/* What the cores of exact softmax attention share: the tile engine over the rows of heads.c, and
 * one oracle. */
#ifndef MECHANISMS_EXACT_CORE_H
#define MECHANISMS_EXACT_CORE_H

#include "mechanisms/tile_engine.h"
#include "mechanisms/visibility.h"

/* Every earlier key, or every key. */
attn_visibility attn_rule_all(const attn_layer *layer);
/* Plain scores over what a rule shows; refers to the rule. */
attn_tile_rule attn_rule_tiles(const attn_visibility *rule, attn_tile_order order);

/* The tile engine on a core's queries, keys and values. */
size_t attn_exact_saved(const attn_layer *layer, size_t batch, size_t length);
size_t attn_exact_scratch(const attn_layer *layer, size_t threads, size_t batch, size_t length);
void attn_exact_forward(const attn_core_call *call, const attn_tile_rule *rule);
void attn_exact_backward(const attn_core_call *call, const attn_tile_rule *rule);
attn_work attn_exact_work(const attn_layer *layer, const attn_tile_rule *rule, attn_phase phase,
                          size_t batch, size_t length, const uint32_t *document_start);

/* In float64, for one head: scale q k^T, and softmax(scores over what `mask` shows) v. On a tape
 * that rounds, with the roundings of the tile engine in bfloat16. */
attn_node *attn_oracle_scores(attn_tape *tape, attn_node *q, attn_node *k);
attn_node *attn_oracle_attend(attn_tape *tape, const attn_mask *mask, size_t head,
                              attn_node *scores, attn_node *v, const uint32_t *document_start);

/* Parts of a core that sees all earlier keys. */
void attn_all_cache_fill(const attn_core_call *call);
size_t attn_all_cache(const attn_layer *layer, size_t batch, size_t capacity);
void attn_all_decode(const attn_core_call *call);
attn_mask attn_all_mask(const attn_layer *layer, attn_visibility *room);
attn_node *attn_all_oracle(attn_tape *tape, const attn_layer *layer, size_t head, attn_node *q,
                           attn_node *k, attn_node *v, attn_node *const *parameters,
                           const uint32_t *document_start);
/* The same without roundings, for a core that is float32 in every layer. */
attn_node *attn_all_oracle_single(attn_tape *tape, const attn_layer *layer, size_t head,
                                  attn_node *q, attn_node *k, attn_node *v,
                                  attn_node *const *parameters, const uint32_t *document_start);

/* FlashAttention over all earlier keys, any number of key/value heads: flash, gqa, mqa. */
extern const attn_core attn_core_flash;

#endif
