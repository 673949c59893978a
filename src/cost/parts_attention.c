/* Attention as parts: projections of the model around a core, or a mechanism's whole layer. */
#include "cost/parts.h"

#include <stdio.h>
#include <string.h>

static attn_cost_call call_of(const attn_cost_builder *b, size_t queries, size_t keys)
{
    const attn_cost_request *r = &b->out->request;
    return (attn_cost_call){.is_decoding = r->phase == ATTN_COST_DECODE && queries == 1,
                            .batch = b->batch,
                            .queries = queries,
                            .keys = keys,
                            .documents = r->documents,
                            .tile = r->tile};
}

static bool is_causal(const attn_spec *s)
{
    return s->kind == ATTN_SPEC_DECODER;
}

/* q, k, v and o once, and 4 bytes a query and head; backward all of them and their gradients. */
static void count_bytes(attn_cost_builder *b, attn_cost_part *part, const attn_cost_core *core,
                        const attn_cost_heads *h, uint64_t queries, uint64_t keys)
{
    attn_whole *w = &b->whole;
    const uint64_t B = b->batch, width = h->key_width + h->value_width;
    const uint64_t rows = ATTN_PRODUCT(w, B, h->heads, queries);
    const uint64_t q_and_o = attn_whole_times(w, rows, width);
    const uint64_t k_and_v = ATTN_PRODUCT(w, B, core->kv_heads, keys, width);
    const uint64_t once = attn_whole_times(w, q_and_o + k_and_v, b->element_bytes);
    part->bytes[ATTN_COST_FORWARD] = once + 4 * rows;
    part->bytes[ATTN_COST_BACKWARD] = 2 * once + 12 * rows;
}

/* The place of a mechanism in the registry. */
static size_t place_of(const char *name)
{
    size_t i = 0;
    while (strcmp(attn_mechanisms[i].name, name) != 0) i++;
    return i;
}

/* Takes the products that a mechanism's own projections do out of its layer, as parts of their own:
 * what remains is the core. */
static void part_projections(attn_cost_builder *b, attn_cost_part *core_part, uint64_t times,
                             const attn_cost_core *core)
{
    for (size_t i = 0; i < core->n_projections; i++) {
        const attn_cost_dense *p = &core->projections[i];
        char name[64]; /* a part keeps what fits it */
        snprintf(name, sizeof name, "projection %zu%s%.20s", i + 1,
                 b->pattern->n_kinds > 1 ? ", " : "",
                 b->pattern->n_kinds > 1 ? b->mechanism->label : "");
        attn_part_linear(b, name, ATTN_COST_PROJECTION, times, b->rows, p->in, p->out, p->has_bias,
                         0, "in out");
        const attn_cost_part *linear = &b->out->parts[b->out->n_parts - 1];
        for (size_t pass = 0; pass < ATTN_COST_PASSES; pass++) {
            core_part->work[pass].matmul -= linear->work[pass].matmul;
            core_part->work[pass].other -= linear->work[pass].other;
            core_part->useful[pass] -= linear->useful[pass];
            core_part->dense[pass] -= linear->dense[pass];
        }
        core_part->parameters -= linear->parameters;
    }
}

