/* Where two variants take the same time: between neighbouring lengths, the logarithm of the
 * ratio of their times is taken as linear in the logarithm of the length. */
#include "experiment/bench_core.h"

#include <math.h>

typedef double ratio_of(const attn_bench_row *row);

static double median_of(const attn_bench_row *row)
{
    return row->ratio.median;
}

static double low_of(const attn_bench_row *row)
{
    return row->ratio.p10;
}

static double high_of(const attn_bench_row *row)
{
    return row->ratio.p90;
}

/* The last crossing of 1, so that one variant is the faster one from there on. */
static bool find(const attn_bench_row *const *rows, size_t n, ratio_of *ratio, double *length)
{
    for (size_t i = n; i-- > 1;) {
        const double before = log(ratio(rows[i - 1])), after = log(ratio(rows[i]));
        if ((before > 0.0) == (after > 0.0)) continue;
        const double from = log((double)rows[i - 1]->length), to = log((double)rows[i]->length);
        *length = exp(from + (to - from) * before / (before - after));
        return true;
    }
    return false;
}

attn_bench_crossover attn_bench_find_crossover(const attn_bench_row *const *rows, size_t n)
{
    const attn_bench_row *last = rows[n - 1];
    attn_bench_crossover found = {.variant = last->variant,
                                  .direction = last->direction,
                                  .heads = last->heads,
                                  .head_dim = last->head_dim,
                                  .is_faster_after = last->ratio.median <= 1.0,
                                  .low = 0.0,
                                  .high = INFINITY};
    found.is_known = find(rows, n, median_of, &found.length);
    double one = 0.0, other = INFINITY;
    /* A lower ratio crosses earlier when the variant gains with the length. */
    if (find(rows, n, found.is_faster_after ? low_of : high_of, &one)) found.low = one;
    if (find(rows, n, found.is_faster_after ? high_of : low_of, &other)) found.high = other;
    return found;
}
