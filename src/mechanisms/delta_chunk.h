/* Private to the delta engine: what its forward and backward halves share. */
#ifndef MECHANISMS_DELTA_CHUNK_H
#define MECHANISMS_DELTA_CHUNK_H

#include "mechanisms/delta_engine.h"

/* What is made of a chunk's inputs. */
typedef struct attn_delta_chunk {
    float *incoming, *outgoing; /* [C]: e^{G_t} and e^{G_C - G_t} */
    float total;                /* e^{G_C} */
    float *gamma;               /* [C][C], lower triangle */
    float *turned;              /* [max(dk, dv)][C]: a transpose */
    float *keys;                /* [C][dk]: k or q times factors */
    float *u;                   /* [C][dv] */
    float *m, *p;               /* [C][C] */
} attn_delta_chunk;

size_t attn_delta_chunk_room(size_t key_dim, size_t value_dim);

/* Cuts the memory of chunks from in->room; returns what follows. */
float *attn_delta_divide(const attn_delta_input *in, attn_delta_chunk *chunk);

/* Fill incoming, outgoing and total; and gamma. Nothing without decays. */
void attn_delta_fill_ends(const attn_delta_input *in, attn_delta_chunk *chunk);
void attn_delta_fill_gamma(const attn_delta_input *in, const attn_delta_chunk *chunk);

/* p = tril(Q K^T o Gamma) and m = -tril(K K^T o Gamma, -1), row i of m times row_factors[i] or
 * column j times column_factors[j], whichever is not NULL; 0 above. */
void attn_delta_scores(const attn_delta_input *in, const attn_delta_chunk *chunk,
                       const float *row_factors, const float *column_factors);

/* Row i of a [c][c] keeps its first i numbers, and is 0 behind. */
void attn_delta_keep_strict(const attn_delta_input *in, float *a);

/* Row i of x [c][n] times factors[i]; nothing without decays. */
void attn_delta_weigh(const attn_delta_input *in, const float *factors, size_t n, float *x);

/* u = diag(b) r */
void attn_delta_updates(const attn_delta_input *in, const attn_delta_chunk *chunk, const float *r);

attn_work attn_delta_scores_work(uint64_t c, uint64_t dk, bool has_decay);
size_t attn_delta_backward_room(size_t key_dim, size_t value_dim);
attn_work attn_delta_backward_chunk(uint64_t c, uint64_t dk, uint64_t dv, bool has_decay,
                                    bool ends_document);

#endif
