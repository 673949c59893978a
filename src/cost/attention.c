/* One layer of attention. Work of one sequence is counted first; the batch multiplies it, checked. */
#include "cost/attention.h"

#include "base/error.h"
#include "base/memory.h"
#include "cost/pairs.h"
#include "mechanisms/exact_core.h"
#include "mechanisms/kv_cache.h"

/* Work of one sequence stays below this, so that nothing in its closed form wraps. */
static const double most_work = 0x1p60;

typedef struct counting {
    const attn_cost_heads *heads;
    const attn_cost_call *call;
    attn_layer layer; /* with the model's heads where the mechanism keeps them */
    const attn_core *core;
    attn_visibility rule;
    attn_mask mask;
    attn_tile_shape shape; /* of one sequence */
    attn_whole whole;
    attn_error *error;
} counting;

static attn_status too_large(const counting *c)
{
    return attn_fail(c->error, ATTN_ESHAPE,
                     "%s: batch %zu with %zu tokens is more work than 64-bit counts hold: take "
                     "smaller sizes",
                     c->layer.name, c->call->batch, c->call->keys);
}

/* ---- mechanisms with pairs ------------------------------------------------------------------ */

/* Whether the mask is the rule's, not one of the mechanism's own. */
static bool is_by_rule(const counting *c)
{
    return c->mask.rule == &c->rule;
}

static void prepare_pairs(counting *c)
{
    const attn_cost_heads *heads = c->heads;
    attn_layer *layer = &c->layer;
    /* gqa and mqa group the heads themselves; they are flash with a check. */
    const bool groups = c->core == &attn_core_flash && layer->mechanism->check;
    if (!groups) layer->kv_heads = heads->kv_heads;
    c->mask = c->core->mask(layer, &c->rule);
    if (is_by_rule(c) && heads->window && c->rule.window == ATTN_NO_WINDOW)
        c->rule.window = heads->window;
    c->shape = (attn_tile_shape){.batch = 1,
                                 .heads = heads->heads,
                                 .kv_heads = layer->kv_heads,
                                 .queries = c->call->queries,
                                 .keys = c->call->keys,
                                 .key_width = heads->key_width,
                                 .value_width = heads->value_width};
}

/* softmax for any widths and lengths (softmax.c counts the same where it runs). */
static attn_work square_work(const counting *c, attn_phase phase)
{
    const attn_tile_shape *s = &c->shape;
    const uint64_t square = (uint64_t)s->queries * s->keys, width = s->key_width + s->value_width;
    const attn_work head = phase == ATTN_PHASE_BACKWARD
                               ? (attn_work){.matmul = 4 * square * width, .other = 5 * square}
                               : (attn_work){.matmul = 2 * square * width,
                                             .exponential = square,
                                             .other = 6 * square + s->queries};
    return attn_work_times(head, s->heads);
}

static attn_cost_pairs pairs_of(const counting *c)
{
    const attn_cost_call *call = c->call;
    return (attn_cost_pairs){.mask = c->mask,
                             .rule = is_by_rule(c) ? &c->rule : NULL,
                             .heads = c->heads->heads,
                             .queries = call->queries / call->documents,
                             .keys = call->keys / call->documents,
                             .tile_queries = call->tile ? call->tile : ATTN_TILE_QUERIES,
                             .tile_keys = call->tile ? call->tile : ATTN_TILE_KEYS};
}

static attn_status too_many_tiles(const counting *c)
{
    return attn_fail(c->error, ATTN_ESHAPE,
                     "%s: %zu tokens are too many tiles to walk one by one: take fewer tokens or "
                     "a larger --tile",
                     c->layer.name, c->call->keys);
}

/* The first position of each token's document in so many sequences of equal documents; NULL and
 * ATTN_OK for one document a sequence. */
