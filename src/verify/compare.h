/* The one rule by which tensors are compared (docs/verifying.md). */
#ifndef VERIFY_COMPARE_H
#define VERIFY_COMPARE_H

#include <stddef.h>

/* Floats or doubles, whichever is not NULL. */
typedef struct attn_numbers {
    const float *single;
    const double *real;
} attn_numbers;

static inline attn_numbers attn_singles(const float *values)
{
    return (attn_numbers){.single = values};
}

static inline attn_numbers attn_reals(const double *values)
{
    return (attn_numbers){.real = values};
}

/* Tolerances of relative errors. */
#define ATTN_TOLERANCE_F64 1e-10
#define ATTN_TOLERANCE_F32 2e-5

/* A gradient's norm counts as at least this share of the largest gradient's: some are zero in
 * exact arithmetic, as that of every softmax attention's key bias. */
#define ATTN_GRADIENT_FLOOR 0.01

/* The 2-norm. */
double attn_norm(size_t n, attn_numbers values);

/* |got - want| / max(|want|, floor) in 2-norms; 0 when got equals want. NaN or infinite when
 * a value is, so accept with `error <= tolerance`, never refuse with `>`. */
double attn_relative_error(size_t n, attn_numbers got, attn_numbers want, double floor);

#endif
