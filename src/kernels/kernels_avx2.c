/* The kernels for AVX2 with FMA. */
#include "kernels/simd_avx2_double.h"

#include "kernels/kernels_simd.h"
#include "kernels/kernels_simd_peak.h"

const attn_kernels attn_kernels_avx2 = KERNELS_TABLE(ATTN_ISA_AVX2, kernel_product, NULL);

const attn_peaks attn_peaks_avx2 = PEAKS_TABLE(ATTN_ISA_AVX2);
