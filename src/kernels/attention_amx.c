/* Attention on AMX tiles: products of 32 x 32 sums, and the softmax between two of them.
 *
 * Four tiles hold the sums and two of each factor feed them. A product of tiles takes 16 cycles, in
 * which the vector units are free: so independent pieces of vector work follow each product. Within a
 * piece four vectors go through each operation together: what waits for its operands takes room from
 * the tile instructions behind it. */
#include "kernels/attention_amx.h"

#include "kernels/bf16_square_amx.h"
#include "kernels/simd_unroll.h"
#include "kernels/tiles_amx.h"

#include <float.h>
#include <math.h>

enum {
    HALF_CELL = ATTN_CELL / 2,
    STRIPS = 2,
    SIDE = STRIPS * ATTN_STRIP,
    TILE = ATTN_STRIP * SIDE,
    VECTORS = 4, /* that are worked on together */
    DOWNWARD = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC
};

void attn_amx_begin(void)
{
    configure_tiles();
}

void attn_amx_end(void)
{
    _tile_release();
}

/* ---- products ---------------------------------------------------------------------------- */

/* Quarters of a block's sums, of 16 x 16, each in the tile of its number: top left, bottom left, top
 * right, bottom right. */
static inline __attribute__((always_inline)) float *quarter_at(const attn_amx_block *b, size_t at)
{
    return b->sums + at % 2 * 16 * b->sums_row + at / 2 * 16;
}

#define STORE(held, at) _tile_stored(at, quarter_at(held, at), (held)->sums_row * sizeof(float))

/* A quarter's first product. Sums stay in their tiles until the next block needs these, which gives
 * the products before time to end. */
