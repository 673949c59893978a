/* attnscope export: a run for other programs. */
#include "base/error.h"
#include "cli/options.h"
#include "cli/run_operand.h"
#include "cli/shared_options.h"
#include "report/export.h"
#include "report/ranking.h"
#include "report/report.h"

#include <stdio.h>
#include <string.h>

typedef struct settings {
    size_t run_id;
    const char *out, *format, *sort;
} settings;

static const cli_option options[] = {
    CLI_OPTION_RUN(settings),
    {.name = "out",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, out),
     .argument = "FILE",
     .help = "Write to this file instead of standard output; the end of its name chooses the "
             "format. An older file is replaced when the new one is whole."},
    {.name = "format",
     .kind = CLI_CHOICE,
     .offset = offsetof(settings, format),
     .argument = "FORMAT",
     .choices = ATTN_EXPORT_FORMATS,
     .help = "md: the ranking. csv: one row a figure. json: everything. jsonl: one line a trial. "
             "sql: for 'sqlite3 file.db <export.sql'. Default: the file's, else csv."},
    {.name = "sort",
     .kind = CLI_CHOICE,
     .offset = offsetof(settings, sort),
     .argument = "KEY",
     .initial = "loss",
     .choices = ATTN_RANKING_KEYS,
     .help = "What orders the ranking of md."},
};

static const char *format_of(const settings *wanted)
{
    static const char *const formats[] = {"md", "csv", "jsonl", "json", "sql"};
    if (wanted->format) return wanted->format;
    const char *dot = wanted->out ? strrchr(wanted->out, '.') : NULL;
    for (size_t i = 0; dot && i < sizeof formats / sizeof *formats; i++)
        if (strcmp(dot + 1, formats[i]) == 0) return formats[i];
    return "csv";
}

typedef struct job {
    const char *format, *sort;
    const attn_store_result *result;
    const attn_summary *summary;
} job;

static attn_status write_export(FILE *out, const void *argument, attn_error *error)
{
    const job *j = argument;
    return attn_report_export(out, j->format, j->result, j->summary, j->sort, error);
}

static int run(const void *settings_pointer, size_t n_operands, char *const *operands)
{
    const settings *wanted = settings_pointer;
    attn_error error = {0};
    attn_store_result *result = NULL;
    attn_summary *summary = NULL;
    attn_status status = cli_run_load(n_operands > 0 ? operands[0] : "attnscope.db", wanted->run_id,
                                      &result, &error);
    if (status == ATTN_OK) status = attn_summary_make(result, &summary, &error);
    if (status == ATTN_OK) {
        const job j = {.format = format_of(wanted),
                       .sort = wanted->sort,
                       .result = result,
                       .summary = summary};
        status = wanted->out ? attn_report_save_with(wanted->out, write_export, &j, &error)
                             : write_export(stdout, &j, &error);
    }
    attn_summary_free(summary);
    attn_store_result_free(result);
    return status == ATTN_OK ? cli_finish(CLI_OK) : cli_fail(&error);
}

const cli_command cli_command_export = {
    .name = "export",
    .summary = "a run as Markdown, CSV, JSON, JSON Lines or SQL",
    .operands = "[RUN]",
    .description = "Writes a stored run for other programs. RUN is " CLI_RUN_OPERAND_HELP
                   "; without it, the newest run of attnscope.db. Every number keeps its "
                   "provenance; one that is absent "
                   "keeps its reason.\n\n"
                   "  attnscope export --format sql | sqlite3 results.db",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .operands_maximum = 1,
    .settings_bytes = sizeof(settings),
    .run = run,
};
