/* The kernels for AVX-512 (F, BW, DQ, VL). */
#include "kernels/simd_avx512.h"

#include "kernels/kernels_simd.h"

const attn_kernels attn_kernels_avx512 = KERNELS_TABLE(ATTN_ISA_AVX512);
