/* Dense products with few rows, as in decoding: weights are read once, each part of them by one
 * task, and meet all rows while they are near. Tasks and the order of sums are fixed by the sizes,
 * so the bits depend neither on threads nor on the number of rows. */
#include "base/threads.h"
#include "kernels/dense_bf16_internal.h"
#include "kernels/dense_internal.h"

#include <string.h>

enum { COLUMNS = 32, STRIPS = 2, CELLS = 32 }; /* of a task; of k at a time */

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- float32 ----------------------------------------------------------------------------- */

typedef struct single_job {
    const attn_kernels *kernels;
    size_t rows, in, out;
    const float *x, *w, *bias;
    float *y;
} single_job;

static void run_columns(void *argument, size_t index, size_t worker)
{
    (void)worker;
    const single_job *job = argument;
    const size_t first = index * COLUMNS, n = smaller(COLUMNS, job->out - first);
    const attn_far_rows w = {.single = job->w + first * job->in, .row = job->in};
    job->kernels->dot_rows(job->rows, n, job->in, job->x, job->in, w, job->y + first, job->out);
    for (size_t i = 0; job->bias && i < job->rows; i++)
        job->kernels->add(n, job->bias + first, job->y + i * job->out + first);
}

void attn_dense_few_forward(const attn_kernels *kernels, size_t threads, size_t rows, size_t in,
                            size_t out, const float *x, const float *w, const float *bias, float *y)
{
    single_job job = {kernels, rows, in, out, x, w, bias, y};
    attn_parallel(threads, (out + COLUMNS - 1) / COLUMNS, run_columns, &job);
}

/* ---- bfloat16 ---------------------------------------------------------------------------- */

typedef struct half_job {
    const attn_kernels *kernels;
    const attn_bf16_product *p;
} half_job;

/* x[m][cells from `cell` on], widened, zeros beyond k. */
static void widen(const half_job *job, size_t cell, size_t cells, float *x)
{
    const attn_bf16_product *p = job->p;
    const size_t first = cell * ATTN_STRIP, n = smaller(cells * ATTN_STRIP, p->k - first);
    for (size_t i = 0; i < p->m; i++) {
        float *row = x + i * CELLS * ATTN_STRIP;
        job->kernels->bf16_to_float(n, p->left + i * p->left_row + first, row);
        memset(row + n, 0, (cells * ATTN_STRIP - n) * sizeof *row);
    }
}

/* Strips lie behind each other and are read so. */
static void run_strips(void *argument, size_t index, size_t worker)
{
    (void)worker;
    const half_job *job = argument;
    const attn_bf16_product *p = job->p;
    const size_t all_cells = attn_strips(p->k), first = index * STRIPS;
    const size_t end = smaller(first + STRIPS, attn_strips(p->n));
    float x[ATTN_FEW_HALF_ROWS * CELLS * ATTN_STRIP], sums[ATTN_FEW_HALF_ROWS * ATTN_STRIP];
    for (size_t strip = first; strip < end; strip++) {
        for (size_t cell = 0; cell < all_cells; cell += CELLS) {
            const size_t cells = smaller(CELLS, all_cells - cell);
            if (strip == first || all_cells > CELLS) widen(job, cell, cells, x);
            job->kernels->bf16_strip(p->m, cells, x, CELLS * ATTN_STRIP,
                                     p->strips + (strip * all_cells + cell) * ATTN_CELL, sums,
                                     cell > 0);
        }
        const size_t j0 = strip * ATTN_STRIP, n = smaller(ATTN_STRIP, p->n - j0);
        for (size_t i = 0; i < p->m; i++)
            attn_bf16_put_row(job->kernels, p, i, j0, n, sums + i * ATTN_STRIP);
    }
}

void attn_bf16_few_run(const attn_kernels *kernels, size_t threads, const attn_bf16_product *p)
{
    half_job job = {kernels, p};
    attn_parallel(threads, (attn_strips(p->n) + STRIPS - 1) / STRIPS, run_strips, &job);
}
