/* P and dS of 32 queries and 32 keys at level amx, with the scores and dP of the next ones multiplied
 * on the way: 16 KiB, twice 8, that stay in the nearest cache. To store a tile in lines that are not
 * there takes four times as long.
 *
 * Vector work follows products in a fixed order, as much of it as there are products for: what is
 * decided anew behind each product costs more than it hides. */
#include "kernels/attention_beside_amx.h"

enum { SCORES_ROW = ATTN_STRIP * sizeof(float), PIECES = ATTN_STRIP / 2 };

typedef struct gradient_work {
    const attn_amx_gradient *g;
    size_t row; /* the next */
    __m512 factor;
    beside_constants constants;
} gradient_work;

/* P and dS of two rows: two vectors of the even one, two of the odd one. */
static inline __attribute__((always_inline)) void make_rows(gradient_work *w)
{
    const attn_amx_gradient *g = w->g;
    const size_t row = w->row * ATTN_STRIP;
    __m512 p[VECTORS], ds[VECTORS];
    UNROLL for (size_t j = 0; j < VECTORS; j++)
    {
        const size_t i = w->row + j / 2, at = row + j * 16;
        p[j] =
            _mm512_fmsub_ps(w->factor, _mm512_load_ps(g->scores + at), _mm512_set1_ps(g->top[i]));
        ds[j] = _mm512_sub_ps(_mm512_load_ps(g->dp + at), _mm512_set1_ps(g->delta[i]));
    }
    if (g->slope)
        UNROLL for (size_t j = 0; j < VECTORS; j++) ds[j] =
            _mm512_mul_ps(ds[j], _mm512_load_ps(g->slope + row + j * 16));
    powers_of_two(p, &w->constants);
    UNROLL for (size_t j = 0; j < VECTORS; j++) ds[j] = _mm512_mul_ps(p[j], ds[j]);
    UNROLL for (size_t i = 0; i < 2; i++)
    {
        const size_t right = row / 2 + i * HALF_CELL;
        _mm512_store_si512(g->ds_left + row + i * ATTN_STRIP,
                           round_pairs(ds[2 * i], ds[2 * i + 1], &w->constants));
        _mm512_store_si512(g->p_right + right, round_pairs(p[i], p[2 + i], &w->constants));
        _mm512_store_si512(g->ds_right + right, round_pairs(ds[i], ds[2 + i], &w->constants));
    }
    w->row += 2;
}

static inline __attribute__((always_inline)) void make_due(gradient_work *w, bool is_due)
{
    if (is_due && w->row < ATTN_STRIP) make_rows(w);
}

/* Quarters as in attention_amx.c. */
static inline __attribute__((always_inline)) float *score_quarter(float *scores, size_t at)
{
    return scores + at % 2 * 16 * ATTN_STRIP + at / 2 * 16;
}

#define STORE_SCORES(to, at) _tile_stored(at, score_quarter(to, at), SCORES_ROW)

/* A cell's products, `pieces` of vector work behind them. The first one stores what its tiles hold. */
#define START_SCORES(held, is_first, at)                                                           \
    do {                                                                                           \
        if (!(is_first)) break;                                                                    \
        if (held) STORE_SCORES(held, at);                                                          \
        _tile_zero(at);                                                                            \
    } while (0)

static inline __attribute__((always_inline)) void multiply_cell(const attn_bf16 *left,
                                                                const attn_bf16 *right,
                                                                bool is_first, float *held,
                                                                size_t pieces, gradient_work *w)
{
    START_SCORES(held, is_first, 0);
    _tile_stream_loadd(6, right, 64);
    _tile_loadd(4, left, 64);
    _tile_dpbf16ps(0, 4, 6);
    make_due(w, pieces >= 1);
    START_SCORES(held, is_first, 1);
    _tile_loadd(5, left + HALF_CELL, 64);
    _tile_dpbf16ps(1, 5, 6);
    make_due(w, pieces >= 4);
    START_SCORES(held, is_first, 2);
    _tile_stream_loadd(7, right + HALF_CELL, 64);
    _tile_dpbf16ps(2, 4, 7);
    make_due(w, pieces >= 2);
    START_SCORES(held, is_first, 3);
    _tile_dpbf16ps(3, 5, 7);
    make_due(w, pieces >= 4);
}

/* Scores, then dP, then what is left of the vector work. */
static inline __attribute__((always_inline)) void multiply_scores(const attn_amx_scores *s,
                                                                  size_t pieces, gradient_work *w)
{
    for (size_t i = 0; i < s->key_cells + s->value_cells; i++) {
        const bool is_dp = i >= s->key_cells;
        const size_t cell = is_dp ? i - s->key_cells : i;
        multiply_cell((is_dp ? s->d_o : s->q) + cell * ATTN_CELL,
                      (is_dp ? s->values : s->keys) + cell * ATTN_CELL, cell == 0,
                      is_dp ? s->scores : NULL, pieces, w);
    }
    while (w->row < ATTN_STRIP) make_rows(w);
    STORE_SCORES(s->dp, 0);
    STORE_SCORES(s->dp, 1);
    STORE_SCORES(s->dp, 2);
    STORE_SCORES(s->dp, 3);
}

void attn_amx_run_gradient(const attn_amx_gradient *gradient, const attn_amx_scores *next)
{
    gradient_work work = {.g = gradient,
                          .row = gradient ? 0 : ATTN_STRIP,
                          .factor = _mm512_set1_ps(gradient ? gradient->factor : 0.0f),
                          .constants = keep_constants()};
    KEEP(work.factor);
    settle_memory();
    if (!next)
        while (work.row < ATTN_STRIP) make_rows(&work);
    else if (next->key_cells + next->value_cells <= PIECES / 4)
        multiply_scores(next, 4, &work);
    else if (next->key_cells + next->value_cells <= PIECES / 2)
        multiply_scores(next, 2, &work);
    else
        multiply_scores(next, 1, &work);
    settle_memory();
    _mm256_zeroupper(); /* gcc 12 forgets it, and code without AVX then waits */
}
