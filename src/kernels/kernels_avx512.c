/* The kernels for AVX-512 (F, BW, DQ, VL). */
#include "kernels/product_amx.h"
#include "kernels/simd_avx512_double.h"

#include "kernels/kernels_simd.h"
#include "kernels/kernels_simd_peak.h"

const attn_kernels attn_kernels_avx512 = KERNELS_TABLE(ATTN_ISA_AVX512, kernel_product, NULL);

const attn_kernels attn_kernels_parts =
    KERNELS_TABLE(ATTN_ISA_AMX, attn_product_amx, attn_product_amx_ahead);

const attn_peaks attn_peaks_avx512 = PEAKS_TABLE(ATTN_ISA_AVX512);
