/* Probes: guarded memory, random numbers, calls whose work is compared. */
#include "verify/probe.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"
#include "mechanisms/oracle.h"
#include "verify/compare.h"

#include <math.h>
#include <string.h>

/* ---- memory ------------------------------------------------------------------------------ */

enum { GUARD = 4096 };

static const uint32_t guard_word = 0x7fc0deadu; /* a quiet NaN that no kernel makes */

/* Behind it lie GUARD words, the data and GUARD words; the data is 64-byte aligned. */
typedef struct attn_probe_block {
    _Alignas(64) struct attn_probe_block *next;
    const char *name;
    size_t words;
} attn_probe_block;

static uint32_t *words_of(attn_probe_block *block)
{
    return (uint32_t *)(void *)(block + 1);
}

static void *allocate(attn_probe *probe, size_t words, const char *name)
{
    size_t total = 0, size_bytes = 0;
    attn_probe_block *block = NULL;
    if (probe->status != ATTN_OK) return NULL;
    if (attn_size_add(words, 2 * GUARD + sizeof *block / sizeof guard_word, &total) &&
        attn_size_multiply(total, sizeof guard_word, &size_bytes))
        block = attn_alloc(ATTN_MEMORY_OTHER, size_bytes);
    if (!block) {
        probe->status =
            attn_fail(probe->error, ATTN_EMEMORY, "no memory to verify %s", probe->layer->name);
        return NULL;
    }
    block->next = probe->blocks;
    block->name = name;
    block->words = words;
    probe->blocks = block;
    uint32_t *data = words_of(block);
    for (size_t i = 0; i < words + 2 * GUARD; i++) data[i] = guard_word;
    return data + GUARD;
}

float *attn_probe_floats(attn_probe *probe, size_t count, const char *name)
{
    return allocate(probe, count, name);
}

double *attn_probe_doubles(attn_probe *probe, size_t count)
{
    double *data = allocate(probe, 2 * count, "the comparison");
    for (size_t i = 0; data && i < count; i++) data[i] = NAN;
    return data;
}

uint32_t *attn_probe_words(attn_probe *probe, size_t count)
{
    return allocate(probe, count, "the documents");
}

attn_probe_block *attn_probe_mark(const attn_probe *probe)
{
    return probe->blocks;
}

static bool is_intact(const uint32_t *guard)
{
    size_t i = 0;
    while (i < GUARD && guard[i] == guard_word) i++;
    return i == GUARD;
}

void attn_probe_release(attn_probe *probe, attn_probe_block *mark)
{
    attn_verdict *verdict = &probe->result->of[ATTN_PROPERTY_MEMORY];
    while (probe->blocks != mark) {
        attn_probe_block *block = probe->blocks;
        const uint32_t *words = words_of(block);
        attn_verdict_that(verdict, is_intact(words), "a call wrote before the %zu floats of %s",
                          block->words, block->name);
        attn_verdict_that(verdict, is_intact(words + GUARD + block->words),
                          "a call wrote behind the %zu floats of %s", block->words, block->name);
        probe->blocks = block->next;
        attn_free(block);
    }
}

/* ---- numbers ----------------------------------------------------------------------------- */

static uint64_t next_stream(attn_probe *probe)
{
    return attn_random_stream(ATTN_RANDOM_TEST, probe->next_stream++);
}

void attn_probe_normal(attn_probe *probe, double scale, size_t n, float *out)
{
    if (out) attn_random_fill_normal(probe->options->seed, next_stream(probe), scale, n, out);
}

size_t attn_probe_below(attn_probe *probe, size_t bound)
{
    return (size_t)attn_random_below(probe->options->seed, next_stream(probe), 0, bound);
}

void attn_widen(size_t n, const float *from, double *to)
{
    for (size_t i = 0; i < n; i++) to[i] = (double)from[i];
}

/* Weights that keep the scale of what they multiply, norms near 1, small biases. */
static void draw_parameter(attn_probe *probe, size_t index)
{
    const attn_parameter *p = &probe->layer->parameters[index];
    float *out = probe->parameters + p->offset;
    if (p->initial == ATTN_INITIAL_OWN &&
        attn_layer_initialise_own(probe->layer, index, probe->options->seed, next_stream(probe),
                                  out))
        return;
    const bool is_vector = p->dimensions == 1;
    const double fan_in = (double)p->shape[p->dimensions - 1];
    attn_probe_normal(probe, is_vector ? 0.1 : 1.0 / sqrt(fan_in), p->count, out);
    for (size_t i = 0; p->initial == ATTN_INITIAL_ONE && i < p->count; i++) out[i] += 1.0f;
}

