/* How far a result may lie from the definition's, tensor by tensor. */
#ifndef VERIFY_TOLERANCE_H
#define VERIFY_TOLERANCE_H

#include "mechanisms/mechanism.h"
#include "mechanisms/oracle.h"

/* Relative errors, as attn_relative_error() with its floors has them. */
typedef struct attn_tolerances {
    double y, dx, d_memory, parameters[ATTN_PARAMETERS_MAX];
} attn_tolerances;

/* The same for all. */
attn_tolerances attn_tolerances_uniform(double tolerance);

/* How far the definition moves when the factors of the layer's projections are rounded to bfloat16
 * at random, up or down with the right mean: root mean squares of several such errors. `truth` is a
 * call of attn_layer_oracle() that has been made. ATTN_EMEMORY is the only failure. */
ATTN_MUST_CHECK attn_status attn_bf16_moves(const attn_layer *layer, const attn_oracle_call *truth,
                                            size_t draws, uint64_t seed, attn_tolerances *moves,
                                            attn_error *error);

/* Rounding to the nearest has half the variance of rounding at random: 3 is 4.2 deviations of the
 * error that a tensor shows when all of it comes from one rounding, and more of any other's. */
#define ATTN_BF16_DEVIATIONS 3.0

/* base + share * moves */
attn_tolerances attn_tolerances_with(double base, double share, const attn_tolerances *moves);

/* For two computations whose float32 numbers differ by `difference`: then a factor falls on
 * different sides of the middle between two bfloat16 numbers with a probability of difference /
 * 2^-7, and its error has the size sqrt(difference 2^-7), as a share of what rounding at random
 * does to it. */
double attn_bf16_share(double difference);

#endif
