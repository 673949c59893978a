/* The tile engine: softmax attention over blocks of queries and keys, with tiles that nobody
 * sees left out.
 *
 * Forward, FlashAttention-2 (Dao 2023, algorithm 1), for a block of queries:
 *     S = Q K_j^T, P = 2^(scale log2(e) S - c), O += P V_j over key tiles j, with a reference c
 *     and the total l of each row; O / l at the end. c is near the largest exponent so far: it
 *     rises, and O and l with it, only when a score is far above it. c and l are saved (not
 *     c + log l: with logits of 1e4 the rounding of their sum would cost three digits of P in
 *     the backward pass).
 * Backward recomputes P. With dO' = dO / l and delta = rowsum(dO' o O):
 *     dV_j += P^T dO',  dS = P o (dO' V_j^T - delta),  dQ += scale dS K_j,  dK_j += scale dS^T Q
 * With a score function f, scale S becomes f(scale S), and dS is multiplied by f' before dQ and dK.
 * One task owns a key/value head with its query heads, or a fixed part of them where there would be
 * few tasks; parts of dK and dV are then added in their order. So sums have one order whatever the
 * number of threads.
 *
 * In bfloat16 the factors of all products are rounded: q, k, v, P, dO' and dS; all else is float32.
 * c is a whole number then, on which the rounding of P does not depend. Level amx has an engine of
 * its own for it (tile_half.h), the others round in place. */
#ifndef MECHANISMS_TILE_ENGINE_H
#define MECHANISMS_TILE_ENGINE_H

#include "mechanisms/mask.h"
#include "mechanisms/mechanism.h"

#include <math.h>

enum { ATTN_TILE_KEYS = 64, ATTN_TILE_QUERIES = 64 };

/* ---- one attention ----------------------------------------------------------------------- */

/* Query head h reads key/value head h * kv_heads / heads. */
typedef struct attn_tile_shape {
    size_t batch, heads, kv_heads;
    size_t queries, keys;          /* T, S */
    size_t key_width, value_width; /* of one head: dk (of q and k), dv (of v and o) */
    attn_dtype dtype;              /* of the factors of products */
} attn_tile_shape;

/* Where heads lie: head h of token t of a sequence at t * row + h * head. */
typedef struct attn_head_layout {
    size_t row, head;
} attn_head_layout;

/* The rows of head h from token t on, t counted through the batch. */
static inline attn_far_rows attn_tile_rows(attn_operand x, attn_head_layout at, size_t t, size_t h)
{
    const attn_far_rows all = {.single = x.single, .half = x.half, .row = at.row};
    return attn_rows_from(all, t, h * at.head);
}

static inline attn_result_rows attn_tile_results(attn_result x, attn_head_layout at, size_t t,
                                                 size_t h)
{
    const attn_result_rows all = {.single = x.single, .half = x.half, .row = at.row};
    return attn_results_from(all, t, h * at.head);
}

/* A function of a pair's scaled score s = scale q.k, query i, key j and head. */
typedef struct attn_score {
    const void *self;
    /* s[ni][nj] of products q.k becomes the modified scores f(scale s), and slope[ni][nj] f' at
     * each when it is not NULL. Finite for finite scores; what is written for keys before a
     * query's document is of no consequence. `documents` as in attn_mask. */
    void (*modify)(const void *self, const attn_kernels *kernels, size_t head,
                   const attn_tile *tile, const uint32_t *documents, float scale, float *s,
                   size_t s_row, float *slope, size_t slope_row);
    bool has_slope;  /* false: f' is 1 */
    attn_work value; /* of one pair, beyond the scale */
    attn_work slope; /* beyond value, with the product that applies it */
} attn_score;

typedef enum attn_tile_order {
    ATTN_TILE_ONLINE, /* key tile after key tile, online softmax */
    ATTN_TILE_ROWS    /* whole rows of scores, one softmax; the mask shows no tiles with gaps */
} attn_tile_order;

/* Which pairs there are, and what their scores are. */
typedef struct attn_tile_rule {
    attn_tile_order order;
    attn_mask mask;
    const attn_score *score; /* NULL: scale q.k; the scale is 1 / sqrt(dk) */
} attn_tile_rule;

/* Pointers are to head 0 of token 0 of the first sequence; gradients lie as what they are of. Numbers
 * are bfloat16 in calls of that dtype alone. */
