/* attnscope attach: the log of a wall meter beside a run that is over. */
#include "base/error.h"
#include "cli/options.h"
#include "cli/run_operand.h"
#include "experiment/attach.h"
#include "meters/energy.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

typedef struct settings {
    const char *csv;
    double offset_s;
} settings;

static const cli_option options[] = {
    {.name = "meter-csv",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, csv),
     .argument = "FILE",
     .help = "The log: lines 'epoch_seconds watts [joules]', apart by blanks, commas or "
             "semicolons, rising in time. Where every line has joules, these count."},
    {.name = "meter-offset",
     .kind = CLI_NUMBER,
     .offset = offsetof(settings, offset_s),
     .argument = "SECONDS",
     .minimum = -1e9,
     .maximum = 1e9,
     .help = "Added to the log's times first: for clocks that are more than a minute apart, and "
             "for logs in another time zone."},
};

static void say(const attn_attached *a, int64_t run_id, const char *path)
{
    printf("run %" PRId64 ": %zu of %zu trials have energy_system_j by %s (sha256 %.12s)\n", run_id,
           a->n_measured, a->n_done, path, a->sha256);
    printf("the log's clock is %.3f s %s this machine's, within %.2g s: at work it shows %.4g W "
           "more than at rest, which explains %.1f %% of its variance\n",
           fabs(a->shift.shift_s), a->shift.shift_s < 0.0 ? "behind" : "ahead of",
           a->shift.within_s, a->shift.step_w, 100.0 * a->shift.explained);
    printf("a reading every %.3g s; %s\n", a->interval_s,
           a->is_counter ? "its joules are taken as measured" : "its power is integrated");
    if (a->n_unknown > 0)
        fprintf(stderr, "attnscope: warning: %zu trial%s not measured by it: %s\n", a->n_unknown,
                a->n_unknown == 1 ? " is" : "s are", a->why);
    if (fabs(a->disagreement) > ATTN_ENERGY_AGREE)
        fprintf(stderr,
                "attnscope: warning: the meter's joules differ from its watts by %.0f %%: one of "
                "them is not what it is called\n",
                100.0 * a->disagreement);
}

static int run(const void *settings_pointer, size_t n_operands, char *const *operands)
{
    const settings *wanted = settings_pointer;
    attn_error error = {0};
    attn_store *store = NULL;
    attn_attached attached;
    int64_t run_id = 0;
    attn_status status = ATTN_OK;
    if (!wanted->csv)
        status = attn_fail(&error, ATTN_EARGUMENT,
                           "which log is to be attached? Name it with --meter-csv");
    if (status == ATTN_OK)
        status = cli_run_open(n_operands > 0 ? operands[0] : "attnscope.db", 0, ATTN_STORE_WRITE,
                              &store, &run_id, &error);
    if (status == ATTN_OK)
        status = attn_attach_log(store, run_id, wanted->csv, wanted->offset_s, &attached, &error);
    attn_store_close(store);
    if (status != ATTN_OK) return cli_fail(&error);
    say(&attached, run_id, wanted->csv);
    return cli_finish(CLI_OK);
}

const cli_command cli_command_attach = {
    .name = "attach",
    .summary = "the log of a wall meter beside a run that is over",
    .operands = "[RUN]",
    .description =
        "Adds the energy of the whole machine to the trials of a stored run, from the log that a "
        "wall meter wrote in the meantime. RUN is " CLI_RUN_OPERAND_HELP
        "; without it, the newest run of attnscope.db. The log's clock need not be this machine's: "
        "up to a minute between them is found by the steps of load at the borders of the trials, "
        "and said with its uncertainty. The log must begin some seconds before the run and end "
        "some seconds behind it; --cool-down and --idle of 'attnscope run' give more such steps. "
        "What cannot be aligned, or is in the store already, is refused.\n\n"
        "  attnscope attach 3 --meter-csv wall.csv",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .operands_maximum = 1,
    .settings_bytes = sizeof(settings),
    .run = run,
};
