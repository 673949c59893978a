/* Generation over the residual stack. Sampling draws from the softmax of the logits by its
 * cumulated sum, in double. */
#include "model/generation.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "model/stack.h"

#include <math.h>

struct attn_generator {
    attn_stack stack;
    size_t capacity, position;
    float *caches; /* of all layers, behind each other; NULL: the model does not decode */
    size_t cache_count;
    float *logits; /* [B][V] */
    uint32_t *chosen;
    bool has_logits, has_chosen;
};

static attn_status take_memory(attn_generator *g, attn_error *error)
{
    const attn_model_config *config = attn_model_configuration(g->stack.model);
    const size_t batch = g->stack.batch;
    const bool decodes = attn_model_future_blocks(g->stack.model) == 0;
    size_t n_kinds = 0;
    const attn_model_kind *kinds = attn_model_kinds(g->stack.model, &n_kinds);
    for (size_t i = 0; i < n_kinds && decodes; i++) {
        size_t caches = attn_layer_cache_count(kinds[i].layer, batch, g->capacity);
        if (!attn_size_multiply(kinds[i].n_blocks, caches, &caches) ||
            !attn_size_add(g->cache_count, caches, &g->cache_count))
            return attn_fail(error, ATTN_ESHAPE, "caches for %zu tokens do not fit into memory",
                             g->capacity);
    }
    if (decodes)
        g->caches = attn_alloc_array(ATTN_MEMORY_ACTIVATIONS, g->cache_count, sizeof *g->caches);
    g->logits =
        attn_alloc_array(ATTN_MEMORY_WORKSPACE, batch * config->vocabulary, sizeof *g->logits);
    g->chosen = attn_alloc_array(ATTN_MEMORY_WORKSPACE, batch, sizeof *g->chosen);
    if ((g->caches || !decodes) && g->logits && g->chosen) return ATTN_OK;
    return attn_fail(error, ATTN_EMEMORY, "no memory for generating %zu sequences of %zu tokens",
                     batch, g->capacity);
}

attn_status attn_generator_create(attn_generator **out, const attn_model *model,
                                  attn_context *context, size_t batch, size_t capacity,
                                  attn_error *error)
{
    *out = NULL;
    attn_generator *g = attn_alloc(ATTN_MEMORY_OTHER, sizeof *g);
    if (!g) return attn_fail(error, ATTN_EMEMORY, "no memory for a generator");
    g->capacity = capacity;
    attn_status status =
        attn_stack_create(&g->stack, model, context, batch, capacity, false, 0, error);
    if (status == ATTN_OK) status = take_memory(g, error);
    if (status != ATTN_OK) {
        attn_generator_free(g);
        return status;
    }
    attn_model_pack(model, context);
    *out = g;
    return ATTN_OK;
}

void attn_generator_free(attn_generator *generator)
{
    if (!generator) return;
    attn_free(generator->chosen);
    attn_free(generator->logits);
    attn_free(generator->caches);
    attn_stack_destroy(&generator->stack);
    attn_free(generator);
}

/* `n` more tokens for each sequence, then the logits of the last. */
static attn_status advance(attn_generator *g, const uint32_t *ids, size_t n, bool decodes,
                           attn_error *error)
{
    const attn_model *model = g->stack.model;
    const attn_model_config *config = attn_model_configuration(model);
    const size_t batch = g->stack.batch;
    g->has_logits = g->has_chosen = false;
    for (size_t i = 0; i < batch * n; i++)
        if (ids[i] >= config->vocabulary)
            return attn_fail(error, ATTN_EARGUMENT,
                             "sequence %zu: token id %u, but the vocabulary ends at %zu", i / n,
                             ids[i], config->vocabulary - 1);
    const attn_stack_input input = {.batch = batch,
                                    .length = n,
                                    .tokens = ids,
                                    .caches = g->caches,
                                    .cache_capacity = g->capacity,
                                    .position = g->position,
                                    .decodes = decodes};
    const attn_status status = attn_stack_forward(&g->stack, &input, error);
    if (status != ATTN_OK) return status;
    g->position += n;
    attn_stack_logits(&g->stack, n - 1, n, batch, g->logits);
    g->has_logits = true;
    return ATTN_OK;
}

