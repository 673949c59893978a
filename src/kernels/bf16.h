/* bfloat16: a float32 without its lower 16 bits, as storage. Arithmetic is done in float32.
 *
 * Rounding is to the nearest, ties to even, at every exponent: subnormal numbers are kept, what
 * rounds beyond the largest finite number becomes infinite, a NaN stays a NaN of the same sign
 * and becomes quiet. The way back is exact. */
#ifndef KERNELS_BF16_H
#define KERNELS_BF16_H

#include "attn/dtype.h"

#include <string.h>

static inline attn_bf16 attn_bf16_from_float(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (attn_bf16){(uint16_t)(bits >> 16 | 0x40u)};
    return (attn_bf16){(uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}

static inline float attn_bf16_to_float(attn_bf16 x)
{
    const uint32_t bits = (uint32_t)x.bits << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

#endif
