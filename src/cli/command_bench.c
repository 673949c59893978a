/* attnscope bench: kernels, layers and steps alone. */
#include "attn/layer.h"
#include "base/error.h"
#include "cli/bench_report.h"
#include "cli/shared_options.h"

#include <stdlib.h>
#include <string.h>

typedef struct settings {
    const char *model, *mechanism, *mechanisms, *seq, *heads, *head_dim, *direction, *dtype, *isa;
    size_t batch, repeats, threads, seed;
    bool json;
} settings;

static const cli_option options[] = {
    {.name = "model",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, model),
     .argument = "NAME",
     .initial = "gpt2",
     .help = "step: a preset: gpt2-micro, gpt2, gpt2-medium, gpt2-large, gpt2-xl."},
    {.name = "mechanism",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, mechanism),
     .argument = "NAME",
     .names = attn_mechanism_name,
     .initial = "flash",
     .help = "step: the attention mechanism, as in attnscope run: sliding:window=64*3+flash."},
    {.name = "mechanisms",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, mechanisms),
     .argument = "LIST",
     .names = attn_mechanism_name,
     .initial = "flash",
     .help = "core, layer: mechanisms, such as flash,linear,sliding:window=64. The first one, in "
             "the first type, is what the others are compared with."},
    {.name = "direction",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, direction),
     .argument = "LIST",
     .initial = "forward,backward",
     .help = "core, layer: forward, backward, decode; forward keeps what backward needs when "
             "both are asked for."},
    {.name = "heads",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, heads),
     .argument = "SIZES",
     .initial = "12",
     .help = "core, layer: query heads, as for --seq."},
    {.name = "head-dim",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, head_dim),
     .argument = "SIZES",
     .initial = "64",
     .help = "core, layer: width of a head, as for --seq."},
    {.name = "dtype",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, dtype),
     .argument = "LIST",
     .initial = "f32",
     .help = "Types of the factors of products: f32, bf16, or f32,bf16; step takes one."},
    {.name = "batch",
     .kind = CLI_SIZE,
     .offset = offsetof(settings, batch),
     .argument = "N",
     .initial = "2",
     .minimum = 1,
     .maximum = 65536,
     .help = "Sequences."},
    {.name = "seq",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, seq),
     .argument = "SIZES",
     .initial = "512",
     .help = "Tokens a sequence: 512, or 512,2048, or 512-16384*2 (512, 1024, ... 16384), or "
             "512-2048+512; one size for step."},
    {.name = "repeats",
     .kind = CLI_SIZE,
     .offset = offsetof(settings, repeats),
     .argument = "N",
     .initial = "7",
     .minimum = 1,
     .maximum = 10000,
     .help = "Readings of everything, taken in turns."},
    CLI_OPTION_THREADS(settings, NULL),
    CLI_OPTION_ISA(settings),
    {.name = "seed",
     .kind = CLI_SIZE,
     .offset = offsetof(settings, seed),
     .argument = "N",
     .initial = "1",
     .maximum = 1e15,
     .help = "Of weights and inputs."},
    CLI_OPTION_JSON(settings),
};

/* "f32,bf16" */
static attn_status parse_dtypes(const char *text, attn_dtype dtypes[2], size_t *count,
                                attn_error *error)
{
    static const struct {
        const char *text;
        attn_dtype dtypes[2];
        size_t count;
    } lists[] = {{"f32", {ATTN_F32}, 1},
                 {"bf16", {ATTN_BF16}, 1},
                 {"f32,bf16", {ATTN_F32, ATTN_BF16}, 2},
                 {"bf16,f32", {ATTN_BF16, ATTN_F32}, 2}};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        if (strcmp(text, lists[i].text) == 0) {
            memcpy(dtypes, lists[i].dtypes, sizeof lists[i].dtypes);
            *count = lists[i].count;
            return ATTN_OK;
        }
    return attn_fail(error, ATTN_EARGUMENT, "--dtype: '%s': use f32, bf16 or f32,bf16", text);
}

/* ---- step -------------------------------------------------------------------------------- */

