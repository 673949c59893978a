/* The recurrence engine: normalised linear attention in chunks of C tokens, float32. With Q, K
 * [C][m] the features of a chunk, and S [m][d], z [m] the sums over all earlier tokens:
 *     A = tril(Q K^T),  num = A V + Q S,  den = rowsum(A) + Q z,  o = num / den,
 *     S += K^T V,  z += colsum(K)
 * Bidirectional: S and z are summed first, and A is left out.
 *
 * Backward, with dnum = do / den and dden = -rowsum(dnum o o):
 *     dA = tril(dnum V^T + dden 1^T),  dQ = dA K + dnum S^T + dden z^T          (forward order)
 *     dK = dA^T Q + V dS^T + 1 dz^T,   dV = A^T dnum + K dS,
 *     dS += Q^T dnum,  dz += Q^T dden                                           (reverse order)
 * The states before chunks are recomputed by a walk forward, T / C of them a head in the worker's
 * memory. A chunk never crosses the border of a document.
 *
 * Features may carry a reference per feature, so that exponentials of any size stay finite: K is
 * K exp(-rho) and Q is Q exp(rho), which cancels. When a key is too large for rho the chunk ends
 * before it, rho rises, and S and z are multiplied by `carry` = exp(old rho - new rho). */
#ifndef MECHANISMS_RECURRENCE_ENGINE_H
#define MECHANISMS_RECURRENCE_ENGINE_H

#include "mechanisms/mechanism.h"

enum { ATTN_CHUNK = 64 };

/* One head's walk over its chunks, as a feature map sees it. */
typedef struct attn_feature_walk {
    const attn_core_call *call;
    const float *shared; /* what prepare() made for all heads */
    float *own;          /* this head's reference; decoding keeps it beside S and z */
    attn_work *work;     /* to which the map adds */
} attn_feature_walk;

/* phi: d numbers of a query or key to m positive ones. Rows of q, k, dq, dk are call->row apart,
 * those of phi are m. */
typedef struct attn_feature_map {
    size_t (*count)(const attn_layer *layer);                   /* m */
    size_t (*shared_count)(const attn_layer *layer);            /* floats; NULL: none */
    size_t (*own_count)(const attn_layer *layer);               /* floats; NULL: none */
    void (*prepare)(const attn_core_call *call, float *shared); /* NULL: nothing to do */
    /* Features of `rows` keys; `is_first`: of a document's first ones. Returns how many fit the
     * reference, at least one. *has_carry: S and z must be multiplied by carry [m] before. */
    size_t (*keys)(const attn_feature_walk *walk, size_t rows, bool is_first, const float *k,
                   float *phi, float *carry, bool *has_carry);
    void (*queries)(const attn_feature_walk *walk, size_t rows, const float *q, float *phi);
    /* From dphi, which may be used up, to dq and dk. */
    void (*queries_gradient)(const attn_feature_walk *walk, size_t rows, const float *q,
                             const float *phi, float *dphi, float *dq);
    void (*keys_gradient)(const attn_feature_walk *walk, size_t rows, const float *k,
                          const float *phi, float *dphi, float *dk);
    /* Of one head with `tokens` queries and keys; backward, features of `again` keys are made
     * twice. */
    attn_work (*head_work)(const attn_layer *layer, attn_phase phase, uint64_t tokens,
                           uint64_t again);
    attn_work (*shared_work)(const attn_layer *layer); /* of prepare(); NULL: none */
} attn_feature_map;

/* The functions of an attn_core whose mechanism has `features`. */
size_t attn_recurrence_saved(const attn_layer *layer, size_t batch, size_t length);
size_t attn_recurrence_scratch(const attn_layer *layer, size_t threads, size_t batch,
                               size_t length);
size_t attn_recurrence_cache(const attn_layer *layer, size_t batch, size_t capacity);
void attn_recurrence_forward(const attn_core_call *call);
void attn_recurrence_backward(const attn_core_call *call);
void attn_recurrence_decode(const attn_core_call *call);
attn_work attn_recurrence_work(const attn_layer *layer, attn_phase phase, size_t batch,
                               size_t length, const uint32_t *document_start);

/* States around a chunk in a backward pass. */
typedef struct attn_chunk_states {
    const float *before, *after; /* S^T [dv][dk]; after: NULL where the document ends, dS is 0 */
    float *ds; /* [dk][dv], of the state behind the chunk; becomes that of the state before it */
} attn_chunk_states;

/* The chunk that starts at `first`: where it ends. */
size_t attn_chunk_end(size_t first, size_t length, const uint32_t *document_start);
/* Chunks of a sequence; those behind which their document goes on, and the tokens of these. */
typedef struct attn_chunk_counts {
    uint64_t all, passed, tokens_passed;
} attn_chunk_counts;
attn_chunk_counts attn_chunk_counts_of(size_t length, const uint32_t *document_start);
/* The chunk that ends before `end`: where it starts. */
size_t attn_chunk_start(size_t end, const uint32_t *document_start);

/* a [T][T] with 0 where the layer's order or documents hide the key: for oracles. */
attn_node *attn_recurrence_visible(attn_tape *tape, const attn_layer *layer, attn_node *a,
                                   const uint32_t *document_start);

#endif
