/* Layers: a mechanism with checked sizes and options. Every argument is checked here, once;
 * what lies below cannot fail. */
#include "base/error.h"
#include "base/memory.h"
#include "base/nearest.h"
#include "mechanisms/projection.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- options ----------------------------------------------------------------------------- */

static const attn_option no_options[] = {{.name = NULL}};

const attn_option attn_option_causal = {.name = "causal",
                                        .kind = ATTN_OPTION_FLAG,
                                        .initial = "true",
                                        .help =
                                            "false: the bidirectional form, which sees the future"};

static const attn_option *option_table(const attn_mechanism *mechanism)
{
    return mechanism->options ? mechanism->options : no_options;
}

/* Where `word` stands in "first|second|..."; the whole list is its first word. */
static bool choice_find(const char *words, const char *word, size_t *place)
{
    *place = 0;
    if (strcmp(words, word) == 0) return true;
    for (const char *at = words;; at++, ++*place) {
        const size_t n = strcspn(at, "|");
        if (strlen(word) == n && strncmp(at, word, n) == 0) return true;
        at += n;
        if (!*at) return false;
    }
}

static attn_status option_parse(const attn_option *option, const char *mechanism, const char *text,
                                attn_value *value, attn_error *error)
{
    char *end = NULL;
    if (option->kind == ATTN_OPTION_FLAG) {
        const bool yes = strcmp(text, "true") == 0 || strcmp(text, "1") == 0;
        if (!yes && strcmp(text, "false") != 0 && strcmp(text, "0") != 0)
            return attn_fail(error, ATTN_EARGUMENT, "%s: option %s is true or false, not '%s'",
                             mechanism, option->name, text);
        value->flag = yes;
        return ATTN_OK;
    }
    if (option->kind == ATTN_OPTION_CHOICE) {
        if (choice_find(option->initial, text, &value->size)) return ATTN_OK;
        return attn_fail(error, ATTN_EARGUMENT, "%s: option %s is one of %s, not '%s'", mechanism,
                         option->name, option->initial, text);
    }
    const bool has_auto = strcmp(option->initial, "auto") == 0;
    if (has_auto && strcmp(text, "auto") == 0) {
        value->size = ATTN_AUTO;
        return ATTN_OK;
    }
    errno = 0;
    const double number = strtod(text, &end);
    const bool whole = option->kind != ATTN_OPTION_SIZE || number == floor(number);
    if (end == text || *end || errno || !whole || !(number >= option->minimum) ||
        !(number <= option->maximum))
        return attn_fail(error, ATTN_EARGUMENT,
                         "%s: option %s takes a %snumber from %.15g to %.15g%s, not '%s'",
                         mechanism, option->name, option->kind == ATTN_OPTION_SIZE ? "whole " : "",
                         option->minimum, option->maximum, has_auto ? " or auto" : "", text);
    if (option->kind == ATTN_OPTION_SIZE)
        value->size = (size_t)number;
    else
        value->number = number;
    return ATTN_OK;
}

static attn_status option_assign(attn_layer *layer, char *name, attn_error *error)
{
    char *text = strchr(name, '=');
    if (!text)
        return attn_fail(error, ATTN_EARGUMENT, "%s: option '%s' needs a value: %s=...",
                         layer->name, name, name);
    *text++ = '\0';
    attn_nearest nearest = {.wanted = name};
    if (strcmp(name, attn_option_causal.name) == 0) {
        attn_value is_causal;
        const attn_status status =
            option_parse(&attn_option_causal, layer->name, text, &is_causal, error);
        if (status == ATTN_OK) layer->is_causal = is_causal.flag;
        return status;
    }
    attn_nearest_offer(&nearest, attn_option_causal.name);
    const attn_option *table = option_table(layer->mechanism);
    for (size_t i = 0; table[i].name; i++) {
        if (strcmp(table[i].name, name) == 0)
            return option_parse(&table[i], layer->name, text, &layer->options[i], error);
        attn_nearest_offer(&nearest, table[i].name);
    }
    return attn_fail(error, ATTN_ENOTFOUND, "%s has no option '%s'%s", layer->name, name,
                     attn_nearest_hint(&nearest, ""));
}

