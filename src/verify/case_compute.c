/* Computing a case, by the oracle or by the kernels. */
#include "base/error.h"
#include "base/memory.h"
#include "mechanisms/oracle.h"
#include "verify/case_internal.h"
#include "verify/compare.h"
#include "verify/tolerance.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- outputs ----------------------------------------------------------------------------- */

/* Sizes of a case's tensors, all checked against the file. */
typedef struct sizes {
    size_t x, memory, parameters;
} sizes;

static sizes sizes_of(const attn_case *c)
{
    return (sizes){.x = c->batch * c->config.length * c->config.d_model,
                   .memory = c->batch * c->memory_length * c->memory_width,
                   .parameters = c->layer->parameter_count};
}

static void add_output(attn_case *c, const char *prefix, const char *name, const size_t *shape,
                       size_t dimensions, const double *values, bool is_floored, double tolerance)
{
    attn_case_output *o = &c->outputs[c->n_outputs++];
    snprintf(o->name, sizeof o->name, "%s%s", prefix, name);
    o->dimensions = dimensions;
    o->count = 1;
    for (size_t i = 0; i < dimensions; i++) {
        o->shape[i] = shape[i];
        o->count *= shape[i];
    }
    o->values = values;
    o->is_floored = is_floored;
    o->tolerance = tolerance;
}

/* Where each result lies within c->computed. */
typedef struct results {
    double *y, *dx, *gradients, *d_memory;
} results;

static results results_of(const attn_case *c)
{
    const sizes n = sizes_of(c);
    return (results){.y = c->computed,
                     .dx = c->computed + n.x,
                     .d_memory = c->computed + 2 * n.x,
                     .gradients = c->computed + 2 * n.x + n.memory};
}

static void list_outputs(attn_case *c, const attn_tolerances *within)
{
    const sizes n = sizes_of(c);
    const results r = results_of(c);
    const size_t shape[] = {c->batch, c->config.length, c->config.d_model};
    const size_t memory_shape[] = {c->batch, c->memory_length, c->memory_width};
    c->n_outputs = 0;
    add_output(c, "", "y", shape, 3, r.y, false, within->y);
    if (!c->has_dy) return;
    add_output(c, "", "dx", shape, 3, r.dx, false, within->dx);
    if (n.memory)
        add_output(c, "", "dmemory", memory_shape, 3, r.d_memory, false, within->d_memory);
    for (size_t i = 0; i < c->layer->n_parameters; i++) {
        const attn_parameter *p = &c->layer->parameters[i];
        if (p->is_trained)
            add_output(c, "grad.", p->name, p->shape, p->dimensions, r.gradients + p->offset, true,
                       within->parameters[i]);
    }
}

/* ---- inputs ------------------------------------------------------------------------------ */

/* The inputs in one block of either type, x first. */
typedef struct inputs {
    size_t x, dy, memory, parameters, count; /* offsets, and the end */
} inputs;

static inputs inputs_of(const attn_case *c)
{
    const sizes n = sizes_of(c);
    return (inputs){.dy = n.x,
                    .memory = 2 * n.x,
                    .parameters = 2 * n.x + n.memory,
                    .count = 2 * n.x + n.memory + n.parameters};
}

typedef void read_tensor(const attn_tensor *tensor, void *block, size_t offset);

static void read_double(const attn_tensor *tensor, void *block, size_t offset)
{
    attn_tensor_to_double(tensor, (double *)block + offset);
}

static void read_float(const attn_tensor *tensor, void *block, size_t offset)
{
    attn_tensor_to_float(tensor, (float *)block + offset);
}

static void read_inputs(const attn_case *c, void *block, read_tensor *read)
{
    const inputs at = inputs_of(c);
    read(attn_safetensors_find(c->file, "x"), block, at.x);
    if (c->has_dy) read(attn_safetensors_find(c->file, "dy"), block, at.dy);
    if (c->memory_width) read(attn_safetensors_find(c->file, "memory"), block, at.memory);
    for (size_t i = 0; i < c->layer->n_parameters; i++) {
        char name[ATTN_NAME_BYTES + sizeof "param."];
        snprintf(name, sizeof name, "param.%s", c->layer->parameters[i].name);
        read(attn_safetensors_find(c->file, name), block,
             at.parameters + c->layer->parameters[i].offset);
    }
}

/* ---- computing --------------------------------------------------------------------------- */

/* By the definition; `moves`, if not NULL: what the roundings of bfloat16 do to it. */
static attn_status compute_f64(const attn_case *c, attn_tolerances *moves, attn_error *error)
{
    enum { DRAWS = 8, SEED = 1 }; /* the same file has the same tolerances */
    const inputs at = inputs_of(c);
    const results r = results_of(c);
    double *in = attn_alloc_array(ATTN_MEMORY_OTHER, at.count, sizeof *in);
    if (!in) return attn_fail(error, ATTN_EMEMORY, "no memory for the tensors of %s", c->path);
    read_inputs(c, in, read_double);
    const attn_oracle_call call = {.batch = c->batch,
                                   .length = c->config.length,
                                   .parameters = in + at.parameters,
                                   .x = in,
                                   .memory = c->memory_width ? in + at.memory : NULL,
                                   .memory_length = c->memory_length,
                                   .memory_width = c->memory_width,
                                   .y = r.y,
                                   .dy = c->has_dy ? in + at.dy : NULL,
                                   .dx = r.dx,
                                   .gradients = r.gradients,
                                   .d_memory = r.d_memory};
    attn_status status = attn_layer_oracle(c->layer, &call, error);
    if (moves && status == ATTN_OK)
        status = attn_bf16_moves(c->layer, &call, DRAWS, SEED, moves, error);
    attn_free(in);
    return status;
}

