/* The first outputs of a document again, in double, where float32 has lost too much of them.
 *
 * A norm behind a recurrence divides by |o_t|, the gradients of what made o_t with it. An error of
 * o_t counts by the ratio of its terms to |o_t|, and the terms of a document's first tokens are so
 * few that they nearly cancel now and then: o_0 = (q_0 . k_0) v_0. Where they do, q, k, v and
 * decays are computed again in double from x and the weights, and o_t from them. */
#ifndef MECHANISMS_RECURRENT_EXACT_H
#define MECHANISMS_RECURRENT_EXACT_H

#include "mechanisms/recurrent_layer.h"

/* Mends o [c][value_dim] of a document's first chunk right after attn_recurrence.forward(); a row
 * depends on no later one. What is computed again depends on data and is counted nowhere. */
void attn_recurrent_mend(const attn_recurrent_head *head, float *room, float *o);

/* Floats of `room`. */
size_t attn_recurrent_mend_room(const attn_layer *layer);

#endif
