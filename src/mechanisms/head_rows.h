/* Ask for rows that will soon be read, or written. Those of one head lie so far apart that the
 * machine does not guess them. An address behind the last row does no harm. */
#ifndef MECHANISMS_HEAD_ROWS_H
#define MECHANISMS_HEAD_ROWS_H

#include <stddef.h>

enum { ATTN_ROWS_AHEAD = 8, ATTN_LINE_FLOATS = 16 };

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
