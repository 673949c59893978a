/* Reading a checkpoint: the configuration from its metadata or its shapes, then every tensor
 * checked before the first is copied. */
#include "base/error.h"
#include "base/memory.h"
#include "files/safetensors.h"
#include "model/checkpoint.h"
#include "model/checkpoint_names.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct attn_checkpoint {
    attn_safetensors *file;
    char *path;
    char *mechanism; /* of files that keep its options apart */
    attn_model_config config;
};

static const char prefix[] = "transformer.";

/* With the prefix or without. */
static const attn_tensor *find(const attn_checkpoint *checkpoint, const char *name)
{
    const attn_tensor *t = attn_safetensors_find(checkpoint->file, name);
    if (t) return t;
    char longer[sizeof prefix + ATTN_TENSOR_NAME_BYTES];
    snprintf(longer, sizeof longer, "%s%s", prefix, name);
    return attn_safetensors_find(checkpoint->file, longer);
}

/* ---- configuration ----------------------------------------------------------------------- */

static attn_status read_size(const attn_checkpoint *checkpoint, const char *key, size_t *value,
                             attn_error *error)
{
    const char *text = attn_safetensors_metadata(checkpoint->file, key);
    char *end = NULL;
    errno = 0;
    const unsigned long long number = text ? strtoull(text, &end, 10) : 0;
    if (!text || *text < '0' || *text > '9' || *end || errno)
        return attn_fail(error, ATTN_EFORMAT, "%s: metadata '%s' is %s, not a size",
                         checkpoint->path, key, text ? text : "missing");
    *value = (size_t)number;
    return ATTN_OK;
}

/* "sliding" and "window=4,sinks=2", as the first files have it, to "sliding:window=4:sinks=2". */
static attn_status read_mechanism(attn_checkpoint *checkpoint, attn_error *error)
{
    const char *name = attn_safetensors_metadata(checkpoint->file, "mechanism");
    const char *options = attn_safetensors_metadata(checkpoint->file, "options");
    checkpoint->config.mechanism = name;
    if (!options || !*options) return ATTN_OK;
    const size_t size_bytes = strlen(name) + 1 + strlen(options) + 1;
    char *label = attn_alloc(ATTN_MEMORY_OTHER, size_bytes);
    if (!label)
        return attn_fail(error, ATTN_EMEMORY, "%s: no memory for a checkpoint", checkpoint->path);
    snprintf(label, size_bytes, "%s:%s", name, options);
    for (char *c = label; *c; c++)
        if (*c == ',') *c = ':';
    checkpoint->config.mechanism = checkpoint->mechanism = label;
    return ATTN_OK;
}

static attn_status config_from_metadata(attn_checkpoint *checkpoint, attn_error *error)
{
    attn_model_config *config = &checkpoint->config;
    const char *causal = attn_safetensors_metadata(checkpoint->file, "is_causal");
    config->is_causal = !causal || strcmp(causal, "false") != 0;
    attn_status status = read_mechanism(checkpoint, error);
    if (status == ATTN_OK) status = read_size(checkpoint, "layers", &config->layers, error);
    if (status == ATTN_OK) status = read_size(checkpoint, "heads", &config->heads, error);
    if (status == ATTN_OK) status = read_size(checkpoint, "d_model", &config->d_model, error);
    if (status == ATTN_OK) status = read_size(checkpoint, "positions", &config->positions, error);
    if (status == ATTN_OK) status = read_size(checkpoint, "vocabulary", &config->vocabulary, error);
    return status;
}

