/* The model's configuration, presets and table of tensors. All parameters lie in one block:
 *
 *     wte wpe | block 0: ln_1 attention ln_2 c_fc c_proj | block 1 ... | ln_f
 *
 * The model's own tensors and each attention layer start on 64-byte borders. */
#include "model/model.h"

#include "base/error.h"
#include "base/memory.h"
#include "kernels/dense_bf16.h"
#include "mechanisms/mechanism.h"
#include "model/model_layers.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { ALIGNMENT = 16, OWN_TENSORS = 4, OWN_BLOCK_TENSORS = 8 };

struct attn_model {
    attn_model_config config;
    attn_model_layers layers;
    attn_block_offsets *blocks;
    attn_model_tensor *tensors;
    size_t n_tensors;
    attn_model_offsets offsets;
    float *parameters;
    size_t block_count, parameter_count;
    attn_bf16 *packed; /* NULL in float32 */
    size_t packed_count;
    attn_model_weights *weights; /* of all products */
    size_t n_weights;
};

/* ---- presets ----------------------------------------------------------------------------- */

static const struct preset {
    const char *name;
    size_t layers, d_model, heads, positions;
} presets[] = {
    {"gpt2-micro", 4, 256, 4, 512},      {"gpt2", 12, 768, 12, 1024},
    {"gpt2-medium", 24, 1024, 16, 1024}, {"gpt2-large", 36, 1280, 20, 1024},
    {"gpt2-xl", 48, 1600, 25, 1024},
};

enum { PRESETS = sizeof presets / sizeof presets[0], GPT2_VOCABULARY = 50257 };

const char *attn_model_preset_name(size_t index)
{
    return index < PRESETS ? presets[index].name : NULL;
}

attn_status attn_model_preset(const char *name, attn_model_config *config, attn_error *error)
{
    for (size_t i = 0; i < PRESETS; i++)
        if (strcmp(presets[i].name, name) == 0) {
            *config = (attn_model_config){.layers = presets[i].layers,
                                          .heads = presets[i].heads,
                                          .d_model = presets[i].d_model,
                                          .positions = presets[i].positions,
                                          .vocabulary = GPT2_VOCABULARY,
                                          .mechanism = "softmax",
                                          .is_causal = true};
            return ATTN_OK;
        }
    char known[128] = "";
    for (size_t i = 0, at = 0; i < PRESETS; i++)
        at +=
            (size_t)snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", presets[i].name);
    return attn_fail(error, ATTN_ENOTFOUND, "no model is called '%s': take one of %s", name, known);
}

/* ---- the table of tensors ---------------------------------------------------------------- */

/* Fills the table while it walks through the block. */
typedef struct placing {
    attn_model *model;
    size_t at;
    bool overflows;
} placing;

static void advance(placing *p, size_t count)
{
    size_t end = 0;
    if (!attn_size_add(p->at, count, &end) || !attn_size_add(end, ALIGNMENT - 1, &end) ||
        end > SIZE_MAX / sizeof(float))
        p->overflows = true;
    else
        p->at = end - end % ALIGNMENT;
}

/* One tensor of the model's own; `columns` 0 for a vector. Returns its offset. */
static size_t place(placing *p, const char *prefix, const char *name, size_t rows, size_t columns,
                    attn_initial initial)
{
    const size_t offset = p->at;
    attn_model_tensor *t = &p->model->tensors[p->model->n_tensors++];
    *t = (attn_model_tensor){.dimensions = columns ? 2 : 1,
                             .shape = {rows, columns},
                             .offset = offset,
                             .initial = initial,
                             .is_trained = true,
                             .is_decayed = columns != 0};
    snprintf(t->name, sizeof t->name, "%s%s", prefix, name);
    if (!attn_size_multiply(rows, columns ? columns : 1, &t->count)) p->overflows = true;
    advance(p, t->count);
    p->model->parameter_count += t->count;
    return offset;
}

static size_t place_attention(placing *p, const char *prefix, const attn_layer *layer)
{
    const size_t offset = p->at;
    size_t n = 0;
    const attn_parameter *parameters = attn_layer_parameters(layer, &n);
    for (size_t i = 0; i < n; i++) {
        const attn_parameter *q = &parameters[i];
        attn_model_tensor *t = &p->model->tensors[p->model->n_tensors++];
        *t = (attn_model_tensor){.dimensions = q->dimensions,
                                 .offset = offset + q->offset,
                                 .count = q->count,
                                 .initial = q->initial,
                                 .is_trained = q->is_trained,
                                 .is_decayed = q->is_trained && q->dimensions >= 2,
                                 .layer_index = i};
        memcpy(t->shape, q->shape, sizeof t->shape);
        snprintf(t->name, sizeof t->name, "%sattn.%s", prefix, q->name);
        if (q->is_trained) p->model->parameter_count += q->count;
    }
    advance(p, attn_layer_parameter_count(layer));
    return offset;
}

