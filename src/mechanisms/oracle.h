/* A layer in float64, by its definition, with gradients from the tape. */
#ifndef MECHANISMS_ORACLE_H
#define MECHANISMS_ORACLE_H

#include "attn/layer.h"
#include "mechanisms/rounding.h"

/* All in double; layouts as in attn_call. */
typedef struct attn_oracle_call {
    size_t batch, length;
    const double *parameters;
    const double *x;
    const uint32_t *document_start; /* NULL: one document a sequence */
    const double *memory;           /* [B][S][C_memory] for mechanisms that read one, else NULL */
    size_t memory_length, memory_width;
    double *y;
    const double *dy;       /* NULL: forward only */
    double *dx;             /* with dy; overwritten */
    double *gradients;      /* with dy; overwritten; 0 for fixed buffers */
    double *d_memory;       /* with dy and memory; overwritten */
    attn_rounding rounding; /* none, or what a bfloat16 layer rounds */
} attn_oracle_call;

/* ATTN_EMEMORY is the only failure. */
ATTN_MUST_CHECK attn_status attn_layer_oracle(const attn_layer *layer, const attn_oracle_call *call,
                                              attn_error *error);

#endif
