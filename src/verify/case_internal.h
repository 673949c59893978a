/* Between the files that read, compute and write cases. */
#ifndef VERIFY_CASE_INTERNAL_H
#define VERIFY_CASE_INTERNAL_H

#include "files/safetensors.h"
#include "mechanisms/mechanism.h"
#include "verify/case.h"

enum { ATTN_CASE_OPTIONS_BYTES = 512, ATTN_CASE_OUTPUTS_MAX = 3 + ATTN_PARAMETERS_MAX };

/* What `__metadata__` says. */
typedef struct attn_case_config {
    char mechanism[ATTN_NAME_BYTES];
    char options[ATTN_CASE_OPTIONS_BYTES];
    size_t d_model, heads, length;
    bool is_causal;
} attn_case_config;

/* Maps the keys of `config` to a layer; `mechanism` may be NULL. */
ATTN_MUST_CHECK attn_status attn_case_config_read(attn_case_config *out,
                                                  const attn_safetensors *file, const char *path,
                                                  const char *mechanism, attn_error *error);

/* A computed tensor; in F32 the values are floats widened, so nothing is lost. */
typedef struct attn_case_output {
    char name[ATTN_NAME_BYTES + sizeof "grad."];
    size_t dimensions, shape[ATTN_DIMENSIONS_MAX], count;
    const double *values; /* in attn_case.computed */
    bool is_floored;      /* its error has the floor of gradients */
    double tolerance;
} attn_case_output;

struct attn_case {
    char *path;
    attn_safetensors *file;
    attn_case_config config;
    attn_layer *layer;
    size_t batch, memory_length, memory_width; /* memory: 0 for layers that read none */
    bool has_dy;
    attn_case_precision precision;
    double *computed; /* all outputs, behind each other */
    attn_case_output outputs[ATTN_CASE_OUTPUTS_MAX];
    attn_case_error errors[ATTN_CASE_OUTPUTS_MAX];
    size_t n_outputs;
};

/* Makes c->layer, in place of one that is there. */
ATTN_MUST_CHECK attn_status attn_case_make_layer(attn_case *c, attn_dtype dtype, attn_error *error);

/* The file's tensor when it has this shape and holds numbers only; else NULL and an error that
 * says what was expected. A tensor that is missing is an error too when `is_needed`. */
const attn_tensor *attn_case_tensor(const attn_case *c, const char *name, const size_t *shape,
                                    size_t dimensions, bool is_needed, attn_error *error);

#endif