void attn_part_core(attn_cost_builder *b, const char *name, uint64_t times,
                    const attn_cost_core *core, const attn_cost_heads *heads, size_t queries,
                    size_t keys)
{
    attn_cost_part *part = attn_part_add(b, name, ATTN_COST_CORE, times);
    part->mechanism = b->mechanism ? place_of(b->mechanism->name) : SIZE_MAX;
    part->work[ATTN_COST_FORWARD] = core->forward;
    part->work[ATTN_COST_BACKWARD] = core->backward;
    part->useful[ATTN_COST_FORWARD] = core->useful_forward;
    part->useful[ATTN_COST_BACKWARD] = core->useful_backward;
    part->dense[ATTN_COST_FORWARD] = core->dense_forward;
    part->dense[ATTN_COST_BACKWARD] = core->dense_backward;
    part->parameters = core->parameters;
    part->kept_bytes = attn_whole_times(&b->whole, core->kept, b->element_bytes) +
                       attn_whole_times(&b->whole, core->kept_fp32, 4);
    b->out->has_useful &= core->has_visible;
    if (core->has_pairs) {
        const bool is_decoding = b->out->request.phase == ATTN_COST_DECODE;
        const uint64_t read = is_decoding ? core->executed / (b->batch * heads->heads) : keys;
        count_bytes(b, part, core, heads, queries, read);
        part->traffic =
            (attn_cost_traffic){.is_softmax = true,
                                .is_square = core->walk == ATTN_WALK_SQUARE,
                                .heads = *heads,
                                .batch = b->batch,
                                .queries = queries,
                                .keys = keys,
                                .executed_share = (double)core->executed / (double)core->square};
        part->traffic.heads.kv_heads = core->kv_heads;
        snprintf(part->formula, sizeof part->formula,
                 "2 E (dk + dv), E pairs executed = 2 x %llu x %zu; visible %llu of %llu",
                 (unsigned long long)core->executed, heads->key_width + heads->value_width,
                 (unsigned long long)core->pairs, (unsigned long long)core->square);
    } else {
        part_projections(b, part, times, core);
        /* what comes in, goes out, is kept and the weights, each once; backward twice */
        const uint64_t ends = ATTN_PRODUCT(&b->whole, 2, b->rows, b->spec->width);
        const uint64_t once =
            attn_whole_times(&b->whole, ends + part->parameters, b->element_bytes);
        const uint64_t kept = b->is_training ? part->kept_bytes : 0;
        part->bytes[ATTN_COST_FORWARD] = once + kept;
        part->bytes[ATTN_COST_BACKWARD] = 2 * once + kept;
        part->kernels[ATTN_COST_FORWARD] = 4;
        part->kernels[ATTN_COST_BACKWARD] = 8;
        snprintf(part->formula, sizeof part->formula, "the mechanism's own closed form%s",
                 core->n_projections ? ", less its projections" : ", with its projections");
    }
    /* states are sums: float32 whatever the type */
    const uint64_t held =
        attn_whole_times(&b->whole, core->cache, core->cache_is_state ? 4 : b->element_bytes);
    b->out->cache_bytes =
        attn_whole_plus(&b->whole, b->out->cache_bytes, attn_whole_times(&b->whole, held, times));
    if (b->out->request.phase == ATTN_COST_DECODE && !core->has_pairs)
        part->bytes[ATTN_COST_FORWARD] += core->cache_is_state ? 2 * held : held;
}

static bool counted(attn_cost_builder *b, const attn_cost_heads *heads, const attn_cost_call *call,
                    attn_cost_core *core)
{
    if (b->status == ATTN_OK)
        b->status = attn_cost_core_count(b->mechanism, heads, call, core, b->error);
    return b->status == ATTN_OK;
}

/* A soft cap of every score that is computed. */
static void score_cap(attn_cost_builder *b, uint64_t times, const attn_cost_core *core)
{
    attn_cost_part *part = attn_part_add(b, "score cap", ATTN_COST_CORE, times);
    part->work[ATTN_COST_FORWARD] = (attn_work){
        .exponential = core->executed, .other = attn_whole_times(&b->whole, 2, core->executed)};
    part->work[ATTN_COST_BACKWARD].other = attn_whole_times(&b->whole, 3, core->executed);
    part->kernels[ATTN_COST_FORWARD] = part->kernels[ATTN_COST_BACKWARD] = 0; /* within the core */
}

