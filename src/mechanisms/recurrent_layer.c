/* The layer around a recurrence. See recurrent_layer.h. */
#include "mechanisms/recurrent_layer.h"

#include "mechanisms/head_rows.h"
#include "mechanisms/projection.h"
#include "mechanisms/recurrent_walk.h"
#include "mechanisms/tile_engine.h"

#include <math.h>
#include <string.h>

static const attn_recurrence *recurrence_of(const attn_layer *layer)
{
    return layer->mechanism->recurrence;
}

static attn_recurrent_shape shape_of(const attn_layer *layer)
{
    const attn_recurrence *r = recurrence_of(layer);
    attn_recurrent_shape s = {.key_dim = r->key_dim(layer), .value_dim = layer->head_dim};
    s.k = layer->heads * s.key_dim;
    s.v = 2 * s.k;
    s.gate = s.v + layer->d_model;
    s.more = s.gate + (r->has_gate ? layer->d_model : 0);
    s.row = s.more + (r->more ? r->more(layer) : 0);
    return s;
}

static void declare(attn_layer *layer)
{
    const attn_recurrence *r = recurrence_of(layer);
    const size_t width = layer->d_model, keys = layer->heads * r->key_dim(layer);
    attn_layer_declare(layer, "wq.weight", keys, width, ATTN_INITIAL_WEIGHT);
    attn_layer_declare(layer, "wk.weight", keys, width, ATTN_INITIAL_WEIGHT);
    attn_layer_declare(layer, "wv.weight", width, width, ATTN_INITIAL_WEIGHT);
    if (r->has_gate) attn_layer_declare(layer, "wg.weight", width, width, ATTN_INITIAL_WEIGHT);
    if (r->declare_more) r->declare_more(layer);
    attn_layer_declare(layer, "wo.weight", width, width, ATTN_INITIAL_RESIDUAL);
    if (r->has_norm_weight)
        attn_layer_declare(layer, "norm.weight", layer->head_dim, 0, ATTN_INITIAL_ONE);
    attn_layer_declare_projection(layer, "wq.weight", NULL, width, shape_of(layer).row);
    attn_layer_declare_projection(layer, "wo.weight", NULL, width, width);
    if (r->declare_own) r->declare_own(layer);
}

/* ---- memory ------------------------------------------------------------------------------ */

static size_t own_count(size_t (*count)(const attn_layer *, size_t, size_t),
                        const attn_layer *layer, size_t batch, size_t length)
{
    return count ? attn_rounded(count(layer, batch, length)) : 0;
}

/* Kept: rows, o, and the recurrence's own. */
static size_t saved_count(const attn_layer *layer, size_t batch, size_t length)
{
    const size_t rows = batch * length;
    return attn_rounded(rows * shape_of(layer).row) + attn_rounded(rows * layer->d_model) +
           own_count(recurrence_of(layer)->saved, layer, batch, length);
}

static attn_recurrent_places divide(const attn_layer *layer, size_t batch, size_t length,
                                    float *scratch)
{
    const size_t rows = batch * length;
    attn_recurrent_places p;
    p.rows = attn_cut(&scratch, attn_rounded(rows * shape_of(layer).row));
    p.gated = attn_cut(&scratch, attn_rounded(rows * layer->d_model));
    p.d_gated = attn_cut(&scratch, attn_rounded(rows * layer->d_model));
    p.d_norm = attn_cut(&scratch, attn_rounded(batch * layer->d_model));
    p.shared = attn_cut(&scratch, own_count(recurrence_of(layer)->shared, layer, batch, length));
    p.workers = scratch;
    return p;
}

static size_t scratch_count(const attn_layer *layer, size_t threads, size_t batch, size_t length)
{
    const size_t rows = batch * length;
    return attn_rounded(rows * shape_of(layer).row) + 2 * attn_rounded(rows * layer->d_model) +
           attn_rounded(batch * layer->d_model) +
           own_count(recurrence_of(layer)->shared, layer, batch, length) +
           threads * attn_recurrent_worker(layer, length,
                                           attn_heads_together(layer->heads, batch, threads));
}

static size_t cache_count(const attn_layer *layer, size_t batch, size_t capacity)
{
    (void)capacity; /* the state does not grow */
    return batch * layer->d_model * recurrence_of(layer)->key_dim(layer);
}

/* ---- calls ------------------------------------------------------------------------------- */

