/* What forward and backward on AMX tiles share: the vector work beside products of tiles. Only static
 * inline functions: nothing here may be emitted for other files.
 *
 * Four tiles hold sums of 32 x 32 and two of each factor feed them. A product of tiles takes 16
 * cycles, in which the vector units are free: so a piece of vector work follows each product. Within
 * a piece four vectors go through each operation together: what waits for its operands takes room
 * from the tile instructions behind it. Whatever is decided anew behind a product costs more than it
 * hides. */
#ifndef KERNELS_ATTENTION_BESIDE_AMX_H
#define KERNELS_ATTENTION_BESIDE_AMX_H

#include "kernels/attention_amx.h"
#include "kernels/bf16_square_amx.h"
#include "kernels/simd_unroll.h"
#include "kernels/tiles_amx.h"

enum {
    HALF_CELL = ATTN_CELL / 2,
    STRIPS = 2, /* of a tile of keys */
    SIDE = STRIPS * ATTN_STRIP,
    VECTORS = 4, /* that are worked on together */
    DOWNWARD = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC
};

/* 2^(j / 32). */
static const _Alignas(64) float roots[32] = {
    0x1.000000p+0f, 0x1.059b0ep+0f, 0x1.0b5586p+0f, 0x1.11301ep+0f, 0x1.172b84p+0f, 0x1.1d4874p+0f,
    0x1.2387a6p+0f, 0x1.29e9e0p+0f, 0x1.306fe0p+0f, 0x1.371a74p+0f, 0x1.3dea64p+0f, 0x1.44e086p+0f,
    0x1.4bfdaep+0f, 0x1.5342b6p+0f, 0x1.5ab07ep+0f, 0x1.6247ecp+0f, 0x1.6a09e6p+0f, 0x1.71f75ep+0f,
    0x1.7a1148p+0f, 0x1.82589ap+0f, 0x1.8ace54p+0f, 0x1.93737cp+0f, 0x1.9c4918p+0f, 0x1.a5503cp+0f,
    0x1.ae89fap+0f, 0x1.b7f770p+0f, 0x1.c199bep+0f, 0x1.cb720ep+0f, 0x1.d5818ep+0f, 0x1.dfc974p+0f,
    0x1.ea4afap+0f, 0x1.f50766p+0f};

/* What powers and rounding need in registers. */
typedef struct beside_constants {
    __m512 shift, slope, bend, low_roots, high_roots;
    __m512i half, upper;
} beside_constants;

/* A value that the compiler does not know, so that it stays in its register. */
#define KEEP(x) __asm__("" : "+v"(x))

static inline __attribute__((always_inline)) beside_constants keep_constants(void)
{
    beside_constants c = {.shift = _mm512_set1_ps(0x1.8p18f), /* its last bit is 1/32 */
                          .slope = _mm512_set1_ps(0x1.62e11ep-1f),
                          .bend = _mm512_set1_ps(0x1.f0f3e6p-3f),
                          .low_roots = _mm512_load_ps(roots),
                          .high_roots = _mm512_load_ps(roots + 16),
                          .half = _mm512_set1_epi32(0x8000),
                          .upper = _mm512_set4_epi32(0x0f0e, 0x0b0a, 0x0706, 0x0302)};
    KEEP(c.shift);
    KEEP(c.slope);
    KEEP(c.bend);
    KEEP(c.low_roots);
    KEEP(c.high_roots);
    KEEP(c.half);
    KEEP(c.upper);
    return c;
}

/* 2^x = 2^floor(x) 2^(j / 32) 2^r with 0 <= r < 1/32, and for the last 1 and a polynomial of the least
 * relative error, 6.5e-8: little beside what bfloat16 keeps. While tiles are in use, one of the two
 * vector units no longer multiplies, scales, shifts or converts, but still adds and permutes: hence a
 * table, and no more than six operations that only one unit has. */
static inline __attribute__((always_inline)) void powers_of_two(__m512 x[VECTORS],
                                                                const beside_constants *c)
{
    __m512 r[VECTORS], root[VECTORS], u[VECTORS];
    UNROLL for (size_t i = 0; i < VECTORS; i++)
    {
        r[i] = _mm512_reduce_ps(x[i], 5 << 4 | DOWNWARD);
        root[i] = _mm512_add_round_ps(x[i], c->shift, DOWNWARD);
    }
    UNROLL for (size_t i = 0; i < VECTORS; i++)
    {
        root[i] = _mm512_permutex2var_ps(c->low_roots, _mm512_castps_si512(root[i]), c->high_roots);
        u[i] = _mm512_fmadd_ps(r[i], c->bend, c->slope);
    }
    UNROLL for (size_t i = 0; i < VECTORS; i++) r[i] = _mm512_mul_ps(root[i], r[i]);
    UNROLL for (size_t i = 0; i < VECTORS; i++) r[i] = _mm512_fmadd_ps(r[i], u[i], root[i]);
    UNROLL for (size_t i = 0; i < VECTORS; i++) x[i] = _mm512_scalef_ps(r[i], x[i]);
}

/* Two vectors as pairs of bfloat16, rounded to the nearest, ties away from 0: cheaper than the
 * instruction for it. A NaN of arithmetic stays one. */
static inline __attribute__((always_inline)) __m512i round_pairs(__m512 low, __m512 high,
                                                                 const beside_constants *c)
{
    const __m512i l = _mm512_add_epi32(_mm512_castps_si512(low), c->half);
    const __m512i h = _mm512_add_epi32(_mm512_castps_si512(high), c->half);
    return _mm512_mask_shuffle_epi8(h, 0x3333333333333333u, l, c->upper);
}

#endif
