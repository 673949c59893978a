/* A case: one layer's inputs in a safetensors file, in the form of the golden files, and what
 * the layer makes of them. docs/verifying.md describes the form. */
#ifndef VERIFY_CASE_H
#define VERIFY_CASE_H

#include "attn/layer.h"

typedef struct attn_case attn_case;

/* How a case is computed: by the float64 definition, by the float32 kernels, or by those with the
 * factors of dense products in bfloat16. */
typedef enum attn_case_precision {
    ATTN_CASE_F64,
    ATTN_CASE_F32,
    ATTN_CASE_BF16
} attn_case_precision;

/* Read the file, make its layer and check every tensor against it.
 *
 * @param mechanism in, opt what computes the layer; NULL: the one that the file names.
 *
 * ATTN_ENOTFOUND, ATTN_EIO, ATTN_EMEMORY, and ATTN_EFORMAT, ATTN_ESHAPE, ATTN_EARGUMENT or
 * ATTN_EUNSUPPORTED with the tensor or key that does not fit. */
ATTN_MUST_CHECK attn_status attn_case_open(attn_case **out, const char *path, const char *mechanism,
                                           attn_error *error);
void attn_case_close(attn_case *c); /* NULL is fine */

/* Sizes and names of an open case. */
typedef struct attn_case_facts {
    const char *mechanism, *options;
    size_t batch, length, d_model, heads;
    bool is_causal, has_gradients; /* gradients need the file's dy */
} attn_case_facts;

attn_case_facts attn_case_about(const attn_case *c);

/* Compute y, and dx, dmemory and grad.* when the file holds dy. `isa` and `threads` are those of
 * attn_context_create() and mean nothing to F64. Once a case. ATTN_EFORMAT when a result is not
 * finite, which inputs near the ends of the range make possible. */
ATTN_MUST_CHECK attn_status attn_case_compute(attn_case *c, attn_case_precision precision,
                                              const char *isa, size_t threads, attn_error *error);

/* Write what was computed, as F64 or else F32, under the names of the form. */
ATTN_MUST_CHECK attn_status attn_case_write(const attn_case *c, const char *path,
                                            attn_error *error);

/* One computed tensor against the file's. */
typedef struct attn_case_error {
    const char *name;
    bool is_known; /* false: the file has no such tensor */
    double error;  /* attn_relative_error() with the floor of gradients */
    double tolerance;
} attn_case_error;

/* Compare all that was computed; `errors` lives as long as the case. ATTN_ENOTFOUND when the file holds nothing to compare with, or holds gradients and
 * no dy to compute them from; ATTN_ESHAPE; ATTN_EARGUMENT for a NaN in the file. */
ATTN_MUST_CHECK attn_status attn_case_compare(attn_case *c, const attn_case_error **errors,
                                              size_t *count, attn_error *error);

#endif
