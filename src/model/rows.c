/* LayerNorm with residual, and GELU, over rows. Operation counts by class are those of the cost
 * model: norm 7 n + 2 and one square root a row forward, 11 n backward; GELU one exponential and
 * 8 operations forward, one and 16 backward, y among them; an addition for each residual. */
#include "model/rows.h"

#include "base/threads.h"
#include "model/model.h"

#include <string.h>

enum { NORM_ROWS = 16, NORM_PARTIALS = 64, GELU_NUMBERS = 1 << 13 };

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- LayerNorm --------------------------------------------------------------------------- */

typedef struct norm_job {
    const attn_kernels *kernels;
    const attn_rows_norm *norm;
    const float *residual, *input, *dy;
    float *x, *dx, *partial;
    attn_rows_output y;
    size_t rows_per_task;
    bool accumulate;
} norm_job;

static void norm_rows(void *argument, size_t index, size_t worker)
{
    const norm_job *job = argument;
    const attn_rows_norm *norm = job->norm;
    const size_t n = norm->n, first = index * NORM_ROWS;
    const size_t last = smaller(first + NORM_ROWS, norm->rows);
    for (size_t i = first; i < last; i++) {
        float *x = job->x + i * n;
        float *y = job->y.half ? job->y.room + worker * n : job->y.single + i * n;
        if (job->residual) job->kernels->add(n, job->residual + i * n, x);
        job->kernels->layer_norm(n, ATTN_MODEL_NORM_EPSILON, x, norm->gain, norm->bias, y,
                                 &norm->mean[i], &norm->inverse_deviation[i]);
        if (job->y.half) job->kernels->bf16_from_float(n, y, job->y.half + i * n);
    }
}

void attn_rows_norm_forward(attn_context *context, const attn_rows_norm *norm,
                            const float *residual, float *x, attn_rows_output y)
{
    norm_job job = {
        .kernels = context->kernels, .norm = norm, .residual = residual, .x = x, .y = y};
    attn_parallel(context->threads, (norm->rows + NORM_ROWS - 1) / NORM_ROWS, norm_rows, &job);
    const uint64_t elements = (uint64_t)norm->rows * norm->n;
    context->work.other += 7 * elements + 2 * (uint64_t)norm->rows + (residual ? elements : 0);
    context->work.exponential += norm->rows;
}

size_t attn_rows_norm_partial_count(size_t n)
{
    return NORM_PARTIALS * 2 * n;
}

/* One task: its rows' dx, and their sums for gain and bias. */
static void norm_gradient_rows(void *argument, size_t index, size_t worker)
{
    (void)worker;
    const norm_job *job = argument;
    const attn_rows_norm *norm = job->norm;
    const size_t n = norm->n, first = index * job->rows_per_task;
    const size_t last = smaller(first + job->rows_per_task, norm->rows);
    float *dgain = job->partial + index * 2 * n, *dbias = dgain + n;
    memset(dgain, 0, 2 * n * sizeof *dgain);
    for (size_t i = first; i < last; i++) {
        float *dx = job->dx + i * n;
        if (!job->accumulate) memset(dx, 0, n * sizeof *dx);
        job->kernels->layer_norm_gradient(n, job->input + i * n, norm->gain, norm->mean[i],
                                          norm->inverse_deviation[i], job->dy + i * n, dx, dgain,
                                          dbias);
    }
}

void attn_rows_norm_backward(attn_context *context, const attn_rows_norm *norm, const float *x,
                             const float *dy, float *dx, bool accumulate, float *partial,
                             float *dgain, float *dbias)
{
    norm_job job = {.kernels = context->kernels,
                    .norm = norm,
                    .input = x,
                    .dy = dy,
                    .dx = dx,
                    .partial = partial,
                    .rows_per_task = (norm->rows + NORM_PARTIALS - 1) / NORM_PARTIALS,
                    .accumulate = accumulate};
    const size_t n = norm->n, tasks = (norm->rows + job.rows_per_task - 1) / job.rows_per_task;
    attn_parallel(context->threads, tasks, norm_gradient_rows, &job);
    memcpy(dgain, partial, n * sizeof *dgain);
    memcpy(dbias, partial + n, n * sizeof *dbias);
    for (size_t task = 1; task < tasks; task++) {
        context->kernels->add(n, partial + task * 2 * n, dgain);
        context->kernels->add(n, partial + task * 2 * n + n, dbias);
    }
    context->work.other += (accumulate ? 12 : 11) * (uint64_t)norm->rows * n;
}

