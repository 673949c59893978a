/* Counts that never wrap: sums and products of 64-bit numbers with a flag that stays up once a
 * result did not fit. */
#ifndef COST_WHOLE_H
#define COST_WHOLE_H

#include "attn/work.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct attn_whole {
    bool has_overflowed;
} attn_whole;

static inline uint64_t attn_whole_times(attn_whole *w, uint64_t a, uint64_t b)
{
    uint64_t product = a * b;
    if (a && product / a != b) w->has_overflowed = true;
    return product;
}

static inline uint64_t attn_whole_plus(attn_whole *w, uint64_t a, uint64_t b)
{
    if (a > UINT64_MAX - b) w->has_overflowed = true;
    return a + b;
}

/* The product of `count` factors; ATTN_PRODUCT(w, 2, rows, a, b) writes the list. */
static inline uint64_t attn_whole_product(attn_whole *w, size_t count, const uint64_t *factors)
{
    uint64_t product = 1;
    for (size_t i = 0; i < count; i++) product = attn_whole_times(w, product, factors[i]);
    return product;
}

#define ATTN_PRODUCT(w, ...)                                                                       \
    attn_whole_product((w), sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t),            \
                       (const uint64_t[]){__VA_ARGS__})

static inline attn_work attn_whole_work_times(attn_whole *w, attn_work work, uint64_t times)
{
    return (attn_work){.matmul = attn_whole_times(w, work.matmul, times),
                       .exponential = attn_whole_times(w, work.exponential, times),
                       .other = attn_whole_times(w, work.other, times)};
}

static inline void attn_whole_work_add(attn_whole *w, attn_work *sum, attn_work work)
{
    sum->matmul = attn_whole_plus(w, sum->matmul, work.matmul);
    sum->exponential = attn_whole_plus(w, sum->exponential, work.exponential);
    sum->other = attn_whole_plus(w, sum->other, work.other);
}

#endif
