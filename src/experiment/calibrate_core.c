/* A core between the projections of heads.c is called as it is, and so is what a recurrence does between
 * its own in bfloat16. Any other mechanism that owns its projections is run as a layer, and in turns
 * with it its dense products alone. */
#include "experiment/calibrate_core.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/statistics.h"
#include "kernels/dense.h"
#include "kernels/dense_bf16.h"
#include "mechanisms/projection.h"
#include "mechanisms/recurrent_layer.h"

#include <math.h>

enum { REPEATS_MAX = 64 };

typedef struct timing {
    attn_context *context;
    attn_layer *layer;
    size_t length;
    float *block; /* all that follows */
    float *parameters, *gradients, *x, *y, *dx, *dy, *saved, *scratch;
    attn_bf16 *halves; /* x rounded, where a core takes it so; or NULL */
    size_t row;        /* of the core's x: q, k and v beside each other */
} timing;

static bool is_core(const timing *t)
{
    return t->layer->mechanism->core != NULL;
}

static bool is_inner(const timing *t)
{
    return t->layer->mechanism->recurrence && t->layer->dtype == ATTN_BF16;
}

/* Floats of a row of x: what a core reads, or the layer's own width. */
static size_t row_of(const timing *t)
{
    return is_core(t) ? t->layer->d_model + 2 * t->layer->kv_heads * t->layer->head_dim
                      : t->layer->d_model;
}

static size_t widest_projection(const attn_layer *layer)
{
    size_t widest = layer->d_model;
    for (size_t i = 0; i < layer->n_projections; i++) {
        const attn_projection *p = &layer->projections[i];
        if (p->in > widest) widest = p->in;
        if (p->out > widest) widest = p->out;
    }
    return widest;
}

/* ---- memory --------------------------------------------------------------------------------- */

static void initialise(timing *t)
{
    const uint64_t stream = attn_random_stream(ATTN_RANDOM_TEST, 0);
    for (size_t i = 0; i < t->layer->n_parameters; i++) {
        const attn_parameter *p = &t->layer->parameters[i];
        float *at = t->parameters + p->offset;
        if (p->initial == ATTN_INITIAL_WEIGHT || p->initial == ATTN_INITIAL_RESIDUAL)
            attn_random_fill_normal(1, stream + i, 0.02, p->count, at);
        else if (p->initial != ATTN_INITIAL_OWN ||
                 !attn_layer_initialise_own(t->layer, i, 1, stream + i, at))
            for (size_t n = 0; n < p->count; n++) at[n] = p->initial == ATTN_INITIAL_ONE;
    }
    attn_random_fill_normal(1, stream, 1.0, t->length * t->row, t->x);
    attn_random_fill_normal(2, stream, 1.0, t->length * t->row, t->dy);
    if (t->halves) attn_dense_bf16_round(t->context, t->length * t->row, t->x, t->halves);
}

static attn_status set_up(timing *t, const attn_label *mechanism, attn_dtype dtype,
                          attn_error *error)
{
    const attn_layer_config config = {.mechanism = mechanism->name,
                                      .options = mechanism->options,
                                      .d_model = ATTN_CORE_WIDTH,
                                      .heads = ATTN_CORE_HEADS,
                                      .positions = t->length,
                                      .is_causal = true,
                                      .dtype = dtype};
    const attn_status status = attn_layer_create(&t->layer, &config, error);
    if (status != ATTN_OK) return status;
    t->row = row_of(t);
    /* wide enough for the products of the projections too */
    const size_t wide = attn_rounded(t->length * widest_projection(t->layer));
    const size_t parameters = attn_rounded(attn_layer_parameter_count(t->layer));
    const size_t rows = t->length * t->row > wide ? attn_rounded(t->length * t->row) : wide;
    const size_t saved = attn_rounded(attn_layer_saved_count(t->layer, 1, t->length));
    const size_t scratch =
        attn_rounded(attn_layer_scratch_count(t->layer, t->context, 1, t->length));
    const bool is_half = is_core(t) && attn_layer_core_dtype(t->layer) == ATTN_BF16;
    const size_t halves = is_half ? attn_halves(t->length * t->row) : 0;
    t->block = attn_alloc_array(
        ATTN_MEMORY_OTHER, 2 * parameters + 4 * rows + saved + halves + scratch, sizeof *t->block);
    if (!t->block)
        return attn_fail(error, ATTN_EMEMORY, "no memory for %s with %zu tokens", mechanism->name,
                         t->length);
    float *room = t->block;
    t->parameters = attn_cut(&room, parameters);
    t->gradients = attn_cut(&room, parameters);
    t->x = attn_cut(&room, rows);
    t->y = attn_cut(&room, rows);
    t->dx = attn_cut(&room, rows);
    t->dy = attn_cut(&room, rows);
    t->saved = attn_cut(&room, saved);
    t->halves = is_half ? (attn_bf16 *)(void *)attn_cut(&room, halves) : NULL;
    t->scratch = room;
    initialise(t);
    for (size_t i = 0; is_inner(t) && i < saved + scratch; i++) /* a recurrence's rows */
        t->saved[i] = t->x[i % (t->length * t->row)];
    return ATTN_OK;
}

