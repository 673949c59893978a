/* The runner: the schedule, what is left of it, and one trial after the other. */
#define _POSIX_C_SOURCE 200809L
#include "experiment/runner.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/text.h"
#include "experiment/worker.h"
#include "store/likeness.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

typedef struct runner {
    const attn_run_options *options;
    int64_t run_id;
    uint64_t begin_ns;
    size_t n_trials;               /* of the plan */
    size_t trial;                  /* the present one, from 1 */
    size_t steps_seen, steps_left; /* of this session; those of trials still to run */
    attn_differences changed;      /* since the run began, when it was resumed by force */
} runner;

static double seconds_left(const runner *r, double elapsed_s)
{
    if (r->steps_left == 0) return 0.0;
    if (r->steps_seen == 0) return NAN;
    return elapsed_s / (double)r->steps_seen * (double)r->steps_left;
}

static void tell(const runner *r, size_t round, const char *label, attn_run_progress progress)
{
    if (!r->options->observe) return;
    progress.trial = r->trial;
    progress.n_trials = r->n_trials;
    progress.round = round + 1;
    progress.label = label;
    progress.n_steps = r->options->plan->steps;
    progress.elapsed_s = attn_clock_seconds(r->begin_ns, attn_clock_ns());
    progress.left_s = seconds_left(r, progress.elapsed_s);
    r->options->observe(r->options->argument, &progress);
}

/* Stores a record and says so. */
static attn_status take_record(runner *r, int64_t trial_id, size_t round, const char *label,
                               const attn_record *record, attn_error *error)
{
    attn_store *store = r->options->store;
    switch (record->kind) {
    case ATTN_RECORD_STEP:
        r->steps_seen++;
        r->steps_left--;
        tell(r, round, label,
             (attn_run_progress){.step = (size_t)record->step.step, .loss = record->step.loss});
        return attn_store_add_step(store, trial_id, &record->step, error);
    case ATTN_RECORD_EVALUATION:
        return attn_store_add_evaluation(store, trial_id, &record->evaluation, error);
    case ATTN_RECORD_FIGURE:
        return attn_store_add_figure(store, trial_id, &record->figure, error);
    case ATTN_RECORD_SAMPLE:
        return attn_store_add_sample(store, trial_id, &record->sample, error);
    case ATTN_RECORD_SPAN:
        return attn_store_add_span(store, trial_id, &record->span, error);
    case ATTN_RECORD_FAILED:
    case ATTN_RECORD_DONE:
        break;
    }
    return ATTN_OK;
}

/* Reads the worker's records until it ends. A failing store ends the worker too. */
static attn_status follow(runner *r, attn_worker *worker, int64_t trial_id, size_t round,
                          const char *label, attn_worker_end *end, attn_error *error)
{
    attn_record record;
    attn_status status = ATTN_OK;
    bool is_stopped = false;
    for (;;) {
        const attn_record_result result = attn_worker_read(worker, &record);
        if (*r->options->stop && !is_stopped) {
            is_stopped = true;
            attn_worker_kill(worker);
        }
        if (result == ATTN_RECORD_END) break;
        if (result == ATTN_RECORD_LATER || status != ATTN_OK) continue;
        status = take_record(r, trial_id, round, label, &record, error);
        if (status != ATTN_OK) attn_worker_kill(worker);
    }
    attn_worker_end_of(worker, end);
    if (is_stopped && end->state != ATTN_TRIAL_DONE) {
        end->state = ATTN_TRIAL_INTERRUPTED;
        strcpy(end->reason, "stopped by the user");
    }
    return status;
}

static attn_status refuse_more(attn_error *error)
{
    return attn_fail(error, ATTN_EINTERRUPTED,
                     "stopped; what is done is kept: go on with --resume");
}

/* A trial that is not done as the first of its run were says so. */
static attn_status mark_trial(const runner *r, int64_t trial_id, attn_error *error)
{
    if (r->changed.n == 0) return ATTN_OK;
    attn_figure figure =
        attn_figure_make(ATTN_FIGURE_CIRCUMSTANCES, "", (double)r->changed.n, ATTN_COUNTED,
                         "what differs from the machine and program that the run began with");
    snprintf(figure.why, sizeof figure.why, "%.160s%s", r->changed.texts[0],
             r->changed.n > 1 ? ", and more" : "");
    return attn_store_add_figure(r->options->store, trial_id, &figure, error);
}

static attn_status run_trial(runner *r, size_t round, size_t position, size_t mechanism,
                             attn_error *error)
{
    const attn_run_options *options = r->options;
    const char *label = options->plan->mechanisms[mechanism].label;
    int64_t trial_id = 0;
    attn_status status = attn_store_begin_trial(options->store, r->run_id, (uint32_t)round + 1,
                                                (uint32_t)position + 1, label, &trial_id, error);
    if (status == ATTN_OK) status = mark_trial(r, trial_id, error);
    if (status != ATTN_OK) return status;
    tell(r, round, label, (attn_run_progress){.step = 0, .loss = NAN});

    const attn_trial trial = {.plan = options->plan,
                              .dataset = options->dataset,
                              .mechanism = &options->plan->mechanisms[mechanism],
                              .round = round + 1};
    const size_t steps_before = r->steps_seen;
    attn_worker worker;
    attn_worker_end end = {.state = ATTN_TRIAL_FAILED};
    attn_error start_error = {0};
    if (attn_worker_start(&worker, &trial, &start_error) == ATTN_OK)
        status = follow(r, &worker, trial_id, round, label, &end, error);
    else
        attn_text_copy(end.reason, sizeof end.reason, start_error.text);
    if (status != ATTN_OK) return status;
    r->steps_left -= options->plan->steps - (r->steps_seen - steps_before);
    status = attn_store_end_trial(options->store, trial_id, end.state, end.reason, error);
    tell(r, round, label,
         (attn_run_progress){.step = options->plan->steps,
                             .loss = NAN,
                             .is_ended = true,
                             .state = end.state,
                             .reason = end.reason});
    if (status == ATTN_OK && end.state == ATTN_TRIAL_INTERRUPTED) status = refuse_more(error);
    return status;
}

