/* attnscope verify: what every mechanism promises, checked on this machine. */
#include "attn/layer.h"
#include "base/clock.h"
#include "base/error.h"
#include "cli/shared_options.h"
#include "cli/verify_report.h"

#include <stdio.h>
#include <string.h>

typedef struct settings {
    const char *mechanisms, *dtype, *isa;
    size_t seq, seed, threads;
    bool json;
} settings;

/* Small enough for the float64 definitions, with several heads. */
enum { BATCH = 2, D_MODEL = 64, HEADS = 4 };

static const cli_option options[] = {
    {.name = "mechanisms",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, mechanisms),
     .argument = "LIST",
     .names = attn_mechanism_name,
     .initial = "all",
     .help = "Mechanisms apart by commas, each with its options behind colons: "
             "flash,sliding:window=64. 'all' is every one. Of a pattern such as "
             "sliding*3+softmax each different mechanism is verified."},
    {.name = "dtype",
     .kind = CLI_CHOICE,
     .offset = offsetof(settings, dtype),
     .argument = "TYPE",
     .initial = "f32",
     .choices = "f32|bf16|all",
     .help = "f32: the float32 kernels. bf16: those with the factors of dense products in "
             "bfloat16. all: one after the other."},
    {.name = "seq",
     .kind = CLI_SIZE,
     .offset = offsetof(settings, seq),
     .argument = "N",
     .initial = "300",
     .minimum = 2,
     .maximum = 4096,
     .help = "Tokens a sequence."},
    {.name = "seed",
     .kind = CLI_SIZE,
     .offset = offsetof(settings, seed),
     .argument = "N",
     .maximum = 1e15,
     .help = "Of all random numbers. 0: a fresh one from the clock."},
    CLI_OPTION_THREADS(settings, "1"),
    CLI_OPTION_ISA(settings),
    CLI_OPTION_JSON(settings),
};

static bool every_mechanism(const char *name)
{
    (void)name;
    return true;
}

/* The different mechanisms of all patterns: what holds for each layer holds for a stack of them. */
static attn_status list_labels(const char *list, attn_label labels[ATTN_PATTERNS_MAX],
                               size_t *count, attn_error *error)
{
    attn_pattern patterns[ATTN_PATTERNS_MAX];
    size_t n_patterns = 0;
    attn_status status = attn_patterns_parse(list, every_mechanism, patterns, &n_patterns, error);
    for (size_t i = 0; i < n_patterns && status == ATTN_OK; i++)
        for (size_t k = 0; k < patterns[i].n_kinds && status == ATTN_OK; k++) {
            const attn_label *label = &patterns[i].kinds[k];
            size_t same = 0;
            while (same < *count && strcmp(labels[same].label, label->label) != 0) same++;
            if (same < *count) continue;
            if (*count == ATTN_PATTERNS_MAX)
                status = attn_fail(error, ATTN_EARGUMENT,
                                   "the patterns have more than %d different mechanisms",
                                   ATTN_PATTERNS_MAX);
            else
                labels[(*count)++] = *label;
        }
    return status;
}

static attn_status verify_all(const attn_label *labels, size_t count, attn_dtype dtype,
                              const attn_verify_options *wanted, attn_verification *out,
                              attn_error *error)
{
    attn_status status = ATTN_OK;
    for (size_t i = 0; i < count && status == ATTN_OK; i++) {
        const attn_layer_config config = {.mechanism = labels[i].name,
                                          .options = labels[i].options,
                                          .d_model = D_MODEL,
                                          .heads = HEADS,
                                          .positions = wanted->length,
                                          .dtype = dtype};
        status = attn_verify_mechanism(&config, wanted, &out[i], error);
    }
    return status;
}

static int run(const void *settings_pointer, size_t n_operands, char *const *operands)
{
    (void)n_operands;
    (void)operands;
    const settings *s = settings_pointer;
    attn_error error = {0};
    attn_label labels[ATTN_PATTERNS_MAX];
    attn_verification verifications[2][ATTN_PATTERNS_MAX];
    cli_verify_result results[2];
    attn_context *context = NULL;
    size_t count = 0, n_results = 0;
    const attn_verify_options wanted = {.isa = s->isa,
                                        .threads = s->threads,
                                        .seed = s->seed ? s->seed : 1 + attn_clock_ns() % 1000000,
                                        .batch = BATCH,
                                        .length = s->seq};
    attn_status status = list_labels(s->mechanisms, labels, &count, &error);
    if (status == ATTN_OK) status = attn_context_create(&context, s->threads, s->isa, &error);
    static const char *const dtypes[] = {[ATTN_F32] = "f32", [ATTN_BF16] = "bf16"};
    bool is_good = true;
    char repeat[160] = "";
    if (status == ATTN_OK)
        snprintf(repeat, sizeof repeat, "--seq %zu --seed %llu --isa %s --threads %zu",
                 wanted.length, (unsigned long long)wanted.seed, attn_context_isa(context),
                 attn_context_threads(context));
    for (size_t dtype = 0; dtype < 2 && status == ATTN_OK; dtype++) {
        if (strcmp(s->dtype, "all") != 0 && strcmp(s->dtype, dtypes[dtype]) != 0) continue;
        attn_verification *of = verifications[n_results];
        status = verify_all(labels, count, (attn_dtype)dtype, &wanted, of, &error);
        results[n_results++] = (cli_verify_result){.length = wanted.length,
                                                   .batch = wanted.batch,
                                                   .threads = attn_context_threads(context),
                                                   .seed = wanted.seed,
                                                   .isa = attn_context_isa(context),
                                                   .dense = attn_context_dense(context),
                                                   .dtype = dtypes[dtype],
                                                   .repeat = repeat,
                                                   .count = count,
                                                   .labels = labels,
                                                   .verifications = of};
        for (size_t i = 0; i < count && status == ATTN_OK; i++)
            is_good = is_good && attn_verification_holds(&of[i]);
    }
    if (status != ATTN_OK) {
        attn_context_free(context);
        return cli_fail(&error);
    }
    for (size_t i = 0; i < n_results && !s->json; i++) {
        if (i > 0) putchar('\n');
        cli_verify_table(&results[i]);
    }
    if (s->json && !cli_verify_json(results, n_results))
        status = attn_fail(&error, ATTN_EIO, "the verdicts could not be written as JSON");
    attn_context_free(context);
    if (status != ATTN_OK) return cli_fail(&error);
    return cli_finish(is_good ? CLI_OK : CLI_FAILED);
}

const cli_command cli_command_verify = {
    .name = "verify",
    .summary = "check what every mechanism promises, on this machine",
    .operands = "",
    .description =
        "Holds every mechanism against its definition in float64, outputs and gradients, and "
        "against itself: later tokens change nothing, a prefix, a sequence alone and packed "
        "documents give what they give in company, decoding equals the forward pass, threads "
        "change nothing, huge inputs stay finite, counted work equals its formula, and no call "
        "writes outside its memory. Prints a table of verdicts; the exit status is 0 when all "
        "hold. A layer that is not causal by design has 'yes' under leak, and is not held to an "
        "order of tokens. docs/verifying.md explains each.\n\n"
        "  attnscope verify --mechanisms flash,sliding:window=64 --isa ref",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .settings_bytes = sizeof(settings),
    .run = run,
};
