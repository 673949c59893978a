/* Private to linformer: what its files share. The equations are in linformer.c. */
#ifndef MECHANISMS_LINFORMER_H
#define MECHANISMS_LINFORMER_H

#include "base/threads.h"
#include "mechanisms/mechanism.h"

/* The options, by index. */
enum { ATTN_LINFORMER_SEGMENT, ATTN_LINFORMER_RANK, ATTN_LINFORMER_MASS_BIAS };

/* n is what E compresses at once, `block` the queries that are done together: a segment, or any
 * rows where all see the same keys. `far` bounds the virtual keys, `width` all keys of a row. */
typedef struct attn_linformer_sizes {
    size_t d, rank, n, columns, block, far, width;
    float scale, bias; /* `bias` in units of unscaled scores */
} attn_linformer_sizes;

attn_linformer_sizes attn_linformer_sizes_of(const attn_layer *layer, size_t length);

/* Tokens that E and F compress: the columns of both. */
size_t attn_linformer_columns(const attn_layer *layer);

/* One block of queries [first, first + ni): it sees the first `far` virtual keys of its document
 * and `near` exact ones, which start at `first`. */
typedef struct attn_linformer_block {
    size_t document, first, ni, far, near;
} attn_linformer_block;

/* Moves on to the next block of the sequence; the first one when b->ni is 0. False at the end. */
bool attn_linformer_next(const attn_layer *layer, const attn_linformer_sizes *z, size_t length,
                         const uint32_t *documents, attn_linformer_block *b);

/* Whether tokens must be compressed before a block: the segment that ended where it starts, or
 * (bidirectional) all of them, once. */
bool attn_linformer_compresses(const attn_layer *layer, const attn_linformer_block *b);

attn_work attn_linformer_compress_work(const attn_linformer_sizes *z, attn_phase phase);
attn_work attn_linformer_block_work(const attn_linformer_sizes *z, attn_phase phase, uint64_t ni,
                                    uint64_t far, uint64_t near);

/* A worker's memory. Transposes are [d][columns], `far` or `block` apart. */
typedef struct attn_linformer_room {
    float *e_t, *f_t;                /* [n][rank] */
    float *far_k_t, *far_v;          /* E K transposed, F V */
    float *far_k, *far_v_t;          /* backward: the other way round */
    float *near_t, *near_v_t;        /* a block's keys and (backward) values, transposed */
    float *s, *ds;                   /* scores and (backward) their gradients [block][width] */
    float *top, *total, *correction; /* a block's rows; backward: delta in the place of total */
    float *d_o, *d_far_k, *d_far_v;  /* backward */
} attn_linformer_room;

typedef struct attn_linformer_job {
    const attn_core_call *call;
    attn_linformer_sizes z;
    const float *e, *f;
    attn_tally tally;
} attn_linformer_job;

/* One head of one sequence. */
typedef struct attn_linformer_head {
    const float *q, *k, *v;
    const uint32_t *documents;
    size_t at, o_at;    /* of the head in q, and in o */
    float *top, *total; /* kept for backward, or NULL */
    attn_linformer_room room;
} attn_linformer_head;

/* Runs `task` for every head of every sequence, with an attn_linformer_job. */
void attn_linformer_run(const attn_core_call *call, attn_task *task, size_t length);
attn_linformer_head attn_linformer_head_of(const attn_linformer_job *j, size_t index,
                                           size_t worker);

/* Virtual keys and values [at, at + rank) from the n tokens that start `row` floats behind k, v. */
void attn_linformer_compress(const attn_linformer_job *j, const attn_linformer_head *s, size_t at,
                             size_t row);
/* Unscaled scores of a block, hidden above the diagonal of its own keys. */
void attn_linformer_score(const attn_linformer_job *j, const attn_linformer_head *s,
                          const attn_linformer_block *b);

/* Floats of one head's part of dE and dF; the parts lie before the workers in scratch. */
size_t attn_linformer_part(const attn_layer *layer);

/* The parts of the core. */
size_t attn_linformer_saved(const attn_layer *layer, size_t batch, size_t length);
size_t attn_linformer_scratch(const attn_layer *layer, size_t threads, size_t batch, size_t length);
size_t attn_linformer_cache(const attn_layer *layer, size_t batch, size_t capacity);
void attn_linformer_forward(const attn_core_call *call);
void attn_linformer_decode(const attn_core_call *call);
void attn_linformer_backward(const attn_core_call *call);

#endif
