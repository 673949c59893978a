/* Figures for papers. Names from the store enter a script only through safe_text(): gnuplot runs
 * what stands in backquotes. */
#define _POSIX_C_SOURCE 200809L
#include "report/figures.h"

#include "base/error.h"
#include "base/memory.h"
#include "report/curves.h"
#include "report/findings.h"
#include "report/report.h"
#include "report/series.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { CURVE_POINTS_MOST = 400, PATH_BYTES = 4096 };

typedef struct text {
    char text[160];
} text;

/* What may stand in quotes of a script and in a column of data. */
static text safe_text(const attn_summary_mechanism *m)
{
    text out;
    snprintf(out.text, sizeof out.text, "%.127s%s", m->name,
             m->sees_future ? " (sees the future)" : "");
    for (char *c = out.text; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr(" .,:;=*+-_/()[]#", *c)) *c = '?';
    return out;
}

typedef struct figure {
    const char *name, *title;
    const char *x, *y; /* titles of the axes */
    /* Curves: the column of the data that is x. Bars: parts of a whole. Points: what costs. */
    int column;
    attn_series parts[ATTN_SERIES_MOST];
    attn_series total; /* of bars: with a whisker, or as a mark */
    bool is_peak;
    double factor;
    const char *costs[3]; /* of points: the first that was measured */
} figure;

static const figure figures[] = {
    {.name = "loss-steps",
     .title = "Loss against optimizer steps",
     .x = "optimizer steps",
     .y = "loss, nat per token",
     .column = 1},
    {.name = "loss-seconds",
     .title = "Loss against seconds of training",
     .x = "training time, s",
     .y = "loss, nat per token",
     .column = 2},
    {.name = "loss-flop",
     .title = "Loss against counted operations",
     .x = "operations, all three classes",
     .y = "loss, nat per token",
     .column = 3},
    {.name = "loss-joules",
     .title = "Loss against energy",
     .x = "energy, J (steps times the energy of a step)",
     .y = "loss, nat per token",
     .column = 4},
    {.name = "time",
     .title = "Time of a training step",
     .y = "time of a step, ms",
     .factor = 1e3,
     .parts = ATTN_STEP_TIME_PARTS,
     .total = {"step_time_s", "step"}},
    {.name = "memory",
     .title = "Peak memory in training, by category",
     .y = "memory, MiB",
     .factor = 1.0 / (1 << 20),
     .parts = ATTN_MEMORY_PARTS,
     .total = {"memory_peak_bytes", "peak of the sum"},
     .is_peak = true},
    {.name = "pareto-seconds",
     .title = "Held-out loss against training time",
     .x = "training time, s",
     .y = "held-out loss, nat per token",
     .costs = {"train_time_s"}},
    {.name = "pareto-joules",
     .title = "Held-out loss against energy",
     .x = "energy, J",
     .y = "held-out loss, nat per token",
     .costs = {"energy_components_j", "energy_cpu_package_j", "energy_system_j"}},
};

enum { FIGURES = sizeof figures / sizeof *figures };

static const char *const colours[] = {"#0b5cad", "#c8500a", "#6f9f89", "#791c5c",
                                      "#568ecf", "#43777b", "#952b1b", "#4659fe"};
static const char *const pale_colours[] = {"#b8cfe6", "#f1cab5", "#d4e2db", "#d7bbcf",
                                           "#cfdef1", "#c1d3d4", "#dfbfba", "#c8ceff"};
static const int point_types[] = {7, 5, 9, 13};

/* A median that something was read or counted for; NaN else. */
static double value_of(const attn_summary_mechanism *m, const char *name)
{
    const attn_summary_figure *f = attn_summary_find(m, name);
    return f && f->provenance != ATTN_MODELLED ? f->median : NAN;
}

typedef struct job {
    const attn_summary *summary;
    const figure *figure;
    const attn_curves *curves; /* of each mechanism */
    const char *cost;          /* of points */
} job;

/* ---- data --------------------------------------------------------------------------------- */

static void write_origin(FILE *out, const job *j, const char *name)
{
    for (size_t i = 0; i < j->summary->n_mechanisms; i++) {
        const attn_summary_figure *f = attn_summary_find(&j->summary->mechanisms[i], name);
        if (!f || isnan(f->median)) continue;
        fprintf(out, "# %s: %s, ", name, attn_provenance_name(f->provenance));
        for (const char *c = f->source; *c; c++) fputc((unsigned char)*c < 0x20 ? '?' : *c, out);
        fprintf(out, "; %s\n", attn_spread_label(f).text);
        return;
    }
}

