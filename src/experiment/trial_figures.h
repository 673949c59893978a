/* Private to experiment: the figures of a trial, computed from what was recorded. */
#ifndef EXPERIMENT_TRIAL_FIGURES_H
#define EXPERIMENT_TRIAL_FIGURES_H

#include "attn/work.h"
#include "experiment/plan.h"
#include "experiment/window.h"
#include "model/profile.h"
#include "store/store.h"

/* What the steps left behind. */
typedef struct attn_step_log {
    attn_store_step *steps; /* plan->steps of them */
    attn_work *closed_form; /* of each step */
    attn_profile *profiles; /* likewise */
    size_t n;
    size_t warmup; /* first steps that timings leave out */
} attn_step_log;

/* All parts of a step. */
double attn_step_time_s(const attn_store_step *step);

/* Where figures go; the first failure stays. */
typedef struct attn_figure_sink {
    int descriptor;
    attn_status status;
    attn_error *error;
} attn_figure_sink;

void attn_sink_put(attn_figure_sink *sink, const attn_figure *figure);
void attn_sink_value(attn_figure_sink *sink, const char *name, const char *unit, double value,
                     attn_provenance provenance, const char *source);

/* Median times of the whole and of the model's parts, losses and rates of the steps behind the warm-up; counted work. */
void attn_put_step_figures(attn_figure_sink *sink, const attn_plan *plan, attn_step_log *log,
                           double *scratch);

/* Time, processor use, disk bytes, energy measured and modelled, of the closed window over
 * `timed_steps` steps. */
void attn_put_window_figures(attn_figure_sink *sink, const attn_plan *plan, size_t timed_steps,
                             size_t threads, const attn_window *window, double resident_bytes);

/* Peaks of our allocator by category, exact. */
void attn_put_memory_figures(attn_figure_sink *sink);

/* A process figure of the kernel under another name. */
void attn_put_renamed(attn_figure_sink *sink, attn_figure figure, const char *name);

#endif
