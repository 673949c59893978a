/* Curves: running sums of each round, then medians over rounds. */
#include "report/curves.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/statistics.h"
#include "report/overlay.h"

#include <math.h>
#include <string.h>

/* One round on its way through its steps. */
typedef struct round_sums {
    const attn_store_trial *trial;
    double time_s, operations, step_energy_j;
    size_t n_taken; /* steps that are in the sums */
} round_sums;

static bool is_of(const attn_store_trial *trial, const char *mechanism)
{
    return trial->state == ATTN_TRIAL_DONE && strcmp(trial->mechanism, mechanism) == 0;
}

static double step_energy(const attn_store_trial *trial)
{
    for (size_t i = 0; i < trial->n_figures; i++)
        if (strcmp(trial->figures[i].name, "energy_step_j") == 0)
            return trial->figures[i].provenance == ATTN_MODELLED ? NAN : trial->figures[i].value;
    return NAN;
}

static void take_step(round_sums *r)
{
    const attn_store_step *s = &r->trial->steps[r->n_taken++];
    r->time_s += s->data_s + s->forward_s + s->backward_s + s->optimizer_s;
    r->operations += (double)s->matmul_flop + (double)s->exponential_op + (double)s->other_op;
}

/* NaN as soon as one value is: a median of the rest would hide a round that diverged. */
static double median_of(double *values, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(values[i])) return NAN;
    attn_statistics_sort(values, n);
    return attn_statistics_median(values, n);
}

/* The sums of all rounds at `step`, without the loss. */
static attn_curve_point point_at(const round_sums *rounds, size_t n, double step, double *scratch)
{
    attn_curve_point point = {.step = step, .loss = NAN};
    for (size_t r = 0; r < n; r++) scratch[r] = rounds[r].time_s;
    point.time_s = median_of(scratch, n);
    for (size_t r = 0; r < n; r++) scratch[r] = rounds[r].operations;
    point.operations = median_of(scratch, n);
    for (size_t r = 0; r < n; r++) scratch[r] = step * rounds[r].step_energy_j;
    point.energy_j = median_of(scratch, n);
    return point;
}

static const attn_store_evaluation *evaluation_at(const attn_store_trial *trial, uint64_t step)
{
    for (size_t i = 0; i < trial->n_evaluations; i++)
        if (trial->evaluations[i].step == step) return &trial->evaluations[i];
    return NULL;
}

static void make_training(attn_curves *curves, round_sums *rounds, size_t n, size_t n_steps,
                          size_t stride, double *scratch)
{
    for (size_t i = 0; i < n_steps; i++) {
        for (size_t r = 0; r < n; r++) take_step(&rounds[r]);
        if (i % stride != 0 && i + 1 < n_steps) continue;
        attn_curve_point point =
            point_at(rounds, n, (double)rounds[0].trial->steps[i].step, scratch);
        for (size_t r = 0; r < n; r++) scratch[r] = rounds[r].trial->steps[i].loss;
        point.loss = median_of(scratch, n);
        curves->training[curves->n_training++] = point;
    }
}

/* At the evaluations that all rounds have. */
static void make_held_out(attn_curves *curves, round_sums *rounds, size_t n, double *scratch)
{
    for (size_t r = 0; r < n; r++) rounds[r].time_s = rounds[r].operations = 0.0;
    for (size_t r = 0; r < n; r++) rounds[r].n_taken = 0;
    for (size_t e = 0; e < rounds[0].trial->n_evaluations; e++) {
        const uint64_t step = rounds[0].trial->evaluations[e].step;
        bool is_everywhere = true;
        for (size_t r = 0; r < n && is_everywhere; r++) {
            const attn_store_trial *trial = rounds[r].trial;
            while (rounds[r].n_taken < trial->n_steps &&
                   trial->steps[rounds[r].n_taken].step <= step)
                take_step(&rounds[r]);
            is_everywhere = evaluation_at(trial, step) != NULL;
        }
        if (!is_everywhere) continue;
        attn_curve_point point = point_at(rounds, n, (double)step, scratch);
        for (size_t r = 0; r < n; r++) scratch[r] = evaluation_at(rounds[r].trial, step)->loss;
        point.loss = median_of(scratch, n);
        curves->held_out[curves->n_held_out++] = point;
    }
}

