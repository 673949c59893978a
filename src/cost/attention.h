/* What one layer of attention costs: a mechanism of the registry in the place of a model's own.
 *
 * Mechanisms with pairs (softmax, flash, sliding, ...) keep the model's heads: its groups of
 * queries, widths and window, with the model's projections around them. All others are taken as
 * libattn builds them, with their own projections. The closed forms are those of src/mechanisms,
 * which are proven equal to what the kernels count; here they meet sizes that no kernel is given:
 * values of another width than keys, queries behind a cache, other tiles. */
#ifndef COST_ATTENTION_H
#define COST_ATTENTION_H

#include "cost/whole.h"
#include "mechanisms/label.h"
#include "mechanisms/mechanism.h"

typedef struct attn_cost_heads {
    size_t width; /* d, of the model */
    size_t heads, kv_heads;
    size_t key_width, value_width; /* of one head */
    size_t window;                 /* of the model's own attention; 0: none */
    bool is_causal;
} attn_cost_heads;

/* Sizes of a call. Queries are the last of the keys. */
typedef struct attn_cost_call {
    bool is_decoding; /* one token behind keys - 1 cached ones */
    size_t batch, queries, keys;
    size_t documents; /* equal ones packed in each sequence, at least 1 */
    size_t tile;      /* of queries and of keys; 0: as the kernel that would run */
} attn_cost_call;

/* A dense product of every token with weights of the mechanism's own. */
typedef struct attn_cost_dense {
    size_t in, out;
    bool has_bias;
} attn_cost_dense;

/* Of the whole batch. */
typedef struct attn_cost_core {
    bool has_pairs; /* false: the work holds the mechanism's own projections, */
    attn_cost_dense projections[ATTN_PROJECTIONS_MAX]; /* which are these; none when decoding */
    size_t n_projections;
    size_t kv_heads;                  /* that the projections must make */
    attn_work forward;                /* executed; of decoding's one token */
    attn_work backward;               /* {0} when decoding */
    uint64_t pairs, executed, square; /* over the heads; with pairs, else 0 */
    bool has_visible;                 /* false: too many pairs to count, `pairs` is 0 */
    uint64_t useful_forward, useful_backward, dense_forward, dense_backward; /* matmul */
    uint64_t parameters; /* beside the model's projections */
    uint64_t kept;       /* elements kept for backward in the type of activations */
    uint64_t kept_fp32;  /* and in float32, whatever the type */
    uint64_t cache;      /* elements of cache or state, room for all keys */
    bool cache_is_state; /* read and written whole by every token */
    attn_walk walk;
} attn_cost_core;

/* Counts. ATTN_ENOTFOUND, ATTN_EARGUMENT, ATTN_ESHAPE as attn_layer_create() says;
 * ATTN_EUNSUPPORTED where the mechanism has no such form; ATTN_ESHAPE beyond 64 bits. */
ATTN_MUST_CHECK attn_status attn_cost_core_count(const attn_label *mechanism,
                                                 const attn_cost_heads *heads,
                                                 const attn_cost_call *call, attn_cost_core *out,
                                                 attn_error *error);

#endif
