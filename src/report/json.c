/* JSON through Jansson. A constructor that lacks memory gives NULL, and Jansson's setters refuse
 * NULL: every object is therefore filled through report_put(), which notes the first refusal. */
#include "report/json.h"

#include "base/error.h"
#include "base/memory.h"
#include "report/json_parts.h"

#include <math.h>
#include <string.h>

/* Fifteen digits bring every double of at most fifteen digits back and print 0.1 as 0.1. */
enum { REAL_DIGITS = 15 };

void report_put(json_t *object, const char *key, json_t *value, bool *failed)
{
    if (json_object_set_new(object, key, value) != 0) *failed = true;
}

void report_add(json_t *array, json_t *value, bool *failed)
{
    if (json_array_append_new(array, value) != 0) *failed = true;
}

/* Texts of fixed size may have been cut inside a character: then bytes above ASCII become '?'. */
json_t *report_text(const char *text)
{
    json_t *value = json_string(text);
    if (value) return value;
    char *ascii = attn_strdup(text);
    for (char *c = ascii; c && *c; c++)
        if ((unsigned char)*c >= 0x80) *c = '?';
    value = ascii ? json_string(ascii) : NULL;
    attn_free(ascii);
    return value;
}

json_t *report_number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *count_value(uint64_t value)
{
    return json_integer((json_int_t)value);
}

/* Plan and environment are JSON already; what is not stays a text. */
static json_t *parsed_value(const char *text)
{
    json_error_t problem;
    json_t *value = json_loads(text, JSON_DECODE_ANY, &problem);
    if (value || json_error_code(&problem) == json_error_out_of_memory) return value;
    return report_text(text);
}

/* ---- trials ----------------------------------------------------------------------------- */

static json_t *figure_value(const attn_figure *figure, bool *failed)
{
    json_t *o = json_object();
    const bool is_odd = figure->provenance != ATTN_UNAVAILABLE && !isfinite(figure->value);
    report_put(o, "name", report_text(figure->name), failed);
    report_put(o, "unit", report_text(figure->unit), failed);
    report_put(o, "value", report_number(figure->value), failed);
    report_put(o, "provenance", json_string(attn_provenance_name(figure->provenance)), failed);
    report_put(o, "source", report_text(figure->source), failed);
    report_put(o, "low", figure->has_interval ? report_number(figure->low) : json_null(), failed);
    report_put(o, "high", figure->has_interval ? report_number(figure->high) : json_null(), failed);
    report_put(o, "why",
               report_text(is_odd && figure->why[0] == '\0' ? "not a finite number" : figure->why),
               failed);
    return o;
}

/* Steps as columns: compact, and what every plotting tool wants. */
static json_t *steps_value(const attn_store_trial *trial, bool *failed)
{
    json_t *o = json_object();
    static const struct {
        const char *name;
        size_t offset;
        bool is_count;
    } columns[] = {
        {"step", offsetof(attn_store_step, step), true},
        {"loss", offsetof(attn_store_step, loss), false},
        {"gradient_norm", offsetof(attn_store_step, gradient_norm), false},
        {"learning_rate", offsetof(attn_store_step, learning_rate), false},
        {"tokens", offsetof(attn_store_step, tokens), true},
        {"target_tokens", offsetof(attn_store_step, target_tokens), true},
        {"data_s", offsetof(attn_store_step, data_s), false},
        {"forward_s", offsetof(attn_store_step, forward_s), false},
        {"backward_s", offsetof(attn_store_step, backward_s), false},
        {"optimizer_s", offsetof(attn_store_step, optimizer_s), false},
        {"matmul_flop", offsetof(attn_store_step, matmul_flop), true},
        {"exponential_op", offsetof(attn_store_step, exponential_op), true},
        {"other_op", offsetof(attn_store_step, other_op), true},
    };
    for (size_t c = 0; c < sizeof columns / sizeof *columns; c++) {
        json_t *column = json_array();
        for (size_t i = 0; i < trial->n_steps; i++) {
            const char *field = (const char *)&trial->steps[i] + columns[c].offset;
            uint64_t count = 0;
            double number = 0;
            if (columns[c].is_count)
                memcpy(&count, field, sizeof count);
            else
                memcpy(&number, field, sizeof number);
            report_add(column, columns[c].is_count ? count_value(count) : report_number(number),
                       failed);
        }
        report_put(o, columns[c].name, column, failed);
    }
    return o;
}

static json_t *evaluation_value(const attn_store_evaluation *evaluation, bool *failed)
{
    json_t *o = json_object();
    report_put(o, "step", count_value(evaluation->step), failed);
    report_put(o, "loss", report_number(evaluation->loss), failed);
    report_put(o, "target_tokens", count_value(evaluation->target_tokens), failed);
    report_put(o, "time_s", report_number(evaluation->time_s), failed);
    return o;
}