static void write_points(FILE *out, const attn_curve_point *points, size_t n, const char *what,
                         const char *name)
{
    fprintf(out, "# %s, %s\n# step\tseconds\toperations\tjoules\tloss\n", name, what);
    for (size_t i = 0; i < n; i++)
        fprintf(out, "%.9g\t%.9g\t%.9g\t%.9g\t%.9g\n", points[i].step, points[i].time_s,
                points[i].operations, points[i].energy_j, points[i].loss);
    /* Blocks are counted, and gnuplot does not see one without a row. */
    if (n == 0) fputs("nan\tnan\tnan\tnan\tnan\n", out);
    fputs("\n\n", out);
}

/* Two blocks a mechanism, training and held-out, also when one has no points. */
static attn_status write_curves(FILE *out, const void *argument, attn_error *error)
{
    const job *j = argument;
    (void)error;
    fputs("# Loss in nat per token, medians over the rounds; blocks in pairs.\n", out);
    for (size_t i = 0; i < j->summary->n_mechanisms; i++) {
        const text name = safe_text(&j->summary->mechanisms[i]);
        if (j->curves[i].n_training + j->curves[i].n_held_out == 0) continue;
        write_points(out, j->curves[i].training, j->curves[i].n_training, "training", name.text);
        write_points(out, j->curves[i].held_out, j->curves[i].n_held_out, "held-out", name.text);
    }
    return ATTN_OK;
}

static attn_status write_bars(FILE *out, const void *argument, attn_error *error)
{
    const job *j = argument;
    const figure *f = j->figure;
    (void)error;
    for (size_t p = 0; p < ATTN_SERIES_MOST && f->parts[p].figure; p++)
        write_origin(out, j, f->parts[p].figure);
    write_origin(out, j, f->total.figure);
    fputs("mechanism", out);
    for (size_t p = 0; p < ATTN_SERIES_MOST && f->parts[p].figure; p++)
        fprintf(out, "\t%s", f->parts[p].label);
    fprintf(out, "\t%s\tlow\thigh\n", f->total.label);
    for (size_t i = 0; i < j->summary->n_mechanisms; i++) {
        const attn_summary_mechanism *m = &j->summary->mechanisms[i];
        const attn_summary_figure *total = attn_summary_find(m, f->total.figure);
        if (!total || isnan(total->median)) continue;
        const bool has_spread = total->spread != ATTN_SPREAD_NONE;
        fputs(safe_text(m).text, out);
        for (size_t p = 0; p < ATTN_SERIES_MOST && f->parts[p].figure; p++)
            fprintf(out, "\t%.9g", f->factor * value_of(m, f->parts[p].figure));
        fprintf(out, "\t%.9g\t%.9g\t%.9g\n", f->factor * total->median,
                f->factor * (has_spread ? total->low : total->median),
                f->factor * (has_spread ? total->high : total->median));
    }
    return ATTN_OK;
}

static bool has_point(const job *j, size_t i)
{
    const attn_summary_mechanism *m = &j->summary->mechanisms[i];
    return !isnan(value_of(m, j->cost)) && !isnan(value_of(m, "held_out_loss"));
}

/* One block a point, and a last one with those that none beats, by rising cost. */
static attn_status write_pareto(FILE *out, const void *argument, attn_error *error)
{
    const job *j = argument;
    (void)error;
    write_origin(out, j, j->cost);
    write_origin(out, j, "held_out_loss");
    size_t n_points = 0;
    for (size_t i = 0; i < j->summary->n_mechanisms; i++) {
        const attn_summary_mechanism *m = &j->summary->mechanisms[i];
        if (!has_point(j, i)) continue;
        n_points++;
        fprintf(out, "# %s\n%.9g\t%.9g\n\n\n", safe_text(m).text, value_of(m, j->cost),
                value_of(m, "held_out_loss"));
    }
    fputs("# none beats these in both\n", out);
    double written = -INFINITY;
    for (size_t n = 0; n < n_points; n++) {
        double next = INFINITY, loss = NAN;
        for (size_t i = 0; i < j->summary->n_mechanisms; i++) {
            const double cost = value_of(&j->summary->mechanisms[i], j->cost);
            if (!attn_curves_is_on_front(j->summary, i, j->cost) ||
                !(cost > written && cost < next))
                continue;
            next = cost;
            loss = value_of(&j->summary->mechanisms[i], "held_out_loss");
        }
        if (isinf(next)) break;
        fprintf(out, "%.9g\t%.9g\n", next, loss);
        written = next;
    }
    return ATTN_OK;
}

