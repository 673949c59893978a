/* The page: head, findings, and the order of the sections. */
#include "report/html.h"

#include "base/error.h"
#include "base/memory.h"
#include "report/assets.h"
#include "report/findings.h"
#include "report/format.h"
#include "report/html_parts.h"
#include "report/json.h"
#include "report/ranking.h"

#include <inttypes.h>
#include <jansson.h>

void html_text(FILE *out, const char *text)
{
    for (; *text; text++) {
        const unsigned char c = (unsigned char)*text;
        switch (c) {
        case '&':
            fputs("&amp;", out);
            break;
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '"':
            fputs("&quot;", out);
            break;
        case '\'':
            fputs("&#39;", out);
            break;
        default:
            fputc(c < 0x20 && c != '\n' && c != '\t' ? '?' : c, out);
        }
    }
}

static void write_asset(FILE *out, const attn_asset *asset)
{
    fwrite(asset->bytes, 1, asset->size_bytes, out);
}

/* One line about the machine, from whichever of the usual names the environment has. */
static void write_machine(FILE *out, const char *environment_json)
{
    static const char *const paths[][2] = {
        {"cpu", "model_name"}, {"cpu", "model"},  {"cpu", "name"}, {"cpu_model", NULL},
        {"cpu", NULL},         {"machine", NULL}, {"host", NULL}};
    json_t *environment = json_loads(environment_json, 0, NULL);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        const json_t *value = json_object_get(environment, paths[i][0]);
        if (paths[i][1]) value = json_object_get(value, paths[i][1]);
        if (!json_is_string(value)) continue;
        fputs("<div><dt>Machine</dt><dd>", out);
        html_text(out, json_string_value(value));
        fputs("</dd></div>\n", out);
        break;
    }
    json_decref(environment);
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

static void write_header(FILE *out, const attn_store_result *result, const attn_summary *summary)
{
    fprintf(out,
            "<header>\n<p class=\"eyebrow\">attnscope <span>run %" PRId64 "</span></p>\n"
            "<h1>%zu attention mechanism%s, %zu round%s</h1>\n<p class=\"command\"><code>",
            result->run.id, summary->n_mechanisms, summary->n_mechanisms == 1 ? "" : "s",
            summary->n_rounds, summary->n_rounds == 1 ? "" : "s");
    html_text(out, result->run.title);
    fputs("</code></p>\n<dl class=\"facts\">\n<div><dt>Begun</dt><dd>", out);
    html_text(out, result->run.created_utc);
    fputs("</dd></div>\n<div><dt>State</dt><dd>", out);
    html_text(out, result->run.state);
    fprintf(out, "</dd></div>\n<div><dt>Trials done</dt><dd>%zu", summary->n_trials_done);
    if (summary->n_trials_planned > 0) fprintf(out, " of %zu", summary->n_trials_planned);
    fprintf(out, "</dd></div>\n<div><dt>Training, all trials</dt><dd>%s</dd></div>\n",
            attn_format_duration(training_time_s(result)).text);
    if (summary->n_mechanisms > 0) {
        fputs("<div><dt>Baseline</dt><dd>", out);
        html_text(out, summary->mechanisms[0].name);
        fputs("</dd></div>\n", out);
    }
    write_machine(out, result->run.environment_json);
    fputs("</dl>\n</header>\n", out);
}

static void write_findings(FILE *out, const attn_summary *summary)
{
    attn_finding findings[ATTN_FINDINGS_MAX];
    const size_t n = attn_findings_make(summary, findings);
    fputs("<section id=\"findings\">\n<h2>Findings</h2>\n", out);
    if (n == 0) fputs("<p>No trial of this run was begun.</p>\n", out);
    fputs("<div class=\"findings\">\n", out);
    for (size_t i = 0; i < n; i++) {
        const attn_finding *f = &findings[i];
        fprintf(out, "<article class=\"finding%s\">\n<h3>%s</h3>\n<p class=\"subject\">",
                f->is_caution ? " caution" : "", f->label);
        html_text(out, f->subject);
        fputs("</p>\n", out);
        if (f->value.text[0]) fprintf(out, "<p class=\"reading\">%s</p>\n", f->value.text);
        fputs("<p class=\"detail\">", out);
        html_text(out, f->detail);
        fputs("</p>\n</article>\n", out);
    }
    fputs("</div>\n</section>\n", out);
}

