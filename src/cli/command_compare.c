/* attnscope compare: two runs, or two mechanisms of one. */
#include "base/error.h"
#include "cli/options.h"
#include "cli/run_operand.h"
#include "report/comparison.h"

#include <stdio.h>
#include <string.h>

typedef struct settings {
    const char *mechanism_a, *mechanism_b, *interval, *fail_if;
    size_t seed;
    bool force, json;
} settings;

static const cli_option options[] = {
    {.name = "a",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, mechanism_a),
     .argument = "NAME",
     .help = "The mechanism of A. Without --a and --b, every mechanism that both have."},
    {.name = "b",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, mechanism_b),
     .argument = "NAME",
     .help = "The mechanism of B."},
    {.name = "interval",
     .kind = CLI_CHOICE,
     .offset = offsetof(settings, interval),
     .argument = "KIND",
     .initial = "sign",
     .choices = "sign|bootstrap",
     .help = "sign: exact for the median, whatever the noise is like. bootstrap: BCa, 10000 "
             "resamples, often narrower and never exact."},
    {.name = "seed",
     .kind = CLI_SIZE,
     .offset = offsetof(settings, seed),
     .argument = "N",
     .initial = "1",
     .maximum = 1e15,
     .help = "Of the bootstrap."},
    {.name = "fail-if",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, fail_if),
     .argument = "CONDITION",
     .help = "End with status 4 when B is beyond A by so much with its whole interval: "
             "'energy>+3%', 'time>+2%,memory>+1%', 'loss>+0.01' (nat). Status 3 when it was not "
             "measured, 1 below 6 rounds."},
    {.name = "force",
     .offset = offsetof(settings, force),
     .help = "Compare runs of other data, models, settings, machines or provenance too."},
    {.name = "json", .offset = offsetof(settings, json), .help = "Print JSON."},
};

static int gate_status(const attn_comparison *comparison, const char *conditions)
{
    static const int statuses[] = {[ATTN_GATE_PASSED] = CLI_OK,
                                   [ATTN_GATE_FAILED] = CLI_GATE_FAILED,
                                   [ATTN_GATE_UNKNOWN] = CLI_NO_PROVENANCE,
                                   [ATTN_GATE_TOO_FEW] = CLI_FAILED};
    attn_error error = {0};
    attn_gate_result result = ATTN_GATE_PASSED;
    char text[512];
    if (attn_comparison_gate(comparison, conditions, &result, text, sizeof text, &error) != ATTN_OK)
        return cli_fail(&error);
    fprintf(stderr, "attnscope: %s\n", text);
    return statuses[result];
}

static int run(const void *settings_pointer, size_t n_operands, char *const *operands)
{
    const settings *wanted = settings_pointer;
    attn_error error = {0};
    attn_store_result *a = NULL, *b = NULL;
    attn_comparison *comparison = NULL;
    int exit_status = CLI_OK;
    attn_status status = cli_run_load(operands[0], 0, &a, &error);
    const bool is_one = n_operands < 2 || strcmp(operands[0], operands[1]) == 0;
    if (status == ATTN_OK && !is_one) status = cli_run_load(operands[1], 0, &b, &error);
    if (status == ATTN_OK && is_one && (!wanted->mechanism_a || !wanted->mechanism_b))
        status = attn_fail(&error, ATTN_EARGUMENT,
                           "one run has nothing to be compared with but itself: name two of its "
                           "mechanisms with --a and --b, or give a second run");
    if (status == ATTN_OK) {
        const attn_comparison_options how = {.mechanism_a = wanted->mechanism_a,
                                             .mechanism_b = wanted->mechanism_b,
                                             .interval = strcmp(wanted->interval, "sign") == 0
                                                             ? ATTN_INTERVAL_SIGN
                                                             : ATTN_INTERVAL_BOOTSTRAP,
                                             .seed = wanted->seed,
                                             .is_forced = wanted->force};
        status = attn_comparison_make(a, b ? b : a, &how, &comparison, &error);
    }
    if (status == ATTN_OK && wanted->json)
        status = attn_comparison_json(stdout, comparison, &error);
    else if (status == ATTN_OK)
        attn_comparison_table(stdout, comparison);
    if (status != ATTN_OK)
        exit_status = cli_fail(&error);
    else
        exit_status =
            cli_finish(wanted->fail_if ? gate_status(comparison, wanted->fail_if) : CLI_OK);
    attn_comparison_free(comparison);
    attn_store_result_free(a);
    attn_store_result_free(b);
    return exit_status;
}

const cli_command cli_command_compare = {
    .name = "compare",
    .summary = "compare two runs, or two mechanisms of one run",
    .operands = "A [B]",
    .description =
        "Says how much B is above or below A, round by round, and whether the pairs really tell: "
        "an exact interval of the median ratio, at 95 % for all rows of one figure together. A and "
        "B are runs: " CLI_RUN_OPERAND_HELP
        ". Runs of other data, models, settings or machines are refused.\n\n"
        "  attnscope compare 3 4 --fail-if 'time>+2%'\n"
        "  attnscope compare 4 --a softmax --b flash",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .operands_minimum = 1,
    .operands_maximum = 2,
    .settings_bytes = sizeof(settings),
    .run = run,
};