/* "a=1,b=2" over the defaults */
static attn_status options_parse(attn_layer *layer, const char *text, attn_error *error)
{
    const attn_option *table = option_table(layer->mechanism);
    for (size_t i = 0; table[i].name; i++) {
        const attn_status status =
            option_parse(&table[i], layer->name, table[i].initial, &layer->options[i], error);
        if (status != ATTN_OK) return status;
    }
    if (!text || !*text) return ATTN_OK;
    char *copy = attn_strdup(text);
    if (!copy)
        return attn_fail(error, ATTN_EMEMORY, "no memory for the options of %s", layer->name);
    attn_status status = ATTN_OK;
    for (char *name = copy; name && status == ATTN_OK;) {
        char *comma = strchr(name, ',');
        if (comma) *comma++ = '\0';
        status = option_assign(layer, name, error);
        name = comma;
    }
    attn_free(copy);
    return status;
}

/* ---- making a layer ---------------------------------------------------------------------- */

void attn_layer_declare_shaped(attn_layer *layer, const char *name, size_t dimensions,
                               const size_t *shape, attn_initial initial, bool is_trained)
{
    attn_parameter *p = &layer->parameters[layer->n_parameters++];
    snprintf(p->name, sizeof p->name, "%s", name);
    p->dimensions = dimensions;
    p->offset = layer->parameter_count;
    p->count = 1;
    for (size_t i = 0; i < dimensions; i++) {
        p->shape[i] = shape[i];
        p->count *= shape[i];
    }
    p->initial = initial;
    p->is_trained = is_trained;
    layer->parameter_count += p->count;
}

void attn_layer_declare(attn_layer *layer, const char *name, size_t rows, size_t columns,
                        attn_initial initial)
{
    const size_t shape[] = {rows, columns};
    attn_layer_declare_shaped(layer, name, columns ? 2 : 1, shape, initial, true);
}

bool attn_layer_initialise_own(const attn_layer *layer, size_t index, uint64_t seed,
                               uint64_t stream, float *out)
{
    return layer->mechanism->initialise &&
           layer->mechanism->initialise(layer, index, seed, stream, out);
}

size_t attn_layer_offset(const attn_layer *layer, const char *name)
{
    size_t i = 0;
    while (strcmp(layer->parameters[i].name, name) != 0) i++;
    return layer->parameters[i].offset;
}

/* Whether the mechanism has the form that was asked for, by the caller or by the options. */
static attn_status check_form(const attn_layer *layer, bool is_option, attn_error *error)
{
    const attn_mechanism *mechanism = layer->mechanism;
    if (layer->is_causal ? !mechanism->is_bidirectional_only : !mechanism->is_causal_only)
        return ATTN_OK;
    return attn_fail(error, is_option ? ATTN_EARGUMENT : ATTN_EUNSUPPORTED, "%s has no %s form%s",
                     layer->name, layer->is_causal ? "causal" : "bidirectional",
                     mechanism->reads_memory ? ": it reads a memory beside the tokens" : "");
}

static attn_status check_sizes(const attn_layer_config *config, attn_error *error)
{
    if (!config->d_model || !config->heads || !config->positions)
        return attn_fail(error, ATTN_ESHAPE, "width, heads and positions must be at least 1");
    if (config->d_model % config->heads != 0)
        return attn_fail(error, ATTN_ESHAPE, "%zu heads do not divide the width %zu", config->heads,
                         config->d_model);
    /* Generous limits keep every product of sizes inside 64 bits. */
    if (config->d_model > 1u << 20 || config->positions > (size_t)1 << 28)
        return attn_fail(error, ATTN_ESHAPE,
                         "width %zu or positions %zu are beyond what fits in memory",
                         config->d_model, config->positions);
    return ATTN_OK;
}