/* One product's weights at `offset`; packed ones start on 64-byte borders as they are. Returns where
 * they lie packed. */
static size_t place_packed(placing *p, size_t offset, size_t out, size_t in)
{
    attn_model *model = p->model;
    const size_t packed = model->packed_count;
    if (!attn_size_add(packed, attn_dense_bf16_packed(out, in), &model->packed_count))
        p->overflows = true;
    model->weights[model->n_weights++] =
        (attn_model_weights){.offset = offset, .out = out, .in = in, .packed = packed};
    return packed;
}

/* As attn_layer_pack() has them. */
static size_t place_packed_layer(placing *p, size_t offset, const attn_layer *layer)
{
    const size_t packed = p->model->packed_count;
    for (size_t i = 0; i < layer->n_projections; i++) {
        const attn_projection *projection = &layer->projections[i];
        place_packed(p, offset + projection->weight, projection->out, projection->in);
    }
    return packed;
}

static void place_block(placing *p, size_t index)
{
    attn_model *model = p->model;
    attn_block_offsets *b = &model->blocks[index];
    const size_t c = model->config.d_model, f = ATTN_MODEL_EXPANSION * c;
    const size_t first = model->n_tensors;
    char prefix[32];
    snprintf(prefix, sizeof prefix, "h.%zu.", index);
    b->norm1_gain = place(p, prefix, "ln_1.weight", c, 0, ATTN_INITIAL_ONE);
    b->norm1_bias = place(p, prefix, "ln_1.bias", c, 0, ATTN_INITIAL_ZERO);
    b->attention = place_attention(p, prefix, attn_model_layer(model, index));
    b->norm2_gain = place(p, prefix, "ln_2.weight", c, 0, ATTN_INITIAL_ONE);
    b->norm2_bias = place(p, prefix, "ln_2.bias", c, 0, ATTN_INITIAL_ZERO);
    b->up_weight = place(p, prefix, "mlp.c_fc.weight", f, c, ATTN_INITIAL_WEIGHT);
    b->up_bias = place(p, prefix, "mlp.c_fc.bias", f, 0, ATTN_INITIAL_ZERO);
    b->down_weight = place(p, prefix, "mlp.c_proj.weight", c, f, ATTN_INITIAL_RESIDUAL);
    b->down_bias = place(p, prefix, "mlp.c_proj.bias", c, 0, ATTN_INITIAL_ZERO);
    for (size_t i = first; i < model->n_tensors; i++) model->tensors[i].block = index;
    if (model->config.dtype == ATTN_F32) return;
    b->packed_attention = place_packed_layer(p, b->attention, attn_model_layer(model, index));
    b->packed_up = place_packed(p, b->up_weight, f, c);
    b->packed_down = place_packed(p, b->down_weight, c, f);
}

/* false when the sizes overflow */
static bool place_all(attn_model *model)
{
    const attn_model_config *config = &model->config;
    placing p = {.model = model};
    model->offsets.tokens =
        place(&p, "", "wte.weight", config->vocabulary, config->d_model, ATTN_INITIAL_WEIGHT);
    model->offsets.positions =
        place(&p, "", "wpe.weight", config->positions, config->d_model, ATTN_INITIAL_WEIGHT);
    for (size_t i = 0; i < config->layers; i++) place_block(&p, i);
    model->offsets.final_gain = place(&p, "", "ln_f.weight", config->d_model, 0, ATTN_INITIAL_ONE);
    model->offsets.final_bias = place(&p, "", "ln_f.bias", config->d_model, 0, ATTN_INITIAL_ZERO);
    model->block_count = p.at;
    if (config->dtype == ATTN_BF16)
        model->offsets.packed_head =
            place_packed(&p, model->offsets.tokens, config->vocabulary, config->d_model);
    return !p.overflows;
}

/* ---- life -------------------------------------------------------------------------------- */

