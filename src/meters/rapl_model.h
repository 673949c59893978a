/* What must be known of a processor before its RAPL numbers are believed. Private to src/meters. */
#ifndef METERS_RAPL_MODEL_H
#define METERS_RAPL_MODEL_H

#include "meters/energy_source.h"
#include "meters/machine.h"

typedef struct attn_rapl_model {
    attn_machine_cpu cpu;
    bool is_old_kernel; /* before 6.1 */
} attn_rapl_model;

attn_rapl_model attn_rapl_model_read(const char *root);

/* Fills channel->note, when there is something to say: memory counted in a unit that the processor
 * does not have (the unit follows from resolution_j; NaN: the interface hides it), counters that
 * the processor blurs on purpose, powers that it models. */
void attn_rapl_note(const attn_rapl_model *model, attn_energy_channel *channel);

#endif
