/* The results store: one SQLite file in WAL mode, written by one process, the runner's parent.
 * A record is in the file, or it is not: every call is one transaction. What a call has
 * acknowledged outlives the death of the process (kill -9); a loss of power costs at most the
 * records of trials that had not ended. Reports read only this. No SQLite type leaves this folder.
 *
 * A store belongs to the process and thread that opened it: a forked child must neither use nor
 * close it. Values that are not numbers (NaN) come back as NaN. */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "attn/status.h"
#include "base/figure.h"

#include <stdint.h>

typedef struct attn_store attn_store;

enum { ATTN_STORE_SCHEMA = 3 };

typedef enum attn_store_mode {
    ATTN_STORE_READ,  /* must exist */
    ATTN_STORE_WRITE, /* made when absent; writers take turns, after 5 s ATTN_EBUSY */
} attn_store_mode;

/* How a trial ended. */
typedef enum attn_trial_state {
    ATTN_TRIAL_RUNNING, /* begun and not ended: lost with its runner, to be run again */
    ATTN_TRIAL_DONE,
    ATTN_TRIAL_FAILED,      /* the worker reported an error: see the reason */
    ATTN_TRIAL_CRASHED,     /* the worker died: signal, memory, kill */
    ATTN_TRIAL_INTERRUPTED, /* stopped by the user */
    ATTN_TRIAL_STATES
} attn_trial_state;

/* "running", "done", "failed", "crashed", "interrupted" */
const char *attn_trial_state_name(attn_trial_state state);
/* The name back to its value; ATTN_TRIAL_STATES when unknown. */
attn_trial_state attn_trial_state_parse(const char *name);

/* One optimizer step of one trial. Times are measured with CLOCK_MONOTONIC_RAW. */
typedef struct attn_store_step {
    uint64_t step;        /* from 1 */
    double loss;          /* mean over the target tokens of the step, nats */
    double gradient_norm; /* before clipping */
    double learning_rate;
    uint64_t tokens;                                   /* tokens fed, padding included */
    uint64_t target_tokens;                            /* tokens that carry loss */
    double data_s, forward_s, backward_s, optimizer_s; /* wall time of each part */
    uint64_t matmul_flop, exponential_op, other_op;    /* counted in this step */
} attn_store_step;

/* Held-out loss after `step` optimizer steps (0 = before training). */
typedef struct attn_store_evaluation {
    uint64_t step;
    double loss; /* nats per target token */
    uint64_t target_tokens;
    double time_s;
} attn_store_evaluation;

/* Mean power since the sample before, as a meter saw it while training. */
typedef struct attn_store_sample {
    char domain[16]; /* "package", "dram", "gpu", "module", "system", "psys" */
    double time_s;   /* since training began */
    double power_w;
} attn_store_sample;

/* A stretch of a trial by the calendar clock, in seconds since 1970. */
typedef struct attn_store_span {
    double begin_s, end_s;
    bool is_timed; /* one that is in train_time_s; else: the machine was at work */
} attn_store_span;

typedef struct attn_store_run {
    int64_t id;             /* given by the store */
    char created_utc[32];   /* ISO 8601 */
    char *title;            /* how it was called: the command line */
    char *plan_json;        /* everything that decides the trials */
    char *environment_json; /* machine, compiler, libraries, versions, data hash */
    char state[16];         /* "running", "done", "interrupted" */
} attn_store_run;

/* The figure that only trials of models have whose attention lets a token see later ones: the
 * number of such blocks. Their losses are not those of language models. */
#define ATTN_FIGURE_SEES_FUTURE "sees_future"

typedef struct attn_store_trial {
    int64_t id;
    int64_t run_id;
    uint32_t round;      /* from 1 */
    uint32_t position;   /* place within the round, from 1 */
    char mechanism[128]; /* its pattern, in the shortest spelling */
    attn_trial_state state;
    char reason[256]; /* "" when done */
    char started_utc[32], ended_utc[32];
    attn_store_step *steps;
    size_t n_steps;
    attn_store_evaluation *evaluations;
    size_t n_evaluations;
    attn_figure *figures; /* trial-wide figures, in the order they were stored */
    size_t n_figures;
    attn_store_sample *samples; /* by domain, then time; none in stores of schema 1 */
    size_t n_samples;
    attn_store_span *spans; /* by their begin; none in stores of schemas 1 and 2 */
    size_t n_spans;
} attn_store_trial;

/* A whole run, loaded. Free with attn_store_result_free(). */
typedef struct attn_store_result {
    attn_store_run run;
    attn_store_trial *trials; /* by round, then position */
    size_t n_trials;
} attn_store_result;

/* One line of the list of runs. */
typedef struct attn_store_overview {
    attn_store_run run;
    size_t n_trials[ATTN_TRIAL_STATES]; /* how many trials are in each state */
} attn_store_overview;

