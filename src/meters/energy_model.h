/* Processor and memory energy where no counter can be read: a model of two numbers per virtual
 * processor, named "ccf-vcpu/1".
 *
 *     E = T * vcpus * idle_w + cpu_s * (full_w - idle_w)
 *
 * It is linear in processor time, so it adds nothing to a comparison of two programs beyond
 * their processor times, and must never rank them. A factor of two either way is what such
 * models are worth; every figure carries an interval. */
#ifndef METERS_ENERGY_MODEL_H
#define METERS_ENERGY_MODEL_H

#include "attn/status.h"
#include "base/figure.h"
#include "meters/machine.h"

#include <stdbool.h>
#include <stddef.h>

/* Watts of one virtual processor doing nothing, and fully busy. */
typedef struct attn_energy_watts {
    double idle_w, full_w;
} attn_energy_watts;

typedef struct attn_energy_model {
    char class_name[32]; /* "Cascade Lake"; "unknown"; "user" */
    attn_energy_watts low, central, high;
} attn_energy_model;

/* Chooses the constants: `watts` ("0.64:3.97", idle and busy; NULL = none) before the class of
 * the processor before the mean of all classes. ATTN_EARGUMENT: `watts` is no such pair. */
ATTN_MUST_CHECK attn_status attn_energy_model_choose(attn_energy_model *model,
                                                     const attn_machine_cpu *cpu, const char *watts,
                                                     attn_error *error);

/* "energy_cpu_package_j", modelled, for `time_s` of wall time on `vcpus` processors of which this
 * process used `cpu_s` seconds. */
attn_figure attn_energy_model_cpu(const attn_energy_model *model, double time_s, size_t vcpus,
                                  double cpu_s);

/* "energy_dram_j", modelled, of memory kept for `time_s`. */
attn_figure attn_energy_model_dram(double time_s, double size_bytes);

#endif
