/* An estimate: parts of the model, then their sums. */
#include "cost/estimate.h"

#include "base/error.h"
#include "cost/parts.h"

#include <stdio.h>

const char *attn_cost_class_name(attn_cost_class class)
{
    static const char *const names[] = {"attention core", "projections", "feed-forward", "norms",
                                        "ends",           "head",        "update"};
    return names[class];
}

const attn_pattern attn_cost_flash = {
    .label = "flash", .kinds = {{.label = "flash", .name = "flash"}}, .n_kinds = 1, .n_blocks = 1};

/* ---- composed models ------------------------------------------------------------------------ */

/* The image tower, two products that bring its patches to the width of words, and the language
 * model over patches and text. */
static void vision_language(attn_cost_builder *b, const attn_spec *vision,
                            const attn_spec *language)
{
    attn_cost_request *r = &b->out->request;
    const size_t image = r->image ? r->image : vision->image;
    const size_t side = image / vision->patch, patches = side * side;
    const attn_pattern *chosen = b->pattern;
    b->pattern = &attn_cost_flash;
    b->spec = vision;
    b->prefix = "vision: ";
    attn_parts_vision(b, image, false);
    b->pattern = chosen;
    const uint64_t rows = attn_whole_times(&b->whole, b->batch, patches);
    b->prefix = "projector: ";
    attn_part_linear(b, "up", ATTN_COST_ENDS, 1, rows, vision->width, language->width, true,
                     vision->width, "d_image d");
    attn_cost_part *gelu = attn_part_add(b, "activation", ATTN_COST_ENDS, 1);
    const uint64_t elements = attn_whole_times(&b->whole, rows, language->width);
    gelu->work[ATTN_COST_FORWARD] = (attn_work){.exponential = elements, .other = 4 * elements};
    gelu->work[ATTN_COST_BACKWARD] =
        (attn_work){.exponential = 2 * elements, .other = 9 * elements};
    attn_part_linear(b, "down", ATTN_COST_ENDS, 1, rows, language->width, language->width, true,
                     language->width, "d d");
    b->spec = language;
    b->prefix = "language: ";
    r->keys = r->queries = patches + r->text;
    b->rows = attn_whole_times(&b->whole, b->batch, r->keys);
    attn_parts_text(b, r->keys, r->keys);
}

static attn_status add_vision_language(attn_cost_builder *b)
{
    const attn_cost_request *r = &b->out->request;
    const attn_records *models = &r->catalog->models;
    const attn_spec *vision = attn_records_find(models, b->spec->vision, b->error);
    const attn_spec *language = attn_records_find(models, b->spec->language, b->error);
    if (!vision || !language) return ATTN_ENOTFOUND;
    if (vision->kind != ATTN_SPEC_VISION || language->kind != ATTN_SPEC_DECODER)
        return attn_fail(b->error, ATTN_EARGUMENT, "%s: '%s' is no image tower or '%s' no decoder",
                         b->spec->record.name, b->spec->vision, b->spec->language);
    if (!r->text)
        return attn_fail(b->error, ATTN_EARGUMENT, "%s reads an image and a text: give --text N",
                         b->spec->record.name);
    vision_language(b, vision, language);
    return b->status;
}

/* ---- sums ----------------------------------------------------------------------------------- */

static void sum_work(attn_cost_builder *b)
{
    attn_cost_estimate *out = b->out;
    attn_whole *w = &b->whole;
    const attn_cost_recompute recompute = out->request.recompute;
    for (size_t i = 0; i < out->n_parts; i++) {
        attn_cost_part *p = &out->parts[i];
        const uint64_t n = p->times;
        attn_whole_work_add(w, &out->forward,
                            attn_whole_work_times(w, p->work[ATTN_COST_FORWARD], n));
        uint64_t useful = p->useful[ATTN_COST_FORWARD], dense = p->dense[ATTN_COST_FORWARD];
        if (b->is_training) {
            attn_whole_work_add(w, &out->backward,
                                attn_whole_work_times(w, p->work[ATTN_COST_BACKWARD], n));
            useful = attn_whole_plus(w, useful, p->useful[ATTN_COST_BACKWARD]);
            dense = attn_whole_plus(w, dense, p->dense[ATTN_COST_BACKWARD]);
        }
        out->useful = attn_whole_plus(w, out->useful, attn_whole_times(w, useful, n));
        out->dense = attn_whole_plus(w, out->dense, attn_whole_times(w, dense, n));
        out->parameters =
            attn_whole_plus(w, out->parameters, attn_whole_times(w, p->parameters, n));
        const bool again = recompute == ATTN_RECOMPUTE_FULL
                               ? p->is_in_layer
                               : recompute == ATTN_RECOMPUTE_CORE && p->class == ATTN_COST_CORE;
        if (b->is_training && again)
            attn_whole_work_add(w, &out->again,
                                attn_whole_work_times(w, p->work[ATTN_COST_FORWARD], n));
    }
}

