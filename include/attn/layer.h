/* Attention layers: x [B][T][C] to y [B][T][C], owning their projections. */
#ifndef ATTN_LAYER_H
#define ATTN_LAYER_H

#include "attn/context.h"
#include "attn/dtype.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** One attention layer: a mechanism with checked sizes and options. Immutable, so any number
 *  of contexts may use it at once. */
typedef struct attn_layer attn_layer;

/** What a layer is made from. */
typedef struct attn_layer_config {
    const char *mechanism; /**< a name from attn_mechanism_name(), such as "flash" */
    const char *options;   /**< "window=64,sinks=4"; NULL or "" = every default */
    size_t d_model;        /**< C, width of x and y */
    size_t heads;          /**< H, query heads; divides C */
    size_t positions;      /**< longest sequence the layer will see */
    bool is_causal;        /**< false: every position sees every other, where the mechanism can;
                                options such as "causal=false" may decide otherwise:
                                attn_layer_is_causal() */
    attn_dtype dtype;      /**< of the factors of dense products */
} attn_layer_config;

/** How a parameter starts, before training. */
typedef enum attn_initial {
    ATTN_INITIAL_ZERO,
    ATTN_INITIAL_ONE,
    ATTN_INITIAL_WEIGHT,   /**< normal, deviation 0.02 (GPT-2) */
    ATTN_INITIAL_RESIDUAL, /**< the same divided by sqrt(2 layers): what adds to the residual */
    ATTN_INITIAL_OWN       /**< by attn_layer_initialise_own() */
} attn_initial;

enum { ATTN_NAME_BYTES = 32, ATTN_DIMENSIONS_MAX = 3 };

/** One named tensor of a layer. A layer's tensors follow each other without gaps. */
typedef struct attn_parameter {
    char name[ATTN_NAME_BYTES]; /**< "wq.weight"; weights are [out][in] */
    size_t dimensions;
    size_t shape[ATTN_DIMENSIONS_MAX];
    size_t offset; /**< first element within the layer's block */
    size_t count;  /**< elements */
    attn_initial initial;
    bool is_trained; /**< false for fixed buffers */
} attn_parameter;

/** Number of mechanisms, and the name of each; NULL past the end. */
size_t attn_mechanism_count(void);
const char *attn_mechanism_name(size_t index);

/** One sentence on a mechanism, and where it was published; NULL for an unknown name. */
const char *attn_mechanism_title(const char *name);
const char *attn_mechanism_source(const char *name);

/** Whether a mechanism can train a language model: it has a form that sees no later position,
 *  and needs no memory beside the text. False for an unknown name. */
bool attn_mechanism_is_causal(const char *name);

/**
 * Check a configuration and make the layer.
 *
 * @param out    out     the layer; NULL on failure. Free it with attn_layer_free().
 * @param config in      copied.
 * @param error  out,opt what does not fit, with the nearest name for a mistyped one.
 *
 * @retval ATTN_OK
 * @retval ATTN_ENOTFOUND  unknown mechanism or option.
 * @retval ATTN_EARGUMENT  an option's value is outside its range.
 * @retval ATTN_ESHAPE     sizes that do not divide.
 * @retval ATTN_EMEMORY
 */
ATTN_MUST_CHECK attn_status attn_layer_create(attn_layer **out, const attn_layer_config *config,
                                              attn_error *error);
/** Free a layer; NULL is fine. */
void attn_layer_free(attn_layer *layer);

/** Whether no position of y depends on a later one of x: what a language model needs. */
bool attn_layer_is_causal(const attn_layer *layer);

/** That of its configuration. */
attn_dtype attn_layer_dtype(const attn_layer *layer);

/** Of the products between the projections: ATTN_F32 in a bfloat16 layer whose mechanism has them
 *  in float32 alone. */
attn_dtype attn_layer_core_dtype(const attn_layer *layer);

/** The memory that the layer reads beside x, [B][length][width]; both 0 when it reads none. */
void attn_layer_memory(const attn_layer *layer, size_t *length, size_t *width);

/** The layer's parameters, in the order of their storage. */
const attn_parameter *attn_layer_parameters(const attn_layer *layer, size_t *count);
/**
 * Start a parameter that is ATTN_INITIAL_OWN, from (seed, stream) alone.
 *
 * @param index in  of the parameter in the layer's list.
 * @param out   out its `count` elements.
 * @return false, and `out` untouched, when the mechanism leaves the start to the caller.
 */
