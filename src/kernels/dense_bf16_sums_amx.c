/* Blocks of sums for dense products in bfloat16 on AMX tiles.
 *
 * Four tiles hold 32 x 32 sums; two tiles of each factor feed them. The right factor comes from the
 * L2 cache, with the hint that leaves the L1 cache to the current strip of the left one. What is not
 * a product happens between the instructions of products, in a fixed order: the sums of the block
 * before are stored and rounded, and the next strip of the left factor is asked for. docs/SPEED.md
 * has what each brings. */
#include "kernels/dense_bf16_amx.h"

#include "kernels/bf16_square_amx.h"
#include "kernels/tiles_amx.h"

#include <stdbool.h>

enum {
    HALF_CELL = ATTN_CELL / 2,
    SUMS_ROW = ATTN_STRIP * sizeof(float),
    ROWS_A_CELL = 2 /* of a result, stored beside a cell's products */
};

/* The rows of a held block, one after the other. */
typedef struct row_work {
    const float *sums;
    float *single;
    attn_bf16 *half;
    size_t row_length, left;
    __mmask16 low, high; /* columns inside the matrix */
    __m512 low_bias, high_bias;
} row_work;

static inline row_work start_rows(const attn_bf16_held *held)
{
    row_work w = {.sums = held->sums,
                  .single = held->single,
                  .half = held->half,
                  .row_length = held->row_length,
                  .left = held->rows,
                  .low = first_16(held->columns),
                  .high = first_16(held->columns > 16 ? held->columns - 16 : 0),
                  .low_bias = _mm512_setzero_ps(),
                  .high_bias = _mm512_setzero_ps()};
    if (held->bias) {
        w.low_bias = _mm512_maskz_loadu_ps(w.low, held->bias);
        w.high_bias = _mm512_maskz_loadu_ps(w.high, held->bias + 16);
    }
    return w;
}

static inline __attribute__((always_inline)) void store_row(row_work *w, attn_bf16_kind kind)
{
    __m512 low = _mm512_add_ps(_mm512_load_ps(w->sums), w->low_bias);
    __m512 high = _mm512_add_ps(_mm512_load_ps(w->sums + 16), w->high_bias);
    if (kind == ATTN_BF16_SUMS_OF_SINGLES) {
        low = _mm512_add_ps(low, _mm512_maskz_loadu_ps(w->low, w->single));
        high = _mm512_add_ps(high, _mm512_maskz_loadu_ps(w->high, w->single + 16));
    }
    if (kind == ATTN_BF16_HALVES) {
        const __mmask32 both = (__mmask32)w->high << 16 | w->low;
        _mm512_mask_storeu_epi16(w->half, both, (__m512i)_mm512_cvtne2ps_pbh(high, low));
        w->half += w->row_length;
    } else {
        if (kind == ATTN_BF16_FAR_SINGLES) {
            _mm512_stream_ps(w->single, low);
            _mm512_stream_ps(w->single + 16, high);
        } else {
            _mm512_mask_storeu_ps(w->single, w->low, low);
            _mm512_mask_storeu_ps(w->single + 16, w->high, high);
        }
        w->single += w->row_length;
    }
    w->sums += ATTN_STRIP;
    w->left--;
}

static inline __attribute__((always_inline)) void store_rows(row_work *w, attn_bf16_kind kind)
{
    while (w->left > 0) store_row(w, kind);
}

/* A tile of sums goes where it belongs, and another begins. */
#define QUARTER(sums, n) ((sums) + (n) / 2 * 16 * ATTN_STRIP + (n) % 2 * 16)
#define TURN(n)                                                                                    \
    do {                                                                                           \
        _tile_stored(n, QUARTER(to, n), SUMS_ROW);                                                 \
        if (b->before)                                                                             \
            _tile_loadd(n, QUARTER(b->before, n), SUMS_ROW);                                       \
        else                                                                                       \
            _tile_zero(n);                                                                         \
    } while (0)

static inline __attribute__((always_inline)) void ask_ahead(const attn_bf16_block *b,
                                                            ptrdiff_t cell)
{
    for (size_t i = 0; i < b->ahead_rows; i++)
        _mm_prefetch((const char *)(b->ahead + cell * b->ahead_cell + i * b->ahead_row),
                     _MM_HINT_T1);
}

