/* A layer on random inputs: what every property is checked with.
 *
 * Failure is sticky: after an allocation or a call fails, buffers are NULL, calls do nothing and
 * probe->status says why. A property returns as soon as a pointer it needs is NULL. */
#ifndef VERIFY_PROBE_H
#define VERIFY_PROBE_H

#include "mechanisms/mechanism.h"
#include "verify/tolerance.h"
#include "verify/verdict.h"

typedef struct attn_probe {
    const attn_layer *layer;
    attn_context *context;
    const attn_verify_options *options;
    attn_verification *result;
    attn_status status;
    attn_error *error;
    size_t B, T, C, n, P; /* batch, length, width, B T C, parameters */
    size_t memory_length, memory_width;
    float *parameters, *x, *dy;
    attn_bf16 *packed; /* NULL for float32 */
    float *memory;     /* NULL for layers that read none */
    uint32_t next_stream;
    attn_tolerances within; /* against the definition */
    attn_tolerances
        same;        /* of two float32 evaluations of the same sums, perhaps in another order */
    bool is_extreme; /* inputs are: some mechanisms then do more than the closed form says */
    struct attn_probe_block *blocks;
} attn_probe;

/* Draws parameters and inputs. */
ATTN_MUST_CHECK attn_status attn_probe_begin(attn_probe *probe, const attn_layer *layer,
                                             const attn_verify_options *options,
                                             attn_verification *result, attn_error *error);
void attn_probe_end(attn_probe *probe);

/* ---- memory ------------------------------------------------------------------------------ */

/* Memory full of NaN between guards; `name` is for the verdict on memory. Freed, and the guards
 * checked, by attn_probe_release(), which frees what came after `mark`. */
float *attn_probe_floats(attn_probe *probe, size_t count, const char *name);
double *attn_probe_doubles(attn_probe *probe, size_t count);
uint32_t *attn_probe_words(attn_probe *probe, size_t count);

struct attn_probe_block *attn_probe_mark(const attn_probe *probe);
void attn_probe_release(attn_probe *probe, struct attn_probe_block *mark);

/* ---- numbers ----------------------------------------------------------------------------- */

void attn_probe_normal(attn_probe *probe, double scale, size_t n, float *out);
size_t attn_probe_below(attn_probe *probe, size_t bound);

/* ---- calls ------------------------------------------------------------------------------- */

/* A context of the options' instruction set; `is_plain`: with products of our own in place of
 * the library's, so that the whole layer has one order of sums. NULL when that fails. */
attn_context *attn_probe_context(attn_probe *probe, size_t threads, bool is_plain);

/* The probe's whole batch, to be changed where a property needs another. */
attn_call attn_probe_call(const attn_probe *probe);

/* Forward: gives `call` y, scratch and, when `saves`, saved. False when the call did not happen:
 * the mechanism does not support it (probe->status stays ATTN_OK), or anything failed. */
bool attn_probe_forward(attn_probe *probe, attn_context *context, attn_call *call, bool saves);

/* Backward of such a call: gives it dx, gradients and d_memory. */
bool attn_probe_backward(attn_probe *probe, attn_context *context, attn_call *call);

/* One token; `call` has scratch, x, y, cache and position. */
bool attn_probe_decode(attn_probe *probe, attn_context *context, const attn_call *call);

/* The float64 definition of the probe's parameters on other inputs: a call that has been made, with
 * dx, gradients and d_memory when `wants_gradients`. */
bool attn_probe_oracle(attn_probe *probe, const double *x, const double *memory,
                       bool wants_gradients, attn_rounding rounding, attn_oracle_call *out);

/* ---- comparing --------------------------------------------------------------------------- */

/* The largest norm among the trained parameters' gradients, times ATTN_GRADIENT_FLOOR. */
double attn_probe_floor(const attn_probe *probe, const double *gradients);

/* Each trained parameter's gradient against `want`. */
void attn_probe_compare_gradients(attn_probe *probe, attn_verdict *verdict, const float *got,
                                  const double *want, const attn_tolerances *within,
                                  const char *what);

void attn_widen(size_t n, const float *from, double *to);

/* ---- the properties ---------------------------------------------------------------------- */

typedef void attn_property_check(attn_probe *probe);

attn_property_check attn_check_definition; /* output and gradients */
attn_property_check attn_check_extreme, attn_check_future, attn_check_prefix, attn_check_batch,
    attn_check_decode, attn_check_threads, attn_check_documents;

#endif
