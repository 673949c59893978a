/* Private to mla: what its files share. The equations are in mla.c. */
#ifndef MECHANISMS_MLA_H
#define MECHANISMS_MLA_H

#include "base/threads.h"
#include "mechanisms/counted.h"
#include "mechanisms/projection.h"
#include "mechanisms/tile_engine.h"
#include "mechanisms/visibility.h"

/* The options, by index. */
enum { ATTN_MLA_KV_RANK, ATTN_MLA_Q_RANK, ATTN_MLA_NOPE, ATTN_MLA_ROPE, ATTN_MLA_V };

/* The parameters, by index. Q is wq, or w_dq of queries with a rank; the first two make one
 * product with x. The last two exist with a rank alone. */
enum {
    ATTN_MLA_Q,
    ATTN_MLA_DKV,
    ATTN_MLA_KV_NORM,
    ATTN_MLA_UKV,
    ATTN_MLA_O,
    ATTN_MLA_O_BIAS,
    ATTN_MLA_Q_NORM,
    ATTN_MLA_UQ
};

/* The projections: x to rows, c to [k_c | v], o to y, cq to q; the last with a rank alone. */
enum { ATTN_MLA_ROWS, ATTN_MLA_UP_KV, ATTN_MLA_OUT, ATTN_MLA_UP_Q };

enum { ATTN_MLA_BLOCK = 64 }; /* rows of a task */

typedef struct attn_mla_sizes {
    size_t heads, width;      /* H, C */
    size_t kv_rank, q_rank;   /* r, r_q; r_q = 0: queries are projected directly */
    size_t nope, rope, value; /* dn, dr, dv of one head */
    size_t key;               /* dn + dr */
    size_t latent, row;       /* row [q or its latent | u | k_r] of x's product: where u starts,
                                   and all of it */
    attn_dtype dtype;
    attn_head_layout q_at, k_at, kv_at, o_at; /* heads of q, of k, of [k_c | v], of o */
} attn_mla_sizes;

attn_mla_sizes attn_mla_sizes_of(const attn_layer *layer);

/* Rows of R tokens, or their gradients. The first two are kept for the backward pass, the others
 * come from them. */
typedef struct attn_mla_rows {
    float *x;  /* [R][row], rotated where it holds k_r and q */
    float *o;  /* [R][H dv] */
    float *c;  /* [R][r]: the normalised latent */
    float *cq; /* [R][r_q]: that of the queries */
    float *q;  /* by q_at: in x, or behind r_q */
    float *k;  /* [R][H (dn + dr)] */
    float *kv; /* [R][H (dn + dv)] */
} attn_mla_rows;

size_t attn_mla_kept_count(const attn_mla_sizes *z, size_t rows);
size_t attn_mla_other_count(const attn_mla_sizes *z, size_t rows);
/* Cuts kept_count() floats off `kept` and other_count() off `others`, which may be the same. */
attn_mla_rows attn_mla_cut(const attn_mla_sizes *z, size_t rows, float **kept, float **others);

/* One call. */
typedef struct attn_mla_run {
    attn_context *context;
    const attn_layer *layer;
    const attn_call *call;
    attn_mla_sizes z;
    size_t rows; /* R = B T */
    attn_mla_rows at, d;
    float *angles; /* cosine and sine [T][dr / 2] */
    float *sums;   /* [blocks][r + r_q]: each block's part of the norms' gradients */
    bool is_new;   /* rows of x are fresh from their product, not yet rotated */
    attn_tally tally;
} attn_mla_run;

size_t attn_mla_angles_count(const attn_mla_sizes *z, size_t length);
/* Floats of all blocks' sums. */
size_t attn_mla_sums_count(const attn_mla_sizes *z, size_t rows);

static inline const float *attn_mla_weight(const attn_mla_run *run, size_t parameter)
{
    return run->call->parameters + run->layer->parameters[parameter].offset;
}

static inline attn_counted attn_mla_counted(attn_mla_run *run, size_t worker)
{
    return (attn_counted){.kernels = run->context->kernels, .work = &run->tally.of[worker]};
}

/* Runs `task` for each block of rows; rows of block `index` are [*first, end). */
void attn_mla_each_block(attn_mla_run *run, attn_task *task);
size_t attn_mla_block(const attn_mla_run *run, size_t index, size_t *first);

/* Turns u[dr] by the position of row `row` in its document; `sign` -1 turns back. */
void attn_mla_turn(const attn_mla_run *run, attn_counted on, size_t row, float sign, float *u);
/* The same for the rotary part of every head of a row of queries. */
void attn_mla_turn_queries(const attn_mla_run *run, attn_counted on, size_t row, float sign,
                           float *q);

/* From the rows of x to c and q, rotated; from c to k and v. `position` is the first row's. */
void attn_mla_prepare(attn_mla_run *run, size_t position);
void attn_mla_expand(attn_mla_run *run);

/* x's product, of call->x to at.x. */
void attn_mla_project(attn_mla_run *run);
/* Appends c and k_r of every row to the cache, of which each sequence has `position` tokens. */
void attn_mla_store(const attn_mla_run *run, size_t position);
/* The tile engine on the rows; gradients are set by the caller. */
attn_tile_call attn_mla_tiles(const attn_mla_run *run, const attn_visibility *rule);
attn_tile_shape attn_mla_shape(const attn_mla_sizes *z, size_t batch, size_t length);

/* The layer's functions outside mla.c. */
void attn_mla_forward(attn_context *context, const attn_layer *layer, const attn_call *call);
void attn_mla_backward(attn_context *context, const attn_layer *layer, const attn_call *call);
void attn_mla_decode(attn_context *context, const attn_layer *layer, const attn_call *call);
/* Scratch memory of decoding, in floats. */
size_t attn_mla_decode_scratch(const attn_mla_sizes *z, size_t threads, size_t batch,
                               size_t positions);
attn_work attn_mla_decode_work(const attn_mla_sizes *z, uint64_t cached);

#endif
