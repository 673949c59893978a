/* Tables of the page: ranking, provenance, and JSON objects as rows. */
#include "report/findings.h"
#include "report/format.h"
#include "report/html_parts.h"
#include "report/ranking.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A thin space between groups of digits that does not break a line. */
#define THIN_SPACE "\xe2\x80\xaf"

void html_mechanism(FILE *out, const attn_summary_mechanism *mechanism)
{
    html_text(out, mechanism->name);
    if (mechanism->sees_future) fputs("<small class=\"warn\">sees the future</small>", out);
}

static const char *state_note(const attn_summary_mechanism *m)
{
    return m->reason ? attn_trial_state_name(m->reason_state) : "not ended";
}

static void write_cell(FILE *out, const attn_summary *summary, size_t row,
                       const attn_ranking_column *column)
{
    const attn_summary_figure *f = attn_summary_find(&summary->mechanisms[row], column->figure);
    if (!f || isnan(f->median)) {
        fputs("<td class=\"absent\" title=\"", out);
        html_text(out, f ? f->why : "no trial recorded it");
        fprintf(out, "\" data-value=\"\">%s</td>", f && f->n > 0 ? "nan" : "&ndash;");
        return;
    }
    const int decimals = attn_ranking_decimals(summary, column);
    fprintf(out, "<td%s data-value=\"%.17g\" title=\"%s: ",
            attn_ranking_is_best(summary, column, row) ? " class=\"best\"" : "", f->median,
            attn_provenance_name(f->provenance));
    html_text(out, f->source);
    fprintf(out, "; %s\">%s%s", attn_spread_label(f).text,
            f->provenance == ATTN_MODELLED ? "~" : "",
            attn_format_fixed(column->factor * f->median, decimals).text);
    if (f->spread != ATTN_SPREAD_NONE && f->low < f->high)
        fprintf(out, "<small>%s to %s</small>",
                attn_format_fixed(column->factor * f->low, decimals).text,
                attn_format_fixed(column->factor * f->high, decimals).text);
    fputs("</td>", out);
}

static const char *column_provenance(const attn_summary *summary, const char *figure)
{
    const char *name = NULL;
    for (size_t row = 0; row < summary->n_mechanisms; row++) {
        const attn_summary_figure *f = attn_summary_find(&summary->mechanisms[row], figure);
        if (!f || isnan(f->median)) continue;
        const char *own = attn_provenance_name(f->provenance);
        if (name && strcmp(name, own) != 0) return "mixed";
        name = own;
    }
    return name ? name : "unavailable";
}

static bool some_see_future(const attn_summary *summary)
{
    bool some = false;
    for (size_t i = 0; i < summary->n_mechanisms; i++) some |= summary->mechanisms[i].sees_future;
    return some;
}

void html_ranking(FILE *out, const attn_summary *summary, const char *sort, const size_t *order)
{
    attn_ranking_column columns[ATTN_RANKING_COLUMNS];
    attn_ranking_columns(summary, columns);
    fprintf(
        out,
        "<section id=\"ranking\">\n<h2>Ranking</h2>\n<p class=\"lead\">Ordered by %s, best "
        "first. Medians over the rounds, with the spread below. Bold: the best of a column, and "
        "what the data do not tell from it. A heading sorts when it is pressed; the origin of a "
        "number shows when you rest on it, and stands under Provenance.%s</p>\n<div "
        "class=\"scroll\" tabindex=\"0\" role=\"region\" "
        "aria-label=\"Ranking\">\n<table class=\"ranking\">\n<caption class=\"hidden\">Ranking: "
        "medians and spreads of each mechanism; headings sort</caption>\n<thead>"
        "<tr><th scope=\"col\" aria-sort=\"none\"><button type=\"button\">Mechanism</button></th>",
        strcmp(sort, "loss") == 0 ? "held-out loss" : sort,
        some_see_future(summary)
            ? " Those that see the future come last: they are no language models and not ranked."
            : "");
    for (size_t c = 0; c < ATTN_RANKING_COLUMNS; c++) {
        const char *provenance = column_provenance(summary, columns[c].figure);
        fprintf(out,
                "<th scope=\"col\" aria-sort=\"none\" data-rising=\"%d\"><button type=\"button\">%s"
                "</button><small>%s</small><i class=\"tag %s\">%s</i></th>",
                columns[c].is_lower_better, columns[c].title, columns[c].unit, provenance,
                provenance);
    }
    fputs("</tr></thead>\n<tbody>\n", out);
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const attn_summary_mechanism *m = &summary->mechanisms[order[i]];
        fputs("<tr><th scope=\"row\">", out);
        html_mechanism(out, m);
        if (m->n_trials[ATTN_TRIAL_DONE] > 0 && m->reason) {
            fputs("<small class=\"warn\" title=\"", out);
            html_text(out, m->reason);
            fprintf(out, "\">round %u %s</small>", (unsigned)m->reason_round, state_note(m));
        }
        fputs("</th>", out);
        if (m->n_trials[ATTN_TRIAL_DONE] == 0) {
            fprintf(out, "<td class=\"lost\" colspan=\"%d\">%s%s", ATTN_RANKING_COLUMNS,
                    state_note(m), m->reason && m->reason[0] ? ": " : "");
            if (m->reason) html_text(out, m->reason);
            fputs("</td>", out);
        } else {
            for (size_t c = 0; c < ATTN_RANKING_COLUMNS; c++)
                write_cell(out, summary, order[i], &columns[c]);
        }
        fputs("</tr>\n", out);
    }
    fputs("</tbody>\n</table>\n</div>\n</section>\n", out);
}

