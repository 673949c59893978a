/* Opening a case: its layer, and every tensor of the file held against it. */
#include "base/error.h"
#include "base/memory.h"
#include "base/nearest.h"
#include "verify/case_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- tensors ----------------------------------------------------------------------------- */

enum { SHAPE_TEXT_BYTES = 128 };

/* "[2][24][32]" */
static void shape_text(const size_t *shape, size_t dimensions, char text[SHAPE_TEXT_BYTES])
{
    size_t used = 0;
    snprintf(text, SHAPE_TEXT_BYTES, "one number");
    for (size_t i = 0; i < dimensions && used + 24 < SHAPE_TEXT_BYTES; i++)
        used += (size_t)snprintf(text + used, SHAPE_TEXT_BYTES - used, "[%zu]", shape[i]);
}

static attn_status check_values(const attn_case *c, const attn_tensor *tensor, attn_error *error)
{
    enum { PIECE = 512 };
    double values[PIECE];
    const size_t size_bytes = attn_dtype_bytes(tensor->dtype);
    for (size_t first = 0; first < tensor->count; first += PIECE) {
        attn_tensor piece = *tensor;
        piece.data = (const char *)tensor->data + first * size_bytes;
        piece.count = attn_smaller(PIECE, tensor->count - first);
        attn_tensor_to_double(&piece, values);
        for (size_t i = 0; i < piece.count; i++)
            if (!isfinite(values[i]))
                return attn_fail(error, ATTN_EARGUMENT, "%s: element %zu of tensor %s is %s",
                                 c->path, first + i, tensor->name,
                                 isnan(values[i]) ? "NaN" : "infinite");
    }
    return ATTN_OK;
}

const attn_tensor *attn_case_tensor(const attn_case *c, const char *name, const size_t *shape,
                                    size_t dimensions, bool is_needed, attn_error *error)
{
    const attn_tensor *tensor = attn_safetensors_find(c->file, name);
    char expected[SHAPE_TEXT_BYTES], found[SHAPE_TEXT_BYTES];
    shape_text(shape, dimensions, expected);
    if (!tensor) {
        if (is_needed)
            (void)attn_fail(error, ATTN_ESHAPE, "%s: tensor %s %s is missing", c->path, name,
                            expected);
        return NULL;
    }
    if (tensor->dimensions != dimensions ||
        memcmp(tensor->shape, shape, dimensions * sizeof *shape) != 0) {
        shape_text(tensor->shape, tensor->dimensions, found);
        (void)attn_fail(error, ATTN_ESHAPE, "%s: tensor %s is %s, and the config makes it %s",
                        c->path, name, found, expected);
        return NULL;
    }
    if (tensor->dtype == ATTN_DTYPE_I64 || tensor->dtype == ATTN_DTYPE_I32) {
        (void)attn_fail(error, ATTN_EFORMAT,
                        "%s: tensor %s is %s %s, and the layer takes F64, F32, F16 or BF16",
                        c->path, name, attn_dtype_name(tensor->dtype), expected);
        return NULL;
    }
    return check_values(c, tensor, error) == ATTN_OK ? tensor : NULL;
}

/* A tensor that no part of the form names would be passed over in silence. */
static attn_status check_names(const attn_case *c, attn_error *error)
{
    static const char *const plain[] = {"x", "y", "dy", "dx", "memory", "dmemory"};
    size_t n_parameters = 0;
    const attn_parameter *p = attn_layer_parameters(c->layer, &n_parameters);
    for (size_t t = 0; t < attn_safetensors_count(c->file); t++) {
        const char *name = attn_safetensors_at(c->file, t)->name;
        const bool is_parameter = strncmp(name, "param.", 6) == 0;
        attn_nearest nearest = {.wanted = is_parameter ? name + 6 : name};
        bool is_known = false;
        for (size_t i = 0; i < sizeof plain / sizeof *plain && !is_parameter; i++) {
            is_known |= strcmp(name, plain[i]) == 0;
            attn_nearest_offer(&nearest, plain[i]);
        }
        for (size_t i = 0; i < n_parameters; i++) {
            is_known |= is_parameter && strcmp(name + 6, p[i].name) == 0;
            is_known |= strncmp(name, "grad.", 5) == 0 && p[i].is_trained &&
                        strcmp(name + 5, p[i].name) == 0;
            if (is_parameter) attn_nearest_offer(&nearest, p[i].name);
        }
        if (!is_known)
            return attn_fail(error, ATTN_ESHAPE, "%s: %s has no tensor '%.100s'%s", c->path,
                             c->layer->name, name,
                             attn_nearest_hint(&nearest, is_parameter ? "param." : ""));
    }
    return ATTN_OK;
}

