/* The tied head with its loss: logits, cross-entropy and the head's gradients by blocks of
 * rows, so that [tokens][vocabulary] is never held whole.
 *
 * In bfloat16 the factors of the three products are: x, wte, and the gradient of the logits, which
 * is rounded where it is made. Logits, loss, dx and dwte are float32. */
#ifndef MODEL_HEAD_H
#define MODEL_HEAD_H

#include "kernels/context.h"
#include "model/profile.h"

/* Rows of a block of logits, for `rows` rows in all: at most about 64 MB, blocks alike. */
size_t attn_head_block_rows(size_t rows, size_t vocabulary);

/* In bfloat16 gradients are taken for a group of blocks, and a piece of the vocabulary at a time:
 * rows of a group, words of a piece. */
size_t attn_head_group_rows(size_t rows, size_t vocabulary);
enum { ATTN_HEAD_PIECE = 6144 };

/* Floats of scratch; without gradients when not `keeps`. */
size_t attn_head_scratch_count(size_t rows, size_t vocabulary, attn_dtype dtype, bool keeps);

typedef struct attn_head {
    size_t rows, n, vocabulary; /* N, C, V */
    const float *x;             /* [N][C], after the last norm; NULL in bfloat16, which has */
    const attn_bf16 *x_half;    /* ... the same rounded, and */
    const attn_bf16 *packed;    /* ... wte packed */
    const float *wte;           /* [V][C] */
    const uint32_t *targets;    /* [N] */
    const float *weights;       /* [N]: 0 = does not count */
    double weight;              /* sum of the weights, above 0 */
    float *scratch;             /* attn_head_scratch_count(), on 64 bytes */
    double *nll;                /* [N]: -log p(target) in nats, of every row */
    float *dx;                  /* [N][C], overwritten; NULL: the loss alone */
    float *dwte;                /* [V][C], overwritten */
} attn_head;

/* Every row is computed, whatever its weight, so that all steps of a run cost the same.
 * Returns the sum of weights * nll. */
double attn_head_loss(attn_context *context, const attn_head *head, attn_profile *profile);

#endif
