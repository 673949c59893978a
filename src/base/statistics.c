/* Order statistics. The sign-test interval: the number of values below the median of n
 * independent draws is binomial(n, 1/2), whatever the distribution, so the k-th smallest and
 * k-th largest values enclose the median with probability 1 - 2 P(X <= k - 1). */
#include "base/statistics.h"

#include <math.h>
#include <stdlib.h>

static int compare_doubles(const void *left, const void *right)
{
    const double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

void attn_statistics_sort(double *values, size_t n)
{
    if (n > 1) qsort(values, n, sizeof *values, compare_doubles);
}

double attn_statistics_median(const double *sorted, size_t n)
{
    if (n == 0) return NAN;
    const double upper = sorted[n / 2];
    return n % 2 ? upper : sorted[n / 2 - 1] + 0.5 * (upper - sorted[n / 2 - 1]);
}

double attn_statistics_quantile(const double *sorted, size_t n, double p)
{
    if (n == 0 || !(p >= 0.0 && p <= 1.0)) return NAN;
    /* 0.07 * 100 is a little above 7 in binary; the share a user means is not. */
    const double rank = ceil(p * (double)n * (1.0 - 1e-12));
    return rank < 1.0 ? sorted[0] : sorted[(size_t)rank - 1];
}

/* P(X = i), X ~ binomial(n, 1/2), through logarithms: 2^-n underflows for n > 1074. */
static double binomial_half(size_t n, size_t i)
{
    const double log_choose =
        lgamma((double)n + 1.0) - lgamma((double)i + 1.0) - lgamma((double)(n - i) + 1.0);
    return exp(log_choose - (double)n * log(2.0));
}

attn_rank_interval attn_statistics_median_interval(const double *sorted, size_t n)
{
    attn_rank_interval interval = {.low = NAN, .high = NAN};
    double outside = 0.0; /* P(X <= rank - 1) */
    for (size_t i = 0; i < n / 2; i++) {
        const double wider = outside + binomial_half(n, i);
        if (2.0 * wider > 0.05) break;
        outside = wider;
        interval.rank = i + 1;
    }
    if (interval.rank == 0) return interval;
    interval.is_known = true;
    interval.low = sorted[interval.rank - 1];
    interval.high = sorted[n - interval.rank];
    interval.coverage = 1.0 - 2.0 * outside;
    return interval;
}

attn_trend attn_statistics_trend(const double *values, size_t n)
{
    if (n < 3) return (attn_trend){NAN, NAN};
    const double centre = 0.5 * (double)(n - 1);
    double mean = 0.0, across = 0.0, spread = 0.0, rest = 0.0;
    for (size_t i = 0; i < n; i++) mean += values[i] / (double)n;
    for (size_t i = 0; i < n; i++) {
        across += ((double)i - centre) * (values[i] - mean);
        spread += ((double)i - centre) * ((double)i - centre);
    }
    const double slope = across / spread;
    for (size_t i = 0; i < n; i++) {
        const double error = values[i] - mean - slope * ((double)i - centre);
        rest += error * error;
    }
    const double error = sqrt(rest / (double)(n - 2) / spread);
    const double length = (double)(n - 1) / mean;
    return (attn_trend){.rise = slope * length, .error = error * length};
}
