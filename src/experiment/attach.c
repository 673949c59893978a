/* A log beside a run. Jansson stays in this file. */
#include "experiment/attach.h"

#include "base/error.h"
#include "base/memory.h"
#include "experiment/measuring.h"
#include "meters/system_clock.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FIGURES_MOST = 3 + ATTN_FACTOR_FIGURES, SAMPLES_MOST = 512 };

static const char energy_name[] = "energy_system_j";

/* What one trial is given. */
typedef struct share {
    attn_figure figures[FIGURES_MOST];
    attn_store_sample samples[SAMPLES_MOST];
} share;

typedef struct attaching {
    const attn_store_result *result;
    const attn_meter_log *log;
    const char *file; /* without its folder */
    attn_factors factors;
    attn_attached *attached;
} attaching;

static const attn_figure *find(const attn_store_trial *trial, const char *name)
{
    for (size_t i = 0; i < trial->n_figures; i++)
        if (strcmp(trial->figures[i].name, name) == 0) return &trial->figures[i];
    return NULL;
}

static bool has_value(const attn_store_trial *trial, const char *name)
{
    const attn_figure *figure = find(trial, name);
    return figure && figure->provenance != ATTN_UNAVAILABLE;
}

static bool is_wanting(const attn_store_trial *trial)
{
    return trial->state == ATTN_TRIAL_DONE && !has_value(trial, energy_name);
}

/* ---- when the machine was at work --------------------------------------------------------- */

static int by_begin(const void *one, const void *other)
{
    const double a = ((const attn_meter_load *)one)->begin_s;
    const double b = ((const attn_meter_load *)other)->begin_s;
    return (a > b) - (a < b);
}

/* The spans of all trials, those that touch made one. */
static attn_status gather_loads(const attn_store_result *result, attn_meter_load **loads,
                                size_t *n_loads, attn_error *error)
{
    size_t n = 0, n_spans = 0;
    for (size_t t = 0; t < result->n_trials; t++) n_spans += result->trials[t].n_spans;
    if (n_spans == 0)
        return attn_fail(error, ATTN_EARGUMENT,
                         "run %" PRId64 " does not say when its trials were at work: it has none, "
                         "or an older attnscope made it",
                         result->run.id);
    attn_meter_load *all = attn_alloc_array(ATTN_MEMORY_OTHER, n_spans, sizeof *all);
    if (!all) return attn_fail(error, ATTN_EMEMORY, "no memory to attach a log");
    for (size_t t = 0; t < result->n_trials; t++)
        for (size_t s = 0; s < result->trials[t].n_spans; s++) {
            const attn_store_span *span = &result->trials[t].spans[s];
            all[n++] = (attn_meter_load){.begin_s = span->begin_s, .end_s = span->end_s};
        }
    qsort(all, n, sizeof *all, by_begin);
    size_t last = 0;
    for (size_t i = 1; i < n; i++) {
        if (all[i].begin_s <= all[last].end_s)
            all[last].end_s = fmax(all[last].end_s, all[i].end_s);
        else
            all[++last] = all[i];
    }
    *loads = all;
    *n_loads = last + 1;
    return ATTN_OK;
}

/* ---- a trial's energy ---------------------------------------------------------------------- */

/* The sum over the timed spans, the log's clock being `shift_s` ahead; NaN with the reason. */
static double energy_at(const attaching *a, const attn_store_trial *trial, double shift_s,
                        char why[ATTN_FIGURE_TEXT_BYTES])
{
    double sum_j = 0.0;
    size_t n = 0;
    for (size_t s = 0; s < trial->n_spans && !isnan(sum_j); s++) {
        const attn_store_span *span = &trial->spans[s];
        if (!span->is_timed) continue;
        sum_j += attn_meter_log_energy(a->log, span->begin_s + shift_s, span->end_s + shift_s, why);
        n++;
    }
    if (n > 0) return sum_j;
    snprintf(why, ATTN_FIGURE_TEXT_BYTES, "the trial does not say when it was timed");
    return NAN;
}

/* By how much readings that far apart may be wrong of the energy of the spans, as a share: at the
 * ends of each the reading lags by up to one interval. Above 1 they say nothing. */
