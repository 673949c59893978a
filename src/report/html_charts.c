/* Charts of the page: what each shows, the element that the script fills, and the same numbers
 * as a table behind it. */
#include "report/curves.h"
#include "report/findings.h"
#include "report/format.h"
#include "report/html_parts.h"
#include "report/ranking.h"
#include "report/series.h"

#include <math.h>
#include <string.h>

enum { REASONS_MOST = 2 };

/* The kinds that assets/report.js knows. */
typedef struct chart {
    const char *kind; /* "bars": one bar; "stack": parts of a whole; "intervals": low to high */
    const char *title, *note;
    const char *unit; /* displayed; values are multiplied by `factor` */
    double factor;
    attn_series parts[ATTN_SERIES_MOST];
    attn_series total;                 /* of a stack: carries the spread */
    attn_series mark;                  /* a second value, drawn as a tick */
    const char *reasons[REASONS_MOST]; /* figures whose absence explains the chart's */
} chart;

static const chart time_charts[] = {
    {.kind = "stack",
     .title = "Time of a training step",
     .note = "Medians of the parts; the whisker is the spread of the whole step.",
     .unit = "ms",
     .factor = 1e3,
     .parts = ATTN_STEP_TIME_PARTS,
     .total = {"step_time_s", "step"}},
    {.kind = "bars",
     .title = "Training throughput",
     .unit = "tokens/s",
     .factor = 1,
     .parts = {{"tokens_per_s", "tokens per second"}}},
    {.kind = "bars",
     .title = "Processors kept busy",
     .unit = "%",
     .factor = 100,
     .parts = {{"cpu_utilisation", "utilisation"}}},
};

static const chart energy_charts[] = {
    {.kind = "bars",
     .title = "Measured energy of a training step",
     .unit = "J",
     .factor = 1,
     .parts = {{"energy_step_j", "energy per step"}},
     .reasons = {"energy_cpu_package_j", "energy_dram_j"}},
    {.kind = "intervals",
     .title = "Modelled CPU energy of a trial",
     .note = "Not a measurement: computed from stated inputs. The bar is the interval of the "
             "model, the tick its value. It ranks nothing.",
     .unit = "J",
     .factor = 1,
     .parts = {{"energy_modelled_cpu_j", "modelled energy"}}},
};

static const chart memory_charts[] = {
    {.kind = "stack",
     .title = "Peak memory in training",
     .note = "Peak of each category, exact, from the program's own allocator. The tick is the "
             "peak of their sum, which is lower when the peaks come at different moments.",
     .unit = "MiB",
     .factor = 1.0 / (1 << 20),
     .parts = ATTN_MEMORY_PARTS,
     .mark = {"memory_peak_bytes", "peak of the sum"}},
    {.kind = "bars",
     .title = "Parameters",
     .unit = "million",
     .factor = 1e-6,
     .parts = {{"parameters", "parameters"}}},
    {.kind = "bars",
     .title = "Checkpoint file",
     .unit = "MiB",
     .factor = 1.0 / (1 << 20),
     .parts = {{"checkpoint_bytes", "file size"}}},
    {.kind = "bars",
     .title = "Cache or state in decoding",
     .unit = "MiB",
     .factor = 1.0 / (1 << 20),
     .parts = {{"cache_bytes", "cache"}}},
};

static const chart work_charts[] = {
    {.kind = "bars",
     .title = "Matrix products",
     .note = "Counted as the kernels ran; the tick is the closed form.",
     .unit = "GFLOP",
     .factor = 1e-9,
     .parts = {{"step_matmul_flop", "counted"}},
     .mark = {"step_matmul_flop_closed_form", "closed form"}},
    {.kind = "bars",
     .title = "Exponentials and their like",
     .unit = "million",
     .factor = 1e-6,
     .parts = {{"step_exponential_op", "counted"}},
     .mark = {"step_exponential_op_closed_form", "closed form"}},
    {.kind = "bars",
     .title = "Other operations",
     .unit = "million",
     .factor = 1e-6,
     .parts = {{"step_other_op", "counted"}},
     .mark = {"step_other_op_closed_form", "closed form"}},
};

static const chart latency_charts[] = {
    {.kind = "bars",
     .title = "Next token, with cache or state",
     .note = "Median time of one token; the tick is the 90th percentile.",
     .unit = "ms",
     .factor = 1e3,
     .parts = {{"latency_token_s", "median"}},
     .mark = {"latency_token_p90_s", "90th percentile"}},
    {.kind = "bars",
     .title = "Whole sequence at once",
     .unit = "ms",
     .factor = 1e3,
     .parts = {{"latency_forward_s", "forward pass"}}},
};

