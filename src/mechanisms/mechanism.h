/* What a mechanism must supply. Its name is its line in mechanisms.def, nowhere else.
 * Most mechanisms are cores: they map q, k, v to o and share the projections of heads.c. They
 * fill `core` and take `attn_heads_functions`. A mechanism with projections of its own fills
 * `functions` itself. */
#ifndef MECHANISMS_MECHANISM_H
#define MECHANISMS_MECHANISM_H

#include "attn/flex.h"
#include "kernels/context.h"
#include "mechanisms/core.h"
#include "mechanisms/option.h"
#include "mechanisms/tape.h"

/* ---- a layer ----------------------------------------------------------------------------- */

enum { ATTN_PARAMETERS_MAX = 16, ATTN_PROJECTIONS_MAX = 4 };

typedef struct attn_mechanism attn_mechanism;

/* A dense product of tokens with weights, y = x w^T + bias; see projection.h. Parameters that lie
 * behind each other and meet the same x make one product. */
typedef struct attn_projection {
    size_t in, out;
    size_t weight, bias; /* offsets of parameters; bias: ATTN_NO_BIAS for none */
    size_t packed;       /* offset of the packed weights */
} attn_projection;

#define ATTN_NO_BIAS SIZE_MAX

struct attn_layer {
    const char *name; /* the mechanism's */
    const attn_mechanism *mechanism;
    size_t d_model, heads, kv_heads, head_dim, positions;
    bool is_causal;
    attn_dtype dtype;
    attn_value options[ATTN_OPTIONS_MAX]; /* by index in the mechanism's table */
    attn_parameter parameters[ATTN_PARAMETERS_MAX];
    size_t n_parameters, parameter_count;
    attn_projection projections[ATTN_PROJECTIONS_MAX];
    size_t n_projections, packed_count;
    size_t memory_length, memory_width; /* of mechanisms that read one: S, C_memory */
    attn_flex flex;                     /* the caller's functions, of flex */
};

/* Appends a parameter [rows][columns], or [rows] with columns 0. */
void attn_layer_declare(attn_layer *layer, const char *name, size_t rows, size_t columns,
                        attn_initial initial);

/* The same for any shape, and for fixed buffers, which are not trained and get no gradient. */
void attn_layer_declare_shaped(attn_layer *layer, const char *name, size_t dimensions,
                               const size_t *shape, attn_initial initial, bool is_trained);

/* Appends a projection: `weight` and `bias` (NULL: none) are the first parameters of `out` rows. */
void attn_layer_declare_projection(attn_layer *layer, const char *weight, const char *bias,
                                   size_t in, size_t out);

/* Where the block of the parameter `name` starts; the name must exist. */
size_t attn_layer_offset(const attn_layer *layer, const char *name);

/* ---- what a layer does ------------------------------------------------------------------- */

/* Arguments are checked before; these cannot fail. `call` is as in attn/layer.h. */
typedef struct attn_layer_functions {
    void (*declare)(attn_layer *layer); /* all parameters, and all projections */
    size_t (*saved)(const attn_layer *layer, size_t batch, size_t length);
    size_t (*scratch)(const attn_layer *layer, size_t threads, size_t batch, size_t length);
    size_t (*cache)(const attn_layer *layer, size_t batch, size_t capacity);
    void (*forward)(attn_context *context, const attn_layer *layer, const attn_call *call);
    void (*backward)(attn_context *context, const attn_layer *layer, const attn_call *call);
    void (*decode)(attn_context *context, const attn_layer *layer, const attn_call *call);
    attn_work (*work)(const attn_layer *layer, attn_phase phase, size_t batch, size_t length,
                      const uint32_t *document_start);
    /* x [T][C] of one sequence to y in float64; `parameters` in the order of the layer's list
     * (vectors are [1][n]), `memory` [S][C_memory] for layers that read one. */
    attn_node *(*oracle)(attn_tape *tape, const attn_layer *layer, attn_node *x,
                         attn_node *const *parameters, attn_node *memory,
                         const uint32_t *document_start);
} attn_layer_functions;

/* Projections around mechanism->core: wq [C][C], wk, wv [kv_heads d][C], their biases, wo [C][C]
 * and its bias; then the core's own (heads.c). */
extern const attn_layer_functions attn_heads_functions;

/* ---- a mechanism ------------------------------------------------------------------------- */

struct attn_mechanism {
    const char *title;          /* one sentence: what it is and what it costs */
    const char *source;         /* paper or practice it follows */
    const attn_option *options; /* NULL: none */
    bool is_causal_only;        /* cannot run bidirectionally */
    bool is_bidirectional_only; /* sees the future by design: no use for a language model */
    bool reads_memory;          /* keys and values come from attn_call.memory */
    bool has_bf16; /* in bfloat16 layers, products between the projections are too; else float32 */
    /* Checks options against sizes and derives kv_heads; may be NULL. */
    attn_status (*check)(attn_layer *layer, attn_error *error);
    /* Checks a call's length where not every one up to the positions fits; may be NULL. */
    attn_status (*check_length)(const attn_layer *layer, size_t length, attn_error *error);
    /* Fills parameter `index` of the layer when its start is not one of attn_initial; false
     * leaves it to the caller. May be NULL. */
    bool (*initialise)(const attn_layer *layer, size_t index, uint64_t seed, uint64_t stream,
                       float *out);
    const attn_layer_functions *functions;
    const attn_core *core;                    /* with attn_heads_functions */
    const struct attn_feature_map *features;  /* of a core of attn_recurrence_forward() ... */
    const struct attn_recurrence *recurrence; /* with attn_recurrent_functions */
};

/* The registry, in the order of mechanisms.def. */
typedef struct attn_mechanism_entry {
    const char *name;
    const attn_mechanism *mechanism;
} attn_mechanism_entry;

extern const attn_mechanism_entry attn_mechanisms[];         /* ends with a NULL name */
const attn_mechanism *attn_mechanism_find(const char *name); /* NULL when unknown */

/* ---- small shared things ----------------------------------------------------------------- */

static inline size_t attn_smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Regions start on 64-byte borders. */
static inline size_t attn_rounded(size_t count)
{
    return (count + 15) / 16 * 16;
}

/* The first `count` floats of what remains of a memory. */
static inline float *attn_cut(float **room, size_t count)
{
    float *start = *room;
    *room += count;
    return start;
}

/* Sums that tasks of a parallel region keep apart, one for each worker. */
typedef struct attn_tally {
    attn_work of[256];
} attn_tally;

void attn_tally_collect(const attn_tally *tally, size_t threads, attn_work *total);

#endif
