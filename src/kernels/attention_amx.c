/* Attention on AMX tiles: products of 32 x 32 sums, and the softmax between two of them.
 *
 * Four tiles hold the sums and two of each factor feed them. A product of tiles takes 16 cycles, in
 * which the vector units are free: so vectors of the softmax and independent products are taken in
 * turns, one product at a time, since a second one that waits keeps vectors waiting too. */
#include "kernels/attention_amx.h"

#include "kernels/bf16_square_amx.h"

#include <float.h>
#include <math.h>

enum {
    HALF_CELL = ATTN_CELL / 2,
    STRIPS = 2,
    SIDE = STRIPS * ATTN_STRIP,
    TILE = ATTN_STRIP * SIDE
};

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

/* Quarters of a block's sums, of 16 x 16: each has a tile of its own. A wide block goes through all
 * four for each cell of k, a narrow one through all cells for its left half first. */
typedef enum quarter { TOP_LEFT, BOTTOM_LEFT, TOP_RIGHT, BOTTOM_RIGHT } quarter;

/* Blocks on their way. Sums stay in their tiles until the next block needs these, which gives the
 * products before time to end. */
typedef struct queue {
    const attn_amx_block *block, *end;
    quarter next;
    size_t cell;
    const attn_amx_block *held; /* whose sums are in the tiles from `next` on, or in all */
} queue;

static inline __attribute__((always_inline)) float *quarter_at(const attn_amx_block *b, quarter at)
{
    return b->sums + at % 2 * 16 * b->sums_row + at / 2 * 16;
}

#define STORE(held, at) _tile_stored(at, quarter_at(held, at), (held)->sums_row * sizeof(float))

/* A quarter's first product. */
#define START(q, b, at)                                                                            \
    do {                                                                                           \
        if ((q)->cell > 0) break;                                                                  \
        if ((q)->held) STORE((q)->held, at);                                                       \
        if ((b)->adds)                                                                             \
            _tile_loadd(at, quarter_at(b, at), (b)->sums_row * sizeof(float));                     \
        else                                                                                       \
            _tile_zero(at);                                                                        \
    } while (0)

static inline __attribute__((always_inline)) const attn_bf16 *
cell_at(const attn_bf16 *from, const uint32_t *cells, size_t cell)
{
    return from + (cells ? cells[cell] : cell) * ATTN_CELL;
}

/* One product of tiles. */
static inline __attribute__((always_inline)) void advance(queue *q)
{
    const attn_amx_block *b = q->block;
    if (b == q->end) return;
    const attn_bf16 *left = cell_at(b->left, b->left_cells, q->cell);
    const attn_bf16 *right = cell_at(b->right, b->right_cells, q->cell);
    switch (q->next) {
    case TOP_LEFT:
        START(q, b, 0);
        _tile_stream_loadd(6, right, 64);
        _tile_loadd(4, left, 64);
        _tile_dpbf16ps(0, 4, 6);
        q->next = BOTTOM_LEFT;
        return;
    case BOTTOM_LEFT:
        START(q, b, 1);
        _tile_loadd(5, left + HALF_CELL, 64);
        _tile_dpbf16ps(1, 5, 6);
        q->next = TOP_RIGHT;
        if (!b->is_narrow) return;
        q->next = TOP_LEFT;
        if (++q->cell < b->n_cells) return;
        q->next = TOP_RIGHT;
        q->cell = 0;
        return;
    case TOP_RIGHT:
        START(q, b, 2);
        _tile_stream_loadd(7, right + HALF_CELL, 64);
        if (b->is_narrow) _tile_loadd(4, left, 64);
        _tile_dpbf16ps(2, 4, 7);
        q->next = BOTTOM_RIGHT;
        return;
    case BOTTOM_RIGHT:
        START(q, b, 3);
        if (b->is_narrow) _tile_loadd(5, left + HALF_CELL, 64);
        _tile_dpbf16ps(3, 5, 7);
        q->next = b->is_narrow ? TOP_RIGHT : TOP_LEFT;
        if (++q->cell < b->n_cells) return;
        q->next = TOP_LEFT;
        q->cell = 0;
        q->held = b;
        q->block++;
    }
}

