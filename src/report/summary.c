/* Trials to summaries. */
#include "report/summary.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/statistics.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

/* ---- the plan --------------------------------------------------------------------------- */

static const char *plan_mechanism(const json_t *plan, size_t index)
{
    const json_t *entry = json_array_get(json_object_get(plan, "mechanisms"), index);
    return json_string_value(json_is_object(entry) ? json_object_get(entry, "name") : entry);
}

static size_t plan_trials(const json_t *plan)
{
    const json_int_t rounds = json_integer_value(json_object_get(plan, "rounds"));
    return rounds > 0 ? json_array_size(json_object_get(plan, "mechanisms")) * (size_t)rounds : 0;
}

size_t attn_plan_trials(const char *plan_json)
{
    json_t *plan = json_loads(plan_json, 0, NULL);
    const size_t n = plan_trials(plan);
    json_decref(plan);
    return n;
}

/* ---- one figure over the rounds --------------------------------------------------------- */

static const attn_figure *trial_figure(const attn_store_trial *trial, const char *name)
{
    for (size_t i = 0; i < trial->n_figures; i++)
        if (strcmp(trial->figures[i].name, name) == 0) return &trial->figures[i];
    return NULL;
}

bool attn_summary_sees_future(const attn_store_trial *trial)
{
    const attn_figure *figure = trial_figure(trial, ATTN_FIGURE_SEES_FUTURE);
    return figure && figure->value > 0;
}

static bool is_part(const attn_store_trial *trial, const char *mechanism)
{
    return trial->state == ATTN_TRIAL_DONE && strcmp(trial->mechanism, mechanism) == 0;
}

/* A number that exists: the median of rounds of which one diverged would hide it, so one value
 * that is not finite leaves none. */
static void summarise_values(attn_summary_figure *s, double *values, size_t n_not_finite)
{
    if (n_not_finite > 0) {
        snprintf(s->why, sizeof s->why, "not a finite number in %zu of %zu rounds", n_not_finite,
                 s->n);
        return;
    }
    attn_statistics_sort(values, s->n);
    s->median = attn_statistics_median(values, s->n);
    s->minimum = values[0];
    s->maximum = values[s->n - 1];
    const attn_rank_interval interval = attn_statistics_median_interval(values, s->n);
    if (s->n < 2) return;
    s->spread = interval.is_known ? ATTN_SPREAD_CONFIDENCE : ATTN_SPREAD_RANGE;
    s->low = interval.is_known ? interval.low : s->minimum;
    s->high = interval.is_known ? interval.high : s->maximum;
}

/* The interval of a model: its outermost ends over the rounds. */
static void widen_model_interval(attn_summary_figure *s, const attn_figure *figure)
{
    if (!figure->has_interval) return;
    const bool first = s->spread != ATTN_SPREAD_MODEL;
    s->low = first || figure->low < s->low ? figure->low : s->low;
    s->high = first || figure->high > s->high ? figure->high : s->high;
    s->spread = ATTN_SPREAD_MODEL;
}

static void summarise_figure(attn_summary_figure *s, const attn_store_result *result,
                             const char *mechanism, const attn_figure *model, double *values)
{
    *s = (attn_summary_figure){.name = model->name,
                               .unit = model->unit,
                               .source = model->source,
                               .provenance = ATTN_UNAVAILABLE,
                               .median = NAN,
                               .minimum = NAN,
                               .maximum = NAN,
                               .low = NAN,
                               .high = NAN,
                               .ratio = NAN,
                               .ratio_low = NAN,
                               .ratio_high = NAN};
    size_t n_not_finite = 0;
    for (size_t t = 0; t < result->n_trials; t++) {
        if (!is_part(&result->trials[t], mechanism)) continue;
        const attn_figure *figure = trial_figure(&result->trials[t], model->name);
        if (!figure) continue;
        if (figure->provenance == ATTN_UNAVAILABLE) {
            if (s->why[0] == '\0') snprintf(s->why, sizeof s->why, "%s", figure->why);
            continue;
        }
        if (s->n == 0) {
            s->provenance = figure->provenance;
            s->unit = figure->unit;
            s->source = figure->source;
        }
        s->is_mixed |= figure->provenance != s->provenance || strcmp(figure->unit, s->unit) != 0;
        if (!isfinite(figure->value)) n_not_finite++;
        values[s->n++] = figure->value;
    }
    if (s->n == 0) return;
    s->why[0] = '\0';
    if (s->is_mixed) {
        snprintf(s->why, sizeof s->why, "its rounds differ in provenance or unit");
        return;
    }
    summarise_values(s, values, n_not_finite);
    if (s->provenance != ATTN_MODELLED) return;
    s->spread = ATTN_SPREAD_NONE; /* rounds say nothing about the error of a model */
    for (size_t t = 0; t < result->n_trials; t++) {
        if (!is_part(&result->trials[t], mechanism)) continue;
        const attn_figure *figure = trial_figure(&result->trials[t], model->name);
        if (figure) widen_model_interval(s, figure);
    }
}