static const struct {
    const char *id, *title;
    const chart *charts;
    size_t n_charts;
} sections[] = {
#define SECTION_CHARTS(charts) charts, sizeof(charts) / sizeof *(charts)
    {"time", "Training time", SECTION_CHARTS(time_charts)},
    {"energy", "Energy", SECTION_CHARTS(energy_charts)},
    {"memory", "Memory and size", SECTION_CHARTS(memory_charts)},
    {"work", "Work of a training step", SECTION_CHARTS(work_charts)},
    {"latency", "Latency of inference", SECTION_CHARTS(latency_charts)},
};

static bool has_value(const attn_summary *summary, const char *figure)
{
    for (size_t i = 0; i < summary->n_mechanisms; i++)
        if (!isnan(attn_summary_value(&summary->mechanisms[i], figure))) return true;
    return false;
}

/* ---- the table behind a chart ----------------------------------------------------------- */

static void write_value(FILE *out, const attn_summary_mechanism *m, const char *figure,
                        double factor)
{
    const attn_summary_figure *f = attn_summary_find(m, figure);
    fputs("<td>", out);
    if (f && !isnan(f->median)) {
        const int digits = attn_format_digits(f->median, f->low, f->high);
        fputs(attn_format_number(factor * f->median, digits).text, out);
        if (f->spread != ATTN_SPREAD_NONE && f->low < f->high)
            fprintf(
                out, "<small>%s</small>",
                attn_format_range(factor * f->median, factor * f->low, factor * f->high, "").text);
    } else {
        fputs("&ndash;", out);
    }
    fputs("</td>", out);
}

static void write_ratio(FILE *out, const attn_summary_mechanism *m, const char *figure)
{
    const attn_summary_figure *f = attn_summary_find(m, figure);
    if (f && f->ratio > 0)
        fprintf(
            out, "<td>%s</td>",
            attn_format_number(f->ratio, attn_format_digits(f->ratio, f->ratio_low, f->ratio_high))
                .text);
    else
        fputs("<td>&ndash;</td>", out);
}

static void write_table(FILE *out, const attn_summary *summary, const chart *c)
{
    const attn_series *all[ATTN_SERIES_MOST + 2];
    size_t n = 0;
    for (size_t s = 0; s < ATTN_SERIES_MOST && c->parts[s].figure; s++) all[n++] = &c->parts[s];
    if (c->total.figure) all[n++] = &c->total;
    if (c->mark.figure) all[n++] = &c->mark;
    /* The figure that stands for the whole; losses have none. */
    const bool is_single = !c->parts[1].figure;
    const char *whole = c->total.figure ? c->total.figure
                        : is_single     ? c->parts[0].figure
                                        : c->mark.figure;
    fprintf(out,
            "<details><summary>Values</summary><div class=\"scroll\" tabindex=\"0\" "
            "role=\"region\" aria-label=\"%s, values\"><table><caption>%s, %s</caption><thead><tr>"
            "<th scope=\"col\">Mechanism</th>",
            c->title, c->title, c->unit);
    for (size_t s = 0; s < n; s++) fprintf(out, "<th scope=\"col\">%s</th>", all[s]->label);
    fprintf(out, "%s</tr></thead><tbody>\n", whole ? "<th scope=\"col\">to baseline</th>" : "");
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const attn_summary_mechanism *m = &summary->mechanisms[i];
        fputs("<tr><th scope=\"row\">", out);
        html_mechanism(out, m);
        fputs("</th>", out);
        for (size_t s = 0; s < n; s++) write_value(out, m, all[s]->figure, c->factor);
        if (whole) write_ratio(out, m, whole);
        fputs("</tr>\n", out);
    }
    fputs("</tbody></table></div></details>\n", out);
}

/* ---- charts ----------------------------------------------------------------------------- */

static void write_chart(FILE *out, const attn_summary *summary, const chart *c)
{
    fprintf(out, "<figure class=\"chart %s\"", c->kind);
    const bool is_there = has_value(summary, c->parts[0].figure);
    if (is_there) {
        fprintf(out, " data-kind=\"%s\" data-unit=\"%s\" data-factor=\"%.17g\" data-series=\"",
                c->kind, c->unit, c->factor);
        for (size_t s = 0; s < ATTN_SERIES_MOST && c->parts[s].figure; s++)
            fprintf(out, "%s%s:%s", s ? "," : "", c->parts[s].figure, c->parts[s].label);
        fputs("\"", out);
        if (c->total.figure) fprintf(out, " data-total=\"%s\"", c->total.figure);
        if (c->mark.figure) fprintf(out, " data-mark=\"%s:%s\"", c->mark.figure, c->mark.label);
    }
    fprintf(out, ">\n<figcaption><h3>%s <span>%s</span></h3>", c->title, c->unit);
    if (c->note) fprintf(out, "<p>%s</p>", c->note);
    fputs("</figcaption>\n", out);
    if (is_there) {
        fprintf(out,
                "<div class=\"plot\"><canvas role=\"img\" aria-label=\"%s, bar chart; its values "
                "are in the table below\"></canvas></div>\n",
                c->title);
        write_table(out, summary, c);
    } else {
        fputs("<div class=\"panel\"><p><strong>Not available:</strong> ", out);
        html_text(out, attn_ranking_absence(summary, c->parts[0].figure));
        fputs("</p>\n", out);
        for (size_t r = 0; r < REASONS_MOST && c->reasons[r]; r++) {
            const char *why = attn_ranking_absence(summary, c->reasons[r]);
            if (why[0] == '\0') continue;
            fprintf(out, "<p><code>%s</code> ", c->reasons[r]);
            html_text(out, why);
            fputs("</p>\n", out);
        }
        fputs("</div>\n", out);
    }
    fputs("</figure>\n", out);
}

