/* Attention on AMX tiles: products of 32 x 32 sums, and the softmax between two of them.
 *
 * Four tiles hold the sums and two of each factor feed them. A product of tiles takes 16 cycles, in
 * which the vector units are free: so independent pieces of vector work follow each product. Within a
 * piece four vectors go through each operation together: what waits for its operands takes room from
 * the tile instructions behind it. */
#include "kernels/attention_amx.h"

#include "kernels/attention_beside_amx.h"

#include <math.h>

enum { TILE = ATTN_STRIP * SIDE };

void attn_amx_begin(void)
{
    configure_tiles();
}

void attn_amx_end(void)
{
    _tile_release();
}

/* ---- products ---------------------------------------------------------------------------- */

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