/* ---- against the baseline --------------------------------------------------------------- */

static const attn_store_trial *trial_of_round(const attn_store_result *result,
                                              const char *mechanism, uint32_t round)
{
    for (size_t t = 0; t < result->n_trials; t++)
        if (is_part(&result->trials[t], mechanism) && result->trials[t].round == round)
            return &result->trials[t];
    return NULL;
}

/* Pairs are of quantities with a true zero, and of losses, as perplexities: no shares, no plain
 * numbers. */
static bool has_pairs(const attn_summary_figure *s)
{
    return s->unit[0] != '\0' && s->provenance != ATTN_MODELLED && !isnan(s->median);
}

size_t attn_summary_collect(const attn_store_result *a, const char *mechanism_a,
                            const attn_store_result *b, const char *mechanism_b, const char *name,
                            double *left, double *right)
{
    size_t n = 0;
    for (size_t t = 0; t < a->n_trials && n < ATTN_PAIRS_MAX; t++) {
        const attn_store_trial *trial = &a->trials[t];
        if (!is_part(trial, mechanism_a)) continue;
        const attn_store_trial *partner = trial_of_round(b, mechanism_b, trial->round);
        const attn_figure *one = trial_figure(trial, name);
        const attn_figure *other = partner ? trial_figure(partner, name) : NULL;
        if (!one || !other || one->provenance != other->provenance ||
            one->provenance == ATTN_UNAVAILABLE || strcmp(one->unit, other->unit) != 0)
            continue;
        const bool is_loss = strcmp(one->unit, "nat") == 0;
        left[n] = is_loss ? exp(one->value) : one->value;
        right[n++] = is_loss ? exp(other->value) : other->value;
    }
    return n;
}

attn_paired attn_summary_pair(const attn_summary *summary, size_t a, size_t b, const char *name,
                              const attn_paired_options *options)
{
    double left[ATTN_PAIRS_MAX], right[ATTN_PAIRS_MAX];
    const attn_summary_figure *one = attn_summary_find(&summary->mechanisms[a], name);
    const attn_summary_figure *other = attn_summary_find(&summary->mechanisms[b], name);
    size_t n = 0;
    if (one && other && has_pairs(one) && has_pairs(other) && one->provenance == other->provenance)
        n = attn_summary_collect(summary->result, summary->mechanisms[a].name, summary->result,
                                 summary->mechanisms[b].name, name, left, right);
    return attn_paired_compare(left, right, n, options);
}

static void compare_with_baseline(attn_summary *summary, size_t mechanism)
{
    for (size_t f = 0; f < summary->mechanisms[mechanism].n_figures; f++) {
        attn_summary_figure *s = &summary->mechanisms[mechanism].figures[f];
        const attn_paired pair =
            attn_summary_pair(summary, mechanism, 0, s->name, &(attn_paired_options){0});
        if (pair.n == 0 || strcmp(s->unit, "nat") == 0) continue; /* shown as what they are */
        s->ratio = pair.ratio;
        s->ratio_low = isnan(pair.low) ? pair.least : pair.low;
        s->ratio_high = isnan(pair.high) ? pair.greatest : pair.high;
    }
}

/* ---- mechanisms ------------------------------------------------------------------------- */

static uint64_t trial_tokens(const attn_store_trial *trial)
{
    uint64_t tokens = 0;
    for (size_t i = 0; i < trial->n_steps; i++) tokens += trial->steps[i].tokens;
    return tokens;
}

static bool has_figure(const attn_summary_mechanism *m, const char *name)
{
    return attn_summary_find(m, name) != NULL;
}

