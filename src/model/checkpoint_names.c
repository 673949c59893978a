/* The map between our tensors, [out][in] and one by one, and Hugging Face's, whose Conv1D
 * weights are [in][out] and whose query, key and value are one tensor. */
#include "model/checkpoint_names.h"

#include <stdio.h>
#include <string.h>

/* Projections with weights and biases in the usual order, and nothing else. */
static bool is_standard(const attn_layer *layer)
{
    static const char *const names[] = {"wq.weight", "wk.weight", "wv.weight", "wq.bias",
                                        "wk.bias",   "wv.bias",   "wo.weight", "wo.bias"};
    enum { NAMES = sizeof names / sizeof names[0] };
    size_t n = 0;
    const attn_parameter *parameters = attn_layer_parameters(layer, &n);
    if (n != NAMES) return false;
    for (size_t i = 0; i < n; i++)
        if (strcmp(parameters[i].name, names[i]) != 0) return false;
    return true;
}

/* "h.3." of "h.3.attn.wq.weight"; "" for a tensor outside the blocks */
static int prefix_length(const char *name)
{
    const char *end = strncmp(name, "h.", 2) == 0 ? strchr(name + 2, '.') : NULL;
    return end ? (int)(end + 1 - name) : 0;
}

/* h.N.attn.w{q,k,v}.<kind> as h.N.attn.c_attn.<kind>; `query` is followed by the other two. */
static void join_projections(const attn_model_tensor *query, attn_stored_tensor *stored)
{
    const int prefix = prefix_length(query->name);
    const char *kind = query->name + prefix + strlen("attn.wq.");
    snprintf(stored->name, sizeof stored->name, "%.*sattn.c_attn.%s", prefix, query->name, kind);
    for (size_t i = 1; i < 3; i++) {
        char part[ATTN_TENSOR_NAME_BYTES];
        snprintf(part, sizeof part, "%.*sattn.w%c.%s", prefix, query->name, "qkv"[i], kind);
        const attn_model_tensor *t = query + 1;
        while (strcmp(t->name, part) != 0) t++;
        stored->parts[i] = t;
    }
    stored->n_parts = 3;
}

static void measure(attn_stored_tensor *stored)
{
    const attn_model_tensor *first = stored->parts[0];
    stored->dimensions = first->dimensions;
    memcpy(stored->shape, first->shape, sizeof stored->shape);
    stored->count = 0;
    size_t rows = 0;
    for (size_t i = 0; i < stored->n_parts; i++) {
        rows += stored->parts[i]->shape[0];
        stored->count += stored->parts[i]->count;
    }
    stored->shape[0] = stored->is_transposed ? first->shape[1] : rows;
    if (stored->is_transposed) stored->shape[1] = rows;
}

bool attn_stored_next(const attn_model *model, size_t *cursor, attn_stored_tensor *stored)
{
    size_t n = 0;
    const attn_model_tensor *tensors = attn_model_tensors(model, &n);
    while (*cursor < n) {
        const attn_model_tensor *t = &tensors[(*cursor)++];
        const char *own = t->name + prefix_length(t->name);
        *stored = (attn_stored_tensor){.parts = {t}, .n_parts = 1};
        snprintf(stored->name, sizeof stored->name, "%s", t->name);
        stored->is_transposed = strncmp(own, "mlp.", 4) == 0 && t->dimensions == 2;
        if (strncmp(own, "attn.w", 6) == 0 && is_standard(attn_model_layer(model, t->block))) {
            if (own[6] == 'k' || own[6] == 'v') continue; /* with wq */
            stored->is_transposed = t->dimensions == 2;
            if (own[6] == 'q')
                join_projections(t, stored);
            else
                snprintf(stored->name, sizeof stored->name, "%.*sattn.c_proj.%s",
                         prefix_length(t->name), t->name, own + strlen("attn.wo."));
        }
        measure(stored);
        return true;
    }
    return false;
}

void attn_stored_gather(const attn_stored_tensor *stored, const float *parameters, float *out)
{
    const size_t width = stored->shape[1];
    for (size_t part = 0, row = 0; part < stored->n_parts; part++) {
        const attn_model_tensor *t = stored->parts[part];
        const float *from = parameters + t->offset;
        if (!stored->is_transposed) {
            memcpy(out, from, t->count * sizeof *out);
            out += t->count;
            continue;
        }
        for (size_t i = 0; i < t->shape[0]; i++, row++)
            for (size_t j = 0; j < t->shape[1]; j++)
                out[j * width + row] = from[i * t->shape[1] + j];
    }
}

void attn_stored_scatter(const attn_stored_tensor *stored, const float *in, float *parameters)
{
    const size_t width = stored->shape[1];
    for (size_t part = 0, row = 0; part < stored->n_parts; part++) {
        const attn_model_tensor *t = stored->parts[part];
        float *to = parameters + t->offset;
        if (!stored->is_transposed) {
            memcpy(to, in, t->count * sizeof *to);
            in += t->count;
            continue;
        }
        for (size_t i = 0; i < t->shape[0]; i++, row++)
            for (size_t j = 0; j < t->shape[1]; j++) to[i * t->shape[1] + j] = in[j * width + row];
    }
}
