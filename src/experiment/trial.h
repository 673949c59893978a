/* One trial, inside its own process: train one model with one mechanism and say what was seen. */
#ifndef EXPERIMENT_TRIAL_H
#define EXPERIMENT_TRIAL_H

#include "data/dataset.h"
#include "experiment/plan.h"

typedef struct attn_trial {
    const attn_plan *plan;
    const attn_plan_mechanism *mechanism;
    const attn_dataset *dataset; /* loaded by the parent, shared by all its children */
} attn_trial;

/* Writes steps, evaluations and figures to `descriptor` as they come, but not how it ended. */
ATTN_MUST_CHECK attn_status attn_trial_run(const attn_trial *trial, int descriptor,
                                           attn_error *error);

#endif