/* ---- scripts ------------------------------------------------------------------------------ */

static void script_curves(FILE *out, const job *j)
{
    size_t block = 0;
    for (size_t pass = 0; pass < 2; pass++) { /* pale lines lie below */
        block = 0;
        for (size_t i = 0; i < j->summary->n_mechanisms; i++) {
            const attn_curve_look look = attn_curves_look(j->summary, i);
            const attn_curves *c = &j->curves[i];
            if (c->n_training + c->n_held_out == 0) continue;
            if (pass == 0)
                fprintf(out, "%s 'loss.tsv' index %zu using %d:5 with lines lc rgb '%s' notitle",
                        block == 0 ? "plot" : ", \\\n    ", block, j->figure->column,
                        pale_colours[look.colour]);
            else
                fprintf(out,
                        ", \\\n     'loss.tsv' index %zu using %d:5 with linespoints lc rgb '%s' "
                        "dt %zu pt %d title '%s'",
                        block + 1, j->figure->column, colours[look.colour], look.dash + 1,
                        point_types[look.point], safe_text(&j->summary->mechanisms[i]).text);
            block += 2;
        }
    }
    fputc('\n', out);
}

static void script_bars(FILE *out, const job *j)
{
    const figure *f = j->figure;
    size_t n = 0;
    fputs("set style data histograms\nset style histogram rowstacked\n"
          "set style fill solid border lc rgb 'white'\nset boxwidth 0.7\nset yrange [0:*]\n"
          "set xtics rotate by -35 nomirror noenhanced\nset key autotitle columnhead\n",
          out);
    for (; n < ATTN_SERIES_MOST && f->parts[n].figure; n++)
        fprintf(out, "%s '%s.tsv' using %zu:xtic(1) lc rgb '%s'", n == 0 ? "plot" : ", \\\n    ",
                f->name, n + 2, colours[n]);
    /* Peaks of the parts may come at different moments: then the whole is less than their sum. */
    if (f->is_peak)
        fprintf(
            out,
            ", \\\n     '%s.tsv' using 0:%zu with points lc rgb 'black' pt 2 ps 0.7 title '%s'\n",
            f->name, n + 2, f->total.label);
    else
        fprintf(out,
                ", \\\n     '%s.tsv' using 0:%zu:(0):(column(%zu)-column(%zu)) with vectors heads "
                "size graph 0.01,90 lc rgb 'black' notitle\n",
                f->name, n + 3, n + 4, n + 3);
}

static void script_pareto(FILE *out, const job *j)
{
    size_t block = 0;
    for (size_t i = 0; i < j->summary->n_mechanisms; i++) {
        const attn_curve_look look = attn_curves_look(j->summary, i);
        if (!has_point(j, i)) continue;
        fprintf(out, "%s '%s.tsv' index %zu with points lc rgb '%s' pt %d ps 1.2 title '%s'",
                block == 0 ? "plot" : ", \\\n    ", j->figure->name, block, colours[look.colour],
                point_types[look.point], safe_text(&j->summary->mechanisms[i]).text);
        block++;
    }
    fprintf(out, ", \\\n     '%s.tsv' index %zu with lines lc rgb '#5b626b' dt 2 notitle\n",
            j->figure->name, block);
}

static attn_status write_script(FILE *out, const void *argument, attn_error *error)
{
    const job *j = argument;
    const figure *f = j->figure;
    (void)error;
    fprintf(out, "# %s: %s.pdf and %s.svg; run gnuplot in this folder.\nreset\n", f->title, f->name,
            f->name);
    fputs(
        "set datafile separator '\\t'\nset border 3 lc rgb '#5b626b'\n"
        "set grid lc rgb '#dfe2e6' lt 1\nset tics nomirror\nset key outside right top noenhanced\n",
        out);
    if (f->column == 3) fputs("set format x '%.0s %c'\n", out);
    if (f->x) fprintf(out, "set xlabel '%s'\n", f->x);
    fprintf(out,
            "set ylabel '%s'\nset terminal pdfcairo size 14cm,8cm font 'Sans,9'\n"
            "set output '%s.pdf'\n",
            f->y, f->name);
    if (f->column > 0)
        script_curves(out, j);
    else if (f->costs[0])
        script_pareto(out, j);
    else
        script_bars(out, j);
    fprintf(out,
            "set terminal svg size 840,480 dynamic font 'sans-serif,13' background 'white'\n"
            "set output '%s.svg'\nreplot\nset output\n",
            f->name);
    return ATTN_OK;
}