/* Power over time, one pair of columns a domain. */
static json_t *samples_value(const attn_store_trial *trial, bool *failed)
{
    json_t *o = json_object();
    for (size_t i = 0; i < trial->n_samples; i++) {
        const attn_store_sample *sample = &trial->samples[i];
        json_t *domain = json_object_get(o, sample->domain);
        if (!domain) {
            report_put(o, sample->domain, domain = json_pack("{s:[], s:[]}", "time_s", "power_w"),
                       failed);
            if (!domain) break;
        }
        report_add(json_object_get(domain, "time_s"), report_number(sample->time_s), failed);
        report_add(json_object_get(domain, "power_w"), report_number(sample->power_w), failed);
    }
    return o;
}

/* When it was at work, by the calendar clock. */
static json_t *spans_value(const attn_store_trial *trial, bool *failed)
{
    json_t *array = json_array();
    for (size_t i = 0; i < trial->n_spans; i++) {
        const attn_store_span *span = &trial->spans[i];
        report_add(array,
                   json_pack("{s:f, s:f, s:b}", "begin_s", span->begin_s, "end_s", span->end_s,
                             "timed", span->is_timed),
                   failed);
    }
    return array;
}

static json_t *trial_value(const attn_store_trial *trial, bool *failed)
{
    json_t *o = json_object(), *evaluations = json_array(), *figures = json_array();
    report_put(o, "id", json_integer(trial->id), failed);
    report_put(o, "round", json_integer(trial->round), failed);
    report_put(o, "position", json_integer(trial->position), failed);
    report_put(o, "mechanism", report_text(trial->mechanism), failed);
    report_put(o, "sees_future", json_boolean(attn_summary_sees_future(trial)), failed);
    report_put(o, "state", json_string(attn_trial_state_name(trial->state)), failed);
    report_put(o, "reason", report_text(trial->reason), failed);
    report_put(o, "started_utc", report_text(trial->started_utc), failed);
    report_put(o, "ended_utc", trial->ended_utc[0] ? report_text(trial->ended_utc) : json_null(),
               failed);
    for (size_t i = 0; i < trial->n_evaluations; i++)
        report_add(evaluations, evaluation_value(&trial->evaluations[i], failed), failed);
    for (size_t i = 0; i < trial->n_figures; i++)
        report_add(figures, figure_value(&trial->figures[i], failed), failed);
    if (trial->n_samples > 0) report_put(o, "power", samples_value(trial, failed), failed);
    if (trial->n_spans > 0) report_put(o, "spans", spans_value(trial, failed), failed);
    report_put(o, "steps", steps_value(trial, failed), failed);
    report_put(o, "evaluations", evaluations, failed);
    report_put(o, "figures", figures, failed);
    return o;
}

/* ---- summary ---------------------------------------------------------------------------- */

static json_t *summary_figure_value(const attn_summary_figure *figure, bool *failed)
{
    static const char *const spreads[] = {
        [ATTN_SPREAD_NONE] = "none",
        [ATTN_SPREAD_RANGE] = "range over rounds",
        [ATTN_SPREAD_CONFIDENCE] = "95 % interval, sign test",
        [ATTN_SPREAD_MODEL] = "interval of the model",
    };
    json_t *o = json_object();
    report_put(o, "name", report_text(figure->name), failed);
    report_put(o, "unit", report_text(figure->unit), failed);
    report_put(o, "median", report_number(figure->median), failed);
    report_put(o, "provenance",
               json_string(figure->is_mixed ? "mixed" : attn_provenance_name(figure->provenance)),
               failed);
    report_put(o, "rounds", count_value(figure->n), failed);
    report_put(o, "minimum", report_number(figure->minimum), failed);
    report_put(o, "maximum", report_number(figure->maximum), failed);
    report_put(o, "spread", json_string(spreads[figure->spread]), failed);
    report_put(o, "low", report_number(figure->low), failed);
    report_put(o, "high", report_number(figure->high), failed);
    report_put(o, "ratio_to_baseline", report_number(figure->ratio), failed);
    report_put(o, "why", report_text(figure->why), failed);
    return o;
}