static double blur_of(const attaching *a, const attn_store_trial *trial, double *shortest_s)
{
    double lag_s = 0.0, time_s = 0.0;
    *shortest_s = INFINITY;
    for (size_t s = 0; s < trial->n_spans; s++) {
        const attn_store_span *span = &trial->spans[s];
        if (!span->is_timed) continue;
        const double span_s = span->end_s - span->begin_s;
        time_s += span_s;
        lag_s += a->log->interval_s;
        *shortest_s = fmin(*shortest_s, span_s);
    }
    return time_s > lag_s ? lag_s / (time_s - lag_s) : INFINITY;
}

static attn_figure energy_figure(const attaching *a, const attn_store_trial *trial)
{
    const attn_meter_shift *shift = &a->attached->shift;
    char source[ATTN_FIGURE_TEXT_BYTES], why[ATTN_FIGURE_TEXT_BYTES] = "";
    double shortest_s = 0.0;
    const double blur = blur_of(a, trial, &shortest_s);
    const double energy_j = energy_at(a, trial, shift->shift_s, why);
    const attn_figure *step = find(trial, "clock_step_s");
    snprintf(source, sizeof source, "%.80s, sha256 %s, attached after the run", a->file,
             a->log->sha256);
    if (!isnan(energy_j) && step && step->value > ATTN_CLOCK_STEP_S)
        snprintf(why, sizeof why, "this machine's clock was set while the trial ran");
    else if (!isnan(energy_j) && !(blur < 1.0))
        snprintf(why, sizeof why,
                 "stretches of %.3g s are too short for a log with a reading every %.3g s",
                 shortest_s, a->log->interval_s);
    if (*why) return attn_figure_unavailable(energy_name, "J", source, why);

    attn_figure figure = attn_figure_make(
        energy_name, "J", energy_j, a->log->is_counter ? ATTN_MEASURED : ATTN_INTEGRATED, source);
    const double early_j = energy_at(a, trial, shift->shift_s - shift->within_s, why);
    const double late_j = energy_at(a, trial, shift->shift_s + shift->within_s, why);
    const double blur_j = blur > 0.01 ? blur * energy_j : 0.0;
    if (*why) return attn_figure_unavailable(energy_name, "J", source, why);
    figure.has_interval = true;
    figure.low = fmax(0.0, fmin(energy_j, fmin(early_j, late_j)) - blur_j);
    figure.high = fmax(energy_j, fmax(early_j, late_j)) + blur_j;
    snprintf(figure.why, sizeof figure.why,
             "the log's clock is %.3f s %s this machine's, within %.2g s, by the steps of load%s",
             fabs(shift->shift_s), shift->shift_s < 0.0 ? "behind" : "ahead of", shift->within_s,
             blur > 0.01 ? "; its readings are far apart for stretches so short" : "");
    return figure;
}

static attn_figure shift_figure(const attaching *a)
{
    const attn_meter_shift *shift = &a->attached->shift;
    char source[ATTN_FIGURE_TEXT_BYTES];
    snprintf(source, sizeof source,
             "clock of %.80s less this machine's: least squares of two levels, %.3g W apart, which "
             "explain %.1f %% of the power",
             a->file, shift->step_w, 100.0 * shift->explained);
    attn_figure figure =
        attn_figure_make("meter_shift_s", "s", shift->shift_s, ATTN_DERIVED, source);
    figure.has_interval = true;
    figure.low = shift->shift_s - shift->within_s;
    figure.high = shift->shift_s + shift->within_s;
    return figure;
}

static attn_figure step_figure(const attn_store_trial *trial, const attn_figure *energy)
{
    const attn_figure *warmup = find(trial, "warmup_steps");
    const double steps = (double)trial->n_steps - (warmup ? warmup->value : 0.0);
    char source[ATTN_FIGURE_TEXT_BYTES];
    snprintf(source, sizeof source, "%s / steps timed", energy->name);
    attn_figure figure =
        attn_figure_make("energy_step_j", "J", energy->value / steps, ATTN_DERIVED, source);
    figure.has_interval = energy->has_interval;
    figure.low = energy->low / steps;
    figure.high = energy->high / steps;
    return figure;
}

