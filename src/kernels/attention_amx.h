/* What attention in bfloat16 is made of at level `amx`: packing of a head's rows, products of packed
 * strips, and the softmax between them, which runs while the tiles work.
 *
 * Single-threaded, on memory of the caller; none fails. Packed numbers (bf16_cells.h), blocks of
 * sums, scores and totals lie on 64 bytes. Products and softmaxes stand between attn_amx_begin() and
 * attn_amx_end(). */
#ifndef KERNELS_ATTENTION_AMX_H
#define KERNELS_ATTENTION_AMX_H

#include "kernels/bf16_cells.h"
#include "kernels/kernels.h"

#include <stdint.h>

/* ---- packing ----------------------------------------------------------------------------- */

/* Rows as factors of products, floats rounded to the nearest; subnormal ones are 0. Rows are packed
 * in whole pairs of strips, so that 64 of them always lie together. NULL: not wanted. */
typedef struct attn_amx_forms {
    attn_bf16 *left;       /* a left factor, k along the columns */
    attn_bf16 *right;      /* its transpose as a right factor, k along the columns */
    attn_bf16 *right_of_p; /* a right factor, k along the rows, for P and dS as made below */
    attn_bf16 *transposed; /* its transpose as a left factor, k along the rows */
    size_t row_strips;     /* strips of the rows of these last two */
} attn_amx_forms;

/* Strips of so many rows. */
static inline size_t attn_amx_row_strips(size_t rows)
{
    return (rows + 2 * ATTN_STRIP - 1) / (2 * ATTN_STRIP) * 2;
}

/* Numbers of one form. */
static inline size_t attn_amx_form_count(size_t rows, size_t columns)
{
    return attn_amx_row_strips(rows) * attn_strips(columns) * ATTN_CELL;
}

/* The rows from `strip` * ATTN_STRIP on, `rows` of them, which begin at `from`. */
void attn_amx_pack(size_t strip, size_t rows, size_t columns, attn_far_rows from,
                   const attn_amx_forms *to);

/* Rows of dO, to be rounded, multiplied with a factor each and packed, and of o, o_row apart. */
typedef struct attn_amx_output_rows {
    attn_far_rows d_o;
    const float *o;
    size_t o_row;
    float *delta; /* in: the factors; out: the dot products of what is packed with o */
} attn_amx_output_rows;

void attn_amx_pack_gradient(size_t strip, size_t rows, size_t columns,
                            const attn_amx_output_rows *from, const attn_amx_forms *to);

/* ---- products ---------------------------------------------------------------------------- */

/* sums[32][32], rows sums_row apart, = or += left right over n cells of k. The cells of a factor
 * follow each other, or are those that its list names. */
typedef struct attn_amx_block {
    const attn_bf16 *left, *right;
    const uint32_t *left_cells, *right_cells; /* NULL: 0, 1, 2, ... */
    size_t n_cells;
    float *sums;
    size_t sums_row;
    bool adds;
} attn_amx_block;

void attn_amx_begin(void);
void attn_amx_end(void);

void attn_amx_multiply(size_t n_blocks, const attn_amx_block *blocks);

/* ---- forward ----------------------------------------------------------------------------- */

/* Rows of a running softmax in powers of two. References are whole numbers, so that a rounded
 * 2^(x - top) is 2^-top times the rounded 2^x whatever the reference. */
typedef struct attn_amx_softmax {
    size_t rows, n_tiles; /* up to 32; of 64 keys */
    float factor;         /* of the scores: > 0 */
    const float *scores;  /* [n_tiles][32][64] */
    float *top;           /* [rows]; ATTN_RUNNING_START at first, with total and o 0 */
    float *total;         /* [rows][ATTN_RUNNING_SUMS]: the row's total is their sum */
    float *o;             /* [rows][o_row]: what is multiplied with total when a reference rises */
    size_t o_row;
    attn_bf16
        *p; /* out: 2^(factor s - top) as a left factor; in a cell, keys i and i + 16 are a pair */
} attn_amx_softmax;

