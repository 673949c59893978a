/* Private to the decay engine: a chunk's decays and its matrix A, for both passes. */
#ifndef MECHANISMS_DECAY_CHUNK_H
#define MECHANISMS_DECAY_CHUNK_H

#include "mechanisms/decay_engine.h"

/* What is made of a chunk's inputs. */
typedef struct attn_decay_chunk {
    float *a;         /* [C][C], 0 above the diagonal */
    float *q_in;      /* [C][dk]: Q o D */
    float *k_out_t;   /* [dk][C]: (K o D_C.)^T */
    float *total;     /* [dk]: D_C */
    float *rows;      /* [C][max(dk, dv)] */
    float *turned;    /* [max(dk, dv)][C]: a transpose */
    float *decay;     /* [C][dk], of vectors: a */
    float *within;    /* [C][dk]: its products from the start of t's block up to t */
    float *q_block;   /* [C][dk]: Q o within */
    float *k_outward; /* [C][dk]: products of a from behind t */
} attn_decay_chunk;

size_t attn_decay_chunk_room(size_t key_dim, size_t value_dim);

/* Cuts the memory of chunks from in->room; returns what follows. */
float *attn_decay_divide(const attn_decay_input *in, attn_decay_chunk *chunk);

/* Fills a, q_in, k_out_t and total. With `da`, a gradient of a's strict lower triangle, dq and dk
 * must hold dO S^T and V dS^T [c][dk] and become the gradients of q and k, without those that the
 * diagonal of A gives; da is used up. */
void attn_decay_scores(const attn_decay_input *in, const attn_decay_chunk *chunk, float *da,
                       float *dq, float *dk);

/* chunk->rows = K o D_C., and total; nothing else is needed before. */
void attn_decay_outgoing(const attn_decay_input *in, const attn_decay_chunk *chunk);

/* Floats of room behind the chunk's that the backward pass needs. */
size_t attn_decay_backward_room(size_t key_dim, size_t value_dim);

/* Work of attn_decay_scores() and _outgoing(), and of a chunk in the backward pass. */
attn_work attn_decay_scores_work(uint64_t c, uint64_t dk, bool is_vector, bool has_gradient);
attn_work attn_decay_outgoing_work(uint64_t c, uint64_t dk, bool is_vector);
attn_work attn_decay_backward_chunk(uint64_t c, uint64_t dk, uint64_t dv, bool is_vector,
                                    bool ends_document);

#endif
