/* Time and energy of an estimate on a device: a roofline for each kernel, summed. Modelled, never
 * measured: every figure has an interval, and nothing is ranked by it as if it had been run.
 *
 *     time of a kernel = max(MM / P + (1 - o) v, v, bytes / bandwidth) + launch,
 *     v = EX / P_ex + EW / P_ew,  o the share of v that hides behind matrix products
 *     energy = idle t + pJ/FLOP of each class + pJ/byte of memory
 *
 * On a machine that was measured (attnscope calibrate) every core takes so many times longer than its
 * operations alone as its own probe did, and products of projections, of feed-forward layers and of
 * the head have a rate each. There, bfloat16 is what libattn does with it: factors of dense products
 * alone; cores, gradients and master weights stay float32, beside packed ones. */
#ifndef COST_ROOFLINE_H
#define COST_ROOFLINE_H

#include "base/figure.h"
#include "cost/estimate.h"

typedef enum attn_cost_bound {
    ATTN_BOUND_MATMUL,
    ATTN_BOUND_VECTOR, /* exponentials and other element-wise work */
    ATTN_BOUND_MEMORY,
    ATTN_BOUND_LAUNCH,
    ATTN_BOUNDS
} attn_cost_bound;

/* "matmul", "vector", "memory", "launch" */
const char *attn_cost_bound_name(attn_cost_bound bound);

typedef struct attn_cost_span {
    double value, low, high; /* NaN: not known */
} attn_cost_span;

/* What one resource would take alone. */
typedef struct attn_cost_terms {
    double matmul_s, exponential_s, other_s, memory_s, launch_s;
} attn_cost_terms;

typedef struct attn_prediction {
    const attn_device *device;
    bool is_calibrated; /* the device's constants were measured on it */
    attn_cost_span time_s, energy_j;
    char energy_why[ATTN_FIGURE_TEXT_BYTES]; /* when there is none */
    attn_cost_bound bound;                   /* that takes most of the time, */
    double bound_share;                      /* and the share of the time it takes */
    double core_share;                       /* of the time, of attention between projections */
    double attention_share;                  /* with its projections */
    attn_cost_span core_s;
    double part_s[ATTN_COST_PARTS_MAX]; /* of all times of a part */
    attn_cost_bound part_bound[ATTN_COST_PARTS_MAX];
    /* Of all parts of a class, by pass; what recomputation adds is forward. */
    double class_s[ATTN_COST_CLASSES][ATTN_COST_PASSES];
    attn_cost_terms terms[ATTN_COST_CLASSES][ATTN_COST_PASSES];
    double bytes;        /* of memory traffic */
    double memory_bytes; /* held at once: the estimate's, and what this device's program adds */
    bool fits;           /* in the device's memory */
} attn_prediction;

/* ATTN_EARGUMENT: the device has no rate for the type. */
ATTN_MUST_CHECK attn_status attn_cost_predict(const attn_cost_estimate *estimate,
                                              const attn_device *device, attn_prediction *out,
                                              attn_error *error);

/* Bytes that one pass of a part moves to and from memory on the device. */
double attn_cost_part_bytes(const attn_cost_part *part, const attn_device *device, size_t pass,
                            double element_bytes);

/* The same for cores with pairs by two ways: with the square of scores in memory, which kernels apart
 * write and read 8 times forward and 9 times backward; and in tiles of `rows` queries, with no cache
 * that would keep keys from one block of queries to the next. */
double attn_cost_eager_bytes(const attn_cost_part *part, size_t pass, double element_bytes);
double attn_cost_tiled_bytes(const attn_cost_part *part, size_t pass, double element_bytes,
                             double rows);

/* The largest block of queries (a multiple of 16) whose tiles fit on chip: q and o, statistics, two
 * tiles of k and v, and the scores. Without a device: 128 KiB. */
double attn_cost_tile_rows(const attn_device *device, const attn_cost_part *part,
                           double element_bytes);

/* Arithmetic intensity at which the device is bound by neither, FLOP a byte; NaN: unknown. */
double attn_device_ridge(const attn_device *device, attn_cost_type type);

#endif
