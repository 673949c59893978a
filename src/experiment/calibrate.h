/* The constants of this machine: short probes of products, exponentials, other vector work, memory
 * and the start of a parallel region, and of the core of every mechanism that can be trained. */
#ifndef EXPERIMENT_CALIBRATE_H
#define EXPERIMENT_CALIBRATE_H

#include "attn/work.h"
#include "base/figure.h"
#include "cost/catalog.h"
#include "cost/energy_fit.h"

typedef enum attn_probe {
    ATTN_PROBE_PRODUCT,     /* dense products of GPT-2's feed-forward layer, all three kinds */
    ATTN_PROBE_PROJECTION,  /* those of its projections to and from heads */
    ATTN_PROBE_HEAD,        /* those with 50257 words, whose weights no cache holds */
    ATTN_PROBE_HALF,        /* those of its feed-forward layer with factors in bfloat16 */
    ATTN_PROBE_EXPONENTIAL, /* exp over memory that stays in the first cache */
    ATTN_PROBE_OTHER,       /* y += a x, the same */
    ATTN_PROBE_MEMORY,      /* y += a x over memory that no cache holds */
    ATTN_PROBE_LAUNCH,      /* an empty parallel region */
    ATTN_PROBES
} attn_probe;

/* "product", "projection", ... */
const char *attn_probe_name(attn_probe probe);

typedef struct attn_calibration {
    /* Units of work a second (FLOP, operations, bytes), and seconds of a launch: median, quartiles */
    double value[ATTN_PROBES], low[ATTN_PROBES], high[ATTN_PROBES];
    attn_core_factors cores;                 /* 0: not probed */
    attn_energy_constants energy;            /* NaN without a meter */
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

/* How many times longer than its operations at the calibration's rates a pass of a core took. */
double attn_calibration_factor(const attn_calibration *calibration, attn_work work, double time_s);

#endif
