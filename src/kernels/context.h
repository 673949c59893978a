/* What is inside an attn_context. */
#ifndef KERNELS_CONTEXT_H
#define KERNELS_CONTEXT_H

#include "attn/context.h"
#include "base/cpu.h"
#include "kernels/kernels.h"

#include <stdbool.h>

typedef struct attn_dense attn_dense; /* kernels/dense.h */

struct attn_context {
    size_t threads;
    attn_isa isa;
    const attn_kernels *kernels;
    attn_dense *dense;
    attn_work work; /* the calling thread's; parallel tasks add to their own and are merged */
    attn_error error;
};

/* work += more */
static inline void attn_work_add(attn_work *work, attn_work more)
{
    work->matmul += more.matmul;
    work->exponential += more.exponential;
    work->other += more.other;
}

/* n times the work of one item */
static inline attn_work attn_work_times(attn_work work, uint64_t n)
{
    return (attn_work){
        .matmul = n * work.matmul, .exponential = n * work.exponential, .other = n * work.other};
}

#endif
