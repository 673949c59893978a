/* The kernels for AVX2 with FMA. */
#include "kernels/simd_avx2.h"

#include "kernels/kernels_simd.h"

const attn_kernels attn_kernels_avx2 = KERNELS_TABLE(ATTN_ISA_AVX2);