/* ---- GELU -------------------------------------------------------------------------------- */

typedef struct gelu_job {
    const attn_kernels *kernels;
    size_t count;
    const float *x;
    float *y; /* forward: the result; backward: dy, which becomes dx */
} gelu_job;

static void gelu_numbers(void *argument, size_t index, size_t worker)
{
    (void)worker;
    const gelu_job *job = argument;
    const size_t first = index * GELU_NUMBERS, n = smaller(GELU_NUMBERS, job->count - first);
    job->kernels->gelu(n, job->x + first, job->y + first);
}

static void gelu_gradient_numbers(void *argument, size_t index, size_t worker)
{
    (void)worker;
    const gelu_job *job = argument;
    const size_t first = index * GELU_NUMBERS, n = smaller(GELU_NUMBERS, job->count - first);
    job->kernels->gelu_gradient(n, job->x + first, job->y + first, job->y + first, NULL);
}

void attn_rows_gelu_forward(attn_context *context, size_t count, const float *x, float *y)
{
    gelu_job job = {.kernels = context->kernels, .count = count, .x = x, .y = y};
    attn_parallel(context->threads, (count + GELU_NUMBERS - 1) / GELU_NUMBERS, gelu_numbers, &job);
    context->work.exponential += count;
    context->work.other += 8 * (uint64_t)count;
}

void attn_rows_gelu_backward(attn_context *context, size_t count, const float *x, float *dy)
{
    gelu_job job = {.kernels = context->kernels, .count = count, .x = x, .y = dy};
    attn_parallel(context->threads, (count + GELU_NUMBERS - 1) / GELU_NUMBERS,
                  gelu_gradient_numbers, &job);
    context->work.exponential += count;
    context->work.other += 16 * (uint64_t)count;
}

/* ---- GELU in bfloat16 -------------------------------------------------------------------- */

enum { PIECE = 512 }; /* numbers that are float32 at a time */

typedef struct gelu_half_job {
    const attn_kernels *kernels;
    size_t count;
    const attn_bf16 *x;
    attn_bf16 *y, *dy; /* dy NULL: forward */
} gelu_half_job;

static void gelu_half_numbers(void *argument, size_t index, size_t worker)
{
    (void)worker;
    const gelu_half_job *job = argument;
    const attn_kernels *kernels = job->kernels;
    const size_t last = smaller((index + 1) * GELU_NUMBERS, job->count);
    float x[PIECE], y[PIECE], dy[PIECE];
    for (size_t at = index * GELU_NUMBERS; at < last; at += PIECE) {
        const size_t n = smaller(PIECE, last - at);
        kernels->bf16_to_float(n, job->x + at, x);
        if (job->dy) {
            kernels->bf16_to_float(n, job->dy + at, dy);
            kernels->gelu_gradient(n, x, dy, dy, y);
            kernels->bf16_from_float(n, dy, job->dy + at);
        } else {
            kernels->gelu(n, x, y);
        }
        kernels->bf16_from_float(n, y, job->y + at);
    }
}

void attn_rows_gelu_forward_half(attn_context *context, size_t count, const attn_bf16 *x,
                                 attn_bf16 *y)
{
    gelu_half_job job = {.kernels = context->kernels, .count = count, .x = x, .y = y};
    attn_parallel(context->threads, (count + GELU_NUMBERS - 1) / GELU_NUMBERS, gelu_half_numbers,
                  &job);
    context->work.exponential += count;
    context->work.other += 8 * (uint64_t)count;
}

void attn_rows_gelu_backward_half(attn_context *context, size_t count, const attn_bf16 *x,
                                  attn_bf16 *y, attn_bf16 *dy)
{
    gelu_half_job job = {.kernels = context->kernels, .count = count, .x = x, .y = y, .dy = dy};
    attn_parallel(context->threads, (count + GELU_NUMBERS - 1) / GELU_NUMBERS, gelu_half_numbers,
                  &job);
    context->work.exponential += count;
    context->work.other += 16 * (uint64_t)count;
}