#define START(held, b, at)                                                                         \
    do {                                                                                           \
        if (held) STORE(held, at);                                                                 \
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

static inline __attribute__((always_inline)) void store_block(const attn_amx_block *held)
{
    STORE(held, 0);
    STORE(held, 1);
    STORE(held, 2);
    STORE(held, 3);
}

/* Vector work, piece by piece, spread over products and the stores at their end. */
typedef void piece_function(void *work);
typedef struct turns {
    piece_function *piece;
    void *work;
    size_t pieces, products, due, left;
} turns;

static inline __attribute__((always_inline)) void take_turn(turns *t)
{
    for (t->due += t->pieces; t->due >= t->products; t->due -= t->products, t->left--)
        t->piece(t->work);
}

/* All four quarters cell by cell. */
static inline __attribute__((always_inline)) void multiply_wide(const attn_amx_block *held,
                                                                const attn_amx_block *b, turns *t)
{
    for (size_t cell = 0; cell < b->n_cells; cell++) {
        const attn_bf16 *left = cell_at(b->left, b->left_cells, cell);
        const attn_bf16 *right = cell_at(b->right, b->right_cells, cell);
        if (cell == 0) START(held, b, 0);
        _tile_stream_loadd(6, right, 64);
        _tile_loadd(4, left, 64);
        _tile_dpbf16ps(0, 4, 6);
        take_turn(t);
        if (cell == 0) START(held, b, 1);
        _tile_loadd(5, left + HALF_CELL, 64);
        _tile_dpbf16ps(1, 5, 6);
        take_turn(t);
        if (cell == 0) START(held, b, 2);
        _tile_stream_loadd(7, right + HALF_CELL, 64);
        _tile_dpbf16ps(2, 4, 7);
        take_turn(t);
        if (cell == 0) START(held, b, 3);
        _tile_dpbf16ps(3, 5, 7);
        take_turn(t);
    }
}

/* The left half, then the right one: with few cells the sums of one end beside the other. */
static inline __attribute__((always_inline)) void multiply_narrow(const attn_amx_block *held,
                                                                  const attn_amx_block *b, turns *t)
{
    for (size_t cell = 0; cell < b->n_cells; cell++) {
        if (cell == 0) START(held, b, 0);
        _tile_stream_loadd(6, b->right + cell * ATTN_CELL, 64);
        _tile_loadd(4, b->left + cell * ATTN_CELL, 64);
        _tile_dpbf16ps(0, 4, 6);
        take_turn(t);
        if (cell == 0) START(held, b, 1);
        _tile_loadd(5, b->left + cell * ATTN_CELL + HALF_CELL, 64);
        _tile_dpbf16ps(1, 5, 6);
        take_turn(t);
    }
    for (size_t cell = 0; cell < b->n_cells; cell++) {
        if (cell == 0) START(held, b, 2);
        _tile_stream_loadd(7, b->right + cell * ATTN_CELL + HALF_CELL, 64);
        _tile_loadd(4, b->left + cell * ATTN_CELL, 64);
        _tile_dpbf16ps(2, 4, 7);
        take_turn(t);
        if (cell == 0) START(held, b, 3);
        _tile_loadd(5, b->left + cell * ATTN_CELL + HALF_CELL, 64);
        _tile_dpbf16ps(3, 5, 7);
        take_turn(t);
    }
}

static size_t count_products(size_t n_blocks, const attn_amx_block *blocks)
{
    size_t n = 0;
    for (size_t i = 0; i < n_blocks; i++) n += 4 * blocks[i].n_cells;
    return n;
}

/* The blocks, and all pieces of the work beside them. */
static inline __attribute__((always_inline)) void multiply_beside(size_t n_blocks,
                                                                  const attn_amx_block *blocks,
                                                                  size_t pieces,
                                                                  piece_function *piece, void *work)
{
    turns t = {.piece = piece,
               .work = work,
               .pieces = pieces,
               .products = count_products(n_blocks, blocks) + 1,
               .left = pieces};
    const attn_amx_block *held = NULL;
    settle_memory();
    for (const attn_amx_block *b = blocks; b < blocks + n_blocks; held = b++) {
        if (b->is_narrow)
            multiply_narrow(held, b, &t);
        else
            multiply_wide(held, b, &t);
    }
    for (; t.left > 0; t.left--) piece(work);
    if (held) store_block(held);
    settle_memory();
}

/* Alone, with nothing to take turns with. */
static inline __attribute__((always_inline)) void multiply_block(const attn_amx_block *held,
                                                                 const attn_amx_block *b)
{
    for (size_t cell = 0; cell < b->n_cells; cell++) {
        const attn_bf16 *left = cell_at(b->left, b->left_cells, cell);
        const attn_bf16 *right = cell_at(b->right, b->right_cells, cell);
        if (cell == 0) START(held, b, 0);
        _tile_loadd(6, right, 64);
        _tile_loadd(4, left, 64);
        _tile_dpbf16ps(0, 4, 6);
        if (cell == 0) START(held, b, 1);
        _tile_loadd(5, left + HALF_CELL, 64);
        _tile_dpbf16ps(1, 5, 6);
        if (cell == 0) START(held, b, 2);
        _tile_loadd(7, right + HALF_CELL, 64);
        _tile_dpbf16ps(2, 4, 7);
        if (cell == 0) START(held, b, 3);
        _tile_dpbf16ps(3, 5, 7);
    }
}

void attn_amx_multiply(size_t n_blocks, const attn_amx_block *blocks)
{
    const attn_amx_block *held = NULL;
    settle_memory();
    for (const attn_amx_block *b = blocks; b < blocks + n_blocks; held = b++)
        multiply_block(held, b);
    if (held) store_block(held);
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

/* 2^x = 2^floor(x) 2^(j / 32) 2^r with 0 <= r < 1/32, and for the last 1 and a polynomial of the least
 * relative error, 6.5e-8: little beside what bfloat16 keeps. While tiles are in use, one of the two
 * vector units no longer multiplies, scales, shifts or converts, but still adds and permutes: hence a
 * table, and no more than six operations that only one unit has. */
static inline __attribute__((always_inline)) void powers_of_two(__m512 x[VECTORS])
{
    const __m512 shift = _mm512_set1_ps(0x1.8p18f); /* its last bit is 1/32 */
    const __m512 slope = _mm512_set1_ps(0x1.62e11ep-1f), bend = _mm512_set1_ps(0x1.f0f3e6p-3f);
    __m512 r[VECTORS], root[VECTORS], u[VECTORS];
    UNROLL for (size_t i = 0; i < VECTORS; i++)
    {
        r[i] = _mm512_reduce_ps(x[i], 5 << 4 | DOWNWARD);
        root[i] = _mm512_add_round_ps(x[i], shift, DOWNWARD);
    }
    UNROLL for (size_t i = 0; i < VECTORS; i++)
    {
        root[i] = _mm512_permutex2var_ps(_mm512_load_ps(roots), _mm512_castps_si512(root[i]),
                                         _mm512_load_ps(roots + 16));
        u[i] = _mm512_fmadd_ps(r[i], bend, slope);
    }
    UNROLL for (size_t i = 0; i < VECTORS; i++) r[i] = _mm512_mul_ps(root[i], r[i]);
    UNROLL for (size_t i = 0; i < VECTORS; i++) r[i] = _mm512_fmadd_ps(r[i], u[i], root[i]);
    UNROLL for (size_t i = 0; i < VECTORS; i++) x[i] = _mm512_scalef_ps(r[i], x[i]);
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
    const __m512i upper = _mm512_set4_epi32(0x0f0e, 0x0b0a, 0x0706, 0x0302);
    const __m512i l = _mm512_add_epi32(_mm512_castps_si512(low), half);
    const __m512i h = _mm512_add_epi32(_mm512_castps_si512(high), half);
    return _mm512_mask_shuffle_epi8(h, 0x3333333333333333u, l, upper);
}

/* A row of P against a tile of keys; the sums of its numbers before they are rounded. */
static inline __attribute__((always_inline)) __m512 exponential_row(const attn_amx_softmax *s,
                                                                    size_t tile, size_t i)
{
    const __m512 by = _mm512_set1_ps(s->factor), top = _mm512_set1_ps(s->top[i]);
    const float *scores = s->scores + tile * TILE + i * SIDE;
    attn_bf16 *p = s->p + tile * STRIPS * ATTN_CELL + i * ATTN_STRIP;
    __m512 x[VECTORS];
    UNROLL for (size_t j = 0; j < VECTORS; j++) x[j] =
        _mm512_fmsub_ps(by, _mm512_load_ps(scores + 16 * j), top);
    powers_of_two(x);
    _mm512_store_si512(p, round_pairs(x[0], x[1]));
    _mm512_store_si512(p + ATTN_CELL, round_pairs(x[2], x[3]));
    return _mm512_add_ps(_mm512_add_ps(x[0], x[1]), _mm512_add_ps(x[2], x[3]));
}

/* Sums up to this need no other reference: P, o and totals keep their relative accuracy. */
static const float room = 0x1p30f;

typedef struct softmax_work {
    const attn_amx_softmax *s;
    size_t tile, row; /* the next */
    __mmask16 fits;   /* no sum was beyond the room */
    __m512 *before;   /* [rows]: totals */
} softmax_work;

static inline __attribute__((always_inline)) void exponentiate_row(void *argument)
{
    softmax_work *w = argument;
    const attn_amx_softmax *s = w->s;
    float *total = s->total + w->row * ATTN_RUNNING_SUMS;
    const __m512 sum = exponential_row(s, w->tile, w->row), sofar = _mm512_load_ps(total);
    w->fits = _mm512_mask_cmp_ps_mask(w->fits, sum, _mm512_set1_ps(room), _CMP_NGT_UQ);
    if (w->tile == 0) w->before[w->row] = sofar;
    _mm512_store_ps(total, _mm512_add_ps(sofar, sum));
    if (++w->row < s->rows) return;
    w->row = 0;
    w->tile++;
}

/* Rare: the rows whose reference rises, once more. */
static __attribute__((noinline)) void repeat_rows(const attn_amx_softmax *s, const __m512 *before)
{
    for (size_t i = 0; i < s->rows; i++) {
        float *total = s->total + i * ATTN_RUNNING_SUMS;
        if (!_mm512_cmp_ps_mask(_mm512_load_ps(total), _mm512_set1_ps(room), _CMP_GT_OQ)) continue;
        _mm512_store_ps(total, before[i]);
        raise_top(s, i);
        __m512 sum = _mm512_load_ps(total);
        for (size_t tile = 0; tile < s->n_tiles; tile++)
            sum = _mm512_add_ps(sum, exponential_row(s, tile, i));
        _mm512_store_ps(total, sum);
    }
}

void attn_amx_run_softmax(const attn_amx_softmax *s, size_t n_blocks, const attn_amx_block *blocks)
{
    __m512 before[ATTN_STRIP];
    softmax_work work = {.s = s, .fits = 0xffff, .before = before};
    find_first_tops(s);
    multiply_beside(n_blocks, blocks, s->rows * s->n_tiles, exponentiate_row, &work);
    if (work.fits != 0xffff) repeat_rows(s, before); /* what is added to o has been added */
    _mm256_zeroupper(); /* gcc 12 forgets it, and code without AVX then waits */
}

/* ---- gradient ---------------------------------------------------------------------------- */

/* P and dS of two rows and 32 neighbours in each: two vectors of the even row, two of the odd one. */
typedef struct gradient_work {
    const attn_amx_gradient *g;
    size_t piece; /* the next */
} gradient_work;

static inline __attribute__((always_inline)) void make_rows(void *argument)
{
    gradient_work *w = argument;
    const attn_amx_gradient *g = w->g;
    const size_t pair = w->piece / STRIPS, strip = w->piece % STRIPS;
    const __m512 by = _mm512_set1_ps(g->factor);
    __m512 p[VECTORS], ds[VECTORS];
    UNROLL for (size_t j = 0; j < VECTORS; j++)
    {
        const size_t i = 2 * pair + j / 2, at = i * SIDE + strip * ATTN_STRIP + j % 2 * 16;
        p[j] = _mm512_fmsub_ps(by, _mm512_load_ps(g->scores + at), _mm512_set1_ps(g->top[i]));
        ds[j] = _mm512_sub_ps(_mm512_load_ps(g->dp + at), _mm512_set1_ps(g->delta[i]));
        if (g->slope) ds[j] = _mm512_mul_ps(ds[j], _mm512_load_ps(g->slope + at));
    }
    powers_of_two(p);
    UNROLL for (size_t j = 0; j < VECTORS; j++) ds[j] = _mm512_mul_ps(p[j], ds[j]);
    attn_bf16 *left = g->ds_left + strip * ATTN_CELL + 2 * pair * ATTN_STRIP;
    const size_t right = strip * g->right_strip + pair * ATTN_STRIP;
    _mm512_store_si512(left, round_pairs(ds[0], ds[1]));
    _mm512_store_si512(left + ATTN_STRIP, round_pairs(ds[2], ds[3]));
    for (size_t half = 0; half < 2; half++) {
        const size_t at = right + half * HALF_CELL;
        _mm512_store_si512(g->p_right + at, round_pairs(p[half], p[2 + half]));
        _mm512_store_si512(g->ds_right + at, round_pairs(ds[half], ds[2 + half]));
    }
    w->piece++;
}

void attn_amx_run_gradient(const attn_amx_gradient *g, size_t n_blocks,
                           const attn_amx_block *blocks)
{
    gradient_work work = {.g = g};
    multiply_beside(n_blocks, blocks, ATTN_STRIP / 2 * STRIPS, make_rows, &work);
    _mm256_zeroupper(); /* gcc 12 forgets it, and code without AVX then waits */
}
