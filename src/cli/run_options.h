/* The options of `attnscope run`, and the plan that they mean. */
#ifndef CLI_RUN_OPTIONS_H
#define CLI_RUN_OPTIONS_H

#include "cli/options.h"
#include "experiment/plan.h"

typedef struct cli_run_settings {
    const char *mechanisms, *preset, *model, *data, *loss, *schedule, *dtype, *isa, *store, *out,
        *sort, *cpu_watts, *save, *experiment, *require, *gpus, *meter_command, *meter_csv,
        *carbon_source;
    size_t batch, seq, steps, rounds, seed, threads, evaluate_every, evaluate_batches,
        learning_rate_warmup, timing_warmup, decode_tokens;
    double held_out, learning_rate, weight_decay, clip, meter_offset, idle, steady, cool_down, pue,
        carbon_intensity;
    bool allow_leak, pack, resume, force, json, aa, strict, dry_run, meter_dcmi;
} cli_run_settings;

enum { CLI_RUN_OPTIONS = 55 };
extern const cli_option cli_run_options[];

/* The preset's numbers where the settings say nothing. Mechanisms, sizes and the default data
 * set are not looked up yet; texts are the settings'. */
attn_plan cli_run_plan(const cli_run_settings *settings);

/* The command line that does this run again, whatever the presets become; attn_free() it. */
ATTN_MUST_CHECK attn_status cli_run_title(const cli_run_settings *settings, const attn_plan *plan,
                                          char **title, attn_error *error);

#endif