static void write_reproduction(FILE *out, const attn_store_result *result)
{
    fputs("<section id=\"reproduce\">\n<h2>How to reproduce</h2>\n<p>The run was called as"
          "</p>\n<pre><code>",
          out);
    html_text(out, result->run.title);
    fprintf(out,
            "</code></pre>\n<p>This page was made from the store, and can be made again:</p>\n"
            "<pre><code>attnscope report STORE --run %" PRId64 " --out report.html\n"
            "attnscope report STORE --run %" PRId64 " --format json</code></pre>\n",
            result->run.id, result->run.id);
    html_json_table(out, result->run.plan_json, "Plan: everything that decides the trials");
    fputs("</section>\n<section id=\"environment\">\n<h2>Environment</h2>\n", out);
    html_json_table(out, result->run.environment_json, "Machine, compiler and libraries");
    fputs("</section>\n", out);
}

static attn_status write_body(FILE *out, const attn_store_result *result,
                              const attn_summary *summary, const char *sort, const size_t *order,
                              attn_error *error)
{
    static const char *const sections[][2] = {
        {"findings", "Findings"},     {"ranking", "Ranking"},    {"loss", "Loss"},
        {"tradeoff", "Cost of loss"}, {"time", "Time"},          {"energy", "Energy"},
        {"memory", "Memory"},         {"work", "Work"},          {"latency", "Latency"},
        {"provenance", "Provenance"}, {"reproduce", "Reproduce"}};
    write_header(out, result, summary);
    fputs("<nav aria-label=\"Sections\">", out);
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++)
        fprintf(out, "<a href=\"#%s\">%s</a>", sections[i][0], sections[i][1]);
    fputs("</nav>\n<main>\n<noscript><p>The charts need JavaScript; their values stand in the "
          "tables.</p></noscript>\n",
          out);
    write_findings(out, summary);
    html_ranking(out, summary, sort, order);
    html_charts(out, summary);
    html_provenance(out, summary);
    write_reproduction(out, result);
    fputs("</main>\n<script type=\"application/json\" id=\"data\">", out);
    return attn_report_json(out, result, summary, ATTN_JSON_PAGE, error);
}

attn_status attn_report_html(FILE *out, const attn_store_result *result,
                             const attn_summary *summary, const char *sort, attn_error *error)
{
    size_t *order = attn_alloc_array(ATTN_MEMORY_OTHER, summary->n_mechanisms, sizeof *order);
    if (!order) return attn_fail(error, ATTN_EMEMORY, "no memory for a report in HTML");
    attn_status status = attn_ranking_order(summary, sort, order, error);
    if (status == ATTN_OK) {
        fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
              "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
              "<meta name=\"color-scheme\" content=\"light dark\">\n"
              "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
              "script-src 'unsafe-inline'; style-src 'unsafe-inline'\">\n<title>",
              out);
        fprintf(out, "attnscope run %" PRId64 ": ", result->run.id);
        html_text(out, result->run.title);
        fputs("</title>\n<style>\n", out);
        write_asset(out, &attn_asset_style_css);
        fputs("</style>\n</head>\n<body>\n", out);
        status = write_body(out, result, summary, sort, order, error);
    }
    attn_free(order);
    if (status != ATTN_OK) return status;
    fputs("</script>\n<script>\n", out);
    write_asset(out, &attn_asset_chart_js);
    fputs("\n</script>\n<script>\n", out);
    write_asset(out, &attn_asset_report_js);
    fputs("</script>\n</body>\n</html>\n", out);
    return ferror(out) ? attn_fail(error, ATTN_EIO, "writing a report in HTML failed") : ATTN_OK;
}
