/* Products of floats on AMX tiles, in two bfloat16 parts of each factor. See product_amx.h.
 *
 * Both factors are packed on the stack, cell by cell and just before the tiles need them, since packing
 * takes as long as the tiles and one can hide the other. Cells are those of bf16_cells.h, but
 * numbers i and i + 16 of k are a pair: that takes a shift and a blend and no permutation. A block
 * one of whose factors is not finite, or would not be once it is rounded, is left to AVX-512:
 * inf - inf in a low part must not hide an infinity. */
#include "kernels/product_amx.h"

#include "kernels/bf16_cells.h"
#include "kernels/bf16_square_amx.h"
#include "kernels/tiles_amx.h"

#include <stdint.h>

enum {
    STRIP = ATTN_STRIP,
    HALF_CELL = ATTN_CELL / 2,
    LEFT_CELLS = 9, /* of a strip of a, of which there are two: all of k in one pass, or less */
    RIGHT_CELLS = 18,
    GROUPS = 3, /* of tile products for each cell */
    /* Smaller products are as fast or faster without tiles (docs/SPEED.md). */
    FEWEST_ROWS = 32,
    FEWEST_COLUMNS = 16,
    FEWEST_TERMS = 32
};

typedef struct parts_cell {
    attn_bf16 high[ATTN_CELL], low[ATTN_CELL];
} parts_cell;

/* A product, or a pass of one: k is at most LEFT_CELLS cells, and all of b fits `right`. */
typedef struct product {
    size_t m, n, k;
    const float *a;
    size_t a_row, a_column;
    const float *b;
    size_t b_row;
    float *c;
    size_t c_row;
    bool adds;
    attn_ahead *ahead; /* NULL: nothing to be asked for */
    size_t step;       /* multiply-adds for which each turn asks */
} product;

/* The cells of both factors in the order in which the tiles need them first: those of the first
 * strips of a and b in turns, the other strips of b, the other strips of a. */
typedef struct packer {
    const product *p;
    size_t cells, right_strips; /* of k; of b */
    size_t item, n_items;       /* packed so far; of all */
    bool is_left;               /* what comes next */
    size_t strip, cell, step;
    __m512 left_sums[2], right_sums[RIGHT_CELLS]; /* finite where all numbers of the strip are */
    parts_cell left[2][LEFT_CELLS], right[RIGHT_CELLS];
} packer;

/* ---- packing ----------------------------------------------------------------------------- */

/* Two vectors, numbers i and i + 16 of k, as pairs. */
typedef struct parts {
    __m512i high, low;
} parts;

/* Both parts are rounded to the nearest, ties away from 0. `sum` adds products of low parts to 1:
 * it stays finite as long as everything is, and numbers are below 2^70. */
static inline __attribute__((always_inline)) parts split(__m512 x0, __m512 x1, __m512 *sum)
{
    const __m512i half = _mm512_set1_epi32(0x8000), upper = _mm512_set1_epi32(-0x10000);
    const __m512i r0 = _mm512_add_epi32(_mm512_castps_si512(x0), half);
    const __m512i r1 = _mm512_add_epi32(_mm512_castps_si512(x1), half);
    const __m512 l0 = _mm512_sub_ps(x0, _mm512_castsi512_ps(_mm512_and_si512(r0, upper)));
    const __m512 l1 = _mm512_sub_ps(x1, _mm512_castsi512_ps(_mm512_and_si512(r1, upper)));
    const __m512i s0 = _mm512_add_epi32(_mm512_castps_si512(l0), half);
    const __m512i s1 = _mm512_add_epi32(_mm512_castps_si512(l1), half);
    *sum = _mm512_fmadd_ps(l0, l1, *sum);
    return (parts){.high = _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(r0, 16), r1),
                   .low = _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(s0, 16), s1)};
}

static inline void put_parts(parts both, size_t at, parts_cell *out)
{
    _mm512_store_si512(out->high + at, both.high);
    _mm512_store_si512(out->low + at, both.low);
}

/* The lanes of a vector of which `rest` numbers remain, none for a row that is not there. */
static inline __attribute__((always_inline)) __m512 take(const float *from, bool is_whole,
                                                         bool is_there, __mmask16 lanes)
{
    return is_whole   ? _mm512_loadu_ps(from)
           : is_there ? _mm512_maskz_loadu_ps(lanes, from)
                      : _mm512_setzero_ps();
}

/* Steps of a cell: a quarter each; of a transposed one, either half is split, and then its parts are
 * turned. Rows of the left factor that are not there stay what they are: so do their sums. */
enum { STEPS = 4, TURNING_STEPS = 6 };