/* A cell's products, with rows of the block before behind the first of them; or `to` takes that
 * block's sums. */
static inline __attribute__((always_inline)) void
multiply_cell(const attn_bf16_block *b, size_t k, float *to, attn_bf16_kind kind, row_work *rows)
{
    const ptrdiff_t cell = (ptrdiff_t)k;
    const attn_bf16 *left = b->left + cell * b->left_cell, *right = b->right + cell * b->right_cell;
    const size_t left_row = b->left_row * sizeof *left;
    _tile_stream_loadd(6, right, 64);
    _tile_loadd(4, left, left_row);
    if (to) TURN(0);
    _tile_dpbf16ps(0, 4, 6);
    if (kind != ATTN_BF16_NO_RESULT) store_row(rows, kind);
    _tile_loadd(5, left + b->left_half, left_row);
    if (to) TURN(2);
    _tile_dpbf16ps(2, 5, 6);
    ask_ahead(b, cell);
    _tile_stream_loadd(7, right + HALF_CELL, 64);
    if (to) TURN(1);
    _tile_dpbf16ps(1, 4, 7);
    if (kind != ATTN_BF16_NO_RESULT) store_row(rows, kind);
    if (to) TURN(3);
    _tile_dpbf16ps(3, 5, 7);
}

static inline __attribute__((always_inline)) void
multiply_block(const attn_bf16_block *b, const attn_bf16_held *held, attn_bf16_kind kind)
{
    row_work rows = start_rows(held);
    size_t k = 1;
    settle_memory();
    multiply_cell(b, 0, held->sums, ATTN_BF16_NO_RESULT, &rows);
    settle_memory();
    if (kind != ATTN_BF16_NO_RESULT)
        for (; k < b->n_cells && rows.left >= ROWS_A_CELL; k++)
            multiply_cell(b, k, NULL, kind, &rows);
    for (; k < b->n_cells; k++) multiply_cell(b, k, NULL, ATTN_BF16_NO_RESULT, &rows);
    settle_memory();
    if (kind != ATTN_BF16_NO_RESULT) store_rows(&rows, kind);
}

/* Code for each kind, so that nothing is decided between products. */
void attn_bf16_amx_multiply(const attn_bf16_block *b, const attn_bf16_held *held,
                            attn_bf16_kind kind)
{
    if (held->rows == 0) kind = ATTN_BF16_NO_RESULT;
    if (kind == ATTN_BF16_FAR_SINGLES && held->columns < ATTN_STRIP) kind = ATTN_BF16_SINGLES;
    switch (kind) {
    case ATTN_BF16_NO_RESULT:
        multiply_block(b, held, ATTN_BF16_NO_RESULT);
        break;
    case ATTN_BF16_HALVES:
        multiply_block(b, held, ATTN_BF16_HALVES);
        break;
    case ATTN_BF16_SINGLES:
        multiply_block(b, held, ATTN_BF16_SINGLES);
        break;
    case ATTN_BF16_SUMS_OF_SINGLES:
        multiply_block(b, held, ATTN_BF16_SUMS_OF_SINGLES);
        break;
    case ATTN_BF16_FAR_SINGLES:
        multiply_block(b, held, ATTN_BF16_FAR_SINGLES);
        break;
    }
}

void attn_bf16_amx_drain(const attn_bf16_held *held, attn_bf16_kind kind)
{
    settle_memory();
    _tile_stored(0, QUARTER(held->sums, 0), SUMS_ROW);
    _tile_stored(1, QUARTER(held->sums, 1), SUMS_ROW);
    _tile_stored(2, QUARTER(held->sums, 2), SUMS_ROW);
    _tile_stored(3, QUARTER(held->sums, 3), SUMS_ROW);
    settle_memory();
    row_work rows = start_rows(held);
    while (rows.left > 0) {
        if (kind == ATTN_BF16_HALVES)
            store_row(&rows, ATTN_BF16_HALVES);
        else if (kind == ATTN_BF16_SUMS_OF_SINGLES)
            store_row(&rows, ATTN_BF16_SUMS_OF_SINGLES);
        else
            store_row(&rows, ATTN_BF16_SINGLES);
    }
}
