/* attnscope list: the runs of a store. */
#include "cli/options.h"
#include "report/json.h"
#include "report/runs.h"
#include "store/store.h"

#include <stdio.h>

typedef struct settings {
    bool json;
} settings;

static const cli_option options[] = {
    {.name = "json", .offset = offsetof(settings, json), .help = "Print the list as JSON."},
};

static int run(const void *settings_pointer, size_t n_operands, char *const *operands)
{
    const settings *wanted = settings_pointer;
    attn_error error = {0};
    attn_store *store = NULL;
    attn_store_overview *runs = NULL;
    size_t n_runs = 0;
    attn_status status = attn_store_open(&store, n_operands > 0 ? operands[0] : "attnscope.db",
                                         ATTN_STORE_READ, &error);
    if (status == ATTN_OK) status = attn_store_list(store, &runs, &n_runs, &error);
    if (status == ATTN_OK && wanted->json)
        status = attn_report_json_list(stdout, runs, n_runs, &error);
    else if (status == ATTN_OK)
        attn_report_runs(stdout, runs, n_runs);
    attn_store_overviews_free(runs, n_runs);
    attn_store_close(store);
    return status == ATTN_OK ? cli_finish(CLI_OK) : cli_fail(&error);
}

const cli_command cli_command_list = {
    .name = "list",
    .summary = "list the runs of a store",
    .operands = "[STORE]",
    .description = "Lists the runs of a store, oldest first: number, time, state, trials done of "
                   "those planned, and how the run was called. STORE is attnscope.db when it is "
                   "not given.",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .operands_maximum = 1,
    .settings_bytes = sizeof(settings),
    .run = run,
};
