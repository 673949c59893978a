/* attnscope run: the main job. Reads the options into a plan, runs it, shows the result. */
#define _DEFAULT_SOURCE
#include "attn/context.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/sha256.h"
#include "base/version.h"
#include "cli/dry_run.h"
#include "cli/options.h"
#include "cli/run_options.h"
#include "cli/run_progress.h"
#include "cli/terminal.h"
#include "data/data_path.h"
#include "experiment/measuring.h"
#include "experiment/runner.h"
#include "experiment/trial.h"
#include "files/atomic_file.h"
#include "meters/environment.h"
#include "meters/system_clock.h"
#include "model/checkpoint.h"
#include "report/report.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static volatile sig_atomic_t stop_wanted;

static void want_stop(int number)
{
    (void)number;
    stop_wanted = 1;
}

/* The first Ctrl-C stops in order; a second one ends the program as usual. */
static void hear_stop_signals(void)
{
    const struct sigaction action = {.sa_handler = want_stop, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* Sizes from a preset's name, or from a model file. */
static attn_status choose_model(attn_plan *plan, const char *name, attn_error *error)
{
    attn_checkpoint *checkpoint = NULL;
    plan->model = name;
    plan->is_model_file = strchr(name, '/') || strstr(name, ".safetensors");
    if (!plan->is_model_file) return attn_model_preset(name, &plan->sizes, error);
    const attn_status status = attn_checkpoint_open(&checkpoint, name, error);
    if (status == ATTN_OK) plan->sizes = *attn_checkpoint_config(checkpoint);
    plan->sizes.mechanism = NULL; /* the checkpoint's text goes with it */
    attn_checkpoint_close(checkpoint);
    return status;
}

static attn_status load_data(const attn_plan *plan, attn_dataset **dataset, attn_error *error)
{
    attn_tokenizer *tokenizer = NULL;
    attn_status status = attn_tokenizer_load(&tokenizer, NULL, error);
    if (status == ATTN_OK) status = attn_dataset_load(dataset, plan->data, tokenizer, error);
    attn_tokenizer_free(tokenizer);
    if (status == ATTN_OK && attn_reading_skipped(&(*dataset)->reading) > 0)
        fprintf(stderr, "attnscope: %s: %zu lines were skipped; 'attnscope data' says which\n",
                plan->data, attn_reading_skipped(&(*dataset)->reading));
    return status;
}

static const attn_energy_domain whole_domains[] = {ATTN_ENERGY_PACKAGE, ATTN_ENERGY_MODULE,
                                                   ATTN_ENERGY_SYSTEM};

static bool can_measure_energy(const attn_energy_meter *meter)
{
    for (size_t s = 0; s < attn_energy_sources(meter); s++) {
        const attn_energy_source *source = attn_energy_source_at(meter, s);
        for (size_t c = 0; c < source->n_channels; c++)
            for (size_t d = 0; d < sizeof whole_domains / sizeof *whole_domains; d++)
                if (source->channels[c].domain == whole_domains[d] &&
                    attn_energy_is_counted(meter, source, c))
                    return true;
    }
    return false;
}

/* What would be found only when the work of hours is to be shown. */
static attn_status check_results(const cli_run_settings *settings, attn_error *error)
{
    struct stat about;
    if (settings->force && !settings->resume)
        return attn_fail(error, ATTN_EARGUMENT, "--force goes on with a run: it needs --resume");
    if (settings->resume && stat(settings->store, &about) != 0)
        return attn_fail(error, ATTN_ENOTFOUND, "there is no store '%s' to --resume from",
                         settings->store);
    if (strcmp(settings->out, "none") == 0) return ATTN_OK;
    if (settings->out[0] == '\0')
        return attn_fail(error, ATTN_EARGUMENT, "--out needs a file name, or 'none'");
    if (strcmp(settings->out, settings->store) == 0)
        return attn_fail(error, ATTN_EARGUMENT, "--out would overwrite the --store '%s'",
                         settings->store);
    attn_atomic_file *file = NULL;
    const attn_status status = attn_atomic_file_create(&file, settings->out, error);
    attn_atomic_file_free(file);
    return status;
}

/* Statuses that no error code stands for. */
static attn_status refuse(int *exit_status, int wanted, attn_error *error, const char *text)
{
    *exit_status = wanted;
    return attn_fail(error, ATTN_EUNSUPPORTED, "%s", text);
}

/* What is seen twice must agree before anything is measured with it; two seconds tell. */
static attn_status self_test(attn_energy_meter *meter, attn_error *error)
{
    static attn_energy_snapshot begin, end;
    attn_energy_pair pairs[ATTN_ENERGY_PAIRS_MAX];
    attn_energy_edge(meter, &begin);
    if (attn_energy_pairs(meter, &begin, &begin, pairs) == 0) return ATTN_OK;
    attn_status status = attn_energy_start(meter, error);
    if (status != ATTN_OK) return status;
    const struct timespec two_seconds = {.tv_sec = 2};
    nanosleep(&two_seconds, NULL);
    attn_energy_edge(meter, &end);
    attn_energy_stop(meter);
    const size_t n = attn_energy_pairs(meter, &begin, &end, pairs);
    for (size_t i = 0; i < n; i++) {
        if (isnan(pairs[i].difference) || fabs(pairs[i].difference) <= ATTN_ENERGY_AGREE) continue;
        fprintf(stderr,
                "attnscope: warning: %s and %s should agree and differ by %.0f %% at rest "
                "(%.3g J and %.3g J in 2 s); 'attnscope doctor' says more\n",
                pairs[i].one->id, pairs[i].other->id, 100.0 * pairs[i].difference, pairs[i].one_j,
                pairs[i].other_j);
    }
    return ATTN_OK;
}

static attn_status check_meters(const cli_run_settings *settings, attn_energy_meter *meter,
                                int *exit_status, attn_error *error)
{
    const bool can = can_measure_energy(meter);
    if (!can && strcmp(settings->sort, "energy") == 0)
        return attn_fail(error, ATTN_EARGUMENT,
                         "cannot sort by energy: nothing here measures it, as 'attnscope doctor' "
                         "explains, and a modelled value does not rank mechanisms");
    if (!can && settings->require)
        return refuse(exit_status, CLI_NO_PROVENANCE, error,
                      "nothing here measures energy, as --require wants; 'attnscope doctor' says "
                      "why and what to do");
    return self_test(meter, error);
}

/* The circumstances, and a warning for each that will disturb the measurement. */
static attn_status capture_environment(const attn_plan *plan, const cli_run_settings *settings,
                                       char **json, int *exit_status, attn_error *error)
{
    attn_context *context = NULL;
    attn_energy_meter *meter = NULL;
    attn_environment_warning warnings[ATTN_ENVIRONMENT_WARNINGS_MAX];
    const attn_energy_options meters = attn_measuring_meters(plan);
    attn_status status = attn_context_create(&context, plan->threads, plan->isa, error);
    if (status == ATTN_OK) status = attn_energy_open(&meter, &meters, error);
    if (status == ATTN_OK) status = check_meters(settings, meter, exit_status, error);
    if (status == ATTN_OK) {
        const attn_environment_input input = {.root = "",
                                              .version = attn_version_text(),
                                              .dense = attn_context_dense(context),
                                              .gpus = plan->measuring.gpus,
                                              .meter = meter};
        status = attn_environment_capture(json, &input, error);
    }
    size_t n_warnings = 0;
    if (status == ATTN_OK) {
        n_warnings = attn_environment_warnings("", plan->measuring.gpus, warnings);
        for (size_t i = 0; i < n_warnings; i++)
            fprintf(stderr, "attnscope: warning: %s; %s\n", warnings[i].what, warnings[i].remedy);
    }
    if (n_warnings > 0 && settings->strict)
        status = refuse(exit_status, CLI_NOT_STEADY, error,
                        "--strict: nothing is measured while this disturbs it");
    attn_energy_close(meter);
    attn_context_free(context);
    return status;
}

static double figure_value(const attn_store_trial *trial, const char *name, attn_provenance *from)
{
    for (size_t f = 0; f < trial->n_figures; f++) {
        if (strcmp(trial->figures[f].name, name) != 0) continue;
        *from = trial->figures[f].provenance;
        return trial->figures[f].value;
    }
    *from = ATTN_UNAVAILABLE;
    return NAN;
}

/* What the options demand of every trial that is done; the worse of two failures decides. */
static void judge_trial(const attn_store_trial *trial, const cli_run_settings *settings,
                        int *exit_status)
{
    static const char *const energies[] = {"energy_components_j", "energy_cpu_package_j",
                                           "energy_system_j"};
    bool is_measured = false;
    attn_provenance from;
    for (size_t i = 0; i < sizeof energies / sizeof *energies; i++) {
        (void)figure_value(trial, energies[i], &from);
        is_measured |= from == ATTN_MEASURED || from == ATTN_INTEGRATED;
    }
    if (settings->strict && *exit_status == CLI_OK &&
        (figure_value(trial, "is_steady", &from) == 0.0 ||
         figure_value(trial, "thermal_throttles", &from) > 0.0 ||
         figure_value(trial, "gpu_slowdowns_after", &from) > 0.0 ||
         figure_value(trial, "suspended_s", &from) > ATTN_CLOCK_SUSPEND_S ||
         figure_value(trial, "clock_step_s", &from) > ATTN_CLOCK_STEP_S)) {
        fprintf(stderr,
                "attnscope: %s, round %u: not steady, slowed by heat, or its clock was disturbed\n",
                trial->mechanism, (unsigned)trial->round);
        *exit_status = CLI_NOT_STEADY;
    }
    if (settings->require && !is_measured && *exit_status != CLI_FAILED) {
        fprintf(stderr, "attnscope: %s, round %u: its energy was not measured\n", trial->mechanism,
                (unsigned)trial->round);
        *exit_status = CLI_NO_PROVENANCE;
    }
}

static attn_status show(attn_store *store, int64_t run_id, const cli_run_settings *settings,
                        int *exit_status, attn_error *error)
{
    attn_store_result *result = NULL;
    attn_summary *summary = NULL;
    attn_status status = attn_store_load(store, run_id, &result, error);
    if (status == ATTN_OK) status = attn_summary_make(result, &summary, error);
    if (status == ATTN_OK && strcmp(settings->out, "none") != 0)
        status = attn_report_save(settings->out, attn_report_format_of_file(settings->out), result,
                                  summary, settings->sort, error);
    if (status == ATTN_OK)
        status = attn_report_write(stdout, settings->json ? ATTN_REPORT_JSON : ATTN_REPORT_TABLE,
                                   result, summary, settings->sort, cli_stdout_shows_bold(), error);
    for (size_t i = 0; status == ATTN_OK && i < result->n_trials; i++) {
        const attn_store_trial *trial = &result->trials[i];
        if (trial->state == ATTN_TRIAL_FAILED || trial->state == ATTN_TRIAL_CRASHED)
            *exit_status = CLI_FAILED;
        else if (trial->state == ATTN_TRIAL_DONE)
            judge_trial(trial, settings, exit_status);
    }
    attn_summary_free(summary);
    attn_store_result_free(result);
    return status;
}

/* Everything between a checked plan and its result. */
typedef struct job {
    attn_plan plan;
    char default_data[ATTN_DATA_PATH_BYTES];
    attn_dataset *dataset;
    attn_store *store;
    char *plan_json, *environment_json, *title;
    int exit_status; /* when it fails in a way that no error code stands for */
} job;

static attn_status prepare(job *j, const cli_run_settings *settings, attn_error *error)
{
    char model_sha256[ATTN_SHA256_TEXT_BYTES] = "";
    attn_plan *plan = &j->plan;
    attn_status status = ATTN_OK;
    if (!plan->data) {
        status = attn_data_path("sample-permissive.jsonl", j->default_data, error);
        plan->data = j->default_data;
    }
    if (status == ATTN_OK) status = choose_model(plan, plan->model, error);
    if (status == ATTN_OK) status = attn_plan_set_mechanisms(plan, settings->mechanisms, error);
    if (status == ATTN_OK && settings->aa) status = attn_plan_add_again(plan, error);
    if (status == ATTN_OK) status = attn_plan_check(plan, error);
    if (status == ATTN_OK && !settings->dry_run) status = check_results(settings, error);
    if (status == ATTN_OK) status = load_data(plan, &j->dataset, error);
    if (status == ATTN_OK) status = attn_trial_check(plan, j->dataset, error);
    if (settings->dry_run) return status;
    if (status == ATTN_OK && plan->is_model_file)
        status = attn_sha256_file(plan->model, model_sha256, error);
    if (status == ATTN_OK)
        status = attn_plan_json(plan, j->dataset->sha256, plan->is_model_file ? model_sha256 : NULL,
                                &j->plan_json, error);
    if (status == ATTN_OK)
        status = capture_environment(plan, settings, &j->environment_json, &j->exit_status, error);
    if (status == ATTN_OK) status = cli_run_title(settings, plan, &j->title, error);
    if (status == ATTN_OK)
        status = attn_store_open(&j->store, settings->store, ATTN_STORE_WRITE, error);
    return status;
}

static int run(const void *settings_pointer, size_t n_operands, char *const *operands)
{
    (void)n_operands;
    (void)operands;
    const cli_run_settings *settings = settings_pointer;
    attn_error error = {0};
    job j = {.plan = cli_run_plan(settings)};
    int64_t run_id = 0;
    int exit_status = CLI_OK;

    attn_status status = prepare(&j, settings, &error);
    if (status == ATTN_OK && settings->dry_run) status = cli_dry_run(&j.plan, &error);
    if (status != ATTN_OK || settings->dry_run) goto done;
    hear_stop_signals();
    cli_progress progress = cli_progress_start();
    const attn_run_options options = {.plan = &j.plan,
                                      .plan_json = j.plan_json,
                                      .environment_json = j.environment_json,
                                      .title = j.title,
                                      .dataset = j.dataset,
                                      .store = j.store,
                                      .resumes = settings->resume,
                                      .is_forced = settings->force,
                                      .observe = cli_progress_observe,
                                      .argument = &progress,
                                      .stop = &stop_wanted};
    status = attn_run(&options, &run_id, &error);
    cli_progress_end(&progress);
    if (status != ATTN_OK && status != ATTN_EINTERRUPTED) goto done;

    attn_error show_error = {0};
    const attn_status shown = show(j.store, run_id, settings, &exit_status, &show_error);
    if (shown != ATTN_OK && status == ATTN_OK) {
        status = shown;
        error = show_error;
    }
done:
    if (status != ATTN_OK) {
        exit_status = cli_fail(&error);
        if (j.exit_status != CLI_OK) exit_status = j.exit_status;
    } else {
        exit_status = cli_finish(exit_status);
    }
    attn_store_close(j.store);
    attn_dataset_free(j.dataset);
    attn_free(j.plan_json);
    attn_free(j.environment_json);
    attn_free(j.title);
    return exit_status;
}

const cli_command cli_command_run = {
    .name = "run",
    .summary = "train a model with each mechanism, measure, store and rank",
    .operands = "",
    .description =
        "Trains the same GPT-2 once for each mechanism and round, each trial in a process of its "
        "own, and measures training time, energy, memory, operations, latency and loss. Every "
        "number goes to the store with its origin; the ranking is printed and a page with charts "
        "is written. Without options a small model is trained on the conversations that come with "
        "the program, in a few minutes.\n\n"
        "Ctrl-C keeps what is done; the same command with --resume goes on.\n\n"
        "  attnscope run --mechanisms softmax,flash,sliding:window=64:sinks=4\n"
        "  attnscope run --mechanisms 'flash,sliding*3+softmax'\n"
        "  attnscope run --preset paper --steps 20 --data conversations.jsonl",
    .options = cli_run_options,
    .n_options = CLI_RUN_OPTIONS,
    .settings_bytes = sizeof(cli_run_settings),
    .run = run,
};
