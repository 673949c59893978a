/* The head by blocks of rows: logits = x wte^T; loss; then dx and dwte from the logits' gradient,
 * which cross_entropy leaves in their place: while the block is warm in float32. In bfloat16 the
 * gradient of a group of blocks is kept, since dwte is as large as wte and is read and written once
 * for each sum into it; pieces of the vocabulary keep what a product reads near.
 *
 * Each exponential is taken once, so the backward pass has none: 3 V operations, V exponentials
 * and one logarithm a row forward, 2 V operations backward. */
#include "model/head.h"

#include "base/threads.h"
#include "kernels/dense.h"
#include "kernels/dense_bf16.h"

#include <string.h>

enum { BLOCK_BYTES = 64 << 20, GROUP_BLOCKS = 4, TASK_ROWS = 4 };
_Static_assert(ATTN_HEAD_PIECE % ATTN_DENSE_BF16_ROWS == 0, "pieces of packed weights");

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t attn_head_block_rows(size_t rows, size_t vocabulary)
{
    size_t most = BLOCK_BYTES / sizeof(float) / vocabulary;
    if (most == 0) most = 1;
    const size_t blocks = (rows + most - 1) / most;
    return (rows + blocks - 1) / blocks;
}

size_t attn_head_group_rows(size_t rows, size_t vocabulary)
{
    return smaller(GROUP_BLOCKS * attn_head_block_rows(rows, vocabulary), rows);
}

/* Floats that hold bfloat16 numbers, up to the next 64-byte border. */
static size_t halves(size_t count)
{
    return (count + 31) / 32 * 16;
}

/* Numbers from one row to the next in bfloat16, of the logits and of their gradient: whole cache
 * lines. */
static size_t half_row(size_t vocabulary)
{
    return (vocabulary + 31) / 32 * 32;
}

static size_t logits_row(size_t vocabulary, attn_dtype dtype)
{
    return dtype == ATTN_F32 ? vocabulary : half_row(vocabulary);
}

static size_t logits_count(size_t rows, size_t vocabulary, attn_dtype dtype)
{
    return attn_head_block_rows(rows, vocabulary) * logits_row(vocabulary, dtype);
}

size_t attn_head_scratch_count(size_t rows, size_t vocabulary, attn_dtype dtype, bool keeps)
{
    const size_t logits = logits_count(rows, vocabulary, dtype);
    if (dtype == ATTN_F32 || !keeps) return logits;
    return logits + halves(attn_head_group_rows(rows, vocabulary) * half_row(vocabulary));
}

/* ---- loss -------------------------------------------------------------------------------- */

/* One block of rows. In bfloat16 its rows' gradients go to those of a group. */
typedef struct loss_job {
    const attn_kernels *kernels;
    const attn_head *head;
    size_t first, rows, row; /* numbers from one row of logits to the next */
    attn_bf16 *gradient;     /* NULL: they stay where the logits were */
    size_t group_first, group_rows;
} loss_job;

static void loss_rows(void *argument, size_t index, size_t worker)
{
    (void)worker;
    const loss_job *job = argument;
    const attn_head *head = job->head;
    const size_t v = head->vocabulary;
    for (size_t i = index * TASK_ROWS; i < (index + 1) * TASK_ROWS && i < job->rows; i++) {
        const size_t row = job->first + i;
        float *logits = head->scratch + i * job->row;
        const float scale = head->dx ? (float)((double)head->weights[row] / head->weight) : 0.0f;
        attn_bf16 *half = NULL;
        if (job->gradient) half = job->gradient + (row - job->group_first) * half_row(v);
        head->nll[row] = job->kernels->cross_entropy(v, logits, head->targets[row], scale, half);
        if (!head->dx || scale != 0.0f) continue;
        if (half)
            memset(half, 0, v * sizeof *half);
        else
            memset(logits, 0, v * sizeof *logits);
    }
}

static void take_loss(attn_context *context, loss_job *job)
{
    const uint64_t elements = (uint64_t)job->rows * job->head->vocabulary;
    attn_parallel(context->threads, (job->rows + TASK_ROWS - 1) / TASK_ROWS, loss_rows, job);
    context->work.exponential += elements + job->rows;
    context->work.other += (job->head->dx ? 5 : 3) * elements;
}

