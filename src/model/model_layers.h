/* Private to model: the attention layers of a model, one for each different mechanism of its
 * pattern. */
#ifndef MODEL_MODEL_LAYERS_H
#define MODEL_MODEL_LAYERS_H

#include "mechanisms/label.h"
#include "model/model.h"

typedef struct attn_model_layers {
    attn_pattern pattern;
    attn_model_kind kinds[ATTN_PATTERN_KINDS_MAX]; /* as the pattern's */
} attn_model_layers;

/* As attn_model_create(), for the layers alone. On failure nothing is left allocated. */
ATTN_MUST_CHECK attn_status attn_model_layers_create(attn_model_layers *layers,
                                                     const attn_model_config *config,
                                                     attn_error *error);
void attn_model_layers_destroy(attn_model_layers *layers);

static inline const attn_layer *attn_model_layers_at(const attn_model_layers *layers, size_t block)
{
    return layers->kinds[layers->pattern.blocks[block % layers->pattern.n_blocks]].layer;
}

/* Blocks that see later tokens. */
size_t attn_model_layers_future(const attn_model_layers *layers);

/* Limits of the sizes. */
ATTN_MUST_CHECK attn_status attn_model_check_sizes(const attn_model_config *config,
                                                   attn_error *error);

#endif
