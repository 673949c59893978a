/* Dense products in bfloat16 on AMX tiles.
 *
 * Four tiles hold 32 x 32 sums; two tiles of each factor feed them. A task owns rows and columns
 * of the result. Its part of the right factor, packed, stays in the L2 cache, from where it is read
 * with the hint that leaves the L1 cache to the current strip of the left factor. That one is read
 * as it lies, or from a copy where it lies transposed or needs padding.
 *
 * What is not a product happens between the instructions of the next product, since tiles work for
 * 64 cycles on what one step issues: the sums of the block before are rounded and stored, and the
 * next strip of the left factor is fetched into L2 or copied. docs/SPEED.md has what each brings. */
#include "base/threads.h"
#include "kernels/dense_bf16_internal.h"
#include "kernels/tiles_amx.h"

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

enum {
    HALF_CELL = ATTN_CELL / 2,
    TASK_ROWS = 1024,    /* at most */
    STORE_ROWS = 2,      /* rows of the block before that one step stores */
    FAR_BYTES = 1 << 20, /* of a result: more than is read again from the near caches */
};

/* Cells of k in one pass, later ones add; bytes of a task's right factor: at most. A left strip of
 * 48 KiB is what L1 holds, and L2 holds 2 MiB. A left strip that is copied is dearer: the task is
 * wider, and the pass longer, which saves passes over a result that lies in memory. */
typedef struct pass_size {
    size_t cells, right_bytes;
} pass_size;

static const pass_size as_it_lies = {24, 800 * 1024}, transposed = {32, 1536 * 1024};
enum { PASS_CELLS = 32 }; /* at most */

/* A block of sums that the tiles are done with, and where it goes. */
typedef struct pending_block {
    const float *sums;         /* [32][32] */
    size_t row, rows, columns; /* the next row to store; those inside the matrix */
    size_t row_length;         /* of the matrices below */
    const float *bias;         /* NULL: none */
    const float *addend;       /* NULL: 0 */
    float *single;             /* one of the two */
    attn_bf16 *half;
    bool is_far; /* `single` goes to memory past the caches */
} pending_block;

/* A strip of the left factor as tiles read it: distances in numbers. */
typedef struct left_strip {
    const attn_bf16 *cells;
    size_t row, half, cell;
} left_strip;

/* The next left strip on its way into L2, or into a copy. Its lines, of 32 numbers, run along the
 * rows of the matrix; a transposed strip is copied cell by cell, 32 lines at once. */
typedef struct pending_strip {
    const attn_bf16 *from;
    size_t row_length, rows, columns; /* rows and columns inside the matrix */
    size_t n_cells;
    size_t row, cell; /* the next line */
    size_t lines_per_step, lines_due;
    attn_bf16 *copy; /* NULL: none is needed */
    bool is_transposed;
    float *sums; /* of the rows of a transposed strip, or NULL */
} pending_strip;

/* One pass: n_cells of k, over the whole result. */
typedef struct amx_pass {
    const attn_bf16_product *p;
    const attn_bf16 *right;          /* packed; NULL: crossed */
    size_t cells, cell, n_cells;     /* of all of k; the first of this pass, and how many */
    size_t block_rows, block_strips; /* of a task */
    size_t column_blocks;
    attn_bf16 *copies; /* two strips for each worker, where copies are needed */
    attn_bf16 *turned; /* a task's part of a crossed right factor, for each worker */
    size_t turned_size;
    const float *bias, *addend;
    float *single;
    attn_bf16 *half;
    bool is_far;
} amx_pass;

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t quotient_up(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

/* ---- what happens beside the products ---------------------------------------------------- */

static inline __mmask16 first_16(size_t n)
{
    return (__mmask16)(n < 16 ? (1u << n) - 1u : 0xffffu);
}

static inline void store_row(const pending_block *b)
{
    const __mmask16 low = first_16(b->columns);
    const __mmask16 high = first_16(b->columns > 16 ? b->columns - 16 : 0);
    const size_t at = b->row * b->row_length;
    __m512 u = _mm512_load_ps(b->sums + b->row * ATTN_STRIP);
    __m512 v = _mm512_load_ps(b->sums + b->row * ATTN_STRIP + 16);
    if (b->bias) {
        u = _mm512_add_ps(u, _mm512_maskz_loadu_ps(low, b->bias));
        v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(high, b->bias + 16));
    }
    if (b->addend) {
        u = _mm512_add_ps(u, _mm512_maskz_loadu_ps(low, b->addend + at));
        v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(high, b->addend + at + 16));
    }
    if (b->half) {
        const __mmask32 both = (__mmask32)high << 16 | low;
        _mm512_mask_storeu_epi16(b->half + at, both, (__m512i)_mm512_cvtne2ps_pbh(v, u));
    } else if (b->is_far) {
        _mm512_stream_ps(b->single + at, u);
        _mm512_stream_ps(b->single + at + 16, v);
    } else {
        _mm512_mask_storeu_ps(b->single + at, low, u);
        _mm512_mask_storeu_ps(b->single + at + 16, high, v);
    }
}

