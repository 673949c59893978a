/* Attention on AMX tiles: products of 32 x 32 sums, and the softmax between two of them.
 *
 * Four tiles hold the sums and two of each factor feed them. Tiles work for 64 cycles on what one
 * cell of k asks for, and the vector units are free meanwhile: so rows of the softmax and cells of
 * independent products are taken in turns. */
#include "kernels/attention_amx.h"

#include "kernels/bf16_square_amx.h"

#include <float.h>
#include <math.h>

enum { HALF_CELL = ATTN_CELL / 2, SIDE = 2 * ATTN_STRIP, TILE = ATTN_STRIP * SIDE };

void attn_amx_begin(void)
{
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } tiles = {.palette = 1,
               .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
               .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
    _tile_loadconfig(&tiles);
}

void attn_amx_end(void)
{
    _tile_release();
}

/* ---- products ---------------------------------------------------------------------------- */

/* Tile instructions of some compilers do not say that they read memory. */
static inline void settle_memory(void)
{
    __asm__ volatile("" ::: "memory");
}

/* Blocks on their way: `cell` of the first of them is next. Of a narrow block, columns 0 to 15 and 16
 * to 31 are made one after the other, with two tiles of sums each that are stored while the next
 * are made: `waiting` has its second half in tiles 2 and 3. */
typedef struct queue {
    const attn_amx_block *block, *end;
    size_t cell;
    const attn_amx_block *waiting;
} queue;

