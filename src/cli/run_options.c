/* The options of `attnscope run`. */
#define _POSIX_C_SOURCE 200809L
#include "cli/run_options.h"

#include "attn/layer.h"
#include "base/error.h"
#include "base/memory.h"
#include "cli/shared_options.h"
#include "report/ranking.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What --preset decides; each of these has an option that overrides it. */
typedef struct preset {
    const char *name, *model;
    size_t batch, seq, steps, rounds;
    double learning_rate;
} preset;

static const preset presets[] = {
    {"quick", "gpt2-micro", 2, 256, 15, 2, 5e-4},
    {"paper", "gpt2", 2, 512, 100, 1, 5e-5},
};

#define FIELD(member) .offset = offsetof(cli_run_settings, member)

const cli_option cli_run_options[] = {
    {.name = "experiment",
     .kind = CLI_TEXT,
     FIELD(experiment),
     .argument = "FILE",
     .help = "Take options from a YAML file, one 'name: value' a line, names as here without the "
             "dashes; lists become commas. Options on the command line come after and win."},
    {.name = "dry-run",
     .kind = CLI_FLAG,
     FIELD(dry_run),
     .help = "Print the plan and how long it will take, judged by one step of each mechanism; "
             "train and store nothing."},
    {.help = "What is compared"},
    {.name = "mechanisms",
     .kind = CLI_TEXT,
     FIELD(mechanisms),
     .argument = "LIST",
     .names = attn_mechanism_name,
     .initial = "all",
     .help = "Mechanisms apart by commas, each with its options behind colons: "
             "flash,sliding:window=64. 'all' is every causal one. A hybrid stack is a pattern of "
             "blocks, repeated down the layers and cut at the last: sliding:window=64*3+softmax."},
    {.name = "allow-leak",
     .kind = CLI_FLAG,
     FIELD(allow_leak),
     .help = "Run mechanisms too whose options let a token see later ones (flex:mask=full, "
             "linformer:causal=false). They are marked everywhere and ranked behind all others, "
             "out of competition: their loss is not that of a language model."},
    {.name = "rounds",
     .kind = CLI_SIZE,
     FIELD(rounds),
     .argument = "N",
     .minimum = 1,
     .maximum = 1000,
     .help = "Trials of each mechanism, interleaved. Default: the preset's (2 or 1). Intervals "
             "are claimed from 6 rounds on."},
    {.name = "aa",
     .kind = CLI_FLAG,
     FIELD(aa),
     .help = "Try the first mechanism under a second name too: differences between the two are the "
             "noise floor, below which nothing is told apart."},
    {.name = "seed",
     .kind = CLI_SIZE,
     FIELD(seed),
     .argument = "N",
     .initial = "1",
     .maximum = 1e15,
     .help =
         "Of the weights, the data and the order of the trials; round n trains with seed + n - 1."},
    {.help = "Model and training"},
    {.name = "preset",
     .kind = CLI_CHOICE,
     FIELD(preset),
     .argument = "NAME",
     .initial = "quick",
     .choices = "quick|paper",
     .help = "quick: gpt2-micro, batch 2, 256 tokens, 15 steps, learning rate 5e-4. paper: gpt2 "
             "(124M), batch 2, 512 tokens, 100 steps, learning rate 5e-5."},
    {.name = "model",
     .kind = CLI_TEXT,
     FIELD(model),
     .argument = "NAME",
     .help = "gpt2-micro, gpt2, gpt2-medium, gpt2-large, gpt2-xl, or a safetensors file whose "
             "sizes and weights are taken. Default: the preset's."},
    {.name = "batch",
     .kind = CLI_SIZE,
     FIELD(batch),
     .argument = "N",
     .minimum = 1,
     .maximum = 65536,
     .help = "Sequences a step."},
    {.name = "seq",
     .kind = CLI_SIZE,
     FIELD(seq),
     .argument = "N",
     .minimum = 2,
     .maximum = 1 << 28,
     .help = "Tokens a sequence."},
    {.name = "steps",
     .kind = CLI_SIZE,
     FIELD(steps),
     .argument = "N",
     .minimum = 1,
     .maximum = 1e9,
     .help = "Optimizer steps of each trial."},
    {.name = "learning-rate",
     .kind = CLI_NUMBER,
     FIELD(learning_rate),
     .argument = "X",
     .minimum = 1e-12,
     .maximum = 10,
     .help = "Of AdamW, after the warm-up."},
    {.name = "learning-rate-warmup",
     .kind = CLI_SIZE,
     FIELD(learning_rate_warmup),
     .argument = "N",
     .initial = "4",
     .maximum = 1e9,
     .help = "Steps in which the learning rate rises."},
    {.name = "schedule",
     .kind = CLI_CHOICE,
     FIELD(schedule),
     .argument = "NAME",
     .initial = "constant",
     .choices = "constant|cosine",
     .help = "The learning rate after the warm-up; cosine falls to a tenth."},
    {.name = "weight-decay",
     .kind = CLI_NUMBER,
     FIELD(weight_decay),
     .argument = "X",
     .initial = "0.01",
     .maximum = 10,
     .help = "Decoupled, on matrices only."},
    {.name = "clip",
     .kind = CLI_NUMBER,
     FIELD(clip),
     .argument = "X",
     .initial = "1",
     .maximum = 1e6,
     .help = "Greatest norm of the gradients; 0: they are not clipped."},
    {.name = "dtype",
     .kind = CLI_CHOICE,
     FIELD(dtype),
     .argument = "TYPE",
     .initial = "f32",
     .choices = "f32|bf16",
     .help =
         "f32: everything in float32. bf16: the factors of dense products in bfloat16, as under "
         "autocast; sums, attention, loss and the trained weights stay float32."},
    {.help = "Data"},
    {.name = "data",
     .kind = CLI_TEXT,
     FIELD(data),
     .argument = "FILE",
     .help = "Conversations (JSON Lines, plain or gzip), rows with a text, or a .txt file. "
             "Default: the sample that comes with the program."},
    {.name = "pack",
     .kind = CLI_FLAG,
     FIELD(pack),
     .help = "Documents behind each other, attention staying within each; otherwise a row is a "
             "sequence, cut or padded."},
    {.name = "loss",
     .kind = CLI_CHOICE,
     FIELD(loss),
     .argument = "ON",
     .initial = "answers",
     .choices = "answers|all",
     .help = "Tokens that count in the loss."},
    {.name = "held-out",
     .kind = CLI_NUMBER,
     FIELD(held_out),
     .argument = "SHARE",
     .initial = "0.1",
     .maximum = 0.9,
     .help = "Rows kept from training for evaluation."},
    {.name = "evaluate-every",
     .kind = CLI_SIZE,
     FIELD(evaluate_every),
     .argument = "N",
     .initial = "15",
     .maximum = 1e9,
     .help = "Steps between two evaluations; 0: at begin and end alone."},
    {.name = "evaluate-batches",
     .kind = CLI_SIZE,
     FIELD(evaluate_batches),
     .argument = "N",
     .initial = "8",
     .minimum = 1,
     .maximum = 1e6,
     .help = "Held-out batches at most."},
    {.help = "Measurement"},
    CLI_OPTION_THREADS(cli_run_settings, NULL),
    CLI_OPTION_ISA(cli_run_settings),
    {.name = "timing-warmup",
     .kind = CLI_SIZE,
     FIELD(timing_warmup),
     .argument = "N",
     .initial = "2",
     .maximum = 1e6,
     .help = "First steps that timings leave out."},
    {.name = "decode-tokens",
     .kind = CLI_SIZE,
     FIELD(decode_tokens),
     .argument = "N",
     .initial = "32",
     .maximum = 1e6,
     .help = "Tokens decoded one by one for the latency."},
    {.name = "cpu-watts",
     .kind = CLI_TEXT,
     FIELD(cpu_watts),
     .argument = "IDLE:FULL",
     .help = "Watts of one processor for the energy model. Default: its class."},
    {.name = "steady",
     .kind = CLI_NUMBER,
     FIELD(steady),
     .argument = "SHARE",
     .initial = "0.05",
     .maximum = 1,
     .help = "Timing begins when the last 6 steps rise or fall by no more than this, or than their "
             "spread explains; at the latest halfway. 0: at once after --timing-warmup."},
    {.name = "cool-down",
     .kind = CLI_NUMBER,
     FIELD(cool_down),
     .argument = "SECONDS",
     .maximum = 86400,
     .help = "Rest between two trials."},
    {.name = "idle",
     .kind = CLI_NUMBER,
     FIELD(idle),
     .argument = "SECONDS",
     .maximum = 3600,
     .help = "Measure the power at rest for so long before and after each training, and show "
             "dynamic energy beside the total. 30 or more is sound."},
    {.name = "require",
     .kind = CLI_CHOICE,
     FIELD(require),
     .argument = "WHAT",
     .choices = "measured",
     .help = "measured: end with status 3 when the energy of a trial is not measured."},
    {.name = "strict",
     .kind = CLI_FLAG,
     FIELD(strict),
     .help = "End with status 5 when something disturbs the measurement: before the run, or when a "
             "trial was not steady."},
    {.help = "Meters"},
    {.name = "gpus",
     .kind = CLI_TEXT,
     FIELD(gpus),
     .argument = "LIST",
     .initial = "none",
     .help = "Graphics boards whose energy is measured too: all, none, or PCI addresses."},
    {.name = "meter-cmd",
     .kind = CLI_TEXT,
     FIELD(meter_command),
     .argument = "COMMAND",
     .help = "A command that prints 'epoch_seconds watts [joules]' again and again: a wall meter. "
             "It measures the whole machine."},
    {.name = "meter-csv",
     .kind = CLI_TEXT,
     FIELD(meter_csv),
     .argument = "FILE",
     .help = "The same from a file that another program extends."},
    {.name = "meter-offset",
     .kind = CLI_NUMBER,
     FIELD(meter_offset),
     .argument = "SECONDS",
     .minimum = -1e9,
     .maximum = 1e9,
     .help = "Added to the times of --meter-csv."},
    {.name = "meter-dcmi",
     .kind = CLI_FLAG,
     FIELD(meter_dcmi),
     .help = "Ask the board controller for the power of the whole machine, once a second."},
    {.name = "pue",
     .kind = CLI_NUMBER,
     FIELD(pue),
     .argument = "X",
     .minimum = 0,
     .maximum = 10,
     .help = "Power usage effectiveness of the building: energy times this is shown beside."},
    {.name = "carbon-intensity",
     .kind = CLI_NUMBER,
     FIELD(carbon_intensity),
     .argument = "G",
     .maximum = 5000,
     .help = "Grams of CO2 equivalent a kWh; the grams of a trial are shown beside its energy."},
    {.name = "carbon-source",
     .kind = CLI_TEXT,
     FIELD(carbon_source),
     .argument = "TEXT",
     .help = "Who says so."},
    {.help = "Results"},
    {.name = "store",
     .kind = CLI_TEXT,
     FIELD(store),
     .argument = "FILE",
     .initial = "attnscope.db",
     .help = "The results store; made when absent."},
    {.name = "resume",
     .kind = CLI_FLAG,
     FIELD(resume),
     .help = "Go on with the newest run of the store; plan, machine and program must be the same."},
    {.name = "force",
     .kind = CLI_FLAG,
     FIELD(force),
     .help = "Go on with --resume although kernel, microcode, machine or program are others now. "
             "The trials from there on and the run are marked; 'attnscope compare' refuses it."},
    {.name = "out",
     .kind = CLI_TEXT,
     FIELD(out),
     .argument = "FILE",
     .initial = "attnscope-report.html",
     .help = "The page with charts; 'none': no page."},
    {.name = "save",
     .kind = CLI_TEXT,
     FIELD(save),
     .argument = "FOLDER",
     .help = "Keep each trained model there as safetensors."},
    {.name = "sort",
     .kind = CLI_CHOICE,
     FIELD(sort),
     .argument = "KEY",
     .initial = "loss",
     .choices = ATTN_RANKING_KEYS,
     .help = "What orders the ranking."},
    {.name = "json",
     .kind = CLI_FLAG,
     FIELD(json),
     .help = "Print everything as JSON instead of the table."},
};

