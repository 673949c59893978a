/* What forward and backward on AMX tiles share: products of 32 x 32 sums beside pieces of vector work,
 * powers of two, and rounding in pairs. Only static inline functions: nothing here may be emitted for
 * other files.
 *
 * Four tiles hold the sums and two of each factor feed them. A product of tiles takes 16 cycles, in
 * which the vector units are free: so independent pieces of vector work follow each product. Within a
 * piece four vectors go through each operation together: what waits for its operands takes room from
 * the tile instructions behind it. */
#ifndef KERNELS_ATTENTION_BESIDE_AMX_H
#define KERNELS_ATTENTION_BESIDE_AMX_H

#include "kernels/attention_amx.h"
#include "kernels/bf16_square_amx.h"
#include "kernels/simd_unroll.h"
#include "kernels/tiles_amx.h"

enum {
    HALF_CELL = ATTN_CELL / 2,
    STRIPS = 2,
    SIDE = STRIPS * ATTN_STRIP,
    VECTORS = 4, /* that are worked on together */
    DOWNWARD = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC
};

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

/* ---- vectors ----------------------------------------------------------------------------- */

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

#endif
