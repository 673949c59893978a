/* GPT-2 and its relatives: a decoder of pre-normalised blocks with learned positions, a GELU
 * feed-forward layer of four times the width and a head tied to the token embedding, in which
 * the attention layer is any of libattn's mechanisms.
 *
 *     x = wte[token] + wpe[position]
 *     each block:  x += attention(norm(x));  x += w_down gelu(w_up norm(x))
 *     logits = wte norm(x)
 *
 * Sizes throughout: L layers, C = d_model, F = 4 C, V vocabulary, B batch, T length. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "attn/layer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* epsilon of every LayerNorm; width of the feed-forward layer in units of C */
#define ATTN_MODEL_NORM_EPSILON 1e-5f
enum { ATTN_MODEL_EXPANSION = 4 };

typedef struct attn_model_config {
    size_t layers, heads, d_model, positions, vocabulary;
    const char *mechanism; /* a pattern of mechanisms/label.h: "flash", "sliding:window=64*3+flash";
                              repeated down the blocks and cut behind the last one */
    bool is_causal;        /* layers whose options let them see later tokens are refused */
    attn_dtype dtype;      /* of the factors of dense products; parameters are float32 */
} attn_model_config;

/* The sizes of a named preset, with mechanism softmax and is_causal; the caller changes the
 * mechanism. ATTN_ENOTFOUND names the presets. */
ATTN_MUST_CHECK attn_status attn_model_preset(const char *name, attn_model_config *config,
                                              attn_error *error);
/* "gpt2-micro", "gpt2", ...; NULL past the end */
const char *attn_model_preset_name(size_t index);

enum { ATTN_TENSOR_NAME_BYTES = 64 };

/* One named tensor of the model's block of parameters. Those of an attention layer follow each
 * other without gaps, all others start at multiples of 16. */
typedef struct attn_model_tensor {
    char name[ATTN_TENSOR_NAME_BYTES]; /* "h.3.mlp.c_fc.weight"; weights are [out][in] */
    size_t dimensions;
    size_t shape[ATTN_DIMENSIONS_MAX];
    size_t offset; /* first element within the block */
    size_t count;  /* elements */
    attn_initial initial;
    bool is_trained;
    bool is_decayed;    /* weight decay: tensors of two dimensions and more */
    size_t block;       /* of a block's tensor */
    size_t layer_index; /* of an attention layer's tensor in the layer's list */
} attn_model_tensor;

/* A model: checked sizes, its attention layers and the parameters. */
typedef struct attn_model attn_model;

/* Checks the sizes, makes the layers and one zeroed block for all parameters. ATTN_ESHAPE (also
 * for a pattern of more blocks than the model has), ATTN_EARGUMENT (layers that see the future in
 * a causal model, or read a memory), ATTN_EMEMORY and whatever attn_pattern_parse() and
 * attn_layer_create() find wrong. */
ATTN_MUST_CHECK attn_status attn_model_create(attn_model **out, const attn_model_config *config,
                                              attn_error *error);
void attn_model_free(attn_model *model); /* NULL is fine */

/* Normal numbers as in GPT-2 from the seed alone: a tensor's stream is the hash of its name, so
 * it starts alike in every model that has a tensor of this name and size. */
void attn_model_initialise(attn_model *model, uint64_t seed);

/* The same checks without the parameters' memory, and whether every layer takes sequences of
 * `length` tokens. `future_blocks` gets the blocks that see later tokens. */
ATTN_MUST_CHECK attn_status attn_model_check(const attn_model_config *config, size_t length,
                                             size_t *future_blocks, attn_error *error);

/* The configuration, with the mechanism in its shortest spelling, which lives as long as the
 * model. */
const attn_model_config *attn_model_configuration(const attn_model *model);

/* The attention layer of a block; equal blocks share one. */
const attn_layer *attn_model_layer(const attn_model *model, size_t block);

/* The different attention layers, and how many blocks have each. */
typedef struct attn_model_kind {
    attn_layer *layer;
    size_t n_blocks;
} attn_model_kind;

const attn_model_kind *attn_model_kinds(const attn_model *model, size_t *count);

/* Blocks whose attention sees later tokens; 0 in a model of language. Others cannot decode. */
size_t attn_model_future_blocks(const attn_model *model);

