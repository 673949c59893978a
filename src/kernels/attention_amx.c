/* Attention on AMX tiles: products of 32 x 32 sums, and the softmax between two of them.
 *
 * Four tiles hold the sums and two of each factor feed them. Tiles work for 64 cycles on what one
 * cell of k asks for, and the vector units are free meanwhile: so rows of the softmax and cells of
 * independent products are taken in turns. */
#include "kernels/attention_amx.h"

#include <float.h>
#include <immintrin.h>
#include <math.h>

enum { HALF_CELL = ATTN_CELL / 2, SIDE = 2 * ATTN_STRIP };

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

/* Blocks on their way: `cell` of the first of them is next. */
typedef struct queue {
    const attn_amx_block *block, *end;
    size_t cell;
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
    _tile_stream_loadd(6, right, 64);
    _tile_loadd(4, left, 64);
    _tile_loadd(5, left + HALF_CELL, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(2, 5, 6);
    _tile_stream_loadd(7, right + HALF_CELL, 64);
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

/* One cell. */
static inline __attribute__((always_inline)) void advance(queue *q)
{
    if (q->block == q->end) return;
    if (q->cell == 0) start_block(q->block);
    multiply_cell(q->block, q->cell);
    if (++q->cell < q->block->n_cells) return;
    finish_block(q->block++);
    q->cell = 0;
}

void attn_amx_multiply(size_t n_blocks, const attn_amx_block *blocks)
{
    settle_memory();
    for (const attn_amx_block *b = blocks; b < blocks + n_blocks; b++) {
        start_block(b);
        for (size_t cell = 0; cell < b->n_cells; cell++) multiply_cell(b, cell);
        finish_block(b);
    }
    settle_memory();
}

static size_t count_cells(size_t n_blocks, const attn_amx_block *blocks)
{
    size_t n = 0;
    for (size_t i = 0; i < n_blocks; i++) n += blocks[i].n_cells;
    return n;
}

static void finish(queue *q)
{
    while (q->block < q->end) advance(q);
    settle_memory();
}

/* ---- softmax ----------------------------------------------------------------------------- */

/* 2^x = 2^floor(x) 2^f, 0 <= f < 1, and a polynomial of degree 4 of the least relative error for
 * 2^f, 2.6e-6: of what bfloat16 keeps, 1 / 1500. */
static inline __attribute__((always_inline)) __m512 power_of_two(__m512 x)
{
    const __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 q = _mm512_fmadd_ps(f, _mm512_set1_ps(0x1.bb7cd4p-7f), _mm512_set1_ps(0x1.aa13f0p-5f));
    q = _mm512_fmadd_ps(f, q, _mm512_set1_ps(0x1.ee798ap-3f));
    q = _mm512_fmadd_ps(f, q, _mm512_set1_ps(0x1.62d166p-1f));
    q = _mm512_fmadd_ps(f, q, _mm512_set1_ps(0x1.00002cp+0f));
    return _mm512_scalef_ps(q, x);
}

/* A row's new reference: the whole number above its largest exponent. Rare. */
static __attribute__((noinline)) void raise_top(const attn_amx_softmax *s, size_t i)
{
    const float *scores = s->scores + i * s->scores_row;
    __m512 most = _mm512_loadu_ps(scores);
    for (size_t j = 16; j < s->columns; j += 16)
        most = _mm512_max_ps(_mm512_loadu_ps(scores + j), most);
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

/* One row of P; the sums of its numbers before they are rounded. */
static inline __attribute__((always_inline)) __m512 exponential_row(const attn_amx_softmax *s,
                                                                    size_t i)
{
    const __m512 by = _mm512_set1_ps(s->factor), top = _mm512_set1_ps(s->top[i]);
    const float *scores = s->scores + i * s->scores_row;
    attn_bf16 *p = s->p + i * ATTN_STRIP;
    __m512 low_sum = _mm512_setzero_ps(), high_sum = low_sum;
    for (size_t j = 0; j < s->columns; j += ATTN_STRIP) {
        const __m512 low = power_of_two(_mm512_fmsub_ps(by, _mm512_loadu_ps(scores + j), top));
        const __m512 high =
            power_of_two(_mm512_fmsub_ps(by, _mm512_loadu_ps(scores + j + 16), top));
        low_sum = _mm512_add_ps(low_sum, low);
        high_sum = _mm512_add_ps(high_sum, high);
        _mm512_store_si512(p + j * ATTN_STRIP, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
    return _mm512_add_ps(low_sum, high_sum);
}

/* Sums up to this need no other reference: P, o and totals keep their relative accuracy. */
static const float room = 0x1p30f;

void attn_amx_run_softmax(const attn_amx_softmax *softmax, size_t n_blocks,
                          const attn_amx_block *blocks)
{
    const attn_amx_softmax s = *softmax;
    queue q = {.block = blocks, .end = blocks + n_blocks};
    const size_t n_cells = count_cells(n_blocks, blocks);
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
        for (due += n_cells; due >= s.rows; due -= s.rows) advance(&q);
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
    const __m512i lanes =
        _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6,
                         37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i next = _mm512_add_epi16(lanes, _mm512_set1_epi16(16));
    _mm512_store_si512(to, _mm512_permutex2var_epi16(even, lanes, odd));
    _mm512_store_si512(to + HALF_CELL, _mm512_permutex2var_epi16(even, next, odd));
}

void attn_amx_run_gradient(const attn_amx_gradient *gradient, size_t n_blocks,
                           const attn_amx_block *blocks)
{
    const attn_amx_gradient g = *gradient;
    queue q = {.block = blocks, .end = blocks + n_blocks};
    const size_t n_cells = count_cells(n_blocks, blocks);
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
        for (due += n_cells; due >= SIDE / 2; due -= SIDE / 2) advance(&q);
    }
    finish(&q);
}