/* GPT-2 as Hugging Face stores it: every published size has heads of 64. */
static attn_status config_from_shapes(attn_checkpoint *checkpoint, attn_error *error)
{
    enum { HEAD_DIM = 64 };
    const attn_tensor *wte = find(checkpoint, "wte.weight"), *wpe = find(checkpoint, "wpe.weight");
    if (!wte || !wpe || wte->dimensions != 2 || wpe->dimensions != 2)
        return attn_fail(error, ATTN_EFORMAT,
                         "%s: no GPT-2: wte.weight or wpe.weight is missing or no matrix",
                         checkpoint->path);
    const size_t width = wte->shape[1];
    if (width == 0 || width % HEAD_DIM != 0)
        return attn_fail(error, ATTN_EFORMAT,
                         "%s: width %zu is no multiple of %d and the metadata does not tell the "
                         "number of heads",
                         checkpoint->path, width, HEAD_DIM);
    checkpoint->config = (attn_model_config){.heads = width / HEAD_DIM,
                                             .d_model = width,
                                             .positions = wpe->shape[0],
                                             .vocabulary = wte->shape[0],
                                             .mechanism = "softmax",
                                             .is_causal = true};
    for (;; checkpoint->config.layers++) {
        char name[ATTN_TENSOR_NAME_BYTES];
        snprintf(name, sizeof name, "h.%zu.ln_1.weight", checkpoint->config.layers);
        if (!find(checkpoint, name)) return ATTN_OK;
    }
}

attn_status attn_checkpoint_open(attn_checkpoint **out, const char *path, attn_error *error)
{
    *out = NULL;
    attn_checkpoint *checkpoint = attn_alloc(ATTN_MEMORY_OTHER, sizeof *checkpoint);
    if (checkpoint) checkpoint->path = attn_strdup(path);
    if (!checkpoint || !checkpoint->path) {
        attn_free(checkpoint);
        return attn_fail(error, ATTN_EMEMORY, "%s: no memory for a checkpoint", path);
    }
    attn_status status = attn_safetensors_open(&checkpoint->file, path, error);
    if (status == ATTN_OK)
        status = attn_safetensors_metadata(checkpoint->file, "mechanism")
                     ? config_from_metadata(checkpoint, error)
                     : config_from_shapes(checkpoint, error);
    if (status != ATTN_OK) {
        attn_checkpoint_close(checkpoint);
        return status;
    }
    *out = checkpoint;
    return ATTN_OK;
}

void attn_checkpoint_close(attn_checkpoint *checkpoint)
{
    if (!checkpoint) return;
    attn_safetensors_close(checkpoint->file);
    attn_free(checkpoint->mechanism);
    attn_free(checkpoint->path);
    attn_free(checkpoint);
}

const attn_model_config *attn_checkpoint_config(const attn_checkpoint *checkpoint)
{
    return &checkpoint->config;
}

/* ---- tensors ----------------------------------------------------------------------------- */

/* "[50257, 768]" */
static const char *shape_text(size_t dimensions, const size_t *shape, char *text, size_t room)
{
    size_t at = (size_t)snprintf(text, room, "[");
    for (size_t i = 0; i < dimensions && at < room; i++)
        at += (size_t)snprintf(text + at, room - at, "%s%zu", i ? ", " : "", shape[i]);
    if (at < room) snprintf(text + at, room - at, "]");
    return text;
}

static attn_status check_stored(const attn_checkpoint *checkpoint, const attn_stored_tensor *stored,
                                attn_error *error)
{
    char wanted[96], found[96];
    shape_text(stored->dimensions, stored->shape, wanted, sizeof wanted);
    const attn_tensor *t = find(checkpoint, stored->name);
    if (!t)
        return attn_fail(error, ATTN_ENOTFOUND, "%s: tensor %s %s is missing", checkpoint->path,
                         stored->name, wanted);
    if (t->dimensions != stored->dimensions ||
        memcmp(t->shape, stored->shape, t->dimensions * sizeof *t->shape) != 0)
        return attn_fail(error, ATTN_ESHAPE, "%s: tensor %s is %s, expected %s", checkpoint->path,
                         stored->name, shape_text(t->dimensions, t->shape, found, sizeof found),
                         wanted);
    if (t->dtype == ATTN_DTYPE_I32 || t->dtype == ATTN_DTYPE_I64)
        return attn_fail(error, ATTN_EFORMAT, "%s: tensor %s holds integers (%s), expected floats",
                         checkpoint->path, stored->name, attn_dtype_name(t->dtype));
    return ATTN_OK;
}

