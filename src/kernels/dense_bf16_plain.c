/* Dense products in bfloat16 on the float32 tile kernel: blocks of both factors are widened, which
 * is exact, and multiplied in float32. A task owns a block of the result and runs through k in
 * order, so the bits do not depend on threads. (AVX-512's own bfloat16 product, vdpbf16ps, does
 * half the work of the float32 one per cycle.) */
#include "base/threads.h"
#include "kernels/dense_bf16_internal.h"

#include <string.h>

enum { BLOCK_M = 128, BLOCK_N = 2 * ATTN_STRIP, BLOCK_K = 128 };

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* ---- packing weights --------------------------------------------------------------------- */

/* Where a right factor's number (k, j) lies, in strips of so many cells. */
static size_t packed_at(size_t cells, size_t k, size_t j)
{
    return j / ATTN_STRIP * cells * ATTN_CELL + attn_cell_place(k, j % ATTN_STRIP);
}

typedef struct packing {
    size_t rows, columns;
    const float *w;
    attn_bf16 *strips;
} packing;

static void pack_row_strip(void *argument, size_t strip, size_t worker)
{
    (void)worker;
    const packing *p = argument;
    const size_t cells = attn_strips(p->columns);
    for (size_t row = strip * ATTN_STRIP; row < (strip + 1) * ATTN_STRIP; row++)
        for (size_t column = 0; column < cells * ATTN_STRIP; column++) {
            const bool is_inside = row < p->rows && column < p->columns;
            p->strips[packed_at(cells, column, row)] =
                attn_bf16_from_float(is_inside ? p->w[row * p->columns + column] : 0.0f);
        }
}

void attn_bf16_plain_pack(size_t threads, size_t rows, size_t columns, const float *w,
                          attn_bf16 *strips)
{
    packing p = {.rows = rows, .columns = columns, .w = w, .strips = strips};
    attn_parallel(threads, attn_strips(rows), pack_row_strip, &p);
}

/* ---- products ---------------------------------------------------------------------------- */

typedef struct plain_job {
    const attn_kernels *kernels;
    const attn_bf16_product *p;
    size_t blocks_n;
} plain_job;

/* The float32 tile kernel takes a transpose, so each block keeps the order of its memory. */
static void widen_left(const plain_job *job, size_t i0, size_t ni, size_t k0, size_t nk, float *a)
{
    const attn_bf16_product *p = job->p;
    if (!p->left_is_transposed)
        for (size_t i = 0; i < ni; i++)
            job->kernels->bf16_to_float(nk, p->left + (i0 + i) * p->left_row + k0, a + i * BLOCK_K);
    else
        for (size_t q = 0; q < nk; q++)
            job->kernels->bf16_to_float(ni, p->left + i0 + (k0 + q) * p->left_row, a + q * BLOCK_M);
}

/* b[nk][BLOCK_N]; k0 is the first of a cell and j0 of a strip */
static void widen_right(const plain_job *job, size_t k0, size_t nk, size_t j0, size_t nj, float *b)
{
    const attn_bf16_product *p = job->p;
    if (p->right) {
        for (size_t q = 0; q < nk; q++)
            job->kernels->bf16_to_float(nj, p->right + (k0 + q) * p->n + j0, b + q * BLOCK_N);
        return;
    }
    if (p->crossed) {
        const size_t cells = attn_strips(p->n);
        for (size_t q = 0; q < nk; q++)
            for (size_t j = 0; j < nj; j++)
                b[q * BLOCK_N + j] =
                    attn_bf16_to_float(p->crossed[packed_at(cells, j0 + j, k0 + q)]);
        return;
    }
    const size_t cells = attn_strips(p->k);
    for (size_t j = 0; j < nj; j += 16)
        for (size_t q = 0; q < nk; q += 2) {
            const attn_bf16 *pairs = p->strips + packed_at(cells, k0 + q, j0 + j);
            float *even = b + q * BLOCK_N + j, *odd = even + BLOCK_N;
            for (size_t c = 0; c < 16; c++) {
                even[c] = attn_bf16_to_float(pairs[2 * c]);
                odd[c] = attn_bf16_to_float(pairs[2 * c + 1]);
            }
        }
}

void attn_bf16_put_row(const attn_kernels *kernels, const attn_bf16_product *p, size_t i, size_t j0,
                       size_t nj, float *sums)
{
    const size_t at = i * p->out.row + j0;
    if (p->bias) kernels->add(nj, p->bias + j0, sums);
    if (p->out.half)
        kernels->bf16_from_float(nj, sums, p->out.half + at);
    else if (p->out.accumulate)
        kernels->add(nj, sums, p->out.single + at);
    else
        memcpy(p->out.single + at, sums, nj * sizeof *sums);
}

static void run_block(void *argument, size_t index, size_t worker)
{
    (void)worker;
    const plain_job *job = argument;
    const attn_bf16_product *p = job->p;
    const size_t i0 = index / job->blocks_n * BLOCK_M, j0 = index % job->blocks_n * BLOCK_N;
    const size_t ni = smaller(BLOCK_M, p->m - i0), nj = smaller(BLOCK_N, p->n - j0);
    const bool is_straight = !p->left_is_transposed;
    float a[BLOCK_M * BLOCK_K], b[BLOCK_K * BLOCK_N], c[BLOCK_M * BLOCK_N];
    for (size_t k0 = 0; k0 < p->k; k0 += BLOCK_K) {
        const size_t nk = smaller(BLOCK_K, p->k - k0);
        widen_left(job, i0, ni, k0, nk, a);
        widen_right(job, k0, nk, j0, nj, b);
        job->kernels->product(ni, nj, nk, a, is_straight ? BLOCK_K : 1, is_straight ? 1 : BLOCK_M,
                              b, BLOCK_N, c, BLOCK_N, k0 > 0);
    }
    for (size_t i = 0; i < ni; i++)
        attn_bf16_put_row(job->kernels, p, i0 + i, j0, nj, c + i * BLOCK_N);
}

enum { SUM_COLUMNS = 128 };

/* Sums of the rows of a left factor that lies transposed; each task's own. */
static void sum_left(void *argument, size_t index, size_t worker)
{
    (void)worker;
    const plain_job *job = argument;
    const attn_bf16_product *p = job->p;
    const size_t first = index * SUM_COLUMNS, n = smaller(SUM_COLUMNS, p->m - first);
    float row[SUM_COLUMNS], *sums = p->left_sums + first;
    if (!p->out.accumulate) memset(sums, 0, n * sizeof *sums);
    for (size_t q = 0; q < p->k; q++) {
        job->kernels->bf16_to_float(n, p->left + first + q * p->left_row, row);
        job->kernels->add(n, row, sums);
    }
}

void attn_bf16_plain_run(const attn_kernels *kernels, size_t threads, const attn_bf16_product *p)
{
    plain_job job = {.kernels = kernels, .p = p, .blocks_n = (p->n + BLOCK_N - 1) / BLOCK_N};
    const size_t blocks_m = (p->m + BLOCK_M - 1) / BLOCK_M;
    attn_parallel(threads, blocks_m * job.blocks_n, run_block, &job);
    if (p->left_sums)
        attn_parallel(threads, (p->m + SUM_COLUMNS - 1) / SUM_COLUMNS, sum_left, &job);
}
