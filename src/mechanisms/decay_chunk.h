/* Private to the decay engine: a chunk's decays and its matrix A, for both passes. */
#ifndef MECHANISMS_DECAY_CHUNK_H
#define MECHANISMS_DECAY_CHUNK_H

#include "mechanisms/decay_engine.h"

/* One chunk of c tokens: where its inputs lie, and memory for what is made of them. */
typedef struct attn_decay_chunk {
    size_t c;
    const float *q, *k, *v, *log_decay;
    float *incoming, *outgoing; /* [C][dk]: e^{G_t} and e^{G_C - G_t}, of vectors */
    float *total;               /* [dk]: e^{G_C} */
    float *factor, *mixed;      /* [C][dk]: exponentials of one level of blocks, and their rows */
    float *rows;                /* [C][dk]: q or k times its factors, or their gradients */
    float *turned;              /* [max(dk, dv)][C]: a transpose */
    float *powers, *falling;    /* a constant's powers 0 .. C, and C - 1 .. 0 */
    float *a;                   /* [C][C] */
} attn_decay_chunk;

size_t attn_decay_chunk_room(size_t key_dim, size_t value_dim);

/* Cuts the memory of chunks from `room` and fills the tables; returns what follows. */
float *attn_decay_divide(const attn_decay_head *head, float *room, attn_decay_chunk *chunk);

/* The chunk becomes that of tokens [t, t + c). */
void attn_decay_enter(const attn_decay_head *head, size_t t, size_t c, attn_decay_chunk *chunk);

/* Fills a; 0 above the diagonal. With `da`, a gradient of a's strict lower triangle (0 elsewhere;
 * overwritten), dq and dk [c][dk] become what it means for them. */
void attn_decay_scores(const attn_decay_head *head, const attn_decay_chunk *chunk, float *da,
                       float *dq, float *dk);

/* Fill `incoming`; `outgoing` and `total`. After attn_decay_scores(), which uses the memory. */
void attn_decay_fill_incoming(const attn_decay_head *head, const attn_decay_chunk *chunk);
void attn_decay_fill_outgoing(const attn_decay_head *head, const attn_decay_chunk *chunk);

/* Row t of x [c][dk] times e^{G_t}, or e^{G_C - G_t}. */
void attn_decay_weigh_incoming(const attn_decay_head *head, const attn_decay_chunk *chunk,
                               float *x);
void attn_decay_weigh_outgoing(const attn_decay_head *head, const attn_decay_chunk *chunk,
                               float *x);

/* Blocks at one level of halving: the middles m = half, 3 half, .. < c; each has its keys in
 * [m - half, m) and its queries in [m, attn_block_end()). */
static inline size_t attn_block_end(size_t m, size_t half, size_t c)
{
    return attn_smaller(m + half, c);
}

/* Floats of room behind the chunk's that the backward pass needs. */
size_t attn_decay_backward_room(size_t length, size_t key_dim, size_t value_dim);

/* Work of a constant's table, and of a chunk in the backward pass. */
attn_work attn_decay_scores_work(uint64_t c, uint64_t dk, bool is_vector, bool has_gradient);
attn_work attn_decay_backward_chunk(uint64_t c, uint64_t dk, uint64_t dv, bool is_vector,
                                    bool ends_document);

#endif
