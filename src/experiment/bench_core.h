/* Attention alone: cores (q, k, v to o) or whole layers of several mechanisms over a matrix of
 * sizes and types, in turns, beside the peaks of the machine in the same run. */
#ifndef EXPERIMENT_BENCH_CORE_H
#define EXPERIMENT_BENCH_CORE_H

#include "attn/dtype.h"
#include "attn/status.h"
#include "base/range.h"
#include "experiment/bench_peaks.h"
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

const char *attn_bench_dtype_name(attn_dtype dtype); /* "f32", "bf16" */

/* What is timed in turns at one size. */
typedef struct attn_bench_variant {
    attn_label mechanism;
    attn_dtype dtype;
} attn_bench_variant;

typedef struct attn_bench_core_options {
    const attn_bench_variant *variants;
    size_t n_variants; /* the first one is what the others are compared with */
    bool is_layer;     /* with projections; otherwise the core alone */
    bool directions[ATTN_BENCH_DIRECTIONS];
    attn_range lengths, heads, head_dims;
    size_t batch, repeats;
    size_t threads;  /* 0: every core */
    const char *isa; /* NULL: the best */
    uint64_t seed;
} attn_bench_core_options;

/* One variant in one direction at one size. */
typedef struct attn_bench_row {
    size_t variant; /* its place in the options */
    attn_bench_direction direction;
    size_t length, heads, head_dim;
    attn_bench_time time;    /* of one call */
    attn_bench_spread ratio; /* time over that of the first variant, repeat by repeat */
    double useful_flop;      /* of exact attention over the pairs in causal order, and of four
                                square projections of a layer */
    double executed_flop;    /* of matrix products, as counted */
    double exponentials;     /* as counted */
    double read_bytes;       /* decoding: cache and weights; 0: not decoding */
    double held_bytes;       /* all memory of the variant's calls */
    attn_bench_spread share; /* of the peaks of the products' units, or of memory when decoding */
    attn_bench_spread limit; /* time over that of the products and then the exponentials at their
                                peaks; when decoding, over that of the reads */
} attn_bench_row;

/* Where a variant's time crosses that of the first one, between two measured lengths. */
typedef struct attn_bench_crossover {
    size_t variant;
    attn_bench_direction direction;
    size_t heads, head_dim;
    bool is_known;            /* false: no crossing within the lengths */
    bool is_faster_after;     /* the variant, above the crossing; without one, everywhere */
    double length, low, high; /* by the medians, and by the tenths of the ratios; 0 or infinite
                                 where those do not cross */
} attn_bench_crossover;

typedef struct attn_bench_core {
    attn_bench_row *rows; /* by heads, head_dim, length, direction, variant */
    size_t n_rows;
    attn_bench_crossover *crossovers;
    size_t n_crossovers;
    attn_bench_spread peaks[ATTN_BENCH_PEAKS]; /* during the run */
    bool has_peak[ATTN_BENCH_PEAKS];           /* those that shares and limits are made from */
    size_t threads;
    char isa[16], dense[32];
} attn_bench_core;

/* ATTN_EUNSUPPORTED when a mechanism has no such core or does not decode, ATTN_ENOTFOUND, ... */
ATTN_MUST_CHECK attn_status attn_bench_core_run(const attn_bench_core_options *options,
                                                attn_bench_core *result, attn_error *error);
void attn_bench_core_free(attn_bench_core *result);

/* ---- parts ------------------------------------------------------------------------------- */

/* Crossing of a variant's rows, ascending in length, with the first one's. */
attn_bench_crossover attn_bench_find_crossover(const attn_bench_row *const *rows, size_t n);

#endif
