/* Forward on AMX tiles: the softmax of a tile of keys runs beside the products that make the scores of
 * the next one and add the values of the step before. */
#include "kernels/attention_beside_amx.h"

#include <float.h>
#include <math.h>

enum { TILE = ATTN_STRIP * SIDE };

/* ---- softmax of rows --------------------------------------------------------------------- */

/* A row's reference for these scores: the whole number above its largest exponent, if that is more
 * than the one it has; not if nothing is seen or something is not a number. */
static float find_top(const attn_amx_softmax *s, size_t i)
{
    __m512 most = _mm512_set1_ps(-INFINITY);
    for (size_t t = 0; t < s->n_tiles; t++)
        for (size_t j = 0; j < SIDE; j += 16)
            most = _mm512_max_ps(_mm512_loadu_ps(s->scores + t * TILE + i * SIDE + j), most);
    const float largest = s->factor * _mm512_reduce_max_ps(most);
    return largest > s->top[i] ? ceilf(largest) : s->top[i];
}

/* Of rows that have none yet: their totals and o are 0. */
static inline __attribute__((always_inline)) void find_first_tops(const attn_amx_softmax *s)
{
    for (size_t first = 0; first < s->rows; first += 16) {
        const __m512 tops = _mm512_maskz_loadu_ps(first_16(s->rows - first), s->top + first);
        const __mmask16 none =
            _mm512_cmp_ps_mask(tops, _mm512_set1_ps(ATTN_RUNNING_START), _CMP_EQ_OQ);
        if (!none) continue;
        for (size_t i = first; i < s->rows && i < first + 16; i++)
            if (s->top[i] == ATTN_RUNNING_START) s->top[i] = find_top(s, i);
    }
}

/* Sums up to this need no other reference: P, o and totals keep their relative accuracy. */
static const float room = 0x1p30f;

/* The rows of a tile, one after the other. */
typedef struct row_work {
    const float *scores, *top;
    attn_bf16 *p;
    float *total;
    __m512 *before; /* totals */
    const attn_bf16 *ahead_keys, *ahead_values;
    size_t left, unasked; /* rows; those that ask for nothing */
    size_t pace;          /* products for each row */
    __mmask16 fits;       /* no sum was beyond the room */
    __m512 factor, most;
    beside_constants constants;
} row_work;

static inline __attribute__((always_inline)) row_work
start_rows(const attn_amx_softmax *s, const attn_amx_ahead *ahead, __m512 *before)
{
    row_work w = {.scores = s->scores,
                  .top = s->top,
                  .p = s->p,
                  .total = s->total,
                  .before = before,
                  .ahead_keys = ahead->keys,
                  .ahead_values = ahead->values,
                  .left = s->rows,
                  .unasked = s->rows > ahead->lines ? s->rows - ahead->lines : 0,
                  .fits = 0xffff,
                  .factor = _mm512_set1_ps(s->factor),
                  .most = _mm512_set1_ps(room),
                  .constants = keep_constants()};
    KEEP(w.factor);
    KEEP(w.most);
    return w;
}

static inline __attribute__((always_inline)) void take_row(row_work *w)
{
    const __m512 top = _mm512_set1_ps(*w->top), sofar = _mm512_load_ps(w->total);
    __m512 x[VECTORS];
    UNROLL for (size_t i = 0; i < VECTORS; i++) x[i] =
        _mm512_fmsub_ps(w->factor, _mm512_load_ps(w->scores + 16 * i), top);
    powers_of_two(x, &w->constants);
    _mm512_store_si512(w->p, round_pairs(x[0], x[1], &w->constants));
    _mm512_store_si512(w->p + ATTN_CELL, round_pairs(x[2], x[3], &w->constants));
    const __m512 sum = _mm512_add_ps(_mm512_add_ps(x[0], x[1]), _mm512_add_ps(x[2], x[3]));
    w->fits = _mm512_mask_cmp_ps_mask(w->fits, sum, w->most, _CMP_NGT_UQ);
    *w->before++ = sofar;
    _mm512_store_ps(w->total, _mm512_add_ps(sofar, sum));
    if (w->left > w->unasked) {
        _mm_prefetch((const char *)w->ahead_keys, _MM_HINT_T1);
        _mm_prefetch((const char *)w->ahead_values, _MM_HINT_T1);
        w->ahead_keys += ATTN_STRIP;
        w->ahead_values += ATTN_STRIP;
    }
    w->top++;
    w->scores += SIDE;
    w->p += ATTN_STRIP;
    w->total += ATTN_RUNNING_SUMS;
    w->left--;
}

