/* Heads lie beside each other in a token's row: one head's rows lie far apart, and those of its
 * neighbours on the same lines and pages. So a task walks several heads of a sequence together, chunk
 * by chunk, and a token's row crosses from memory in one go; and rows are asked for before they are
 * read or written, since the machine does not guess them. */
#ifndef MECHANISMS_HEAD_ROWS_H
#define MECHANISMS_HEAD_ROWS_H

#include "kernels/ahead.h"
#include "kernels/kernels.h"

#include <stdbool.h>
#include <stddef.h>

enum { ATTN_ROWS_AHEAD = 8 };

/* Heads that one task walks together: as many as leave two tasks a thread. No head's result depends
 * on its company. */
static inline size_t attn_heads_together(size_t heads, size_t batch, size_t threads)
{
    const size_t share = batch * heads / (2 * threads);
    return share < 1 ? 1 : share < heads ? share : heads;
}

/* Tasks of a call, and the task's sequence and heads. */
static inline size_t attn_head_tasks(size_t heads, size_t batch, size_t together)
{
    return batch * ((heads + together - 1) / together);
}

typedef struct attn_head_range {
    size_t sequence, first, end;
} attn_head_range;

static inline attn_head_range attn_heads_of(size_t task, size_t heads, size_t together)
{
    const size_t tasks = (heads + together - 1) / together, first = task % tasks * together;
    const size_t end = first + together;
    return (attn_head_range){task / tasks, first, end < heads ? end : heads};
}

/* An address behind the last row does no harm. */
static inline void attn_fetch_rows(size_t rows, size_t n, const float *from, size_t row)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < n; j += ATTN_LINE_FLOATS) __builtin_prefetch(from + i * row + j);
}

static inline void attn_claim_row(size_t n, float *to)
{
    for (size_t j = 0; j < n; j += ATTN_LINE_FLOATS) __builtin_prefetch(to + j, 1);
}

/* Of the next row. */
static inline size_t attn_ahead_lines(const attn_ahead *ahead)
{
    return (ahead->parts[ahead->part].n + ATTN_LINE_FLOATS - 1) / ATTN_LINE_FLOATS;
}

/* The lines of the next whole rows, `wanted` at most; `near` behind them. */
static inline void attn_ahead_take(attn_ahead *ahead, size_t wanted, const float *near,
                                   const float **lines)
{
    size_t n = 0;
    while (ahead->part < ahead->n_parts && n + attn_ahead_lines(ahead) <= wanted) {
        const struct attn_ahead_part *part = &ahead->parts[ahead->part];
        const float *from = part->from + ahead->next * part->row;
        for (size_t j = 0; j < part->n; j += ATTN_LINE_FLOATS) lines[n++] = from + j;
        if (++ahead->next < ahead->rows) continue;
        ahead->next = 0;
        ahead->part++;
    }
    while (n < wanted) lines[n++] = near;
}

/* Products go by tiles of so many rows and columns, which ask for a line every other step: that
 * keeps the memory busy without stopping them much. */
enum { ATTN_AHEAD_ROWS = 6, ATTN_AHEAD_COLUMNS = 64, ATTN_AHEAD_LINES = 128 };

/* kernels->product(), with what stands in `ahead` asked for by the way. */
static inline void attn_ahead_product(const attn_kernels *kernels, attn_ahead *ahead, size_t m,
                                      size_t n, size_t k, const float *a, size_t a_row,
                                      size_t a_column, const float *b, size_t b_row, float *c,
                                      size_t c_row, bool accumulate)
{
    if (kernels->product_ahead) {
        kernels->product_ahead(m, n, k, a, a_row, a_column, b, b_row, c, c_row, accumulate, ahead);
        return;
    }
    const float *lines[ATTN_AHEAD_LINES];
    for (size_t j = 0; j < n; j += ATTN_AHEAD_COLUMNS) {
        const size_t columns = n - j < ATTN_AHEAD_COLUMNS ? n - j : ATTN_AHEAD_COLUMNS;
        size_t i = 0;
        for (;
             k / 2 <= ATTN_AHEAD_LINES && ahead->part < ahead->n_parts && i + ATTN_AHEAD_ROWS <= m;
             i += ATTN_AHEAD_ROWS) {
            attn_ahead_take(ahead, k / 2, c, lines);
            kernels->product_asking(ATTN_AHEAD_ROWS, columns, k, a + i * a_row, a_row, a_column,
                                    b + j, b_row, c + i * c_row + j, c_row, accumulate, lines);
        }
        if (i < m)
            kernels->product(m - i, columns, k, a + i * a_row, a_row, a_column, b + j, b_row,
                             c + i * c_row + j, c_row, accumulate);
    }
}

#endif
