/* Exports. JSON comes from json.c; the rest is text of few rules. */
#include "report/export.h"

#include "base/error.h"
#include "base/memory.h"
#include "report/format.h"
#include "report/json.h"
#include "report/ranking.h"
#include "store/likeness.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* ---- Markdown ----------------------------------------------------------------------------- */

/* Bars and line ends would end a cell. */
static void md_text(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '|') fputc('\\', out);
        fputc(*text == '\n' ? ' ' : *text, out);
    }
}

static attn_status write_md(FILE *out, const attn_summary *summary, const char *sort,
                            attn_error *error)
{
    attn_ranking_column columns[ATTN_RANKING_COLUMNS];
    attn_ranking_columns(summary, columns);
    size_t *order = attn_alloc_array(ATTN_MEMORY_OTHER, summary->n_mechanisms, sizeof *order);
    if (!order) return attn_fail(error, ATTN_EMEMORY, "no memory for an export");
    const attn_status status = attn_ranking_order(summary, sort, order, error);
    if (status != ATTN_OK) {
        attn_free(order);
        return status;
    }
    fputs("| mechanism |", out);
    for (size_t c = 0; c < ATTN_RANKING_COLUMNS; c++)
        fprintf(out, " %s, %s |", columns[c].title, columns[c].unit);
    fputs("\n|---|", out);
    for (size_t c = 0; c < ATTN_RANKING_COLUMNS; c++) fputs("---:|", out);
    fputc('\n', out);
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const attn_summary_mechanism *m = &summary->mechanisms[order[i]];
        fputs("| ", out);
        md_text(out, m->name);
        fputs(" |", out);
        for (size_t c = 0; c < ATTN_RANKING_COLUMNS; c++) {
            const attn_summary_figure *f = attn_summary_find(m, columns[c].figure);
            if (!f || isnan(f->median)) {
                fputs(" - |", out);
                continue;
            }
            const double factor = columns[c].factor;
            const int digits = attn_format_digits(f->median, f->low, f->high);
            fprintf(out, " %s", attn_format_number(factor * f->median, digits).text);
            if (f->spread != ATTN_SPREAD_NONE && f->low < f->high)
                fprintf(out, " (%s to %s)", attn_format_number(factor * f->low, digits).text,
                        attn_format_number(factor * f->high, digits).text);
            fprintf(out, " %c |", attn_provenance_letter(f->provenance));
        }
        fputc('\n', out);
    }
    fputs("\nM measured, I integrated, C counted, D derived, ~ modelled, - unavailable; medians, "
          "in brackets their range or, from six rounds on, their 95 % interval.\n",
          out);
    attn_differences changed = {.n = 0};
    attn_likeness_resumed(summary->result->run.environment_json, &changed);
    for (size_t i = 0; i < changed.n; i++) {
        fputs(i == 0 ? "\nThe run was resumed by force under other circumstances: " : "; ", out);
        md_text(out, changed.texts[i]);
    }
    if (changed.n > 0) fputs(".\n", out);
    attn_free(order);
    return ATTN_OK;
}

/* ---- rows --------------------------------------------------------------------------------- */

/* A text as a field: quotes doubled, within quotes. The quote of CSV is ", that of SQL '. */
static void quoted(FILE *out, const char *text, char quote)
{
    fputc(quote, out);
    for (; *text; text++) {
        if (*text == quote) fputc(quote, out);
        fputc(*text, out);
    }
    fputc(quote, out);
}

static void number(FILE *out, double value, bool is_there, const char *absent)
{
    if (is_there && isfinite(value))
        fprintf(out, "%.17g", value);
    else
        fputs(absent, out);
}

/* Fields of one figure of one trial, in the order of the columns. */
static void write_fields(FILE *out, const attn_store_result *result, const attn_store_trial *trial,
                         const attn_figure *figure, char quote, const char *absent)
{
    fprintf(out, "%" PRId64 ",%" PRId64 ",%" PRIu32 ",%" PRIu32 ",", result->run.id, trial->id,
            trial->round, trial->position);
    quoted(out, trial->mechanism, quote);
    fputc(',', out);
    quoted(out, attn_trial_state_name(trial->state), quote);
    fputc(',', out);
    quoted(out, figure->name, quote);
    fputc(',', out);
    quoted(out, figure->unit, quote);
    fputc(',', out);
    number(out, figure->value, figure->provenance != ATTN_UNAVAILABLE, absent);
    fputc(',', out);
    number(out, figure->low, figure->has_interval, absent);
    fputc(',', out);
    number(out, figure->high, figure->has_interval, absent);
    fputc(',', out);
    quoted(out, attn_provenance_name(figure->provenance), quote);
    fputc(',', out);
    quoted(out, figure->source, quote);
    fputc(',', out);
    quoted(out, figure->why, quote);
}

