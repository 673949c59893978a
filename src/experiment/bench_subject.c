/* Subjects of the core and layer benchmarks. */
#include "experiment/bench_subject.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "kernels/dense_bf16.h"
#include "mechanisms/recurrent_layer.h"

#include <math.h>
#include <string.h>

/* `count` floats of which the first `drawn` are normal numbers; NULL in `status` once memory ran
 * out. */
static float *take(attn_bench_subject *s, size_t count, size_t drawn, uint64_t seed,
                   attn_status *status, attn_error *error)
{
    if (*status != ATTN_OK) return NULL;
    float *floats = attn_alloc_array(ATTN_MEMORY_OTHER, count ? count : 1, sizeof *floats);
    if (!floats) {
        *status = attn_fail(error, ATTN_EMEMORY, "no memory for %s at %zu tokens", s->layer->name,
                            s->size.length);
        return NULL;
    }
    attn_random_fill_normal(seed, attn_random_stream(ATTN_RANDOM_TEST, (uint32_t)s->n_memory), 1.0,
                            drawn, floats);
    s->memory[s->n_memory++] = floats;
    s->held_bytes += count * sizeof *floats;
    return floats;
}

static void draw_parameters(const attn_layer *layer, uint64_t seed, float *out)
{
    for (size_t i = 0; i < layer->n_parameters; i++) {
        const attn_parameter *p = &layer->parameters[i];
        const uint64_t stream = attn_random_stream(ATTN_RANDOM_PARAMETERS, (uint32_t)i);
        float *at = out + p->offset;
        if (p->initial == ATTN_INITIAL_OWN && attn_layer_initialise_own(layer, i, seed, stream, at))
            continue;
        const double fan_in = (double)p->shape[p->dimensions - 1];
        attn_random_fill_normal(seed, stream, p->dimensions == 1 ? 0.1 : 1.0 / sqrt(fan_in),
                                p->count, at);
        for (size_t j = 0; p->initial == ATTN_INITIAL_ONE && j < p->count; j++) at[j] += 1.0f;
    }
}

static attn_status prepare_layer(attn_bench_subject *s, const attn_bench_core_options *o,
                                 attn_error *error)
{
    const size_t B = s->size.batch, T = s->size.length, C = s->layer->d_model;
    const bool keeps = o->directions[ATTN_BENCH_BACKWARD];
    const size_t P = s->layer->parameter_count, n = B * T * C;
    size_t memory_length = 0, memory_width = 0;
    attn_layer_memory(s->layer, &memory_length, &memory_width);
    attn_status status = ATTN_OK;
    attn_call *call = &s->call;
    call->batch = B;
    call->length = T;
    call->memory_length = memory_length;
    float *parameters = take(s, P, 0, o->seed, &status, error);
    call->parameters = parameters;
    call->x = take(s, n, n, o->seed, &status, error);
    call->y = take(s, n, 0, o->seed, &status, error);
    call->dy = keeps ? take(s, n, n, o->seed, &status, error) : NULL;
    call->dx = keeps ? take(s, n, 0, o->seed, &status, error) : NULL;
    call->gradients = keeps ? take(s, P, 0, o->seed, &status, error) : NULL;
    if (memory_length > 0)
        call->memory = take(s, B * memory_length * memory_width, B * memory_length * memory_width,
                            o->seed, &status, error);
    /* A recurrence alone finds its rows in these two. */
    const size_t saved = attn_layer_saved_count(s->layer, B, T);
    if (keeps) call->saved = take(s, saved, s->is_layer ? 0 : saved, o->seed, &status, error);
    const size_t all = attn_layer_scratch_count(s->layer, s->context, B, T);
    const size_t single = attn_layer_scratch_count(s->layer, s->context, B, 1);
    const size_t scratch = all > single ? all : single;
    call->scratch = take(s, scratch, s->is_layer ? 0 : scratch, o->seed, &status, error);
    if (o->directions[ATTN_BENCH_DECODE])
        call->cache = take(s, attn_layer_cache_count(s->layer, B, T), 0, o->seed, &status, error);
    call->cache_capacity = T;
    const size_t packed = attn_layer_packed_count(s->layer);
    attn_bf16 *half = NULL;
    if (packed) half = (attn_bf16 *)take(s, (packed + 1) / 2, 0, o->seed, &status, error);
    call->packed = half;
    if (status != ATTN_OK) return status;
    draw_parameters(s->layer, o->seed, parameters);
    if (packed) attn_layer_pack(s->context, s->layer, parameters, half);
    return ATTN_OK;
}