void attn_part_attention(attn_cost_builder *b, uint64_t times, size_t window, size_t queries,
                         size_t keys)
{
    const attn_spec *s = b->spec;
    const attn_cost_heads heads = {.width = s->width,
                                   .heads = s->heads,
                                   .kv_heads = s->kv_heads,
                                   .key_width = s->head_dim,
                                   .value_width = s->head_dim,
                                   .window = window,
                                   .is_causal = is_causal(s)};
    const attn_cost_call call = call_of(b, queries, keys);
    attn_cost_core core;
    if (!counted(b, &heads, &call, &core)) return;
    char name[40];
    if (b->pattern->n_kinds > 1)
        snprintf(name, sizeof name, "core, %.24s", b->mechanism->label);
    else if (window)
        snprintf(name, sizeof name, "core, window %zu", window);
    else
        snprintf(name, sizeof name, "core");
    if (!core.has_pairs) {
        attn_part_core(b, name, times, &core, &heads, queries, keys);
        return;
    }
    const uint64_t q = s->heads * s->head_dim, kv = 2 * core.kv_heads * s->head_dim;
    attn_part_linear(b, "q, k, v", ATTN_COST_PROJECTION, times, b->rows, s->width, q + kv,
                     s->has_biases || s->has_qkv_biases, s->width + q + kv,
                     "d (H dk + Hkv (dk + dv))");
    if (s->has_qk_norm)
        attn_part_norm(b, "norm of q and k", times,
                       attn_whole_times(&b->whole, b->rows, s->heads + core.kv_heads), s->head_dim,
                       ATTN_SPEC_RMS_NORM, true);
    if (s->has_qk_norm) b->out->parts[b->out->n_parts - 1].parameters *= 2;
    if (s->position == ATTN_SPEC_ROPE)
        attn_part_rope(b, times, s->heads + core.kv_heads, s->head_dim);
    attn_part_core(b, name, times, &core, &heads, queries, keys);
    if (s->score_cap > 0.0) score_cap(b, times, &core);
    attn_part_linear(b, "o", ATTN_COST_PROJECTION, times, b->rows, q, s->width, s->has_biases, q,
                     "H dv d");
}

/* ---- latent attention ----------------------------------------------------------------------- */

static void latent_queries(attn_cost_builder *b, uint64_t times)
{
    const attn_spec *s = b->spec;
    const uint64_t q = s->heads * s->head_dim;
    if (!s->rank_q) {
        attn_part_linear(b, "q", ATTN_COST_PROJECTION, times, b->rows, s->width, q, false,
                         s->width + q, "d H dk");
        return;
    }
    attn_part_linear(b, "q down", ATTN_COST_PROJECTION, times, b->rows, s->width, s->rank_q, false,
                     s->width, "d rq");
    attn_part_norm(b, "norm of q", times, b->rows, s->rank_q, ATTN_SPEC_RMS_NORM, true);
    attn_part_linear(b, "q up", ATTN_COST_PROJECTION, times, b->rows, s->rank_q, q, false,
                     s->rank_q + q, "rq H dk");
}

/* One token: the query meets the latents themselves, or the latents are projected up first. */
static void latent_decoding(attn_cost_builder *b, uint64_t times, size_t keys)
{
    const attn_spec *s = b->spec;
    attn_whole *w = &b->whole;
    const uint64_t H = s->heads, r = s->rank_kv, dn = s->key_dim_plain, dr = s->key_dim_rope;
    const uint64_t dv = s->value_dim, B = b->batch;
    /* How many keys the token sees does not depend on widths. */
    const attn_cost_heads plain = {s->width, H, H, s->head_dim, s->head_dim, 0, true};
    const attn_cost_call call = call_of(b, 1, keys);
    attn_cost_core core;
    if (!counted(b, &plain, &call, &core)) return;
    const uint64_t n = core.executed / (H * B);
    const bool is_absorbed = b->out->request.latent == ATTN_LATENT_ABSORBED;
    attn_cost_part *up =
        attn_part_add(b, is_absorbed ? "k, v up, absorbed" : "k, v up, of the whole cache",
                      ATTN_COST_PROJECTION, times);
    up->work[ATTN_COST_FORWARD].matmul = ATTN_PRODUCT(w, 2, B, is_absorbed ? 1 : n, H, r, dn + dv);
    up->useful[ATTN_COST_FORWARD] = up->dense[ATTN_COST_FORWARD] =
        up->work[ATTN_COST_FORWARD].matmul;
    up->parameters = r * H * (dn + dv);
    up->bytes[ATTN_COST_FORWARD] = attn_whole_times(w, up->parameters, b->element_bytes);
    snprintf(up->formula, sizeof up->formula,
             is_absorbed ? "2 H r (dn + dv) = 2 x %llu x %llu x %llu"
                         : "2 S r H (dn + dv), S = %llu, H r = %llu, dn + dv = %llu",
             (unsigned long long)(is_absorbed ? H : n),
             (unsigned long long)(is_absorbed ? r : H * r), (unsigned long long)(dn + dv));

    attn_cost_part *part = attn_part_add(b, "core", ATTN_COST_CORE, times);
    const uint64_t width = is_absorbed ? 2 * r + dr : dn + dr + dv;
    part->work[ATTN_COST_FORWARD] = (attn_work){.matmul = ATTN_PRODUCT(w, 2, B, n, H, width),
                                                .exponential = ATTN_PRODUCT(w, B, n, H),
                                                .other = ATTN_PRODUCT(w, 5, B, n, H)};
    part->useful[ATTN_COST_FORWARD] = part->work[ATTN_COST_FORWARD].matmul;
    part->dense[ATTN_COST_FORWARD] = ATTN_PRODUCT(w, 2, B, keys, H, width);
    const uint64_t cache = ATTN_PRODUCT(w, B, n, r + dr, b->element_bytes);
    part->bytes[ATTN_COST_FORWARD] = cache;
    snprintf(part->formula, sizeof part->formula, "2 S H (%s) = 2 x %llu x %llu x %llu",
             is_absorbed ? "2 r + dr" : "dn + dr + dv", (unsigned long long)n,
             (unsigned long long)H, (unsigned long long)width);
    b->out->cache_bytes =
        attn_whole_plus(w, b->out->cache_bytes, attn_whole_times(w, cache, times));
}

