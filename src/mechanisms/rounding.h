/* Rounding to bfloat16 in float64 arithmetic: what a bfloat16 layer does to the factors of its
 * dense products, done to its definition. */
#ifndef MECHANISMS_ROUNDING_H
#define MECHANISMS_ROUNDING_H

#include <stddef.h>
#include <stdint.h>

typedef enum attn_rounding_mode {
    ATTN_ROUND_NOT,
    ATTN_ROUND_NEAREST, /* as kernels do */
    ATTN_ROUND_RANDOMLY /* to either neighbour, so that the mean is right: what such roundings may
                           do to a result, whichever way they fall */
} attn_rounding_mode;

typedef struct attn_rounding {
    attn_rounding_mode mode;
    uint64_t seed; /* of random directions */
} attn_rounding;

/* x[n], each to a bfloat16 number; `stream` tells the matrices of a computation apart. */
void attn_rounding_apply(attn_rounding rounding, uint32_t stream, size_t n, double *x);

#endif