/* Calls of advance() that finish the blocks. */
static size_t count_advances(size_t n_blocks, const attn_amx_block *blocks)
{
    size_t n = 0;
    for (size_t i = 0; i < n_blocks; i++) n += 4 * blocks[i].n_cells;
    return n;
}

static void finish(queue *q)
{
    while (q->block < q->end) advance(q);
    if (q->held) {
        STORE(q->held, 0);
        STORE(q->held, 1);
        STORE(q->held, 2);
        STORE(q->held, 3);
    }
    q->held = NULL;
    settle_memory();
}

/* Turns of vectors and tiles. */
typedef struct pace {
    size_t advances, turns, due;
} pace;

static inline __attribute__((always_inline)) void take_turn(queue *q, pace *p)
{
    for (p->due += p->advances; p->due >= p->turns; p->due -= p->turns) advance(q);
}

/* Alone, with nothing to take turns with. */
static inline __attribute__((always_inline)) void multiply_block(const attn_amx_block *b)
{
    const size_t row = b->sums_row * sizeof(float);
    if (b->adds) {
        _tile_loadd(0, quarter_at(b, TOP_LEFT), row);
        _tile_loadd(1, quarter_at(b, BOTTOM_LEFT), row);
        _tile_loadd(2, quarter_at(b, TOP_RIGHT), row);
        _tile_loadd(3, quarter_at(b, BOTTOM_RIGHT), row);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (size_t cell = 0; cell < b->n_cells; cell++) {
        const attn_bf16 *left = cell_at(b->left, b->left_cells, cell);
        const attn_bf16 *right = cell_at(b->right, b->right_cells, cell);
        _tile_loadd(6, right, 64);
        _tile_loadd(4, left, 64);
        _tile_loadd(5, left + HALF_CELL, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 5, 6);
        _tile_loadd(7, right + HALF_CELL, 64);
        _tile_dpbf16ps(2, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
    }
    STORE(b, 0);
    STORE(b, 1);
    STORE(b, 2);
    STORE(b, 3);
}

void attn_amx_multiply(size_t n_blocks, const attn_amx_block *blocks)
{
    settle_memory();
    for (size_t i = 0; i < n_blocks; i++) multiply_block(&blocks[i]);
    settle_memory();
}

/* ---- softmax ----------------------------------------------------------------------------- */

/* 2^(j / 32). */
static const _Alignas(64) float roots[32] = {
    0x1.000000p+0f, 0x1.059b0ep+0f, 0x1.0b5586p+0f, 0x1.11301ep+0f, 0x1.172b84p+0f, 0x1.1d4874p+0f,
    0x1.2387a6p+0f, 0x1.29e9e0p+0f, 0x1.306fe0p+0f, 0x1.371a74p+0f, 0x1.3dea64p+0f, 0x1.44e086p+0f,
    0x1.4bfdaep+0f, 0x1.5342b6p+0f, 0x1.5ab07ep+0f, 0x1.6247ecp+0f, 0x1.6a09e6p+0f, 0x1.71f75ep+0f,
    0x1.7a1148p+0f, 0x1.82589ap+0f, 0x1.8ace54p+0f, 0x1.93737cp+0f, 0x1.9c4918p+0f, 0x1.a5503cp+0f,
    0x1.ae89fap+0f, 0x1.b7f770p+0f, 0x1.c199bep+0f, 0x1.cb720ep+0f, 0x1.d5818ep+0f, 0x1.dfc974p+0f,
    0x1.ea4afap+0f, 0x1.f50766p+0f};

/* 2^x = 2^n 2^(j / 32) 2^r with |r| <= 1/64, and a polynomial of degree 2 of the least relative error
 * for the last, 5.3e-8: little beside what bfloat16 keeps. While tiles are in use, one of the two
 * vector units no longer multiplies, scales, shifts or converts, but still adds and permutes: hence
 * a table. */
static inline __attribute__((always_inline)) __m512 power_of_two(__m512 x)
{
    const __m512 shift = _mm512_set1_ps(0x1.8p18f); /* its last bit is 1/32 */
    const __m512 r = _mm512_reduce_ps(x, 5 << 4 | _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 shifted = _mm512_add_ps(x, shift);
    const __m512 root = _mm512_permutex2var_ps(_mm512_load_ps(roots), _mm512_castps_si512(shifted),
                                               _mm512_load_ps(roots + 16));
    const __m512 u =
        _mm512_fmadd_ps(r, _mm512_set1_ps(0x1.ebfbe0p-3f), _mm512_set1_ps(0x1.62e584p-1f));
    const __m512 q = _mm512_fmadd_ps(_mm512_mul_ps(root, r), u, root);
    return _mm512_scalef_ps(q, _mm512_sub_ps(shifted, shift));
}

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

/* Rare. */
static __attribute__((noinline)) void raise_top(const attn_amx_softmax *s, size_t i)
{
    const float top = find_top(s, i);
    const __m512 down = _mm512_scalef_ps(_mm512_set1_ps(1.0f), _mm512_set1_ps(s->top[i] - top));
    float *total = s->total + i * ATTN_RUNNING_SUMS, *o = s->o + i * s->o_row;
    _mm512_storeu_ps(total, _mm512_mul_ps(_mm512_loadu_ps(total), down));
    for (size_t j = 0; j < s->o_row; j += 16)
        _mm512_storeu_ps(o + j, _mm512_mul_ps(_mm512_loadu_ps(o + j), down));
    s->top[i] = top;
}

/* Two vectors as pairs of bfloat16, rounded to the nearest, ties away from 0: cheaper than the
 * instruction for it. A NaN of arithmetic stays one. */
static inline __attribute__((always_inline)) __m512i round_pairs(__m512 low, __m512 high)
{
    const __m512i half = _mm512_set1_epi32(0x8000);
    const __m512i l = _mm512_add_epi32(_mm512_castps_si512(low), half);
    const __m512i h = _mm512_add_epi32(_mm512_castps_si512(high), half);
    return _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(l, 16), h);
}

/* The scores against a cell's keys. */
static inline const float *scores_at(const attn_amx_softmax *s, size_t cell)
{
    return s->scores + cell / STRIPS * TILE + cell % STRIPS * ATTN_STRIP;
}

/* Two vectors of a row's P, 16 keys each. */
static inline __attribute__((always_inline)) __m512 exponential_pair(const float *scores, __m512 by,
                                                                     __m512 top, attn_bf16 *p)
{
    const __m512 low = power_of_two(_mm512_fmsub_ps(by, _mm512_load_ps(scores), top));
    const __m512 high = power_of_two(_mm512_fmsub_ps(by, _mm512_load_ps(scores + 16), top));
    _mm512_store_si512(p, round_pairs(low, high));
    return _mm512_add_ps(low, high);
}

/* One row of P, for another reference; the sums of its numbers before they are rounded. */
static __m512 exponential_row(const attn_amx_softmax *s, size_t i)
{
    const __m512 by = _mm512_set1_ps(s->factor), top = _mm512_set1_ps(s->top[i]);
    __m512 sum = _mm512_setzero_ps();
    for (size_t cell = 0; cell < STRIPS * s->n_tiles; cell++)
        sum = _mm512_add_ps(sum, exponential_pair(scores_at(s, cell) + i * SIDE, by, top,
                                                  s->p + cell * ATTN_CELL + i * ATTN_STRIP));
    return sum;
}

/* Sums up to this need no other reference: P, o and totals keep their relative accuracy. */
static const float room = 0x1p30f;

void attn_amx_run_softmax(const attn_amx_softmax *s, size_t n_blocks, const attn_amx_block *blocks)
{
    const size_t rows = s->rows, n_cells = STRIPS * s->n_tiles;
    const __m512 by = _mm512_set1_ps(s->factor);
    __m512 sums[ATTN_STRIP];
    queue q = {.block = blocks, .end = blocks + n_blocks};
    pace turns = {.advances = count_advances(n_blocks, blocks), .turns = rows * n_cells};
    settle_memory();
    for (size_t i = 0; i < rows; i++) {
        if (s->top[i] == -FLT_MAX) s->top[i] = find_top(s, i); /* total and o are 0 */
        sums[i] = _mm512_setzero_ps();
    }
    for (size_t cell = 0; cell < n_cells; cell++) {
        const float *scores = scores_at(s, cell);
        attn_bf16 *p = s->p + cell * ATTN_CELL;
        for (size_t i = 0; i < rows; i++) {
            const __m512 top = _mm512_set1_ps(s->top[i]);
            sums[i] = _mm512_add_ps(
                sums[i], exponential_pair(scores + i * SIDE, by, top, p + i * ATTN_STRIP));
            take_turn(&q, &turns);
        }
    }
    for (size_t i = 0; i < rows; i++) {
        if (_mm512_cmp_ps_mask(sums[i], _mm512_set1_ps(room), _CMP_GT_OQ)) {
            finish(&q); /* what is added to o is added before */
            raise_top(s, i);
            sums[i] = exponential_row(s, i);
        }
        float *total = s->total + i * ATTN_RUNNING_SUMS;
        _mm512_storeu_ps(total, _mm512_add_ps(_mm512_loadu_ps(total), sums[i]));
    }
    finish(&q);
    _mm256_zeroupper(); /* gcc 12 forgets it, and code without AVX then waits */
}

/* ---- gradient ---------------------------------------------------------------------------- */

/* P and dS of 32 neighbours in a row. */
typedef struct gradient_row {
    __m512 p[2], ds[2];
} gradient_row;

static inline __attribute__((always_inline)) gradient_row make_row(const attn_amx_gradient *g,
                                                                   size_t i, size_t j)
{
    const __m512 by = _mm512_set1_ps(g->factor), top = _mm512_set1_ps(g->top[i]);
    const __m512 delta = _mm512_set1_ps(g->delta[i]);
    gradient_row row;
    for (size_t half = 0; half < 2; half++) {
        const size_t at = i * SIDE + j + 16 * half;
        row.p[half] = power_of_two(_mm512_fmsub_ps(by, _mm512_loadu_ps(g->scores + at), top));
        row.ds[half] =
            _mm512_mul_ps(row.p[half], _mm512_sub_ps(_mm512_loadu_ps(g->dp + at), delta));
        if (g->slope) row.ds[half] = _mm512_mul_ps(row.ds[half], _mm512_loadu_ps(g->slope + at));
    }
    return row;
}

void attn_amx_run_gradient(const attn_amx_gradient *g, size_t n_blocks,
                           const attn_amx_block *blocks)
{
    enum { PAIRS = ATTN_STRIP / 2 };
    queue q = {.block = blocks, .end = blocks + n_blocks};
    pace turns = {.advances = count_advances(n_blocks, blocks), .turns = PAIRS * STRIPS};
    settle_memory();
    for (size_t pair = 0; pair < PAIRS; pair++) {
        for (size_t strip = 0; strip < STRIPS; strip++) {
            const gradient_row even = make_row(g, 2 * pair, strip * ATTN_STRIP);
            const gradient_row odd = make_row(g, 2 * pair + 1, strip * ATTN_STRIP);
            attn_bf16 *left = g->ds_left + strip * ATTN_CELL + 2 * pair * ATTN_STRIP;
            const size_t right = strip * g->right_strip + pair * ATTN_STRIP;
            _mm512_store_si512(left, round_pairs(even.ds[0], even.ds[1]));
            _mm512_store_si512(left + ATTN_STRIP, round_pairs(odd.ds[0], odd.ds[1]));
            for (size_t half = 0; half < 2; half++) {
                const size_t at = right + half * HALF_CELL;
                _mm512_store_si512(g->p_right + at, round_pairs(even.p[half], odd.p[half]));
                _mm512_store_si512(g->ds_right + at, round_pairs(even.ds[half], odd.ds[half]));
            }
            take_turn(&q, &turns);
        }
    }
    finish(&q);
    _mm256_zeroupper(); /* gcc 12 forgets it, and code without AVX then waits */
}