static attn_status run_kernels(const attn_case *c, attn_context *context, const float *in,
                               float *out, attn_error *error)
{
    const inputs at = inputs_of(c);
    const sizes n = sizes_of(c);
    const size_t saved_count = attn_layer_saved_count(c->layer, c->batch, c->config.length);
    const size_t scratch_count =
        attn_layer_scratch_count(c->layer, context, c->batch, c->config.length);
    float *saved = attn_alloc_array(ATTN_MEMORY_ACTIVATIONS, saved_count, sizeof *saved);
    float *scratch = attn_alloc_array(ATTN_MEMORY_WORKSPACE, scratch_count, sizeof *scratch);
    const size_t packed_count = attn_layer_packed_count(c->layer);
    attn_bf16 *packed = attn_alloc_array(ATTN_MEMORY_PARAMETERS, packed_count, sizeof *packed);
    const attn_call call = {.batch = c->batch,
                            .length = c->config.length,
                            .parameters = in + at.parameters,
                            .packed = packed,
                            .x = in,
                            .y = out,
                            .saved = saved,
                            .scratch = scratch,
                            .memory = c->memory_width ? in + at.memory : NULL,
                            .memory_length = c->memory_length,
                            .dy = in + at.dy,
                            .dx = out + n.x,
                            .d_memory = c->memory_width ? out + 2 * n.x : NULL,
                            .gradients = out + 2 * n.x + n.memory};
    attn_status status = ATTN_OK;
    if (!saved || !scratch || !packed)
        status = attn_fail(error, ATTN_EMEMORY, "no memory for a call of %s", c->layer->name);
    if (status == ATTN_OK) {
        attn_layer_pack(context, c->layer, call.parameters, packed);
        status = attn_layer_forward(context, c->layer, &call);
        if (status == ATTN_OK && c->has_dy) status = attn_layer_backward(context, c->layer, &call);
        if (status != ATTN_OK)
            (void)attn_fail(error, status, "%s: %s", c->path, attn_context_error(context)->text);
    }
    attn_free(packed);
    attn_free(scratch);
    attn_free(saved);
    return status;
}

static attn_status compute_single(const attn_case *c, size_t n_computed, const char *isa,
                                  size_t threads, attn_error *error)
{
    attn_context *context = NULL;
    attn_status status = attn_context_create(&context, threads, isa, error);
    if (status != ATTN_OK) return status;
    float *in = attn_alloc_array(ATTN_MEMORY_OTHER, inputs_of(c).count, sizeof *in);
    float *out = attn_alloc_array(ATTN_MEMORY_OTHER, n_computed, sizeof *out);
    if (in && out) {
        read_inputs(c, in, read_float);
        status = run_kernels(c, context, in, out, error);
        for (size_t i = 0; i < n_computed; i++) c->computed[i] = (double)out[i];
    } else {
        status = attn_fail(error, ATTN_EMEMORY, "no memory for the tensors of %s", c->path);
    }
    attn_free(out);
    attn_free(in);
    attn_context_free(context);
    return status;
}

/* Finite inputs may still leave the range of float32 on their way. */
static attn_status check_results(const attn_case *c, attn_error *error)
{
    for (size_t i = 0; i < c->n_outputs; i++) {
        const attn_case_output *o = &c->outputs[i];
        for (size_t k = 0; k < o->count; k++)
            if (!isfinite(o->values[k]))
                return attn_fail(error, ATTN_EFORMAT,
                                 "%s: element %zu of the computed %s is %s: the inputs leave the "
                                 "range of %s",
                                 c->path, k, o->name, isnan(o->values[k]) ? "NaN" : "infinite",
                                 c->precision == ATTN_CASE_F64 ? "float64" : "float32");
    }
    return ATTN_OK;
}

/* The layer in bfloat16, and the tolerances of its results. */
static attn_status prepare_bf16(attn_case *c, attn_tolerances *within, attn_error *error)
{
    attn_tolerances moves;
    attn_status status = compute_f64(c, &moves, error);
    if (status != ATTN_OK) return status;
    *within = attn_tolerances_with(ATTN_TOLERANCE_F32, ATTN_BF16_DEVIATIONS, &moves);
    return attn_case_make_layer(c, ATTN_BF16, error);
}

attn_status attn_case_compute(attn_case *c, attn_case_precision precision, const char *isa,
                              size_t threads, attn_error *error)
{
    const sizes n = sizes_of(c);
    const size_t n_computed = 2 * n.x + n.memory + n.parameters;
    c->precision = precision;
    c->computed = attn_alloc_array(ATTN_MEMORY_OTHER, n_computed, sizeof *c->computed);
    if (!c->computed)
        return attn_fail(error, ATTN_EMEMORY, "no memory for the results of %s", c->path);
    attn_tolerances within = attn_tolerances_uniform(
        precision == ATTN_CASE_F64 ? ATTN_TOLERANCE_F64 : ATTN_TOLERANCE_F32);
    attn_status status = ATTN_OK;
    if (precision == ATTN_CASE_BF16) status = prepare_bf16(c, &within, error);
    if (status == ATTN_OK)
        status = precision == ATTN_CASE_F64 ? compute_f64(c, NULL, error)
                                            : compute_single(c, n_computed, isa, threads, error);
    list_outputs(c, &within);
    return status == ATTN_OK ? check_results(c, error) : status;
}