/* The exact number where it is a count, else as many digits as the spread supports. */
static attn_text plain_value(const attn_summary_figure *f)
{
    if (isnan(f->median)) return (attn_text){"\xe2\x80\x93"};
    if (f->median == floor(f->median) && fabs(f->median) < 1e15)
        return attn_format_count(f->median, THIN_SPACE);
    return attn_format_number(f->median, attn_format_digits(f->median, f->low, f->high) + 1);
}

static void write_figure_row(FILE *out, const attn_summary_figure *f)
{
    const char *provenance = f->is_mixed ? "mixed" : attn_provenance_name(f->provenance);
    fputs("<tr><th scope=\"row\">", out);
    html_text(out, f->name);
    fprintf(out, "</th><td>%s</td><td>", plain_value(f).text);
    html_text(out, f->unit);
    fputs("</td><td class=\"text\">", out);
    if (f->spread != ATTN_SPREAD_NONE && f->low < f->high)
        fprintf(out, "%s<small>%s</small>",
                attn_format_range(f->median, f->low, f->high, f->unit).text,
                attn_spread_label(f).text);
    fprintf(out, "</td><td class=\"text\"><i class=\"tag %s\">%s</i></td><td class=\"text\">",
            provenance, provenance);
    html_text(out, f->source);
    if (f->why[0]) {
        fputs("<small>", out);
        html_text(out, f->why);
        fputs("</small>", out);
    }
    fputs("</td></tr>\n", out);
}

void html_provenance(FILE *out, const attn_summary *summary)
{
    fputs("<section id=\"provenance\">\n<h2>Provenance</h2>\n<p class=\"lead\">Where every number "
          "comes from. <i class=\"tag measured\">measured</i> an instrument read at both ends; "
          "<i class=\"tag integrated\">integrated</i> instrument samples, summed; "
          "<i class=\"tag counted\">counted</i> as it happened; "
          "<i class=\"tag derived\">derived</i> from other figures of the trial; "
          "<i class=\"tag modelled\">modelled</i> from stated inputs, with an interval; "
          "<i class=\"tag unavailable\">unavailable</i> with the reason.</p>\n",
          out);
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const attn_summary_mechanism *m = &summary->mechanisms[i];
        fputs("<details><summary>", out);
        html_mechanism(out, m);
        fprintf(out, " <span>%zu figures, %zu rounds</span></summary>\n", m->n_figures,
                m->n_trials[ATTN_TRIAL_DONE]);
        fputs("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Figures of ", out);
        html_text(out, m->name);
        fputs("\"><table class=\"figures\"><caption class=\"hidden\">Figures of ", out);
        html_text(out, m->name);
        fputs(", with their origin</caption><thead><tr><th scope=\"col\">Figure"
              "</th><th scope=\"col\">Median</th><th scope=\"col\" class=\"text\">Unit</th>"
              "<th scope=\"col\" class=\"text\">Spread</th><th scope=\"col\" class=\"text\">"
              "Provenance</th><th scope=\"col\" class=\"text\">Source</th></tr></thead><tbody>\n",
              out);
        for (size_t f = 0; f < m->n_figures; f++) write_figure_row(out, &m->figures[f]);
        fputs("</tbody></table></div></details>\n", out);
    }
    fputs("</section>\n", out);
}

/* ---- JSON ------------------------------------------------------------------------------- */

static void write_scalar(FILE *out, const json_t *value)
{
    if (json_is_string(value)) {
        html_text(out, json_string_value(value));
    } else if (json_is_null(value)) {
        fputs("<span class=\"absent\">unknown</span>", out);
    } else {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
        html_text(out, text ? text : "");
        free(text);
    }
}

static bool is_flat(const json_t *array)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *entry = json_array_get(array, i);
        if (json_is_object(entry) || json_is_array(entry)) return false;
    }
    return true;
}

/* Deep nesting is cut: names keep room for what matters. */
static void write_rows(FILE *out, const char *name, json_t *value, int depth)
{
    enum { DEPTH_MOST = 6 };
    if (json_is_object(value) && depth < DEPTH_MOST) {
        const char *key = NULL;
        json_t *entry = NULL;
        json_object_foreach(value, key, entry)
        {
            char path[200];
            snprintf(path, sizeof path, "%s%s%s", name, name[0] ? "." : "", key);
            write_rows(out, path, entry, depth + 1);
        }
        return;
    }
    fputs("<tr><th scope=\"row\">", out);
    html_text(out, name);
    fputs("</th><td class=\"text\">", out);
    if (json_is_array(value) && is_flat(value)) {
        for (size_t i = 0; i < json_array_size(value); i++) {
            if (i > 0) fputs(", ", out);
            write_scalar(out, json_array_get(value, i));
        }
    } else {
        write_scalar(out, value);
    }
    fputs("</td></tr>\n", out);
}

void html_json_table(FILE *out, const char *json_text, const char *caption)
{
    json_t *value = json_loads(json_text, 0, NULL);
    fprintf(out,
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"%s\"><table "
            "class=\"pairs\"><caption>%s</caption><tbody>\n",
            caption, caption);
    if (value) {
        write_rows(out, "", value, 0);
    } else {
        fputs("<tr><th scope=\"row\">text</th><td class=\"text\">", out);
        html_text(out, json_text);
        fputs("</td></tr>\n", out);
    }
    fputs("</tbody></table></div>\n", out);
    json_decref(value);
}