bool attn_layer_initialise_own(const attn_layer *layer, size_t index, uint64_t seed,
                               uint64_t stream, float *out);
/** Elements of the whole parameter block. */
size_t attn_layer_parameter_count(const attn_layer *layer);

/** Elements of the packed weights of a bfloat16 layer; 0 for float32. */
size_t attn_layer_packed_count(const attn_layer *layer);
/** Round the weights to bfloat16 and pack them as forward products read them: once after each
 *  change of the parameters, which stay float32. `packed` lies on 64 bytes; nothing is done for
 *  float32. */
void attn_layer_pack(attn_context *context, const attn_layer *layer, const float *parameters,
                     attn_bf16 *packed);

/** Elements (floats) that forward keeps for backward, for a batch of B sequences of T. */
size_t attn_layer_saved_count(const attn_layer *layer, size_t batch, size_t length);
/** Elements of scratch memory that one call needs with this context. */
size_t attn_layer_scratch_count(const attn_layer *layer, const attn_context *context, size_t batch,
                                size_t length);
/** Floats of memory for the decoding cache or state, for sequences of up to `capacity` tokens;
 *  what the mechanism keeps in it may be bfloat16. */
size_t attn_layer_cache_count(const attn_layer *layer, size_t batch, size_t capacity);

/** The memory of one call. All of it is the caller's; 64-byte alignment is best. */
typedef struct attn_call {
    size_t batch, length;           /**< B, T */
    const float *parameters;        /**< attn_layer_parameter_count() */
    const attn_bf16 *packed;        /**< attn_layer_pack() of them; float32 layers read none */
    const float *x;                 /**< [B][T][C] */
    float *y;                       /**< [B][T][C], forward and decode write it */
    float *saved;                   /**< forward fills it, backward reads it; NULL: inference */
    float *scratch;                 /**< contents need not survive the call */
    float *cache;                   /**< decode's; forward fills it too when not NULL */
    size_t cache_capacity;          /**< tokens the cache was sized for */
    size_t position;                /**< decode: tokens already in the cache */
    const uint32_t *document_start; /**< [B][T]: first position of the token's own document;
                                         NULL: each sequence is one document */
    const float *memory;            /**< [B][S][C_memory] for mechanisms that read one, else NULL */
    size_t memory_length;           /**< S, that of attn_layer_memory() */
    float *d_memory;  /**< backward: gradient of memory, overwritten; NULL: not wanted */
    const float *dy;  /**< [B][T][C] */
    float *dx;        /**< [B][T][C], overwritten */
    float *gradients; /**< as parameters, overwritten; 0 for fixed buffers */
} attn_call;

/**
 * y = layer(x).
 *
 * Position t of y depends on positions 0..t of x and on no later one (causal layers).
 *
 * Memory   No heap use. Needs parameters, x, y, scratch; saved, cache, document_start as said.
 * Threads  Those of the context. The attention core's bits do not depend on how many.
 * Accuracy docs/numerics.md.
 *
 * @retval ATTN_OK
 * @retval ATTN_ESHAPE       batch or length 0, or length above the layer's positions.
 * @retval ATTN_EARGUMENT    a bfloat16 layer without packed weights.
 * @retval ATTN_EUNSUPPORTED documents or a cache with a mechanism that has none.
 */
ATTN_MUST_CHECK attn_status attn_layer_forward(attn_context *context, const attn_layer *layer,
                                               const attn_call *call);

/** Gradients of a forward call with the same x, parameters and `saved`: dx and gradients from dy. */
ATTN_MUST_CHECK attn_status attn_layer_backward(attn_context *context, const attn_layer *layer,
                                                const attn_call *call);

/** One token a sequence: x and y are [B][C], length is 1; the cache holds `position` tokens
 *  before the call and one more after it. */
ATTN_MUST_CHECK attn_status attn_layer_decode(attn_context *context, const attn_layer *layer,
                                              const attn_call *call);

/** Which work a closed form is asked for. */
typedef enum attn_phase { ATTN_PHASE_FORWARD, ATTN_PHASE_BACKWARD, ATTN_PHASE_DECODE } attn_phase;

/**
 * Closed-form work of one call, equal to what the kernels count. For ATTN_PHASE_DECODE
 * `length` is the number of tokens in the cache before the call. `document_start` is that of
 * the call, or NULL. Backward is with d_memory, where there is a memory.
 */
attn_work attn_layer_work(const attn_layer *layer, attn_phase phase, size_t batch, size_t length,
                          const uint32_t *document_start);

#ifdef __cplusplus
}
#endif
#endif