/* After product `n` of a cell: a row, or fewer where there are more products than rows. */
static inline __attribute__((always_inline)) void take_turn(row_work *w, size_t n)
{
    if (n % 4 > 0 && w->pace > 2) return;
    if (n % 2 > 0 && w->pace > 1) return;
    if (w->left > 0) take_row(w);
}

/* A row's reference rises, and what is multiplied with it. */
static void raise_top(const attn_amx_softmax *s, size_t i)
{
    const float top = find_top(s, i);
    const __m512 down = _mm512_scalef_ps(_mm512_set1_ps(1.0f), _mm512_set1_ps(s->top[i] - top));
    float *total = s->total + i * ATTN_RUNNING_SUMS, *o = s->o + i * s->o_row;
    _mm512_storeu_ps(total, _mm512_mul_ps(_mm512_loadu_ps(total), down));
    for (size_t j = 0; j < s->o_row; j += 16)
        _mm512_storeu_ps(o + j, _mm512_mul_ps(_mm512_loadu_ps(o + j), down));
    s->top[i] = top;
}

/* Rare: the rows whose reference rises, once more; `before` are their totals without these tiles. */
static __attribute__((noinline)) void repeat_rows(const attn_amx_softmax *s, const __m512 *before)
{
    for (size_t i = 0; i < s->rows; i++) {
        float *total = s->total + i * ATTN_RUNNING_SUMS;
        if (!_mm512_cmp_ps_mask(_mm512_load_ps(total), _mm512_set1_ps(room), _CMP_GT_OQ)) continue;
        _mm512_store_ps(total, before[i]);
        raise_top(s, i);
        for (size_t tile = 0; tile < s->n_tiles; tile++) {
            const attn_amx_softmax row = {.rows = 1,
                                          .factor = s->factor,
                                          .scores = s->scores + tile * TILE + i * SIDE,
                                          .top = s->top + i,
                                          .total = total,
                                          .p = s->p + tile * STRIPS * ATTN_CELL + i * ATTN_STRIP};
            __m512 ignored;
            row_work work = start_rows(&row, &(attn_amx_ahead){0}, &ignored);
            take_row(&work);
        }
    }
}

void attn_amx_run_softmax(const attn_amx_softmax *s)
{
    __m512 before[ATTN_STRIP], ignored[ATTN_STRIP];
    __mmask16 fits = 0xffff;
    find_first_tops(s);
    for (size_t tile = 0; tile < s->n_tiles; tile++) {
        attn_amx_softmax one = *s;
        one.scores += tile * TILE;
        one.p += tile * STRIPS * ATTN_CELL;
        row_work work = start_rows(&one, &(attn_amx_ahead){0}, tile == 0 ? before : ignored);
        while (work.left > 0) take_row(&work);
        fits &= work.fits;
    }
    if (fits != 0xffff) repeat_rows(s, before);
    _mm256_zeroupper(); /* gcc 12 forgets it, and code without AVX then waits */
}

/* ---- a walk ------------------------------------------------------------------------------ */

/* A quarter of a block's sums, of 16 x 16, lies in the tile of its number: top left, bottom left, top
 * right, bottom right. */
#define WITH_QUARTER(instruction, n, of)                                                           \
    instruction(n, (of).sums + (n) % 2 * 16 * (of).row + (n) / 2 * 16, (of).row * sizeof(float))

/* Sums stay in their tiles until the next block needs these, which gives products time to end. */
#define TURN(n)                                                                                    \
    do {                                                                                           \
        WITH_QUARTER(_tile_stored, n, held);                                                       \
        if (adds)                                                                                  \
            WITH_QUARTER(_tile_loadd, n, to);                                                      \
        else                                                                                       \
            _tile_zero(n);                                                                         \
    } while (0)

/* Past the first cache what others should not be pushed out of it by. */
#define LOAD_LEFT(n, from)                                                                         \
    do {                                                                                           \
        if (is_far)                                                                                \
            _tile_stream_loadd(n, from, 64);                                                       \
        else                                                                                       \
            _tile_loadd(n, from, 64);                                                              \
    } while (0)

static inline __attribute__((always_inline)) void
multiply_cell(const attn_bf16 *left, const attn_bf16 *right, bool is_far, bool is_first, bool adds,
              attn_amx_sums held, attn_amx_sums to, row_work *rows)
{
    if (is_first) TURN(0);
    _tile_stream_loadd(6, right, 64);
    LOAD_LEFT(4, left);
    _tile_dpbf16ps(0, 4, 6);
    take_turn(rows, 0);
    if (is_first) TURN(1);
    LOAD_LEFT(5, left + HALF_CELL);
    _tile_dpbf16ps(1, 5, 6);
    take_turn(rows, 1);
    if (is_first) TURN(2);
    _tile_stream_loadd(7, right + HALF_CELL, 64);
    _tile_dpbf16ps(2, 4, 7);
    take_turn(rows, 2);
    if (is_first) TURN(3);
    _tile_dpbf16ps(3, 5, 7);
    take_turn(rows, 3);
}

