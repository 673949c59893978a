/* The recurrence engine: normalised linear attention in chunks of C tokens, float32. With Q, K
 * the feature maps of a chunk, and S [d][d], z [d] the sums over all earlier tokens:
 *     A = tril(Q K^T),  num = A V + Q S,  den = rowsum(A) + Q z,  o = num / den,
 *     S += K^T V,  z += colsum(K)
 * Bidirectional: S and z are summed first, and A is left out.
 *
 * Backward, with dnum = do / den and dden = -rowsum(dnum o o):
 *     dA = tril(dnum V^T + dden 1^T),  dQ = dA K + dnum S^T + dden z^T          (forward order)
 *     dK = dA^T Q + V dS^T + 1 dz^T,   dV = A^T dnum + K dS,
 *     dS += Q^T dnum,  dz += Q^T dden                                           (reverse order)
 * States are recomputed, never kept. A chunk never crosses the border of a document. */
#ifndef MECHANISMS_RECURRENCE_ENGINE_H
#define MECHANISMS_RECURRENCE_ENGINE_H

#include "mechanisms/mechanism.h"

enum { ATTN_CHUNK = 64 };

size_t attn_recurrence_saved(const attn_layer *layer, size_t batch, size_t length);
size_t attn_recurrence_scratch(const attn_layer *layer, size_t threads, size_t batch,
                               size_t length);
size_t attn_recurrence_cache(const attn_layer *layer, size_t batch, size_t capacity);
void attn_recurrence_forward(const attn_core_call *call);
void attn_recurrence_backward(const attn_core_call *call);
void attn_recurrence_decode(const attn_core_call *call);
attn_work attn_recurrence_work(const attn_layer *layer, attn_phase phase, size_t batch,
                               size_t length, const uint32_t *document_start);

/* The chunk that starts at `first`: where it ends. */
size_t attn_chunk_end(size_t first, size_t length, const uint32_t *document_start);
/* The chunk that ends before `end`: where it starts. */
size_t attn_chunk_start(size_t end, const uint32_t *document_start);

/* a [T][T] with 0 where the layer's order or documents hide the key: for oracles. */
attn_node *attn_recurrence_visible(attn_tape *tape, const attn_layer *layer, attn_node *a,
                                   const uint32_t *document_start);

#endif