static int run_step(const settings *s, const attn_range *lengths, attn_error *error)
{
    attn_model_config model;
    attn_bench_step result;
    attn_dtype dtypes[2];
    size_t n_dtypes;
    if (parse_dtypes(s->dtype, dtypes, &n_dtypes, error) != ATTN_OK) return cli_fail(error);
    if (n_dtypes != 1) {
        attn_fail(error, ATTN_EARGUMENT, "bench step: --dtype '%s' is several: it takes one",
                  s->dtype);
        return cli_fail(error);
    }
    if (lengths->count != 1) {
        attn_fail(error, ATTN_EARGUMENT, "bench step: --seq '%s' is %zu sizes: it takes one",
                  s->seq, lengths->count);
        return cli_fail(error);
    }
    if (attn_model_preset(s->model, &model, error) != ATTN_OK) return cli_fail(error);
    model.mechanism = s->mechanism;
    model.dtype = dtypes[0];
    const attn_bench_step_options wanted = {.model = &model,
                                            .batch = s->batch,
                                            .length = lengths->values[0],
                                            .repeats = s->repeats,
                                            .threads = s->threads,
                                            .isa = s->isa,
                                            .seed = s->seed};
    if (attn_bench_step_run(&wanted, &result, error) != ATTN_OK) return cli_fail(error);
    const cli_bench_step_asked asked = {s->model, s->mechanism, s->batch, lengths->values[0]};
    if (s->json) return cli_bench_step_json(&asked, &result, error);
    cli_bench_step_table(&asked, &result);
    return cli_finish(CLI_OK);
}

/* ---- core, layer ------------------------------------------------------------------------- */

/* "forward,decode" */
static attn_status parse_directions(const char *text, bool *directions, attn_error *error)
{
    const char *at = text;
    for (;;) {
        const size_t length = strcspn(at, ",");
        int i = 0;
        for (; i < ATTN_BENCH_DIRECTIONS; i++) {
            const char *name = attn_bench_direction_name((attn_bench_direction)i);
            if (strlen(name) == length && strncmp(name, at, length) == 0) break;
        }
        if (i == ATTN_BENCH_DIRECTIONS || directions[i])
            return attn_fail(
                error, ATTN_EARGUMENT,
                "--direction: '%s': use each of forward, backward, decode once at most", text);
        directions[i] = true;
        if (!at[length]) return ATTN_OK;
        at += length + 1;
    }
}

/* Every mechanism, one a pattern, in every type. */
static attn_status parse_variants(const settings *s, attn_bench_variant *variants, size_t *count,
                                  attn_error *error)
{
    attn_pattern patterns[ATTN_PATTERNS_MAX];
    attn_dtype dtypes[2];
    size_t n_patterns = 0, n_dtypes = 0;
    attn_status status =
        attn_patterns_parse(s->mechanisms, attn_mechanism_is_causal, patterns, &n_patterns, error);
    if (status == ATTN_OK) status = parse_dtypes(s->dtype, dtypes, &n_dtypes, error);
    if (status != ATTN_OK) return status;
    for (size_t i = 0; i < n_patterns; i++)
        if (patterns[i].n_kinds != 1)
            return attn_fail(error, ATTN_EARGUMENT,
                             "--mechanisms: '%s' is several mechanisms: give each one alone",
                             patterns[i].label);
    *count = 0;
    for (size_t d = 0; d < n_dtypes; d++)
        for (size_t i = 0; i < n_patterns; i++)
            variants[(*count)++] = (attn_bench_variant){patterns[i].kinds[0], dtypes[d]};
    return ATTN_OK;
}

