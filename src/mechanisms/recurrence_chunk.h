/* Private to the recurrence engine: what its forward and backward halves share. */
#ifndef MECHANISMS_RECURRENCE_CHUNK_H
#define MECHANISMS_RECURRENCE_CHUNK_H

#include "mechanisms/head_rows.h"
#include "mechanisms/recurrence_engine.h"

/* The sizes of a call: m features of heads of d, and the floats that a map wants. */
typedef struct attn_recurrence_sizes {
    size_t m, d, shared, own;
} attn_recurrence_sizes;

attn_recurrence_sizes attn_recurrence_sizes_of(const attn_layer *layer);

/* Prepares the features in call->scratch and counts their work. */
void attn_recurrence_prepare(const attn_core_call *call);

/* Whether chunks have an A of their own: not when all tokens see all others. */
bool attn_recurrence_inner(const attn_layer *layer, size_t length);

/* sum [n] += the rows of x [rows][n], each times its factor; factors NULL: all 1 */
void attn_add_rows(const attn_kernels *kernels, size_t rows, size_t n, const float *factors,
                   const float *x, float *sum);

/* Floats of one worker's memory, and work of one chunk of c tokens without its features, in the
 * backward pass. `is_absorbed`: the state behind the chunk is wanted. */
size_t attn_recurrence_backward_worker(attn_recurrence_sizes sizes, size_t length, size_t together);
attn_work attn_recurrence_backward_chunk(attn_recurrence_sizes sizes, uint64_t c, bool is_causal,
                                         bool is_absorbed);

#endif
