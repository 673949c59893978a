/* What a step of a model costs, part by part: work, bytes, parameters, memory. Exact numbers of
 * the sizes alone; no device is involved (roofline.h takes it from here). */
#ifndef COST_ESTIMATE_H
#define COST_ESTIMATE_H

#include "cost/attention.h"
#include "cost/catalog.h"

typedef enum attn_cost_phase {
    ATTN_COST_TRAIN,   /* forward, loss, backward, AdamW */
    ATTN_COST_PREFILL, /* forward; logits of each sequence's last token */
    ATTN_COST_DECODE   /* one token a sequence behind keys - 1 others */
} attn_cost_phase;

typedef enum attn_cost_recompute {
    ATTN_RECOMPUTE_NONE,
    ATTN_RECOMPUTE_CORE, /* attention cores run again in the backward pass */
    ATTN_RECOMPUTE_FULL  /* whole layers do */
} attn_cost_recompute;

/* Decoding with latent keys and values. */
typedef enum attn_cost_latent {
    ATTN_LATENT_ABSORBED, /* scores and sums in the latent; up-projections on the query's side */
    ATTN_LATENT_NAIVE     /* the whole cache is projected up for every token */
} attn_cost_latent;

typedef struct attn_cost_request {
    const attn_catalog *catalog; /* where the parts of composed models are found */
    const attn_spec *spec;
    attn_pattern pattern; /* of mechanisms, down the layers */
    attn_cost_phase phase;
    attn_cost_type type;
    attn_cost_recompute recompute;
    attn_cost_latent latent;
    size_t batch, keys; /* S: tokens a sequence, the new ones included */
    size_t queries;     /* T: new tokens, the last of the keys; 0: all (one when decoding) */
    size_t documents, tile;
    size_t image, text; /* pixels a side; tokens of text behind the image. 0: the model's */
} attn_cost_request;

typedef enum attn_cost_class {
    ATTN_COST_CORE,       /* attention between projections, or a mechanism's whole layer */
    ATTN_COST_PROJECTION, /* to and from heads */
    ATTN_COST_FEED_FORWARD,
    ATTN_COST_SMALL,  /* norms, residuals, rotations */
    ATTN_COST_ENDS,   /* embeddings, patches, poolers, projectors */
    ATTN_COST_HEAD,   /* logits and loss */
    ATTN_COST_UPDATE, /* AdamW */
    ATTN_COST_CLASSES
} attn_cost_class;

/* flash in every layer: what others are held against. */
extern const attn_pattern attn_cost_flash;

const char *attn_cost_class_name(attn_cost_class class);

/* Shapes of a core with pairs, for the bytes that tiles move. */
typedef struct attn_cost_traffic {
    bool is_softmax; /* has pairs */
    bool is_square;  /* writes them to memory */
    attn_cost_heads heads;
    size_t batch, queries, keys;
    double executed_share; /* of the square */
} attn_cost_traffic;

/* One kind of operation; `times` of it in the model. */
typedef struct attn_cost_part {
    char name[40];
    char formula[200]; /* of the forward matmul, in letters and in numbers; "" without */
    attn_cost_class class;
    size_t mechanism; /* of a core: its place in the registry; SIZE_MAX: another part */
    bool is_in_layer;
    uint64_t times;
    attn_work work[ATTN_COST_PASSES];
    uint64_t useful[ATTN_COST_PASSES], dense[ATTN_COST_PASSES]; /* matmul, by convention */
    uint64_t bytes[ATTN_COST_PASSES];                           /* each tensor once: ideal */
    uint64_t kept_bytes;                                        /* for the backward pass */
    uint64_t parameters;
    uint64_t kernels[ATTN_COST_PASSES]; /* launches */
    attn_cost_traffic traffic;
} attn_cost_part;

enum { ATTN_COST_PARTS_MAX = 64 };

typedef struct attn_cost_memory {
    uint64_t parameters, gradients, optimizer, activations, logits, cache, total;
} attn_cost_memory;

typedef struct attn_cost_estimate {
    attn_cost_request request;                     /* with every default filled in */
    attn_cost_part parts[ATTN_COST_PARTS_MAX + 1]; /* the last takes what does not fit */
    size_t n_parts;
    uint64_t rows;                              /* tokens that pass through the layers */
    uint64_t parameters;                        /* of the model with this mechanism */
    uint64_t cache_bytes;                       /* cache or state after the last token */
    bool has_useful;                            /* visible pairs were counted */
    attn_work forward, backward, again, update; /* executed; `again` is recomputation */
    uint64_t useful, dense;  /* matmul of the step by convention, recomputation left out */
    attn_cost_memory memory; /* bytes, at once */
} attn_cost_estimate;

/* ATTN_ESHAPE, ATTN_EUNSUPPORTED, ATTN_ENOTFOUND, ATTN_EARGUMENT with one line. */
ATTN_MUST_CHECK attn_status attn_cost_estimate_make(const attn_cost_request *request,
                                                    attn_cost_estimate *out, attn_error *error);

/* Executed matmul, exponential and other work of all passes. */
attn_work attn_cost_total(const attn_cost_estimate *estimate);

#endif