static void add_update(attn_cost_builder *b)
{
    attn_cost_estimate *out = b->out;
    attn_cost_part *part = attn_part_add(b, "AdamW", ATTN_COST_UPDATE, 1);
    part->work[ATTN_COST_FORWARD] = (attn_work){
        .exponential = out->parameters, .other = attn_whole_times(&b->whole, 15, out->parameters)};
    part->bytes[ATTN_COST_FORWARD] = attn_whole_times(&b->whole, 28, out->parameters);
    part->kernels[ATTN_COST_BACKWARD] = 0;
    out->update = part->work[ATTN_COST_FORWARD];
}

/* Kept for the backward pass. Recomputed layers keep their input, and one of them lives. */
static uint64_t activations(attn_cost_builder *b)
{
    const attn_cost_estimate *out = b->out;
    attn_whole *w = &b->whole;
    const attn_cost_recompute recompute = out->request.recompute;
    uint64_t sum = 0, inputs = 0;
    for (size_t i = 0; i < out->n_parts; i++) {
        const attn_cost_part *p = &out->parts[i];
        const bool is_again = recompute == ATTN_RECOMPUTE_FULL && p->is_in_layer;
        const bool is_core = recompute == ATTN_RECOMPUTE_CORE && p->class == ATTN_COST_CORE;
        const size_t layers = b->spec->layers;
        const uint64_t live = is_again ? (p->times + layers - 1) / layers : p->times;
        if (!is_core) sum = attn_whole_plus(w, sum, attn_whole_times(w, p->kept_bytes, live));
    }
    if (recompute == ATTN_RECOMPUTE_FULL)
        inputs = ATTN_PRODUCT(w, b->rows, b->spec->width, b->spec->layers, b->element_bytes);
    return attn_whole_plus(w, sum, inputs);
}

/* What a forward pass holds at once: a layer's input, what it makes, and its widest product. */
static uint64_t live_activations(attn_cost_builder *b)
{
    const attn_spec *s = b->spec;
    const uint64_t ffn =
        s->experts > 0 && s->expert_ffn > 0 ? s->expert_ffn * s->experts_active : s->ffn;
    return ATTN_PRODUCT(&b->whole, b->rows, 4 * s->width + 2 * ffn, b->element_bytes);
}

static void sum_memory(attn_cost_builder *b)
{
    attn_cost_estimate *out = b->out;
    attn_whole *w = &b->whole;
    attn_cost_memory *m = &out->memory;
    const uint64_t e = b->element_bytes;
    m->parameters = attn_whole_times(w, out->parameters, e);
    if (b->is_training) {
        m->gradients = m->parameters;
        /* two moments in float32; master weights too where the weights are narrower */
        m->optimizer = attn_whole_times(w, out->parameters, e < 4 ? 12 : 8);
        m->activations = activations(b);
    } else {
        m->activations = live_activations(b);
        m->cache = out->cache_bytes;
    }
    const uint64_t parts[] = {m->parameters,  m->gradients, m->optimizer,
                              m->activations, m->logits,    m->cache};
    m->total = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        m->total = attn_whole_plus(w, m->total, parts[i]);
}

/* ---- the whole ------------------------------------------------------------------------------ */

