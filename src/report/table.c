/* The ranking table: one line per mechanism, what the letters mean, and in words what the
 * numbers say. Plain ASCII in its own parts. */
#include "report/table.h"

#include "base/error.h"
#include "base/memory.h"
#include "report/findings.h"
#include "report/format.h"
#include "report/overlay.h"
#include "report/ranking.h"

#include <math.h>
#include <string.h>

enum { WIDTH = 80, NAME_LEAST = 9, SPREAD_COLUMN = 1, SPREAD_WIDTH = 6 };

typedef struct table {
    const attn_summary *summary;
    attn_ranking_column columns[ATTN_RANKING_COLUMNS];
    size_t widths[ATTN_RANKING_COLUMNS];
    int decimals[ATTN_RANKING_COLUMNS]; /* of the row that supports the fewest */
    char letters[ATTN_RANKING_COLUMNS]; /* of the whole column; 0 when its cells differ */
    size_t name_width;
    bool is_bold;
} table;

static const attn_summary_figure *cell_figure(const table *t, size_t row, size_t column)
{
    return attn_summary_find(&t->summary->mechanisms[row], t->columns[column].figure);
}

static attn_text cell_text(const table *t, size_t row, size_t column)
{
    const attn_summary_figure *f = cell_figure(t, row, column);
    if (!f) return (attn_text){"-"};
    if (isnan(f->median) && f->is_mixed) return (attn_text){"mixed"};
    if (isnan(f->median) && f->n > 0) return (attn_text){"nan"};
    if (isnan(f->median)) return (attn_text){"-"};
    const bool is_modelled = f->provenance == ATTN_MODELLED;
    const attn_text number =
        attn_format_fixed(t->columns[column].factor * f->median, t->decimals[column]);
    attn_text out;
    snprintf(out.text, sizeof out.text, "%s%.24s", is_modelled ? "~" : "", number.text);
    if (t->letters[column] == '\0' && !is_modelled) {
        const size_t used = strlen(out.text);
        snprintf(out.text + used, sizeof out.text - used, " %c",
                 attn_provenance_letter(f->provenance));
    }
    return out;
}

/* The letter that all values of a column share. */
static char column_letter(const table *t, size_t column)
{
    char letter = '\0';
    for (size_t row = 0; row < t->summary->n_mechanisms; row++) {
        const attn_summary_figure *f = cell_figure(t, row, column);
        if (!f || isnan(f->median)) continue;
        const char own = attn_provenance_letter(f->provenance);
        if (letter != '\0' && letter != own) return '\0';
        letter = own;
    }
    return letter == '\0' ? '-' : letter;
}

static void measure(table *t)
{
    size_t taken = SPREAD_WIDTH;
    for (size_t c = 0; c < ATTN_RANKING_COLUMNS; c++) {
        t->letters[c] = column_letter(t, c);
        t->decimals[c] = attn_ranking_decimals(t->summary, &t->columns[c]);
        size_t width = strlen(t->columns[c].unit) + 2; /* and the letter */
        if (width < strlen(t->columns[c].title)) width = strlen(t->columns[c].title);
        for (size_t row = 0; row < t->summary->n_mechanisms; row++) {
            const size_t n = strlen(cell_text(t, row, c).text);
            if (n > width) width = n;
        }
        t->widths[c] = width;
        taken += width + 2;
    }
    const size_t most = taken + NAME_LEAST < WIDTH ? WIDTH - taken : NAME_LEAST;
    t->name_width = strlen("mechanism");
    for (size_t row = 0; row < t->summary->n_mechanisms; row++) {
        const size_t n = strlen(t->summary->mechanisms[row].name);
        if (n > t->name_width && n <= most) t->name_width = n;
    }
}

/* In the first columns of a line that goes on behind them; a name that is too long has lines of
 * its own before. */