static void write_loss(FILE *out, const attn_summary *summary)
{
    static const chart losses = {.title = "Loss",
                                 .unit = "nat per token",
                                 .factor = 1,
                                 .parts = {{"train_loss_first", "training, first"},
                                           {"train_loss_last", "training, last 10 %"},
                                           {"held_out_loss_first", "held-out, first"},
                                           {"held_out_loss", "held-out, last"},
                                           {"perplexity", "perplexity"}}};
    fputs("<section id=\"loss\">\n<h2>Loss</h2>\n<div class=\"charts\">\n"
          "<figure class=\"chart loss\" data-kind=\"loss\">\n<figcaption><h3>Loss while training "
          "<span>nat per token</span></h3><p>Held-out loss with points, training loss as a pale "
          "line; medians over the rounds.</p></figcaption>\n"
          "<div class=\"switch\" role=\"group\" aria-label=\"Horizontal axis\">"
          "<button type=\"button\" data-choice=\"steps\" aria-pressed=\"true\">steps</button>"
          "<button type=\"button\" data-choice=\"seconds\" aria-pressed=\"false\">seconds</button>",
          out);
    if (has_value(summary, "energy_step_j"))
        fputs(
            "<button type=\"button\" data-choice=\"joules\" aria-pressed=\"false\">joules</button>",
            out);
    fputs(
        "<button type=\"button\" data-choice=\"flop\" aria-pressed=\"false\">FLOP</button></div>\n"
        "<div class=\"plot\"><canvas role=\"img\" aria-label=\"Loss curves; first and last "
        "values are in the table below\"></canvas></div>\n",
        out);
    write_table(out, summary, &losses);
    fputs("</figure>\n</div>\n</section>\n", out);
}

/* Loss against what it costs: down and to the left is better, and the line joins those that none
 * beats in both. */
static void write_tradeoffs(FILE *out, const attn_summary *summary)
{
    static const struct {
        const char *title, *axis, *unit;
    } costs[ATTN_CURVES_COSTS] = {{"Loss against training time", "training time", "s"},
                                  {"Loss against measured energy", "energy", "J"},
                                  {"Loss against processor energy", "processor energy", "J"},
                                  {"Loss against energy of the machine", "energy", "J"}};
    fputs("<section id=\"tradeoff\">\n<h2>What the loss costs</h2>\n<div class=\"charts\">\n", out);
    bool has_energy = false;
    for (size_t i = 0; i < ATTN_CURVES_COSTS; i++) {
        const char *cost = attn_curves_costs[i];
        if (!has_value(summary, cost) || !has_value(summary, "held_out_loss") ||
            (i > 0 && has_energy))
            continue;
        has_energy |= i > 0;
        const chart c = {.title = costs[i].title,
                         .unit = costs[i].unit,
                         .factor = 1,
                         .parts = {{cost, costs[i].unit}, {"held_out_loss", "nat"}},
                         .mark = {"held_out_loss", "held-out loss"}};
        fprintf(out,
                "<figure class=\"chart scatter\" data-kind=\"scatter\" data-x=\"%s\" "
                "data-axis=\"%s\" data-unit=\"%s\">\n<figcaption><h3>%s</h3><p>Down and to the "
                "left is better; the "
                "line joins the mechanisms that none beats in both.</p></figcaption>\n<div "
                "class=\"plot\"><canvas role=\"img\" aria-label=\"%s; its values are in the table "
                "below\"></canvas></div>\n",
                cost, costs[i].axis, costs[i].unit, costs[i].title, costs[i].title);
        write_table(out, summary, &c);
        fputs("</figure>\n", out);
    }
    if (!has_energy) {
        fputs("<figure class=\"chart\"><figcaption><h3>Loss against energy</h3></figcaption>\n"
              "<div class=\"panel\"><p><strong>Not available:</strong> ",
              out);
        html_text(out, attn_ranking_energy_absence(summary));
        fputs("</p></div></figure>\n", out);
    }
    fputs("</div>\n</section>\n", out);
}

