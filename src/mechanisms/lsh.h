/* The parts of lsh: buckets (lsh_buckets.c), one head's attention (lsh_attention.c), decoding
 * (lsh_decode.c) and the layer around them (lsh.c). */
#ifndef MECHANISMS_LSH_H
#define MECHANISMS_LSH_H

#include "base/threads.h"
#include "mechanisms/mechanism.h"

enum { ATTN_LSH_ROUNDS, ATTN_LSH_BUCKETS, ATTN_LSH_REACH }; /* options */

/* One call of a layer. Rows hold a token's queries of all heads, then its values. */
typedef struct attn_lsh {
    attn_context *context;
    const attn_layer *layer;
    const attn_call *call;
    size_t C, H, d, T; /* T: tokens of a sequence, 1 when decoding */
    size_t rounds, buckets, reach;
    float *rows;     /* [B][T][2 C] */
    float *o;        /* [B][T][C] */
    float *records;  /* [B][H] of attn_lsh_record; NULL: not kept */
    float *measures; /* forward: attn_lsh_measure_count() floats */
    float *d_rows;   /* backward: as rows */
    float *d_o;      /* backward: as o */
    float *workers;  /* what remains of the scratch memory, for each worker */
    attn_tally tally;
} attn_lsh;

/* What forward finds out about a head and backward uses again. */
typedef struct attn_lsh_record {
    float *top, *total; /* [T] c and l of each softmax; l is 0 where nothing is seen */
    float *buckets;     /* [rounds][T]; whole numbers */
} attn_lsh_record;

size_t attn_lsh_record_count(const attn_layer *layer, size_t length);
attn_lsh_record attn_lsh_record_at(const attn_lsh *run, float *memory);

/* ---- buckets ----------------------------------------------------------------------------- */

/* Sizes of x, of the projections and of the rotations: what bounds the rounding of q R. */
size_t attn_lsh_measure_count(const attn_layer *layer, size_t batch, size_t length);
void attn_lsh_measure(attn_lsh *run);
attn_work attn_lsh_measure_work(const attn_layer *layer, size_t batch, size_t length);

/* Buckets of a head's tokens, [rounds][T]. */
void attn_lsh_hash(const attn_lsh *run, size_t b, size_t h, float *buckets, float *room,
                   attn_work *work);
size_t attn_lsh_hash_room(const attn_layer *layer);
attn_work attn_lsh_hash_work(const attn_layer *layer, size_t length);

/* Head h of one token in double, from its x: its buckets[r * apart], and the query rounded to
 * q [d] unless that is NULL. Counts nothing; `room` as for attn_lsh_hash(). */
void attn_lsh_hash_exactly(const attn_lsh *run, size_t h, const float *x, float *q, float *buckets,
                           size_t apart, float *room);
attn_work attn_lsh_hash_exactly_work(const attn_layer *layer);

/* One round's tokens by bucket, then by position. */
typedef struct attn_lsh_order {
    uint32_t *token; /* [T] at each place */
    uint32_t *first; /* [T] the token at place p sees those at [first[p], p) */
} attn_lsh_order;

/* `documents` of the sequence, or NULL; `room` holds attn_lsh_order_room() floats. */
attn_lsh_order attn_lsh_sort(const attn_lsh *run, const uint32_t *documents, const float *buckets,
                             float *room);
size_t attn_lsh_order_room(const attn_layer *layer, size_t length);

/* ---- one head's attention ---------------------------------------------------------------- */

attn_task attn_lsh_forward_head, attn_lsh_backward_head; /* of attn_lsh; index b H + h */
size_t attn_lsh_forward_room(const attn_layer *layer, size_t length);
size_t attn_lsh_backward_room(const attn_layer *layer, size_t length);
attn_work attn_lsh_head_work(const attn_layer *layer, attn_phase phase, size_t length);

/* k = q / |q|; returns 1 / |q|. A query too short for that has the key 0 and returns 0. */
float attn_lsh_key(const attn_kernels *kernels, size_t d, const float *q, float *k);

/* ---- decoding ---------------------------------------------------------------------------- */

/* `rows` hold values alone, [B][C]. */
attn_task attn_lsh_decode_head;
size_t attn_lsh_decode_room(const attn_layer *layer);
/* Of a head and one token, with so many before it; with the query's projection. */
attn_work attn_lsh_decode_work(const attn_layer *layer, size_t before);

size_t attn_lsh_cache_count(const attn_layer *layer, size_t batch, size_t capacity);
/* Puts a head's keys [T][d], values and buckets [rounds][T] of a forward call into the cache. */
void attn_lsh_cache_fill(const attn_lsh *run, size_t b, size_t h, const float *keys,
                         const float *buckets);

#endif
