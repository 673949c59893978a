/* Token and position embeddings. The gradient is a scatter: a task owns a range of columns and
 * takes all tokens in order, so no two tasks write one element and the order of each sum is
 * fixed, however often a token occurs. */
#include "base/threads.h"
#include "model/rows.h"

#include <string.h>

enum { EMBEDDING_ROWS = 16, EMBEDDING_COLUMNS = 64 };

typedef struct embedding_job {
    const attn_kernels *kernels;
    const attn_embedding *e;
    const float *wte, *wpe, *dx;
    float *x, *dwte, *dwpe;
} embedding_job;

static size_t position_of(const attn_embedding *e, size_t row)
{
    const size_t t = e->first_position + row % e->length;
    return e->document_start ? t - e->document_start[row] : t;
}

static void embed_rows(void *argument, size_t index, size_t worker)
{
    (void)worker;
    const embedding_job *job = argument;
    const attn_embedding *e = job->e;
    const size_t rows = e->batch * e->length, first = index * EMBEDDING_ROWS;
    for (size_t i = first; i < first + EMBEDDING_ROWS && i < rows; i++) {
        float *x = job->x + i * e->n;
        memcpy(x, job->wte + e->tokens[i] * e->n, e->n * sizeof *x);
        job->kernels->add(e->n, job->wpe + position_of(e, i) * e->n, x);
    }
}

void attn_embedding_forward(attn_context *context, const attn_embedding *e, const float *wte,
                            const float *wpe, float *x)
{
    embedding_job job = {.kernels = context->kernels, .e = e, .wte = wte, .wpe = wpe, .x = x};
    const size_t rows = e->batch * e->length;
    attn_parallel(context->threads, (rows + EMBEDDING_ROWS - 1) / EMBEDDING_ROWS, embed_rows, &job);
    context->work.other += (uint64_t)rows * e->n;
}

static void scatter_columns(void *argument, size_t index, size_t worker)
{
    (void)worker;
    const embedding_job *job = argument;
    const attn_embedding *e = job->e;
    const size_t first = index * EMBEDDING_COLUMNS;
    const size_t n = first + EMBEDDING_COLUMNS < e->n ? EMBEDDING_COLUMNS : e->n - first;
    for (size_t i = 0; i < e->positions; i++)
        memset(job->dwpe + i * e->n + first, 0, n * sizeof *job->dwpe);
    for (size_t i = 0; i < e->batch * e->length; i++) {
        const float *dx = job->dx + i * e->n + first;
        job->kernels->add(n, dx, job->dwte + e->tokens[i] * e->n + first);
        job->kernels->add(n, dx, job->dwpe + position_of(e, i) * e->n + first);
    }
}

void attn_embedding_backward(attn_context *context, const attn_embedding *e, const float *dx,
                             float *dwte, float *dwpe)
{
    embedding_job job = {.kernels = context->kernels, .e = e, .dx = dx, .dwte = dwte, .dwpe = dwpe};
    attn_parallel(context->threads, (e->n + EMBEDDING_COLUMNS - 1) / EMBEDDING_COLUMNS,
                  scatter_columns, &job);
    context->work.other += 2 * (uint64_t)e->batch * e->length * e->n;
}
