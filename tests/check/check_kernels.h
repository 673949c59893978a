/* Between the files that check kernel slots. */
#ifndef CHECK_KERNELS_H
#define CHECK_KERNELS_H

#include "check.h"

#include <float.h>

/* Half the distance between 1 and the next float: the error of one rounding. */
#define CHECK_UNIT (0.5 * (double)FLT_EPSILON)
/* The relative error that exp may have: 1.1 ulp, and an ulp is at most two roundings. */
#define CHECK_EXP_ERROR (2.2 * CHECK_UNIT)
/* Exponentials below the smallest normal float may be 0. */
#define CHECK_EXP_FLOOR ((double)FLT_MIN)
/* Underflow: half the smallest float, for every operation of a case. */
#define CHECK_TINY (2.0 * (double)FLT_TRUE_MIN)

/* One call of a slot. */
typedef struct check_shape {
    size_t n;
    check_place place;
    double scale; /* of the numbers */
} check_shape;

typedef void check_slot_body(check_run *run, const check_shape *shape);

/* `got` from the kernels under test and `plain` from attn_kernels_ref must both lie within
 * `bounds` of `want`, and so within twice the bounds of each other. */
void check_output(check_run *run, size_t n, const float *got, const float *plain,
                  const double *want, const double *bounds, const char *what);
void check_number(check_run *run, double got, double plain, double want, double bound,
                  const char *what);

/* n floats at the shape's place, normal with its scale. */
float *check_random(check_run *run, const check_shape *shape, size_t n);
float *check_copy(check_run *run, const check_shape *shape, size_t n, const float *from);

/* n bfloat16 numbers; their last, or their first, touches the page that may not be touched. */
attn_bf16 *check_halves(check_run *run, size_t n, check_place place);

/* The two tables a slot is called from: the one under test, then the reference. */
static inline const attn_kernels *check_table(const check_run *run, size_t pass)
{
    return pass == 0 ? run->kernels : &attn_kernels_ref;
}

/* What a group that runs check_kernel_slots() has in `what`: the slot "kernel.NAME". */
const void *check_slot_find(const char *name);

/* The check of each slot. */
check_slot_body check_slot_product, check_slot_product_asking, check_slot_keep_lower,
    check_slot_product_double, check_slot_transpose, check_slot_copy_rows, check_slot_store_rows,
    check_slot_round_rows, check_slot_maximum, check_slot_sum, check_slot_sum_squares,
    check_slot_dot, check_slot_dot_double, check_slot_dot_rows, check_slot_weigh_rows,
    check_slot_add, check_slot_add_scaled, check_slot_scale, check_slot_scale_rows,
    check_slot_add_ramp, check_slot_softcap, check_slot_exp_shifted, check_slot_online_softmax,
    check_slot_online_softmax_gradient, check_slot_running_softmax,
    check_slot_running_softmax_gradient, check_slot_softmax_gradient, check_slot_layer_norm,
    check_slot_layer_norm_gradient, check_slot_gelu, check_slot_gelu_gradient,
    check_slot_elu_plus_one, check_slot_elu_plus_one_gradient, check_slot_cross_entropy,
    check_slot_multiply, check_slot_add_product, check_slot_silu, check_slot_silu_gradient,
    check_slot_log_sigmoid, check_slot_log_sigmoid_gradient, check_slot_rotate,
    check_slot_decayed_scores, check_slot_decayed_scores_gradient, check_slot_bf16_from_float,
    check_slot_bf16_to_float, check_slot_bf16_strip, check_slot_adamw;

#endif