static attn_status summarise_mechanism(attn_summary_mechanism *m, const attn_store_result *result,
                                       double *values, attn_error *error)
{
    size_t room = 0;
    bool tokens_differ = false;
    for (size_t t = 0; t < result->n_trials; t++) {
        const attn_store_trial *trial = &result->trials[t];
        if (strcmp(trial->mechanism, m->name) != 0) continue;
        m->n_trials[trial->state]++;
        m->sees_future |= attn_summary_sees_future(trial);
        if (trial->state == ATTN_TRIAL_DONE) {
            const uint64_t tokens = trial_tokens(trial);
            tokens_differ |= m->n_trials[ATTN_TRIAL_DONE] > 1 && tokens != m->tokens;
            m->tokens = tokens;
            room += trial->n_figures;
        } else if (trial->state != ATTN_TRIAL_RUNNING && !m->reason) {
            m->reason = trial->reason;
            m->reason_state = trial->state;
            m->reason_round = trial->round;
        }
    }
    if (tokens_differ) m->tokens = 0;
    m->figures = attn_alloc_array(ATTN_MEMORY_OTHER, room, sizeof *m->figures);
    if (!m->figures) return attn_fail(error, ATTN_EMEMORY, "no memory for the summary of a run");
    for (size_t t = 0; t < result->n_trials; t++) {
        const attn_store_trial *trial = &result->trials[t];
        for (size_t f = 0; is_part(trial, m->name) && f < trial->n_figures; f++)
            if (!has_figure(m, trial->figures[f].name))
                summarise_figure(&m->figures[m->n_figures++], result, m->name, &trial->figures[f],
                                 values);
    }
    return ATTN_OK;
}

static bool is_named(const attn_summary *summary, const char *name)
{
    for (size_t i = 0; i < summary->n_mechanisms; i++)
        if (strcmp(summary->mechanisms[i].name, name) == 0) return true;
    return false;
}

static size_t place_of(const attn_summary *summary, const char *name)
{
    size_t i = 0;
    while (i < summary->n_mechanisms && strcmp(summary->mechanisms[i].name, name) != 0) i++;
    return i;
}

static void mark_twin(attn_summary *summary, const char *name, size_t original)
{
    const size_t twin = name ? place_of(summary, name) : summary->n_mechanisms;
    if (twin == summary->n_mechanisms || original >= summary->n_mechanisms || twin == original)
        return;
    summary->mechanisms[twin].is_again = true;
    summary->mechanisms[twin].original = original;
    summary->n_twins++;
}

/* A run names the twin of its first mechanism; runs that are shown together name pairs. */
static void mark_twins(attn_summary *summary, const json_t *again)
{
    size_t i;
    const json_t *pair;
    mark_twin(summary, json_string_value(again), 0);
    json_array_foreach(again, i, pair)
    {
        const char *of = json_string_value(json_array_get(pair, 1));
        if (of)
            mark_twin(summary, json_string_value(json_array_get(pair, 0)), place_of(summary, of));
    }
}

/* A name from the plan counts only through its trials: what was never begun has nothing to show,
 * and the trials keep the text alive. */
static attn_status name_mechanisms(attn_summary *summary, const attn_store_result *result,
                                   attn_error *error)
{
    json_error_t problem;
    json_t *plan = json_loads(result->run.plan_json, 0, &problem);
    if (!plan && json_error_code(&problem) == json_error_out_of_memory)
        return attn_fail(error, ATTN_EMEMORY, "no memory to read the plan of a run");
    summary->n_trials_planned = plan_trials(plan);
    const size_t n_planned = json_array_size(json_object_get(plan, "mechanisms"));
    for (size_t pass = 0; pass <= n_planned; pass++) {
        const char *wanted = pass < n_planned ? plan_mechanism(plan, pass) : NULL;
        if (pass < n_planned && !wanted) continue;
        for (size_t t = 0; t < result->n_trials; t++) {
            const char *name = result->trials[t].mechanism;
            if ((!wanted || strcmp(name, wanted) == 0) && !is_named(summary, name))
                summary->mechanisms[summary->n_mechanisms++].name = name;
        }
    }
    mark_twins(summary, json_object_get(json_object_get(plan, "measuring"), "again"));
    json_decref(plan);
    return ATTN_OK;
}