static void print_name(FILE *out, const char *name, size_t indent, size_t width)
{
    const size_t n = strlen(name), most = n > width ? WIDTH - indent : width;
    fprintf(out, "%*s", (int)indent, "");
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)name[i];
        if (i > 0 && i % most == 0) fprintf(out, "\n%*s", (int)indent, "");
        fputc(c < 0x20 || c > 0x7e ? '?' : c, out);
    }
    if (n > width)
        fprintf(out, "\n%*s", (int)(indent + width), "");
    else
        fprintf(out, "%*s", (int)(width - n), "");
}

static void print_head(FILE *out, const table *t)
{
    fprintf(out, "%-*s", (int)t->name_width, "mechanism");
    for (size_t c = 0; c < ATTN_RANKING_COLUMNS; c++) {
        fprintf(out, "  %*s", (int)t->widths[c], t->columns[c].title);
        if (c == SPREAD_COLUMN) fprintf(out, "%*s", SPREAD_WIDTH, "+/-");
    }
    fprintf(out, "\n%-*s", (int)t->name_width, "");
    for (size_t c = 0; c < ATTN_RANKING_COLUMNS; c++) {
        attn_text unit;
        snprintf(unit.text, sizeof unit.text, "%s%s%c", t->columns[c].unit,
                 t->letters[c] ? " " : "", t->letters[c] ? t->letters[c] : ' ');
        fprintf(out, "  %*s", (int)t->widths[c], unit.text);
        if (c == SPREAD_COLUMN) fprintf(out, "%*s", SPREAD_WIDTH, "%");
    }
    fputc('\n', out);
}

/* Half of the spread of the step time, in percent of the median; what needs more room than the column
 * has is below what matters. */
static attn_text spread_text(const table *t, size_t row)
{
    static const double least = 0.01;
    const attn_summary_figure *f = cell_figure(t, row, SPREAD_COLUMN);
    if (!f || f->spread == ATTN_SPREAD_NONE || !(f->median > 0)) return (attn_text){"-"};
    const double spread = 50 * (f->high - f->low) / f->median;
    if (spread > 0 && spread < least) return (attn_text){"<0.01"};
    return attn_format_number(spread, 2);
}

static void print_row(FILE *out, const table *t, size_t row)
{
    const attn_summary_mechanism *m = &t->summary->mechanisms[row];
    print_name(out, m->name, 0, t->name_width);
    if (m->n_trials[ATTN_TRIAL_DONE] == 0) {
        const char *state = m->reason ? attn_trial_state_name(m->reason_state) : "not ended";
        char text[400];
        snprintf(text, sizeof text, " %s%s%s", state, m->reason && m->reason[0] ? ": " : "",
                 m->reason ? m->reason : "");
        fputs("  ", out);
        attn_format_wrapped(out, text, t->name_width + 2, t->name_width + 2, WIDTH);
        return;
    }
    for (size_t c = 0; c < ATTN_RANKING_COLUMNS; c++) {
        const bool is_bold = t->is_bold && attn_ranking_is_best(t->summary, &t->columns[c], row);
        fprintf(out, "  %s%*s%s", is_bold ? "\033[1m" : "", (int)t->widths[c],
                cell_text(t, row, c).text, is_bold ? "\033[0m" : "");
        if (c == SPREAD_COLUMN) fprintf(out, "%*s", SPREAD_WIDTH, spread_text(t, row).text);
    }
    fputc('\n', out);
}

/* What the +/- column holds depends on the number of rounds. */
static void print_legend(FILE *out, const table *t)
{
    const attn_summary_figure *most = NULL; /* has the most rounds of those with a spread */
    bool differ = false;
    for (size_t row = 0; row < t->summary->n_mechanisms; row++) {
        const attn_summary_figure *f = cell_figure(t, row, SPREAD_COLUMN);
        if (!f || isnan(f->median) || f->spread == ATTN_SPREAD_NONE) continue;
        differ |= most && f->spread != most->spread;
        if (!most || f->n > most->n) most = f;
    }
    fputs("\nM measured  I integrated  C counted  D derived  ~ modelled  - unavailable\n", out);
    if (!most)
        fputs("one round: no spread is known\n", out);
    else
        fprintf(out, "medians; +/- of the step time is half the %s%s\n",
                attn_spread_label(most).text,
                differ ? ",\nor half the range where fewer rounds are done" : "");
}

