/* The page: head, findings, and the order of the sections. */
#include "report/html.h"

#include "base/error.h"
#include "base/memory.h"
#include "report/assets.h"
#include "report/findings.h"
#include "report/html_parts.h"
#include "report/json.h"
#include "report/overlay.h"
#include "report/ranking.h"

#include <inttypes.h>

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

/* The command that gives a run again, its plan and its machine. */
static void write_reproduction(FILE *out, const attn_store_run *run, const char *name)
{
    fprintf(out, "<h3>%s was called as</h3>\n<pre tabindex=\"0\"><code>", name);
    html_text(out, run->title);
    fprintf(out,
            "</code></pre>\n<p>This page was made from the store, and can be made again:</p>\n"
            "<pre tabindex=\"0\"><code>attnscope report STORE@%" PRId64 " --out report.html\n"
            "attnscope report STORE@%" PRId64 " --figures figures\n"
            "attnscope report STORE@%" PRId64 " --format json</code></pre>\n",
            run->id, run->id, run->id);
    html_json_table(out, run->plan_json, "Plan: everything that decides the trials");
}

static void write_environment(FILE *out, const attn_store_run *run, const char *name)
{
    char caption[64];
    snprintf(caption, sizeof caption, "%s: machine, compiler and libraries", name);
    html_json_table(out, run->environment_json, caption);
}

static void write_origins(FILE *out, const attn_store_result *result, const attn_overlay *overlay)
{
    static const struct {
        const char *begin;
        void (*write)(FILE *out, const attn_store_run *run, const char *name);
    } parts[] = {{"<section id=\"reproduce\">\n<h2>How to reproduce</h2>\n", write_reproduction},
                 {"<section id=\"environment\">\n<h2>Environment</h2>\n", write_environment}};
    for (size_t p = 0; p < sizeof parts / sizeof *parts; p++) {
        fputs(parts[p].begin, out);
        if (!overlay) parts[p].write(out, &result->run, "The run");
        for (size_t r = 0; overlay && r < overlay->n_runs; r++) {
            char name[16];
            snprintf(name, sizeof name, "Run %c", attn_overlay_letter(r));
            parts[p].write(out, overlay->runs[r], name);
        }
        fputs("</section>\n", out);
    }
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
    html_header(out, result, summary);
    fputs("<nav aria-label=\"Sections\">", out);
    if (summary->overlay) fputs("<a href=\"#runs\">Runs</a>", out);
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++)
        fprintf(out, "<a href=\"#%s\">%s</a>", sections[i][0], sections[i][1]);
    fputs("</nav>\n<main>\n<noscript><p>The charts need JavaScript; their values stand in the "
          "tables.</p></noscript>\n",
          out);
    html_overlay(out, summary);
    write_findings(out, summary);
    html_ranking(out, summary, sort, order);
    html_charts(out, summary);
    html_provenance(out, summary);
    write_origins(out, result, summary->overlay);
    fputs("</main>\n<script type=\"application/json\" id=\"data\">", out);
    return attn_report_json_page(out, summary, error);
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
        if (summary->overlay) {
            fprintf(out, "attnscope: %zu runs", summary->overlay->n_runs);
        } else {
            fprintf(out, "attnscope run %" PRId64 ": ", result->run.id);
            html_text(out, result->run.title);
        }
        fputs("</title>\n<style>\n", out);
        write_asset(out, &attn_asset_style_css);
        fputs("</style>\n</head>\n<body>\n<a class=\"skip\" href=\"#findings\">Skip to the "
              "findings</a>\n",
              out);
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
