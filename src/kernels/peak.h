/* Loops that do nothing but keep one unit of the machine busy: what no kernel can be faster than.
 * Single-threaded; each returns how much it did. */
#ifndef KERNELS_PEAK_H
#define KERNELS_PEAK_H

#include "base/cpu.h"

#include <stddef.h>

typedef struct attn_peaks {
    attn_isa isa;
    double (*multiply_add)(size_t rounds);       /* FLOPs, all in registers */
    double (*exponential)(size_t rounds);        /* powers of two of numbers in the L1 cache */
    double (*read)(size_t n, const float *from); /* bytes; n a multiple of 128 */
    double (*multiply_tiles)(size_t rounds);     /* bfloat16 FLOPs of AMX; NULL: has none */
} attn_peaks;

extern const attn_peaks attn_peaks_ref;
extern const attn_peaks attn_peaks_avx2;
extern const attn_peaks attn_peaks_avx512;
extern const attn_peaks attn_peaks_amx;

const attn_peaks *attn_peaks_for(attn_isa isa);

#endif
