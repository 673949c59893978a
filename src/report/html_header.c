/* The head of the page, and how several runs differ. */
#include "report/format.h"
#include "report/html_parts.h"
#include "report/overlay.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

/* ---- facts -------------------------------------------------------------------------------- */

static void fact(FILE *out, const char *term, const char *text)
{
    fprintf(out, "<div><dt>%s</dt><dd>", term);
    html_text(out, text);
    fputs("</dd></div>\n", out);
}

static const json_t *at(const json_t *object, const char *key, const char *inner)
{
    const json_t *value = json_object_get(object, key);
    return inner ? json_object_get(value, inner) : value;
}

/* One line about the machine, from whichever of the usual names the environment has. */
static void write_machine(FILE *out, const char *environment_json)
{
    static const char *const paths[][2] = {
        {"cpu", "model_name"}, {"cpu", "model"},  {"cpu", "name"}, {"cpu_model", NULL},
        {"cpu", NULL},         {"machine", NULL}, {"host", NULL}};
    json_t *environment = json_loads(environment_json, 0, NULL);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        const json_t *value = at(environment, paths[i][0], paths[i][1]);
        if (!json_is_string(value)) continue;
        char text[200];
        const json_int_t cores = json_integer_value(at(environment, "cpu", "cores_available"));
        snprintf(text, sizeof text, "%.160s", json_string_value(value));
        if (cores > 0) {
            const size_t used = strlen(text);
            snprintf(text + used, sizeof text - used, ", %lld cores", (long long)cores);
        }
        fact(out, "Machine", text);
        break;
    }
    json_decref(environment);
}

/* What each trial trained, from the fields of the plan that say it. */
static void write_task(FILE *out, const char *plan_json)
{
    json_t *plan = json_loads(plan_json, 0, NULL);
    const char *model = json_string_value(at(plan, "model", NULL));
    const char *dtype = json_string_value(at(plan, "dtype", NULL));
    const char *data = json_string_value(at(plan, "data_sha256", NULL));
    const long long steps = (long long)json_integer_value(at(plan, "steps", NULL)),
                    batch = (long long)json_integer_value(at(plan, "batch", NULL)),
                    length = (long long)json_integer_value(at(plan, "seq", NULL));
    char text[200];
    if (model) {
        snprintf(text, sizeof text, "%.80s%s%.16s", model, dtype ? ", " : "", dtype ? dtype : "");
        fact(out, "Model", text);
    }
    if (steps > 0 && batch > 0 && length > 0) {
        snprintf(text, sizeof text, "%lld steps of %lld x %lld tokens", steps, batch, length);
        fact(out, "Each trial", text);
    }
    if (data) {
        snprintf(text, sizeof text, "sha256 %.12s", data);
        fact(out, "Data", text);
    }
    json_decref(plan);
}

/* Seconds in training steps, all trials together. */
static double training_time_s(const attn_store_result *result)
{
    double time_s = 0;
    for (size_t t = 0; t < result->n_trials; t++)
        for (size_t i = 0; i < result->trials[t].n_steps; i++) {
            const attn_store_step *step = &result->trials[t].steps[i];
            time_s += step->data_s + step->forward_s + step->backward_s + step->optimizer_s;
        }
    return time_s;
}

static void write_common_facts(FILE *out, const attn_store_result *result,
                               const attn_summary *summary)
{
    char text[64];
    snprintf(text, sizeof text, summary->n_trials_planned > 0 ? "%zu of %zu" : "%zu",
             summary->n_trials_done, summary->n_trials_planned);
    fact(out, "Trials done", text);
    fact(out, "Training, all trials", attn_format_duration(training_time_s(result)).text);
    if (summary->n_mechanisms > 0) fact(out, "Baseline", summary->mechanisms[0].name);
}

/* ---- how sure ----------------------------------------------------------------------------- */