_Static_assert(sizeof cli_run_options / sizeof *cli_run_options == CLI_RUN_OPTIONS,
               "CLI_RUN_OPTIONS counts them");

static const preset *find_preset(const char *name)
{
    const preset *p = presets;
    while (strcmp(p->name, name) != 0) p++; /* the choices of --preset are these */
    return p;
}

static size_t or_else(size_t wanted, size_t otherwise)
{
    return wanted ? wanted : otherwise;
}

attn_plan cli_run_plan(const cli_run_settings *s)
{
    const preset *p = find_preset(s->preset);
    return (attn_plan){
        .allows_leak = s->allow_leak,
        .rounds = or_else(s->rounds, p->rounds),
        .model = s->model ? s->model : p->model,
        .batch = or_else(s->batch, p->batch),
        .length = or_else(s->seq, p->seq),
        .steps = or_else(s->steps, p->steps),
        .dtype = s->dtype,
        .data = s->data,
        .is_packed = s->pack,
        .is_loss_on_answers = strcmp(s->loss, "answers") == 0,
        .held_out = s->held_out,
        .evaluate_every = s->evaluate_every,
        .evaluate_batches = s->evaluate_batches,
        .learning_rate = s->learning_rate > 0.0 ? s->learning_rate : p->learning_rate,
        .weight_decay = s->weight_decay,
        .clip = s->clip,
        .schedule =
            strcmp(s->schedule, "cosine") == 0 ? ATTN_SCHEDULE_COSINE : ATTN_SCHEDULE_CONSTANT,
        .learning_rate_warmup = s->learning_rate_warmup,
        .timing_warmup = s->timing_warmup,
        .decode_tokens = s->decode_tokens,
        .seed = s->seed,
        .threads = s->threads,
        .isa = s->isa,
        .cpu_watts = s->cpu_watts,
        .save = s->save,
        .measuring = {.gpus = s->gpus,
                      .command = s->meter_command,
                      .csv = s->meter_csv,
                      .csv_offset_s = s->meter_offset,
                      .uses_dcmi = s->meter_dcmi,
                      .idle_s = s->idle,
                      .steady = s->steady,
                      .cool_down_s = s->cool_down,
                      .pue = s->pue,
                      .carbon_g_per_kwh = s->carbon_intensity,
                      .carbon_source = s->carbon_source},
    };
}

