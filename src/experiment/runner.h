/* Runs a plan: one process a trial, mechanisms interleaved over rounds, results to the store as
 * they come. The parent alone writes the store; what a worker does not survive is one row. */
#ifndef EXPERIMENT_RUNNER_H
#define EXPERIMENT_RUNNER_H

#include "data/dataset.h"
#include "experiment/plan.h"
#include "store/store.h"

#include <signal.h>

/* What is told while it runs. */
typedef struct attn_run_progress {
    size_t trial, n_trials;   /* trial from 1 */
    size_t round;             /* from 1 */
    const char *label;        /* the mechanism, in the shortest spelling */
    size_t step, n_steps;     /* step 0: the trial begins */
    double loss;              /* of the step; NaN before the first */
    double elapsed_s, left_s; /* since the run began, and an estimate; NaN when not known yet */
    bool is_ended;            /* the trial ended, as `state` says */
    attn_trial_state state;
    const char *reason;
} attn_run_progress;

typedef struct attn_run_options {
    const attn_plan *plan;
    const char *plan_json;
    const char *environment_json;
    const char *title; /* the command line */
    const attn_dataset *dataset;
    attn_store *store;
    bool resumes;   /* go on with the newest run of the store */
    bool is_forced; /* also under other circumstances, which marks the run */
    void (*observe)(void *argument, const attn_run_progress *progress); /* NULL: silence */
    void *argument;
    const volatile sig_atomic_t *stop; /* becomes non-zero when the user wants to stop */
} attn_run_options;

/* ATTN_OK also when trials failed: the store says which. ATTN_EINTERRUPTED when stopped; what is
 * done is kept. ATTN_ENOTFOUND, ATTN_EARGUMENT: nothing to resume, or with another plan, on another
 * machine or with another program unless forced; ATTN_EBUSY: another process is at it; and whatever the store
 * finds. */
ATTN_MUST_CHECK attn_status attn_run(const attn_run_options *options, int64_t *run_id,
                                     attn_error *error);

#endif
