/* The building blocks of section "closed forms" of docs/costs.md. N rows, e bytes an element:
 *
 *     linear a -> b   2 N a b; backward 4 N a b; biases N b each way; e (N a + a b + N b) bytes
 *     LayerNorm       7 N d + 2 N and N square roots; backward 11 N d
 *     RMSNorm         4 N d + 2 N and N; backward 8 N d
 *     activation      per element, from a table
 *     residual        N d each way; rotation 3 N (heads) d_r each way */
#include "cost/parts.h"

#include "base/error.h"

#include <math.h>
#include <stdio.h>

attn_cost_part *attn_part_add(attn_cost_builder *b, const char *name, attn_cost_class class,
                              uint64_t times)
{
    attn_cost_estimate *out = b->out;
    if (out->n_parts == ATTN_COST_PARTS_MAX) {
        if (b->status == ATTN_OK)
            b->status = attn_fail(b->error, ATTN_EINTERNAL, "a model of too many parts");
        return &out->parts[ATTN_COST_PARTS_MAX];
    }
    attn_cost_part *part = &out->parts[out->n_parts++];
    *part = (attn_cost_part){.class = class,
                             .mechanism = SIZE_MAX,
                             .times = times,
                             .is_in_layer = b->is_in_layer,
                             .kernels = {1, 1}};
    snprintf(part->name, sizeof part->name, "%s%s", b->prefix, name);
    return part;
}

/* Useful and dense work are the executed one where nothing is masked. */
static void same_by_convention(attn_cost_part *part)
{
    for (size_t pass = 0; pass < ATTN_COST_PASSES; pass++)
        part->useful[pass] = part->dense[pass] = part->work[pass].matmul;
}

void attn_part_linear(attn_cost_builder *b, const char *name, attn_cost_class class, uint64_t times,
                      uint64_t rows, uint64_t in, uint64_t out, bool has_bias, uint64_t kept,
                      const char *letters)
{
    attn_whole *w = &b->whole;
    attn_cost_part *part = attn_part_add(b, name, class, times);
    const uint64_t product = ATTN_PRODUCT(w, 2, rows, in, out);
    const uint64_t bias = has_bias ? attn_whole_times(w, rows, out) : 0;
    part->work[ATTN_COST_FORWARD] = (attn_work){.matmul = product, .other = bias};
    part->work[ATTN_COST_BACKWARD] =
        (attn_work){.matmul = attn_whole_times(w, 2, product), .other = bias};
    part->parameters = in * out + (has_bias ? out : 0);
    const uint64_t elements = attn_whole_times(w, rows, in + out) + in * out;
    part->bytes[ATTN_COST_FORWARD] = attn_whole_times(w, elements, b->element_bytes);
    part->bytes[ATTN_COST_BACKWARD] = attn_whole_times(w, 2, part->bytes[ATTN_COST_FORWARD]);
    part->kept_bytes = ATTN_PRODUCT(w, kept, rows, b->element_bytes);
    part->kernels[ATTN_COST_BACKWARD] = 2;
    same_by_convention(part);
    snprintf(part->formula, sizeof part->formula, "2 N %s = 2 x %llu x %llu x %llu", letters,
             (unsigned long long)rows, (unsigned long long)in, (unsigned long long)out);
}

/* Element-wise: operations an element and pass; bytes in elements moved. */
typedef struct small_form {
    uint64_t exponential[ATTN_COST_PASSES], other[ATTN_COST_PASSES], moved[ATTN_COST_PASSES];
} small_form;

static attn_cost_part *small_part(attn_cost_builder *b, const char *name, attn_cost_class class,
                                  uint64_t times, uint64_t elements, const small_form *form)
{
    attn_cost_part *part = attn_part_add(b, name, class, times);
    for (size_t pass = 0; pass < ATTN_COST_PASSES; pass++) {
        part->work[pass] = (attn_work){
            .exponential = attn_whole_times(&b->whole, elements, form->exponential[pass]),
            .other = attn_whole_times(&b->whole, elements, form->other[pass])};
        part->bytes[pass] = ATTN_PRODUCT(&b->whole, elements, form->moved[pass], b->element_bytes);
    }
    return part;
}

void attn_part_norm(attn_cost_builder *b, const char *name, uint64_t times, uint64_t rows,
                    uint64_t width, attn_spec_norm norm, bool keeps)
{
    static const small_form forms[] = {{.other = {7, 11}, .moved = {2, 3}},
                                       {.other = {4, 8}, .moved = {2, 3}}};
    const uint64_t elements = attn_whole_times(&b->whole, rows, width);
    attn_cost_part *part = small_part(b, name, ATTN_COST_SMALL, times, elements, &forms[norm]);
    part->work[ATTN_COST_FORWARD].other += 2 * rows;
    part->work[ATTN_COST_FORWARD].exponential += rows;
    const bool is_layer_norm = norm == ATTN_SPEC_LAYER_NORM;
    part->parameters = width * (is_layer_norm ? 2 : 1);
    /* its input, and statistics in float32 */
    if (keeps)
        part->kept_bytes = attn_whole_times(&b->whole, elements, b->element_bytes) +
                           rows * (is_layer_norm ? 2 : 1) * 4;
}

