/* Angles of rotary embedding (Su et al., RoFormer, 2021): position p turns pair i of `half` by
 * p base^(-i / half). Rotations themselves are the kernel slot `rotate`. */
#ifndef MECHANISMS_ROPE_H
#define MECHANISMS_ROPE_H

#include "mechanisms/tape.h"

/* cosine and sine [count][half] of positions first, first + 1, .. */
void attn_rope_fill(size_t first, size_t count, size_t half, float *cosine, float *sine);

/* A row [2 half] turned by a position, in double. */
void attn_rope_turn(size_t position, size_t half, double *row);

/* Row t of u [T][2 half] turned by its position in its document, in float64. */
attn_node *attn_rope_oracle(attn_tape *tape, attn_node *u, const uint32_t *document_start);

#endif
