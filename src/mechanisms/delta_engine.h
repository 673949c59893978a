/* The delta engine: states that correct themselves, chunk by chunk, float32. For one head, with S [dk][dv], b_t in (0, 1) and a_t = exp(g_t) in (0, 1]:
 *     S_t = a_t S_{t-1} + b_t k_t r_t^T,   r_t = v_t - a_t S_{t-1}^T k_t,   o_t = S_t^T q_t
 * r_t is what the state got wrong about v_t. |k_t| = 1, or states explode.
 *
 * In a chunk, with G_t = g_1 + .. + g_t, D = diag(e^{G_t}), E = diag(e^{G_C - G_t}), Gamma_ij =
 * e^{G_i - G_j} for j <= i, and S the state before it:
 *     (I + M diag(b)) R = V - D K S,   M = tril(K K^T o Gamma, -1),   U = diag(b) R,
 *     P = tril(Q K^T o Gamma),   O = D Q S + P U,   S' = e^{G_C} S + (E K)^T U
 * The unit lower triangular system is solved by substitution, never by an inverse. Exponents
 * are sums of numbers <= 0, never differences of prefix sums.
 *
 * Backward, in reverse order with dS the gradient of the state behind the chunk:
 *     (I + diag(b) M)^T dU = P^T dO + E K dS,   dR = diag(b) dU,   dV = dR,   db_t = dU_t . R_t,
 *     dP = tril(dO U^T) o Gamma,   dM = -tril(dR U^T, -1) o Gamma,
 *     dQ = D dO S^T + dP K,   dK = -D dR S^T + E U dS^T + dM K + dM^T K + dP^T Q,
 *     dg_t = all that decays at t: sum_{i >= t > j} (dP o q_i . k_j + dM o k_i . k_j)
 *            + sum_{i >= t} (q_i . (D dO S^T)_i - k_i . (D dR S^T)_i)
 *            + sum_{j < t} k_j . (E U dS^T)_j + e^{G_C} <dS, S>,
 *     dS <- e^{G_C} dS + (D Q)^T dO - (D K)^T dR
 * The forward pass keeps R, as large as V: it saves the triangular systems a second solution, and
 * gives the states at chunk starts by one product each. */
#ifndef MECHANISMS_DELTA_ENGINE_H
#define MECHANISMS_DELTA_ENGINE_H

#include "mechanisms/counted.h"
#include "mechanisms/recurrence_engine.h"

/* A chunk of one head, of one document; all matrices without gaps. */
typedef struct attn_delta_input {
    attn_counted on;
    size_t length, key_dim, value_dim; /* length at most ATTN_CHUNK */
    const float *q, *k, *v;            /* [c][dk], [c][dk], [c][dv] */
    const float *rate;                 /* b [c] */
    const float *log_decay;            /* g [c], <= 0; NULL: a = 1 */
    float *room;                       /* attn_delta_room() */
} attn_delta_input;

typedef struct attn_delta_gradients {
    float *dq, *dk, *dv, *d_rate;
    float *d_log_decay; /* written with decays only */
} attn_delta_gradients;

/* Floats of `room`, for either pass. */
size_t attn_delta_room(size_t key_dim, size_t value_dim);

/* o [c][dv]; `state` [dk][dv] is S before the chunk, and S behind it afterwards; R [c][dv] is kept
 * for backward. */
void attn_delta_forward(const attn_delta_input *in, float *state, float *o, float *r);

/* next = S^T [dv][dk] behind the chunk, from that before it; of inputs, k and b and g are read. */
void attn_delta_advance(const attn_delta_input *in, const float *r, const float *state,
                        float *next);

/* Gradients are overwritten. */
void attn_delta_backward(const attn_delta_input *in, const attn_chunk_states *states,
                         const float *r, const float *d_o, const attn_delta_gradients *gradients);

/* Work of one head of one sequence. A decoding step is a forward pass of length 1. */
attn_work attn_delta_work(attn_phase phase, size_t key_dim, size_t value_dim, bool has_decay,
                          size_t length, const uint32_t *documents);

#endif