static attn_status unknown_mechanism(const char *name, attn_error *error)
{
    attn_nearest nearest = {.wanted = name};
    for (const attn_mechanism_entry *e = attn_mechanisms; e->name; e++)
        attn_nearest_offer(&nearest, e->name);
    return attn_fail(error, ATTN_ENOTFOUND, "unknown mechanism '%s'%s", name,
                     attn_nearest_hint(&nearest, ""));
}

attn_status attn_layer_create(attn_layer **out, const attn_layer_config *config, attn_error *error)
{
    *out = NULL;
    const attn_mechanism_entry *entry = attn_mechanisms;
    while (entry->name && strcmp(entry->name, config->mechanism) != 0) entry++;
    if (!entry->name) return unknown_mechanism(config->mechanism, error);
    attn_status status = check_sizes(config, error);
    if (status != ATTN_OK) return status;

    attn_layer *layer = attn_alloc(ATTN_MEMORY_OTHER, sizeof *layer);
    if (!layer) return attn_fail(error, ATTN_EMEMORY, "no memory for a layer");
    layer->name = entry->name;
    layer->mechanism = entry->mechanism;
    layer->d_model = config->d_model;
    layer->heads = config->heads;
    layer->kv_heads = config->heads;
    layer->head_dim = config->d_model / config->heads;
    layer->positions = config->positions;
    layer->is_causal = config->is_causal;
    layer->dtype = config->dtype;
    status = options_parse(layer, config->options, error);
    if (status == ATTN_OK) status = check_form(layer, layer->is_causal != config->is_causal, error);
    if (status == ATTN_OK && layer->mechanism->check)
        status = layer->mechanism->check(layer, error);
    if (status != ATTN_OK) {
        attn_layer_free(layer);
        return status;
    }
    layer->mechanism->functions->declare(layer);
    *out = layer;
    return ATTN_OK;
}

void attn_layer_free(attn_layer *layer)
{
    attn_free(layer);
}

bool attn_layer_is_causal(const attn_layer *layer)
{
    return layer->is_causal;
}

attn_dtype attn_layer_dtype(const attn_layer *layer)
{
    return layer->dtype;
}

attn_dtype attn_layer_core_dtype(const attn_layer *layer)
{
    return layer->mechanism->has_bf16 ? layer->dtype : ATTN_F32;
}

void attn_layer_memory(const attn_layer *layer, size_t *length, size_t *width)
{
    *length = layer->memory_length;
    *width = layer->memory_width;
}

const attn_parameter *attn_layer_parameters(const attn_layer *layer, size_t *count)
{
    *count = layer->n_parameters;
    return layer->parameters;
}

size_t attn_layer_parameter_count(const attn_layer *layer)
{
    return layer->parameter_count;
}

size_t attn_layer_packed_count(const attn_layer *layer)
{
    return layer->packed_count;
}

size_t attn_layer_saved_count(const attn_layer *layer, size_t batch, size_t length)
{
    return layer->mechanism->functions->saved(layer, batch, length);
}

size_t attn_layer_scratch_count(const attn_layer *layer, const attn_context *context, size_t batch,
                                size_t length)
{
    const size_t own = layer->mechanism->functions->scratch(layer, context->threads, batch, length);
    const size_t rounded = attn_projection_scratch(layer, batch, length);
    return rounded ? attn_rounded(own) + rounded : own;
}

size_t attn_layer_cache_count(const attn_layer *layer, size_t batch, size_t capacity)
{
    return layer->mechanism->functions->cache(layer, batch, capacity);
}

/* ---- calls ------------------------------------------------------------------------------- */

static attn_status check_packed(attn_context *context, const attn_layer *layer,
                                const attn_call *call)
{
    if (layer->dtype != ATTN_BF16 || call->packed) return ATTN_OK;
    return attn_fail(&context->error, ATTN_EARGUMENT,
                     "%s in bfloat16 reads packed weights: call attn_layer_pack() first",
                     layer->name);
}