attn_status attn_curves_make(const attn_summary *summary, size_t mechanism, size_t points_most,
                             attn_curves *out, attn_error *error)
{
    *out = (attn_curves){0};
    const attn_store_result *result = summary->result;
    const char *name = summary->mechanisms[mechanism].name;
    attn_status status = ATTN_OK;
    size_t n = 0, n_steps = SIZE_MAX;
    round_sums *rounds = attn_alloc_array(ATTN_MEMORY_OTHER, result->n_trials, sizeof *rounds);
    double *scratch = attn_alloc_array(ATTN_MEMORY_OTHER, result->n_trials, sizeof *scratch);
    if (!rounds || !scratch) goto no_memory;
    for (size_t t = 0; t < result->n_trials; t++) {
        const attn_store_trial *trial = &result->trials[t];
        if (!is_of(trial, name)) continue;
        rounds[n++] = (round_sums){.trial = trial, .step_energy_j = step_energy(trial)};
        if (trial->n_steps < n_steps) n_steps = trial->n_steps;
    }
    if (n == 0) goto done;
    out->training = attn_alloc_array(ATTN_MEMORY_OTHER, n_steps, sizeof *out->training);
    out->held_out =
        attn_alloc_array(ATTN_MEMORY_OTHER, rounds[0].trial->n_evaluations, sizeof *out->held_out);
    if (!out->training || !out->held_out) goto no_memory;
    make_training(out, rounds, n, n_steps, n_steps / points_most + 1, scratch);
    make_held_out(out, rounds, n, scratch);
    goto done;
no_memory:
    status = attn_fail(error, ATTN_EMEMORY, "no memory for the curves of %s", name);
    attn_curves_free(out);
done:
    attn_free(rounds);
    attn_free(scratch);
    return status;
}

void attn_curves_free(attn_curves *curves)
{
    if (!curves) return;
    attn_free(curves->training);
    attn_free(curves->held_out);
    *curves = (attn_curves){0};
}

attn_curve_look attn_curves_look(const attn_summary *summary, size_t mechanism)
{
    enum { COLOURS = 8, DASHES = 4, POINTS = 4 };
    if (!summary->overlay) {
        const size_t again = mechanism / COLOURS;
        return (attn_curve_look){.colour = mechanism % COLOURS,
                                 .dash = (again + 2 * (mechanism % 2)) % DASHES,
                                 .point = (mechanism + again) % POINTS};
    }
    const char *name = summary->mechanisms[mechanism].name;
    const size_t run = attn_overlay_run(&summary->mechanisms[mechanism]);
    size_t n_before = 0, first = mechanism; /* of the namesakes, behind the letters */
    for (size_t i = mechanism; i-- > 0;)
        if (strcmp(summary->mechanisms[i].name + 1, name + 1) == 0) first = i;
    for (size_t i = 0; i < first; i++) {
        bool is_new = true;
        for (size_t k = 0; k < i; k++)
            is_new &= strcmp(summary->mechanisms[k].name + 1, summary->mechanisms[i].name + 1) != 0;
        n_before += is_new;
    }
    return (attn_curve_look){
        .colour = n_before % COLOURS, .dash = run % DASHES, .point = run % POINTS};
}

const char *const attn_curves_costs[ATTN_CURVES_COSTS] = {
    "train_time_s", "energy_components_j", "energy_cpu_package_j", "energy_system_j"};

bool attn_curves_is_on_front(const attn_summary *summary, size_t mechanism, const char *cost)
{
    static const char loss[] = "held_out_loss";
    const attn_summary_mechanism *m = &summary->mechanisms[mechanism];
    const double own_cost = attn_summary_value(m, cost), own_loss = attn_summary_value(m, loss);
    if (m->sees_future || m->is_again || isnan(own_cost) || isnan(own_loss)) return false;
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const attn_summary_mechanism *other = &summary->mechanisms[i];
        const double c = attn_summary_value(other, cost), l = attn_summary_value(other, loss);
        if (!other->sees_future && !other->is_again && c <= own_cost && l <= own_loss &&
            (c < own_cost || l < own_loss))
            return false;
    }
    return true;
}

const attn_store_trial *attn_curves_power_trial(const attn_summary *summary, size_t mechanism)
{
    const attn_store_trial *last = NULL;
    for (size_t t = 0; t < summary->result->n_trials; t++) {
        const attn_store_trial *trial = &summary->result->trials[t];
        if (is_of(trial, summary->mechanisms[mechanism].name) && trial->n_samples > 0) last = trial;
    }
    return last;
}