/* From the definition on the probe's own inputs. */
static attn_status find_bf16_tolerances(attn_probe *probe)
{
    enum { DRAWS = 3 }; /* tensors are large */
    const size_t memory_count = probe->B * probe->memory_length * probe->memory_width;
    struct attn_probe_block *mark = attn_probe_mark(probe);
    double *x = attn_probe_doubles(probe, probe->n);
    double *memory = memory_count ? attn_probe_doubles(probe, memory_count) : NULL;
    attn_oracle_call truth;
    attn_tolerances moves;
    if (probe->status != ATTN_OK) return probe->status;
    attn_widen(probe->n, probe->x, x);
    attn_widen(memory_count, probe->memory, memory);
    if (!attn_probe_oracle(probe, x, memory, true, (attn_rounding){0}, &truth))
        return probe->status;
    probe->status =
        attn_bf16_moves(probe->layer, &truth, DRAWS, probe->options->seed, &moves, probe->error);
    attn_probe_release(probe, mark);
    probe->within = attn_tolerances_with(ATTN_TOLERANCE_F32, ATTN_BF16_DEVIATIONS, &moves);
    probe->same = attn_tolerances_with(ATTN_ROUNDING, attn_bf16_share(ATTN_ROUNDING), &moves);
    return probe->status;
}

attn_status attn_probe_begin(attn_probe *probe, const attn_layer *layer,
                             const attn_verify_options *options, attn_verification *result,
                             attn_error *error)
{
    *probe = (attn_probe){.layer = layer,
                          .options = options,
                          .result = result,
                          .error = error,
                          .B = options->batch,
                          .T = options->length,
                          .C = layer->d_model,
                          .n = options->batch * options->length * layer->d_model,
                          .P = layer->parameter_count};
    attn_layer_memory(layer, &probe->memory_length, &probe->memory_width);
    probe->context = attn_probe_context(probe, options->threads, false);
    probe->parameters = attn_probe_floats(probe, probe->P, "the parameters");
    probe->x = attn_probe_floats(probe, probe->n, "x");
    probe->dy = attn_probe_floats(probe, probe->n, "dy");
    const size_t memory_count = probe->B * probe->memory_length * probe->memory_width;
    if (memory_count) probe->memory = attn_probe_floats(probe, memory_count, "memory");
    const size_t packed_count = attn_layer_packed_count(layer);
    if (packed_count) /* 2 numbers a word */
        probe->packed = allocate(probe, (packed_count + 1) / 2, "the packed weights");
    if (probe->status != ATTN_OK) return probe->status;
    attn_probe_normal(probe, 1.0, probe->n, probe->x);
    attn_probe_normal(probe, 1.0, probe->n, probe->dy);
    attn_probe_normal(probe, 1.0, memory_count, probe->memory);
    for (size_t i = 0; i < layer->n_parameters; i++) draw_parameter(probe, i);
    attn_layer_pack(probe->context, layer, probe->parameters, probe->packed);
    probe->within = attn_tolerances_uniform(ATTN_TOLERANCE_F32);
    probe->same = attn_tolerances_uniform(ATTN_ROUNDING);
    return layer->dtype == ATTN_BF16 ? find_bf16_tolerances(probe) : ATTN_OK;
}

void attn_probe_end(attn_probe *probe)
{
    attn_probe_release(probe, NULL);
    attn_context_free(probe->context);
}

/* ---- calls ------------------------------------------------------------------------------- */

attn_context *attn_probe_context(attn_probe *probe, size_t threads, bool is_plain)
{
    attn_context *context = NULL;
    if (probe->status != ATTN_OK) return NULL;
    probe->status = attn_context_create(&context, threads, is_plain ? "ref" : probe->options->isa,
                                        probe->error);
    if (probe->status == ATTN_OK && is_plain) {
        context->isa = probe->context->isa;
        context->kernels = probe->context->kernels;
    }
    return context;
}

attn_call attn_probe_call(const attn_probe *probe)
{
    return (attn_call){.batch = probe->B,
                       .length = probe->T,
                       .parameters = probe->parameters,
                       .packed = probe->packed,
                       .x = probe->x,
                       .memory = probe->memory,
                       .memory_length = probe->memory_length,
                       .dy = probe->dy};
}

static void compare_work(attn_probe *probe, attn_work before, const attn_context *context,
                         attn_phase phase, const attn_call *call)
{
    static const char *const names[] = {"forward", "backward", "decode"};
    const size_t length = phase == ATTN_PHASE_DECODE ? call->position : call->length;
    const attn_work after = attn_context_work(context);
    const attn_work formula =
        attn_layer_work(probe->layer, phase, call->batch, length, call->document_start);
    const uint64_t counted[] = {after.matmul - before.matmul,
                                after.exponential - before.exponential, after.other - before.other};
    const uint64_t expected[] = {formula.matmul, formula.exponential, formula.other};
    static const char *const classes[] = {"matmul", "exponential", "other"};
    for (size_t i = 0; i < 3 && !probe->is_extreme; i++)
        attn_verdict_that(&probe->result->of[ATTN_PROPERTY_WORK], counted[i] == expected[i],
                          "%s of %zu x %zu tokens%s: %llu %s counted, formula %llu", names[phase],
                          call->batch, length, call->document_start ? " in documents" : "",
                          (unsigned long long)counted[i], classes[i],
                          (unsigned long long)expected[i]);
}