/* From the tiles to where the sums belong. What is stored once more then is of no consequence: scores
 * that have been used. */
static void drain(attn_amx_walk *w)
{
    WITH_QUARTER(_tile_stored, 0, w->held);
    WITH_QUARTER(_tile_stored, 1, w->held);
    WITH_QUARTER(_tile_stored, 2, w->held);
    WITH_QUARTER(_tile_stored, 3, w->held);
    settle_memory();
    w->held = (attn_amx_sums){w->scores[w->turn ^ 1], SIDE};
}

static inline __attribute__((always_inline)) float *step_o(const attn_amx_walk *w,
                                                           const attn_amx_step *step)
{
    return w->o + step->strip * ATTN_STRIP * w->value_strips * ATTN_STRIP;
}

/* S = Q K^T; with q past the first cache or not. */
static inline __attribute__((always_inline)) void
multiply_scores(attn_amx_walk *w, const attn_amx_step *step, bool is_far, row_work *rows)
{
    const size_t cells = w->key_cells;
    const attn_bf16 *left = w->q + step->strip * cells * ATTN_CELL;
    const attn_bf16 *right = w->keys + STRIPS * step->tile * cells * ATTN_CELL;
    attn_amx_sums held = w->held;
    for (size_t strip = 0; strip < STRIPS; strip++) {
        const attn_amx_sums to = {w->scores[w->turn] + strip * ATTN_STRIP, SIDE};
        multiply_cell(left, right, is_far, true, false, held, to, rows);
        for (size_t cell = 1; cell < cells; cell++)
            multiply_cell(left + cell * ATTN_CELL, right + cell * ATTN_CELL, is_far, false, false,
                          held, to, rows);
        right += cells * ATTN_CELL;
        held = to;
    }
    w->held = held;
}

/* O += P V, or O = P V. */
static inline __attribute__((always_inline)) void
multiply_values(attn_amx_walk *w, const attn_amx_step *step, row_work *rows)
{
    const attn_bf16 *left = w->p[w->turn];
    const attn_bf16 *right = w->values + STRIPS * step->tile * ATTN_CELL;
    attn_amx_sums to = {step_o(w, step), w->value_strips * ATTN_STRIP}, held = w->held;
    for (size_t column = 0; column < w->value_strips; column++) {
        multiply_cell(left, right, false, true, !step->is_first, held, to, rows);
        multiply_cell(left + ATTN_CELL, right + ATTN_CELL, false, false, true, held, to, rows);
        right += w->key_strips * ATTN_CELL;
        held = to;
        to.sums += ATTN_STRIP;
    }
    w->held = held;
}

/* A step's scores, which then may be changed. */
static void finish_scores(const attn_amx_walk *w, const attn_amx_step *step)
{
    if (step->is_partial) w->finish(w->of, step, w->scores[w->turn]);
}

/* Nothing beside products. */
static row_work no_rows(void)
{
    static const attn_amx_softmax none;
    return start_rows(&none, &(attn_amx_ahead){0}, NULL);
}

void attn_amx_start_walk(attn_amx_walk *w, const attn_amx_step *first)
{
    row_work none = no_rows();
    w->turn = 0;
    w->held = (attn_amx_sums){w->scores[1], SIDE}; /* as after drain() */
    settle_memory();
    multiply_scores(w, first, false, &none);
    drain(w);
    _mm256_zeroupper(); /* gcc 12 forgets it, and code without AVX then waits */
    finish_scores(w, first);
}

