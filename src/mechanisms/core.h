/* A core: attention between a layer's projections, from q, k and v to o. */
#ifndef MECHANISMS_CORE_H
#define MECHANISMS_CORE_H

#include "attn/layer.h"
#include "kernels/context.h"
#include "mechanisms/tape.h"
#include "mechanisms/visibility.h"

/* What is bfloat16 where attn_layer_core_dtype() is: a pointer that is not NULL takes the place of the
 * floats of its name. o is not: in dP - dO . o its rounding would be most of what is left. */
typedef struct attn_core_halves {
    const attn_bf16 *q, *k, *v, *d_o;
    attn_bf16 *dq, *dk, *dv;
} attn_core_halves;

/* All pointers are to head 0 of token 0; head h of q lies h * head_dim further, tokens lie
 * `row` apart (o_row for o and do). k and v have kv_heads heads. */
typedef struct attn_core_call {
    attn_context *context;
    const attn_kernels *kernels; /* attn_core_kernels() */
    const attn_layer *layer;
    size_t batch, length;
    const float *q, *k, *v;
    size_t row;
    float *o;
    size_t o_row;
    attn_core_halves half;
    float *saved;   /* core->saved() floats, written by forward; NULL: inference */
    float *scratch; /* core->scratch() floats */
    const uint32_t *document_start;
    const float *d_o;    /* backward: same layout as o */
    float *dq, *dk, *dv; /* backward: same layout as q, k, v; overwritten */
    float *cache;        /* see attn_call */
    size_t cache_capacity, position;
    const float *parameters; /* the layer's whole block, for what core->declare() added */
    float *gradients;        /* backward: the same, overwritten where a core's own are */
} attn_core_call;

/* What the core of a layer runs with: the context's kernels, which at level `amx` multiply factors of
 * two bfloat16 parts where the layer is bfloat16 and its mechanism multiplies_parts. */
const attn_kernels *attn_core_kernels(const attn_context *context, const attn_layer *layer);

typedef struct attn_core {
    void (*declare)(attn_layer *layer); /* parameters of the core's own, behind wo; NULL: none */
    size_t (*saved)(const attn_layer *layer, size_t batch, size_t length);
    size_t (*scratch)(const attn_layer *layer, size_t threads, size_t batch, size_t length);
    size_t (*cache)(const attn_layer *layer, size_t batch, size_t capacity);
    void (*forward)(const attn_core_call *call); /* fills the cache too when there is one */
    void (*backward)(const attn_core_call *call);
    void (*decode)(const attn_core_call *call); /* length 1 */
    /* One head of one sequence in float64: q [T][d], k, v; `parameters` are those of the core's
     * own, in their order. */
    attn_node *(*oracle)(attn_tape *tape, const attn_layer *layer, size_t head, attn_node *q,
                         attn_node *k, attn_node *v, attn_node *const *parameters,
                         const uint32_t *document_start);
    attn_walk walk;
    attn_mask (*mask)(const attn_layer *layer, attn_visibility *room); /* room of its rule */
    /* Work of the whole batch, without projections. */
    attn_work (*work)(const attn_layer *layer, attn_phase phase, size_t batch, size_t length,
                      const uint32_t *document_start);
} attn_core;

/* Point a call with its layer at numbers of type attn_layer_core_dtype(): rows that hold a token's
 * queries, keys and values behind each other; those of their gradients, and the gradient of o. */
void attn_core_set_rows(attn_core_call *call, const void *rows);
void attn_core_set_gradients(attn_core_call *call, const void *d_o, void *rows);

#endif
