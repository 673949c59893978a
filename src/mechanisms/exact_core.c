/* Shared parts of exact softmax attention. */
#include "mechanisms/exact_core.h"

#include "base/memory.h"
#include "mechanisms/kv_cache.h"

#include <math.h>

attn_visibility attn_rule_all(const attn_layer *layer)
{
    return (attn_visibility){.is_causal = layer->is_causal, .window = ATTN_NO_WINDOW};
}

attn_tile_rule attn_rule_tiles(const attn_visibility *rule, attn_tile_order order)
{
    return (attn_tile_rule){.order = order, .mask = attn_visibility_mask(rule)};
}

static attn_tile_shape shape_of(const attn_layer *layer, size_t batch, size_t length)
{
    return (attn_tile_shape){.batch = batch,
                             .heads = layer->heads,
                             .kv_heads = layer->kv_heads,
                             .queries = length,
                             .keys = length,
                             .key_width = layer->head_dim,
                             .value_width = layer->head_dim,
                             .dtype = layer->dtype};
}

static attn_tile_call tile_call(const attn_core_call *call, const attn_tile_rule *rule)
{
    const attn_head_layout rows = {.row = call->row, .head = call->layer->head_dim};
    return (attn_tile_call){.context = call->context,
                            .shape = shape_of(call->layer, call->batch, call->length),
                            .rule = *rule,
                            .document_start = call->document_start,
                            .q_at = rows,
                            .k_at = rows,
                            .v_at = rows,
                            .o_at = {.row = call->o_row, .head = call->layer->head_dim},
                            .q = {.single = call->q, .half = call->half.q},
                            .k = {.single = call->k, .half = call->half.k},
                            .v = {.single = call->v, .half = call->half.v},
                            .o = call->o,
                            .saved = call->saved,
                            .scratch = call->scratch,
                            .d_o = {.single = call->d_o, .half = call->half.d_o},
                            .dq = {.single = call->dq, .half = call->half.dq},
                            .dk = {.single = call->dk, .half = call->half.dk},
                            .dv = {.single = call->dv, .half = call->half.dv}};
}

size_t attn_exact_saved(const attn_layer *layer, size_t batch, size_t length)
{
    const attn_tile_shape shape = shape_of(layer, batch, length);
    return attn_tile_saved(&shape);
}

size_t attn_exact_scratch(const attn_layer *layer, size_t threads, size_t batch, size_t length)
{
    const attn_tile_shape shape = shape_of(layer, batch, length);
    return attn_tile_scratch(&shape, threads);
}

void attn_exact_forward(const attn_core_call *call, const attn_tile_rule *rule)
{
    const attn_tile_call tiles = tile_call(call, rule);
    attn_tile_forward(&tiles);
}

void attn_exact_backward(const attn_core_call *call, const attn_tile_rule *rule)
{
    const attn_tile_call tiles = tile_call(call, rule);
    attn_tile_backward(&tiles);
}

attn_work attn_exact_work(const attn_layer *layer, const attn_tile_rule *rule, attn_phase phase,
                          size_t batch, size_t length, const uint32_t *document_start)
{
    const attn_tile_shape shape = shape_of(layer, batch, length);
    return attn_tile_work(&shape, rule, phase, document_start);
}

static attn_node *scaled_products(attn_tape *tape, attn_node *q, attn_node *k)
{
    return attn_scaled(tape, attn_matmul(tape, q, attn_transpose(tape, k)),
                       1.0 / sqrt((double)q->columns));
}

attn_node *attn_oracle_scores(attn_tape *tape, attn_node *q, attn_node *k)
{
    attn_node *s =
        scaled_products(tape, attn_rounded_factor(tape, q), attn_rounded_factor(tape, k));
    return attn_rounded_gradient(tape, s);
}

/* Allocated; NULL when memory is short. */
static bool *seen_pairs(const attn_mask *mask, size_t head, size_t queries, size_t keys,
                        const uint32_t *document_start)
{
    bool *allowed = attn_alloc_array(ATTN_MEMORY_OTHER, queries * keys, sizeof *allowed);
    for (size_t i = 0; allowed && i < queries; i++)
        for (size_t j = 0; j < keys; j++)
            allowed[i * keys + j] =
                mask->sees(mask->rule, head, i, j, document_start ? document_start[i] : 0);
    return allowed;
}

/* softmax(scores) v with both factors rounded. A factor 2^(x - c) is rounded before its row is
 * divided by the row's sum l of what was not; c is a whole number, on which the rounding does not
 * depend. The quotient is taken as o' + (u - o' l) / l', with u = P v and o', l' the values of o and
 * l: its gradient dO / l' of a rounded dO is one matrix, that of u and through o' that of l, and is
 * rounded. */