static attn_status check_request(attn_cost_request *r, attn_error *error)
{
    const attn_spec *s = r->spec;
    const bool is_decoder = s->kind == ATTN_SPEC_DECODER;
    const bool is_text = is_decoder || s->kind == ATTN_SPEC_ENCODER;
    if (!r->batch) return attn_fail(error, ATTN_ESHAPE, "--batch must be at least 1");
    if (!r->documents) r->documents = 1;
    if (r->phase == ATTN_COST_DECODE && !is_decoder)
        return attn_fail(error, ATTN_EUNSUPPORTED, "%s does not decode: use --phase prefill",
                         s->record.name);
    if (s->kind == ATTN_SPEC_VISION_LANGUAGE && r->phase != ATTN_COST_PREFILL)
        return attn_fail(error, ATTN_EUNSUPPORTED,
                         "%s is counted for --phase prefill: count its language model apart",
                         s->record.name);
    if (!is_text) r->keys = r->queries = 0;
    if (is_text && !r->keys) return attn_fail(error, ATTN_ESHAPE, "--seq must be at least 1");
    if (!r->queries) r->queries = r->phase == ATTN_COST_DECODE ? 1 : r->keys;
    if (r->queries > r->keys)
        return attn_fail(error, ATTN_ESHAPE,
                         "--queries %zu is above --seq %zu: new tokens are the last of the "
                         "sequence",
                         r->queries, r->keys);
    if (r->phase == ATTN_COST_TRAIN && r->queries != r->keys)
        return attn_fail(error, ATTN_ESHAPE, "training sees whole sequences: leave out --queries");
    if (r->image && s->kind != ATTN_SPEC_VISION && s->kind != ATTN_SPEC_VISION_LANGUAGE)
        return attn_fail(error, ATTN_EARGUMENT, "%s sees no image: leave out --image",
                         s->record.name);
    if (r->text && s->kind != ATTN_SPEC_VISION_LANGUAGE)
        return attn_fail(error, ATTN_EARGUMENT, "%s takes --seq, not --text", s->record.name);
    return ATTN_OK;
}

attn_status attn_cost_estimate_make(const attn_cost_request *request, attn_cost_estimate *out,
                                    attn_error *error)
{
    *out = (attn_cost_estimate){.request = *request, .has_useful = true};
    attn_cost_request *r = &out->request;
    attn_status status = check_request(r, error);
    if (status != ATTN_OK) return status;
    attn_cost_builder b = {.out = out,
                           .spec = r->spec,
                           .pattern = &r->pattern,
                           .error = error,
                           .prefix = "",
                           .batch = r->batch,
                           .element_bytes = attn_cost_type_bytes(r->type),
                           .is_training = r->phase == ATTN_COST_TRAIN};
    b.rows = attn_whole_times(&b.whole, r->batch, r->queries);
    switch ((attn_spec_kind)r->spec->kind) {
    case ATTN_SPEC_DECODER:
    case ATTN_SPEC_ENCODER:
        attn_parts_text(&b, r->queries, r->keys);
        break;
    case ATTN_SPEC_VISION:
        attn_parts_vision(&b, r->image ? r->image : r->spec->image, true);
        break;
    case ATTN_SPEC_QFORMER:
        attn_parts_qformer(&b);
        break;
    case ATTN_SPEC_VISION_LANGUAGE:
        b.status = add_vision_language(&b);
        break;
    }
    if (b.status != ATTN_OK) return b.status;
    sum_work(&b);
    if (b.is_training) add_update(&b);
    sum_memory(&b);
    out->rows = b.rows;
    if (b.whole.has_overflowed || b.status != ATTN_OK)
        return b.status != ATTN_OK
                   ? b.status
                   : attn_fail(error, ATTN_ESHAPE,
                               "%s: batch %zu with %zu tokens is more than 64-bit counts hold: "
                               "take smaller sizes",
                               r->spec->record.name, r->batch, r->keys);
    return ATTN_OK;
}

attn_work attn_cost_total(const attn_cost_estimate *e)
{
    attn_whole w = {0};
    attn_work sum = e->forward;
    attn_whole_work_add(&w, &sum, e->backward);
    attn_whole_work_add(&w, &sum, e->again);
    attn_whole_work_add(&w, &sum, e->update);
    return sum;
}