static inline void store_rows(pending_block *b, size_t count)
{
    for (size_t i = 0; i < count && b->row < b->rows; i++, b->row++) store_row(b);
}

static inline void copy_line(const pending_strip *s, const attn_bf16 *from)
{
    const size_t left = s->columns - s->cell * ATTN_STRIP;
    const __mmask32 inside = left < ATTN_STRIP ? (1u << left) - 1u : ~0u;
    _mm512_store_si512(s->copy + s->cell * ATTN_CELL + s->row * ATTN_STRIP,
                       _mm512_maskz_loadu_epi16(s->row < s->rows ? inside : 0, from));
}

/* The cell after the next is fetched while there is one. */
static void copy_transposed_cell(pending_strip *s)
{
    const size_t k = s->cell * ATTN_STRIP, rows = s->rows - k;
    const attn_bf16 *from = s->from + k * s->row_length;
    attn_bf16_amx_pack_left(from, s->row_length, rows, s->columns, s->copy + s->cell * ATTN_CELL,
                            s->sums);
    for (size_t i = ATTN_STRIP; i < 2 * ATTN_STRIP && i < rows; i++)
        _mm_prefetch((const char *)(from + i * s->row_length), _MM_HINT_T1);
    if (++s->cell == s->n_cells) s->row = ATTN_STRIP;
}

static inline void advance_strip(pending_strip *s)
{
    if (s->row == ATTN_STRIP) return;
    s->lines_due += s->lines_per_step;
    if (s->is_transposed) {
        if (s->lines_due < ATTN_STRIP) return;
        s->lines_due -= ATTN_STRIP;
        copy_transposed_cell(s);
        return;
    }
    for (; s->lines_due && s->row < ATTN_STRIP; s->lines_due--) {
        const attn_bf16 *from = s->from + s->row * s->row_length + s->cell * ATTN_STRIP;
        if (s->copy)
            copy_line(s, from);
        else
            _mm_prefetch((const char *)from, _MM_HINT_T1);
        if (++s->cell == s->n_cells) s->cell = 0, s->row++;
    }
}

static void finish_strip(pending_strip *s)
{
    while (s->copy && s->row < ATTN_STRIP) advance_strip(s);
}

/* ---- products ---------------------------------------------------------------------------- */

/* sums[32][32] = left right over n_cells; `before` is stored and `next` advanced on the way. */
static void multiply_block(size_t n_cells, const left_strip *strip, const attn_bf16 *right,
                           float *sums, pending_block *before, pending_strip *next)
{
    const size_t left_row = strip->row * sizeof(attn_bf16), sums_row = ATTN_STRIP * sizeof *sums;
    const attn_bf16 *left = strip->cells;
    settle_memory();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (size_t k = 0; k < n_cells; k++, left += strip->cell, right += ATTN_CELL) {
        _tile_stream_loadd(6, right, 64);
        _tile_loadd(4, left, left_row);
        _tile_loadd(5, left + strip->half, left_row);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(2, 5, 6);
        _tile_stream_loadd(7, right + HALF_CELL, 64);
        store_rows(before, STORE_ROWS);
        advance_strip(next);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
    }
    store_rows(before, ATTN_STRIP);
    _tile_stored(0, sums, sums_row);
    _tile_stored(1, sums + 16, sums_row);
    _tile_stored(2, sums + 16 * ATTN_STRIP, sums_row);
    _tile_stored(3, sums + 16 * ATTN_STRIP + 16, sums_row);
    settle_memory();
}

static pending_block block_at(const amx_pass *pass, size_t i0, size_t j0, const float *sums)
{
    const size_t row = pass->p->out.row, at = i0 * row + j0;
    const size_t columns = smaller(ATTN_STRIP, pass->p->n - j0);
    return (pending_block){.sums = sums,
                           .rows = smaller(ATTN_STRIP, pass->p->m - i0),
                           .columns = columns,
                           .row_length = row,
                           .bias = pass->bias ? pass->bias + j0 : NULL,
                           .addend = pass->addend ? pass->addend + at : NULL,
                           .single = pass->single ? pass->single + at : NULL,
                           .half = pass->half ? pass->half + at : NULL,
                           .is_far = pass->is_far && columns == ATTN_STRIP};
}

/* The left strip of rows from i0 on, to be read once `next` is through, which takes no longer
 * than `blocks` blocks. */