/* Mean power a second, or further apart in long trials, since training began. */
static size_t make_samples(const attaching *a, const attn_store_trial *trial,
                           attn_store_sample samples[SAMPLES_MOST])
{
    double begin_s = NAN, end_s = NAN;
    for (size_t s = trial->n_spans; s-- > 0;) {
        if (!trial->spans[s].is_timed) continue;
        begin_s = trial->spans[s].begin_s;
        if (isnan(end_s)) end_s = trial->spans[s].end_s;
    }
    for (size_t i = 0; i < trial->n_samples; i++)
        if (strcmp(trial->samples[i].domain, "system") == 0) return 0;
    const attn_figure *warmup = find(trial, "warmup_steps");
    double before_s = 0.0; /* of training, when timing began */
    for (size_t i = 0; warmup && i < trial->n_steps && (double)i < warmup->value; i++)
        before_s += attn_step_time_s(&trial->steps[i]);
    const double every_s = fmax(fmax(1.0, a->log->interval_s), (end_s - begin_s) / SAMPLES_MOST);
    size_t n = 0;
    char why[ATTN_FIGURE_TEXT_BYTES];
    for (double at_s = every_s; at_s <= end_s - begin_s && n < SAMPLES_MOST; at_s += every_s) {
        const double now_s = begin_s + at_s + a->attached->shift.shift_s;
        const double energy_j = attn_meter_log_energy(a->log, now_s - every_s, now_s, why);
        if (isnan(energy_j)) continue;
        samples[n++] = (attn_store_sample){
            .domain = "system", .time_s = before_s + at_s, .power_w = energy_j / every_s};
    }
    return n;
}

static void make_share(const attaching *a, const attn_store_trial *trial, share *own,
                       attn_store_addition *addition)
{
    attn_figure factors[ATTN_FACTOR_FIGURES];
    const attn_figure *energy = &own->figures[0];
    attn_attached *attached = a->attached;
    size_t n = 0;
    own->figures[n++] = energy_figure(a, trial);
    *addition = (attn_store_addition){
        .trial_id = trial->id, .figures = own->figures, .samples = own->samples};
    if (energy->provenance == ATTN_UNAVAILABLE) {
        if (attached->n_unknown++ == 0)
            snprintf(attached->why, sizeof attached->why, "%s", energy->why);
    } else {
        attached->n_measured++;
        if (!has_value(trial, "meter_shift_s")) own->figures[n++] = shift_figure(a);
        if (!has_value(trial, "energy_step_j")) own->figures[n++] = step_figure(trial, energy);
        const size_t n_factors = attn_factor_figures(&a->factors, energy, factors);
        for (size_t i = 0; i < n_factors; i++)
            if (!has_value(trial, factors[i].name)) own->figures[n++] = factors[i];
        addition->n_samples = make_samples(a, trial, own->samples);
    }
    addition->n_figures = n;
}

/* ---- all of it ----------------------------------------------------------------------------- */

/* The joules of the meter against its own watts, from the first load to the last. */
static double disagreement(const attn_meter_log *log, const attn_meter_load *loads, size_t n_loads,
                           double shift_s)
{
    double watts_j = 0.0, joules = 0.0;
    for (size_t i = 1; log->is_counter && i < log->n; i++) {
        if (log->time_s[i - 1] < loads[0].begin_s + shift_s ||
            log->time_s[i] > loads[n_loads - 1].end_s + shift_s ||
            log->n_breaks[i] != log->n_breaks[i - 1])
            continue;
        joules += log->energy_j[i] - log->energy_j[i - 1];
        watts_j +=
            0.5 * (log->power_w[i] + log->power_w[i - 1]) * (log->time_s[i] - log->time_s[i - 1]);
    }
    return watts_j > 0.0 ? joules / watts_j - 1.0 : NAN;
}

