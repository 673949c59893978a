/* JSON through Jansson. A constructor that lacks memory gives NULL, and Jansson's setters refuse
 * NULL: every object is therefore filled through put(), which notes the first refusal. */
#include "report/json.h"

#include "base/error.h"
#include "base/memory.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

/* Fifteen digits bring every double of at most fifteen digits back and print 0.1 as 0.1. */
enum { REAL_DIGITS = 15 };

static void put(json_t *object, const char *key, json_t *value, bool *failed)
{
    if (json_object_set_new(object, key, value) != 0) *failed = true;
}

static void add(json_t *array, json_t *value, bool *failed)
{
    if (json_array_append_new(array, value) != 0) *failed = true;
}

/* Texts of fixed size may have been cut inside a character: then bytes above ASCII become '?'. */
static json_t *text_value(const char *text)
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

static json_t *number_value(double value)
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
    return text_value(text);
}

/* ---- trials ----------------------------------------------------------------------------- */

static json_t *figure_value(const attn_figure *figure, bool *failed)
{
    json_t *o = json_object();
    const bool is_odd = figure->provenance != ATTN_UNAVAILABLE && !isfinite(figure->value);
    put(o, "name", text_value(figure->name), failed);
    put(o, "unit", text_value(figure->unit), failed);
    put(o, "value", number_value(figure->value), failed);
    put(o, "provenance", json_string(attn_provenance_name(figure->provenance)), failed);
    put(o, "source", text_value(figure->source), failed);
    put(o, "low", figure->has_interval ? number_value(figure->low) : json_null(), failed);
    put(o, "high", figure->has_interval ? number_value(figure->high) : json_null(), failed);
    put(o, "why",
        text_value(is_odd && figure->why[0] == '\0' ? "not a finite number" : figure->why), failed);
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
            add(column, columns[c].is_count ? count_value(count) : number_value(number), failed);
        }
        put(o, columns[c].name, column, failed);
    }
    return o;
}

static json_t *evaluation_value(const attn_store_evaluation *evaluation, bool *failed)
{
    json_t *o = json_object();
    put(o, "step", count_value(evaluation->step), failed);
    put(o, "loss", number_value(evaluation->loss), failed);
    put(o, "target_tokens", count_value(evaluation->target_tokens), failed);
    put(o, "time_s", number_value(evaluation->time_s), failed);
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
            put(o, sample->domain, domain = json_pack("{s:[], s:[]}", "time_s", "power_w"), failed);
            if (!domain) break;
        }
        add(json_object_get(domain, "time_s"), number_value(sample->time_s), failed);
        add(json_object_get(domain, "power_w"), number_value(sample->power_w), failed);
    }
    return o;
}

static json_t *trial_value(const attn_store_trial *trial, bool *failed)
{
    json_t *o = json_object(), *evaluations = json_array(), *figures = json_array();
    put(o, "id", json_integer(trial->id), failed);
    put(o, "round", json_integer(trial->round), failed);
    put(o, "position", json_integer(trial->position), failed);
    put(o, "mechanism", text_value(trial->mechanism), failed);
    put(o, "sees_future", json_boolean(attn_summary_sees_future(trial)), failed);
    put(o, "state", json_string(attn_trial_state_name(trial->state)), failed);
    put(o, "reason", text_value(trial->reason), failed);
    put(o, "started_utc", text_value(trial->started_utc), failed);
    put(o, "ended_utc", trial->ended_utc[0] ? text_value(trial->ended_utc) : json_null(), failed);
    for (size_t i = 0; i < trial->n_evaluations; i++)
        add(evaluations, evaluation_value(&trial->evaluations[i], failed), failed);
    for (size_t i = 0; i < trial->n_figures; i++)
        add(figures, figure_value(&trial->figures[i], failed), failed);
    if (trial->n_samples > 0) put(o, "power", samples_value(trial, failed), failed);
    put(o, "steps", steps_value(trial, failed), failed);
    put(o, "evaluations", evaluations, failed);
    put(o, "figures", figures, failed);
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
    put(o, "name", text_value(figure->name), failed);
    put(o, "unit", text_value(figure->unit), failed);
    put(o, "median", number_value(figure->median), failed);
    put(o, "provenance",
        json_string(figure->is_mixed ? "mixed" : attn_provenance_name(figure->provenance)), failed);
    put(o, "rounds", count_value(figure->n), failed);
    put(o, "minimum", number_value(figure->minimum), failed);
    put(o, "maximum", number_value(figure->maximum), failed);
    put(o, "spread", json_string(spreads[figure->spread]), failed);
    put(o, "low", number_value(figure->low), failed);
    put(o, "high", number_value(figure->high), failed);
    put(o, "ratio_to_baseline", number_value(figure->ratio), failed);
    put(o, "why", text_value(figure->why), failed);
    return o;
}