/* The tensors in the order of storage. */
const attn_model_tensor *attn_model_tensors(const attn_model *model, size_t *count);
/* NULL when there is none of this name. */
const attn_model_tensor *attn_model_find(const attn_model *model, const char *name);

/* The block of parameters, and its elements, some of which are padding between tensors. */
float *attn_model_parameters(const attn_model *model);
size_t attn_model_block_count(const attn_model *model);
/* Trained parameters, without fixed buffers and padding. */
size_t attn_model_parameter_count(const attn_model *model);

/* Where the model's own tensors lie in the block of parameters, and the weights of products in
 * that of the packed ones. */
typedef struct attn_block_offsets {
    size_t norm1_gain, norm1_bias, attention, norm2_gain, norm2_bias;
    size_t up_weight, up_bias, down_weight, down_bias;
    size_t packed_attention, packed_up, packed_down;
} attn_block_offsets;

typedef struct attn_model_offsets {
    size_t tokens, positions;         /* [V][C], [positions][C] */
    const attn_block_offsets *blocks; /* [L] */
    size_t final_gain, final_bias;
    size_t packed_head;
} attn_model_offsets;

const attn_model_offsets *attn_model_layout(const attn_model *model);

/* ---- weights in bfloat16 ----------------------------------------------------------------- */

/* The weights of a bfloat16 model's products, rounded and packed as forward products read them;
 * NULL in float32. Their memory counts as parameters. */
attn_bf16 *attn_model_packed(const attn_model *model);

/* One product's weights: rows [out][in] of the block of parameters, one or more tensors behind each
 * other, and where they lie among the packed ones. */
typedef struct attn_model_weights {
    size_t offset, out, in, packed;
} attn_model_weights;

/* Those of all products, by rising offset of each block; none in float32. */
const attn_model_weights *attn_model_product_weights(const attn_model *model, size_t *count);

/* Rounds and packs them anew. Trainers and generators do so when they are made, and trainers after
 * each update; whoever else changes the parameters calls this. Nothing is done in float32. */
void attn_model_pack(const attn_model *model, attn_context *context);

/* ---- work and dense products ------------------------------------------------------------- */

/* What a closed form is asked for. FORWARD ends with the loss; BACKWARD holds the head's
 * gradients, although they are taken with the loss; PREFILL and DECODE end with the logits of
 * each sequence's last token. */
typedef enum attn_model_phase {
    ATTN_MODEL_FORWARD,
    ATTN_MODEL_BACKWARD,
    ATTN_MODEL_UPDATE,         /* AdamW; batch and length do not matter */
    ATTN_MODEL_UPDATE_CLIPPED, /* with the gradients' norm */
    ATTN_MODEL_PREFILL,
    ATTN_MODEL_DECODE /* length: tokens in the cache before the call */
} attn_model_phase;

/* Closed-form work, equal to what the kernels count. `document_start` as in a training batch,
 * or NULL. Choosing tokens from logits is not counted. */
attn_work attn_model_work(const attn_model *model, attn_model_phase phase, size_t batch,
                          size_t length, const uint32_t *document_start);

typedef enum attn_product_kind {
    ATTN_PRODUCT_FORWARD,         /* y = x w^T */
    ATTN_PRODUCT_INPUT_GRADIENT,  /* dx = dy w */
    ATTN_PRODUCT_WEIGHT_GRADIENT, /* dw = dy^T x */
    ATTN_PRODUCT_KINDS
} attn_product_kind;

/* Products of one shape in a training step, so that a benchmark can time them alone. */
typedef struct attn_model_product {
    const char *name; /* "up", "down", "head", "attention input", "attention output" */
    attn_product_kind kind;
    size_t rows, in, out;
    size_t times; /* a step */
    bool accumulate;
    bool is_half; /* the result is bfloat16 */
} attn_model_product;

enum { ATTN_MODEL_PRODUCTS_MAX = 64 };

/* The dense products of a step, at most ATTN_MODEL_PRODUCTS_MAX; returns how many. The attention
 * layer's are listed where it projects with wq, wk, wv and wo. */
size_t attn_model_dense_products(const attn_model *model, size_t batch, size_t length,
                                 attn_model_product *out);

#endif
