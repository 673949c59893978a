/* Private to the recurrence engine: what its forward and backward halves share. */
#ifndef MECHANISMS_RECURRENCE_CHUNK_H
#define MECHANISMS_RECURRENCE_CHUNK_H

#include "mechanisms/recurrence_engine.h"

/* phi of `rows` rows, to [rows][d] */
void attn_feature_rows(const attn_kernels *kernels, size_t rows, size_t d, const float *x,
                       size_t row, float *phi);

/* a(i, j) = 0 for j > i; rows are ATTN_CHUNK apart */
void attn_clear_upper(size_t c, float *a);

/* Floats of one worker's memory, and work of one chunk of c tokens, in the backward pass. */
size_t attn_recurrence_backward_worker(size_t d, size_t length);
attn_work attn_recurrence_backward_chunk(uint64_t c, uint64_t d, bool is_causal);

#endif