static attn_node *attend_rounded(attn_tape *tape, const bool *allowed, attn_node *scores,
                                 attn_node *v)
{
    const double ln2 = 0.6931471805599453;
    const size_t T = scores->rows, S = scores->columns;
    attn_node *shift = attn_filled(tape, T, 1, 0.0), *share = attn_filled(tape, T, 1, 0.0);
    attn_node *o = attn_filled(tape, T, v->columns, 0.0);
    for (size_t i = 0; i < shift->rows; i++) {
        double top = -INFINITY;
        for (size_t j = 0; j < S; j++)
            if (allowed[i * S + j]) top = fmax(top, scores->value[i * S + j]);
        shift->value[i] = isfinite(top) ? -ceil(top / ln2) * ln2 : 0.0;
    }
    attn_node *e = attn_exp(tape, attn_plus(tape, attn_masked(tape, scores, allowed), shift));
    attn_node *p = attn_masked(tape, e, allowed);
    attn_node *u = attn_matmul(tape, attn_rounded_factor(tape, p), attn_rounded_factor(tape, v));
    attn_node *l = attn_row_sums(tape, p);
    for (size_t i = 0; i < share->rows && !attn_tape_failed(tape); i++) {
        if (l->value[i] != 0.0) share->value[i] = 1.0 / l->value[i];
        for (size_t j = 0; j < v->columns; j++)
            o->value[i * v->columns + j] = u->value[i * v->columns + j] * share->value[i];
    }
    attn_node *rest = attn_plus(tape, u, attn_scaled(tape, attn_times(tape, o, l), -1.0));
    attn_node *quotient = attn_times(tape, attn_rounded_gradient(tape, rest), share);
    return attn_rounded_gradient(tape, attn_plus(tape, quotient, o));
}

attn_node *attn_oracle_attend(attn_tape *tape, const attn_mask *mask, size_t head,
                              attn_node *scores, attn_node *v, const uint32_t *document_start)
{
    bool *allowed = seen_pairs(mask, head, scores->rows, scores->columns, document_start);
    if (!allowed) return attn_tape_fail(tape);
    attn_node *o = attn_tape_rounds(tape)
                       ? attend_rounded(tape, allowed, scores, v)
                       : attn_matmul(tape, attn_softmax(tape, scores, allowed), v);
    attn_free(allowed);
    return o;
}

void attn_all_cache_fill(const attn_core_call *call)
{
    const attn_visibility rule = attn_rule_all(call->layer);
    attn_kv_cache_fill(call, &rule);
}

size_t attn_all_cache(const attn_layer *layer, size_t batch, size_t capacity)
{
    const attn_visibility rule = attn_rule_all(layer);
    return attn_kv_cache_count(layer, &rule, batch, capacity);
}

void attn_all_decode(const attn_core_call *call)
{
    const attn_visibility rule = attn_rule_all(call->layer);
    attn_kv_cache_decode(call, &rule);
}

attn_node *attn_all_oracle_single(attn_tape *tape, const attn_layer *layer, size_t head,
                                  attn_node *q, attn_node *k, attn_node *v,
                                  attn_node *const *parameters, const uint32_t *document_start)
{
    (void)parameters;
    const attn_visibility rule = attn_rule_all(layer);
    const attn_mask mask = attn_visibility_mask(&rule);
    attn_node *scores = scaled_products(tape, q, k);
    bool *allowed = seen_pairs(&mask, head, scores->rows, scores->columns, document_start);
    if (!allowed) return attn_tape_fail(tape);
    attn_node *p = attn_softmax(tape, scores, allowed);
    attn_free(allowed);
    return attn_matmul(tape, p, v);
}

attn_node *attn_all_oracle(attn_tape *tape, const attn_layer *layer, size_t head, attn_node *q,
                           attn_node *k, attn_node *v, attn_node *const *parameters,
                           const uint32_t *document_start)
{
    (void)parameters;
    const attn_visibility rule = attn_rule_all(layer);
    const attn_mask mask = attn_visibility_mask(&rule);
    return attn_oracle_attend(tape, &mask, head, attn_oracle_scores(tape, q, k), v, document_start);
}

attn_mask attn_all_mask(const attn_layer *layer, attn_visibility *room)
{
    *room = attn_rule_all(layer);
    return attn_visibility_mask(room);
}

/* ---- flash ------------------------------------------------------------------------------- */

static void flash_forward(const attn_core_call *call)
{
    const attn_visibility rule = attn_rule_all(call->layer);
    const attn_tile_rule tiles = attn_rule_tiles(&rule, ATTN_TILE_ONLINE);
    attn_exact_forward(call, &tiles);
    if (call->cache) attn_kv_cache_fill(call, &rule);
}

static void flash_backward(const attn_core_call *call)
{
    const attn_visibility rule = attn_rule_all(call->layer);
    const attn_tile_rule tiles = attn_rule_tiles(&rule, ATTN_TILE_ONLINE);
    attn_exact_backward(call, &tiles);
}

static attn_work flash_work(const attn_layer *layer, attn_phase phase, size_t batch, size_t length,
                            const uint32_t *document_start)
{
    const attn_visibility rule = attn_rule_all(layer);
    if (phase == ATTN_PHASE_DECODE) return attn_kv_cache_work(layer, &rule, batch, length);
    const attn_tile_rule tiles = attn_rule_tiles(&rule, ATTN_TILE_ONLINE);
    return attn_exact_work(layer, &tiles, phase, batch, length, document_start);
}

const attn_core attn_core_flash = {
    .saved = attn_exact_saved,
    .scratch = attn_exact_scratch,
    .cache = attn_all_cache,
    .forward = flash_forward,
    .backward = flash_backward,
    .decode = attn_all_decode,
    .oracle = attn_all_oracle,
    .walk = ATTN_WALK_ONLINE,
    .mask = attn_all_mask,
    .work = flash_work,
};
