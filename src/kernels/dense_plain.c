/* Dense products with our own tile kernel, in blocks that live in cache. A task owns a block of
 * c of fixed shape and runs through k in order, so the bits do not depend on threads.
 *
 *   for each block of k:   pack b's block [BLOCK_K][BLOCK_N] once, rows contiguous
 *                          c[rows][BLOCK_N] += a[rows][BLOCK_K] packed */
#include "base/threads.h"
#include "kernels/dense_internal.h"

#include <string.h>

enum { BLOCK_M = 192, BLOCK_N = 64, BLOCK_K = 256 };

typedef struct plain_job {
    const attn_kernels *kernels;
    const attn_matrix_product *p;
    size_t blocks_n;
} plain_job;

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void pack(const plain_job *job, size_t k0, size_t nk, size_t j0, size_t nj, float *packed)
{
    const attn_matrix_product *p = job->p;
    const float *b = p->b + k0 * p->b_row + j0 * p->b_column;
    if (p->b_column == 1)
        for (size_t i = 0; i < nk; i++)
            memcpy(packed + i * BLOCK_N, b + i * p->b_row, nj * sizeof *packed);
    else
        job->kernels->transpose(nj, nk, b, p->b_column, packed, BLOCK_N);
}

static void run_block(void *argument, size_t index, size_t worker)
{
    (void)worker;
    const plain_job *job = argument;
    const attn_matrix_product *p = job->p;
    const size_t i0 = index / job->blocks_n * BLOCK_M, j0 = index % job->blocks_n * BLOCK_N;
    const size_t ni = smaller(BLOCK_M, p->m - i0), nj = smaller(BLOCK_N, p->n - j0);
    float packed[BLOCK_K * BLOCK_N];
    for (size_t k0 = 0; k0 < p->k; k0 += BLOCK_K) {
        const size_t nk = smaller(BLOCK_K, p->k - k0);
        pack(job, k0, nk, j0, nj, packed);
        job->kernels->product(ni, nj, nk, p->a + i0 * p->a_row + k0 * p->a_column, p->a_row,
                              p->a_column, packed, BLOCK_N, p->c + i0 * p->c_row + j0, p->c_row,
                              p->accumulate || k0 > 0);
    }
}

void attn_dense_plain_run(const attn_kernels *kernels, size_t threads, const attn_matrix_product *p)
{
    plain_job job = {.kernels = kernels, .p = p, .blocks_n = (p->n + BLOCK_N - 1) / BLOCK_N};
    const size_t blocks_m = (p->m + BLOCK_M - 1) / BLOCK_M;
    attn_parallel(threads, blocks_m * job.blocks_n, run_block, &job);
}
