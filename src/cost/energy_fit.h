/* Picojoules from an energy counter: what probes of known work and traffic took, taken apart into
 * rest, matrix products, exponentials, other vector work and memory. */
#ifndef COST_ENERGY_FIT_H
#define COST_ENERGY_FIT_H

#include "cost/catalog_record.h"

typedef struct attn_energy_probe {
    double time_s, energy_j;
    double matmul, exponential, other, bytes; /* in that time */
} attn_energy_probe;

/* Each with the interval of two standard deviations, or of `spread` where that is wider. */
typedef struct attn_energy_constants {
    attn_quantity idle_w, matmul_pj, exponential_pj, other_pj, dram_pj;
    double spread; /* root mean square of what the fit leaves, as a share of each probe's energy */
} attn_energy_constants;

/* idle t + pJ of each kind, by least squares of the shares that are left; none is below 0. False,
 * and NaN everywhere, when the probes do not tell the kinds apart or an energy is not known. */
bool attn_energy_fit(const attn_energy_probe *probes, size_t count, attn_energy_constants *out);

#endif