static attn_status document_starts(const counting *c, size_t sequences, uint32_t **starts)
{
    const size_t keys = c->call->keys, length = keys / c->call->documents;
    *starts = NULL;
    if (c->call->documents == 1) return ATTN_OK;
    size_t count;
    if (attn_size_multiply(sequences, keys, &count))
        *starts = attn_alloc_array(ATTN_MEMORY_OTHER, count, sizeof **starts);
    if (!*starts)
        return attn_fail(c->error, ATTN_EMEMORY, "no memory for documents of %zu tokens", keys);
    for (size_t i = 0; i < count; i++) (*starts)[i] = (uint32_t)(i % keys / length * length);
    return ATTN_OK;
}

/* The kernels' own form, with documents or a function of each score. */
static attn_status walk_as_kernel(counting *c, attn_cost_core *out)
{
    const attn_cost_call *call = c->call;
    if (call->queries != call->keys || call->tile || c->heads->key_width != c->heads->value_width ||
        (c->heads->window && c->core->walk == ATTN_WALK_SCORED))
        return attn_fail(c->error, ATTN_EUNSUPPORTED,
                         "%s has no closed form with %s: leave that out", c->layer.name,
                         call->tile                    ? "other tiles than the kernel's"
                         : call->queries != call->keys ? "queries behind a cache"
                         : c->heads->window            ? "the model's window"
                                                       : "values of another width than keys");
    if ((uint64_t)call->keys * call->keys / (ATTN_TILE_QUERIES * ATTN_TILE_KEYS) >
        ATTN_COST_TILES_MAX)
        return too_many_tiles(c);
    uint32_t *starts = NULL;
    const attn_status status = document_starts(c, 1, &starts);
    if (status != ATTN_OK) return status;
    out->forward = c->core->work(&c->layer, ATTN_PHASE_FORWARD, 1, call->keys, starts);
    out->backward = c->core->work(&c->layer, ATTN_PHASE_BACKWARD, 1, call->keys, starts);
    out->executed = out->forward.matmul / (2 * (c->heads->key_width + c->heads->value_width));
    attn_free(starts);
    return ATTN_OK;
}

static attn_status walk_tiles(counting *c, attn_cost_core *out)
{
    const attn_cost_pairs pairs = pairs_of(c);
    const attn_tile_rule rule = {.order = c->core->walk == ATTN_WALK_ROWS ? ATTN_TILE_ROWS
                                                                          : ATTN_TILE_ONLINE,
                                 .mask = c->mask};
    attn_tile_count tiles;
    if (!attn_cost_executed(&pairs, &tiles)) return too_many_tiles(c);
    out->forward = attn_tile_count_work(&c->shape, &rule, ATTN_PHASE_FORWARD, &tiles);
    out->backward = attn_tile_count_work(&c->shape, &rule, ATTN_PHASE_BACKWARD, &tiles);
    out->executed = tiles.elements;
    return ATTN_OK;
}

static attn_status count_walk(counting *c, attn_cost_core *out)
{
    if (c->core->walk == ATTN_WALK_SQUARE) {
        out->forward = square_work(c, ATTN_PHASE_FORWARD);
        out->backward = square_work(c, ATTN_PHASE_BACKWARD);
        out->executed = out->square;
        return ATTN_OK;
    }
    const bool is_plain = c->core->walk != ATTN_WALK_SCORED && c->call->documents == 1;
    return is_plain ? walk_tiles(c, out) : walk_as_kernel(c, out);
}

/* One token behind keys - 1. */
static attn_status count_decoding(counting *c, attn_cost_core *out)
{
    const size_t cached = c->call->keys - 1;
    if (c->heads->key_width != c->heads->value_width)
        return attn_fail(c->error, ATTN_EUNSUPPORTED,
                         "%s does not decode with values of another width than keys",
                         c->layer.name);
    out->forward = is_by_rule(c) ? attn_kv_cache_work(&c->layer, &c->rule, 1, cached)
                                 : c->core->work(&c->layer, ATTN_PHASE_DECODE, 1, cached, NULL);
    out->executed = out->forward.matmul / (4 * c->heads->key_width);
    return ATTN_OK;
}