/* ---- passes --------------------------------------------------------------------------------- */

static void run_core(timing *t, attn_phase phase)
{
    attn_core_call call = {.context = t->context,
                           .kernels = attn_core_kernels(t->context, t->layer),
                           .layer = t->layer,
                           .batch = 1,
                           .length = t->length,
                           .o = t->y,
                           .o_row = t->layer->d_model,
                           .saved = t->saved,
                           .scratch = t->scratch,
                           .parameters = t->parameters,
                           .gradients = t->gradients};
    attn_core_set_rows(&call, t->halves ? (const void *)t->halves : t->x);
    /* any numbers will do for dO */
    attn_core_set_gradients(&call, t->halves ? (const void *)t->halves : t->dy, t->dx);
    if (phase == ATTN_PHASE_FORWARD)
        t->layer->mechanism->core->forward(&call);
    else
        t->layer->mechanism->core->backward(&call);
}

static void run_layer(timing *t, attn_phase phase)
{
    const attn_call call = {.batch = 1,
                            .length = t->length,
                            .parameters = t->parameters,
                            .x = t->x,
                            .y = t->y,
                            .saved = t->saved,
                            .scratch = t->scratch,
                            .dy = t->dy,
                            .dx = t->dx,
                            .gradients = t->gradients};
    /* arguments are right by construction: these are the functions behind attn_layer_forward() */
    if (is_inner(t))
        attn_recurrent_inner(t->context, t->layer, &call, phase);
    else if (phase == ATTN_PHASE_FORWARD)
        t->layer->mechanism->functions->forward(t->context, t->layer, &call);
    else
        t->layer->mechanism->functions->backward(t->context, t->layer, &call);
}

static void run_projections(timing *t, attn_phase phase)
{
    for (size_t i = 0; i < t->layer->n_projections; i++) {
        const attn_projection *p = &t->layer->projections[i];
        const float *w = t->parameters + p->weight;
        float *bias = p->bias == ATTN_NO_BIAS ? NULL : t->gradients + p->bias;
        if (phase == ATTN_PHASE_FORWARD) {
            attn_dense_forward(t->context, t->length, p->in, p->out, t->x, w, bias, t->y);
        } else {
            attn_dense_input_gradient(t->context, t->length, p->in, p->out, t->dy, w, t->dx, false);
            attn_dense_weight_gradient(t->context, t->length, p->in, p->out, t->x, t->dy,
                                       t->gradients + p->weight, bias, false);
        }
    }
}

/* Seconds of one run, and the work that the kernels counted in it. */
static double time_of(timing *t, void (*run)(timing *, attn_phase), attn_phase phase,
                      attn_work *work)
{
    const attn_work before = attn_context_work(t->context);
    const uint64_t begin_ns = attn_clock_ns();
    run(t, phase);
    const double time_s = attn_clock_seconds(begin_ns, attn_clock_ns());
    const attn_work after = attn_context_work(t->context);
    *work = (attn_work){.matmul = after.matmul - before.matmul,
                        .exponential = after.exponential - before.exponential,
                        .other = after.other - before.other};
    return time_s;
}

/* A pass of the core, without projections. */
static double pass_of(timing *t, attn_phase phase, attn_work *work)
{
    if (is_core(t)) return time_of(t, run_core, phase, work);
    if (is_inner(t)) return time_of(t, run_layer, phase, work);
    attn_work products;
    const double layer_s = time_of(t, run_layer, phase, work);
    const double products_s = time_of(t, run_projections, phase, &products);
    work->matmul -= products.matmul;
    work->other -= products.other;
    return fmax(layer_s - products_s, 0.02 * layer_s);
}

bool attn_core_is_apart(const char *mechanism, attn_dtype dtype)
{
    const attn_mechanism *m = attn_mechanism_find(mechanism);
    return dtype == ATTN_F32 || m->multiplies_parts || (m->core && m->has_bf16);
}

attn_status attn_core_time(attn_context *context, const attn_core_probe *probe, double budget_s,
                           attn_core_times *out, attn_error *error)
{
    timing t = {.context = context, .length = probe->length};
    double forward[REPEATS_MAX], backward[REPEATS_MAX];
    const attn_status status = set_up(&t, probe->mechanism, probe->dtype, error);
    if (status == ATTN_OK) {
        (void)pass_of(&t, ATTN_PHASE_FORWARD, &out->forward);
        (void)pass_of(&t, ATTN_PHASE_BACKWARD, &out->backward);
        const uint64_t begin_ns = attn_clock_ns();
        size_t n = 0;
        do {
            forward[n] = pass_of(&t, ATTN_PHASE_FORWARD, &out->forward);
            backward[n++] = pass_of(&t, ATTN_PHASE_BACKWARD, &out->backward);
        } while (n < REPEATS_MAX && attn_clock_seconds(begin_ns, attn_clock_ns()) < budget_s);
        attn_statistics_sort(forward, n);
        attn_statistics_sort(backward, n);
        out->forward_s = attn_statistics_median(forward, n);
        out->backward_s = attn_statistics_median(backward, n);
    }
    attn_free(t.block);
    attn_layer_free(t.layer);
    return status;
}