/* Opens and checks the schema; a store of an older one is brought to this one by WRITE and read as
 * it is by READ. ATTN_EFORMAT: not a store, or of a newer schema; ATTN_EIO; ATTN_EBUSY;
 * ATTN_ENOTFOUND (READ of a missing file). */
ATTN_MUST_CHECK attn_status attn_store_open(attn_store **out, const char *path,
                                            attn_store_mode mode, attn_error *error);
void attn_store_close(attn_store *store); /* NULL is fine; checkpoints the WAL */

/* Each of these is one transaction. A full disk gives ATTN_EIO and leaves what was there. An id
 * that is not in the store gives ATTN_ENOTFOUND; a place that is taken (the same step, figure
 * name, or round and position twice) ATTN_EARGUMENT. `state` is "done" or "interrupted"; an
 * unavailable figure must say why. */
ATTN_MUST_CHECK attn_status attn_store_begin_run(attn_store *store, const char *title,
                                                 const char *plan_json,
                                                 const char *environment_json, int64_t *run_id,
                                                 attn_error *error);
ATTN_MUST_CHECK attn_status attn_store_end_run(attn_store *store, int64_t run_id, const char *state,
                                               attn_error *error);
ATTN_MUST_CHECK attn_status attn_store_begin_trial(attn_store *store, int64_t run_id,
                                                   uint32_t round, uint32_t position,
                                                   const char *mechanism, int64_t *trial_id,
                                                   attn_error *error);
ATTN_MUST_CHECK attn_status attn_store_add_step(attn_store *store, int64_t trial_id,
                                                const attn_store_step *step, attn_error *error);
ATTN_MUST_CHECK attn_status attn_store_add_evaluation(attn_store *store, int64_t trial_id,
                                                      const attn_store_evaluation *evaluation,
                                                      attn_error *error);
ATTN_MUST_CHECK attn_status attn_store_add_figure(attn_store *store, int64_t trial_id,
                                                  const attn_figure *figure, attn_error *error);
ATTN_MUST_CHECK attn_status attn_store_add_sample(attn_store *store, int64_t trial_id,
                                                  const attn_store_sample *sample,
                                                  attn_error *error);
ATTN_MUST_CHECK attn_status attn_store_add_span(attn_store *store, int64_t trial_id,
                                                const attn_store_span *span, attn_error *error);
ATTN_MUST_CHECK attn_status attn_store_end_trial(attn_store *store, int64_t trial_id,
                                                 attn_trial_state state, const char *reason,
                                                 attn_error *error);

/* Drops the steps, evaluations and figures of a trial that did not end well and removes the
 * trial, so that a resumed run can do it again. Refuses trials that are done. */
ATTN_MUST_CHECK attn_status attn_store_discard_trial(attn_store *store, int64_t trial_id,
                                                     attn_error *error);

typedef struct attn_store_addition { /* known only when the run is over */
    int64_t trial_id;
    const attn_figure *figures;
    size_t n_figures;
    const attn_store_sample *samples;
    size_t n_samples;
} attn_store_addition;

/* All of it or nothing. A figure takes the place of one of its name that is unavailable;
 * ATTN_EARGUMENT when that has a value. */
ATTN_MUST_CHECK attn_status attn_store_attach(attn_store *store,
                                              const attn_store_addition *additions, size_t n,
                                              attn_error *error);

ATTN_MUST_CHECK attn_status attn_store_set_environment(attn_store *store, int64_t run_id,
                                                       const char *environment_json,
                                                       attn_error *error);

/* Makes the run this process's own until the store is closed or the process dies, so that two do
 * not work on it at once. ATTN_EBUSY: another does, and still does after a second; ATTN_EIO.
 * Closing a store that has claimed undoes SQLite's locks of other stores that this process has
 * open on the same file: there must be none. */
ATTN_MUST_CHECK attn_status attn_store_claim_run(attn_store *store, int64_t run_id,
                                                 attn_error *error);

/* The newest run's id; ATTN_ENOTFOUND when there is none. */
ATTN_MUST_CHECK attn_status attn_store_newest_run(attn_store *store, int64_t *run_id,
                                                  attn_error *error);

ATTN_MUST_CHECK attn_status attn_store_load(attn_store *store, int64_t run_id,
                                            attn_store_result **out, attn_error *error);
void attn_store_result_free(attn_store_result *result); /* NULL is fine */

/* All runs, oldest first. Free with attn_store_overviews_free(). */
ATTN_MUST_CHECK attn_status attn_store_list(attn_store *store, attn_store_overview **out,
                                            size_t *n_runs, attn_error *error);
void attn_store_overviews_free(attn_store_overview *overviews, size_t n_runs); /* NULL is fine */

#endif