static json_t *mechanism_value(const attn_summary_mechanism *mechanism, bool is_baseline,
                               bool *failed)
{
    json_t *o = json_object(), *trials = json_object(), *figures = json_array();
    report_put(o, "mechanism", report_text(mechanism->name), failed);
    report_put(o, "is_baseline", json_boolean(is_baseline), failed);
    report_put(o, "sees_future", json_boolean(mechanism->sees_future), failed);
    for (int s = 0; s < ATTN_TRIAL_STATES; s++)
        report_put(trials, attn_trial_state_name((attn_trial_state)s),
                   count_value(mechanism->n_trials[s]), failed);
    report_put(o, "trials", trials, failed);
    report_put(o, "reason", mechanism->reason ? report_text(mechanism->reason) : json_null(),
               failed);
    for (size_t i = 0; i < mechanism->n_figures; i++)
        report_add(figures, summary_figure_value(&mechanism->figures[i], failed), failed);
    report_put(o, "figures", figures, failed);
    return o;
}

static json_t *report_value(const attn_store_result *result, const attn_summary *summary,
                            bool *failed)
{
    json_t *o = json_object(), *run = json_object(), *trials = json_array(), *brief = json_array();
    report_put(run, "id", json_integer(result->run.id), failed);
    report_put(run, "created_utc", report_text(result->run.created_utc), failed);
    report_put(run, "title", report_text(result->run.title), failed);
    report_put(run, "state", report_text(result->run.state), failed);
    report_put(run, "trials_planned",
               summary->n_trials_planned ? count_value(summary->n_trials_planned) : json_null(),
               failed);
    report_put(run, "trials_done", count_value(summary->n_trials_done), failed);
    for (size_t i = 0; i < result->n_trials; i++)
        report_add(trials, trial_value(&result->trials[i], failed), failed);
    for (size_t i = 0; i < summary->n_mechanisms; i++)
        report_add(brief, mechanism_value(&summary->mechanisms[i], i == 0, failed), failed);
    report_put(o, "schema", json_integer(ATTN_REPORT_SCHEMA), failed);
    report_put(o, "run", run, failed);
    report_put(o, "environment", parsed_value(result->run.environment_json), failed);
    report_put(o, "plan", parsed_value(result->run.plan_json), failed);
    report_put(o, "trials", trials, failed);
    report_put(o, "summary", brief, failed);
    return o;
}

/* ---- writing ---------------------------------------------------------------------------- */

static attn_status write_json(FILE *out, json_t *value, bool failed, attn_error *error)
{
    attn_status status = ATTN_OK;
    if (!value || failed)
        status = attn_fail(error, ATTN_EMEMORY, "no memory for a report in JSON");
    else if (json_dumpf(value, out, JSON_REAL_PRECISION(REAL_DIGITS) | JSON_INDENT(2)) != 0 ||
             fputc('\n', out) == EOF)
        status = attn_fail(error, ATTN_EIO, "writing a report in JSON failed");
    json_decref(value);
    return status;
}

attn_status attn_report_json(FILE *out, const attn_store_result *result,
                             const attn_summary *summary, attn_error *error)
{
    bool failed = false;
    json_t *value = report_value(result, summary, &failed);
    return write_json(out, value, failed, error);
}

attn_status attn_report_json_lines(FILE *out, const attn_store_result *result, attn_error *error)
{
    for (size_t i = 0; i < result->n_trials; i++) {
        bool failed = false;
        json_t *value = trial_value(&result->trials[i], &failed);
        report_put(value, "schema", json_integer(ATTN_REPORT_SCHEMA), &failed);
        report_put(value, "run", json_integer(result->run.id), &failed);
        const bool is_written =
            !failed && json_dumpf(value, out, JSON_COMPACT | JSON_REAL_PRECISION(REAL_DIGITS)) == 0;
        json_decref(value);
        if (failed) return attn_fail(error, ATTN_EMEMORY, "no memory for a trial in JSON");
        if (!is_written || fputc('\n', out) == EOF)
            return attn_fail(error, ATTN_EIO, "writing a trial in JSON failed");
    }
    return ATTN_OK;
}

attn_status attn_report_json_list(FILE *out, const attn_store_overview *runs, size_t n_runs,
                                  attn_error *error)
{
    bool failed = false;
    json_t *list = json_array();
    for (size_t i = 0; i < n_runs; i++) {
        json_t *o = json_object(), *trials = json_object();
        const size_t planned = attn_plan_trials(runs[i].run.plan_json);
        report_put(o, "id", json_integer(runs[i].run.id), &failed);
        report_put(o, "created_utc", report_text(runs[i].run.created_utc), &failed);
        report_put(o, "state", report_text(runs[i].run.state), &failed);
        report_put(o, "title", report_text(runs[i].run.title), &failed);
        report_put(o, "trials_planned", planned ? count_value(planned) : json_null(), &failed);
        for (int s = 0; s < ATTN_TRIAL_STATES; s++)
            report_put(trials, attn_trial_state_name((attn_trial_state)s),
                       count_value(runs[i].n_trials[s]), &failed);
        report_put(o, "trials", trials, &failed);
        report_add(list, o, &failed);
    }
    return write_json(out, list, failed, error);
}