static bool ends_with(const char *name, const char *end)
{
    const size_t length = strlen(name), tail = strlen(end);
    return length >= tail && strcmp(name + length - tail, end) == 0;
}

/* The masks of old files say nothing. */
static bool is_mask(const char *name)
{
    return strncmp(name, "h.", 2) == 0 &&
           (ends_with(name, ".attn.bias") || ends_with(name, ".attn.masked_bias"));
}

static bool is_stored(const attn_model *model, const char *name)
{
    attn_stored_tensor stored;
    for (size_t cursor = 0; attn_stored_next(model, &cursor, &stored);)
        if (strcmp(stored.name, name) == 0) return true;
    return false;
}

/* No tensor that the model would silently do without. */
static attn_status check_others(const attn_checkpoint *checkpoint, const attn_model *model,
                                attn_error *error)
{
    for (size_t i = 0; i < attn_safetensors_count(checkpoint->file); i++) {
        const attn_tensor *t = attn_safetensors_at(checkpoint->file, i);
        const size_t skip = strncmp(t->name, prefix, strlen(prefix)) == 0 ? strlen(prefix) : 0;
        const char *name = t->name + skip;
        if (strcmp(name, "lm_head.weight") == 0) {
            const attn_tensor *wte = find(checkpoint, "wte.weight");
            if (t->dtype != wte->dtype || t->count != wte->count ||
                memcmp(t->data, wte->data, t->count * attn_dtype_bytes(t->dtype)) != 0)
                return attn_fail(error, ATTN_EUNSUPPORTED,
                                 "%s: lm_head.weight differs from wte.weight, but the head is "
                                 "tied to the embedding here",
                                 checkpoint->path);
        } else if (!is_mask(name) && !is_stored(model, name))
            return attn_fail(
                error, ATTN_ESHAPE,
                "%s: tensor %s has no place in a model of %zu layers with %s attention",
                checkpoint->path, t->name, attn_model_configuration(model)->layers,
                attn_model_configuration(model)->mechanism);
    }
    return ATTN_OK;
}

attn_status attn_checkpoint_read(const attn_checkpoint *checkpoint, attn_model *model,
                                 attn_error *error)
{
    const size_t heads = attn_model_configuration(model)->heads;
    if (checkpoint->config.heads != heads)
        return attn_fail(error, ATTN_ESHAPE, "%s: trained with %zu heads, but the model has %zu",
                         checkpoint->path, checkpoint->config.heads, heads);
    attn_stored_tensor stored;
    size_t largest = 0;
    for (size_t cursor = 0; attn_stored_next(model, &cursor, &stored);) {
        const attn_status status = check_stored(checkpoint, &stored, error);
        if (status != ATTN_OK) return status;
        if (stored.count > largest) largest = stored.count;
    }
    const attn_status status = check_others(checkpoint, model, error);
    if (status != ATTN_OK) return status;
    float *buffer = attn_alloc_array(ATTN_MEMORY_OTHER, largest, sizeof *buffer);
    if (!buffer)
        return attn_fail(error, ATTN_EMEMORY, "%s: no memory for reading a checkpoint",
                         checkpoint->path);
    for (size_t cursor = 0; attn_stored_next(model, &cursor, &stored);) {
        attn_tensor_to_float(find(checkpoint, stored.name), buffer);
        attn_stored_scatter(&stored, buffer, attn_model_parameters(model));
    }
    attn_free(buffer);
    return ATTN_OK;
}

attn_status attn_checkpoint_load(attn_model *model, const char *path, attn_error *error)
{
    attn_checkpoint *checkpoint = NULL;
    attn_status status = attn_checkpoint_open(&checkpoint, path, error);
    if (status == ATTN_OK) status = attn_checkpoint_read(checkpoint, model, error);
    attn_checkpoint_close(checkpoint);
    return status;
}
