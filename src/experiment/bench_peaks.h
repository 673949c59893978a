/* What this machine can do at most: arithmetic in registers, exponentials, reads from each level
 * of memory. Kernels are judged by their share of these. */
#ifndef EXPERIMENT_BENCH_PEAKS_H
#define EXPERIMENT_BENCH_PEAKS_H

#include "attn/status.h"
#include "experiment/bench_time.h"

#include <stdbool.h>

typedef enum attn_bench_peak {
    ATTN_PEAK_FMA,          /* float32 FLOP/s of fused multiply-adds in registers */
    ATTN_PEAK_PRODUCT,      /* the same of the product kernel on tiles in the first cache */
    ATTN_PEAK_EXPONENTIAL,  /* powers of two a second */
    ATTN_PEAK_FIRST_CACHE,  /* bytes read a second: 24 KiB a thread */
    ATTN_PEAK_SECOND_CACHE, /* 512 KiB a thread */
    ATTN_PEAK_MEMORY,       /* what no cache holds */
    ATTN_PEAK_TILES,        /* bfloat16 FLOP/s of AMX */
    ATTN_BENCH_PEAKS
} attn_bench_peak;

const char *attn_bench_peak_name(attn_bench_peak peak); /* "fma_f32", ... */
const char *attn_bench_peak_unit(attn_bench_peak peak); /* "FLOP/s", ... */

typedef struct attn_bench_peaks {
    attn_bench_spread rate[ATTN_BENCH_PEAKS];
    bool is_known[ATTN_BENCH_PEAKS]; /* false: the level has no such unit */
    size_t threads;
    char isa[16];
} attn_bench_peaks;

typedef struct attn_bench_peaks_options {
    size_t repeats;
    size_t threads;  /* 0: every core */
    const char *isa; /* NULL: the best */
} attn_bench_peaks_options;

/* In turns, one short run of each peak a repeat. ATTN_EMEMORY, ... */
ATTN_MUST_CHECK attn_status attn_bench_peaks_run(const attn_bench_peaks_options *options,
                                                 attn_bench_peaks *result, attn_error *error);

/* ---- single readings, between other measurements ------------------------------------------ */

typedef struct attn_peak_probe attn_peak_probe;

ATTN_MUST_CHECK attn_status attn_peak_probe_create(attn_peak_probe **out, size_t threads,
                                                   const char *isa, attn_error *error);
void attn_peak_probe_free(attn_peak_probe *probe);
/* Units a second, of all threads together; NaN where there is no such unit. */
double attn_peak_probe_read(attn_peak_probe *probe, attn_bench_peak peak);

#endif