static attn_status check_wanting(const attn_store_result *result, attn_attached *attached,
                                 size_t *n_wanting, attn_error *error)
{
    const attn_figure *there = NULL;
    *n_wanting = 0;
    for (size_t t = 0; t < result->n_trials; t++) {
        const attn_store_trial *trial = &result->trials[t];
        attached->n_done += trial->state == ATTN_TRIAL_DONE;
        *n_wanting += is_wanting(trial);
        if (trial->state == ATTN_TRIAL_DONE && has_value(trial, energy_name))
            there = find(trial, energy_name);
    }
    if (*n_wanting > 0) return ATTN_OK;
    if (!there)
        return attn_fail(error, ATTN_EARGUMENT, "run %" PRId64 " has no trial that is done",
                         result->run.id);
    return attn_fail(error, ATTN_EARGUMENT,
                     "every trial of run %" PRId64 " has its energy_system_j (%.120s): nothing is "
                     "counted twice",
                     result->run.id, there->source);
}

static attn_status attach_shares(attn_store *store, const attaching *a, size_t n_wanting,
                                 attn_error *error)
{
    size_t n = 0;
    share *shares = attn_alloc_array(ATTN_MEMORY_OTHER, n_wanting, sizeof *shares);
    attn_store_addition *additions =
        attn_alloc_array(ATTN_MEMORY_OTHER, n_wanting, sizeof *additions);
    attn_status status = ATTN_OK;
    if (!shares || !additions) status = attn_fail(error, ATTN_EMEMORY, "no memory to attach a log");
    for (size_t t = 0; status == ATTN_OK && t < a->result->n_trials; t++) {
        if (!is_wanting(&a->result->trials[t])) continue;
        make_share(a, &a->result->trials[t], &shares[n], &additions[n]);
        n++;
    }
    if (status == ATTN_OK && a->attached->n_measured == 0)
        status = attn_fail(error, ATTN_ENOTFOUND, "%s tells of no trial of run %" PRId64 ": %s",
                           a->file, a->result->run.id, a->attached->why);
    if (status == ATTN_OK) status = attn_store_attach(store, additions, n, error);
    attn_free(shares);
    attn_free(additions);
    return status;
}

attn_status attn_attach_log(attn_store *store, int64_t run_id, const char *path, double offset_s,
                            attn_attached *attached, attn_error *error)
{
    attn_store_result *result = NULL;
    attn_meter_log log = {0};
    attn_meter_load *loads = NULL;
    json_t *plan = NULL;
    size_t n_loads = 0, n_wanting = 0;
    *attached = (attn_attached){.disagreement = NAN};
    attn_status status = attn_store_claim_run(store, run_id, error);
    if (status == ATTN_OK) status = attn_store_load(store, run_id, &result, error);
    if (status == ATTN_OK) status = check_wanting(result, attached, &n_wanting, error);
    if (status == ATTN_OK) status = gather_loads(result, &loads, &n_loads, error);
    if (status == ATTN_OK) status = attn_meter_log_read(&log, path, offset_s, error);
    if (status == ATTN_OK)
        status = attn_meter_log_align(&log, loads, n_loads, &attached->shift, error);
    if (status == ATTN_OK) {
        plan = json_loads(result->run.plan_json, 0, NULL);
        const json_t *measuring = json_object_get(plan, "measuring");
        const char *name = strrchr(path, '/');
        const attaching a = {
            .result = result,
            .log = &log,
            .file = name ? name + 1 : path,
            .factors = {.pue = json_number_value(json_object_get(measuring, "pue")),
                        .carbon_g_per_kwh =
                            json_number_value(json_object_get(measuring, "carbon_intensity")),
                        .carbon_source =
                            json_string_value(json_object_get(measuring, "carbon_source"))},
            .attached = attached};
        memcpy(attached->sha256, log.sha256, sizeof attached->sha256);
        attached->interval_s = log.interval_s;
        attached->is_counter = log.is_counter;
        attached->disagreement = disagreement(&log, loads, n_loads, attached->shift.shift_s);
        status = attach_shares(store, &a, n_wanting, error);
    }
    json_decref(plan);
    attn_free(loads);
    attn_meter_log_free(&log);
    attn_store_result_free(result);
    return status;
}