static left_strip strip_at(const amx_pass *pass, size_t i0, size_t blocks, attn_bf16 *copy,
                           float *sums, pending_strip *next)
{
    const attn_bf16_product *p = pass->p;
    const size_t k0 = pass->cell * ATTN_STRIP;
    *next = (pending_strip){.row_length = p->left_row,
                            .n_cells = pass->n_cells,
                            .lines_per_step = quotient_up(ATTN_STRIP, blocks)};
    if (p->left_is_transposed) {
        next->from = p->left + i0 + k0 * p->left_row;
        next->rows = p->k - k0;
        next->columns = smaller(ATTN_STRIP, p->m - i0);
        next->is_transposed = true;
        next->copy = copy;
        next->sums = sums ? sums + i0 : NULL;
    } else {
        next->from = p->left + i0 * p->left_row + k0;
        next->rows = smaller(ATTN_STRIP, p->m - i0);
        next->columns = smaller(pass->n_cells * ATTN_STRIP, p->k - k0);
        if (next->rows == ATTN_STRIP && next->columns == pass->n_cells * ATTN_STRIP)
            return (left_strip){next->from, p->left_row, 16 * p->left_row, ATTN_STRIP};
        next->copy = copy;
    }
    return (left_strip){copy, ATTN_STRIP, HALF_CELL, ATTN_CELL};
}

/* A task's part of a crossed right factor: strips of n, one after the other, in `to`. */
static void turn_cells(const amx_pass *pass, size_t first, size_t last, attn_bf16 *to)
{
    const size_t row = attn_strips(pass->p->n) * ATTN_CELL;
    for (size_t k = 0; k < pass->n_cells; k++) {
        const attn_bf16 *from = pass->p->crossed + (pass->cell + k) * row;
        for (size_t j = first; j < last; j++)
            attn_bf16_amx_turn(from + j * ATTN_CELL,
                               to + ((j - first) * pass->n_cells + k) * ATTN_CELL);
    }
}

static void run_task(void *argument, size_t index, size_t worker)
{
    const amx_pass *pass = argument;
    const size_t first_row = index / pass->column_blocks * pass->block_rows;
    const size_t last_row = smaller(first_row + pass->block_rows, pass->p->m);
    const size_t first = index % pass->column_blocks * pass->block_strips;
    const size_t last = smaller(first + pass->block_strips, attn_strips(pass->p->n));
    const size_t copy_size = PASS_CELLS * ATTN_CELL;
    attn_bf16 *copies = pass->copies ? pass->copies + 2 * worker * copy_size : NULL;
    float *left_sums = first == 0 ? pass->p->left_sums : NULL; /* one task's of the row's tasks */
    const attn_bf16 *rights; /* the task's part of the right factor, strips `right_strip` apart */
    size_t right_strip = pass->cells * ATTN_CELL;
    if (pass->right) {
        rights = pass->right + first * right_strip + pass->cell * ATTN_CELL;
    } else {
        attn_bf16 *turned = pass->turned + worker * pass->turned_size;
        turn_cells(pass, first, last, turned);
        rights = turned;
        right_strip = pass->n_cells * ATTN_CELL;
    }

    _Alignas(64) float sums[2][ATTN_STRIP * ATTN_STRIP];
    pending_block before = {.rows = 0};
    pending_strip next;
    left_strip left = strip_at(pass, first_row, last - first, copies, left_sums, &next);
    size_t n_blocks = 0, n_strips = 0;
    configure_tiles();
    for (size_t i0 = first_row; i0 < last_row; i0 += ATTN_STRIP) {
        finish_strip(&next);
        const left_strip here = left;
        next = (pending_strip){.row = ATTN_STRIP}; /* nothing */
        if (i0 + ATTN_STRIP < last_row)
            left = strip_at(pass, i0 + ATTN_STRIP, last - first,
                            copies ? copies + ++n_strips % 2 * copy_size : NULL, left_sums, &next);
        for (size_t j = first; j < last; j++, n_blocks++) {
            const attn_bf16 *right = rights + (j - first) * right_strip;
            float *to = sums[n_blocks % 2];
            multiply_block(pass->n_cells, &here, right, to, &before, &next);
            before = block_at(pass, i0, j * ATTN_STRIP, to);
        }
    }
    _tile_release();
    store_rows(&before, ATTN_STRIP);
    if (pass->is_far) _mm_sfence(); /* whoever comes next sees it */
}

/* ---- shapes ------------------------------------------------------------------------------ */

static pass_size limits_of(const attn_bf16_product *p)
{
    return p->left_is_transposed ? transposed : as_it_lies;
}

static size_t pass_cells(const attn_bf16_product *p)
{
    const size_t cells = attn_strips(p->k);
    return quotient_up(cells, quotient_up(cells, limits_of(p).cells));
}