static int run_core(const settings *s, const attn_range *lengths, bool is_layer, attn_error *error)
{
    attn_bench_variant variants[2 * ATTN_PATTERNS_MAX];
    attn_bench_core result;
    attn_bench_core_options wanted = {.variants = variants,
                                      .is_layer = is_layer,
                                      .lengths = *lengths,
                                      .batch = s->batch,
                                      .repeats = s->repeats,
                                      .threads = s->threads,
                                      .isa = s->isa,
                                      .seed = s->seed};
    if (parse_variants(s, variants, &wanted.n_variants, error) != ATTN_OK ||
        parse_directions(s->direction, wanted.directions, error) != ATTN_OK ||
        attn_range_parse("--heads", s->heads, &wanted.heads, error) != ATTN_OK ||
        attn_range_parse("--head-dim", s->head_dim, &wanted.head_dims, error) != ATTN_OK ||
        attn_bench_core_run(&wanted, &result, error) != ATTN_OK)
        return cli_fail(error);
    int status = CLI_OK;
    if (s->json) {
        status = cli_bench_core_json(&wanted, &result, error);
    } else {
        cli_bench_core_table(&wanted, &result);
        status = cli_finish(CLI_OK);
    }
    attn_bench_core_free(&result);
    return status;
}

/* ---- peaks ------------------------------------------------------------------------------- */

static int run_peaks(const settings *s, attn_error *error)
{
    attn_bench_peaks result;
    const attn_bench_peaks_options wanted = {
        .repeats = s->repeats, .threads = s->threads, .isa = s->isa};
    if (attn_bench_peaks_run(&wanted, &result, error) != ATTN_OK) return cli_fail(error);
    if (s->json) return cli_bench_peaks_json(&result, error);
    cli_bench_peaks_table(&result);
    return cli_finish(CLI_OK);
}

static int run(const void *settings_pointer, size_t n_operands, char *const *operands)
{
    (void)n_operands;
    const settings *s = settings_pointer;
    const char *what = operands[0];
    attn_error error = {0};
    attn_range lengths;
    if (attn_range_parse("--seq", s->seq, &lengths, &error) != ATTN_OK) return cli_fail(&error);
    if (strcmp(what, "step") == 0) return run_step(s, &lengths, &error);
    if (strcmp(what, "core") == 0) return run_core(s, &lengths, false, &error);
    if (strcmp(what, "layer") == 0) return run_core(s, &lengths, true, &error);
    if (strcmp(what, "peaks") == 0) return run_peaks(s, &error);
    attn_fail(&error, ATTN_EARGUMENT, "bench: '%s' is no benchmark: use step, core, layer or peaks",
              what);
    return cli_fail(&error);
}

const cli_command cli_command_bench = {
    .name = "bench",
    .summary = "time steps, layers and attention alone, beside the peaks",
    .operands = "step|core|layer|peaks",
    .description =
        "step: whole training steps, split into their parts, and in turns with them the step's "
        "dense products alone, through the same library in the same process: what no step can be "
        "faster than without a faster product.\n\n"
        "core, layer: attention alone, from q, k, v to the output, or with its projections, for "
        "every mechanism, type, direction and size that is asked for. \"ms\" is the median of a "
        "call, p10 and p90 its tenths. \"useful\" GFLOP/s count exact attention over the pairs "
        "in causal order (and a layer's four square projections), whatever the mechanism does, so "
        "they rank by time; backward counts 2.5 times as much. \"done\" counts the matrix "
        "products that were executed. \"% peak\" is the time that these products take at the "
        "machine's peak in the same turns (fused multiply-adds; AMX for bf16, a third of it "
        "for factors of two parts), as a share of ms. \"limit\" is ms over the time of products "
        "and then exponentials at their peaks: 1 "
        "is as fast as the machine can be. When decoding, MB are the cache and a layer's weights, "
        "and \"% peak\" compares reading them with reads from memory: what fits a cache exceeds "
        "it. A crossing of times lies between two measured lengths; in brackets, where it lies by "
        "the tenths of the ratios of times that were taken in one turn.\n\n"
        "peaks: what the machine can do at most.\n\n"
        "  attnscope bench step --model gpt2 --batch 2 --seq 512\n"
        "  attnscope bench core --mechanisms flash,linear --seq 512-16384*2\n"
        "  attnscope bench layer --mechanisms flash --dtype f32,bf16 --direction forward\n"
        "  attnscope bench peaks --json",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .operands_minimum = 1,
    .operands_maximum = 1,
    .settings_bytes = sizeof(settings),
    .run = run,
};
