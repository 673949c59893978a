/* Peaks: the choice by level, and the plain loops, which a compiler may make vectors of. */
#include "kernels/peak.h"

#include <math.h>

enum { SUMS = 16, NUMBERS = 1024 };

/* Keeps a result that nobody needs. */
static volatile float kept;

static double multiply_add(size_t rounds)
{
    float sums[SUMS] = {0};
    const float a = 0.5f + kept, b = 1.0f;
    for (size_t i = 0; i < rounds; i++)
        for (size_t j = 0; j < SUMS; j++) sums[j] = sums[j] * a + b;
    for (size_t j = 0; j < SUMS; j++) kept = sums[j] * 0.0f;
    return 2.0 * SUMS * (double)rounds;
}

static double exponential(size_t rounds)
{
    float sum = 0.0f;
    for (size_t i = 0; i < rounds; i++)
        for (size_t j = 0; j < NUMBERS; j++) sum += exp2f(-0.01f * (float)j + kept);
    kept = sum * 0.0f;
    return (double)NUMBERS * (double)rounds;
}

static double read(size_t n, const float *from)
{
    float sums[SUMS] = {0};
    for (size_t i = 0; i < n; i += SUMS)
        for (size_t j = 0; j < SUMS; j++) sums[j] += from[i + j];
    for (size_t j = 0; j < SUMS; j++) kept = sums[j] * 0.0f;
    return (double)n * sizeof *from;
}

const attn_peaks attn_peaks_ref = {
    .isa = ATTN_ISA_REF, .multiply_add = multiply_add, .exponential = exponential, .read = read};

const attn_peaks *attn_peaks_for(attn_isa isa)
{
#if defined(__x86_64__)
    if (isa >= ATTN_ISA_AMX) return &attn_peaks_amx;
    if (isa >= ATTN_ISA_AVX512) return &attn_peaks_avx512;
    if (isa >= ATTN_ISA_AVX2) return &attn_peaks_avx2;
#else
    (void)isa;
#endif
    return &attn_peaks_ref;
}
