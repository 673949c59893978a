/* Dense products in bfloat16 on AMX tiles: how they are cut into tasks and passes.
 *
 * A task owns rows and columns of the result. Its part of the right factor, packed, stays in the L2
 * cache, the current strip of the left factor in L1. That one is read as it lies, or from a copy
 * where it lies transposed or needs padding. Columns go through k forth and back in turns: what is
 * left of the strip in L1 comes first. Between passes of k, sums stay with the task. */
#include "kernels/dense_bf16_amx.h"

#include "base/threads.h"
#include "kernels/bf16_square_amx.h"
#include "kernels/dense_bf16_internal.h"
#include "kernels/tiles_amx.h"

#include <stdint.h>
#include <string.h>

enum {
    HALF_CELL = ATTN_CELL / 2,
    COPIED_STRIPS = 4,   /* of a transposed left factor together: 256 bytes of a row */
    FAR_BYTES = 1 << 20, /* of a result: more than is read again from the near caches */
};

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t quotient_up(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

/* ---- a task ------------------------------------------------------------------------------ */

/* A product, cut into tasks; where a worker's memory is divided, in bytes. */
typedef struct amx_job {
    const attn_bf16_product *p;
    size_t cells, pass_cells;        /* of all of k; of a pass at most, later ones add */
    size_t block_rows, block_strips; /* of a task */
    size_t column_blocks;
    attn_bf16_kind kind;
    unsigned char *workers;
    size_t copies, right, worker_bytes; /* sums between passes come first */
} amx_job;

typedef struct amx_task {
    const amx_job *job;
    size_t first_row, last_row, first, last; /* rows; strips of columns */
    size_t cell, n_cells;                    /* of the pass */
    float *sums;                             /* between passes: [strips of rows][of columns] */
    attn_bf16 *copies, *right;
} amx_task;

/* A strip of a factor as tiles read it: distances in numbers. */
typedef struct left_strip {
    const attn_bf16 *cells;
    size_t row, half, cell;
} left_strip;

static size_t strip_numbers(const amx_task *t)
{
    return t->n_cells * ATTN_CELL;
}

/* The pass's part of the right factor: its strips, `numbers` apart. */
static const attn_bf16 *find_right(const amx_task *t, size_t *numbers)
{
    const attn_bf16_product *p = t->job->p;
    *numbers = p->strips ? t->job->cells * ATTN_CELL : strip_numbers(t);
    if (p->strips) return p->strips + t->first * *numbers + t->cell * ATTN_CELL;
    for (size_t k = t->cell; k < t->cell + t->n_cells; k++)
        for (size_t j = t->first; j < t->last; j++) {
            attn_bf16 *to = t->right + ((j - t->first) * t->n_cells + k - t->cell) * ATTN_CELL;
            if (p->crossed)
                attn_bf16_amx_turn(p->crossed + (k * attn_strips(p->n) + j) * ATTN_CELL, to);
            else
                attn_bf16_amx_pack_right(p->right + (k * p->n + j) * ATTN_STRIP, p->n,
                                         p->k - k * ATTN_STRIP, p->n - j * ATTN_STRIP, to);
        }
    return t->right;
}

/* Transposed strips from row i0 on are copied together, since they lie side by side. */
static void copy_strips(const amx_task *t, size_t i0)
{
    const attn_bf16_product *p = t->job->p;
    const size_t last = smaller(i0 + COPIED_STRIPS * ATTN_STRIP, t->last_row);
    for (size_t k = 0; k < t->n_cells; k++)
        for (size_t i = i0; i < last; i += ATTN_STRIP) {
            const size_t from_k = (t->cell + k) * ATTN_STRIP;
            const attn_bf16 *from = p->left + from_k * p->left_row + i;
            const size_t rows = p->k - from_k, columns = p->m - i;
            attn_bf16_amx_pack_left(from, p->left_row, rows, columns,
                                    t->copies + (i - i0) / ATTN_STRIP * strip_numbers(t) +
                                        k * ATTN_CELL);
            if (p->left_sums && t->first == 0) /* one task's of the row's tasks */
                attn_bf16_amx_add_rows(from, p->left_row, rows, columns, p->left_sums + i);
        }
}

/* A strip that is not full, with zeros. */
static void copy_padded(const amx_task *t, size_t i0)
{
    const attn_bf16_product *p = t->job->p;
    for (size_t k = 0; k < t->n_cells; k++)
        for (size_t i = 0; i < ATTN_STRIP; i++) {
            const size_t column = (t->cell + k) * ATTN_STRIP;
            const __mmask32 inside = i0 + i < p->m ? first_32(p->k - column) : 0;
            _mm512_store_si512(
                t->copies + k * ATTN_CELL + i * ATTN_STRIP,
                _mm512_maskz_loadu_epi16(inside, p->left + (i0 + i) * p->left_row + column));
        }
}

static bool lies_whole(const amx_task *t, size_t i0)
{
    const attn_bf16_product *p = t->job->p;
    return !p->left_is_transposed && i0 + ATTN_STRIP <= p->m &&
           (t->cell + t->n_cells) * ATTN_STRIP <= p->k;
}

static left_strip find_left(const amx_task *t, size_t i0)
{
    const attn_bf16_product *p = t->job->p;
    if (lies_whole(t, i0))
        return (left_strip){p->left + i0 * p->left_row + t->cell * ATTN_STRIP, p->left_row,
                            16 * p->left_row, ATTN_STRIP};
    const size_t strip =
        p->left_is_transposed ? (i0 - t->first_row) / ATTN_STRIP % COPIED_STRIPS : 0;
    if (!p->left_is_transposed)
        copy_padded(t, i0);
    else if (strip == 0)
        copy_strips(t, i0);
    return (left_strip){t->copies + strip * strip_numbers(t), ATTN_STRIP, HALF_CELL, ATTN_CELL};
}

/* Some rows of the next strip, those that block j of `blocks` asks for. */
static void ask_strip(const amx_task *t, size_t i0, size_t j, size_t blocks, attn_bf16_block *b)
{
    const attn_bf16_product *p = t->job->p;
    if (i0 >= t->last_row || !lies_whole(t, i0)) return;
    const size_t first = ATTN_STRIP * j / blocks;
    b->ahead = p->left + (i0 + first) * p->left_row + t->cell * ATTN_STRIP;
    b->ahead_cell = ATTN_STRIP;
    b->ahead_row = p->left_row;
    b->ahead_rows = ATTN_STRIP * (j + 1) / blocks - first;
}

static attn_bf16_block find_block(const left_strip *left, const attn_bf16 *right, size_t n_cells)
{
    return (attn_bf16_block){.left = left->cells,
                             .right = right,
                             .ahead = left->cells,
                             .left_cell = (ptrdiff_t)left->cell,
                             .right_cell = ATTN_CELL,
                             .left_row = left->row,
                             .left_half = left->half,
                             .n_cells = n_cells};
}

/* From the last cell of k to the first. */
static void turn_back(attn_bf16_block *b)
{
    const ptrdiff_t last = (ptrdiff_t)b->n_cells - 1;
    b->left += last * b->left_cell;
    b->right += last * b->right_cell;
    b->ahead += last * b->ahead_cell;
    b->left_cell = -b->left_cell;
    b->right_cell = -b->right_cell;
    b->ahead_cell = -b->ahead_cell;
}

static attn_bf16_held find_result(const amx_job *job, size_t i0, size_t j0, float *sums)
{
    const attn_bf16_product *p = job->p;
    const size_t at = i0 * p->out.row + j0;
    return (attn_bf16_held){.sums = sums,
                            .rows = smaller(ATTN_STRIP, p->m - i0),
                            .columns = smaller(ATTN_STRIP, p->n - j0),
                            .row_length = p->out.row,
                            .bias = p->bias ? p->bias + j0 : NULL,
                            .single = p->out.single ? p->out.single + at : NULL,
                            .half = p->out.half ? p->out.half + at : NULL};
}

/* Of a block, between passes. */
static float *sums_between(const amx_task *t, size_t i0, size_t j)
{
    return t->sums + ((i0 - t->first_row) / ATTN_STRIP * (t->last - t->first) + j) * ATTN_CELL;
}

static void run_pass(const amx_task *t)
{
    const amx_job *job = t->job;
    const bool is_first = t->cell == 0, is_last = t->cell + t->n_cells == job->cells;
    const size_t strips = t->last - t->first;
    _Alignas(64) float last_sums[ATTN_CELL];
    attn_bf16_held held = {.sums = last_sums};
    size_t right_numbers;
    const attn_bf16 *right = find_right(t, &right_numbers);
    configure_tiles();
    for (size_t i0 = t->first_row; i0 < t->last_row; i0 += ATTN_STRIP) {
        const left_strip left = find_left(t, i0);
        for (size_t j = 0; j < strips; j++) {
            attn_bf16_block b = find_block(&left, right + j * right_numbers, t->n_cells);
            if (!is_first) b.before = sums_between(t, i0, j);
            ask_strip(t, i0 + ATTN_STRIP, j, strips, &b);
            if ((t->first + j) % 2 == 1) turn_back(&b);
            attn_bf16_amx_multiply(&b, &held, job->kind);
            held = is_last ? find_result(job, i0, (t->first + j) * ATTN_STRIP, last_sums)
                           : (attn_bf16_held){.sums = sums_between(t, i0, j)};
        }
    }
    attn_bf16_amx_drain(&held, job->kind);
    _tile_release();
    if (job->kind == ATTN_BF16_FAR_SINGLES) attn_end_stores();
}

static void run_task(void *argument, size_t index, size_t worker)
{
    const amx_job *job = argument;
    unsigned char *memory = job->workers + worker * job->worker_bytes;
    amx_task t = {.job = job,
                  .first_row = index / job->column_blocks * job->block_rows,
                  .first = index % job->column_blocks * job->block_strips,
                  .sums = (void *)memory,
                  .copies = (void *)(memory + job->copies),
                  .right = (void *)(memory + job->right)};
    t.last_row = smaller(t.first_row + job->block_rows, job->p->m);
    t.last = smaller(t.first + job->block_strips, attn_strips(job->p->n));
    for (; t.cell < job->cells; t.cell += t.n_cells) {
        t.n_cells = smaller(job->pass_cells, job->cells - t.cell);
        run_pass(&t);
    }
}

/* ---- shapes ------------------------------------------------------------------------------ */

/* Cells of k in a pass, bytes of a task's right factor in it, and rows of a task: at most. L1 holds a
 * left strip of 24 cells, and L2, of 2 MiB, the right factor beside what passes through it. A left
 * strip that is copied is dearer, and so is a right factor that is packed for it: passes are longer
 * and tasks have more rows. */
typedef struct task_size {
    size_t cells, right_bytes, rows;
} task_size;

static const task_size as_it_lies = {24, 800 << 10, 1024}, transposed = {32, 1024 << 10, 4096};

static const task_size *largest_task(const attn_bf16_product *p)
{
    return p->left_is_transposed ? &transposed : &as_it_lies;
}

static attn_bf16_kind find_kind(const attn_bf16_product *p)
{
    if (p->out.half) return ATTN_BF16_HALVES;
    if (p->out.accumulate) return ATTN_BF16_SUMS_OF_SINGLES;
    const bool is_far = p->out.is_far && (uintptr_t)p->out.single % 64 == 0 &&
                        p->out.row % 16 == 0 && p->m * p->n * sizeof(float) >= FAR_BYTES;
    return is_far ? ATTN_BF16_FAR_SINGLES : ATTN_BF16_SINGLES;
}

/* Tasks as large as the caches allow, their number a multiple of the threads: more blocks of rows
 * read the right factor again, more of columns the left one. No element's sum depends on it. */
static void cut(amx_job *job, size_t threads)
{
    const size_t m = job->p->m, n = job->p->n;
    const task_size *most = largest_task(job->p);
    const size_t row_strips = attn_strips(m), strips = attn_strips(n);
    size_t row_blocks = quotient_up(m, most->rows), more_rows = row_blocks;
    const size_t strip_bytes = job->pass_cells * ATTN_CELL * sizeof(attn_bf16);
    size_t column_blocks = quotient_up(strips, most->right_bytes / strip_bytes);
    size_t more_columns = column_blocks;
    while (more_rows * column_blocks % threads) more_rows++;
    while (row_blocks * more_columns % threads) more_columns++;
    if (more_columns > strips || (more_rows <= row_strips && more_rows * n + column_blocks * m <
                                                                 row_blocks * n + more_columns * m))
        row_blocks = smaller(more_rows, row_strips);
    else
        column_blocks = more_columns;
    job->block_strips = quotient_up(strips, column_blocks);
    job->column_blocks = quotient_up(strips, job->block_strips);
    job->block_rows = quotient_up(row_strips, row_blocks) * ATTN_STRIP;
}

/* The sizes cannot overflow: padding adds less than what the matrices hold in memory, 32 times. */
static amx_job plan_job(size_t threads, const attn_bf16_product *p)
{
    amx_job job = {.p = p, .cells = attn_strips(p->k), .kind = find_kind(p)};
    const size_t passes = quotient_up(job.cells, largest_task(p)->cells);
    job.pass_cells = quotient_up(job.cells, passes);
    cut(&job, threads);
    const size_t strip_bytes = job.pass_cells * ATTN_CELL * sizeof(attn_bf16);
    const size_t copied = p->left_is_transposed                    ? COPIED_STRIPS
                          : p->m % ATTN_STRIP || p->k % ATTN_STRIP ? 1
                                                                   : 0;
    if (passes > 1) job.copies = job.block_rows * job.block_strips * ATTN_STRIP * sizeof(float);
    job.right = job.copies + copied * strip_bytes;
    job.worker_bytes = job.right + (p->strips ? 0 : job.block_strips * strip_bytes);
    return job;
}

size_t attn_bf16_amx_scratch(size_t threads, const attn_bf16_product *p)
{
    return threads * plan_job(threads, p).worker_bytes;
}

void attn_bf16_amx_run(size_t threads, const attn_bf16_product *p, void *scratch)
{
    amx_job job = plan_job(threads, p);
    job.workers = scratch;
    if (p->left_sums && !p->out.accumulate) memset(p->left_sums, 0, p->m * sizeof *p->left_sums);
    attn_parallel(threads, quotient_up(p->m, job.block_rows) * job.column_blocks, run_task, &job);
}