void attn_part_residual(attn_cost_builder *b, uint64_t times)
{
    static const small_form form = {.other = {1, 1}, .moved = {3, 3}};
    small_part(b, "residuals", ATTN_COST_SMALL, times,
               attn_whole_times(&b->whole, b->rows, b->spec->width), &form);
}

void attn_part_rope(attn_cost_builder *b, uint64_t times, uint64_t heads, uint64_t width)
{
    static const small_form form = {.other = {3, 3}, .moved = {2, 2}};
    small_part(b, "rotation", ATTN_COST_SMALL, times,
               ATTN_PRODUCT(&b->whole, b->rows, heads, width), &form);
}

/* ---- feed-forward --------------------------------------------------------------------------- */

static bool is_gated(const attn_spec *spec)
{
    return spec->activation == ATTN_SPEC_SWIGLU || spec->activation == ATTN_SPEC_GEGLU_TANH;
}

static void activation(attn_cost_builder *b, const char *name, uint64_t times, uint64_t rows,
                       uint64_t ffn)
{
    static const small_form forms[] = {[ATTN_SPEC_GELU_TANH] = {{1, 1}, {8, 16}, {2, 3}},
                                       [ATTN_SPEC_GELU_ERF] = {{1, 2}, {4, 9}, {2, 3}},
                                       [ATTN_SPEC_GELU_QUICK] = {{1, 1}, {4, 7}, {2, 3}},
                                       [ATTN_SPEC_SWIGLU] = {{1, 1}, {5, 11}, {3, 5}},
                                       [ATTN_SPEC_GEGLU_TANH] = {{1, 1}, {9, 18}, {3, 5}}};
    attn_cost_part *part =
        small_part(b, name, ATTN_COST_FEED_FORWARD, times, attn_whole_times(&b->whole, rows, ffn),
                   &forms[b->spec->activation]);
    /* its inputs; what it makes is kept by the product behind it */
    part->kept_bytes =
        ATTN_PRODUCT(&b->whole, rows, is_gated(b->spec) ? 2 * ffn : ffn, b->element_bytes);
}

void attn_part_feed_forward(attn_cost_builder *b, const char *name, uint64_t times, uint64_t rows,
                            uint64_t ffn)
{
    const attn_spec *s = b->spec;
    char text[32];
    snprintf(text, sizeof text, "%sup", name);
    attn_part_linear(b, text, ATTN_COST_FEED_FORWARD, times, rows, s->width,
                     (is_gated(s) ? 2 : 1) * ffn, s->has_biases, s->width,
                     is_gated(s) ? "d 2F" : "d F");
    snprintf(text, sizeof text, "%sactivation", name);
    activation(b, text, times, rows, ffn);
    snprintf(text, sizeof text, "%sdown", name);
    attn_part_linear(b, text, ATTN_COST_FEED_FORWARD, times, rows, ffn, s->width, s->has_biases,
                     ffn, "F d");
}

/* Bytes of weights: those of experts that some row chose, were choices uniform. */
static uint64_t experts_touched(const attn_spec *s, uint64_t rows)
{
    const double E = (double)s->experts, k = (double)s->experts_active;
    return (uint64_t)ceil(E * (1.0 - pow(1.0 - k / E, (double)rows))) + s->experts_shared;
}

void attn_part_experts(attn_cost_builder *b, uint64_t times)
{
    const attn_spec *s = b->spec;
    attn_whole *w = &b->whole;
    attn_part_linear(b, "router", ATTN_COST_FEED_FORWARD, times, b->rows, s->width, s->experts,
                     false, 0, "d E");
    attn_cost_part *router = &b->out->parts[b->out->n_parts - 1];
    if (s->has_router_bias) router->parameters += s->experts;
    /* softmax over the experts, and choosing k of them */
    const uint64_t scores = attn_whole_times(w, b->rows, s->experts);
    router->work[ATTN_COST_FORWARD].exponential += scores;
    router->work[ATTN_COST_FORWARD].other += attn_whole_times(w, scores, 4 + s->experts_active);
    router->work[ATTN_COST_BACKWARD].other += attn_whole_times(w, scores, 4);

    const uint64_t each = s->experts_active + s->experts_shared;
    const uint64_t rows = attn_whole_times(w, b->rows, each);
    const size_t first = b->out->n_parts;
    attn_part_feed_forward(b, "experts ", times, rows, s->expert_ffn);
    const uint64_t touched = experts_touched(s, b->rows), held = s->experts + s->experts_shared;
    for (size_t i = first; i < b->out->n_parts; i++) {
        attn_cost_part *part = &b->out->parts[i];
        const uint64_t weights = attn_whole_times(w, part->parameters, b->element_bytes);
        part->bytes[ATTN_COST_FORWARD] += attn_whole_times(w, weights, touched - 1);
        part->bytes[ATTN_COST_BACKWARD] += attn_whole_times(w, 2 * weights, touched - 1);
        part->parameters = attn_whole_times(w, part->parameters, held);
    }
}
