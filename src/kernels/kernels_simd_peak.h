/* The loops of peak.h in vectors, a part of kernels_simd.h: written over the names of
 * simd_<isa>.h and the helpers that stand before its inclusion. */
#ifndef KERNELS_SIMD_PEAK_H
#define KERNELS_SIMD_PEAK_H

#include "kernels/peak.h"

static volatile float peak_kept; /* keeps a result that nobody needs */

/* Twelve sums hide the latency of two units; they and both factors fit 16 registers. */
static double peak_multiply_add(size_t rounds)
{
    enum { SUMS = 12 };
    vf sums[SUMS];
    const vf a = all(0.5f + peak_kept), b = all(1.0f + peak_kept);
    UNROLL for (size_t j = 0; j < SUMS; j++) sums[j] =
        all((float)j + peak_kept); /* none is another */
    for (size_t i = 0; i < rounds; i++)
        UNROLL for (size_t j = 0; j < SUMS; j++) sums[j] = fused(sums[j], a, b);
    UNROLL for (size_t j = 1; j < SUMS; j++) sums[0] = add(sums[0], sums[j]);
    peak_kept = 0.0f * first_lane(sums[0]);
    return 2.0 * SUMS * LANES * (double)rounds;
}

static double peak_exponential(size_t rounds)
{
    enum { NUMBERS = 1024 };
    float numbers[NUMBERS];
    vf even = zero(), odd = zero();
    for (size_t j = 0; j < NUMBERS; j++) numbers[j] = -0.01f * (float)j + peak_kept;
    for (size_t i = 0; i < rounds; i++)
        for (size_t j = 0; j < NUMBERS; j += 2 * LANES) {
            even = add(even, power_of_two(load(numbers + j)));
            odd = add(odd, power_of_two(load(numbers + j + LANES)));
        }
    peak_kept = 0.0f * first_lane(add(even, odd));
    return (double)NUMBERS * (double)rounds;
}

static double peak_read(size_t n, const float *from)
{
    enum { SUMS = 8 };
    vf sums[SUMS];
    UNROLL for (size_t j = 0; j < SUMS; j++) sums[j] = zero();
    for (size_t i = 0; i < n; i += SUMS * LANES)
        UNROLL for (size_t j = 0; j < SUMS; j++) sums[j] =
            larger(sums[j], load(from + i + j * LANES));
    UNROLL for (size_t j = 1; j < SUMS; j++) sums[0] = larger(sums[0], sums[j]);
    peak_kept = 0.0f * first_lane(sums[0]);
    return (double)n * sizeof *from;
}

#define PEAKS_TABLE(level)                                                                         \
    {                                                                                              \
        .isa = level, .multiply_add = peak_multiply_add, .exponential = peak_exponential,          \
        .read = peak_read                                                                          \
    }

#endif
