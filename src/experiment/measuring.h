/* Private to experiment: what is measured around the training of a trial. */
#ifndef EXPERIMENT_MEASURING_H
#define EXPERIMENT_MEASURING_H

#include "experiment/phases.h"
#include "meters/gpu.h"

/* The meters that a plan asks for. */
attn_energy_options attn_measuring_meters(const attn_plan *plan);

/* Power of the machine at rest, the process loaded and waiting; unavailable without a meter.
 * `name` is that of the figure. */
attn_figure attn_measure_idle(attn_energy_meter *meter, double duration_s, const char *name);

/* Whether warm-up is over before step `step` (from 0), by the slope rule of the plan. */
typedef enum attn_warmth {
    ATTN_WARMING,
    ATTN_STEADY,
    ATTN_WARM,      /* no rule, or too few steps for it */
    ATTN_NOT_STEADY /* steps still change when half of them are gone */
} attn_warmth;

attn_warmth attn_judge_warmth(const attn_plan *plan, const attn_store_step *steps, size_t step);

/* Factors that the user gives, beside the result: no measurement, and no guess of ours. */
typedef struct attn_factors {
    double pue, carbon_g_per_kwh; /* 0: not said */
    const char *carbon_source;    /* NULL: nobody is named */
} attn_factors;

enum { ATTN_FACTOR_FIGURES = 2 };

/* The energy of the building and its carbon, as far as factors are given; gives how many. */
size_t attn_factor_figures(const attn_factors *factors, const attn_figure *base,
                           attn_figure figures[ATTN_FACTOR_FIGURES]);

/* What was around the training. */
typedef struct attn_measured {
    attn_figure idle_before, idle_after;    /* power; of no meaning without --idle */
    attn_figure gpus[2 * ATTN_GPU_FIGURES]; /* how the boards were before and after */
    size_t n_gpus;
    attn_window window, evaluation;
    attn_phases phases;
    attn_warmth warmth;
    size_t warmup; /* steps */
} attn_measured;

/* Idle power and dynamic energy, energy by phase, energy of the building and its carbon, the
 * steadiness of steps, the cost of metering, and what happened to the clocks. */
void attn_put_measuring_figures(attn_figure_sink *sink, const attn_plan *plan,
                                const attn_step_log *log, const attn_measured *measured);

/* Sends what the meter's sampler kept since `begin_ns` (attn_clock_ns()); the meter is stopped. */
void attn_put_samples(attn_figure_sink *sink, const attn_energy_meter *meter, uint64_t begin_ns);

/* Sends when the machine was at work, by the calendar clock. */
void attn_put_span(attn_figure_sink *sink, double begin_s, double end_s, bool is_timed);

#endif
