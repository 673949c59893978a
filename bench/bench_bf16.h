/* The parts of bench_bf16: dense products in bfloat16 beside their limit and beside oneDNN's. */
#ifndef BENCH_BENCH_BF16_H
#define BENCH_BENCH_BF16_H

#include "kernels/bf16.h"

#include <stdbool.h>
#include <stddef.h>

/* c[m][n] = a[m][k] b[k][n] through oneDNN: a and b by the strides of their elements, rows of c
 * one after the other. With `packs`, b lies in oneDNN's own order and its values do not matter. */
typedef struct bench_product {
    size_t m, n, k;
    const attn_bf16 *a, *b;
    size_t a_row, a_column, b_row, b_column;
    void *c;
    bool c_is_float, packs;
} bench_product;

typedef struct bench_onednn bench_onednn;

/* NULL when the build has no oneDNN, or it declines. */
bench_onednn *bench_onednn_create(const bench_product *product);
bool bench_onednn_run(bench_onednn *onednn);  /* false when it failed */
void bench_onednn_free(bench_onednn *onednn); /* NULL is fine */

#endif