static size_t cache_slots(const counting *c)
{
    if (!is_by_rule(c) || c->rule.window == ATTN_NO_WINDOW) return c->call->keys;
    return attn_smaller(c->call->keys, c->rule.window + c->rule.sinks);
}

static void times_batch(counting *c, attn_cost_core *out)
{
    const uint64_t batch = c->call->batch;
    attn_whole *w = &c->whole;
    out->forward = attn_whole_work_times(w, out->forward, batch);
    out->backward = attn_whole_work_times(w, out->backward, batch);
    uint64_t *const counts[] = {
        &out->pairs,           &out->executed,      &out->square,         &out->useful_forward,
        &out->useful_backward, &out->dense_forward, &out->dense_backward, &out->kept,
        &out->kept_fp32,       &out->cache};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        *counts[i] = attn_whole_times(w, *counts[i], batch);
}

static attn_status count_pairs(counting *c, attn_cost_core *out)
{
    const attn_cost_heads *heads = c->heads;
    const attn_cost_call *call = c->call;
    prepare_pairs(c);
    const uint64_t width = heads->key_width + heads->value_width;
    if (16.0 * (double)heads->heads * (double)call->queries * (double)call->keys * (double)width >
        most_work)
        return too_large(c);
    out->has_pairs = true;
    out->kv_heads = c->layer.kv_heads;
    out->square = (uint64_t)heads->heads * call->queries * call->keys;
    const attn_cost_pairs pairs = pairs_of(c);
    out->has_visible = attn_cost_visible(&pairs, &out->pairs);
    out->pairs *= call->documents;
    const attn_status status = call->is_decoding ? count_decoding(c, out) : count_walk(c, out);
    if (status != ATTN_OK) return status;
    out->useful_forward = 2 * out->pairs * width;
    out->dense_forward = 2 * out->square * width;
    if (!call->is_decoding) {
        out->useful_backward = 2 * out->useful_forward;
        out->dense_backward = 2 * out->dense_forward;
    }
    if (c->core->walk == ATTN_WALK_SQUARE)
        out->kept = out->square;
    else
        out->kept_fp32 = attn_tile_saved(&c->shape);
    out->cache = (uint64_t)c->layer.kv_heads * cache_slots(c) * width;
    times_batch(c, out);
    return c->whole.has_overflowed ? too_large(c) : ATTN_OK;
}

/* ---- mechanisms without pairs --------------------------------------------------------------- */

static attn_work layer_work(const counting *c, attn_phase phase, size_t batch, size_t length,
                            const uint32_t *starts)
{
    return attn_layer_work(&c->layer, phase, batch, length, starts);
}

static bool is_small(attn_work work)
{
    return (double)work.matmul < most_work && (double)work.other < most_work &&
           (double)work.exponential < most_work;
}

/* No count grows faster than the cube of the length: when those of all halvings are small, the
 * whole is not beyond 64 bits. */
static bool fits(const counting *c)
{
    for (size_t length = c->call->keys / 2; length > 0; length /= 2)
        if (!is_small(layer_work(c, ATTN_PHASE_BACKWARD, 1, length, NULL))) return false;
    const attn_work one = layer_work(c, ATTN_PHASE_BACKWARD, 1, c->call->keys, NULL);
    return is_small(one) && (double)(one.matmul + one.other) * (double)c->call->batch < 0x1p62;
}

/* Each meets every token once a pass. */
static void list_projections(const counting *c, attn_cost_core *out)
{
    out->n_projections = c->layer.n_projections;
    for (size_t i = 0; i < out->n_projections; i++) {
        const attn_projection *p = &c->layer.projections[i];
        out->projections[i] =
            (attn_cost_dense){.in = p->in, .out = p->out, .has_bias = p->bias != ATTN_NO_BIAS};
    }
}

