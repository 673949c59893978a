/* Attention alone: cores (q, k, v to o) or whole layers of several mechanisms over a matrix of
 * sizes, in turns, beside the peaks of the machine in the same run. */
#ifndef EXPERIMENT_BENCH_CORE_H
#define EXPERIMENT_BENCH_CORE_H

#include "attn/dtype.h"
#include "attn/status.h"
#include "base/range.h"
#include "experiment/bench_peaks.h"
#include "experiment/bench_time.h"
#include "mechanisms/label.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum attn_bench_direction {
    ATTN_BENCH_FORWARD,
    ATTN_BENCH_BACKWARD,
    ATTN_BENCH_DECODE, /* one token a sequence, behind seq - 1 cached ones */
    ATTN_BENCH_DIRECTIONS
} attn_bench_direction;

const char *attn_bench_direction_name(attn_bench_direction direction);

typedef struct attn_bench_core_options {
    const attn_label *mechanisms;
    size_t n_mechanisms; /* the first one is what the others are compared with */
    bool is_layer;       /* with projections; otherwise the core alone */
    bool directions[ATTN_BENCH_DIRECTIONS];
    attn_range lengths, heads, head_dims;
    attn_dtype dtype;
    size_t batch, repeats;
    size_t threads;  /* 0: every core */
    const char *isa; /* NULL: the best */
    uint64_t seed;
} attn_bench_core_options;

/* One mechanism in one direction at one size. */
typedef struct attn_bench_row {
    size_t mechanism; /* its place in the options */
    attn_bench_direction direction;
    size_t length, heads, head_dim;
    attn_bench_time time;    /* of one call */
    attn_bench_spread ratio; /* time over that of the first mechanism, repeat by repeat */
    double useful_flop;      /* of exact attention over the pairs in causal order */
    double executed_flop;    /* of matrix products, as counted */
    double bytes;            /* of the cache that decoding reads; 0: not decoding */
    attn_bench_spread share; /* of the peak of fused multiply-adds, or of memory when decoding;
                                in bfloat16, of the products' and the exponentials' time at their
                                peaks in the time taken */
} attn_bench_row;

/* Where a mechanism's time crosses that of the first one, between two measured lengths. */
typedef struct attn_bench_crossover {
    size_t mechanism;
    attn_bench_direction direction;
    size_t heads, head_dim;
    bool is_known;            /* false: no crossing within the lengths */
    bool is_faster_after;     /* the mechanism, above the crossing; without one, everywhere */
    double length, low, high; /* by the medians, and by the tenths of the ratios; 0 or infinite
                                 where those do not cross */
} attn_bench_crossover;

typedef struct attn_bench_core {
    attn_bench_row *rows; /* by heads, head_dim, length, direction, mechanism */
    size_t n_rows;
    attn_bench_crossover *crossovers;
    size_t n_crossovers;
    attn_bench_spread peaks[ATTN_BENCH_PEAKS]; /* those read during the run; else 0 */
    size_t threads;
    char isa[16], dense[32];
} attn_bench_core;

/* ATTN_EUNSUPPORTED when a mechanism has no core or does not decode, ATTN_ENOTFOUND, ... */
ATTN_MUST_CHECK attn_status attn_bench_core_run(const attn_bench_core_options *options,
                                                attn_bench_core *result, attn_error *error);
void attn_bench_core_free(attn_bench_core *result);

/* ---- parts ------------------------------------------------------------------------------- */

/* Crossing of a mechanism's rows, ascending in length, with the first mechanism's. */
attn_bench_crossover attn_bench_find_crossover(const attn_bench_row *const *rows, size_t n);

#endif