/* q, k and v lie in rows behind each other, as the projections of a layer leave them. */
static attn_status prepare_core(attn_bench_subject *s, const attn_bench_core_options *o,
                                attn_error *error)
{
    const attn_layer *layer = s->layer;
    const attn_core *core = layer->mechanism->core;
    const size_t B = s->size.batch, T = s->size.length, d = layer->head_dim;
    const size_t H = layer->heads * d, kv = layer->kv_heads * d, row = H + 2 * kv;
    const bool keeps = o->directions[ATTN_BENCH_BACKWARD];
    attn_status status = ATTN_OK;
    const float *qkv = take(s, B * T * row, B * T * row, o->seed, &status, error);
    attn_bf16 *half = NULL;
    if (attn_layer_core_dtype(layer) == ATTN_BF16)
        half = (attn_bf16 *)take(s, (B * T * row + 1) / 2, 0, o->seed, &status, error);
    attn_bf16 *half_d_o = NULL;
    if (half && keeps)
        half_d_o = (attn_bf16 *)take(s, (B * T * H + 1) / 2, 0, o->seed, &status, error);
    const float *d_o = keeps ? take(s, B * T * H, B * T * H, o->seed, &status, error) : NULL;
    void *d_qkv = keeps ? take(s, B * T * row, 0, o->seed, &status, error) : NULL;
    float *parameters = take(s, layer->parameter_count, 0, o->seed, &status, error);
    s->core = (attn_core_call){.context = s->context,
                               .kernels = attn_core_kernels(s->context, layer),
                               .layer = layer,
                               .batch = B,
                               .length = T,
                               .o_row = H,
                               .cache_capacity = T,
                               .parameters = parameters};
    s->core.o = take(s, B * T * H, 0, o->seed, &status, error);
    if (keeps) s->core.saved = take(s, core->saved(layer, B, T), 0, o->seed, &status, error);
    if (keeps) s->core.gradients = take(s, layer->parameter_count, 0, o->seed, &status, error);
    /* The layer's scratch is at least that of its core in every phase. */
    const size_t scratch = attn_layer_scratch_count(layer, s->context, B, T);
    s->core.scratch = take(s, scratch, 0, o->seed, &status, error);
    if (o->directions[ATTN_BENCH_DECODE])
        s->core.cache = take(s, core->cache(layer, B, T), 0, o->seed, &status, error);
    if (status != ATTN_OK) return status;
    if (half) {
        attn_dense_bf16_round(s->context, B * T * row, qkv, half);
        if (keeps) attn_dense_bf16_round(s->context, B * T * H, d_o, half_d_o);
    }
    attn_core_set_rows(&s->core, half ? (const void *)half : qkv);
    if (keeps) attn_core_set_gradients(&s->core, half ? (const void *)half_d_o : d_o, d_qkv);
    draw_parameters(layer, o->seed, parameters);
    return ATTN_OK;
}

static const attn_phase phases[ATTN_BENCH_DIRECTIONS] = {ATTN_PHASE_FORWARD, ATTN_PHASE_BACKWARD,
                                                         ATTN_PHASE_DECODE};