static inline __attribute__((always_inline)) void pack_right(const product *p, size_t strip,
                                                             size_t cell, size_t step,
                                                             bool is_whole, parts_cell *out,
                                                             __m512 *to)
{
    const size_t n = p->n - strip * STRIP, rest = p->k - cell * STRIP, row = p->b_row;
    const float *from = p->b + (cell * STRIP + 4 * step) * row + strip * STRIP;
    const __mmask16 lanes[2] = {first_16(n), first_16(n > 16 ? n - 16 : 0)};
    __m512 sum = *to;
    for (size_t i = 4 * step; i < 4 * step + 4; i++, from += row)
        for (size_t half = 0; half < 2; half++) {
            const float *x = from + 16 * half;
            put_parts(split(take(x, is_whole, i < rest, lanes[half]),
                            take(x + 16 * row, is_whole, i + 16 < rest, lanes[half]), &sum),
                      half * HALF_CELL + i * STRIP, out);
        }
    *to = sum;
}

static inline __attribute__((always_inline)) void pack_left_rows(const product *p, size_t strip,
                                                                 size_t cell, size_t step,
                                                                 bool is_whole, parts_cell *out,
                                                                 __m512 *to)
{
    const size_t m = p->m - strip * STRIP, rest = p->k - cell * STRIP;
    const float *from = p->a + (strip * STRIP + 8 * step) * p->a_row + cell * STRIP;
    const __mmask16 first = first_16(rest), second = first_16(rest > 16 ? rest - 16 : 0);
    __m512 sum = *to;
    for (size_t i = 8 * step; i < 8 * step + 8; i++, from += p->a_row) {
        if (!is_whole && i >= m) break;
        put_parts(split(take(from, is_whole, true, first),
                        take(from + 16, is_whole, rest > 16, second), &sum),
                  i * STRIP, out);
    }
    *to = sum;
}

static void turn_tile(attn_bf16 *tile)
{
    __m512i rows[16];
    for (size_t i = 0; i < 16; i++) rows[i] = _mm512_load_si512(tile + i * STRIP);
    transpose_pairs(rows);
    put_tile(rows, tile);
}

static inline __attribute__((always_inline)) void pack_left_columns(const product *p, size_t strip,
                                                                    size_t cell, size_t step,
                                                                    bool is_whole, parts_cell *out,
                                                                    __m512 *to)
{
    const size_t half = step / 3, at = half * HALF_CELL, row = p->a_column;
    const size_t m = p->m - strip * STRIP, rest = p->k - cell * STRIP;
    const __mmask16 lanes = first_16(m > 16 * half ? m - 16 * half : 0);
    const float *from = p->a + strip * STRIP + 16 * half + cell * STRIP * row;
    if (step % 3 > 0) {
        turn_tile((step % 3 == 1 ? out->high : out->low) + at);
        return;
    }
    __m512 sum = *to;
    for (size_t i = 0; i < 16; i++, from += row)
        put_parts(split(take(from, is_whole, i < rest, lanes),
                        take(from + 16 * row, is_whole, i + 16 < rest, lanes), &sum),
                  at + i * STRIP, out);
    *to = sum;
}

/* Goes on to the next cell in the order above. */
static void advance(packer *s)
{
    s->step = 0;
    s->item++;
    if (s->strip == 0 && s->is_left && s->item < 2 * s->cells) {
        s->is_left = false; /* the same cell of b */
    } else if (++s->cell < s->cells) {
        s->is_left = s->strip == 0 ? s->item < 2 * s->cells : s->is_left;
    } else {
        s->cell = 0;
        s->is_left = s->is_left || s->strip + 1 == s->right_strips;
        s->strip = s->is_left && s->item == s->cells * (1 + s->right_strips) ? 1 : s->strip + 1;
    }
}

static inline __attribute__((always_inline)) void pack(packer *s, bool is_turned, bool is_whole)
{
    const size_t strip = s->strip, cell = s->cell;
    __m512 *sum = s->is_left ? &s->left_sums[strip % 2] : &s->right_sums[strip];
    if (cell + s->step == 0) *sum = _mm512_set1_ps(1.0f);
    if (!s->is_left)
        pack_right(s->p, strip, cell, s->step, is_whole, &s->right[strip * s->cells + cell], sum);
    else if (is_turned)
        pack_left_columns(s->p, strip, cell, s->step, is_whole, &s->left[strip % 2][cell], sum);
    else
        pack_left_rows(s->p, strip, cell, s->step, is_whole, &s->left[strip % 2][cell], sum);
}

static __attribute__((noinline)) void pack_step(packer *s)
{
    const product *p = s->p;
    const bool is_turned = s->is_left && p->a_column != 1;
    if ((s->strip + 1) * STRIP <= (s->is_left ? p->m : p->n) && (s->cell + 1) * STRIP <= p->k)
        pack(s, is_turned, true);
    else
        pack(s, is_turned, false);
    if (++s->step == (is_turned ? TURNING_STEPS : STEPS)) advance(s);
}

