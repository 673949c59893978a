/* One variant at one size, with all the memory that its calls need. */
#ifndef EXPERIMENT_BENCH_SUBJECT_H
#define EXPERIMENT_BENCH_SUBJECT_H

#include "experiment/bench_core.h"
#include "mechanisms/mechanism.h"

typedef struct attn_bench_size {
    size_t batch, length, heads, head_dim;
} attn_bench_size;

typedef struct attn_bench_subject {
    attn_layer *layer;
    bool is_layer; /* with projections */
    attn_context *context;
    attn_bench_size size;
    attn_call call;      /* of a whole layer, or of a recurrence between its projections */
    attn_core_call core; /* of mechanism->core alone */
    float *memory[16];   /* what the calls refer to */
    size_t n_memory, held_bytes;
    size_t calls; /* in a row for one reading */
} attn_bench_subject;

/* Random numbers everywhere; the first call of each direction is made here. */
ATTN_MUST_CHECK attn_status attn_bench_subject_create(attn_bench_subject *subject,
                                                      const attn_bench_core_options *options,
                                                      size_t variant, attn_context *context,
                                                      attn_bench_size size, attn_error *error);
void attn_bench_subject_free(attn_bench_subject *subject);

/* One call. */
ATTN_MUST_CHECK attn_status attn_bench_subject_run(attn_bench_subject *subject,
                                                   attn_bench_direction direction,
                                                   attn_error *error);

/* What one call does. */
typedef struct attn_bench_work {
    double f32_flop, bf16_flop; /* of matrix products, by the type of their factors */
    double parts_flop;          /* of two bfloat16 parts: three products of tiles stand for one */
    double exponentials;
    double read_bytes; /* of the cache and the weights, when decoding */
} attn_bench_work;

attn_bench_work attn_bench_subject_work(const attn_bench_subject *subject,
                                        attn_bench_direction direction);

#endif
