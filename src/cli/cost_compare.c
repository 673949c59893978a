/* Tables of measured and predicted steps; at most 80 columns. */
#include "cli/cost_compare.h"

#include "base/text.h"
#include "report/format.h"

#include <math.h>
#include <string.h>

/* Within this, a prediction is good. */
static const double good = 0.15;
enum { NAME_COLUMNS = 14 };

void cli_cost_compare(cli_cost_comparison *comparison, const char *name,
                      const attn_prediction *prediction, const attn_cost_measured *measured)
{
    cli_cost_compared *row = &comparison->rows[comparison->count++];
    attn_text_copy(row->name, sizeof row->name, name);
    row->measured_s = measured->step_s;
    row->predicted_s = prediction->time_s.value;
    row->n_gaps = attn_cost_gaps(prediction, measured, row->gaps);
}

static const char *pass_name(const attn_cost_gap *gap)
{
    if (gap->place == ATTN_PLACE_UPDATE) return "";
    return gap->pass == ATTN_COST_FORWARD ? " fwd" : " bwd";
}

static attn_cost_changes changes_of(const cli_cost_comparison *c)
{
    attn_cost_gap gaps[ATTN_PATTERNS_MAX * ATTN_GAPS_MAX];
    size_t n = 0;
    for (size_t i = 0; i < c->count; i++) {
        memcpy(gaps + n, c->rows[i].gaps, c->rows[i].n_gaps * sizeof *gaps);
        n += c->rows[i].n_gaps;
    }
    return attn_cost_fit(gaps, n);
}

/* "products, here" */
static attn_text blame_text(const attn_cost_blame *blame)
{
    attn_text text;
    snprintf(text.text, sizeof text.text, "%s, %s", attn_cost_cause_name(blame->cause),
             blame->is_everywhere ? "all" : "here");
    return text;
}

static attn_text signed_time(double time_s)
{
    attn_text text;
    snprintf(text.text, sizeof text.text, "%c%.40s", time_s < 0.0 ? '-' : '+',
             attn_format_si(fabs(time_s), 2, "s").text);
    return text;
}

/* ---- one line a mechanism ------------------------------------------------------------------- */

static void print_row(FILE *out, const cli_cost_compared *row, const attn_cost_changes *changes,
                      cli_cost_form form)
{
    const bool is_markdown = form == CLI_COST_MARKDOWN;
    const attn_cost_gap *gap = attn_cost_carrier(row->gaps, row->n_gaps);
    const char *name = row->name;
    char off[16] = "-", place[32] = "-", gap_s[40] = "-";
    attn_text cause = {"-"};
    if (row->measured_s > 0.0)
        snprintf(off, sizeof off, "%+.0f%%", 100.0 * (row->predicted_s / row->measured_s - 1.0));
    if (gap) {
        const attn_cost_blame blame = attn_cost_blame_of(gap, changes);
        snprintf(place, sizeof place, "%s%s", attn_cost_place_name(gap->place), pass_name(gap));
        snprintf(gap_s, sizeof gap_s, "%.30s",
                 signed_time(gap->measured_s - gap->predicted_s).text);
        cause = blame_text(&blame);
    }
    if (!is_markdown && strlen(name) > NAME_COLUMNS) {
        fprintf(out, "%s\n", name);
        name = "";
    }
    fprintf(out,
            is_markdown ? "| %s | %s | %s | %s | %s | %s | %s |\n"
                        : "%-14s %8s %9s %5s  %-13s %8s  %s\n",
            name, row->measured_s > 0.0 ? attn_format_si(row->measured_s, 3, "s").text : "-",
            attn_format_si(row->predicted_s, 3, "s").text, off, place, gap_s, cause.text);
}

static void print_rows(FILE *out, const cli_cost_comparison *c, const attn_cost_changes *changes,
                       cli_cost_form form)
{
    if (form == CLI_COST_MARKDOWN)
        fputs("| mechanism | measured | predicted | off | carried by | gap | behind it |\n"
              "|---|---:|---:|---:|---|---:|---|\n",
              out);
    else
        fprintf(out, "%-14s %8s %9s %5s  %-13s %8s  %s\n", "mechanism", "measured", "predicted",
                "off", "carried by", "gap", "behind it");
    for (size_t i = 0; i < c->count; i++) print_row(out, &c->rows[i], changes, form);
}

/* ---- every part ----------------------------------------------------------------------------- */

static void print_parts(FILE *out, const cli_cost_comparison *c)
{
    for (size_t i = 0; i < c->count; i++) {
        const cli_cost_compared *row = &c->rows[i];
        fprintf(out, "\n%s, ms\n%-13s %8s %9s  %8s %7s %7s %7s %7s\n", row->name, "part",
                "measured", "predicted", "products", "exp", "other", "bytes", "launch");
        for (size_t g = 0; g < row->n_gaps; g++) {
            const attn_cost_gap *gap = &row->gaps[g];
            const attn_cost_terms *t = &gap->terms;
            char place[32];
            snprintf(place, sizeof place, "%s%s", attn_cost_place_name(gap->place), pass_name(gap));
            fprintf(out, "%-13s %8.2f %9.2f  %8.2f %7.2f %7.2f %7.2f %7.2f\n", place,
                    1e3 * gap->measured_s, 1e3 * gap->predicted_s, 1e3 * t->matmul_s,
                    1e3 * t->exponential_s, 1e3 * t->other_s, 1e3 * t->memory_s, 1e3 * t->launch_s);
        }
    }
}

static void print_changes(FILE *out, const attn_cost_changes *changes)
{
    char text[400];
    int n = snprintf(text, sizeof text,
                     "What would fit all parts best (all): of the time that the model gives each,");
    for (size_t k = 0; k < ATTN_CAUSE_TERMS; k++)
        n += snprintf(text + n, sizeof text - (size_t)n, "%s %s %+.0f%%", k ? "," : "",
                      attn_cost_cause_name((attn_cost_cause)k), 100.0 * changes->share[k]);
    snprintf(text + n, sizeof text - (size_t)n,
             ". What one part is off by beyond that is its own (here).");
    attn_format_wrapped(out, text, 0, 0, 80);
}

void cli_cost_comparison_print(FILE *out, const cli_cost_comparison *c, cli_cost_form form)
{
    const attn_cost_changes changes = changes_of(c);
    size_t within = 0, measured = 0, gaps = 0;
    for (size_t i = 0; i < c->count; i++) {
        gaps += c->rows[i].n_gaps;
        if (!(c->rows[i].measured_s > 0.0)) continue;
        measured++;
        within += fabs(c->rows[i].predicted_s / c->rows[i].measured_s - 1.0) <= good;
    }
    print_rows(out, c, &changes, form);
    fprintf(out, "\nwithin %.0f%%: %zu of %zu\n", 100.0 * good, within, measured);
    if (gaps) print_changes(out, &changes);
    if (form == CLI_COST_EXPLAIN) print_parts(out, c);
}
