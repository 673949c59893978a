/* attnscope report: stored runs as a table, a page, JSON, or figures for papers. */
#include "base/error.h"
#include "cli/gnuplot.h"
#include "cli/options.h"
#include "cli/run_operand.h"
#include "cli/shared_options.h"
#include "cli/terminal.h"
#include "report/figures.h"
#include "report/overlay.h"
#include "report/ranking.h"
#include "report/report.h"

#include <stdio.h>

typedef struct settings {
    size_t run_id;
    const char *out, *format, *sort, *figures;
    bool force;
} settings;

static const cli_option options[] = {
    CLI_OPTION_RUN(settings),
    {.name = "out",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, out),
     .argument = "FILE",
     .help = "Write to this file instead of standard output. Names that end in .html or .json "
             "choose the format. An older file is replaced when the new one is whole."},
    {.name = "format",
     .kind = CLI_CHOICE,
     .offset = offsetof(settings, format),
     .argument = "FORMAT",
     .choices = "table|json|html",
     .help = "The table is for terminals; the page holds charts and the origin of every number; "
             "JSON holds everything that the store knows of the run."},
    {.name = "sort",
     .kind = CLI_CHOICE,
     .offset = offsetof(settings, sort),
     .argument = "KEY",
     .initial = "loss",
     .choices = ATTN_RANKING_KEYS,
     .help = "What orders the ranking. Energy needs a measurement: modelled values rank nothing."},
    {.name = "figures",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, figures),
     .argument = "DIR",
     .help = "Write figures for papers into this folder instead: a gnuplot script and the data of "
             "each, and when gnuplot is there, PDF and SVG."},
    {.name = "force",
     .offset = offsetof(settings, force),
     .help = "Show runs of other data, models, settings, machines or provenance together too, and "
             "say so."},
};

static attn_status write_figures(const char *folder, const attn_summary *summary, attn_error *error)
{
    attn_figures figures;
    attn_status status = attn_figures_write(folder, summary, &figures, error);
    if (status != ATTN_OK) return status;
    bool is_there = true;
    status = cli_gnuplot(folder, &figures, &is_there, error);
    if (status != ATTN_OK) return status;
    if (is_there)
        fprintf(stderr, "attnscope: %zu figures as PDF and SVG, with scripts and data, are in %s\n",
                figures.n, folder);
    else
        fprintf(
            stderr,
            "attnscope: the scripts and data of %zu figures are in %s; for PDF and SVG, install "
            "gnuplot (apt-get install gnuplot-nox) and repeat the command\n",
            figures.n, folder);
    return ATTN_OK;
}

static attn_status show(const settings *wanted, const attn_store_result *result,
                        const attn_summary *summary, attn_error *error)
{
    attn_report_format format = ATTN_REPORT_TABLE;
    if (wanted->figures) return write_figures(wanted->figures, summary, error);
    if (wanted->format)
        format = attn_report_format_parse(wanted->format);
    else if (wanted->out)
        format = attn_report_format_of_file(wanted->out);
    if (wanted->out)
        return attn_report_save(wanted->out, format, result, summary, wanted->sort, error);
    return attn_report_write(stdout, format, result, summary, wanted->sort, cli_stdout_shows_bold(),
                             error);
}

static int run(const void *settings_pointer, size_t n_operands, char *const *operands)
{
    const settings *wanted = settings_pointer;
    attn_error error = {0};
    attn_store_result *results[ATTN_OVERLAY_RUNS_MAX] = {NULL};
    const attn_store_result *constant[ATTN_OVERLAY_RUNS_MAX];
    attn_summary *summary = NULL;
    attn_overlay *overlay = NULL;
    attn_status status = ATTN_OK;
    const size_t n_runs = n_operands > 0 ? n_operands : 1;
    if (wanted->figures && (wanted->out || wanted->format))
        status = attn_fail(&error, ATTN_EARGUMENT,
                           "--figures writes a folder: leave --out and --format out");
    if (n_runs > 1 && wanted->run_id > 0)
        status = attn_fail(&error, ATTN_EARGUMENT,
                           "--run is for one store: name several runs as STORE@NUMBER");
    for (size_t r = 0; r < n_runs && status == ATTN_OK; r++) {
        status = cli_run_load(n_operands > 0 ? operands[r] : "attnscope.db", wanted->run_id,
                              &results[r], &error);
        constant[r] = results[r];
    }
    if (status == ATTN_OK && n_runs > 1)
        status = attn_overlay_make(constant, n_runs, wanted->force, &overlay, &error);
    else if (status == ATTN_OK)
        status = attn_summary_make(results[0], &summary, &error);
    if (status == ATTN_OK)
        status = show(wanted, overlay ? &overlay->result : results[0],
                      overlay ? overlay->summary : summary, &error);
    attn_overlay_free(overlay);
    attn_summary_free(summary);
    for (size_t r = 0; r < n_runs; r++) attn_store_result_free(results[r]);
    return status == ATTN_OK ? cli_finish(CLI_OK) : cli_fail(&error);
}

const cli_command cli_command_report = {
    .name = "report",
    .summary = "show runs from the store: table, page, JSON, figures",
    .operands = "[RUN...]",
    .description =
        "Shows what a store holds; nothing is measured again. RUN is " CLI_RUN_OPERAND_HELP
        "; without it, the newest run of attnscope.db. Several runs, up to 8, are shown "
        "together, each mechanism with the letter of its run; those of other data, "
        "models, settings or machines are refused.\n\n"
        "To look at the charts in a browser:\n\n"
        "  attnscope report --out report.html\n"
        "  attnscope report 3 4 --out both.html",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .operands_maximum = ATTN_OVERLAY_RUNS_MAX,
    .settings_bytes = sizeof(settings),
    .run = run,
};
