/* Rows that are asked for before they are read or written, while products run: one head's rows of
 * a tensor lie far apart, and the machine does not guess them. */
#ifndef KERNELS_AHEAD_H
#define KERNELS_AHEAD_H

#include <stdbool.h>
#include <stddef.h>

enum { ATTN_LINE_FLOATS = 16 };

/* What the next chunk of a walk reads or writes: a few lines at a time, since the machine stops
 * where more than some 16 are on their way. */
typedef struct attn_ahead {
    size_t rows, n_parts, part, next, credit; /* rows of each part; where to go on */
    struct attn_ahead_part {
        const float *from;
        size_t row, n;
        bool is_written;
    } parts[10];
} attn_ahead;

static inline void attn_ahead_add(attn_ahead *ahead, size_t n, const float *from, size_t row,
                                  bool is_written)
{
    ahead->parts[ahead->n_parts++] = (struct attn_ahead_part){from, row, n, is_written};
}

/* c = a b as attn_kernels.product() has it. */
typedef void attn_product_steps(size_t m, size_t n, size_t k, const float *a, size_t a_row,
                                size_t a_column, const float *b, size_t b_row, float *c,
                                size_t c_row, bool accumulate, attn_ahead *ahead);

/* A line for each COST multiply-adds keeps the memory busy without stopping products much. */
enum { ATTN_AHEAD_COST = 512 };

static inline void attn_ahead_step(attn_ahead *ahead, size_t multiplications)
{
    for (ahead->credit += multiplications; ahead->part < ahead->n_parts;) {
        const struct attn_ahead_part *part = &ahead->parts[ahead->part];
        const size_t cost = part->n / ATTN_LINE_FLOATS * ATTN_AHEAD_COST;
        const float *from = part->from + ahead->next * part->row;
        if (ahead->credit < cost) return;
        ahead->credit -= cost;
        if (part->is_written)
            for (size_t j = 0; j < part->n; j += ATTN_LINE_FLOATS) __builtin_prefetch(from + j, 1);
        else
            for (size_t j = 0; j < part->n; j += ATTN_LINE_FLOATS)
                __builtin_prefetch(from + j, 0, 1);
        if (++ahead->next < ahead->rows) continue;
        ahead->next = 0;
        ahead->part++;
    }
}

#endif
