/* One mechanism at one size, with all the memory that its calls need. */
#ifndef EXPERIMENT_BENCH_SUBJECT_H
#define EXPERIMENT_BENCH_SUBJECT_H

#include "experiment/bench_core.h"
#include "mechanisms/mechanism.h"

typedef struct attn_bench_size {
    size_t batch, length, heads, head_dim;
} attn_bench_size;

typedef struct attn_bench_subject {
    attn_layer *layer;
    bool is_layer;
    attn_context *context;
    attn_bench_size size;
    attn_call call;      /* of a whole layer */
    attn_core_call core; /* of the core alone */
    float *memory[16];   /* what the calls refer to */
    size_t n_memory;
    size_t calls; /* in a row for one reading */
} attn_bench_subject;

/* Random numbers everywhere; the first call of each direction is made here. */
ATTN_MUST_CHECK attn_status attn_bench_subject_create(attn_bench_subject *subject,
                                                      const attn_label *mechanism,
                                                      const attn_bench_core_options *options,
                                                      attn_context *context, attn_bench_size size,
                                                      attn_error *error);
void attn_bench_subject_free(attn_bench_subject *subject);

/* One call. */
ATTN_MUST_CHECK attn_status attn_bench_subject_run(attn_bench_subject *subject,
                                                   attn_bench_direction direction,
                                                   attn_error *error);

/* The work of one call, and bytes of its cache. */
attn_work attn_bench_subject_work(const attn_bench_subject *subject, attn_bench_direction direction);
double attn_bench_subject_cache_bytes(const attn_bench_subject *subject);

#endif
