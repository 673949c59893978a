/* The tile engine at level `amx` in bfloat16, backward: the memory of a task, and the rows that are
 * packed into it and stored out of it. */
#ifndef MECHANISMS_TILE_HALF_BACKWARD_H
#define MECHANISMS_TILE_HALF_BACKWARD_H

#include "mechanisms/tile_half.h"

enum {
    ATTN_HALF_GROUP = 4, /* tiles of a block, either way */
    ATTN_HALF_GROUP_STRIPS = ATTN_HALF_GROUP * ATTN_TILE_STRIPS,
    ATTN_HALF_UNITS = ATTN_HALF_GROUP_STRIPS * ATTN_HALF_GROUP_STRIPS, /* of a block */
    ATTN_HALF_FACTOR = ATTN_HALF_UNITS * ATTN_CELL, /* numbers of P or dS of a block */
    ATTN_HALF_RANGE = 2 * ATTN_HALF_GROUP, /* key tiles that all queries see before others */
    ATTN_HALF_SQUARE = ATTN_STRIP * ATTN_STRIP
};

/* A unit is a strip of queries and a strip of keys. */
typedef struct attn_half_gradients {
    const attn_tile_call *call;
    float scale, factor;           /* as in forward */
    size_t key_cells, value_cells; /* strips of dk and of dv */
    size_t key_strips, query_strips;
    size_t held_strips; /* of the keys, in memory at a time */
    float *workers;
    size_t worker_count;
    attn_tally tally;
} attn_half_gradients;

/* Packed factors and sums of one key/value head, and of one of its query heads. */
typedef struct attn_half_head {
    attn_bf16 *keys, *values, *key_rows;     /* right factors of S, of dP, of dQ */
    attn_bf16 *q, *d_o;                      /* left factors of S and of dP */
    attn_bf16 *q_columns, *d_o_columns;      /* Q^T and dO'^T: left factors of dK^T and dV^T */
    attn_bf16 *p_right, *ds_right, *ds_left; /* of a block */
    float *dk, *dv;                          /* [key strips][strips of the width][32][32] */
    float *dq;                               /* [T][strips of dk * 32] */
    bool *has_dk, *has_dq;                   /* of a tile of keys or queries: not just 0 */
    float *top, *delta;                      /* [T] */
    float *s, *dp;                           /* of two units */
    float *slope;                            /* of one */
    float *rows;                             /* 32 x 32 of a result */
} attn_half_head;

/* The rows of some tiles of keys or queries. */
typedef struct attn_half_tiles {
    size_t first, last; /* last: behind it */
} attn_half_tiles;

/* Strips of keys that are in memory at a time. */
size_t attn_half_held_strips(const attn_tile_shape *shape);
/* Floats of a worker. */
size_t attn_half_backward_worker(const attn_tile_shape *shape);
attn_half_head attn_half_divide(float *room, const attn_half_gradients *job);

/* Where a tile of keys is in memory. */
static inline size_t attn_half_key_place(const attn_half_gradients *job, size_t tile)
{
    return tile % (job->held_strips / ATTN_TILE_STRIPS);
}

void attn_half_load_keys(const attn_half_gradients *job, const attn_half_head *room, size_t b,
                         size_t g, const attn_half_tiles *t);
/* Of one query head: q, dO' = dO / l, and delta from what dO' is rounded to. */
void attn_half_load_queries(const attn_half_gradients *job, const attn_half_head *room, size_t b,
                            size_t h, const attn_half_tiles *t);
/* dk and dv. Tiles that nobody saw are 0. */
void attn_half_store_keys(const attn_half_gradients *job, const attn_half_head *room, size_t b,
                          size_t g, const attn_half_tiles *t);
void attn_half_store_queries(const attn_half_gradients *job, const attn_half_head *room, size_t b,
                             size_t h, const attn_half_tiles *t);

#endif
