/* From a configuration to checked sizes and attention layers. */
#include "model/model_layers.h"

#include "base/error.h"
#include "mechanisms/mechanism.h"

#include <stdint.h>

enum { LAYERS_MAX = 4096 };

attn_status attn_model_check_sizes(const attn_model_config *c, attn_error *error)
{
    if (!c->mechanism)
        return attn_fail(error, ATTN_EARGUMENT, "a model needs an attention mechanism");
    if (c->layers == 0 || c->layers > LAYERS_MAX)
        return attn_fail(error, ATTN_ESHAPE, "a model of %zu layers: give 1 to %d", c->layers,
                         LAYERS_MAX);
    if (c->d_model == 0 || c->positions == 0)
        return attn_fail(error, ATTN_ESHAPE,
                         "a model of width %zu and %zu positions: give sizes above 0", c->d_model,
                         c->positions);
    if (c->vocabulary < 2 || c->vocabulary > UINT32_MAX)
        return attn_fail(error, ATTN_ESHAPE, "a vocabulary of %zu tokens: give 2 to %u",
                         c->vocabulary, UINT32_MAX);
    if (c->d_model > SIZE_MAX / sizeof(float) / ATTN_MODEL_EXPANSION / c->d_model)
        return attn_fail(error, ATTN_ESHAPE, "a model of width %zu does not fit into memory",
                         c->d_model);
    return ATTN_OK;
}

static attn_status make_layer(attn_layer **out, const attn_model_config *config,
                              const attn_label *label, attn_error *error)
{
    const attn_mechanism *mechanism = attn_mechanism_find(label->name);
    if (mechanism && mechanism->reads_memory)
        return attn_fail(error, ATTN_EARGUMENT,
                         "%s reads a memory beside the tokens, and a language model has none",
                         label->label);
    const attn_layer_config sizes = {.mechanism = label->name,
                                     .options = label->options,
                                     .d_model = config->d_model,
                                     .heads = config->heads,
                                     .positions = config->positions,
                                     .is_causal = !mechanism || !mechanism->is_bidirectional_only,
                                     .dtype = config->dtype};
    const attn_status status = attn_layer_create(out, &sizes, error);
    if (status != ATTN_OK) return status;
    if (config->is_causal && !attn_layer_is_causal(*out))
        return attn_fail(error, ATTN_EARGUMENT,
                         "%s lets a token see later ones, which gives away what a language model "
                         "is to predict",
                         label->label);
    return ATTN_OK;
}

attn_status attn_model_layers_create(attn_model_layers *layers, const attn_model_config *config,
                                     attn_error *error)
{
    *layers = (attn_model_layers){.kinds = {{NULL, 0}}};
    const attn_pattern *pattern = &layers->pattern;
    attn_status status = attn_pattern_parse(config->mechanism, &layers->pattern, error);
    if (status == ATTN_OK && pattern->n_blocks > config->layers)
        status = attn_fail(error, ATTN_ESHAPE,
                           "the pattern '%s' is %zu blocks long, but the model has %zu: shorten it",
                           pattern->label, pattern->n_blocks, config->layers);
    for (size_t i = 0; i < pattern->n_kinds && status == ATTN_OK; i++)
        status = make_layer(&layers->kinds[i].layer, config, &pattern->kinds[i], error);
    if (status != ATTN_OK) {
        attn_model_layers_destroy(layers);
        return status;
    }
    for (size_t block = 0; block < config->layers; block++)
        layers->kinds[pattern->blocks[block % pattern->n_blocks]].n_blocks++;
    return ATTN_OK;
}

void attn_model_layers_destroy(attn_model_layers *layers)
{
    for (size_t i = 0; i < layers->pattern.n_kinds; i++) attn_layer_free(layers->kinds[i].layer);
    layers->pattern.n_kinds = 0;
}

size_t attn_model_layers_future(const attn_model_layers *layers)
{
    size_t blocks = 0;
    for (size_t i = 0; i < layers->pattern.n_kinds; i++)
        if (!attn_layer_is_causal(layers->kinds[i].layer)) blocks += layers->kinds[i].n_blocks;
    return blocks;
}

attn_status attn_model_check(const attn_model_config *config, size_t length, size_t *future_blocks,
                             attn_error *error)
{
    attn_model_layers layers;
    attn_status status = attn_model_check_sizes(config, error);
    if (status == ATTN_OK) status = attn_model_layers_create(&layers, config, error);
    if (status != ATTN_OK) return status;
    for (size_t i = 0; i < layers.pattern.n_kinds && status == ATTN_OK; i++) {
        const attn_layer *layer = layers.kinds[i].layer;
        if (layer->mechanism->check_length)
            status = layer->mechanism->check_length(layer, length, error);
    }
    *future_blocks = attn_model_layers_future(&layers);
    attn_model_layers_destroy(&layers);
    return status;
}
