/* Whole models as parts: decoders and encoders of text, image towers, the Q-Former. */
#include "base/error.h"
#include "cost/parts.h"
#include "mechanisms/tile_engine.h"

#include <stdio.h>

/* ---- ends ----------------------------------------------------------------------------------- */

static void embedding(attn_cost_builder *b)
{
    const attn_spec *s = b->spec;
    attn_cost_part *part = attn_part_add(b, "embedding", ATTN_COST_ENDS, 1);
    const uint64_t elements = attn_whole_times(&b->whole, b->rows, s->width);
    const bool adds = s->position == ATTN_SPEC_LEARNED;
    part->work[ATTN_COST_FORWARD].other = adds ? elements : 0;
    part->work[ATTN_COST_BACKWARD].other = adds ? 2 * elements : elements;
    part->parameters = (s->vocabulary + (adds ? s->positions : 0) + s->segments) * s->width;
    part->bytes[ATTN_COST_FORWARD] = attn_whole_times(&b->whole, 2 * elements, b->element_bytes);
    part->bytes[ATTN_COST_BACKWARD] = attn_whole_times(&b->whole, 3 * elements, b->element_bytes);
}

static void logits(attn_cost_builder *b, uint64_t rows)
{
    const attn_spec *s = b->spec;
    attn_part_linear(b, "logits", ATTN_COST_HEAD, 1, rows, s->width, s->vocabulary, false, s->width,
                     "d V");
    if (s->is_tied) b->out->parts[b->out->n_parts - 1].parameters = 0;
    const uint64_t elements = attn_whole_times(&b->whole, rows, s->vocabulary);
    if (s->logit_cap > 0.0) {
        attn_cost_part *cap = attn_part_add(b, "logit cap", ATTN_COST_HEAD, 1);
        cap->work[ATTN_COST_FORWARD] = (attn_work){.exponential = elements, .other = 2 * elements};
        cap->work[ATTN_COST_BACKWARD].other = 3 * elements;
        cap->bytes[ATTN_COST_FORWARD] = cap->bytes[ATTN_COST_BACKWARD] =
            2 * elements * b->element_bytes;
    }
    if (!b->is_training) return;
    attn_cost_part *loss = attn_part_add(b, "loss", ATTN_COST_HEAD, 1);
    loss->work[ATTN_COST_FORWARD] =
        (attn_work){.exponential = elements + rows, .other = 3 * elements};
    loss->work[ATTN_COST_BACKWARD].other = 2 * elements;
    loss->bytes[ATTN_COST_FORWARD] = loss->bytes[ATTN_COST_BACKWARD] =
        attn_whole_times(&b->whole, elements, b->element_bytes);
    b->out->memory.logits = ATTN_PRODUCT(&b->whole, 4, elements); /* float32, gradient in place */
}

/* ---- layers --------------------------------------------------------------------------------- */

static void norms(attn_cost_builder *b, uint64_t layers)
{
    const attn_spec *s = b->spec;
    const uint64_t each = s->norms ? s->norms : 2;
    attn_part_norm(b, "norms", attn_whole_times(&b->whole, layers, each), b->rows, s->width,
                   (attn_spec_norm)s->norm, true);
    attn_part_residual(b, 2 * layers);
}

/* Layers of each kind of the pattern, those with the model's window apart. */
static void attention(attn_cost_builder *b, size_t queries, size_t keys)
{
    const attn_spec *s = b->spec;
    const attn_pattern *pattern = b->pattern;
    size_t counts[ATTN_PATTERN_KINDS_MAX][2] = {{0}};
    for (size_t i = 0; i < s->layers; i++) {
        const bool is_windowed = s->window && i % (s->window_every ? s->window_every : 1) == 0;
        counts[pattern->blocks[i % pattern->n_blocks]][is_windowed]++;
    }
    for (size_t k = 0; k < pattern->n_kinds; k++)
        for (size_t w = 2; w-- > 0;) {
            b->mechanism = &pattern->kinds[k];
            if (!counts[k][w]) continue;
            if (s->rank_kv)
                attn_part_latent(b, counts[k][w], queries, keys);
            else
                attn_part_attention(b, counts[k][w], w ? s->window : 0, queries, keys);
        }
}

static void layers(attn_cost_builder *b, size_t queries, size_t keys)
{
    const attn_spec *s = b->spec;
    b->is_in_layer = true;
    attention(b, queries, keys);
    const uint64_t dense = s->experts ? s->dense_layers : s->layers;
    if (dense) attn_part_feed_forward(b, "", dense, b->rows, s->ffn);
    if (s->layers > dense) attn_part_experts(b, s->layers - dense);
    norms(b, s->layers);
    b->is_in_layer = false;
}

void attn_parts_text(attn_cost_builder *b, size_t queries, size_t keys)
{
    const attn_spec *s = b->spec;
    const bool is_decoder = s->kind == ATTN_SPEC_DECODER;
    embedding(b);
    layers(b, queries, keys);
    attn_part_norm(b, "last norm", 1, b->rows, s->width, (attn_spec_norm)s->norm, true);
    if (s->has_pooler) {
        attn_part_linear(b, "pooler", ATTN_COST_ENDS, 1, b->batch, s->width, s->width, true,
                         s->width, "d d");
        b->out->parts[b->out->n_parts - 1].work[ATTN_COST_FORWARD].exponential +=
            b->batch * s->width;
    }
    if (b->is_training)
        logits(b, b->rows);
    else if (is_decoder)
        logits(b, b->batch);
}

