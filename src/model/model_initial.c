/* Starting values: normal numbers whose stream is the hash of the tensor's name. */
#include "base/random.h"
#include "model/model.h"

#include <math.h>

/* FNV-1a over the name's bytes. */
static uint32_t name_hash(const char *name)
{
    uint32_t hash = 2166136261u;
    for (; *name; name++) hash = (hash ^ (unsigned char)*name) * 16777619u;
    return hash;
}

void attn_model_initialise(attn_model *model, uint64_t seed)
{
    const double weight = 0.02; /* standard deviation */
    const double residual = weight / sqrt(2.0 * (double)attn_model_configuration(model)->layers);
    size_t n = 0;
    const attn_model_tensor *tensors = attn_model_tensors(model, &n);
    for (size_t i = 0; i < n; i++) {
        const attn_model_tensor *t = &tensors[i];
        const uint64_t stream = attn_random_stream(ATTN_RANDOM_PARAMETERS, name_hash(t->name));
        float *out = attn_model_parameters(model) + t->offset;
        switch (t->initial) {
        case ATTN_INITIAL_WEIGHT:
            attn_random_fill_normal(seed, stream, weight, t->count, out);
            break;
        case ATTN_INITIAL_RESIDUAL:
            attn_random_fill_normal(seed, stream, residual, t->count, out);
            break;
        case ATTN_INITIAL_OWN:
            attn_layer_initialise_own(attn_model_layer(model, t->block), t->layer_index, seed,
                                      stream, out);
            break;
        case ATTN_INITIAL_ONE:
        case ATTN_INITIAL_ZERO:
            for (size_t j = 0; j < t->count; j++)
                out[j] = t->initial == ATTN_INITIAL_ONE ? 1.0f : 0.0f;
            break;
        }
    }
}