static void write_certainty(FILE *out, const attn_summary *summary)
{
    enum { ROUNDS_LEAST = 6 };
    fputs("<p class=\"certainty\"><strong>How sure.</strong> ", out);
    if (summary->overlay)
        fputs("The mechanisms of a run took turns; the runs followed each other. ", out);
    else if (summary->n_mechanisms > 1)
        fputs("The mechanisms took turns, from the same seeds and the same data. ", out);
    if (summary->n_rounds >= ROUNDS_LEAST)
        fputs("With six rounds or more, differences are decided by 95&#8239;% intervals of pairs "
              "(exact sign test). ",
              out);
    else if (summary->n_rounds > 1)
        fprintf(out,
                "%zu rounds give ranges, not intervals: nothing below six rounds is more than a "
                "hint. ",
                summary->n_rounds);
    else
        fputs("One round gives no spread: no difference here is resolved. ", out);
    const double floor = attn_summary_floor(summary, "step_time_s");
    if (isnan(floor))
        fputs("The noise floor was not measured: run with <code>--aa</code> and six rounds.", out);
    else
        fprintf(out,
                "Noise floor of the step time, by an A/A pair: %s&#8239;%%; smaller differences "
                "are not resolved.",
                attn_format_number(100.0 * expm1(floor), 2).text);
    fputs("</p>\n", out);
}

/* ---- the head ----------------------------------------------------------------------------- */

static void write_run_facts(FILE *out, const attn_store_run *run)
{
    write_task(out, run->plan_json);
    write_machine(out, run->environment_json);
    fact(out, "Begun", run->created_utc);
    fact(out, "State", run->state);
}

static void write_one(FILE *out, const attn_store_result *result, const attn_summary *summary)
{
    fprintf(out,
            "<p class=\"eyebrow\">attnscope <span>run %" PRId64 "</span></p>\n"
            "<h1>%zu attention mechanism%s, %zu round%s</h1>\n<p class=\"names\">",
            result->run.id, summary->n_mechanisms, summary->n_mechanisms == 1 ? "" : "s",
            summary->n_rounds, summary->n_rounds == 1 ? "" : "s");
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        if (i > 0) fputs(", ", out);
        html_text(out, summary->mechanisms[i].name);
    }
    fputs("</p>\n<p class=\"command\"><code>", out);
    html_text(out, result->run.title);
    fputs("</code></p>\n<dl class=\"facts\">\n", out);
    write_run_facts(out, &result->run);
    write_common_facts(out, result, summary);
    fputs("</dl>\n", out);
}

static void write_several(FILE *out, const attn_store_result *result, const attn_summary *summary)
{
    const attn_overlay *overlay = summary->overlay;
    fprintf(out,
            "<p class=\"eyebrow\">attnscope <span>%zu runs together</span></p>\n"
            "<h1>%zu runs beside each other</h1>\n",
            overlay->n_runs, overlay->n_runs);
    for (size_t r = 0; r < overlay->n_runs; r++) {
        fprintf(out, "<p class=\"command\"><strong>%c</strong> run %" PRId64 ": <code>",
                attn_overlay_letter(r), overlay->runs[r]->id);
        html_text(out, overlay->runs[r]->title);
        fputs("</code></p>\n<dl class=\"facts\">\n", out);
        write_run_facts(out, overlay->runs[r]);
        if (r + 1 == overlay->n_runs) write_common_facts(out, result, summary);
        fputs("</dl>\n", out);
    }
}

void html_header(FILE *out, const attn_store_result *result, const attn_summary *summary)
{
    fputs("<header>\n", out);
    if (summary->overlay)
        write_several(out, result, summary);
    else
        write_one(out, result, summary);
    if (summary->n_mechanisms > 0) write_certainty(out, summary);
    fputs("</header>\n", out);
}

/* ---- differences between runs --------------------------------------------------------------- */

