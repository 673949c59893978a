/* Medians and tenths. */
#include "experiment/bench_time.h"

#include "base/statistics.h"

attn_bench_spread attn_bench_spread_of(double *values, size_t n)
{
    attn_statistics_sort(values, n);
    return (attn_bench_spread){.median = attn_statistics_median(values, n),
                               .p10 = attn_statistics_quantile(values, n, 0.1),
                               .p90 = attn_statistics_quantile(values, n, 0.9)};
}

attn_bench_time attn_bench_time_of(double *values, size_t n)
{
    const attn_bench_spread spread = attn_bench_spread_of(values, n);
    return (attn_bench_time){spread.median, spread.p10, spread.p90};
}