static attn_status check_call(attn_context *context, const attn_layer *layer, const attn_call *call)
{
    if (!call->batch || !call->length)
        return attn_fail(&context->error, ATTN_ESHAPE, "batch and length must be at least 1");
    if (call->length > layer->positions)
        return attn_fail(&context->error, ATTN_ESHAPE,
                         "%zu tokens are more than the %zu positions of the layer", call->length,
                         layer->positions);
    if (layer->mechanism->reads_memory &&
        (!call->memory || call->memory_length != layer->memory_length))
        return attn_fail(&context->error, ATTN_ESHAPE,
                         "%s reads a memory of %zu positions: %zu were given", layer->name,
                         layer->memory_length, call->memory ? call->memory_length : 0);
    if (call->document_start && !layer->is_causal)
        return attn_fail(&context->error, ATTN_EUNSUPPORTED,
                         "packed documents need a causal layer");
    if (layer->mechanism->check_length) {
        const attn_status status =
            layer->mechanism->check_length(layer, call->length, &context->error);
        if (status != ATTN_OK) return status;
    }
    return check_packed(context, layer, call);
}

attn_status attn_layer_forward(attn_context *context, const attn_layer *layer,
                               const attn_call *call)
{
    const attn_status status = check_call(context, layer, call);
    if (status != ATTN_OK) return status;
    if (call->cache && (call->document_start || !layer->is_causal))
        return attn_fail(&context->error, ATTN_EUNSUPPORTED,
                         "a cache needs a causal layer and one document a sequence");
    if (call->cache && call->length > call->cache_capacity)
        return attn_fail(&context->error, ATTN_ESHAPE, "%zu tokens do not fit a cache of %zu",
                         call->length, call->cache_capacity);
    layer->mechanism->functions->forward(context, layer, call);
    return ATTN_OK;
}

attn_status attn_layer_backward(attn_context *context, const attn_layer *layer,
                                const attn_call *call)
{
    const attn_status status = check_call(context, layer, call);
    if (status != ATTN_OK) return status;
    layer->mechanism->functions->backward(context, layer, call);
    for (size_t i = 0; i < layer->n_parameters; i++) {
        const attn_parameter *p = &layer->parameters[i];
        if (!p->is_trained) memset(call->gradients + p->offset, 0, p->count * sizeof(float));
    }
    return ATTN_OK;
}

attn_status attn_layer_decode(attn_context *context, const attn_layer *layer, const attn_call *call)
{
    if (!call->batch || call->length != 1 || !call->cache)
        return attn_fail(&context->error, ATTN_ESHAPE,
                         "decoding takes one token a sequence and a cache");
    if (!layer->is_causal)
        return attn_fail(&context->error, ATTN_EUNSUPPORTED, "only causal layers decode");
    if (call->cache_capacity > layer->positions)
        return attn_fail(&context->error, ATTN_ESHAPE,
                         "a cache of %zu tokens is more than the %zu positions of the layer",
                         call->cache_capacity, layer->positions);
    if (call->position >= call->cache_capacity)
        return attn_fail(&context->error, ATTN_ESHAPE, "the cache of %zu tokens is full",
                         call->cache_capacity);
    const attn_status status = check_packed(context, layer, call);
    if (status == ATTN_OK) layer->mechanism->functions->decode(context, layer, call);
    return status;
}

attn_work attn_layer_work(const attn_layer *layer, attn_phase phase, size_t batch, size_t length,
                          const uint32_t *document_start)
{
    return layer->mechanism->functions->work(layer, phase, batch, length, document_start);
}

void attn_tally_collect(const attn_tally *tally, size_t threads, attn_work *total)
{
    for (size_t i = 0; i < threads; i++) attn_work_add(total, tally->of[i]);
}