static void start(attn_recurrent_job *j, attn_context *context, const attn_layer *layer,
                  const attn_call *call)
{
    const size_t rows = call->batch * call->length;
    j->run = (attn_recurrent_run){.context = context,
                                  .kernels = attn_core_kernels(context, layer),
                                  .layer = layer,
                                  .call = call,
                                  .shape = shape_of(layer)};
    j->place = divide(layer, call->batch, call->length, call->scratch);
    j->run.shared = j->place.shared;
    j->run.rows = call->saved ? call->saved : j->place.rows;
    if (call->saved) {
        j->o = call->saved + attn_rounded(rows * j->run.shape.row);
        j->run.saved = j->o + attn_rounded(rows * layer->d_model);
    }
    j->together = attn_heads_together(layer->heads, call->batch, context->threads);
    if (recurrence_of(layer)->has_norm_weight)
        j->norm_weight = call->parameters + attn_layer_offset(layer, "norm.weight");
}

/* From rows to what wo is given; the other way, backward. */
static void run_heads(attn_recurrent_job *j, attn_task *heads)
{
    const attn_layer *layer = j->run.layer;
    const attn_recurrence *r = recurrence_of(layer);
    /* Heads of one token are too small to share. */
    const size_t threads = j->is_decoding ? 1 : j->run.context->threads;
    if (r->prepare) r->prepare(&j->run);
    attn_parallel(threads, attn_head_tasks(layer->heads, j->run.call->batch, j->together), heads,
                  j);
    attn_tally_collect(&j->tally, threads, &j->run.context->work);
}

static void run_forward(attn_recurrent_job *j)
{
    attn_context *context = j->run.context;
    const attn_layer *layer = j->run.layer;
    const attn_call *call = j->run.call;
    const size_t rows = call->batch * call->length;
    attn_projection_forward(context, layer, call, ATTN_RECURRENT_ROWS, rows, call->x, j->run.rows);
    run_heads(j, attn_recurrent_forward_task);
    attn_projection_forward(context, layer, call, ATTN_RECURRENT_O, rows, j->place.gated, call->y);
}

static void forward(attn_context *context, const attn_layer *layer, const attn_call *call)
{
    attn_recurrent_job j = {.is_decoding = false};
    start(&j, context, layer, call);
    run_forward(&j);
}

static void start_decoding(attn_recurrent_job *j, attn_context *context, const attn_layer *layer,
                           attn_call *call)
{
    call->saved = NULL;
    call->document_start = NULL;
    start(j, context, layer, call);
    j->is_decoding = true;
    j->run.position = call->position;
}

static void decode(attn_context *context, const attn_layer *layer, const attn_call *call)
{
    attn_recurrent_job j = {.is_decoding = false};
    attn_call single = *call;
    start_decoding(&j, context, layer, &single);
    run_forward(&j);
}

static void backward(attn_context *context, const attn_layer *layer, const attn_call *call)
{
    const attn_recurrence *r = recurrence_of(layer);
    const size_t rows = call->batch * call->length, d = layer->head_dim;
    attn_recurrent_job j = {.is_decoding = false};
    start(&j, context, layer, call);
    j.run.d_rows = j.place.rows;

    attn_projection_input_gradient(context, layer, call, ATTN_RECURRENT_O, rows, call->dy,
                                   j.place.d_gated);
    run_heads(&j, attn_recurrent_backward_task);
    if (r->finish) r->finish(&j.run);
    attn_projection_backward(context, layer, call, ATTN_RECURRENT_O, rows, j.place.gated, call->dy,
                             NULL);
    if (r->has_norm_weight) {
        float *to = call->gradients + attn_layer_offset(layer, "norm.weight");
        const attn_counted on = {.kernels = context->kernels, .work = &context->work};
        memset(to, 0, d * sizeof *to);
        for (size_t i = 0; i < call->batch * layer->heads; i++)
            attn_counted_add(on, d, j.place.d_norm + i * d, to);
    }
    attn_projection_backward(context, layer, call, ATTN_RECURRENT_ROWS, rows, call->x, j.run.d_rows,
                             call->dx);
}

void attn_recurrent_inner(attn_context *context, const attn_layer *layer, const attn_call *call,
                          attn_phase phase)
{
    attn_recurrent_job j = {.is_decoding = false};
    attn_call inner = *call;
    if (phase == ATTN_PHASE_DECODE) {
        start_decoding(&j, context, layer, &inner);
    } else {
        start(&j, context, layer, &inner);
    }
    j.run.d_rows = j.place.rows;
    run_heads(&j, phase == ATTN_PHASE_BACKWARD ? attn_recurrent_backward_task
                                               : attn_recurrent_forward_task);
    if (phase == ATTN_PHASE_BACKWARD && recurrence_of(layer)->finish)
        recurrence_of(layer)->finish(&j.run);
}