static void write_csv(FILE *out, const attn_store_result *result)
{
    fputs("run,trial,round,position,mechanism,state,figure,unit,value,low,high,provenance,source,"
          "why\n",
          out);
    for (size_t t = 0; t < result->n_trials; t++)
        for (size_t f = 0; f < result->trials[t].n_figures; f++) {
            write_fields(out, result, &result->trials[t], &result->trials[t].figures[f], '"', "");
            fputc('\n', out);
        }
}

static void write_sql(FILE *out, const attn_store_result *result)
{
    fputs("CREATE TABLE attnscope_run (run INTEGER PRIMARY KEY, created_utc TEXT, state TEXT, "
          "title TEXT, plan_json TEXT, environment_json TEXT);\n"
          "CREATE TABLE attnscope_figure (run INTEGER, trial INTEGER, round INTEGER, position "
          "INTEGER, mechanism TEXT, state TEXT, figure TEXT, unit TEXT, value DOUBLE PRECISION, "
          "low DOUBLE PRECISION, high DOUBLE PRECISION, provenance TEXT, source TEXT, why TEXT);\n"
          "CREATE TABLE attnscope_step (trial INTEGER, step INTEGER, loss DOUBLE PRECISION, "
          "data_s DOUBLE PRECISION, forward_s DOUBLE PRECISION, backward_s DOUBLE PRECISION, "
          "optimizer_s DOUBLE PRECISION);\nBEGIN;\n",
          out);
    fprintf(out, "INSERT INTO attnscope_run VALUES (%" PRId64 ",", result->run.id);
    const char *const texts[] = {result->run.created_utc, result->run.state, result->run.title,
                                 result->run.plan_json, result->run.environment_json};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (i > 0) fputc(',', out);
        quoted(out, texts[i], '\'');
    }
    fputs(");\n", out);
    for (size_t t = 0; t < result->n_trials; t++) {
        const attn_store_trial *trial = &result->trials[t];
        for (size_t f = 0; f < trial->n_figures; f++) {
            fputs("INSERT INTO attnscope_figure VALUES (", out);
            write_fields(out, result, trial, &trial->figures[f], '\'', "NULL");
            fputs(");\n", out);
        }
        for (size_t s = 0; s < trial->n_steps; s++) {
            const attn_store_step *step = &trial->steps[s];
            const double values[] = {step->loss, step->data_s, step->forward_s, step->backward_s,
                                     step->optimizer_s};
            fprintf(out, "INSERT INTO attnscope_step VALUES (%" PRId64 ",%" PRIu64, trial->id,
                    step->step);
            for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
                fputc(',', out);
                number(out, values[v], true, "NULL");
            }
            fputs(");\n", out);
        }
    }
    fputs("COMMIT;\n", out);
}

attn_status attn_report_export(FILE *out, const char *format, const attn_store_result *result,
                               const attn_summary *summary, const char *sort, attn_error *error)
{
    attn_status status = ATTN_OK;
    if (strcmp(format, "md") == 0)
        status = write_md(out, summary, sort, error);
    else if (strcmp(format, "csv") == 0)
        write_csv(out, result);
    else if (strcmp(format, "json") == 0)
        status = attn_report_json(out, result, summary, error);
    else if (strcmp(format, "jsonl") == 0)
        status = attn_report_json_lines(out, result, error);
    else if (strcmp(format, "sql") == 0)
        write_sql(out, result);
    else
        status = attn_fail(error, ATTN_EARGUMENT, "'%s' is no format: use one of %s", format,
                           ATTN_EXPORT_FORMATS);
    if (status == ATTN_OK && ferror(out))
        status = attn_fail(error, ATTN_EIO, "writing an export failed");
    return status;
}