static void write_power_row(FILE *out, const attn_summary_mechanism *m,
                            const attn_store_sample *samples, size_t n)
{
    double energy_j = 0.0, least_w = INFINITY, most_w = -INFINITY, before_s = 0.0;
    for (size_t i = 0; i < n; i++) {
        energy_j += samples[i].power_w * (samples[i].time_s - before_s);
        before_s = samples[i].time_s;
        least_w = fmin(least_w, samples[i].power_w);
        most_w = fmax(most_w, samples[i].power_w);
    }
    fputs("<tr><th scope=\"row\">", out);
    html_mechanism(out, m);
    fputs("</th><td class=\"text\">", out);
    html_text(out, samples[0].domain);
    fprintf(out, "</td><td>%zu</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td></tr>\n",
            n, attn_format_number(before_s, 4).text,
            before_s > 0 ? attn_format_number(energy_j / before_s, 4).text : "&ndash;",
            attn_format_number(least_w, 4).text, attn_format_number(most_w, 4).text,
            attn_format_number(energy_j, 4).text);
}

static void write_power_table(FILE *out, const attn_summary *summary)
{
    fputs("<details><summary>Values</summary><div class=\"scroll\" tabindex=\"0\" "
          "role=\"region\" aria-label=\"Power while training, values\"><table><caption>Power while "
          "training, the last round of each mechanism</caption><thead><tr><th scope=\"col\">"
          "Mechanism</th><th scope=\"col\" class=\"text\">Domain</th><th scope=\"col\">samples"
          "</th><th scope=\"col\">seconds</th><th scope=\"col\">mean, W</th><th scope=\"col\">"
          "least, W</th><th scope=\"col\">most, W</th><th scope=\"col\">sum, J</th></tr></thead>"
          "<tbody>\n",
          out);
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const attn_store_trial *trial = attn_curves_power_trial(summary, i);
        for (size_t s = 0, end = 0; trial && s < trial->n_samples; s = end) {
            for (end = s; end < trial->n_samples; end++)
                if (strcmp(trial->samples[end].domain, trial->samples[s].domain) != 0) break;
            write_power_row(out, &summary->mechanisms[i], &trial->samples[s], end - s);
        }
    }
    fputs("</tbody></table></div></details>\n", out);
}

/* Power as the meters saw it, when the store has samples. */
static void write_power(FILE *out, const attn_summary *summary)
{
    bool has_samples = false;
    for (size_t i = 0; i < summary->n_mechanisms; i++)
        has_samples |= attn_curves_power_trial(summary, i) != NULL;
    if (!has_samples) return;
    fputs("<figure class=\"chart power\" data-kind=\"power\">\n<figcaption><h3>Power and energy "
          "while training</h3><p>The last round of each mechanism, as the meters' sampler saw it; "
          "energy is the sum of these samples.</p></figcaption>\n"
          "<div class=\"switch\" role=\"group\" aria-label=\"Quantity\">"
          "<button type=\"button\" data-choice=\"power\" aria-pressed=\"true\">power</button>"
          "<button type=\"button\" data-choice=\"energy\" aria-pressed=\"false\">energy</button>"
          "</div>\n<div class=\"plot\"><canvas role=\"img\" aria-label=\"Power over time; means, "
          "extremes and sums are in the table below\"></canvas></div>\n",
          out);
    write_power_table(out, summary);
    fputs("</figure>\n", out);
}

/* Whether counted and computed work agree, from the findings. */
static void write_work_lead(FILE *out, const attn_summary *summary)
{
    attn_finding findings[ATTN_FINDINGS_MAX];
    const size_t n = attn_findings_make(summary, findings);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(findings[i].label, ATTN_FINDING_WORK) != 0) continue;
        fprintf(out, "<p class=\"lead%s\">", findings[i].is_caution ? " warn" : "");
        html_text(out, findings[i].detail);
        fputs("</p>\n", out);
    }
}

void html_charts(FILE *out, const attn_summary *summary)
{
    write_loss(out, summary);
    write_tradeoffs(out, summary);
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
        fprintf(out, "<section id=\"%s\">\n<h2>%s</h2>\n", sections[i].id, sections[i].title);
        if (sections[i].charts == work_charts) write_work_lead(out, summary);
        fputs("<div class=\"charts\">\n", out);
        for (size_t c = 0; c < sections[i].n_charts; c++)
            write_chart(out, summary, &sections[i].charts[c]);
        if (sections[i].charts == energy_charts) write_power(out, summary);
        fputs("</div>\n</section>\n", out);
    }
}
