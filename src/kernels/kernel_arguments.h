/* What slots are given in structs (kernels/kernels.h). */
#ifndef KERNELS_KERNEL_ARGUMENTS_H
#define KERNELS_KERNEL_ARGUMENTS_H

#include "kernels/bf16.h"

#include <stdbool.h>
#include <stddef.h>

/* AdamW with decoupled decay (Loshchilov & Hutter 2019), the numbers of one step. */
typedef struct attn_adamw_step {
    float learning_rate;
    float beta1, beta2;
    float epsilon;
    float decay;          /* weight decay of this tensor; 0 for biases and norms */
    float correction1;    /* 1 - beta1^t */
    float correction2;    /* 1 - beta2^t */
    float gradient_scale; /* multiplies every gradient: clipping */
} attn_adamw_step;

/* What a running softmax keeps of its rows, all of it as multiples of 2^top. */
typedef struct attn_running_rows {
    float *top;   /* [rows]; ATTN_RUNNING_START at first, with total and o 0 */
    float *total; /* [rows][ATTN_RUNNING_SUMS], partial sums: the row's total is their sum */
    float *o;     /* [rows][width], o_row apart: the weighted sum so far */
    size_t o_row, width;
    bool has_whole_tops; /* tops are rounded up to whole numbers: p only changes its exponent */
} attn_running_rows;

/* Numbers of one of the two types, to be read or to be written. */
typedef struct attn_operand {
    const float *single;
    const attn_bf16 *half;
} attn_operand;

typedef struct attn_result {
    float *single;
    attn_bf16 *half;
} attn_result;

/* Rows of them, `row` apart. */
typedef struct attn_far_rows {
    const float *single;
    const attn_bf16 *half;
    size_t row;
} attn_far_rows;

typedef struct attn_result_rows {
    float *single;
    attn_bf16 *half;
    size_t row;
} attn_result_rows;

/* From a row and a column of them on. */
static inline attn_far_rows attn_rows_from(attn_far_rows x, size_t row, size_t column)
{
    const size_t at = row * x.row + column;
    return (attn_far_rows){.single = x.single ? x.single + at : NULL,
                           .half = x.half ? x.half + at : NULL,
                           .row = x.row};
}

static inline attn_result_rows attn_results_from(attn_result_rows x, size_t row, size_t column)
{
    const size_t at = row * x.row + column;
    return (attn_result_rows){.single = x.single ? x.single + at : NULL,
                              .half = x.half ? x.half + at : NULL,
                              .row = x.row};
}

#endif
