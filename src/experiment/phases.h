/* Private to experiment: the energy of the parts of a step. Where the meters are quick and cheap
 * enough they are read at each edge, and the parts have windows of their own; elsewhere the energy
 * of the whole is attributed by time. The figures say which. */
#ifndef EXPERIMENT_PHASES_H
#define EXPERIMENT_PHASES_H

#include "experiment/trial_figures.h"

typedef enum attn_step_part {
    ATTN_STEP_DATA,
    ATTN_STEP_FORWARD, /* with the head's gradients, which are made within it */
    ATTN_STEP_BACKWARD,
    ATTN_STEP_OPTIMIZER,
    ATTN_STEP_PARTS
} attn_step_part;

/* Over all steps that were timed. Zero-initialise; without attn_phases_begin() nothing is read. */
typedef struct attn_phases {
    attn_energy_meter *meter; /* NULL: the parts have no windows */
    attn_energy_snapshot edge;
    size_t steps;
    double time_s[ATTN_STEP_PARTS];
    attn_figure energy[ATTN_STEP_PARTS][ATTN_ENERGY_FIGURES];
} attn_phases;

/* Begins when reading the meter at the edges of a step of `step_s` seconds costs no more than half
 * a thousandth of it. */
void attn_phases_begin(attn_phases *phases, attn_energy_meter *meter, double step_s);

/* The edges of one step: before its first part, and behind each. */
void attn_phases_step(attn_phases *phases);
void attn_phases_end(attn_phases *phases, attn_step_part phase);

/* "energy_data_j", "energy_forward_j", "energy_backward_j", "energy_optimizer_j"; nothing when the
 * energy of the whole window is unknown. The head's gradients count as backward, as in times. */
void attn_put_phase_figures(attn_figure_sink *sink, const attn_step_log *log,
                            const attn_window *window, const attn_phases *phases);

#endif
