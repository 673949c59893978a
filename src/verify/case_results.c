/* What was computed: written to a file, and compared with the case's own results. */
#include "base/error.h"
#include "base/memory.h"
#include "verify/case_internal.h"
#include "verify/compare.h"

#include <math.h>
#include <string.h>

/* ---- writing ----------------------------------------------------------------------------- */

static attn_status declare_outputs(const attn_case *c, attn_safetensors_writer *writer,
                                   attn_tensor_dtype dtype, attn_error *error)
{
    attn_status status = ATTN_OK;
    const struct {
        const char *key, *value;
    } texts[] = {{"layer", attn_safetensors_metadata(c->file, "layer")},
                 {"config", attn_safetensors_metadata(c->file, "config")},
                 {"mechanism", c->layer->name}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts && status == ATTN_OK; i++)
        status = attn_safetensors_describe(writer, texts[i].key, texts[i].value, error);
    for (size_t i = 0; i < c->n_outputs && status == ATTN_OK; i++)
        status = attn_safetensors_declare(writer, c->outputs[i].name, dtype, c->outputs[i].shape,
                                          c->outputs[i].dimensions, error);
    return status;
}

static attn_status write_values(const attn_case *c, attn_safetensors_writer *writer,
                                const attn_case_output *output, attn_error *error)
{
    enum { PIECE = 1024 };
    float singles[PIECE];
    if (c->precision == ATTN_CASE_F64)
        return attn_safetensors_write(writer, output->values,
                                      output->count * sizeof *output->values, error);
    attn_status status = ATTN_OK;
    for (size_t first = 0; first < output->count && status == ATTN_OK; first += PIECE) {
        const size_t n = attn_smaller(PIECE, output->count - first);
        for (size_t i = 0; i < n; i++) singles[i] = (float)output->values[first + i];
        status = attn_safetensors_write(writer, singles, n * sizeof *singles, error);
    }
    return status;
}

attn_status attn_case_write(const attn_case *c, const char *path, attn_error *error)
{
    const attn_tensor_dtype dtype = c->precision == ATTN_CASE_F64 ? ATTN_DTYPE_F64 : ATTN_DTYPE_F32;
    attn_safetensors_writer *writer = NULL;
    attn_status status = attn_safetensors_create(&writer, path, error);
    if (status == ATTN_OK) status = declare_outputs(c, writer, dtype, error);
    for (size_t i = 0; i < c->n_outputs && status == ATTN_OK; i++)
        status = write_values(c, writer, &c->outputs[i], error);
    if (status == ATTN_OK) status = attn_safetensors_commit(writer, error);
    attn_safetensors_writer_free(writer);
    return status;
}

/* ---- comparing --------------------------------------------------------------------------- */

/* Gradients that the file holds and nothing could be computed for. */
static attn_status check_gradients(const attn_case *c, attn_error *error)
{
    for (size_t i = 0; i < attn_safetensors_count(c->file) && !c->has_dy; i++) {
        const char *name = attn_safetensors_at(c->file, i)->name;
        if (strncmp(name, "grad.", 5) == 0 || strcmp(name, "dx") == 0 ||
            strcmp(name, "dmemory") == 0)
            return attn_fail(error, ATTN_ENOTFOUND,
                             "%s: %s cannot be compared: there is no dy to compute it from",
                             c->path, name);
    }
    return ATTN_OK;
}

/* The file's tensor of each output, widened; NULL where it has none. */
static attn_status read_wanted(const attn_case *c, double *block, const double **wanted,
                               attn_error *error)
{
    attn_error own = {0};
    bool is_any = false;
    for (size_t i = 0; i < c->n_outputs; i++) {
        const attn_case_output *o = &c->outputs[i];
        const attn_tensor *tensor =
            attn_case_tensor(c, o->name, o->shape, o->dimensions, false, &own);
        if (own.status != ATTN_OK) return attn_fail(error, own.status, "%s", own.text);
        if (!tensor) continue;
        is_any = true;
        attn_tensor_to_double(tensor, block);
        wanted[i] = block;
        block += o->count;
    }
    if (is_any) return ATTN_OK;
    return attn_fail(error, ATTN_ENOTFOUND, "%s: neither y nor a gradient to compare with",
                     c->path);
}

attn_status attn_case_compare(attn_case *c, const attn_case_error **errors, size_t *count,
                              attn_error *error)
{
    const double *wanted[ATTN_CASE_OUTPUTS_MAX] = {NULL};
    size_t total = 0;
    double floor = 0.0;
    attn_status status = check_gradients(c, error);
    if (status != ATTN_OK) return status;
    for (size_t i = 0; i < c->n_outputs; i++) total += c->outputs[i].count;
    double *block = attn_alloc_array(ATTN_MEMORY_OTHER, total, sizeof *block);
    status = block ? read_wanted(c, block, wanted, error)
                   : attn_fail(error, ATTN_EMEMORY, "no memory to compare %s", c->path);
    for (size_t i = 0; i < c->n_outputs; i++)
        if (c->outputs[i].is_floored && wanted[i])
            floor = fmax(floor, attn_norm(c->outputs[i].count, attn_reals(wanted[i])));
    for (size_t i = 0; i < c->n_outputs && status == ATTN_OK; i++) {
        const attn_case_output *o = &c->outputs[i];
        c->errors[i] = (attn_case_error){
            .name = o->name, .is_known = wanted[i] != NULL, .tolerance = o->tolerance};
        if (wanted[i])
            c->errors[i].error =
                attn_relative_error(o->count, attn_reals(o->values), attn_reals(wanted[i]),
                                    o->is_floored ? ATTN_GRADIENT_FLOOR * floor : 0.0);
    }
    attn_free(block);
    *errors = c->errors;
    *count = c->n_outputs;
    return status;
}
