/* The head by blocks of rows: logits = x wte^T; loss; then, while the block is warm, dx and
 * dwte from the logits' gradient, which cross_entropy leaves in their place.
 *
 * Each exponential is taken once, so the backward pass has none: 3 V operations, V exponentials
 * and one logarithm a row forward, 2 V operations backward. */
#include "model/head.h"

#include "base/threads.h"
#include "kernels/dense.h"

#include <string.h>

enum { BLOCK_BYTES = 64 << 20, TASK_ROWS = 4 };

size_t attn_head_block_rows(size_t rows, size_t vocabulary)
{
    size_t most = BLOCK_BYTES / sizeof(float) / vocabulary;
    if (most == 0) most = 1;
    const size_t blocks = (rows + most - 1) / most;
    return (rows + blocks - 1) / blocks;
}

typedef struct loss_job {
    const attn_kernels *kernels;
    const attn_head *head;
    size_t first, rows;
} loss_job;

static void loss_rows(void *argument, size_t index, size_t worker)
{
    (void)worker;
    const loss_job *job = argument;
    const attn_head *head = job->head;
    const size_t v = head->vocabulary;
    for (size_t i = index * TASK_ROWS; i < (index + 1) * TASK_ROWS && i < job->rows; i++) {
        const size_t row = job->first + i;
        float *logits = head->logits + i * v;
        const float scale = head->dx ? (float)((double)head->weights[row] / head->weight) : 0.0f;
        head->nll[row] = job->kernels->cross_entropy(v, logits, head->targets[row], scale);
        if (head->dx && scale == 0.0f) memset(logits, 0, v * sizeof *logits);
    }
}

double attn_head_loss(attn_context *context, const attn_head *head, attn_profile *profile)
{
    const size_t n = head->n, v = head->vocabulary;
    const size_t block = attn_head_block_rows(head->rows, v);
    for (size_t first = 0; first < head->rows; first += block) {
        const size_t rows = first + block < head->rows ? block : head->rows - first;
        const float *x = head->x + first * n;
        uint64_t since = attn_clock_ns();
        attn_dense_forward(context, rows, n, v, x, head->wte, NULL, head->logits);
        since = attn_profile_lap(profile, ATTN_PART_HEAD, ATTN_PASS_FORWARD, since);

        loss_job job = {.kernels = context->kernels, .head = head, .first = first, .rows = rows};
        attn_parallel(context->threads, (rows + TASK_ROWS - 1) / TASK_ROWS, loss_rows, &job);
        context->work.exponential += (uint64_t)rows * v + rows;
        context->work.other += 3 * (uint64_t)rows * v;
        since = attn_profile_lap(profile, ATTN_PART_LOSS, ATTN_PASS_FORWARD, since);
        if (!head->dx) continue;

        context->work.other += 2 * (uint64_t)rows * v;
        attn_dense_input_gradient(context, rows, n, v, head->logits, head->wte,
                                  head->dx + first * n, false);
        attn_dense_weight_gradient(context, rows, n, v, x, head->logits, head->dwte, NULL,
                                   first > 0);
        attn_profile_lap(profile, ATTN_PART_HEAD, ATTN_PASS_BACKWARD, since);
    }
    double loss = 0.0;
    for (size_t i = 0; i < head->rows; i++) loss += (double)head->weights[i] * head->nll[i];
    return loss;
}
