/* How other programs and papers count the work of a step, for comparison with theirs. All are
 * matrix products only. */
#ifndef COST_CONVENTION_H
#define COST_CONVENTION_H

#include "cost/estimate.h"

typedef enum attn_cost_convention {
    ATTN_CONVENTION_EXECUTED, /* what the kernels compute, masked parts of tiles included */
    ATTN_CONVENTION_USEFUL,   /* visible pairs; backward twice forward, nothing recomputed */
    ATTN_CONVENTION_DENSE,    /* the same with all T S pairs */
    ATTN_CONVENTION_TORCH,    /* torch.utils.flop_counter: T S pairs, fused backward recomputes */
    ATTN_CONVENTION_NANOGPT,  /* (6 N + 12 L H Q T) a token, N without positions */
    ATTN_CONVENTION_PALM,     /* appendix B of the PaLM paper: the formula that nanoGPT took */
    ATTN_CONVENTION_MEGATRON, /* 3 x forward, half of the square for causal cores */
    ATTN_CONVENTION_FLASH, /* flash-attention's benchmarks: cores alone, 4 B T^2 H d / 2, 3.5 x */
    ATTN_CONVENTIONS
} attn_cost_convention;

#define ATTN_CONVENTION_CHOICES "executed|useful|dense|torch|nanogpt|palm|megatron|flash-attention"

const char *attn_convention_name(attn_cost_convention convention);
attn_cost_convention attn_convention_parse(const char *name); /* ATTN_CONVENTIONS when unknown */

/* FLOP of the request's phase. NaN where the convention says nothing of such a model or mechanism. */
double attn_convention_flop(const attn_cost_estimate *estimate, attn_cost_convention convention);

#endif