static inline __attribute__((always_inline)) void start_block(const attn_amx_block *b)
{
    const size_t row = b->sums_row * sizeof(float);
    if (b->adds) {
        _tile_loadd(0, b->sums, row);
        _tile_loadd(1, b->sums + 16, row);
        _tile_loadd(2, b->sums + 16 * b->sums_row, row);
        _tile_loadd(3, b->sums + 16 * b->sums_row + 16, row);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
}

static inline __attribute__((always_inline)) void multiply_cell(const attn_amx_block *b,
                                                                size_t cell)
{
    const size_t left_cell = b->left_cells ? b->left_cells[cell] : cell;
    const size_t right_cell = b->right_cells ? b->right_cells[cell] : cell;
    const attn_bf16 *left = b->left + left_cell * ATTN_CELL;
    const attn_bf16 *right = b->right + right_cell * ATTN_CELL;
    _tile_loadd(6, right, 64);
    _tile_loadd(4, left, 64);
    _tile_loadd(5, left + HALF_CELL, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(2, 5, 6);
    _tile_loadd(7, right + HALF_CELL, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
}

static inline __attribute__((always_inline)) void finish_block(const attn_amx_block *b)
{
    const size_t row = b->sums_row * sizeof(float);
    _tile_stored(0, b->sums, row);
    _tile_stored(1, b->sums + 16, row);
    _tile_stored(2, b->sums + 16 * b->sums_row, row);
    _tile_stored(3, b->sums + 16 * b->sums_row + 16, row);
}

/* 16 columns of a narrow block over all of k, in the tiles `top` and `bottom`. */
#define MULTIPLY_HALF(top, bottom, b, half)                                                        \
    do {                                                                                           \
        const attn_bf16 *left = (b)->left, *right = (b)->right + (half)*HALF_CELL;                 \
        _tile_zero(top);                                                                           \
        _tile_zero(bottom);                                                                        \
        for (size_t cell = 0; cell < (b)->n_cells; cell++) {                                       \
            _tile_stream_loadd(6, right + cell * ATTN_CELL, 64);                                   \
            _tile_loadd(4, left + cell * ATTN_CELL, 64);                                           \
            _tile_loadd(5, left + cell * ATTN_CELL + HALF_CELL, 64);                               \
            _tile_dpbf16ps(top, 4, 6);                                                             \
            _tile_dpbf16ps(bottom, 5, 6);                                                          \
        }                                                                                          \
    } while (0)

#define STORE_HALF(top, bottom, b, half)                                                           \
    do {                                                                                           \
        float *sums = (b)->sums + (half)*16;                                                       \
        _tile_stored(top, sums, (b)->sums_row * sizeof(float));                                    \
        _tile_stored(bottom, sums + 16 * (b)->sums_row, (b)->sums_row * sizeof(float));            \
    } while (0)

static inline __attribute__((always_inline)) void store_waiting(queue *q)
{
    if (q->waiting) STORE_HALF(2, 3, q->waiting, 1);
    q->waiting = NULL;
}

/* About four tile products. */
static inline __attribute__((always_inline)) void advance(queue *q)
{
    const attn_amx_block *b = q->block;
    if (b == q->end) return;
    if (b->is_narrow && q->cell == 0) {
        MULTIPLY_HALF(0, 1, b, 0);
        store_waiting(q);
        q->cell = 1;
    } else if (b->is_narrow) {
        MULTIPLY_HALF(2, 3, b, 1);
        STORE_HALF(0, 1, b, 0);
        q->waiting = b;
        q->block++;
        q->cell = 0;
    } else {
        store_waiting(q);
        if (q->cell == 0) start_block(b);
        multiply_cell(b, q->cell);
        if (++q->cell < b->n_cells) return;
        finish_block(b);
        q->block++;
        q->cell = 0;
    }
}

/* Calls of advance() that finish the blocks. */
static size_t count_advances(size_t n_blocks, const attn_amx_block *blocks)
{
    size_t n = 0;
    for (size_t i = 0; i < n_blocks; i++) n += blocks[i].is_narrow ? 2 : blocks[i].n_cells;
    return n;
}

static void finish(queue *q)
{
    while (q->block < q->end) advance(q);
    store_waiting(q);
    settle_memory();
}

void attn_amx_multiply(size_t n_blocks, const attn_amx_block *blocks)
{
    queue q = {.block = blocks, .end = blocks + n_blocks};
    settle_memory();
    finish(&q);
}

/* ---- softmax ----------------------------------------------------------------------------- */

/* 2^x = 2^floor(x) 2^f, 0 <= f < 1, and a polynomial of degree 5 of the least relative error for
 * 2^f, 7.5e-8: little beside what bfloat16 keeps. */
static inline __attribute__((always_inline)) __m512 power_of_two(__m512 x)
{
    const __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 q = _mm512_fmadd_ps(f, _mm512_set1_ps(0x1.ec320ap-10f), _mm512_set1_ps(0x1.26900cp-7f));
    q = _mm512_fmadd_ps(f, q, _mm512_set1_ps(0x1.c95446p-5f));
    q = _mm512_fmadd_ps(f, q, _mm512_set1_ps(0x1.ebd5a8p-3f));
    q = _mm512_fmadd_ps(f, q, _mm512_set1_ps(0x1.62e4f6p-1f));
    q = _mm512_fmadd_ps(f, q, _mm512_set1_ps(0x1.fffffep-1f));
    return _mm512_scalef_ps(q, x);
}

/* A row's new reference: the whole number above its largest exponent. Rare. */
static __attribute__((noinline)) void raise_top(const attn_amx_softmax *s, size_t i)
{
    __m512 most = _mm512_set1_ps(-INFINITY);
    for (size_t t = 0; t < s->n_tiles; t++)
        for (size_t j = 0; j < SIDE; j += 16)
            most = _mm512_max_ps(_mm512_loadu_ps(s->scores + t * TILE + i * SIDE + j), most);
    const float largest = s->factor * _mm512_reduce_max_ps(most);
    if (!(largest > s->top[i])) return; /* nothing seen, or not a number */
    const float top = ceilf(largest);
    const __m512 down = _mm512_scalef_ps(_mm512_set1_ps(1.0f), _mm512_set1_ps(s->top[i] - top));
    float *total = s->total + i * ATTN_RUNNING_SUMS, *o = s->o + i * s->o_row;
    _mm512_storeu_ps(total, _mm512_mul_ps(_mm512_loadu_ps(total), down));
    for (size_t j = 0; j < s->o_row; j += 16)
        _mm512_storeu_ps(o + j, _mm512_mul_ps(_mm512_loadu_ps(o + j), down));
    s->top[i] = top;
}

/* Two vectors of positive numbers as pairs of bfloat16, rounded to the nearest, ties up: cheaper
 * than the instruction for it. A NaN of arithmetic stays one. */
static inline __attribute__((always_inline)) __m512i round_pairs(__m512 low, __m512 high)
{
    const __m512i half = _mm512_set1_epi32(0x8000);
    const __m512i l = _mm512_add_epi32(_mm512_castps_si512(low), half);
    const __m512i h = _mm512_add_epi32(_mm512_castps_si512(high), half);
    return _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(l, 16), h);
}

/* One row of P; the sums of its numbers before they are rounded. */
static inline __attribute__((always_inline)) __m512 exponential_row(const attn_amx_softmax *s,
                                                                    size_t i)
{
    const __m512 by = _mm512_set1_ps(s->factor), top = _mm512_set1_ps(s->top[i]);
    const float *scores = s->scores + i * SIDE;
    attn_bf16 *p = s->p + i * ATTN_STRIP;
    __m512 sum0 = _mm512_setzero_ps(), sum1 = sum0, sum2 = sum0, sum3 = sum0;
    for (size_t t = 0; t < s->n_tiles; t++, scores += TILE, p += 2 * ATTN_CELL) {
        const __m512 p0 = power_of_two(_mm512_fmsub_ps(by, _mm512_loadu_ps(scores), top));
        const __m512 p1 = power_of_two(_mm512_fmsub_ps(by, _mm512_loadu_ps(scores + 16), top));
        const __m512 p2 = power_of_two(_mm512_fmsub_ps(by, _mm512_loadu_ps(scores + 32), top));
        const __m512 p3 = power_of_two(_mm512_fmsub_ps(by, _mm512_loadu_ps(scores + 48), top));
        sum0 = _mm512_add_ps(sum0, p0);
        sum1 = _mm512_add_ps(sum1, p1);
        sum2 = _mm512_add_ps(sum2, p2);
        sum3 = _mm512_add_ps(sum3, p3);
        _mm512_store_si512(p, round_pairs(p0, p1));
        _mm512_store_si512(p + ATTN_CELL, round_pairs(p2, p3));
    }
    return _mm512_add_ps(_mm512_add_ps(sum0, sum1), _mm512_add_ps(sum2, sum3));
}

/* Sums up to this need no other reference: P, o and totals keep their relative accuracy. */
static const float room = 0x1p30f;

void attn_amx_run_softmax(const attn_amx_softmax *softmax, size_t n_blocks,
                          const attn_amx_block *blocks)
{
    const attn_amx_softmax s = *softmax;
    queue q = {.block = blocks, .end = blocks + n_blocks};
    const size_t n_advances = count_advances(n_blocks, blocks);
    size_t due = 0;
    settle_memory();
    for (size_t i = 0; i < s.rows; i++) {
        if (s.top[i] == -FLT_MAX) raise_top(&s, i);
        __m512 sum = exponential_row(&s, i);
        if (_mm512_cmp_ps_mask(sum, _mm512_set1_ps(room), _CMP_GT_OQ)) {
            raise_top(&s, i);
            sum = exponential_row(&s, i);
        }
        float *total = s.total + i * ATTN_RUNNING_SUMS;
        _mm512_storeu_ps(total, _mm512_add_ps(_mm512_loadu_ps(total), sum));
        for (due += n_advances; due >= s.rows; due -= s.rows) advance(&q);
    }
    finish(&q);
}

/* ---- gradient ---------------------------------------------------------------------------- */

typedef struct gradient_row {
    __m512i p, ds; /* 32 numbers */
} gradient_row;

static inline __attribute__((always_inline)) gradient_row make_row(const attn_amx_gradient *g,
                                                                   size_t i, size_t j)
{
    const __m512 by = _mm512_set1_ps(g->factor), top = _mm512_set1_ps(g->top[i]);
    const __m512 delta = _mm512_set1_ps(g->delta[i]);
    const float *s = g->scores + i * SIDE + j, *dp = g->dp + i * SIDE + j;
    const __m512 low = power_of_two(_mm512_fmsub_ps(by, _mm512_loadu_ps(s), top));
    const __m512 high = power_of_two(_mm512_fmsub_ps(by, _mm512_loadu_ps(s + 16), top));
    __m512 low_ds = _mm512_mul_ps(low, _mm512_sub_ps(_mm512_loadu_ps(dp), delta));
    __m512 high_ds = _mm512_mul_ps(high, _mm512_sub_ps(_mm512_loadu_ps(dp + 16), delta));
    if (g->slope) {
        low_ds = _mm512_mul_ps(low_ds, _mm512_loadu_ps(g->slope + i * SIDE + j));
        high_ds = _mm512_mul_ps(high_ds, _mm512_loadu_ps(g->slope + i * SIDE + j + 16));
    }
    return (gradient_row){.p = (__m512i)_mm512_cvtne2ps_pbh(high, low),
                          .ds = (__m512i)_mm512_cvtne2ps_pbh(high_ds, low_ds)};
}

/* Two rows as 32 columns of pairs. */
static inline __attribute__((always_inline)) void put_pairs(__m512i even, __m512i odd,
                                                            attn_bf16 *to)
{
    _mm512_store_si512(to, pair_rows(even, odd, 0));
    _mm512_store_si512(to + HALF_CELL, pair_rows(even, odd, 1));
}

void attn_amx_run_gradient(const attn_amx_gradient *gradient, size_t n_blocks,
                           const attn_amx_block *blocks)
{
    const attn_amx_gradient g = *gradient;
    queue q = {.block = blocks, .end = blocks + n_blocks};
    const size_t n_advances = count_advances(n_blocks, blocks);
    size_t due = 0;
    settle_memory();
    for (size_t i = 0; i < SIDE; i += 2) {
        const size_t strip = i / ATTN_STRIP, row = i % ATTN_STRIP;
        for (size_t half = 0; half < 2; half++) {
            const gradient_row even = make_row(&g, i, half * ATTN_STRIP);
            const gradient_row odd = make_row(&g, i + 1, half * ATTN_STRIP);
            attn_bf16 *left = g.ds_left + strip * g.left_strip + half * ATTN_CELL;
            const size_t right = half * g.right_strip + strip * ATTN_CELL + row / 2 * ATTN_STRIP;
            _mm512_store_si512(left + row * ATTN_STRIP, even.ds);
            _mm512_store_si512(left + (row + 1) * ATTN_STRIP, odd.ds);
            put_pairs(even.p, odd.p, g.p_right + right);
            put_pairs(even.ds, odd.ds, g.ds_right + right);
        }
        for (due += n_advances; due >= SIDE / 2; due -= SIDE / 2) advance(&q);
    }
    finish(&q);
}