static attn_status run_layer(attn_bench_subject *s, attn_call call, attn_bench_direction direction,
                             attn_error *error)
{
    attn_status status = ATTN_OK;
    if (!s->is_layer) {
        attn_recurrent_inner(s->context, s->layer, &call, phases[direction]);
        return ATTN_OK;
    }
    if (direction == ATTN_BENCH_DECODE)
        status = attn_layer_decode(s->context, s->layer, &call);
    else if (direction == ATTN_BENCH_BACKWARD)
        status = attn_layer_backward(s->context, s->layer, &call);
    else
        status = attn_layer_forward(s->context, s->layer, &call);
    if (status != ATTN_OK && error) *error = *attn_context_error(s->context);
    return status;
}

static void run_core(const attn_core *core, const attn_core_call *call,
                     attn_bench_direction direction)
{
    if (direction == ATTN_BENCH_DECODE)
        core->decode(call);
    else if (direction == ATTN_BENCH_BACKWARD)
        core->backward(call);
    else
        core->forward(call);
}

/* Whether the core's own functions are called, and not the layer's. */
static bool has_core_call(const attn_bench_subject *s)
{
    return !s->is_layer && s->layer->mechanism->core;
}

attn_status attn_bench_subject_run(attn_bench_subject *subject, attn_bench_direction direction,
                                   attn_error *error)
{
    attn_call call = subject->call;
    attn_core_call core = subject->core;
    if (direction == ATTN_BENCH_DECODE) {
        call.length = core.length = 1;
        call.position = core.position = subject->size.length - 1;
    } else {
        call.cache = core.cache = NULL;
    }
    if (!has_core_call(subject)) return run_layer(subject, call, direction, error);
    run_core(subject->layer->mechanism->core, &core, direction);
    return ATTN_OK;
}

/* Fills the cache with all tokens but the last. */
static attn_status fill_cache(attn_bench_subject *s, attn_error *error)
{
    attn_call call = s->call;
    attn_core_call core = s->core;
    call.length = core.length = s->size.length - 1;
    call.saved = core.saved = NULL;
    if (!has_core_call(s)) return run_layer(s, call, ATTN_BENCH_FORWARD, error);
    run_core(s->layer->mechanism->core, &core, ATTN_BENCH_FORWARD);
    return ATTN_OK;
}

static attn_status check_subject(const attn_bench_subject *s, const attn_bench_core_options *o,
                                 attn_error *error)
{
    const attn_layer *layer = s->layer;
    const attn_mechanism *m = layer->mechanism;
    if (m->check_length) {
        const attn_status status = m->check_length(layer, s->size.length, error);
        if (status != ATTN_OK) return status;
    }
    if (!s->is_layer && !m->core && !m->recurrence)
        return attn_fail(error, ATTN_EUNSUPPORTED,
                         "%s has no core between its projections: use bench layer", layer->name);
    if (!s->is_layer && layer->dtype == ATTN_BF16 && !m->has_bf16 && !m->multiplies_parts)
        return attn_fail(error, ATTN_EUNSUPPORTED,
                         "%s has no core in bfloat16; bench layer takes bf16, with float32 between "
                         "the projections",
                         layer->name);
    if (!o->directions[ATTN_BENCH_DECODE]) return ATTN_OK;
    if (s->size.length < 2)
        return attn_fail(error, ATTN_ESHAPE, "decoding needs a sequence of at least 2 tokens");
    if (!attn_layer_is_causal(layer))
        return attn_fail(error, ATTN_EUNSUPPORTED, "%s does not decode: it is not causal",
                         layer->name);
    return ATTN_OK;
}