attn_status attn_generator_prefill(attn_generator *generator, const uint32_t *ids, size_t n,
                                   attn_error *error)
{
    if (n == 0 || n > generator->capacity)
        return attn_fail(error, ATTN_ESHAPE, "a prompt of %zu tokens: give 1 to %zu", n,
                         generator->capacity);
    /* Scratch memory is that of the capacity: what such layers need may grow as texts shrink. */
    if (!generator->caches && n != generator->capacity)
        return attn_fail(error, ATTN_ESHAPE,
                         "a prompt of %zu tokens, but the model sees later tokens and reads texts "
                         "of the capacity alone, %zu",
                         n, generator->capacity);
    generator->position = 0;
    return advance(generator, ids, n, false, error);
}

attn_status attn_generator_feed(attn_generator *generator, const uint32_t *ids, attn_error *error)
{
    if (!generator->caches)
        return attn_fail(error, ATTN_EUNSUPPORTED,
                         "the model sees later tokens, so it cannot go on one by one");
    if (generator->position == generator->capacity)
        return attn_fail(error, ATTN_ESHAPE, "the sequences are full: %zu tokens is their capacity",
                         generator->capacity);
    return advance(generator, ids, 1, true, error);
}

/* ---- choosing ---------------------------------------------------------------------------- */

static uint32_t likeliest(const float *logits, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return (uint32_t)best;
}

static uint32_t draw(const float *logits, size_t n, double temperature, double uniform)
{
    const double top = (double)logits[likeliest(logits, n)];
    double total = 0.0, so_far = 0.0;
    for (size_t i = 0; i < n; i++) total += exp(((double)logits[i] - top) / temperature);
    for (size_t i = 0; i < n; i++) {
        so_far += exp(((double)logits[i] - top) / temperature);
        if (so_far > uniform * total) return (uint32_t)i;
    }
    return likeliest(logits, n); /* rounding: uniform is next to 1 */
}

attn_status attn_generator_next(attn_generator *generator, const attn_sampling *sampling,
                                uint32_t *ids, attn_error *error)
{
    if (!(sampling->temperature >= 0.0 && sampling->temperature < INFINITY))
        return attn_fail(error, ATTN_EARGUMENT, "temperature %g: give 0 or above",
                         sampling->temperature);
    if (generator->has_chosen) {
        const attn_status status = attn_generator_feed(generator, generator->chosen, error);
        if (status != ATTN_OK) return status;
    }
    if (!generator->has_logits)
        return attn_fail(error, ATTN_EARGUMENT, "generation needs a prompt first");
    const size_t vocabulary = attn_model_configuration(generator->stack.model)->vocabulary;
    for (size_t b = 0; b < generator->stack.batch; b++) {
        const float *logits = generator->logits + b * vocabulary;
        const uint64_t stream = attn_random_stream(ATTN_RANDOM_SAMPLING, (uint32_t)b);
        generator->chosen[b] =
            sampling->temperature == 0.0
                ? likeliest(logits, vocabulary)
                : draw(logits, vocabulary, sampling->temperature,
                       attn_random_uniform(sampling->seed, stream, generator->position));
        ids[b] = generator->chosen[b];
    }
    generator->has_chosen = true;
    return ATTN_OK;
}

/* ---- questions --------------------------------------------------------------------------- */

const float *attn_generator_logits(const attn_generator *generator)
{
    return generator->logits;
}

size_t attn_generator_position(const attn_generator *generator)
{
    return generator->position;
}

size_t attn_generator_cache_bytes(const attn_generator *generator)
{
    return generator->cache_count * sizeof(float);
}