attn_status attn_summary_make(const attn_store_result *result, attn_summary **out,
                              attn_error *error)
{
    *out = NULL;
    attn_status status = ATTN_OK;
    double *values = attn_alloc_array(ATTN_MEMORY_OTHER, result->n_trials, sizeof *values);
    attn_summary *summary = attn_alloc(ATTN_MEMORY_OTHER, sizeof *summary);
    if (summary)
        summary->mechanisms =
            attn_alloc_array(ATTN_MEMORY_OTHER, result->n_trials, sizeof *summary->mechanisms);
    if (!values || !summary || !summary->mechanisms) {
        status = attn_fail(error, ATTN_EMEMORY, "no memory for the summary of a run");
        goto done;
    }
    status = name_mechanisms(summary, result, error);
    if (status != ATTN_OK) goto done;
    summary->result = result;
    for (size_t t = 0; t < result->n_trials; t++) {
        const attn_store_trial *trial = &result->trials[t];
        if (trial->round > summary->n_rounds) summary->n_rounds = trial->round;
        summary->n_trials_done += trial->state == ATTN_TRIAL_DONE;
    }
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        status = summarise_mechanism(&summary->mechanisms[i], result, values, error);
        if (status != ATTN_OK) goto done;
    }
    for (size_t i = 0; i < summary->n_mechanisms; i++) compare_with_baseline(summary, i);
    *out = summary;
    summary = NULL;
done:
    attn_free(values);
    attn_summary_free(summary);
    return status;
}

void attn_summary_free(attn_summary *summary)
{
    if (!summary) return;
    for (size_t i = 0; i < summary->n_mechanisms; i++) attn_free(summary->mechanisms[i].figures);
    attn_free(summary->mechanisms);
    attn_free(summary);
}

/* ---- questions -------------------------------------------------------------------------- */

const attn_summary_figure *attn_summary_find(const attn_summary_mechanism *mechanism,
                                             const char *name)
{
    for (size_t i = 0; i < mechanism->n_figures; i++)
        if (strcmp(mechanism->figures[i].name, name) == 0) return &mechanism->figures[i];
    return NULL;
}

double attn_summary_value(const attn_summary_mechanism *mechanism, const char *name)
{
    const attn_summary_figure *figure = attn_summary_find(mechanism, name);
    return figure ? figure->median : NAN;
}

void attn_summary_order(const attn_summary *summary, const char *name, bool is_rising,
                        size_t *order)
{
    /* Insertion keeps equal ones in place; there are a few dozen at most. */
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const double value = attn_summary_value(&summary->mechanisms[i], name);
        size_t at = i;
        for (; at > 0; at--) {
            const double before = attn_summary_value(&summary->mechanisms[order[at - 1]], name);
            const bool in_order = isnan(value) || (is_rising ? before <= value : before >= value);
            if (in_order) break;
            order[at] = order[at - 1];
        }
        order[at] = i;
    }
}

double attn_summary_floor(const attn_summary *summary, const char *name)
{
    double greatest = NAN;
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const attn_summary_mechanism *m = &summary->mechanisms[i];
        if (!m->is_again) continue;
        const attn_paired twins =
            attn_summary_pair(summary, i, m->original, name, &(attn_paired_options){0});
        greatest = fmax(greatest, attn_paired_floor(&twins)); /* of NaN and a number the number */
    }
    return greatest;
}

/* What few rounds can say: their ranges do not overlap. */
static bool spreads_are_apart(const attn_summary_figure *a, const attn_summary_figure *b)
{
    if (a->spread == ATTN_SPREAD_NONE || b->spread == ATTN_SPREAD_NONE) return false;
    return a->high < b->low || b->high < a->low;
}

bool attn_summary_resolved(const attn_summary *summary, size_t a, size_t b, const char *name)
{
    const attn_summary_figure *one = attn_summary_find(&summary->mechanisms[a], name);
    const attn_summary_figure *other = attn_summary_find(&summary->mechanisms[b], name);
    if (!one || !other || isnan(one->median) || isnan(other->median) ||
        one->provenance != other->provenance || one->provenance == ATTN_MODELLED)
        return false;
    if (one->provenance == ATTN_COUNTED && one->minimum == one->maximum &&
        other->minimum == other->maximum)
        return one->median != other->median;
    const double floor = attn_summary_floor(summary, name);
    const attn_paired_options options = {
        .comparisons = summary->n_mechanisms > 1 ? summary->n_mechanisms - 1 : 1,
        .floor = isnan(floor) ? 0.0 : floor};
    const attn_paired pair = attn_summary_pair(summary, a, b, name, &options);
    if (pair.n < 6) return spreads_are_apart(one, other);
    return pair.verdict == ATTN_VERDICT_LOWER || pair.verdict == ATTN_VERDICT_HIGHER;
}
