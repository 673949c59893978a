/* Heads lie beside each other in a token's row: one head's rows lie far apart, and those of its
 * neighbours on the same lines and pages. So a task walks several heads of a sequence together, chunk
 * by chunk, and a token's row crosses from memory in one go; and rows are asked for before they are
 * read or written, since the machine does not guess them. */
#ifndef MECHANISMS_HEAD_ROWS_H
#define MECHANISMS_HEAD_ROWS_H

#include <stddef.h>

enum { ATTN_ROWS_AHEAD = 8, ATTN_LINE_FLOATS = 16 };

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

#endif