typedef struct attn_tile_call {
    attn_context *context;
    attn_tile_shape shape;
    attn_tile_rule rule;
    const uint32_t *document_start; /* [B][T], with T = S; or NULL */
    attn_head_layout q_at, k_at, v_at, o_at;
    attn_operand q, k, v;
    float *o;
    float *saved;           /* attn_tile_saved() floats, written by forward; NULL: inference */
    float *scratch;         /* attn_tile_scratch() floats */
    attn_operand d_o;       /* backward */
    attn_result dq, dk, dv; /* backward; overwritten */
} attn_tile_call;

size_t attn_tile_saved(const attn_tile_shape *shape);
size_t attn_tile_scratch(const attn_tile_shape *shape, size_t threads);
void attn_tile_forward(const attn_tile_call *call);
void attn_tile_backward(const attn_tile_call *call);
attn_work attn_tile_work(const attn_tile_shape *shape, const attn_tile_rule *rule, attn_phase phase,
                         const uint32_t *document_start);

/* Tiles that are walked, over the whole batch and all heads. */
typedef struct attn_tile_count {
    uint64_t elements;   /* executed pairs: tile areas, ragged edges as they are */
    uint64_t row_visits; /* query rows summed over tiles: each compares with its reference */
    uint64_t masked;     /* elements of partial tiles */
} attn_tile_count;

/* The work of tiles counted elsewhere: attn_tile_work() without its walk. */
attn_work attn_tile_count_work(const attn_tile_shape *shape, const attn_tile_rule *rule,
                               attn_phase phase, const attn_tile_count *tiles);

/* ---- parts ------------------------------------------------------------------------------- */

/* Parts that the query heads of a key/value head are done in, backward; 1 in bfloat16. */
size_t attn_tile_parts(const attn_tile_shape *shape);
/* Floats of the backward pass: a worker's memory, and where parts of dK and dV are gathered. */
size_t attn_tile_backward_worker(const attn_tile_shape *shape);
size_t attn_tile_backward_gathered(const attn_tile_shape *shape, size_t threads);

static inline float attn_tile_scale(const attn_tile_shape *shape)
{
    return 1.0f / sqrtf((float)shape->key_width);
}

/* What the scores of the softmax are multiplied by to become exponents of 2: log2(e), and the
 * scale unless a score function applied it. */
static inline float attn_tile_factor(const attn_tile_rule *rule, const attn_tile_shape *shape)
{
    const double scale = rule->score ? 1.0 : (double)attn_tile_scale(shape);
    return (float)(1.4426950408889634 * scale);
}

/* The next run of queries from *i0 on, within [.., end), whose tiles against the keys [j0,
 * j0 + nj) are all of one kind that is not empty; its tile, with *i0 behind it. False: no more. */
bool attn_tile_next_run(const attn_mask *mask, size_t head, const uint32_t *documents, size_t *i0,
                        size_t end, attn_tile *run, attn_tile_kind *kind);

/* From products to scores: modified, and hidden where not seen. `documents` is that of the
 * sequence or NULL. */
void attn_tile_finish_scores(const attn_tile_rule *rule, const attn_kernels *kernels, size_t head,
                             const attn_tile *tile, attn_tile_kind kind, const uint32_t *documents,
                             float scale, float *s, size_t s_row, float *slope, size_t slope_row);

/* Floats rounded to bfloat16 in calls of that dtype. */
void attn_tile_round(const attn_tile_call *call, size_t n, float *x);
void attn_tile_round_rows(const attn_tile_call *call, size_t rows, size_t n, float *x, size_t row);
/* x[rows][n], each to the nearest bfloat16 number. */
void attn_round_rows(const attn_kernels *kernels, size_t rows, size_t n, float *x, size_t row);

/* One head's rows [rows][n], times `factor`, to where they belong. */
void attn_store_rows(const attn_kernels *kernels, size_t rows, size_t n, float factor,
                     const float *from, size_t from_row, attn_result_rows to);

/* One head's rows as floats [rows][n] without gaps. */
void attn_take_rows(const attn_kernels *kernels, size_t rows, size_t n, attn_far_rows from,
                    float *to);
void attn_copy_head(size_t rows, size_t n, const float *from, size_t row, float *to);

/* Packs one head's rows [length][n] as transposed tiles: tile t holds [n][ATTN_TILE_KEYS] from
 * row t * ATTN_TILE_KEYS on. */
void attn_pack_transposed(const attn_kernels *kernels, size_t length, size_t n, attn_far_rows from,
                          float *to);
/* Floats of such a packing. */
size_t attn_packed_count(size_t length, size_t n);

#endif
