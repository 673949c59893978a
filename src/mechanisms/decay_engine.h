/* The decay engine: linear recurrences that forget, without a normaliser, in chunks of C tokens,
 * float32. For one head, with S [dk][dv] and a_t = exp(g_t) in (0, 1]:
 *     S_t = diag(a_t) S_{t-1} + k_t v_t^T,   o_t = S_t^T q_t
 * a_t is one constant (retention) or one number a key feature (gated linear attention).
 *
 * In a chunk, with G_t = g_1 + .. + g_t from its start and S the state before it:
 *     A_ij = sum_f q_if k_jf exp(G_if - G_jf) for j <= i,
 *     O = A V + (Q o e^G) S,   S' = diag(e^{G_C}) S + (K o e^{G_C - G})^T V
 * A constant's exponentials are powers from a table. For vectors A is built by halves: the pairs
 * (i, j) on either side of the middle m of a block of 2, 4, .. C tokens are the product of
 * q_i o exp(g_m + .. + g_i) with k_j o exp(g_{j+1} + .. + g_{m-1}). Every exponent is a sum of
 * numbers <= 0, never a difference of prefix sums, so nothing overflows and strong gates cost no
 * digits; all blocks together are the strict lower triangle, without masked work.
 *
 * Backward, in reverse order with dS the gradient of the state behind the chunk:
 *     dA = tril(dO V^T),  dV = A^T dO + (K o e^{G_C - G}) dS,
 *     dQ = [dA K] + e^G o (dO S^T),  dK = [dA^T Q] + e^{G_C - G} o (V dS^T),  brackets by halves,
 *     dg_t = sum_{s >= t} (q_s o dq_s - k_s o dk_s) + rowsum(dS o S'),
 *     dS <- diag(e^{G_C}) dS + (Q o e^G)^T dO
 * The states at chunk starts are recomputed into the worker's memory, T / C of them for one head
 * at a time; nothing is kept by the forward pass. */
#ifndef MECHANISMS_DECAY_ENGINE_H
#define MECHANISMS_DECAY_ENGINE_H

#include "mechanisms/counted.h"
#include "mechanisms/recurrence_engine.h"

/* One head of one sequence; all matrices without gaps. A document starts with S = 0. */
typedef struct attn_decay_head {
    attn_counted on;
    size_t length, key_dim, value_dim;
    const uint32_t *documents; /* NULL: one */
    const float *q, *k, *v;    /* [T][dk], [T][dk], [T][dv] */
    const float *log_decay;    /* g [T][dk], <= 0; NULL: the constant `decay` */
    double decay;
    float *room; /* attn_decay_room() */
} attn_decay_head;

/* Gradients of a head; d_log_decay is NULL with a constant. */
typedef struct attn_decay_gradients {
    float *dq, *dk, *dv, *d_log_decay;
} attn_decay_gradients;

/* Floats of `room`, for either pass. */
size_t attn_decay_room(size_t length, size_t key_dim, size_t value_dim);

/* o [T][dv]; `state` [dk][dv] is S before the first token, and S behind the last afterwards. */
void attn_decay_forward(const attn_decay_head *head, float *state, float *o);

/* For a forward pass that started with S = 0; gradients are overwritten. */
void attn_decay_backward(const attn_decay_head *head, const float *d_o,
                         const attn_decay_gradients *gradients);

/* Work of one head of one sequence. A decoding step is a forward pass of length 1. */
attn_work attn_decay_work(attn_phase phase, size_t key_dim, size_t value_dim, bool is_vector,
                          size_t length, const uint32_t *documents);

#endif
