/* Order statistics of small samples. No function allocates. Values must not be NaN. */
#ifndef BASE_STATISTICS_H
#define BASE_STATISTICS_H

#include <stdbool.h>
#include <stddef.h>

/* An interval made of two order statistics, ranks counted from 1. */
typedef struct attn_rank_interval {
    bool is_known; /* false below 6 values: no 95 % statement is possible */
    double low, high;
    size_t rank;     /* low is the rank-th smallest value, high the rank-th largest */
    double coverage; /* exact probability that the median lies inside, at least 0.95 */
} attn_rank_interval;

/* Ascending, in place. The functions below take what this leaves. */
void attn_statistics_sort(double *values, size_t n);

/* The middle value, or the mean of the two middle ones; NaN for n = 0. */
double attn_statistics_median(const double *sorted, size_t n);

/* The smallest value with at least the share p of all values at or below it (nearest rank):
 * p = 0 gives the minimum, p = 1 the maximum; NaN for n = 0 or p outside [0, 1]. */
double attn_statistics_quantile(const double *sorted, size_t n, double p);

/* The exact sign-test interval of the median at 95 %: the narrowest pair of order statistics
 * that covers the median of any continuous distribution at least that often. */
attn_rank_interval attn_statistics_median_interval(const double *sorted, size_t n);

/* How much `n` values in the order of time, n >= 3, rise from the first to the last by the
 * least-squares line, as a share of their mean. */
typedef struct attn_trend {
    double rise, error; /* and its standard error */
} attn_trend;

attn_trend attn_statistics_trend(const double *values, size_t n);

#endif
