/* The tile engine at level `amx` with factors in bfloat16: what its two directions share.
 *
 * A head is packed once (kernels/attention_amx.h). The unit of work is a strip of 32 queries against
 * a few tiles of keys. */
#ifndef MECHANISMS_TILE_HALF_H
#define MECHANISMS_TILE_HALF_H

#include "kernels/attention_amx.h"
#include "mechanisms/tile_engine.h"

enum {
    ATTN_HALF_LINE = 16,  /* floats of a cache line, on which memory is cut */
    ATTN_TILE_STRIPS = 2, /* strips of a tile */
};

/* Floats that hold so many bfloat16 numbers of packed forms. */
static inline size_t attn_half_floats(size_t numbers)
{
    return numbers / 2;
}

/* Memory is cut in whole cache lines, from one on. */
static inline float *attn_half_aligned(float *room)
{
    const uintptr_t line = ATTN_HALF_LINE * sizeof(float);
    return room + (line - (uintptr_t)room % line) % line / sizeof(float);
}

static inline attn_bf16 *attn_half_cut(float **room, size_t numbers)
{
    return (attn_bf16 *)(void *)attn_cut(room, attn_half_floats(numbers));
}

/* Whether this engine computes a call. */
static inline bool attn_half_applies(const attn_tile_call *call)
{
    return call->shape.dtype == ATTN_BF16 && call->context->isa >= ATTN_ISA_AMX;
}

size_t attn_half_scratch(const attn_tile_shape *shape, size_t threads); /* of either direction */
size_t attn_half_forward_scratch(const attn_tile_shape *shape, size_t threads);
size_t attn_half_backward_scratch(const attn_tile_shape *shape, size_t threads);
void attn_half_forward(const attn_tile_call *call);
void attn_half_backward(const attn_tile_call *call);

#endif