/* ---- all of them -------------------------------------------------------------------------- */

static attn_status path_of(char path[PATH_BYTES], const char *folder, const char *name,
                           const char *suffix, attn_error *error)
{
    if (snprintf(path, PATH_BYTES, "%s/%s%s", folder, name, suffix) < PATH_BYTES) return ATTN_OK;
    return attn_fail(error, ATTN_EARGUMENT, "the name of the folder is too long: '%.80s...'",
                     folder);
}

static attn_status save(const char *folder, const char *name, const char *suffix,
                        attn_report_writer *write, const job *j, attn_error *error)
{
    char path[PATH_BYTES];
    const attn_status status = path_of(path, folder, name, suffix, error);
    return status == ATTN_OK ? attn_report_save_with(path, write, j, error) : status;
}

static attn_status remove_old(const char *folder, attn_error *error)
{
    static const char *const suffixes[] = {".gp", ".tsv", ".pdf", ".svg"};
    char path[PATH_BYTES];
    for (size_t i = 0; i <= FIGURES; i++) /* and the data that the curves share */
        for (size_t s = 0; s < sizeof suffixes / sizeof *suffixes; s++) {
            const attn_status status =
                path_of(path, folder, i < FIGURES ? figures[i].name : "loss", suffixes[s], error);
            if (status != ATTN_OK) return status;
            if (remove(path) != 0 && errno != ENOENT)
                return attn_fail_errno(error, ATTN_EIO, errno, "cannot replace '%s'", path);
        }
    return ATTN_OK;
}

/* Whether the run has what the figure shows; finds the cost that was measured. */
static bool can_show(job *j)
{
    const figure *f = j->figure;
    j->cost = NULL;
    for (size_t c = 0; c < 3 && f->costs[c] && !j->cost; c++) {
        j->cost = f->costs[c];
        bool is_there = false;
        for (size_t i = 0; i < j->summary->n_mechanisms; i++) is_there |= has_point(j, i);
        if (!is_there) j->cost = NULL;
    }
    if (f->costs[0]) return j->cost != NULL;
    for (size_t i = 0; i < j->summary->n_mechanisms; i++) {
        const attn_curves *c = &j->curves[i];
        if (f->total.figure && !isnan(value_of(&j->summary->mechanisms[i], f->total.figure)))
            return true;
        for (size_t p = 0; f->column > 0 && p < c->n_training; p++)
            if (isfinite(c->training[p].loss) &&
                (f->column != 4 || isfinite(c->training[p].energy_j)))
                return true;
    }
    return false;
}

static attn_status write_figure(const char *folder, const job *j, attn_error *error)
{
    const figure *f = j->figure;
    attn_status status = save(folder, f->name, ".gp", write_script, j, error);
    if (status != ATTN_OK) return status;
    if (f->column > 0) return save(folder, "loss", ".tsv", write_curves, j, error);
    return save(folder, f->name, ".tsv", f->costs[0] ? write_pareto : write_bars, j, error);
}

attn_status attn_figures_write(const char *folder, const attn_summary *summary, attn_figures *made,
                               attn_error *error)
{
    *made = (attn_figures){0};
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return attn_fail_errno(error, ATTN_EIO, errno, "cannot make the folder '%s'", folder);
    attn_status status = remove_old(folder, error);
    attn_curves *curves =
        attn_alloc_array(ATTN_MEMORY_OTHER, summary->n_mechanisms, sizeof *curves);
    if (!curves) return attn_fail(error, ATTN_EMEMORY, "no memory for figures");
    for (size_t i = 0; i < summary->n_mechanisms && status == ATTN_OK; i++)
        status = attn_curves_make(summary, i, CURVE_POINTS_MOST, &curves[i], error);
    for (size_t i = 0; i < FIGURES && status == ATTN_OK; i++) {
        job j = {.summary = summary, .figure = &figures[i], .curves = curves};
        if (!can_show(&j)) continue;
        status = write_figure(folder, &j, error);
        made->names[made->n++] = figures[i].name;
    }
    if (status == ATTN_OK && made->n == 0)
        status = attn_fail(error, ATTN_EUNSUPPORTED,
                           "the run has nothing to draw: no trial of it is done");
    for (size_t i = 0; i < summary->n_mechanisms; i++) attn_curves_free(&curves[i]);
    attn_free(curves);
    return status;
}