/* Whether the call happened; a refusal is no failure. */
static bool settle(attn_probe *probe, attn_context *context, attn_status status)
{
    if (status == ATTN_OK) return true;
    if (status != ATTN_EUNSUPPORTED)
        probe->status = attn_fail(probe->error, status, "%s", attn_context_error(context)->text);
    return false;
}

bool attn_probe_forward(attn_probe *probe, attn_context *context, attn_call *call, bool saves)
{
    const attn_layer *layer = probe->layer;
    if (!context || probe->status != ATTN_OK) return false;
    call->y = attn_probe_floats(probe, call->batch * call->length * probe->C, "y");
    if (saves)
        call->saved = attn_probe_floats(
            probe, attn_layer_saved_count(layer, call->batch, call->length), "saved");
    call->scratch = attn_probe_floats(
        probe, attn_layer_scratch_count(layer, context, call->batch, call->length), "scratch");
    if (probe->status != ATTN_OK) return false;
    const attn_work before = attn_context_work(context);
    attn_context_clear_error(context);
    if (!settle(probe, context, attn_layer_forward(context, layer, call))) return false;
    compare_work(probe, before, context, ATTN_PHASE_FORWARD, call);
    return true;
}

bool attn_probe_backward(attn_probe *probe, attn_context *context, attn_call *call)
{
    const attn_layer *layer = probe->layer;
    call->dx = attn_probe_floats(probe, call->batch * call->length * probe->C, "dx");
    call->gradients = attn_probe_floats(probe, probe->P, "gradients");
    if (probe->memory)
        call->d_memory = attn_probe_floats(
            probe, call->batch * probe->memory_length * probe->memory_width, "d_memory");
    call->scratch = attn_probe_floats(
        probe, attn_layer_scratch_count(layer, context, call->batch, call->length), "scratch");
    if (probe->status != ATTN_OK) return false;
    const attn_work before = attn_context_work(context);
    attn_context_clear_error(context);
    if (!settle(probe, context, attn_layer_backward(context, layer, call))) return false;
    compare_work(probe, before, context, ATTN_PHASE_BACKWARD, call);
    return true;
}

bool attn_probe_decode(attn_probe *probe, attn_context *context, const attn_call *call)
{
    const attn_work before = attn_context_work(context);
    attn_context_clear_error(context);
    if (!settle(probe, context, attn_layer_decode(context, probe->layer, call))) return false;
    compare_work(probe, before, context, ATTN_PHASE_DECODE, call);
    return true;
}

bool attn_probe_oracle(attn_probe *probe, const double *x, const double *memory,
                       bool wants_gradients, attn_rounding rounding, attn_oracle_call *out)
{
    const size_t memory_count = probe->B * probe->memory_length * probe->memory_width;
    double *parameters = attn_probe_doubles(probe, probe->P);
    double *dy = attn_probe_doubles(probe, probe->n);
    *out = (attn_oracle_call){.batch = probe->B,
                              .length = probe->T,
                              .parameters = parameters,
                              .x = x,
                              .memory = memory,
                              .memory_length = probe->memory_length,
                              .memory_width = probe->memory_width,
                              .y = attn_probe_doubles(probe, probe->n),
                              .rounding = rounding};
    if (wants_gradients) {
        out->dy = dy;
        out->dx = attn_probe_doubles(probe, probe->n);
        out->gradients = attn_probe_doubles(probe, probe->P);
        out->d_memory = attn_probe_doubles(probe, memory_count);
    }
    if (probe->status != ATTN_OK) return false;
    attn_widen(probe->P, probe->parameters, parameters);
    attn_widen(probe->n, probe->dy, dy);
    probe->status = attn_layer_oracle(probe->layer, out, probe->error);
    return probe->status == ATTN_OK;
}

/* ---- comparing --------------------------------------------------------------------------- */

double attn_probe_floor(const attn_probe *probe, const double *gradients)
{
    double largest = 0.0;
    for (size_t i = 0; i < probe->layer->n_parameters; i++) {
        const attn_parameter *p = &probe->layer->parameters[i];
        if (p->is_trained)
            largest = fmax(largest, attn_norm(p->count, attn_reals(gradients + p->offset)));
    }
    return ATTN_GRADIENT_FLOOR * largest;
}

void attn_probe_compare_gradients(attn_probe *probe, attn_verdict *verdict, const float *got,
                                  const double *want, const attn_tolerances *within,
                                  const char *what)
{
    const double floor = attn_probe_floor(probe, want);
    for (size_t i = 0; i < probe->layer->n_parameters; i++) {
        const attn_parameter *p = &probe->layer->parameters[i];
        if (!p->is_trained) continue;
        attn_verdict_error(verdict,
                           attn_relative_error(p->count, attn_singles(got + p->offset),
                                               attn_reals(want + p->offset), floor),
                           within->parameters[i], "gradient of %s%s", p->name, what);
    }
}