static json_t *mechanism_value(const attn_summary_mechanism *mechanism, bool is_baseline,
                               bool *failed)
{
    json_t *o = json_object(), *trials = json_object(), *figures = json_array();
    put(o, "mechanism", text_value(mechanism->name), failed);
    put(o, "is_baseline", json_boolean(is_baseline), failed);
    put(o, "sees_future", json_boolean(mechanism->sees_future), failed);
    for (int s = 0; s < ATTN_TRIAL_STATES; s++)
        put(trials, attn_trial_state_name((attn_trial_state)s), count_value(mechanism->n_trials[s]),
            failed);
    put(o, "trials", trials, failed);
    put(o, "reason", mechanism->reason ? text_value(mechanism->reason) : json_null(), failed);
    for (size_t i = 0; i < mechanism->n_figures; i++)
        add(figures, summary_figure_value(&mechanism->figures[i], failed), failed);
    put(o, "figures", figures, failed);
    return o;
}

/* ---- for the page ----------------------------------------------------------------------- */

/* Of all trials together. */
enum { PAGE_STEPS_MOST = 8000 };

/* Every `stride`-th step with the sums up to it, and the last. */
static json_t *page_steps(const attn_store_trial *trial, size_t stride, bool *failed)
{
    json_t *step = json_array(), *loss = json_array(), *seconds = json_array(),
           *flop = json_array();
    double time_s = 0.0, operations = 0.0;
    for (size_t i = 0; i < trial->n_steps; i++) {
        const attn_store_step *s = &trial->steps[i];
        time_s += s->data_s + s->forward_s + s->backward_s + s->optimizer_s;
        operations += (double)s->matmul_flop + (double)s->exponential_op + (double)s->other_op;
        if (i % stride != 0 && i + 1 < trial->n_steps) continue;
        add(step, count_value(s->step), failed);
        add(loss, number_value(s->loss), failed);
        add(seconds, number_value(time_s), failed);
        add(flop, number_value(operations), failed);
    }
    json_t *o = json_object();
    put(o, "step", step, failed);
    put(o, "loss", loss, failed);
    put(o, "seconds", seconds, failed);
    put(o, "flop", flop, failed);
    return o;
}

static json_t *page_trial(const attn_store_trial *trial, size_t stride, bool *failed)
{
    json_t *o = json_object(), *evaluations = json_array();
    put(o, "mechanism", text_value(trial->mechanism), failed);
    put(o, "state", json_string(attn_trial_state_name(trial->state)), failed);
    for (size_t i = 0; i < trial->n_figures; i++)
        if (strcmp(trial->figures[i].name, "energy_step_j") == 0)
            put(o, "energy_step_j", number_value(trial->figures[i].value), failed);
    for (size_t i = 0; i < trial->n_evaluations; i++) {
        json_t *evaluation = json_object();
        put(evaluation, "step", count_value(trial->evaluations[i].step), failed);
        put(evaluation, "loss", number_value(trial->evaluations[i].loss), failed);
        add(evaluations, evaluation, failed);
    }
    put(o, "evaluations", evaluations, failed);
    put(o, "steps", page_steps(trial, stride, failed), failed);
    if (trial->n_samples > 0) put(o, "power", samples_value(trial, failed), failed);
    return o;
}

static json_t *page_mechanism(const attn_summary_mechanism *mechanism, bool *failed)
{
    json_t *o = json_object(), *figures = json_array();
    put(o, "mechanism", text_value(mechanism->name), failed);
    put(o, "sees_future", json_boolean(mechanism->sees_future), failed);
    put(o, "reason", mechanism->reason ? text_value(mechanism->reason) : json_null(), failed);
    for (size_t i = 0; i < mechanism->n_figures; i++) {
        const attn_summary_figure *f = &mechanism->figures[i];
        json_t *figure = json_object();
        put(figure, "name", text_value(f->name), failed);
        put(figure, "median", number_value(f->median), failed);
        put(figure, "low", number_value(f->low), failed);
        put(figure, "high", number_value(f->high), failed);
        add(figures, figure, failed);
    }
    put(o, "figures", figures, failed);
    return o;
}