/* Appends " --name 'value'" as a shell takes it: a quote inside is closed, escaped, opened. */
static void append_text(FILE *out, const char *name, const char *value)
{
    if (!value) return;
    fprintf(out, " --%s '", name);
    for (; *value; value++) fputs(*value == '\'' ? "'\\''" : (char[]){*value, '\0'}, out);
    fputc('\'', out);
}

static void append_number(FILE *out, const char *name, double value, double initial)
{
    if (value < initial || value > initial) fprintf(out, " --%s %.15g", name, value);
}

static void append_flag(FILE *out, const char *name, bool is_set)
{
    if (is_set) fprintf(out, " --%s", name);
}

attn_status cli_run_title(const cli_run_settings *s, const attn_plan *plan, char **title,
                          attn_error *error)
{
    char *text = NULL;
    size_t size_bytes = 0;
    *title = NULL;
    FILE *out = open_memstream(&text, &size_bytes);
    if (!out) return attn_fail(error, ATTN_EMEMORY, "no memory for the command line");
    fputs("attnscope run", out);
    append_text(out, "mechanisms", s->mechanisms);
    append_flag(out, "allow-leak", s->allow_leak);
    append_text(out, "model", plan->model);
    append_text(out, "data", s->data);
    fprintf(out,
            " --batch %zu --seq %zu --steps %zu --rounds %zu --learning-rate %.15g "
            "--learning-rate-warmup %zu --schedule %s --weight-decay %.15g --clip %.15g --loss %s",
            plan->batch, plan->length, plan->steps, plan->rounds, plan->learning_rate,
            s->learning_rate_warmup, s->schedule, s->weight_decay, s->clip, s->loss);
    if (strcmp(s->dtype, "f32") != 0) fprintf(out, " --dtype %s", s->dtype);
    append_flag(out, "pack", s->pack);
    fprintf(out,
            " --held-out %.15g --evaluate-every %zu --evaluate-batches %zu --timing-warmup %zu "
            "--decode-tokens %zu --seed %zu --threads %zu",
            s->held_out, s->evaluate_every, s->evaluate_batches, s->timing_warmup, s->decode_tokens,
            s->seed, s->threads);
    if (s->isa) fprintf(out, " --isa %s", s->isa);
    if (s->cpu_watts) fprintf(out, " --cpu-watts %s", s->cpu_watts);
    append_flag(out, "aa", s->aa);
    append_number(out, "steady", s->steady, 0.05);
    append_number(out, "cool-down", s->cool_down, 0.0);
    append_number(out, "idle", s->idle, 0.0);
    if (strcmp(s->gpus, "none") != 0) append_text(out, "gpus", s->gpus);
    append_text(out, "meter-cmd", s->meter_command);
    append_text(out, "meter-csv", s->meter_csv);
    append_number(out, "meter-offset", s->meter_offset, 0.0);
    append_flag(out, "meter-dcmi", s->meter_dcmi);
    append_number(out, "pue", s->pue, 0.0);
    append_number(out, "carbon-intensity", s->carbon_intensity, 0.0);
    append_text(out, "carbon-source", s->carbon_source);
    const bool is_written = !ferror(out);
    if (fclose(out) == 0 && is_written) *title = attn_strdup(text);
    free(text);
    return *title ? ATTN_OK : attn_fail(error, ATTN_EMEMORY, "no memory for the command line");
}
