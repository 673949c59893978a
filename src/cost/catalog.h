/* The devices and models that the cost model knows: files of the project carried inside the
 * program, changed and extended by files of the user. */
#ifndef COST_CATALOG_H
#define COST_CATALOG_H

#include "cost/catalog_record.h"

#include <stdint.h>

/* ---- devices -------------------------------------------------------------------------------- */

typedef enum attn_device_kind {
    ATTN_DEVICE_GPU,
    ATTN_DEVICE_CPU,
    ATTN_DEVICE_ACCELERATOR
} attn_device_kind;
typedef enum attn_device_memory {
    ATTN_DEVICE_HBM,
    ATTN_DEVICE_GDDR,
    ATTN_DEVICE_DDR,
    ATTN_DEVICE_LPDDR
} attn_device_memory;

typedef enum attn_cost_type {
    ATTN_COST_F32,
    ATTN_COST_TF32,
    ATTN_COST_BF16,
    ATTN_COST_FP16,
    ATTN_COST_FP8,
    ATTN_COST_INT8,
    ATTN_COST_TYPES
} attn_cost_type;

/* "f32", "tf32", "bf16", "fp16", "fp8", "int8", and all of them for an option's choices */
const char *attn_cost_type_name(attn_cost_type type);
#define ATTN_COST_TYPE_CHOICES "f32|tf32|bf16|fp16|fp8|int8"
attn_cost_type attn_cost_type_parse(const char *name); /* ATTN_COST_TYPES when unknown */
size_t attn_cost_type_bytes(attn_cost_type type);

/* The registry's. */
enum {
    ATTN_DEVICE_MECHANISMS = 0
#define ATTN_MECHANISM(token, name) +1
#include "mechanisms/mechanisms.def"
#undef ATTN_MECHANISM
};

enum { ATTN_COST_FORWARD, ATTN_COST_BACKWARD, ATTN_COST_PASSES };

/* How many times longer the passes of the mechanisms' cores take than their operations would at the
 * rates of float32: by type, pass and length. */
enum { ATTN_CORE_F32, ATTN_CORE_BF16, ATTN_CORE_TYPES };
enum { ATTN_CORE_LENGTHS = 2 };
typedef double attn_core_factors[ATTN_CORE_TYPES][ATTN_COST_PASSES][ATTN_CORE_LENGTHS]
                                [ATTN_DEVICE_MECHANISMS];

/* Tokens of each of the lengths: 512 and 4096. */
size_t attn_core_length(size_t index);

/* The field of a device that has them: "core_forward", ..., "core_backward_bf16_long". */
const char *attn_core_field(size_t type, size_t pass, size_t length);

/* Rates are dense peaks, in 1e12 a second; bytes in 1e9. */
typedef struct attn_device {
    attn_record record;
    char title[ATTN_RECORD_TEXT_BYTES], architecture[ATTN_RECORD_NAME_BYTES];
    size_t kind, peaks, memory_kind; /* attn_device_kind, 0, attn_device_memory */
    attn_quantity fp64, fp64_matrix, rates[ATTN_COST_TYPES], fp16_narrow, exponential;
    attn_quantity memory_gb, bandwidth_gb_s, on_chip_kib, units, cache_mib, tdp_w;
    attn_quantity matmul_measured; /* best bf16 product anybody has shown */
    /* Of a machine that was measured: its own constants. */
    attn_quantity other_rate, projection_rate, head_rate, launch_s;
    attn_core_factors cores; /* NaN: not measured */
    attn_quantity idle_w, matmul_pj, exponential_pj, other_pj, dram_pj;
} attn_device;

/* The rate of matrix products in a type; NULL and one line for a device that has none, or whose
 * rate nobody publishes. */
const attn_quantity *attn_device_rate(const attn_device *device, attn_cost_type type,
                                      attn_error *error);

/* Where that rate comes from. */
const attn_record_origin *attn_device_rate_origin(const attn_device *device, attn_cost_type type);

/* ---- models --------------------------------------------------------------------------------- */

typedef enum attn_spec_kind {
    ATTN_SPEC_DECODER,
    ATTN_SPEC_ENCODER,
    ATTN_SPEC_VISION,
    ATTN_SPEC_QFORMER,
    ATTN_SPEC_VISION_LANGUAGE
} attn_spec_kind;
typedef enum attn_spec_norm { ATTN_SPEC_LAYER_NORM, ATTN_SPEC_RMS_NORM } attn_spec_norm;
typedef enum attn_spec_activation {
    ATTN_SPEC_GELU_TANH,
    ATTN_SPEC_GELU_ERF,
    ATTN_SPEC_GELU_QUICK,
    ATTN_SPEC_SWIGLU,
    ATTN_SPEC_GEGLU_TANH
} attn_spec_activation;
typedef enum attn_spec_position { ATTN_SPEC_LEARNED, ATTN_SPEC_ROPE } attn_spec_position;

typedef struct attn_spec {
    attn_record record;
    char title[ATTN_RECORD_TEXT_BYTES];
    char vision[ATTN_RECORD_NAME_BYTES], language[ATTN_RECORD_NAME_BYTES];
    size_t kind, norm, activation, position; /* the enums above */
    size_t layers, width, heads, kv_heads, head_dim, value_dim, ffn, vocabulary, positions;
    size_t norms; /* a layer; 0: 2 */
    size_t window, window_every;
    double rope_theta, score_cap, logit_cap;
    bool has_biases, has_qkv_biases, has_qk_norm, is_tied, has_router_bias;
    bool has_class_token, has_patch_bias, has_pre_norm, has_pooler;
    size_t experts, experts_active, experts_shared, expert_ffn, dense_layers;
    size_t rank_kv, rank_q, key_dim_plain, key_dim_rope;
    size_t image, patch, classes, projection, segments;
    size_t queries, memory_width, memory_tokens, cross_every;
    size_t parameters; /* published total; 0: none */
} attn_spec;

/* Counted from the sizes: all parameters, and those that one token meets. */
uint64_t attn_spec_parameters(const attn_spec *spec);
uint64_t attn_spec_active_parameters(const attn_spec *spec);

/* ---- both ----------------------------------------------------------------------------------- */

typedef struct attn_catalog {
    attn_records devices, models;
} attn_catalog;

/* The program's own records, then those of the user's files; NULL: none. Free with
 * attn_catalog_free(), also after a failure. */
ATTN_MUST_CHECK attn_status attn_catalog_load(attn_catalog *catalog, const char *devices_file,
                                              const char *models_file, attn_error *error);
void attn_catalog_free(attn_catalog *catalog);

#endif