/* Modelled energy stands apart: it has its own interval and ranks nothing. */
static void print_modelled_energy(FILE *out, const table *t, const size_t *order)
{
    bool is_first = true;
    for (size_t i = 0; i < t->summary->n_mechanisms; i++) {
        const attn_summary_mechanism *m = &t->summary->mechanisms[order[i]];
        const attn_summary_figure *f = attn_summary_find(m, "energy_modelled_cpu_j");
        if (!f || isnan(f->median)) continue;
        if (is_first)
            fputs("\nmodelled CPU energy of a trial, not a measurement, ranks nothing:\n", out);
        is_first = false;
        print_name(out, m->name, 2, t->name_width);
        fprintf(out, "  ~%s", attn_format_si(f->median, 2, f->unit).text);
        if (f->spread == ATTN_SPREAD_MODEL)
            fprintf(out, "  (%s)", attn_format_range(f->median, f->low, f->high, f->unit).text);
        fputc('\n', out);
    }
}

static void print_findings(FILE *out, const attn_summary *summary)
{
    attn_finding findings[ATTN_FINDINGS_MAX];
    const size_t n = attn_findings_make(summary, findings);
    fputc('\n', out);
    for (size_t i = 0; i < n; i++) {
        const attn_finding *f = &findings[i];
        char text[1024];
        snprintf(text, sizeof text, "%s: %s%s%s. %s", f->label, f->subject,
                 f->value.text[0] ? ", " : "", f->value.text, f->detail);
        attn_format_wrapped(out, text, 0, 2, WIDTH);
    }
}

static void print_run(FILE *out, const attn_store_run *run, const char *name)
{
    const int start = fprintf(out, "%s, %s, %s: ", name, run->created_utc, run->state);
    attn_format_wrapped(out, run->title, start > 0 ? (size_t)start : 0, 2, WIDTH);
}

/* Of one run, or of each that is shown together. */
static void print_runs(FILE *out, const attn_store_result *result, const attn_overlay *overlay)
{
    char name[48];
    snprintf(name, sizeof name, "run %lld", (long long)result->run.id);
    if (!overlay) print_run(out, &result->run, name);
    for (size_t r = 0; overlay && r < overlay->n_runs; r++) {
        snprintf(name, sizeof name, "%c  run %lld", attn_overlay_letter(r),
                 (long long)overlay->runs[r]->id);
        print_run(out, overlay->runs[r], name);
    }
    fputc('\n', out);
}

static void print_comparisons(FILE *out, const attn_overlay *overlay)
{
    for (size_t r = 1; overlay && r < overlay->n_runs; r++) {
        fprintf(out, "\n%c beside A\n", attn_overlay_letter(r));
        attn_comparison_table(out, overlay->comparisons[r]);
    }
}

attn_status attn_report_table(FILE *out, const attn_store_result *result,
                              const attn_summary *summary, const char *sort, bool is_bold,
                              attn_error *error)
{
    table t = {.summary = summary, .is_bold = is_bold};
    attn_ranking_columns(summary, t.columns);
    size_t *order = attn_alloc_array(ATTN_MEMORY_OTHER, summary->n_mechanisms, sizeof *order);
    if (!order) return attn_fail(error, ATTN_EMEMORY, "no memory to print a ranking");
    attn_status status = attn_ranking_order(summary, sort, order, error);
    if (status == ATTN_OK) {
        print_runs(out, result, summary->overlay);
        measure(&t);
        print_head(out, &t);
        for (size_t i = 0; i < summary->n_mechanisms; i++) {
            const bool begins = i == 0 || !summary->mechanisms[order[i - 1]].sees_future;
            if (begins && summary->mechanisms[order[i]].sees_future)
                fputs("these see the future, so they are no language models and not ranked:\n",
                      out);
            print_row(out, &t, order[i]);
        }
        print_legend(out, &t);
        print_modelled_energy(out, &t, order);
        print_findings(out, summary);
        print_comparisons(out, summary->overlay);
    }
    attn_free(order);
    return status;
}