attn_status attn_bench_subject_create(attn_bench_subject *subject,
                                      const attn_bench_core_options *options, size_t variant,
                                      attn_context *context, attn_bench_size size,
                                      attn_error *error)
{
    const attn_bench_variant *v = &options->variants[variant];
    *subject = (attn_bench_subject){
        .is_layer = options->is_layer, .context = context, .size = size, .calls = 1};
    const attn_layer_config config = {.mechanism = v->mechanism.name,
                                      .options = v->mechanism.options,
                                      .d_model = size.heads * size.head_dim,
                                      .heads = size.heads,
                                      .positions = size.length,
                                      .is_causal = true,
                                      .dtype = v->dtype};
    attn_status status = attn_layer_create(&subject->layer, &config, error);
    if (status == ATTN_OK) status = check_subject(subject, options, error);
    if (status == ATTN_OK)
        status = has_core_call(subject) ? prepare_core(subject, options, error)
                                        : prepare_layer(subject, options, error);
    if (status == ATTN_OK && options->directions[ATTN_BENCH_DECODE])
        status = fill_cache(subject, error);
    for (int i = 0; i < ATTN_BENCH_DIRECTIONS && status == ATTN_OK; i++)
        if (options->directions[i] ||
            (i == ATTN_BENCH_FORWARD && options->directions[ATTN_BENCH_BACKWARD]))
            status = attn_bench_subject_run(subject, (attn_bench_direction)i, error);
    return status;
}

void attn_bench_subject_free(attn_bench_subject *subject)
{
    for (size_t i = 0; i < subject->n_memory; i++) attn_free(subject->memory[i]);
    attn_layer_free(subject->layer);
    *subject = (attn_bench_subject){.calls = 0};
}

/* ---- what a call does -------------------------------------------------------------------- */

/* FLOPs of the first `count` projections. */
static double projection_flop(const attn_bench_subject *s, size_t count,
                              attn_bench_direction direction)
{
    const double tokens = direction == ATTN_BENCH_DECODE ? 1.0 : (double)s->size.length;
    const double rows = tokens * (double)s->size.batch;
    double flop = 0.0;
    for (size_t i = 0; i < count; i++) {
        const attn_projection *p = &s->layer->projections[i];
        flop += 2.0 * rows * (double)p->in * (double)p->out;
    }
    return direction == ATTN_BENCH_BACKWARD ? 2.0 * flop : flop; /* dx and dw */
}

/* The cache, and the weights in the form that the products read. */
static double read_bytes(const attn_bench_subject *s)
{
    const attn_layer *layer = s->layer;
    const size_t B = s->size.batch, T = s->size.length;
    if (has_core_call(s)) return (double)layer->mechanism->core->cache(layer, B, T) * sizeof(float);
    double bytes = (double)attn_layer_cache_count(layer, B, T) * sizeof(float);
    if (!s->is_layer) return bytes;
    const size_t packed = attn_layer_packed_count(layer);
    bytes += packed ? (double)packed * sizeof(attn_bf16)
                    : (double)layer->parameter_count * sizeof(float);
    return bytes;
}

attn_bench_work attn_bench_subject_work(const attn_bench_subject *subject,
                                        attn_bench_direction direction)
{
    const attn_layer *layer = subject->layer;
    const bool is_half = layer->dtype == ATTN_BF16;
    const size_t B = subject->size.batch;
    const size_t T = subject->size.length - (direction == ATTN_BENCH_DECODE ? 1 : 0);
    const attn_core *core = layer->mechanism->core;
    const attn_work all = has_core_call(subject)
                              ? core->work(layer, phases[direction], B, T, NULL)
                              : attn_layer_work(layer, phases[direction], B, T, NULL);
    double inner = (double)all.matmul, projections = 0.0;
    if (subject->is_layer) {
        projections = projection_flop(subject, layer->n_projections, direction);
        inner -= projections;
    } else if (!core) {
        inner -= projection_flop(subject, ATTN_RECURRENT_OWN, direction);
    }
    const bool is_inner_half = is_half && layer->mechanism->has_bf16;
    const bool has_parts = is_half && layer->mechanism->multiplies_parts &&
                           direction != ATTN_BENCH_DECODE; /* too few rows */
    return (attn_bench_work){
        .f32_flop = (is_half ? 0.0 : projections) + (is_inner_half || has_parts ? 0.0 : inner),
        .bf16_flop = (is_half ? projections : 0.0) + (is_inner_half ? inner : 0.0),
        .parts_flop = has_parts ? inner : 0.0,
        .exponentials = (double)all.exponential,
        .read_bytes = direction == ATTN_BENCH_DECODE ? read_bytes(subject) : 0.0};
}
