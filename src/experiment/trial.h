/* One trial, inside its own process: train one model with one mechanism and say what was seen. */
#ifndef EXPERIMENT_TRIAL_H
#define EXPERIMENT_TRIAL_H

#include "data/dataset.h"
#include "experiment/plan.h"

typedef struct attn_trial {
    const attn_plan *plan;
    const attn_plan_mechanism *mechanism;
    size_t round;                /* from 1 */
    const attn_dataset *dataset; /* loaded by the parent, shared by all its children */
} attn_trial;

/* Finds before the first trial what would end each of them: a data set without rows for a part,
 * a folder that cannot be written. ATTN_EARGUMENT, ATTN_ESHAPE, ATTN_EIO, ATTN_EMEMORY. */
ATTN_MUST_CHECK attn_status attn_trial_check(const attn_plan *plan, const attn_dataset *dataset,
                                             attn_error *error);

/* Writes steps, evaluations and figures to `descriptor` as they come, but not how it ended. */
ATTN_MUST_CHECK attn_status attn_trial_run(const attn_trial *trial, int descriptor,
                                           attn_error *error);

#endif