/* ---- counts ------------------------------------------------------------------------------ */

/* One head's row between o and wo. */
static attn_work gate_row_work(const attn_layer *layer, attn_phase phase)
{
    const attn_recurrence *r = recurrence_of(layer);
    const bool is_backward = phase == ATTN_PHASE_BACKWARD;
    const uint64_t d = layer->head_dim;
    attn_work work = {.exponential = 1, .other = 3 * d + 2};
    if (is_backward) {
        work.matmul += 2 * d;
        work.other += 3 * d + 2;
    }
    if (r->has_norm_weight) work.other += is_backward ? 4 * d : d;
    if (r->has_gate) {
        work.exponential += is_backward ? 2 * d : d;
        work.other += is_backward ? 12 * d : 3 * d;
    }
    return work;
}

static attn_work layer_work(const attn_layer *layer, attn_phase phase, size_t batch, size_t length,
                            const uint32_t *document_start)
{
    const attn_recurrence *r = recurrence_of(layer);
    const bool is_backward = phase == ATTN_PHASE_BACKWARD;
    const size_t T = phase == ATTN_PHASE_DECODE ? 1 : length;
    const uint64_t rows = (uint64_t)batch * T, width = layer->d_model, heads = layer->heads;
    attn_work work = {.matmul =
                          (is_backward ? 4 : 2) * rows * width * (shape_of(layer).row + width)};
    attn_work_add(&work, attn_work_times(gate_row_work(layer, phase), rows * heads));
    if (is_backward && r->has_norm_weight) work.other += batch * width;
    if (r->shared_work) attn_work_add(&work, r->shared_work(layer, phase, batch, T));
    for (size_t b = 0; b < batch; b++) {
        const uint32_t *documents = document_start ? document_start + b * T : NULL;
        attn_work_add(&work, attn_work_times(r->head_work(layer, phase, T, documents), heads));
    }
    return work;
}

/* ---- oracle ------------------------------------------------------------------------------ */

attn_node *attn_recurrent_parameter(const attn_layer *layer, attn_node *const *parameters,
                                    const char *name)
{
    size_t i = 0;
    while (strcmp(layer->parameters[i].name, name) != 0) i++;
    return parameters[i];
}

attn_node *attn_recurrent_project(attn_tape *tape, const attn_layer *layer,
                                  attn_node *const *parameters, const char *name, attn_node *x,
                                  size_t head)
{
    attn_node *w = attn_recurrent_parameter(layer, parameters, name);
    const size_t count = w->rows / layer->heads;
    return attn_linear(tape, x, attn_rows(tape, w, head * count, count), NULL);
}

static attn_node *oracle(attn_tape *tape, const attn_layer *layer, attn_node *x,
                         attn_node *const *parameters, attn_node *memory,
                         const uint32_t *document_start)
{
    (void)memory; /* keys and values come from x */
    const attn_recurrence *r = recurrence_of(layer);
    attn_node *all = NULL;
    attn_node *more = r->project_more ? r->project_more(tape, layer, x, parameters) : NULL;
    for (size_t h = 0; h < layer->heads; h++) {
        attn_node *o = r->oracle(tape, layer, h, x, parameters, more, document_start);
        o = attn_normal(tape, o, 1.0 / (double)layer->head_dim, 1e-5);
        if (r->has_norm_weight)
            o = attn_times(tape, o, attn_recurrent_parameter(layer, parameters, "norm.weight"));
        if (r->has_gate) {
            attn_node *g = attn_recurrent_project(tape, layer, parameters, "wg.weight", x, h);
            o = attn_times(tape, o, attn_times(tape, g, attn_sigmoid(tape, g)));
        }
        all = all ? attn_beside(tape, all, o) : o;
    }
    return attn_linear(tape, all, attn_recurrent_parameter(layer, parameters, "wo.weight"), NULL);
}

const attn_layer_functions attn_recurrent_functions = {
    .declare = declare,
    .saved = saved_count,
    .scratch = scratch_count,
    .cache = cache_count,
    .forward = forward,
    .backward = backward,
    .decode = decode,
    .work = layer_work,
    .oracle = oracle,
};
