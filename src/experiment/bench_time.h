/* What a benchmark says about a quantity that was measured several times. */
#ifndef EXPERIMENT_BENCH_TIME_H
#define EXPERIMENT_BENCH_TIME_H

#include <stddef.h>

/* Seconds over the repeats. */
typedef struct attn_bench_time {
    double median_s, p10_s, p90_s;
} attn_bench_time;

/* Of a rate or a ratio. */
typedef struct attn_bench_spread {
    double median, p10, p90;
} attn_bench_spread;

/* Sorts the values. */
attn_bench_time attn_bench_time_of(double *values, size_t n);
attn_bench_spread attn_bench_spread_of(double *values, size_t n);

#endif