/* Items before that strip of a, the first one not. */
static size_t items_before(const packer *s, size_t strip)
{
    return s->cells * (s->right_strips + strip);
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- products ---------------------------------------------------------------------------- */

typedef struct pace {
    size_t due, steps, turns; /* so many steps in so many turns */
} pace;

typedef struct block {
    packer *packer;
    pace *pace;
    size_t needed, reach; /* items that its first cell needs, and those there is room for */
    size_t needed_per_cell;
    const parts_cell *left, *right;
} block;

/* Between groups of tile products. */
static inline void take_turn(const block *b)
{
    const product *p = b->packer->p;
    if (p->ahead) attn_ahead_step(p->ahead, p->step);
    for (b->pace->due += b->pace->steps; b->pace->due >= b->pace->turns;
         b->pace->due -= b->pace->turns)
        if (b->packer->item < b->reach) pack_step(b->packer);
}

/* 32 x 32 sums, or those of the tiles in the first rows and columns, from c on to c. */
static inline __attribute__((always_inline)) void
multiply_tiles(const block *b, float *c, size_t c_row, bool adds, bool is_tall, bool is_wide)
{
    const size_t row = c_row * sizeof(float), n_cells = b->packer->cells;
    if (adds) {
        _tile_loadd(0, c, row);
        if (is_tall) _tile_loadd(1, c + 16 * c_row, row);
        if (is_wide) _tile_loadd(2, c + 16, row);
        if (is_tall && is_wide) _tile_loadd(3, c + 16 * c_row + 16, row);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
#define MULTIPLY                                                                                   \
    do {                                                                                           \
        _tile_dpbf16ps(0, 4, 6);                                                                   \
        if (is_tall) _tile_dpbf16ps(1, 5, 6);                                                      \
        if (is_wide) _tile_dpbf16ps(2, 4, 7);                                                      \
        if (is_tall && is_wide) _tile_dpbf16ps(3, 5, 7);                                           \
        take_turn(b);                                                                              \
    } while (0)
    size_t needed = b->needed;
    for (size_t cell = 0; cell < n_cells; cell++, needed += b->needed_per_cell) {
        const parts_cell *l = b->left + cell, *r = b->right + cell;
        while (b->packer->item < smaller(needed + b->needed_per_cell, b->reach))
            pack_step(b->packer);
        settle_memory();
        _tile_loadd(4, l->low, 64);
        _tile_loadd(6, r->high, 64);
        if (is_tall) _tile_loadd(5, l->low + HALF_CELL, 64);
        if (is_wide) _tile_loadd(7, r->high + HALF_CELL, 64);
        MULTIPLY;
        _tile_loadd(4, l->high, 64);
        if (is_tall) _tile_loadd(5, l->high + HALF_CELL, 64);
        MULTIPLY;
        _tile_loadd(6, r->low, 64);
        if (is_wide) _tile_loadd(7, r->low + HALF_CELL, 64);
        MULTIPLY;
    }
#undef MULTIPLY
}

static void store_tiles(float *c, size_t c_row, bool is_tall, bool is_wide)
{
    const size_t row = c_row * sizeof(float);
    _tile_stored(0, c, row);
    if (is_tall) _tile_stored(1, c + 16 * c_row, row);
    if (is_wide) _tile_stored(2, c + 16, row);
    if (is_tall && is_wide) _tile_stored(3, c + 16 * c_row + 16, row);
    settle_memory();
}

static void copy_edge(size_t m, size_t n, const float *from, size_t from_row, float *to,
                      size_t to_row)
{
    const __mmask16 low = first_16(n), high = first_16(n > 16 ? n - 16 : 0);
    for (size_t i = 0; i < m; i++) {
        const float *x = from + i * from_row;
        float *y = to + i * to_row;
        _mm512_mask_storeu_ps(y, low, _mm512_maskz_loadu_ps(low, x));
        if (high) _mm512_mask_storeu_ps(y + 16, high, _mm512_maskz_loadu_ps(high, x + 16));
    }
}

static bool is_finite(__m512 sum)
{
    return _mm512_fpclass_ps_mask(sum, 0x99) == 0; /* NaN of both kinds, infinities */
}

/* The block of strip i of a and strip j of b. */
static void multiply_block(packer *s, pace *turns, size_t i, size_t j)
{
    const product *p = s->p;
    const size_t m = smaller(STRIP, p->m - i * STRIP), n = smaller(STRIP, p->n - j * STRIP);
    const bool is_whole = m == STRIP && n == STRIP, is_first = i == 0 && j == 0;
    _Alignas(64) float edge[ATTN_CELL];
    float *c = p->c + i * STRIP * p->c_row + j * STRIP, *sums = is_whole ? c : edge;
    const size_t row = is_whole ? p->c_row : STRIP;
    const block b = {.packer = s,
                     .pace = turns,
                     .needed = is_first ? 2
                               : i == 0 ? s->cells * (1 + j) + 1
                                        : items_before(s, i) + 1,
                     .needed_per_cell = is_first ? 2 : 1,
                     .reach = smaller(s->n_items, items_before(s, i + 2)),
                     .left = s->left[i % 2],
                     .right = s->right + j * s->cells};
    for (size_t r = 0; r < m; r++) {
        __builtin_prefetch(c + r * p->c_row, 1);
        __builtin_prefetch(c + r * p->c_row + 16, 1);
    }
    if (p->adds && !is_whole) copy_edge(m, n, c, p->c_row, edge, STRIP);
    settle_memory();
    if (m > 16 && n > 16)
        multiply_tiles(&b, sums, row, p->adds, true, true);
    else if (m > 16)
        multiply_tiles(&b, sums, row, p->adds, true, false);
    else
        multiply_tiles(&b, sums, row, p->adds, false, n > 16);
    if (!is_finite(_mm512_add_ps(s->left_sums[i % 2], s->right_sums[j]))) {
        attn_kernels_avx512.product(m, n, p->k, p->a + i * STRIP * p->a_row, p->a_row, p->a_column,
                                    p->b + j * STRIP, p->b_row, c, p->c_row, p->adds);
        return;
    }
    store_tiles(sums, row, m > 16, n > 16);
    if (!is_whole) copy_edge(m, n, edge, STRIP, c, p->c_row);
}

static void multiply_pass(packer *s, const product *p)
{
    const size_t rows = attn_strips(p->m), columns = attn_strips(p->n);
    s->p = p;
    s->cells = attn_strips(p->k);
    s->right_strips = columns;
    s->n_items = s->cells * (rows + columns);
    s->item = s->strip = s->cell = s->step = 0;
    s->is_left = true;
    const size_t steps = p->a_column == 1 ? STEPS : TURNING_STEPS;
    pace turns = {.steps = s->cells * (rows * steps + columns * STEPS),
                  .turns = GROUPS * s->cells * rows * columns};
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++) multiply_block(s, &turns, i, j);
}

static void multiply(const product *p)
{
    packer s;
    const size_t passes = (attn_strips(p->k) + LEFT_CELLS - 1) / LEFT_CELLS;
    const size_t cells = (attn_strips(p->k) + passes - 1) / passes;
    const size_t deep = cells * STRIP, wide = RIGHT_CELLS / cells * STRIP;
    configure_tiles();
    for (size_t k = 0; k < p->k; k += deep)
        for (size_t j = 0; j < p->n; j += wide) {
            product pass = *p;
            pass.k = smaller(deep, p->k - k);
            pass.n = smaller(wide, p->n - j);
            pass.a += k * p->a_column;
            pass.b += k * p->b_row + j;
            pass.c += j;
            pass.adds = p->adds || k > 0;
            multiply_pass(&s, &pass);
        }
    _tile_release();
    _mm256_zeroupper(); /* gcc 12 forgets it, and code without AVX then waits */
}

/* A line for twice as many multiply-adds as elsewhere, which take less than half the time. */
static void run(product p)
{
    if (p.m >= FEWEST_ROWS && p.n >= FEWEST_COLUMNS && p.k >= FEWEST_TERMS &&
        (p.a_row == 1 || p.a_column == 1)) {
        const size_t groups = GROUPS * attn_strips(p.m) * attn_strips(p.n) * attn_strips(p.k);
        p.step = p.m * p.n * p.k / (2 * groups);
        multiply(&p);
        return;
    }
    attn_kernels_avx512.product(p.m, p.n, p.k, p.a, p.a_row, p.a_column, p.b, p.b_row, p.c, p.c_row,
                                p.adds);
    if (p.ahead) attn_ahead_step(p.ahead, p.m * p.n * p.k / 2);
}

void attn_product_amx_ahead(size_t m, size_t n, size_t k, const float *a, size_t a_row,
                            size_t a_column, const float *b, size_t b_row, float *c, size_t c_row,
                            bool accumulate, attn_ahead *ahead)
{
    run((product){.m = m,
                  .n = n,
                  .k = k,
                  .a = a,
                  .a_row = a_row,
                  .a_column = a_column,
                  .b = b,
                  .b_row = b_row,
                  .c = c,
                  .c_row = c_row,
                  .adds = accumulate,
                  .ahead = ahead});
}

void attn_product_amx(size_t m, size_t n, size_t k, const float *a, size_t a_row, size_t a_column,
                      const float *b, size_t b_row, float *c, size_t c_row, bool accumulate)
{
    attn_product_amx_ahead(m, n, k, a, a_row, a_column, b, b_row, c, c_row, accumulate, NULL);
}