static void write_change(FILE *out, const attn_comparison_row *row)
{
    const attn_paired *pair = &row->pair;
    if (pair->n == 0) {
        fputs("<td class=\"absent\" title=\"", out);
        html_text(out, row->why);
        fputs("\">&ndash;<small>unknown</small></td>", out);
        return;
    }
    const int decimals = row->is_loss ? 4 : 2;
    const char *verdict = attn_comparison_verdict(row), *unit = row->is_loss ? "nat" : "%";
    const bool is_resolved = strcmp(verdict, "lower") == 0 || strcmp(verdict, "higher") == 0;
    fprintf(out, "<td%s title=\"%s and %s, %s, %zu rounds\">%+.*f %s<small>%s",
            is_resolved ? " class=\"best\"" : "", attn_format_si(row->a, 4, row->unit).text,
            attn_format_si(row->b, 4, row->unit).text, attn_provenance_name(row->provenance),
            pair->n, decimals, attn_comparison_change(row, pair->ratio), unit, verdict);
    if (!isnan(pair->low) && pair->high - pair->low > 1e-9)
        fprintf(out, ", %+.*f to %+.*f", decimals, attn_comparison_change(row, pair->low), decimals,
                attn_comparison_change(row, pair->high));
    fputs("</small></td>", out);
}

static void write_differences(FILE *out, const char *title, const attn_differences *list)
{
    if (list->n == 0) return;
    fprintf(out, "<p>%s</p>\n<ul>\n", title);
    for (size_t i = 0; i < list->n; i++) {
        fputs("<li>", out);
        html_text(out, list->texts[i]);
        fputs("</li>\n", out);
    }
    fputs("</ul>\n", out);
}

/* Rows come mechanism by mechanism, each with the same quantities. */
static bool is_same_mechanism(const attn_comparison_row *a, const attn_comparison_row *b)
{
    return strcmp(a->mechanism_a, b->mechanism_a) == 0;
}

static void write_comparison(FILE *out, attn_comparison *c)
{
    if (c->forbidding.n > 0) {
        fputs("<div class=\"panel\">\n", out);
        write_differences(
            out, "<strong>Not comparable, shown together by force.</strong> They differ in",
            &c->forbidding);
        fputs("</div>\n", out);
    }
    if (c->n_rows == 0) {
        fprintf(out, "<p>A and %c have no mechanism in common.</p>\n", c->letter);
    } else {
        fprintf(out,
                "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"%c beside A\">\n"
                "<table class=\"comparison\"><caption>%c beside A: how much %c is above or below"
                "</caption><thead><tr><th scope=\"col\">Mechanism</th>",
                c->letter, c->letter, c->letter);
        for (size_t i = 0; i < c->n_rows && is_same_mechanism(&c->rows[0], &c->rows[i]); i++)
            fprintf(out, "<th scope=\"col\">%s</th>", c->rows[i].key);
        fputs("</tr></thead>\n<tbody>", out);
        for (size_t i = 0; i < c->n_rows; i++) {
            if (i == 0 || !is_same_mechanism(&c->rows[i - 1], &c->rows[i])) {
                fprintf(out, "%s<tr><th scope=\"row\">", i == 0 ? "" : "</tr>\n");
                html_text(out, c->rows[i].mechanism_a);
                fputs("</th>", out);
            }
            write_change(out, &c->rows[i]);
        }
        fputs("</tr>\n</tbody></table></div>\n", out);
    }
    write_differences(out, "Also different, and no hindrance:", &c->others);
}

void html_overlay(FILE *out, const attn_summary *summary)
{
    if (!summary->overlay) return;
    fputs("<section id=\"runs\">\n<h2>Between the runs</h2>\n<p class=\"lead\">Median ratios of "
          "pairs, round by round, losses as differences. Bold: the interval, at 95&#8239;% for all "
          "mechanisms together, tells them apart; it needs six rounds. The runs followed each "
          "other: what changed on the machine in between is in the difference.</p>\n",
          out);
    for (size_t r = 1; r < summary->overlay->n_runs; r++)
        write_comparison(out, summary->overlay->comparisons[r]);
    fputs("</section>\n", out);
}