/* ---- the layer and its inputs ------------------------------------------------------------ */

attn_status attn_case_make_layer(attn_case *c, attn_dtype dtype, attn_error *error)
{
    attn_layer_free(c->layer);
    c->layer = NULL;
    const attn_layer_config config = {.mechanism = c->config.mechanism,
                                      .options = c->config.options,
                                      .d_model = c->config.d_model,
                                      .heads = c->config.heads,
                                      .positions = c->config.length,
                                      .is_causal = c->config.is_causal,
                                      .dtype = dtype};
    attn_error inner = {0};
    const attn_status status = attn_layer_create(&c->layer, &config, &inner);
    if (status != ATTN_OK) return attn_fail(error, status, "%s: %s", c->path, inner.text);
    attn_layer_memory(c->layer, &c->memory_length, &c->memory_width);
    return ATTN_OK;
}

static attn_status check_memory(attn_case *c, attn_error *error)
{
    const attn_tensor *memory = attn_safetensors_find(c->file, "memory");
    if (!c->layer->mechanism->reads_memory) {
        if (!memory && !attn_safetensors_find(c->file, "dmemory")) return ATTN_OK;
        return attn_fail(error, ATTN_ESHAPE, "%s: there is a memory, and %s reads none", c->path,
                         c->layer->name);
    }
    const size_t shape[] = {c->batch, c->memory_length, c->memory_width};
    return attn_case_tensor(c, "memory", shape, 3, true, error) ? ATTN_OK : error->status;
}

static attn_status check_inputs(attn_case *c, attn_error *error)
{
    const attn_tensor *x = attn_safetensors_find(c->file, "x");
    c->batch = x && x->dimensions == 3 && x->shape[0] > 0 ? x->shape[0] : 1;
    const size_t shape[] = {c->batch, c->config.length, c->config.d_model};
    if (!attn_case_tensor(c, "x", shape, 3, true, error)) return error->status;
    c->has_dy = attn_safetensors_find(c->file, "dy") != NULL;
    if (c->has_dy && !attn_case_tensor(c, "dy", shape, 3, true, error)) return error->status;
    size_t n = 0;
    const attn_parameter *p = attn_layer_parameters(c->layer, &n);
    for (size_t i = 0; i < n; i++) {
        char name[ATTN_NAME_BYTES + sizeof "param."];
        snprintf(name, sizeof name, "param.%s", p[i].name);
        if (!attn_case_tensor(c, name, p[i].shape, p[i].dimensions, true, error))
            return error->status;
    }
    const attn_status status = check_memory(c, error);
    return status == ATTN_OK ? check_names(c, error) : status;
}

attn_status attn_case_open(attn_case **out, const char *path, const char *mechanism,
                           attn_error *error)
{
    *out = NULL;
    attn_error own = {0}; /* the caller may want no text, and the checks read the status */
    attn_case *c = attn_alloc(ATTN_MEMORY_OTHER, sizeof *c);
    attn_status status = ATTN_OK;
    if (!c || !(c->path = attn_strdup(path)))
        status = attn_fail(&own, ATTN_EMEMORY, "no memory for %s", path);
    if (status == ATTN_OK) status = attn_safetensors_open(&c->file, path, &own);
    if (status == ATTN_OK)
        status = attn_case_config_read(&c->config, c->file, path, mechanism, &own);
    if (status == ATTN_OK) status = attn_case_make_layer(c, ATTN_F32, &own);
    if (status == ATTN_OK) status = check_inputs(c, &own);
    if (status != ATTN_OK) {
        attn_case_close(c);
        return attn_fail(error, status, "%s", own.text);
    }
    *out = c;
    return ATTN_OK;
}

void attn_case_close(attn_case *c)
{
    if (!c) return;
    attn_free(c->computed);
    attn_layer_free(c->layer);
    attn_safetensors_close(c->file);
    attn_free(c->path);
    attn_free(c);
}

attn_case_facts attn_case_about(const attn_case *c)
{
    return (attn_case_facts){.mechanism = c->layer->name,
                             .options = c->config.options,
                             .batch = c->batch,
                             .length = c->config.length,
                             .d_model = c->config.d_model,
                             .heads = c->config.heads,
                             .is_causal = c->config.is_causal,
                             .has_gradients = c->has_dy};
}
