/* What happens to each row of activations between the dense products: norms, residuals, GELU
 * and the embeddings. Every function counts its work into context->work, runs in tasks of fixed
 * shape and needs no memory of its own; bits do not depend on threads. */
#ifndef MODEL_ROWS_H
#define MODEL_ROWS_H

#include "kernels/context.h"

/* One LayerNorm over rows of n. */
typedef struct attn_rows_norm {
    size_t rows, n;
    const float *gain, *bias;        /* [n] */
    float *mean, *inverse_deviation; /* [rows] */
} attn_rows_norm;

/* Where the results of a norm go: exactly one of `single` and `half`. */
typedef struct attn_rows_output {
    float *single;   /* [rows][n] */
    attn_bf16 *half; /* [rows][n], rounded */
    float *room;     /* [threads][n], for `half` */
} attn_rows_output;

/* x += residual (unless NULL), y = norm(x), in one pass */
void attn_rows_norm_forward(attn_context *context, const attn_rows_norm *norm,
                            const float *residual, float *x, attn_rows_output y);

/* Elements of `partial` below, for rows of n. */
size_t attn_rows_norm_partial_count(size_t n);

/* dx += the input gradient of `norm` at x, or dx = it when not `accumulate`; gain and bias
 * gradients are overwritten. Accumulating counts the addition of a residual branch. */
void attn_rows_norm_backward(attn_context *context, const attn_rows_norm *norm, const float *x,
                             const float *dy, float *dx, bool accumulate, float *partial,
                             float *dgain, float *dbias);

/* y = gelu(x); dy becomes dx */
void attn_rows_gelu_forward(attn_context *context, size_t count, const float *x, float *y);
void attn_rows_gelu_backward(attn_context *context, size_t count, const float *x, float *dy);

/* The same in bfloat16, computed in float32: one rounding each. Backward also gives y, since
 * it is not kept: y = gelu(x); dy becomes dx. */
void attn_rows_gelu_forward_half(attn_context *context, size_t count, const attn_bf16 *x,
                                 attn_bf16 *y);
void attn_rows_gelu_backward_half(attn_context *context, size_t count, const attn_bf16 *x,
                                  attn_bf16 *y, attn_bf16 *dy);

/* The two embeddings of B sequences of T tokens. */
typedef struct attn_embedding {
    size_t batch, length, n;
    size_t positions;               /* rows of wpe */
    size_t first_position;          /* of each sequence's first token: decoding */
    const uint32_t *tokens;         /* [B][T] */
    const uint32_t *document_start; /* [B][T]: a document's first token has position 0; NULL: t */
} attn_embedding;

/* x[b][t] = wte[token] + wpe[position] */
void attn_embedding_forward(attn_context *context, const attn_embedding *e, const float *wte,
                            const float *wpe, float *x);
/* dwte[token] += dx, dwpe = sums of dx by position (overwritten) */
void attn_embedding_backward(attn_context *context, const attn_embedding *e, const float *dx,
                             float *dwte, float *dwpe);

#endif