static bool is_far(const attn_bf16_product *p)
{
    return p->out.is_far && p->out.single && (uintptr_t)p->out.single % 64 == 0 &&
           p->out.row % 16 == 0 && p->m * p->n * sizeof(float) >= FAR_BYTES;
}

/* Tasks as large as the caches allow, their number a multiple of the threads: more blocks of rows
 * read the right factor again, more of columns the left one. No element's sum depends on it. */
static void cut(amx_pass *pass, size_t threads)
{
    const size_t m = pass->p->m, n = pass->p->n;
    const size_t row_strips = attn_strips(m), strips = attn_strips(n);
    size_t row_blocks = quotient_up(m, TASK_ROWS), more_rows = row_blocks;
    const size_t strip_bytes = pass->n_cells * ATTN_CELL * sizeof(attn_bf16);
    size_t column_blocks = quotient_up(strips, limits_of(pass->p).right_bytes / strip_bytes);
    size_t more_columns = column_blocks;
    while (more_rows * column_blocks % threads) more_rows++;
    while (row_blocks * more_columns % threads) more_columns++;
    if (more_columns > strips || (more_rows <= row_strips && more_rows * n + column_blocks * m <
                                                                 row_blocks * n + more_columns * m))
        row_blocks = smaller(more_rows, row_strips);
    else
        column_blocks = more_columns;
    pass->block_strips = quotient_up(strips, column_blocks);
    pass->column_blocks = quotient_up(strips, pass->block_strips);
    pass->block_rows = quotient_up(row_strips, row_blocks) * ATTN_STRIP;
}

/* Scratch memory: the right factor packed, sums between passes, copies of left strips, and of
 * tasks' right factors. */
typedef struct scratch_plan {
    size_t sums, copies, turned, total; /* where these begin, and the end; in bytes */
    size_t turned_bytes;                /* of a worker */
    bool has_sums, has_copies;
} scratch_plan;

/* The sizes cannot overflow: padding adds less than what the matrices hold in memory, 32 times. */
static scratch_plan plan_scratch(size_t threads, const attn_bf16_product *p)
{
    const size_t strip_bytes = attn_strips(p->k) * ATTN_CELL * sizeof(attn_bf16);
    scratch_plan plan = {.has_sums = p->out.half && pass_cells(p) < attn_strips(p->k)};
    plan.has_copies = p->left_is_transposed || p->m % ATTN_STRIP || p->k % ATTN_STRIP;
    plan.sums = p->right ? attn_strips(p->n) * strip_bytes : 0;
    plan.copies = plan.sums + (plan.has_sums ? quotient_up(p->m * p->out.row, 16) * 64 : 0);
    const size_t copy_bytes = PASS_CELLS * ATTN_CELL * sizeof(attn_bf16);
    plan.turned = plan.copies + (plan.has_copies ? 2 * threads * copy_bytes : 0);
    if (p->crossed)
        plan.turned_bytes = smaller(attn_strips(p->n) * strip_bytes, limits_of(p).right_bytes);
    plan.total = plan.turned + threads * plan.turned_bytes;
    return plan;
}

size_t attn_bf16_amx_scratch(size_t threads, const attn_bf16_product *p)
{
    return plan_scratch(threads, p).total;
}

void attn_bf16_amx_run(size_t threads, const attn_bf16_product *p, void *scratch)
{
    const scratch_plan plan = plan_scratch(threads, p);
    unsigned char *memory = scratch;
    amx_pass pass = {.p = p, .right = p->strips, .cells = attn_strips(p->k)};
    if (p->right) {
        attn_bf16_amx_pack_right(threads, p->k, p->n, p->right, scratch);
        pass.right = scratch;
    }
    if (plan.has_copies) pass.copies = (void *)(memory + plan.copies);
    if (p->crossed) pass.turned = (void *)(memory + plan.turned);
    pass.turned_size = plan.turned_bytes / sizeof *pass.turned;
    if (p->left_sums && !p->out.accumulate) memset(p->left_sums, 0, p->m * sizeof *p->left_sums);
    float *sums = p->out.half ? (void *)(memory + plan.sums) : p->out.single;
    const size_t most = pass_cells(p);
    for (; pass.cell < pass.cells; pass.cell += most) {
        const bool is_first = pass.cell == 0, is_last = pass.cell + most >= pass.cells;
        pass.n_cells = smaller(most, pass.cells - pass.cell);
        pass.bias = is_first ? p->bias : NULL;
        pass.addend = !is_first || p->out.accumulate ? sums : NULL;
        pass.half = is_last ? p->out.half : NULL;
        pass.single = pass.half ? NULL : sums;
        pass.is_far = is_last && !pass.addend && is_far(p);
        cut(&pass, threads);
        const size_t row_blocks = quotient_up(p->m, pass.block_rows);
        attn_parallel(threads, row_blocks * pass.column_blocks, run_task, &pass);
    }
}
