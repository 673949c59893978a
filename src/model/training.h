/* Training a model: loss, gradients and AdamW over memory that is allocated once.
 *
 *     loss       forward pass, loss, and the head's gradients while its logits are warm
 *     backward   all other gradients
 *     update     one AdamW step, with the gradients clipped to a norm if asked
 *
 * The results of loss and backward do not depend on threads with the instruction set `ref`;
 * elsewhere the dense library may cut its products by them. */
#ifndef MODEL_TRAINING_H
#define MODEL_TRAINING_H

#include "model/model.h"
#include "model/profile.h"

typedef struct attn_trainer attn_trainer;

/* B sequences of T tokens, each array [B][T]. */
typedef struct attn_training_batch {
    const uint32_t *inputs;
    const uint32_t *targets;        /* all below the vocabulary, also where the weight is 0 */
    const float *weights;           /* share in the loss; 0 = the target does not count */
    const uint32_t *document_start; /* first position of the token's document: positions start
                                       there and attention does not look before it; NULL: every
                                       sequence is one document */
} attn_training_batch;

typedef struct attn_loss {
    double mean;   /* sum(weight * nll) / sum(weight), nats */
    double weight; /* sum of the weights */
} attn_loss;

/* AdamW (Loshchilov & Hutter 2019); decay only for tensors of two dimensions and more. */
typedef struct attn_adamw {
    double beta1, beta2, epsilon, decay;
    double max_norm; /* gradients are scaled down to this norm; 0 = never, the norm is not taken */
} attn_adamw;

/* 0.9, 0.999, 1e-8, decay 0.01, no clipping: what PyTorch does unless told otherwise. */
attn_adamw attn_adamw_default(void);

/* Allocates all that steps of `batch` sequences of `length` tokens need. With `is_training`
 * false only attn_trainer_evaluate() may be called, and gradients, moments and kept activations
 * are left out. Model and context must outlive the trainer.
 *
 * ATTN_ESHAPE (also for a length above the model's positions), ATTN_EMEMORY. */
ATTN_MUST_CHECK attn_status attn_trainer_create(attn_trainer **out, attn_model *model,
                                                attn_context *context, size_t batch, size_t length,
                                                bool is_training, attn_error *error);
void attn_trainer_free(attn_trainer *trainer); /* NULL is fine */

/* The batch must live until backward. No heap use, except that the dense library prepares each
 * shape at its first call.
 *
 * ATTN_EARGUMENT for ids outside the vocabulary, weights that are no shares or all 0, a
 * document that starts after its token. */
ATTN_MUST_CHECK attn_status attn_trainer_loss(attn_trainer *trainer,
                                              const attn_training_batch *batch, attn_loss *loss,
                                              attn_error *error);
ATTN_MUST_CHECK attn_status attn_trainer_backward(attn_trainer *trainer, attn_error *error);

/* One AdamW step. `norm` (may be NULL) gets the gradients' norm before clipping, NaN when it was
 * not taken. A norm that is not finite is ATTN_EARGUMENT and leaves the parameters as they were. */
ATTN_MUST_CHECK attn_status attn_trainer_update(attn_trainer *trainer, const attn_adamw *adamw,
                                                double learning_rate, double *norm,
                                                attn_error *error);

/* The loss alone; nothing is kept for a backward pass. */
ATTN_MUST_CHECK attn_status attn_trainer_evaluate(attn_trainer *trainer,
                                                  const attn_training_batch *batch, attn_loss *loss,
                                                  attn_error *error);

/* -log p(target) of each token of the last batch, [B][T], in nats. */
const double *attn_trainer_nll(const attn_trainer *trainer);

/* Logits [rows][V] of the tokens first .. first + rows - 1 of the last batch. */
void attn_trainer_logits(attn_trainer *trainer, size_t first, size_t rows, float *logits);

/* Gradients in the layout of the model's block; NULL without training. */
float *attn_trainer_gradients(attn_trainer *trainer);

/* Updates so far. */
size_t attn_trainer_steps(const attn_trainer *trainer);

/* Time spent so far; the caller may set it to zero. */
attn_profile *attn_trainer_profile(attn_trainer *trainer);

#endif