static json_t *page_value(const attn_store_result *result, const attn_summary *summary,
                          bool *failed)
{
    json_t *o = json_object(), *trials = json_array(), *brief = json_array();
    size_t n_steps = 0;
    for (size_t i = 0; i < result->n_trials; i++) n_steps += result->trials[i].n_steps;
    for (size_t i = 0; i < result->n_trials; i++)
        add(trials, page_trial(&result->trials[i], 1 + n_steps / PAGE_STEPS_MOST, failed), failed);
    for (size_t i = 0; i < summary->n_mechanisms; i++)
        add(brief, page_mechanism(&summary->mechanisms[i], failed), failed);
    put(o, "trials", trials, failed);
    put(o, "summary", brief, failed);
    return o;
}

static json_t *report_value(const attn_store_result *result, const attn_summary *summary,
                            bool *failed)
{
    json_t *o = json_object(), *run = json_object(), *trials = json_array(), *brief = json_array();
    put(run, "id", json_integer(result->run.id), failed);
    put(run, "created_utc", text_value(result->run.created_utc), failed);
    put(run, "title", text_value(result->run.title), failed);
    put(run, "state", text_value(result->run.state), failed);
    put(run, "trials_planned",
        summary->n_trials_planned ? count_value(summary->n_trials_planned) : json_null(), failed);
    put(run, "trials_done", count_value(summary->n_trials_done), failed);
    for (size_t i = 0; i < result->n_trials; i++)
        add(trials, trial_value(&result->trials[i], failed), failed);
    for (size_t i = 0; i < summary->n_mechanisms; i++)
        add(brief, mechanism_value(&summary->mechanisms[i], i == 0, failed), failed);
    put(o, "schema", json_integer(ATTN_REPORT_SCHEMA), failed);
    put(o, "run", run, failed);
    put(o, "environment", parsed_value(result->run.environment_json), failed);
    put(o, "plan", parsed_value(result->run.plan_json), failed);
    put(o, "trials", trials, failed);
    put(o, "summary", brief, failed);
    return o;
}

/* ---- writing ---------------------------------------------------------------------------- */

/* In a script element neither "</script" nor "<!--" may stand. '<' occurs in strings only. */
static int write_for_script(const char *bytes, size_t n, void *data)
{
    FILE *out = data;
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] == '<')
            fputs("\\u003c", out);
        else
            fputc(bytes[i], out);
    }
    return ferror(out) ? -1 : 0;
}

static attn_status write_json(FILE *out, json_t *value, attn_json_style style, bool failed,
                              attn_error *error)
{
    const size_t digits =
        style == ATTN_JSON_PAGE ? JSON_REAL_PRECISION(6) : JSON_REAL_PRECISION(REAL_DIGITS);
    attn_status status = ATTN_OK;
    if (!value || failed) {
        status = attn_fail(error, ATTN_EMEMORY, "no memory for a report in JSON");
    } else {
        const int code = style == ATTN_JSON_PRETTY
                             ? json_dumpf(value, out, digits | JSON_INDENT(2))
                             : json_dump_callback(value, write_for_script, out,
                                                  digits | JSON_COMPACT | JSON_ENSURE_ASCII);
        if (code == 0 && style == ATTN_JSON_PRETTY) fputc('\n', out);
        if (code != 0 || ferror(out))
            status = attn_fail(error, ATTN_EIO, "writing a report in JSON failed");
    }
    json_decref(value);
    return status;
}

attn_status attn_report_json(FILE *out, const attn_store_result *result,
                             const attn_summary *summary, attn_json_style style, attn_error *error)
{
    bool failed = false;
    json_t *value = style == ATTN_JSON_PAGE ? page_value(result, summary, &failed)
                                            : report_value(result, summary, &failed);
    return write_json(out, value, style, failed, error);
}

attn_status attn_report_json_lines(FILE *out, const attn_store_result *result, attn_error *error)
{
    for (size_t i = 0; i < result->n_trials; i++) {
        bool failed = false;
        json_t *value = trial_value(&result->trials[i], &failed);
        put(value, "schema", json_integer(ATTN_REPORT_SCHEMA), &failed);
        put(value, "run", json_integer(result->run.id), &failed);
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
        put(o, "id", json_integer(runs[i].run.id), &failed);
        put(o, "created_utc", text_value(runs[i].run.created_utc), &failed);
        put(o, "state", text_value(runs[i].run.state), &failed);
        put(o, "title", text_value(runs[i].run.title), &failed);
        put(o, "trials_planned", planned ? count_value(planned) : json_null(), &failed);
        for (int s = 0; s < ATTN_TRIAL_STATES; s++)
            put(trials, attn_trial_state_name((attn_trial_state)s),
                count_value(runs[i].n_trials[s]), &failed);
        put(o, "trials", trials, &failed);
        add(list, o, &failed);
    }
    return write_json(out, list, ATTN_JSON_PRETTY, failed, error);
}