static attn_status fill(attn_model *model, const attn_model_config *config, attn_error *error)
{
    model->config = *config;
    attn_status status = attn_model_layers_create(&model->layers, config, error);
    if (status != ATTN_OK) return status;
    model->config.mechanism = model->layers.pattern.label;

    size_t n_tensors = OWN_TENSORS + config->layers * OWN_BLOCK_TENSORS, n_kinds = 0;
    const attn_model_kind *kinds = attn_model_kinds(model, &n_kinds);
    for (size_t i = 0; i < n_kinds; i++) {
        size_t per_layer = 0;
        attn_layer_parameters(kinds[i].layer, &per_layer);
        n_tensors += kinds[i].n_blocks * per_layer;
    }
    model->tensors = attn_alloc_array(ATTN_MEMORY_OTHER, n_tensors, sizeof *model->tensors);
    model->blocks = attn_alloc_array(ATTN_MEMORY_OTHER, config->layers, sizeof *model->blocks);
    if (config->dtype == ATTN_BF16)
        model->weights =
            attn_alloc_array(ATTN_MEMORY_OTHER, config->layers * (ATTN_PROJECTIONS_MAX + 2) + 1,
                             sizeof *model->weights);
    if (!model->tensors || !model->blocks || (config->dtype == ATTN_BF16 && !model->weights))
        return attn_fail(error, ATTN_EMEMORY, "no memory for a model");
    model->offsets.blocks = model->blocks;
    if (!place_all(model))
        return attn_fail(error, ATTN_ESHAPE, "a model of these sizes does not fit into memory");
    model->parameters =
        attn_alloc_array(ATTN_MEMORY_PARAMETERS, model->block_count, sizeof *model->parameters);
    if (model->parameters && config->dtype == ATTN_BF16)
        model->packed =
            attn_alloc_array(ATTN_MEMORY_PARAMETERS, model->packed_count, sizeof *model->packed);
    if (!model->parameters || (!model->packed && config->dtype == ATTN_BF16))
        return attn_fail(error, ATTN_EMEMORY, "no memory for %zu parameters", model->block_count);
    return ATTN_OK;
}

attn_status attn_model_create(attn_model **out, const attn_model_config *config, attn_error *error)
{
    *out = NULL;
    attn_status status = attn_model_check_sizes(config, error);
    if (status != ATTN_OK) return status;
    attn_model *model = attn_alloc(ATTN_MEMORY_OTHER, sizeof *model);
    if (!model) return attn_fail(error, ATTN_EMEMORY, "no memory for a model");
    status = fill(model, config, error);
    if (status != ATTN_OK) {
        attn_model_free(model);
        return status;
    }
    *out = model;
    return ATTN_OK;
}

void attn_model_free(attn_model *model)
{
    if (!model) return;
    attn_free(model->packed);
    attn_free(model->weights);
    attn_free(model->parameters);
    attn_free(model->blocks);
    attn_free(model->tensors);
    attn_model_layers_destroy(&model->layers);
    attn_free(model);
}

/* ---- questions --------------------------------------------------------------------------- */

const attn_model_config *attn_model_configuration(const attn_model *model)
{
    return &model->config;
}

const attn_layer *attn_model_layer(const attn_model *model, size_t block)
{
    return attn_model_layers_at(&model->layers, block);
}

const attn_model_kind *attn_model_kinds(const attn_model *model, size_t *count)
{
    *count = model->layers.pattern.n_kinds;
    return model->layers.kinds;
}

size_t attn_model_future_blocks(const attn_model *model)
{
    return attn_model_layers_future(&model->layers);
}

const attn_model_tensor *attn_model_tensors(const attn_model *model, size_t *count)
{
    *count = model->n_tensors;
    return model->tensors;
}

const attn_model_tensor *attn_model_find(const attn_model *model, const char *name)
{
    for (size_t i = 0; i < model->n_tensors; i++)
        if (strcmp(model->tensors[i].name, name) == 0) return &model->tensors[i];
    return NULL;
}

float *attn_model_parameters(const attn_model *model)
{
    return model->parameters;
}

size_t attn_model_block_count(const attn_model *model)
{
    return model->block_count;
}

size_t attn_model_parameter_count(const attn_model *model)
{
    return model->parameter_count;
}

const attn_model_offsets *attn_model_layout(const attn_model *model)
{
    return &model->offsets;
}

/* ---- weights in bfloat16 ----------------------------------------------------------------- */

attn_bf16 *attn_model_packed(const attn_model *model)
{
    return model->packed;
}

const attn_model_weights *attn_model_product_weights(const attn_model *model, size_t *count)
{
    *count = model->n_weights;
    return model->weights;
}

void attn_model_pack(const attn_model *model, attn_context *context)
{
    for (size_t i = 0; i < model->n_weights; i++) {
        const attn_model_weights *w = &model->weights[i];
        attn_dense_bf16_pack(context, w->out, w->in, model->parameters + w->offset,
                             model->packed + w->packed);
    }
}