static attn_status count_layer(counting *c, attn_cost_core *out)
{
    const attn_cost_call *call = c->call;
    const size_t batch = call->batch;
    const bool is_decoding = call->is_decoding;
    if (!is_decoding && call->queries != call->keys)
        return attn_fail(c->error, ATTN_EUNSUPPORTED,
                         "%s has no closed form with queries behind a cache: leave out --queries",
                         c->layer.name);
    if (call->tile)
        return attn_fail(c->error, ATTN_EUNSUPPORTED, "%s has no tiles: leave out --tile",
                         c->layer.name);
    if (!fits(c)) return too_large(c);
    uint32_t *starts = NULL;
    const attn_status status = document_starts(c, batch, &starts);
    if (status != ATTN_OK) return status;
    if (is_decoding) {
        out->forward = layer_work(c, ATTN_PHASE_DECODE, batch, call->keys - 1, NULL);
    } else {
        out->forward = layer_work(c, ATTN_PHASE_FORWARD, batch, call->keys, starts);
        out->backward = layer_work(c, ATTN_PHASE_BACKWARD, batch, call->keys, starts);
        list_projections(c, out);
    }
    attn_free(starts);
    out->useful_forward = out->dense_forward = out->forward.matmul;
    out->useful_backward = out->dense_backward = out->backward.matmul;
    out->has_visible = true;
    out->parameters = attn_layer_parameter_count(&c->layer);
    out->kept = attn_layer_saved_count(&c->layer, batch, call->queries);
    if (c->layer.is_causal) {
        out->cache = attn_layer_cache_count(&c->layer, batch, call->keys);
        out->cache_is_state = call->keys > 1 && out->cache == attn_layer_cache_count(
                                                                  &c->layer, batch, call->keys / 2);
    }
    return ATTN_OK;
}

/* ---- any mechanism -------------------------------------------------------------------------- */

static attn_status check_call(const attn_cost_call *call, attn_error *error)
{
    if (!call->batch || !call->queries || !call->keys)
        return attn_fail(error, ATTN_ESHAPE, "batch and tokens must be at least 1");
    if (call->queries > call->keys)
        return attn_fail(error, ATTN_ESHAPE,
                         "%zu queries against %zu keys: queries are the last of the keys, so there "
                         "cannot be more of them",
                         call->queries, call->keys);
    if (call->documents == 0 || call->keys % call->documents != 0)
        return attn_fail(error, ATTN_ESHAPE, "%zu tokens cannot be %zu equal documents", call->keys,
                         call->documents);
    if (call->documents > 1 && call->queries != call->keys)
        return attn_fail(error, ATTN_ESHAPE, "packed documents go with whole sequences");
    return ATTN_OK;
}

attn_status attn_cost_core_count(const attn_label *mechanism, const attn_cost_heads *heads,
                                 const attn_cost_call *call, attn_cost_core *out, attn_error *error)
{
    *out = (attn_cost_core){0};
    attn_status status = check_call(call, error);
    if (status != ATTN_OK) return status;
    const attn_mechanism *entry = attn_mechanism_find(mechanism->name);
    const bool has_pairs = entry && entry->core && entry->core->walk != ATTN_WALK_NONE;
    const attn_layer_config config = {.mechanism = mechanism->name,
                                      .options = mechanism->options,
                                      .d_model = has_pairs ? heads->heads * heads->key_width
                                                           : heads->width,
                                      .heads = heads->heads,
                                      .positions = call->keys,
                                      .is_causal = heads->is_causal};
    attn_layer *layer = NULL;
    status = attn_layer_create(&layer, &config, error);
    if (status != ATTN_OK) return status;
    counting c = {
        .heads = heads, .call = call, .layer = *layer, .core = entry->core, .error = error};
    attn_layer_free(layer);
    if (entry->reads_memory)
        status = attn_fail(error, ATTN_EUNSUPPORTED,
                           "%s reads a memory beside the text, which this model does not have",
                           mechanism->name);
    else if (entry->check_length)
        status = entry->check_length(&c.layer, call->keys, error);
    if (status != ATTN_OK) return status;
    out->walk = has_pairs ? entry->core->walk : ATTN_WALK_NONE;
    return has_pairs ? count_pairs(&c, out) : count_layer(&c, out);
}