/* ---- what is done already ---------------------------------------------------------------- */

static bool is_done(const attn_store_result *before, size_t round, const char *label)
{
    for (size_t i = 0; before && i < before->n_trials; i++) {
        const attn_store_trial *t = &before->trials[i];
        if (t->round == round + 1 && strcmp(t->mechanism, label) == 0 &&
            t->state == ATTN_TRIAL_DONE)
            return true;
    }
    return false;
}

/* Trials of two machines or programs are not rounds of one experiment; who wants them all the same
 * has them marked. */
static attn_status check_circumstances(runner *r, const attn_store_result *before,
                                       attn_error *error)
{
    size_t n_done = 0;
    char *noted = NULL;
    attn_differences since = {.n = 0};
    for (size_t i = 0; i < before->n_trials; i++)
        n_done += before->trials[i].state == ATTN_TRIAL_DONE;
    attn_status status =
        attn_likeness_resume(before->run.environment_json, r->options->environment_json, n_done,
                             &r->changed, &since, &noted, error);
    if (status == ATTN_OK && noted && !r->options->is_forced)
        status = attn_fail(error, ATTN_EARGUMENT,
                           "the newest run of the store began under other circumstances, and its "
                           "trials would not compare with those of now: %s%s; bring them back, "
                           "leave out --resume to begin anew, or --force it, which marks the run",
                           since.texts[0], since.n > 1 ? ", and more" : "");
    if (status == ATTN_OK && noted)
        status = attn_store_set_environment(r->options->store, r->run_id, noted, error);
    attn_free(noted);
    return status;
}

/* Finds the run to resume and drops what it left half done. */
static attn_status take_up(runner *r, attn_store_result **before, attn_error *error)
{
    const attn_run_options *options = r->options;
    attn_status status = attn_store_newest_run(options->store, &r->run_id, error);
    if (status == ATTN_OK) status = attn_store_claim_run(options->store, r->run_id, error);
    if (status != ATTN_OK) return status;
    status = attn_store_load(options->store, r->run_id, before, error);
    if (status != ATTN_OK) return status;
    if (strcmp((*before)->run.plan_json, options->plan_json) != 0)
        return attn_fail(error, ATTN_EARGUMENT,
                         "the newest run of the store has another plan: give the options it began "
                         "with (%s), or leave out --resume to begin anew",
                         (*before)->run.title);
    status = check_circumstances(r, *before, error);
    for (size_t i = 0; i < (*before)->n_trials && status == ATTN_OK; i++) {
        if ((*before)->trials[i].state == ATTN_TRIAL_DONE)
            r->steps_left -= options->plan->steps;
        else
            status = attn_store_discard_trial(options->store, (*before)->trials[i].id, error);
    }
    if (status == ATTN_OK) status = attn_store_end_run(options->store, r->run_id, "running", error);
    return status;
}

/* Rest between two trials, cut short when the user wants to stop. */
static void cool_down(const runner *r)
{
    const uint64_t begin_ns = attn_clock_ns();
    const struct timespec tenth = {.tv_nsec = 100000000};
    while (!*r->options->stop &&
           attn_clock_seconds(begin_ns, attn_clock_ns()) < r->options->plan->measuring.cool_down_s)
        nanosleep(&tenth, NULL);
}

static attn_status run_all(runner *r, const attn_store_result *before, attn_error *error)
{
    const attn_plan *plan = r->options->plan;
    size_t order[ATTN_PLAN_MECHANISMS_MAX];
    for (size_t round = 0; round < plan->rounds; round++) {
        attn_plan_order(plan, round, order);
        for (size_t position = 0; position < plan->n_mechanisms; position++) {
            r->trial++;
            if (is_done(before, round, plan->mechanisms[order[position]].label)) continue;
            if (*r->options->stop) return refuse_more(error);
            if (r->steps_seen > 0) cool_down(r);
            const attn_status status = run_trial(r, round, position, order[position], error);
            if (status != ATTN_OK) return status;
        }
    }
    return ATTN_OK;
}

static attn_status begin(runner *r, attn_error *error)
{
    const attn_run_options *options = r->options;
    const attn_status status =
        attn_store_begin_run(options->store, options->title, options->plan_json,
                             options->environment_json, &r->run_id, error);
    return status == ATTN_OK ? attn_store_claim_run(options->store, r->run_id, error) : status;
}

attn_status attn_run(const attn_run_options *options, int64_t *run_id, attn_error *error)
{
    runner r = {.options = options,
                .begin_ns = attn_clock_ns(),
                .n_trials = options->plan->rounds * options->plan->n_mechanisms};
    r.steps_left = r.n_trials * options->plan->steps;
    attn_store_result *before = NULL;
    attn_status status = options->resumes ? take_up(&r, &before, error) : begin(&r, error);
    if (status == ATTN_OK) {
        *run_id = r.run_id;
        status = run_all(&r, before, error);
        /* The trials' own failures stay with them; the run is over all the same. */
        const char *state = status == ATTN_OK ? "done" : "interrupted";
        attn_error late = {0};
        const attn_status ended = attn_store_end_run(options->store, r.run_id, state, &late);
        if (status == ATTN_OK && ended != ATTN_OK)
            status = attn_fail(error, ended, "%s", late.text);
    }
    attn_store_result_free(before);
    return status;
}
