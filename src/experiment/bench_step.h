/* A training step taken apart: the time of each part, beside the time that the step's dense
 * products need alone, in the same process and in turns. */
#ifndef EXPERIMENT_BENCH_STEP_H
#define EXPERIMENT_BENCH_STEP_H

#include "experiment/bench_time.h"
#include "model/model.h"
#include "model/profile.h"

typedef struct attn_bench_step_options {
    const attn_model_config *model;
    size_t batch, length, repeats;
    size_t threads; /* 0: every core */
    const char *isa;
    uint64_t seed;
} attn_bench_step_options;

typedef struct attn_bench_product {
    attn_model_product product;
    attn_bench_time all; /* of all `times` of it in a step */
    double flop;         /* of all `times` */
} attn_bench_product;

typedef struct attn_bench_step {
    attn_bench_time step, dense; /* a whole step; its dense products alone */
    attn_bench_time parts[ATTN_PARTS][ATTN_PASSES];
    attn_bench_product products[ATTN_MODEL_PRODUCTS_MAX];
    size_t n_products;
    double dense_flop, step_matmul_flop;
    double peak_bytes; /* of our allocator, by a step */
    attn_dtype dtype;
    char isa[16], dense_name[32];
    size_t threads;
} attn_bench_step;

/* Random tokens, all of which count; two steps to warm up. ATTN_ESHAPE, ATTN_EMEMORY, ... */
ATTN_MUST_CHECK attn_status attn_bench_step_run(const attn_bench_step_options *options,
                                                attn_bench_step *result, attn_error *error);

#endif
