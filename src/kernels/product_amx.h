/* c = a b of floats on AMX tiles: each factor in two bfloat16 numbers, x = high + low with an error of
 * at most 2^-16 |x|, and c the sum of high high + high low + low high in float32.
 *
 * The error is at most (3 * 2^-16 + (3 k + 2) 2^-24) sum |a b|, beside what underflow takes: subnormal
 * parts, products and sums are 0. What is infinite or NaN gives what a product in float32 gives. A
 * row's bits depend on it, on b and on whether there are fewer than 32 rows; beside numbers that are
 * not finite or beyond 2^70 also on the rows of its strip of 32. Small products are those of AVX-512.
 * They need 150 KiB of stack. docs/numerics.md, docs/SPEED.md. */
#ifndef KERNELS_PRODUCT_AMX_H
#define KERNELS_PRODUCT_AMX_H

#include "kernels/kernels.h"

void attn_product_amx(size_t m, size_t n, size_t k, const float *a, size_t a_row, size_t a_column,
                      const float *b, size_t b_row, float *c, size_t c_row, bool accumulate);

attn_product_steps attn_product_amx_ahead;

/* attn_kernels_avx512 with these products; and the table for a level, which is this one where the level
 * has such products. */
extern const attn_kernels attn_kernels_parts;
const attn_kernels *attn_kernels_in_parts(attn_isa isa);

#endif