/* ---- float32 ----------------------------------------------------------------------------- */

static void pass_single(attn_context *context, const attn_head *head, attn_profile *profile)
{
    const size_t n = head->n, v = head->vocabulary;
    const size_t block = attn_head_block_rows(head->rows, v);
    for (size_t first = 0; first < head->rows; first += block) {
        const size_t rows = smaller(block, head->rows - first);
        const float *x = head->x + first * n;
        uint64_t since = attn_clock_ns();
        attn_dense_forward(context, rows, n, v, x, head->wte, NULL, head->scratch);
        since = attn_profile_lap(profile, ATTN_PART_HEAD, ATTN_PASS_FORWARD, since);
        loss_job job = {
            .kernels = context->kernels, .head = head, .first = first, .rows = rows, .row = v};
        take_loss(context, &job);
        since = attn_profile_lap(profile, ATTN_PART_LOSS, ATTN_PASS_FORWARD, since);
        if (!head->dx) continue;
        attn_dense_input_gradient(context, rows, n, v, head->scratch, head->wte,
                                  head->dx + first * n, false);
        attn_dense_weight_gradient(context, rows, n, v, x, head->scratch, head->dwte, NULL,
                                   first > 0);
        attn_profile_lap(profile, ATTN_PART_HEAD, ATTN_PASS_BACKWARD, since);
    }
}

/* ---- bfloat16 ---------------------------------------------------------------------------- */

/* dx and dwte of a group, from its gradient. */
static void group_gradients(attn_context *context, const attn_head *head, const loss_job *group)
{
    const size_t n = head->n, v = head->vocabulary, rows = group->group_rows;
    const size_t first_row = group->group_first;
    for (size_t first = 0; first < v; first += ATTN_HEAD_PIECE) {
        const size_t words = smaller(ATTN_HEAD_PIECE, v - first);
        const attn_bf16 *gradient = group->gradient + first;
        attn_dense_bf16_input_gradient(
            context, rows, n, words, gradient, half_row(v),
            head->packed + attn_dense_bf16_packed(first, n),
            (attn_dense_output){.single = head->dx + first_row * n, .accumulate = first > 0});
        attn_dense_bf16_weight_gradient(context, rows, n, words, head->x_half + first_row * n,
                                        gradient, half_row(v), head->dwte + first * n, NULL,
                                        first_row > 0);
    }
}

static void pass_half(attn_context *context, const attn_head *head, attn_profile *profile)
{
    const size_t n = head->n, v = head->vocabulary;
    const size_t block = attn_head_block_rows(head->rows, v);
    const size_t group = attn_head_group_rows(head->rows, v);
    float *room = head->scratch + logits_count(head->rows, v, ATTN_BF16);
    attn_bf16 *gradient = head->dx ? (attn_bf16 *)(void *)room : NULL;
    loss_job job = {
        .kernels = context->kernels, .head = head, .row = half_row(v), .gradient = gradient};
    for (; job.group_first < head->rows; job.group_first += group) {
        job.group_rows = smaller(group, head->rows - job.group_first);
        const size_t end = job.group_first + job.group_rows;
        uint64_t since = attn_clock_ns();
        for (job.first = job.group_first; job.first < end; job.first += block) {
            job.rows = smaller(block, end - job.first);
            attn_dense_bf16_forward(
                context, job.rows, n, v, head->x_half + job.first * n, head->packed, NULL,
                (attn_dense_output){.single = head->scratch, .row = half_row(v), .is_far = true});
            since = attn_profile_lap(profile, ATTN_PART_HEAD, ATTN_PASS_FORWARD, since);
            take_loss(context, &job);
            since = attn_profile_lap(profile, ATTN_PART_LOSS, ATTN_PASS_FORWARD, since);
        }
        if (!head->dx) continue;
        group_gradients(context, head, &job);
        attn_profile_lap(profile, ATTN_PART_HEAD, ATTN_PASS_BACKWARD, since);
    }
}

double attn_head_loss(attn_context *context, const attn_head *head, attn_profile *profile)
{
    if (head->x_half)
        pass_half(context, head, profile);
    else
        pass_single(context, head, profile);
    double loss = 0.0;
    for (size_t i = 0; i < head->rows; i++) loss += (double)head->weights[i] * head->nll[i];
    return loss;
}
