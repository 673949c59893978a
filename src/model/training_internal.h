/* Private to model: what is inside a trainer. */
#ifndef MODEL_TRAINING_INTERNAL_H
#define MODEL_TRAINING_INTERNAL_H

#include "model/stack.h"
#include "model/training.h"

/* A piece of one trained tensor, the task of an update: fixed cuts, so that the gradients' norm
 * does not depend on threads. */
typedef struct attn_update_piece {
    size_t offset, count;
    bool is_decayed;
    size_t in, packed; /* in > 0: whole rows of a product's weights, and where they lie packed */
} attn_update_piece;

struct attn_trainer {
    attn_model *model;
    attn_context *context;
    attn_stack stack;
    double *nll;                          /* [B][T] */
    float *gradients, *moment1, *moment2; /* as the model's block */
    attn_update_piece *pieces;
    double *squares; /* one sum a piece */
    size_t n_pieces;
    bool packs_apart; /* some weights are cut so that pieces cannot pack them */
    size_t steps;
    attn_stack_input pending; /* the pass that backward belongs to */
    bool has_pending;
};

/* Cuts the trained tensors into pieces. */
ATTN_MUST_CHECK attn_status attn_trainer_cut(attn_trainer *trainer, attn_error *error);

#endif
