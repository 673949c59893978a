/* Measuring a phase that is interrupted by other work: a window is opened and closed around each
 * stretch, and adds up what was measured in between. */
#ifndef EXPERIMENT_WINDOW_H
#define EXPERIMENT_WINDOW_H

#include "meters/energy.h"
#include "meters/process.h"

typedef struct attn_window {
    attn_energy_meter *meter;
    double time_s, cpu_s; /* over all closed stretches */
    double meter_s;       /* of them spent in reading meters */
    double suspended_s;   /* the machine slept in them */
    double clock_step_s;  /* the calendar clock was set by so much in them */
    size_t stretches;
    attn_figure energy[ATTN_ENERGY_FIGURES];
    attn_figure process[ATTN_PROCESS_FIGURES];
    /* the open stretch */
    uint64_t begin_ns;
    double begin_cpu_s, begin_offset_s;
    double begin_epoch_s, end_epoch_s; /* of the stretch, when it is closed too */
    attn_energy_snapshot begin_energy;
    attn_process_mark begin_process;
} attn_window;

void attn_window_open(attn_window *window);
void attn_window_close(attn_window *window);

/* sum += more. What is unknown in one stretch is unknown in the sum. */
void attn_window_add_figure(attn_figure *sum, const attn_figure *more, bool is_first);

/* The energy that stands for the trial: of the components, else of the processor packages, else
 * of the whole machine. Unavailable when nothing was measured. */
const attn_figure *attn_window_energy(const attn_window *window);

#endif
