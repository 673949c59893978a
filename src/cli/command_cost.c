/* attnscope cost: what a model would cost, counted exactly, and its time and energy on devices,
 * modelled. */
#define _POSIX_C_SOURCE 200809L
#include "base/error.h"
#include "cli/cost_against.h"
#include "cli/cost_report.h"
#include "files/atomic_file.h"

#include <stdlib.h>

typedef struct settings {
    cli_cost_settings cost;
    const char *convention, *store, *html;
    size_t against;
    bool json, csv, markdown, explain, list, newest;
} settings;

#define COST_FIELD(member) .offset = offsetof(settings, cost.member)
#define COST_MECHANISMS    "flash"

static const cli_option options[] = {
#include "cli/cost_options.def"
    {.name = "convention",
     .kind = CLI_CHOICE,
     .offset = offsetof(settings, convention),
     .argument = "NAME",
     .choices = ATTN_CONVENTION_CHOICES,
     .initial = "executed",
     .help = "Whose count of matrix products stands beside ours. With executed, the default, the "
             "useful part of it does."},
    {.name = "explain",
     .kind = CLI_FLAG,
     .offset = offsetof(settings, explain),
     .help = "Print every term with its formula and numbers."},
    {.name = "json",
     .kind = CLI_FLAG,
     .offset = offsetof(settings, json),
     .help = "Print JSON instead of tables."},
    {.name = "csv",
     .kind = CLI_FLAG,
     .offset = offsetof(settings, csv),
     .help = "Print CSV instead of tables."},
    {.name = "md",
     .kind = CLI_FLAG,
     .offset = offsetof(settings, markdown),
     .help = "Print tables in Markdown."},
    {.name = "html",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, html),
     .argument = "FILE",
     .help = "Write a page with the tables and with curves over the length."},
    {.name = "against",
     .kind = CLI_SIZE,
     .offset = offsetof(settings, against),
     .argument = "RUN",
     .maximum = 1e15,
     .help = "Predict the steps of a run of the store, whose model and sizes it takes, beside what "
             "was measured, with the part that carries the error and the resource behind it; "
             "--explain prints every part."},
    {.name = "against-newest",
     .kind = CLI_FLAG,
     .offset = offsetof(settings, newest),
     .help = "The same for the newest run."},
    {.name = "store",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, store),
     .argument = "FILE",
     .initial = "attnscope.db",
     .help = "The store of --against."},
    {.name = "list",
     .kind = CLI_FLAG,
     .offset = offsetof(settings, list),
     .help = "List the known devices and models, and nothing else."},
};

static attn_status compare(const settings *s, const cli_cost_question *question, attn_error *error)
{
    const attn_device *device = question->n_devices ? question->devices[0] : NULL;
    if (!device) device = attn_records_find(&question->catalog.devices, "this", NULL);
    if (!device)
        return attn_fail(error, ATTN_ENOTFOUND,
                         "this machine was not measured yet: run attnscope calibrate");
    return cli_cost_against(stdout, s->store, (int64_t)s->against, &question->catalog, device,
                            s->markdown  ? CLI_COST_MARKDOWN
                            : s->explain ? CLI_COST_EXPLAIN
                                         : CLI_COST_TABLE,
                            error);
}

static attn_status print_page(const char *path, const cli_cost_rows *rows, attn_error *error)
{
    char *page = NULL;
    size_t page_bytes = 0;
    attn_atomic_file *file = NULL;
    FILE *memory = open_memstream(&page, &page_bytes);
    if (!memory) return attn_fail(error, ATTN_EMEMORY, "no memory for a page");
    attn_status status = cli_cost_html(memory, rows, error);
    if (fclose(memory) != 0 && status == ATTN_OK)
        status = attn_fail(error, ATTN_EMEMORY, "no memory for a page");
    if (status == ATTN_OK) status = attn_atomic_file_create(&file, path, error);
    if (status == ATTN_OK) status = attn_atomic_file_write(file, page, page_bytes, error);
    if (status == ATTN_OK) status = attn_atomic_file_commit(file, error);
    attn_atomic_file_free(file);
    free(page);
    if (status == ATTN_OK) printf("written: %s\n", path);
    return status;
}

static attn_status print(const settings *s, const cli_cost_question *question, attn_error *error)
{
    cli_cost_rows rows;
    attn_status status =
        cli_cost_rows_make(&rows, question, attn_convention_parse(s->convention), error);
    if (status == ATTN_OK) {
        if (s->html)
            status = print_page(s->html, &rows, error);
        else if (s->json)
            status = cli_cost_json(stdout, &rows, false, error);
        else if (s->csv)
            cli_cost_csv(stdout, &rows);
        else if (s->explain)
            cli_cost_explain(stdout, &rows);
        else if (s->markdown)
            cli_cost_markdown(stdout, &rows);
        else
            cli_cost_table(stdout, &rows);
    }
    cli_cost_rows_free(&rows);
    return status;
}

static int run(const void *settings_pointer, size_t n_operands, char *const *operands)
{
    (void)n_operands;
    (void)operands;
    const settings *s = settings_pointer;
    attn_error error = {0};
    cli_cost_question question;
    attn_status status = ATTN_OK;
    if (s->json + s->csv + s->markdown + s->explain > 1 && !s->list)
        status = attn_fail(&error, ATTN_EARGUMENT,
                           "cost: --json, --csv, --md and --explain exclude each other");
    if (status != ATTN_OK) return cli_cost_fail(&error);
    status = cli_cost_question_make(&s->cost, &question, &error);
    if (status == ATTN_OK && s->list) {
        if (s->markdown)
            cli_cost_list_markdown(stdout, &question.catalog);
        else
            cli_cost_list(stdout, &question.catalog);
    } else if (status == ATTN_OK && (s->against || s->newest)) {
        status = compare(s, &question, &error);
    } else if (status == ATTN_OK) {
        status = print(s, &question, &error);
    }
    cli_cost_question_free(&question);
    return status == ATTN_OK ? cli_finish(CLI_OK) : cli_cost_fail(&error);
}

const cli_command cli_command_cost = {
    .name = "cost",
    .summary = "count what a model would cost, and model its time",
    .operands = "",
    .description =
        "Counts operations, bytes and memory of a model's step from closed forms that equal what "
        "the kernels count, to the last digit, and models time and energy on devices from a "
        "roofline. Counts are exact; times and energies are modelled and carry an interval.\n\n"
        "  attnscope cost --model llama3-8b --mechanisms flash,gla --seq 512-131072*2\n"
        "  attnscope cost --model llama3-8b --phase decode --device h100-sxm,l4\n"
        "  attnscope cost --model llava-1.5-7b --text 128 --explain",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .settings_bytes = sizeof(settings),
    .run = run,
};
