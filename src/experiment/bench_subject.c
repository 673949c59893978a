/* Subjects of the core and layer benchmarks. */
#include "experiment/bench_subject.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"

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
    if (keeps)
        call->saved = take(s, attn_layer_saved_count(s->layer, B, T), 0, o->seed, &status, error);
    const size_t scratch = attn_layer_scratch_count(s->layer, s->context, B, T);
    const size_t single = attn_layer_scratch_count(s->layer, s->context, B, 1);
    call->scratch = take(s, scratch > single ? scratch : single, 0, o->seed, &status, error);
    if (o->directions[ATTN_BENCH_DECODE])
        call->cache = take(s, attn_layer_cache_count(s->layer, B, T), 0, o->seed, &status, error);
    call->cache_capacity = T;
    const size_t packed_count = attn_layer_packed_count(s->layer);
    attn_bf16 *packed =
        (attn_bf16 *)(void *)take(s, (packed_count + 1) / 2, 0, o->seed, &status, error);
    if (status != ATTN_OK) return status;
    draw_parameters(s->layer, o->seed, parameters);
    if (packed_count > 0) attn_layer_pack(s->context, s->layer, parameters, packed);
    call->packed = packed_count > 0 ? packed : NULL;
    return ATTN_OK;
}

/* q, k and v lie in rows behind each other, as the projections of a layer leave them. */
static attn_status prepare_core(attn_bench_subject *s, const attn_bench_core_options *o,
                                attn_error *error)
{
    const attn_layer *layer = s->layer;
    const attn_core *core = layer->mechanism->core;
    if (!core)
        return attn_fail(error, ATTN_EUNSUPPORTED,
                         "%s has no core behind projections of its own: use bench layer",
                         layer->name);
    const size_t B = s->size.batch, T = s->size.length, d = layer->head_dim;
    const size_t H = layer->heads * d, kv = layer->kv_heads * d, row = H + 2 * kv;
    const bool keeps = o->directions[ATTN_BENCH_BACKWARD];
    attn_status status = ATTN_OK;
    const float *qkv = take(s, B * T * row, B * T * row, o->seed, &status, error);
    const float *d_o = keeps ? take(s, B * T * H, B * T * H, o->seed, &status, error) : NULL;
    float *d_qkv = keeps ? take(s, B * T * row, 0, o->seed, &status, error) : NULL;
    float *parameters = take(s, layer->parameter_count, 0, o->seed, &status, error);
    s->core = (attn_core_call){.context = s->context,
                               .layer = layer,
                               .batch = B,
                               .length = T,
                               .q = qkv,
                               .row = row,
                               .o_row = H,
                               .d_o = d_o,
                               .dq = d_qkv,
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
    s->core.k = qkv + H;
    s->core.v = qkv + H + kv;
    if (keeps) {
        s->core.dk = d_qkv + H;
        s->core.dv = d_qkv + H + kv;
    }
    draw_parameters(layer, o->seed, parameters);
    return ATTN_OK;
}

static attn_status run_layer(attn_bench_subject *s, attn_bench_direction direction,
                             attn_error *error)
{
    attn_call call = s->call;
    attn_status status = ATTN_OK;
    if (direction == ATTN_BENCH_DECODE) {
        call.length = 1;
        call.position = s->size.length - 1;
        status = attn_layer_decode(s->context, s->layer, &call);
    } else if (direction == ATTN_BENCH_BACKWARD) {
        status = attn_layer_backward(s->context, s->layer, &call);
    } else {
        call.cache = NULL;
        status = attn_layer_forward(s->context, s->layer, &call);
    }
    if (status != ATTN_OK && error) *error = *attn_context_error(s->context);
    return status;
}

static void run_core(attn_bench_subject *s, attn_bench_direction direction)
{
    const attn_core *core = s->layer->mechanism->core;
    attn_core_call call = s->core;
    if (direction == ATTN_BENCH_DECODE) {
        call.length = 1;
        call.position = s->size.length - 1;
        core->decode(&call);
    } else if (direction == ATTN_BENCH_BACKWARD) {
        core->backward(&call);
    } else {
        call.cache = NULL;
        core->forward(&call);
    }
}

attn_status attn_bench_subject_run(attn_bench_subject *subject, attn_bench_direction direction,
                                   attn_error *error)
{
    if (subject->is_layer) return run_layer(subject, direction, error);
    run_core(subject, direction);
    return ATTN_OK;
}

/* Fills the cache with all tokens but the last. */
static attn_status fill_cache(attn_bench_subject *s, attn_error *error)
{
    if (!s->is_layer) {
        attn_core_call call = s->core;
        call.length = s->size.length - 1;
        call.saved = NULL;
        s->layer->mechanism->core->forward(&call);
        return ATTN_OK;
    }
    attn_call call = s->call;
    call.length = s->size.length - 1;
    call.saved = NULL;
    const attn_status status = attn_layer_forward(s->context, s->layer, &call);
    if (status != ATTN_OK && error) *error = *attn_context_error(s->context);
    return status;
}

attn_status attn_bench_subject_create(attn_bench_subject *subject, const attn_label *mechanism,
                                      const attn_bench_core_options *options, attn_context *context,
                                      attn_bench_size size, attn_error *error)
{
    *subject = (attn_bench_subject){
        .is_layer = options->is_layer, .context = context, .size = size, .calls = 1};
    const attn_layer_config config = {.mechanism = mechanism->name,
                                      .options = mechanism->options,
                                      .d_model = size.heads * size.head_dim,
                                      .heads = size.heads,
                                      .positions = size.length,
                                      .is_causal = true,
                                      .dtype = options->dtype};
    attn_status status = attn_layer_create(&subject->layer, &config, error);
    if (status == ATTN_OK && subject->layer->mechanism->check_length)
        status = subject->layer->mechanism->check_length(subject->layer, size.length, error);
    if (status == ATTN_OK && options->directions[ATTN_BENCH_DECODE] && size.length < 2)
        status = attn_fail(error, ATTN_ESHAPE, "decoding needs a sequence of at least 2 tokens");
    if (status == ATTN_OK && options->directions[ATTN_BENCH_DECODE] &&
        !attn_layer_is_causal(subject->layer))
        status = attn_fail(error, ATTN_EUNSUPPORTED, "%s does not decode: it is not causal",
                           mechanism->label);
    if (status == ATTN_OK)
        status = options->is_layer ? prepare_layer(subject, options, error)
                                   : prepare_core(subject, options, error);
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

attn_work attn_bench_subject_work(const attn_bench_subject *subject, attn_bench_direction direction)
{
    static const attn_phase phases[ATTN_BENCH_DIRECTIONS] = {
        ATTN_PHASE_FORWARD, ATTN_PHASE_BACKWARD, ATTN_PHASE_DECODE};
    const size_t length = subject->size.length - (direction == ATTN_BENCH_DECODE ? 1 : 0);
    const attn_layer *layer = subject->layer;
    if (subject->is_layer)
        return attn_layer_work(layer, phases[direction], subject->size.batch, length, NULL);
    return layer->mechanism->core->work(layer, phases[direction], subject->size.batch, length,
                                        NULL);
}

double attn_bench_subject_cache_bytes(const attn_bench_subject *subject)
{
    const size_t count =
        subject->is_layer
            ? attn_layer_cache_count(subject->layer, subject->size.batch, subject->size.length)
            : subject->layer->mechanism->core->cache(subject->layer, subject->size.batch,
                                                     subject->size.length);
    return (double)count * sizeof(float);
}
