/* The tied head with its loss: logits, cross-entropy and the head's gradients by blocks of
 * rows, so that [tokens][vocabulary] is never held whole. */
#ifndef MODEL_HEAD_H
#define MODEL_HEAD_H

#include "kernels/context.h"
#include "model/profile.h"

/* Rows of a block of logits, for `rows` rows in all: at most about 64 MB, blocks alike. */
size_t attn_head_block_rows(size_t rows, size_t vocabulary);

typedef struct attn_head {
    size_t rows, n, vocabulary; /* N, C, V */
    const float *x;             /* [N][C], after the last norm */
    const float *wte;           /* [V][C] */
    const uint32_t *targets;    /* [N] */
    const float *weights;       /* [N]: 0 = does not count */
    double weight;              /* sum of the weights, above 0 */
    float *logits;              /* [attn_head_block_rows()][V], scratch */
    double *nll;                /* [N]: -log p(target) in nats, of every row */
    float *dx;                  /* [N][C], overwritten; NULL: the loss alone */
    float *dwte;                /* [V][C], overwritten */
} attn_head;

/* Every row is computed, whatever its weight, so that all steps of a run cost the same.
 * Returns the sum of weights * nll. */
double attn_head_loss(attn_context *context, const attn_head *head, attn_profile *profile);

#endif
