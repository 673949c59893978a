/* The layer around a recurrence that owns its projections (retnet, gla, deltanet): with
 *     [q | k | v | g | more] = x W^T              one product; a token's row holds them all
 *     o_h = the recurrence of head h              attn_recurrence.forward
 *     y = (w o norm(o_h) o silu(g_h)) Wo^T        norm(u) = u / sqrt(mean(u^2) + 1e-5), by head
 * w and g are there when the recurrence says so. For the backward pass the rows and the o_h are
 * kept; what lies between o_h and Wo is computed again.
 *
 * Recurrences compute chunk by chunk, and no chunk crosses a document's border. One task is some
 * heads of one sequence, which walk its chunks together (head_rows.h). The backward pass walks twice:
 * forward to make the states before each chunk again, T / C of them a head in the worker's memory,
 * then back. Decoding is a forward pass over one token that starts from the state in the cache. */
#ifndef MECHANISMS_RECURRENT_LAYER_H
#define MECHANISMS_RECURRENT_LAYER_H

#include "mechanisms/counted.h"
#include "mechanisms/mechanism.h"
#include "mechanisms/recurrence_engine.h"

/* The projections: x to rows, o to y; those of declare_own() follow. */
enum { ATTN_RECURRENT_ROWS, ATTN_RECURRENT_O, ATTN_RECURRENT_OWN };

/* Where a token's row holds what; q, k, v and gate are head 0's. */
typedef struct attn_recurrent_shape {
    size_t key_dim, value_dim; /* of one head */
    size_t q, k, v, gate, more;
    size_t row; /* floats */
} attn_recurrent_shape;

/* One call, as the recurrence sees it. */
typedef struct attn_recurrent_run {
    attn_context *context;
    const attn_kernels *kernels; /* attn_core_kernels() */
    const attn_layer *layer;
    const attn_call *call;
    attn_recurrent_shape shape;
    size_t position;      /* of the first token: 0, or decoding's */
    float *rows, *d_rows; /* [B][T][row]; d_rows: backward, to be filled */
    float *saved;         /* recurrence->saved() floats; NULL: inference */
    float *shared;        /* recurrence->shared() floats, for prepare(), all heads and finish() */
} attn_recurrent_run;

/* One chunk of one head of one sequence. */
typedef struct attn_recurrent_head {
    const attn_recurrent_run *run;
    size_t index, h;      /* of all B H heads; in the layer */
    size_t start, length; /* the chunk's tokens in the sequence: at most ATTN_CHUNK */
    size_t first;         /* row of its first token */
    size_t position;      /* of that token in its document */
    attn_counted on;
    float *room; /* recurrence->room() floats of this worker */
} attn_recurrent_head;

/* A token of a head in double: columns of its row, to become what the recurrence takes. */
typedef struct attn_recurrent_token {
    size_t position; /* in its document */
    double *q, *k;   /* [key_dim] */
    double *v;       /* [value_dim] */
    double *more;    /* all columns behind the gate's */
    double *decay;   /* [key_dim]: 1, of what was written before */
    double rate;     /* 1, of what it writes */
} attn_recurrent_token;

typedef struct attn_recurrence {
    bool has_gate, has_norm_weight;
    bool corrects;                              /* it writes v less what the state holds at k */
    size_t (*key_dim)(const attn_layer *layer); /* of one head */
    size_t (*more)(const attn_layer *layer);    /* columns of a row behind the gate's; NULL: 0 */
    void (*declare_more)(attn_layer *layer);    /* the weights of those columns */
    /* Parameters that x does not meet, behind wo, and their projections. */
    void (*declare_own)(attn_layer *layer);
    /* Floats; each may be NULL for none. */
    size_t (*saved)(const attn_layer *layer, size_t batch, size_t length);
    size_t (*shared)(const attn_layer *layer, size_t batch, size_t length);
    size_t (*room)(const attn_layer *layer);        /* for a chunk, in either pass */
    void (*prepare)(const attn_recurrent_run *run); /* before the heads of either pass */
    /* o [c][value_dim] of a chunk; state [key_dim][value_dim] before it, and behind it afterwards.
     * Leaves q, k [C][key_dim] and v [C][value_dim], as it took them, at the start of head->room. */
    void (*forward)(const attn_recurrent_head *head, float *state, float *o);
    /* The transposed state behind a chunk from that before it. */
    void (*advance)(const attn_recurrent_head *head, const float *state, float *next);
    /* Fills the head's columns of the chunk's d_rows. */
    void (*backward)(const attn_recurrent_head *head, const attn_chunk_states *states,
                     const float *d_o);
    void (*token)(const attn_recurrent_head *head, attn_recurrent_token *token);
    void (*finish)(const attn_recurrent_run *run); /* backward: gradients of the own parameters */
    /* Of one head of one sequence; and of prepare() and finish() for so many rows, or NULL. */
    attn_work (*head_work)(const attn_layer *layer, attn_phase phase, size_t length,
                           const uint32_t *documents);
    attn_work (*shared_work)(const attn_layer *layer, attn_phase phase, size_t batch,
                             size_t length);
    /* o_h in float64; `parameters` as in attn_layer_functions.oracle. With `project_more`, the
     * product of x with the weights of declare_more() is one for all heads: `more`. */
    attn_node *(*project_more)(attn_tape *tape, const attn_layer *layer, attn_node *x,
                               attn_node *const *parameters);
    attn_node *(*oracle)(attn_tape *tape, const attn_layer *layer, size_t head, attn_node *x,
                         attn_node *const *parameters, attn_node *more, const uint32_t *documents);
} attn_recurrence;

extern const attn_layer_functions attn_recurrent_functions;

/* A call without its two projections, for benchmarks: from rows, in call->saved or without it at
 * the start of scratch, to what wo is given; backward from the gradient of that to those of the
 * rows. All of these lie in scratch. */
void attn_recurrent_inner(attn_context *context, const attn_layer *layer, const attn_call *call,
                          attn_phase phase);

/* Where the head's columns of q, k, v or more start in the chunk's first row; rows lie
 * run->shape.row apart. */
static inline size_t attn_recurrent_at(const attn_recurrent_head *head, size_t column)
{
    return head->first * head->run->shape.row + column;
}

/* For oracles: the parameter of that name; and x W_h^T with the head's rows of a weight. */
attn_node *attn_recurrent_parameter(const attn_layer *layer, attn_node *const *parameters,
                                    const char *name);
attn_node *attn_recurrent_project(attn_tape *tape, const attn_layer *layer,
                                  attn_node *const *parameters, const char *name, attn_node *x,
                                  size_t head);

#endif
