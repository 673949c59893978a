/* attnscope report: a run of a store as a table, a page or JSON. */
#include "base/error.h"
#include "cli/options.h"
#include "report/ranking.h"
#include "report/report.h"
#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct settings {
    size_t run_id;
    const char *out, *format, *sort;
} settings;

static const cli_option options[] = {
    {.name = "run",
     .kind = CLI_SIZE,
     .offset = offsetof(settings, run_id),
     .argument = "ID",
     .help = "The run to show; 'attnscope list' names them. Without it, the newest."},
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
};

static bool stdout_shows_bold(void)
{
    const char *no_color = getenv("NO_COLOR"), *terminal = getenv("TERM");
    return isatty(STDOUT_FILENO) && !(no_color && *no_color) && terminal &&
           strcmp(terminal, "dumb") != 0;
}

static attn_status show(const settings *wanted, const attn_store_result *result, attn_error *error)
{
    attn_summary *summary = NULL;
    attn_status status = attn_summary_make(result, &summary, error);
    if (status != ATTN_OK) return status;
    attn_report_format format = ATTN_REPORT_TABLE;
    if (wanted->format)
        format = attn_report_format_parse(wanted->format);
    else if (wanted->out)
        format = attn_report_format_of_file(wanted->out);
    if (wanted->out)
        status = attn_report_save(wanted->out, format, result, summary, wanted->sort, error);
    else
        status = attn_report_write(stdout, format, result, summary, wanted->sort,
                                   stdout_shows_bold(), error);
    attn_summary_free(summary);
    return status;
}

static int run(const void *settings_pointer, size_t n_operands, char *const *operands)
{
    const settings *wanted = settings_pointer;
    attn_error error = {0};
    attn_store *store = NULL;
    attn_store_result *result = NULL;
    int64_t run_id = (int64_t)wanted->run_id;
    attn_status status = attn_store_open(&store, n_operands > 0 ? operands[0] : "attnscope.db",
                                         ATTN_STORE_READ, &error);
    if (status == ATTN_OK && run_id == 0) status = attn_store_newest_run(store, &run_id, &error);
    if (status == ATTN_OK) status = attn_store_load(store, run_id, &result, &error);
    if (status == ATTN_OK) status = show(wanted, result, &error);
    attn_store_result_free(result);
    attn_store_close(store);
    return status == ATTN_OK ? cli_finish(CLI_OK) : cli_fail(&error);
}

const cli_command cli_command_report = {
    .name = "report",
    .summary = "show a run from the store: table, page or JSON",
    .operands = "[STORE]",
    .description = "Shows a run that the store holds; nothing is measured again. STORE is "
                   "attnscope.db when it is not given.\n\n"
                   "To look at the charts in a browser:\n\n"
                   "  attnscope report --out report.html",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .operands_maximum = 1,
    .settings_bytes = sizeof(settings),
    .run = run,
};