void attn_amx_run_softmax(const attn_amx_softmax *softmax);

/* Cache lines of packed keys and of packed values that a later step will read. */
typedef struct attn_amx_ahead {
    const attn_bf16 *keys, *values;
    size_t lines; /* of each, up to 32 */
} attn_amx_ahead;

/* A strip of queries and a tile of keys that it sees. */
typedef struct attn_amx_step {
    size_t strip, tile;
    bool is_first;        /* of its strip: O begins with it */
    bool is_partial;      /* finish() changes its scores */
    attn_amx_ahead ahead; /* what to ask for beside its softmax */
} attn_amx_step;

/* Sums of 32 x 32. */
typedef struct attn_amx_sums {
    float *sums;
    size_t row; /* floats from row to row */
} attn_amx_sums;

/* Steps of a block of queries, in any order. The softmax of a step runs while the tiles work on the
 * scores of the next one and on the values of the one before. */
typedef struct attn_amx_walk {
    size_t queries;                             /* rows of the block */
    size_t key_cells, value_strips, key_strips; /* strips of dk, of dv, of the keys */
    float factor;
    const attn_bf16 *q, *keys, *values;
    float *o;         /* [strips][32][value_strips * 32] */
    float *top;       /* [queries], as above */
    float *total;     /* [queries][ATTN_RUNNING_SUMS] */
    float *scores[2]; /* [32][64], of a step and of the next */
    attn_bf16 *p[2];  /* two cells, of a step and of the one before */
    void (*finish)(void *of, const attn_amx_step *step, float *scores);
    void *of;
    size_t turn;        /* the walk's own, as what follows: which scores and P are next */
    attn_amx_sums held; /* where the sums in the tiles belong */
} attn_amx_walk;

/* The first step's scores; every step, with the ones before and behind it, or NULL; the last step's
 * values. */
void attn_amx_start_walk(attn_amx_walk *walk, const attn_amx_step *first);
void attn_amx_run_step(attn_amx_walk *walk, const attn_amx_step *before, const attn_amx_step *now,
                       const attn_amx_step *next);
void attn_amx_end_walk(attn_amx_walk *walk, const attn_amx_step *last);

/* o / total of finished rows, 0 where the total is. `saved` are c and l with 1 <= l < 2, for which
 * 2^(x - c) / l are the softmax: any c that is a whole number makes the same P. */
typedef struct attn_amx_results {
    size_t rows, width;
    const float *top, *total, *o; /* as above */
    size_t o_row;
    float *to; /* [rows][width], rows to_row apart */
    size_t to_row;
    float *saved; /* c of each row, and l saved_row further on; NULL: not wanted */
    size_t saved_row;
} attn_amx_results;

/* attn_end_stores() comes before another thread reads them. */
void attn_amx_store_rows(const attn_amx_results *results);

/* ---- gradient ---------------------------------------------------------------------------- */

/* 32 queries and 32 keys: a strip each. */
typedef struct attn_amx_scores {
    const attn_bf16 *q, *keys, *d_o, *values;
    size_t key_cells, value_cells;
    float *scores, *dp; /* out: [32][32]; Q K^T and dO' V^T */
} attn_amx_scores;

/* Scores and dP, for which P = 2^(factor s - top) and dS = P o (dP - delta) are made, rounded, as
 * cells of factors. */
typedef struct attn_amx_gradient {
    float factor;
    const float *scores, *dp, *slope; /* [32][32]; slope, which multiplies dS: or NULL */
    const float *top, *delta;         /* [32] */
    attn_bf16 *p_right, *ds_right;    /* of right factors, k along the rows */
    attn_bf16 *ds_left;               /* of a left factor; keys i and i + 16 are a pair */
} attn_amx_gradient;

/* Either may be NULL. What is read of one is not written of the other. */
void attn_amx_run_gradient(const attn_amx_gradient *gradient, const attn_amx_scores *next);

#endif