static void latent_core(attn_cost_builder *b, uint64_t times, const attn_cost_core *core,
                        const attn_cost_heads *heads, size_t queries, size_t keys)
{
    const attn_spec *s = b->spec;
    attn_part_linear(b, "k, v up", ATTN_COST_PROJECTION, times, b->rows, s->rank_kv,
                     s->heads * (s->key_dim_plain + s->value_dim), false,
                     s->rank_kv + s->heads * (s->head_dim + s->value_dim), "r H (dn + dv)");
    attn_cost_core latent = *core;
    latent.cache = ATTN_PRODUCT(&b->whole, b->batch, keys, s->rank_kv + s->key_dim_rope);
    attn_part_core(b, "core", times, &latent, heads, queries, keys);
}

void attn_part_latent(attn_cost_builder *b, uint64_t times, size_t queries, size_t keys)
{
    const attn_spec *s = b->spec;
    const bool is_decoding = b->out->request.phase == ATTN_COST_DECODE && queries == 1;
    const attn_mechanism *mechanism = attn_mechanism_find(b->mechanism->name);
    if (!mechanism || !mechanism->core || mechanism->core->walk == ATTN_WALK_NONE) {
        attn_part_attention(b, times, 0, queries, keys); /* replaces the latents too */
        return;
    }
    const attn_cost_heads heads = {.width = s->width,
                                   .heads = s->heads,
                                   .kv_heads = s->heads,
                                   .key_width = s->head_dim,
                                   .value_width = s->value_dim,
                                   .is_causal = true};
    const attn_cost_call call = call_of(b, queries, keys);
    attn_cost_core core = {0};
    if (!is_decoding && !counted(b, &heads, &call, &core)) return;
    latent_queries(b, times);
    attn_part_linear(b, "k, v down", ATTN_COST_PROJECTION, times, b->rows, s->width,
                     s->rank_kv + s->key_dim_rope, false, s->rank_q ? 0 : s->width, "d (r + dr)");
    attn_part_norm(b, "norm of the latent", times, b->rows, s->rank_kv, ATTN_SPEC_RMS_NORM, true);
    attn_part_rope(b, times, s->heads + 1, s->key_dim_rope);
    if (is_decoding)
        latent_decoding(b, times, keys);
    else
        latent_core(b, times, &core, &heads, queries, keys);
    attn_part_linear(b, "o", ATTN_COST_PROJECTION, times, b->rows, s->heads * s->value_dim,
                     s->width, false, s->heads * s->value_dim, "H dv d");
}
