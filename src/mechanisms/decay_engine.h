/* The decay engine: linear recurrences that forget, without a normaliser, chunk by chunk, float32.
 * For one head, with S [dk][dv] and a_t in (0, 1]:
 *     S_t = diag(a_t) S_{t-1} + k_t v_t^T,   o_t = S_t^T q_t
 * a_t is one constant (retention) or one number a key feature (gated linear attention).
 *
 * In a chunk of C tokens, with D_ts = a_{s+1} .. a_t, D_t = a_1 .. a_t from its start, D_Ct all
 * behind t, and S the state before it:
 *     A_ij = sum_f q_if k_jf D_ij,f for j <= i,
 *     O = A V + (Q o D) S,   S' = diag(D_C) S + (K o D_C.)^T V
 * A constant's products are powers from a table. Vectors take A by blocks of 16 tokens. Within a
 * block the kernel `decayed_scores` lets each key decay token by token. For blocks I behind it keys
 * have decayed to I's start, queries from there, and A_I. is one product of both:
 *     A_ij = sum_f (q_if D_i,start(I)) (k_jf D_start(I),j)
 * Factors are products of numbers <= 1 and never quotients, so nothing overflows, and strong gates
 * cost no digits. No work is masked.
 *
 * Backward, in reverse order with dS the gradient of the state behind the chunk:
 *     dA = tril(dO V^T),  dV = A^T dO + (K o D_C.) dS,
 *     dQ = [dA K] + D o (dO S^T),  dK = [dA^T Q] + D_C. o (V dS^T),
 *     dg_t = sum_{s >= t} (q_s o dq_s - k_s o dk_s) + rowsum(dS o S'),   g = log a
 *     dS <- diag(D_C) dS + (Q o D)^T dO
 * Brackets, too, go by blocks: a gradient that meets a block's end takes the block's decay along. */
#ifndef MECHANISMS_DECAY_ENGINE_H
#define MECHANISMS_DECAY_ENGINE_H

#include "mechanisms/counted.h"
#include "mechanisms/recurrence_engine.h"

/* A chunk of one head, of one document; all matrices without gaps. */
typedef struct attn_decay_input {
    attn_counted on;
    size_t length, key_dim, value_dim; /* length at most ATTN_CHUNK */
    const float *q, *k, *v;            /* [c][dk], [c][dk], [c][dv] */
    const float *log_decay;            /* g [c][dk], <= 0; NULL: a constant, with these powers */
    const float *powers;
    float *room; /* attn_decay_room() */
} attn_decay_input;

/* Gradients of a chunk's rows; d_log_decay is NULL with a constant. */
typedef struct attn_decay_gradients {
    float *dq, *dk, *dv, *d_log_decay;
} attn_decay_gradients;

/* Floats of `room`, for either pass. */
size_t attn_decay_room(size_t key_dim, size_t value_dim);

/* A constant's powers 0 .. C, and C - 1 .. 0. Its work is ATTN_CHUNK others. */
enum { ATTN_DECAY_POWERS = 2 * ATTN_CHUNK + 1 };
void attn_decay_fill_powers(double decay, float *powers);

/* o [c][dv]; `state` [dk][dv] is S before the chunk, and S behind it afterwards. */
void attn_decay_forward(const attn_decay_input *in, float *state, float *o);

/* next = S^T [dv][dk] behind the chunk, from that before it; q is not read. */
void attn_decay_advance(const attn_decay_input *in, const float *state, float *next);

/* Gradients are overwritten. */
void attn_decay_backward(const attn_decay_input *in, const attn_chunk_states *states,
                         const float *d_o, const attn_decay_gradients *gradients);

/* Work of one head of one sequence. A decoding step is a forward pass of length 1. */
attn_work attn_decay_work(attn_phase phase, size_t key_dim, size_t value_dim, bool is_vector,
                          size_t length, const uint32_t *documents);

#endif