static inline __attribute__((always_inline)) void run_step(attn_amx_walk *w,
                                                           const attn_amx_step *before,
                                                           const attn_amx_step *now,
                                                           const attn_amx_step *next, bool is_far)
{
    const size_t first = now->strip * ATTN_STRIP, row = w->value_strips * ATTN_STRIP;
    const attn_amx_softmax s = {.rows = w->queries - first < ATTN_STRIP ? w->queries - first
                                                                        : ATTN_STRIP,
                                .n_tiles = 1,
                                .factor = w->factor,
                                .scores = w->scores[w->turn],
                                .top = w->top + first,
                                .total = w->total + first * ATTN_RUNNING_SUMS,
                                .o = step_o(w, now),
                                .o_row = row,
                                .p = w->p[w->turn]};
    __m512 totals[ATTN_STRIP];
    find_first_tops(&s);
    row_work work = start_rows(&s, &now->ahead, totals);
    work.pace = 8 * (w->key_cells + w->value_strips) / ATTN_STRIP;
    w->turn ^= 1;
    settle_memory();
    if (next) multiply_scores(w, next, is_far, &work);
    if (before) multiply_values(w, before, &work);
    while (work.left > 0) take_row(&work);
    settle_memory();
    if (!before || work.fits != 0xffff) drain(w); /* scores, or o that is changed here */
    if (work.fits != 0xffff) repeat_rows(&s, totals);
    _mm256_zeroupper();
    if (next) finish_scores(w, next);
}

/* Apart, for the sake of the other's registers. */
static __attribute__((noinline)) void run_wide_step(attn_amx_walk *w, const attn_amx_step *before,
                                                    const attn_amx_step *now,
                                                    const attn_amx_step *next)
{
    run_step(w, before, now, next, true);
}

/* Of wide heads, q, scores, P and o do not all fit the first cache. */
void attn_amx_run_step(attn_amx_walk *w, const attn_amx_step *before, const attn_amx_step *now,
                       const attn_amx_step *next)
{
    enum { NARROW_CELLS = 2 };
    if (w->key_cells > NARROW_CELLS)
        run_wide_step(w, before, now, next);
    else
        run_step(w, before, now, next, false);
}

void attn_amx_end_walk(attn_amx_walk *w, const attn_amx_step *last)
{
    row_work none = no_rows();
    w->turn ^= 1;
    settle_memory();
    multiply_values(w, last, &none);
    drain(w);
    _mm256_zeroupper();
}

/* ---- results ----------------------------------------------------------------------------- */

/* log2 of totals, rounded down, and the rest of them, 1 <= l < 2; 0 and what is not finite stay. */
static __m512 split_totals(__m512 totals, __m512 *rest)
{
    enum { NOT_A_NUMBER = 0x81, ZERO = 0x06, INFINITE = 0x18 };
    const __mmask16 plain = _mm512_fpclass_ps_mask(totals, NOT_A_NUMBER | ZERO | INFINITE) ^ 0xffff;
    *rest = _mm512_mask_getmant_ps(totals, plain, totals, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src);
    return _mm512_maskz_getexp_ps(plain, totals);
}

/* Whole cache lines go past the caches: a block's rows are far apart, and many others come before they
 * are read. */
void attn_amx_store_rows(const attn_amx_results *r)
{
    const bool is_far =
        attn_goes_past_caches(r->width * sizeof *r->to, r->to, r->to_row * sizeof *r->to);
    for (size_t first = 0; first < r->rows; first += 16) {
        const size_t n = r->rows - first < 16 ? r->rows - first : 16;
        float sums[16] = {0}, factors[16];
        for (size_t i = 0; i < n; i++)
            sums[i] =
                _mm512_reduce_add_ps(_mm512_load_ps(r->total + (first + i) * ATTN_RUNNING_SUMS));
        const __m512 totals = _mm512_loadu_ps(sums), one = _mm512_set1_ps(1.0f);
        if (r->saved) {
            __m512 rest;
            const __m512 up = split_totals(totals, &rest);
            const __m512 top = _mm512_maskz_loadu_ps(first_16(n), r->top + first);
            _mm512_mask_storeu_ps(r->saved + first, first_16(n), _mm512_add_ps(top, up));
            _mm512_mask_storeu_ps(r->saved + r->saved_row + first, first_16(n), rest);
        }
        const __mmask16 seen = _mm512_cmp_ps_mask(totals, _mm512_setzero_ps(), _CMP_NEQ_UQ);
        _mm512_storeu_ps(factors, _mm512_maskz_div_ps(seen, one, totals));
        for (size_t i = 0; i < n; i++) {
            const __m512 by = _mm512_set1_ps(factors[i]);
            const __mmask16 has_sums = seen >> i & 1 ? 0xffff : 0; /* else o was not written */
            const float *from = r->o + (first + i) * r->o_row;
            float *to = r->to + (first + i) * r->to_row;
            for (size_t j = 0; j < r->width; j += 16) {
                const __mmask16 some = first_16(r->width - j);
                const __m512 o = _mm512_maskz_mul_ps(has_sums, by, _mm512_load_ps(from + j));
                if (is_far)
                    _mm512_stream_ps(to + j, o);
                else
                    _mm512_mask_storeu_ps(to + j, some, o);
            }
        }
    }
}
