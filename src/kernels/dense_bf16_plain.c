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

static void pack_row_strip(void *argument, size_t strip, size_t worker)
{
    (void)worker;
    const attn_bf16_packing *p = argument;
    const size_t row_strips = attn_strips(p->rows), column_strips = attn_strips(p->columns);
    for (size_t cell = 0; cell < column_strips; cell++)
        for (size_t i = 0; i < ATTN_STRIP; i++)
            for (size_t j = 0; j < ATTN_STRIP; j++) {
                const size_t row = strip * ATTN_STRIP + i, column = cell * ATTN_STRIP + j;
                const bool is_inside = row < p->rows && column < p->columns;
                const attn_bf16 value =
                    attn_bf16_from_float(is_inside ? p->single[row * p->columns + column] : 0.0f);
                /* line / 16, pair of k, line % 16, half of the pair */
                if (p->along_columns)
                    p->along_columns[(strip * column_strips + cell) * ATTN_CELL + i / 16 * 512 +
                                     j / 2 * 32 + i % 16 * 2 + j % 2] = value;
                if (p->along_rows)
                    p->along_rows[(cell * row_strips + strip) * ATTN_CELL + j / 16 * 512 +
                                  i / 2 * 32 + j % 16 * 2 + i % 2] = value;
            }
}

void attn_bf16_plain_pack(size_t threads, const attn_bf16_packing *packing)
{
    attn_bf16_packing p = *packing;
    attn_parallel(threads, attn_strips(p.rows), pack_row_strip, &p);
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
    if (p->left_column == 1)
        for (size_t i = 0; i < ni; i++)
            job->kernels->bf16_to_float(nk, p->left + (i0 + i) * p->left_row + k0, a + i * BLOCK_K);
    else
        for (size_t q = 0; q < nk; q++)
            job->kernels->bf16_to_float(ni, p->left + i0 + (k0 + q) * p->left_column,
                                        a + q * BLOCK_M);
}

/* b[nk][BLOCK_N]; k0 is the first of a cell and j0 of a strip */
static void widen_right(const plain_job *job, size_t k0, size_t nk, size_t j0, size_t nj, float *b)
{
    const attn_bf16_product *p = job->p;
    if (!p->strips) {
        for (size_t q = 0; q < nk; q++)
            job->kernels->bf16_to_float(nj, p->right + (k0 + q) * p->n + j0, b + q * BLOCK_N);
        return;
    }
    const size_t cells = attn_strips(p->k);
    for (size_t j = 0; j < nj; j += 16) {
        const size_t strip = (j0 + j) / ATTN_STRIP, half = j / 16 % 2;
        for (size_t q = 0; q < nk; q += 2) {
            const attn_bf16 *pairs = p->strips +
                                     (strip * cells + (k0 + q) / ATTN_STRIP) * ATTN_CELL +
                                     half * 512 + q % ATTN_STRIP / 2 * 32;
            float *even = b + q * BLOCK_N + j, *odd = even + BLOCK_N;
            for (size_t c = 0; c < 16; c++) {
                even[c] = attn_bf16_to_float(pairs[2 * c]);
                odd[c] = attn_bf16_to_float(pairs[2 * c + 1]);
            }
        }
    }
}

static void put_row(const plain_job *job, size_t i, size_t j0, size_t nj, float *sums)
{
    const attn_bf16_product *p = job->p;
    const size_t at = i * p->n + j0;
    if (p->bias) job->kernels->add(nj, p->bias + j0, sums);
    if (p->out.half)
        job->kernels->bf16_from_float(nj, sums, p->out.half + at);
    else if (p->out.accumulate)
        job->kernels->add(nj, sums, p->out.single + at);
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
    const bool is_straight = p->left_column == 1;
    float a[BLOCK_M * BLOCK_K], b[BLOCK_K * BLOCK_N], c[BLOCK_M * BLOCK_N];
    for (size_t k0 = 0; k0 < p->k; k0 += BLOCK_K) {
        const size_t nk = smaller(BLOCK_K, p->k - k0);
        widen_left(job, i0, ni, k0, nk, a);
        widen_right(job, k0, nk, j0, nj, b);
        job->kernels->product(ni, nj, nk, a, is_straight ? BLOCK_K : 1, is_straight ? 1 : BLOCK_M,
                              b, BLOCK_N, c, BLOCK_N, k0 > 0);
    }
    for (size_t i = 0; i < ni; i++) put_row(job, i0 + i, j0, nj, c + i * BLOCK_N);
}

void attn_bf16_plain_run(const attn_kernels *kernels, size_t threads, const attn_bf16_product *p)
{
    plain_job job = {.kernels = kernels, .p = p, .blocks_n = (p->n + BLOCK_N - 1) / BLOCK_N};
    const size_t blocks_m = (p->m + BLOCK_M - 1) / BLOCK_M;
    attn_parallel(threads, blocks_m * job.blocks_n, run_block, &job);
}
