/* The constants of this machine: short probes of products, exponentials, other vector work, memory
 * and the start of a parallel region, and of the tile engine; then a training step that the model
 * of costs had no part in, to see how far off it is. */
#ifndef EXPERIMENT_CALIBRATE_H
#define EXPERIMENT_CALIBRATE_H

#include "attn/status.h"
#include "base/figure.h"

#include <stddef.h>

typedef enum attn_probe {
    ATTN_PROBE_PRODUCT,     /* dense products of GPT-2's feed-forward layer, all three kinds */
    ATTN_PROBE_EXPONENTIAL, /* exp over memory that stays in the first cache */
    ATTN_PROBE_OTHER,       /* y += a x, the same */
    ATTN_PROBE_MEMORY,      /* y += a x over memory that no cache holds */
    ATTN_PROBE_HEAD,        /* dense products with 50257 words, whose weights no cache holds */
    ATTN_PROBE_CORE,        /* the tile engine, forward and backward */
    ATTN_PROBE_LAUNCH,      /* an empty parallel region */
    ATTN_PROBES
} attn_probe;

/* "product", "exponential", ... */
const char *attn_probe_name(attn_probe probe);

typedef struct attn_calibration {
    /* Units of work a second (FLOP, operations, bytes), and seconds of a launch: median, quartiles */
    double value[ATTN_PROBES], low[ATTN_PROBES], high[ATTN_PROBES];
    /* Picojoules a unit of work of the first four, and watts at rest; NaN without a meter. */
    double picojoule[ATTN_PROBES], idle_w;
    char energy_why[ATTN_FIGURE_TEXT_BYTES]; /* when there is no energy */
    size_t threads;
    char isa[16], dense[32];
    double memory_gb, cache_mib; /* of the machine; NaN: the system does not tell */
    char processor[96];
} attn_calibration;

typedef struct attn_calibration_options {
    size_t threads;  /* 0: every core */
    const char *isa; /* NULL: the best */
    double probe_s;  /* of each probe */
} attn_calibration_options;

/* ATTN_EMEMORY, ATTN_EUNSUPPORTED, ... */
ATTN_MUST_CHECK attn_status attn_calibrate(const attn_calibration_options *options,
                                           attn_calibration *out, attn_error *error);

/* Seconds of the tile engine, forward and backward: causal, one sequence of `length`, 12 heads of 64.
 * The median of a few. */
enum { ATTN_CALIBRATION_HEADS = 12, ATTN_CALIBRATION_WIDTH = 64 };
ATTN_MUST_CHECK attn_status attn_calibration_core_time(const attn_calibration_options *options,
                                                       size_t length, double *time_s,
                                                       attn_error *error);

/* The share of time t in which the vector work of the core probe cannot hide: its counted work,
 * for the fit of the core's rate. */
double attn_calibration_core_rate(double matmul, double exponential, double other, double time_s,
                                  double exponential_rate, double other_rate);

#endif
