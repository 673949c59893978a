/* A layer with inputs, outputs and its oracle's results: what every check of a mechanism uses. */
#ifndef CHECK_LAYER_H
#define CHECK_LAYER_H

#include "check.h"
#include "mechanisms/mechanism.h"

/* What is known of a mechanism beyond the registry; see check_subjects.c. */
typedef struct check_subject {
    const char *name;
    const char *const *options; /* ends with NULL; NULL: the defaults alone */
    bool is_order_free;         /* bidirectional outputs follow any permutation of the tokens */
    bool is_average;            /* o is a weighted mean of v: constant v gives constant o */
    bool has_scores;            /* q k^T decides: inputs with extreme scores make sense */
    bool has_norm;              /* each o is divided by its size */
    bool decodes_single;        /* bfloat16 layers decode with float32 weights in part */
    bool has_jumps;             /* small steps can change a decision, and the output with it */
} check_subject;

/* Never NULL: mechanisms without an entry get one that claims nothing. */
const check_subject *check_subject_find(const char *name);
/* The subject's option strings; "" alone when it lists none. */
const char *const *check_subject_options(const check_subject *subject);

/* How the numbers of a layer are drawn. */
typedef enum check_family {
    CHECK_ORDINARY,
    CHECK_SCORES_THOUSANDS, /* scores of thousands, many of a row's largest close together */
    CHECK_SCORES_LOW,       /* every score below -20000 */
    CHECK_FAMILIES
} check_family;

typedef struct check_config {
    size_t batch, heads, head_dim, length;
    bool is_causal, has_documents;
    check_family family;
    attn_dtype dtype;
} check_config;

typedef struct check_layer {
    attn_layer *layer;       /* freed by check_layer_end() */
    size_t B, T, C, n, P, M; /* n = B T C; P parameters; M = B S C_memory */
    float *parameters, *x, *dy, *memory;
    attn_bf16 *packed;   /* of bfloat16 layers */
    uint32_t *documents; /* NULL: one a sequence */
    float *saved, *scratch, *y, *dx, *gradients, *d_memory;
    size_t saved_count;
    double amplification; /* the largest q of inputs with extreme scores; 1 for ordinary ones */
    double *want_y, *want_dx, *want_gradients, *want_d_memory;     /* after check_layer_oracle() */
    double *moved_y, *moved_dx, *moved_gradients, *moved_d_memory; /* rounded at random: bfloat16 */
} check_layer;

enum { CHECK_POSITIONS = 256 };

/* Error rule of float32 layers against the oracle; docs/numerics.md. */
#define CHECK_LAYER_TOLERANCE 2e-5
/* A bfloat16 layer against its definition with the same factors rounded: factors that come out of
 * float32 sums, off by 2e-5 at most, may lie on the other side of the middle between two bfloat16
 * numbers. That is an error of sqrt(2e-5 2^-7) = 4e-4 in the root mean square, where rounding at
 * random makes one of 0.6 2^-8: a share of 0.17, three times. docs/numerics.md */
#define CHECK_HALF_SHARE 0.5
/* Between two float32 evaluations of the same thing in another order. */
#define CHECK_ROUNDING 4e-6
/* A gradient's norm counts as at least this share of the layer's largest. */
#define CHECK_GRADIENT_FLOOR 0.01
/* Behind a norm a gradient is what remains without its part along o: where each token sees itself
 * alone, o lies along v, and the norm's epsilon is all that leaves wq and wk a gradient. */
#define CHECK_LONE_TOKENS_FLOOR 0.05
/* With one key in a memory every softmax is 1, and dx zero in exact arithmetic: it is judged as a
 * share of the memory's gradient. */
#define CHECK_SINGLE_KEY_FLOOR 0.05
/* For inputs with extreme scores, as a share of q's size times the gradient of v: with
 * the tolerance that is 17 roundings of each score's gradient. */
#define CHECK_EXTREME_FLOOR 0.05

const char *check_config_text(const check_config *config);

/* Makes the layer of the group's mechanism and draws its inputs from the open case. False when
 * the layer cannot be made; the case is skipped or failed then. */
bool check_layer_begin(check_run *run, check_layer *l, const char *options,
                       const check_config *config);
void check_layer_end(check_layer *l);

/* The oracle's y and gradients of the layer's inputs, rounded where the layer rounds. */
void check_layer_oracle(check_run *run, check_layer *l);

/* The memory of sequence b and on; NULL for layers that read none. */
float *check_layer_memory(const check_layer *l, size_t b);

attn_call check_layer_call(const check_layer *l);
/* Forward and backward into the layer's own buffers, all of exactly the promised sizes and full
 * of NaN before. False (and the case skipped) when the mechanism has no documents. */
bool check_layer_forward(check_run *run, check_layer *l, attn_context *context);
void check_layer_backward(check_run *run, check_layer *l, attn_context *context);

/* y against the oracle's. */
void check_layer_compare_y(check_run *run, const check_layer *l, const float *y, double tolerance,
                           const char *what);
/* y, dx, that of the memory and every gradient against the oracle. */
void check_layer_compare(check_run *run, const check_layer *l, double tolerance);
/* The floor for the norms of gradients. */
double check_gradient_floor(const check_layer *l, check_numbers gradients);

/* The parameter of that name, or NULL. */
const attn_parameter *check_parameter(const check_layer *l, const char *name);

bool check_same_work(check_run *run, attn_work counted, attn_work expected, const char *what);
attn_work check_work_since(const attn_context *context, attn_work before);

/* One group for each mechanism and level; `what` is its attn_mechanism_entry. */
void check_list_add_mechanisms(check_list *list, const char *mode, check_body *body,
                               const check_plant *plant);

static inline const attn_mechanism_entry *check_entry(const check_run *run)
{
    return run->group->what;
}

#endif