/* ---- images --------------------------------------------------------------------------------- */

void attn_parts_vision(attn_cost_builder *b, size_t image, bool has_head)
{
    const attn_spec *s = b->spec;
    if (image % s->patch != 0) {
        if (b->status == ATTN_OK)
            b->status = attn_fail(b->error, ATTN_ESHAPE,
                                  "%s: an image of %zu pixels is no multiple of the patch of %zu",
                                  s->record.name, image, s->patch);
        return;
    }
    const size_t patches = (image / s->patch) * (image / s->patch);
    const size_t tokens = patches + s->has_class_token;
    attn_part_linear(b, "patches", ATTN_COST_ENDS, 1, b->batch * patches, 3 * s->patch * s->patch,
                     s->width, s->has_patch_bias, 0, "3p^2 d");
    b->rows = attn_whole_times(&b->whole, b->batch, tokens);
    attn_cost_part *positions = attn_part_add(b, "positions", ATTN_COST_ENDS, 1);
    positions->work[ATTN_COST_FORWARD].other = positions->work[ATTN_COST_BACKWARD].other =
        attn_whole_times(&b->whole, b->rows, s->width);
    positions->parameters = (tokens + s->has_class_token) * s->width;
    if (s->has_pre_norm)
        attn_part_norm(b, "first norm", 1, b->rows, s->width, (attn_spec_norm)s->norm, true);
    layers(b, tokens, tokens);
    attn_part_norm(b, "last norm", 1, b->rows, s->width, (attn_spec_norm)s->norm, true);
    if (has_head && s->classes)
        attn_part_linear(b, "classes", ATTN_COST_HEAD, 1, b->batch, s->width, s->classes, true,
                         s->width, "d classes");
    if (has_head && s->projection)
        attn_part_linear(b, "projection", ATTN_COST_HEAD, 1, b->batch, s->width, s->projection,
                         false, s->width, "d projection");
}

/* Cross-attention of the queries to an image's tokens: q and o of the queries, k and v of a
 * memory of another width. */
static void cross_attention(attn_cost_builder *b, uint64_t times)
{
    const attn_spec *s = b->spec;
    const uint64_t d = s->width, memory = attn_whole_times(&b->whole, b->batch, s->memory_tokens);
    const attn_tile_shape shape = {.batch = b->batch,
                                   .heads = s->heads,
                                   .kv_heads = s->heads,
                                   .queries = s->queries,
                                   .keys = s->memory_tokens,
                                   .key_width = s->head_dim,
                                   .value_width = s->head_dim};
    const attn_visibility all = {.window = ATTN_NO_WINDOW};
    const attn_tile_rule rule = {.order = ATTN_TILE_ONLINE, .mask = attn_visibility_mask(&all)};
    attn_cost_core core = {.has_pairs = true, .kv_heads = s->heads, .has_visible = true};
    core.forward = attn_tile_work(&shape, &rule, ATTN_PHASE_FORWARD, NULL);
    core.backward = attn_tile_work(&shape, &rule, ATTN_PHASE_BACKWARD, NULL);
    core.square = core.executed = core.pairs =
        ATTN_PRODUCT(&b->whole, b->batch, s->heads, s->queries, s->memory_tokens);
    core.useful_forward = core.dense_forward = core.forward.matmul;
    core.useful_backward = core.dense_backward = 2 * core.forward.matmul;
    core.kept_fp32 = attn_tile_saved(&shape);
    const attn_cost_heads heads = {d, s->heads, s->heads, s->head_dim, s->head_dim, 0, false};
    attn_part_linear(b, "cross q", ATTN_COST_PROJECTION, times, b->rows, d, d, true, 2 * d, "d d");
    attn_part_linear(b, "cross k, v", ATTN_COST_PROJECTION, times, memory, s->memory_width, 2 * d,
                     true, 2 * d, "dm 2d");
    attn_part_core(b, "cross core", times, &core, &heads, s->queries, s->memory_tokens);
    attn_part_linear(b, "cross o", ATTN_COST_PROJECTION, times, b->rows, d, d, true, d, "d d");
    attn_part_norm(b, "cross norm", times, b->rows, d, (attn_spec_norm)s->norm, true);
    attn_part_residual(b, times);
}

void attn_parts_qformer(attn_cost_builder *b)
{
    const attn_spec *s = b->spec;
    b->rows = attn_whole_times(&b->whole, b->batch, s->queries);
    attn_cost_part *queries = attn_part_add(b, "queries and text", ATTN_COST_ENDS, 1);
    queries->parameters = (s->queries + s->vocabulary + s->positions) * s->width;
    attn_part_norm(b, "first norm", 1, b->rows, s->width, (attn_spec_norm)s->norm, true);
    b->is_in_layer = true;
    attention(b, s->queries, s->queries);
    cross_attention(b, s->layers / s->cross_every);
    const size_t first = b->out->n_parts;
    attn_part_feed_forward(b, "", s->layers, b->rows, s->ffn);
    /* the feed-forward part of text tokens has weights of its own, which queries do not meet */
    for (size_t i = first; i < b->out->n_parts; i++) b->out->parts[i].parameters *= 2;
    norms(b, s->layers);
    /* and so does its norm: three norms' weights a layer where queries pass two */
    b->out->parts[b->out->n_parts - 2].parameters += s->width;
    b->is_in_layer = false;
}
