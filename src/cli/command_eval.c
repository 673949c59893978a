/* attnscope eval: tensors in, tensors out. */
#include "attn/layer.h"
#include "base/error.h"
#include "cli/shared_options.h"
#include "verify/case.h"

#include <stdio.h>
#include <string.h>

typedef struct settings {
    const char *mechanism, *dtype, *isa, *out;
    size_t threads;
    bool compare;
} settings;

static const cli_option options[] = {
    {.name = "mechanism",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, mechanism),
     .argument = "NAME",
     .names = attn_mechanism_name,
     .help = "What computes the layer. Default: the layer that the file names."},
    {.name = "dtype",
     .kind = CLI_CHOICE,
     .offset = offsetof(settings, dtype),
     .argument = "TYPE",
     .initial = "f32",
     .choices = "f64|f32|bf16",
     .help = "f64: the mechanism's definition in float64, for which --isa and --threads mean "
             "nothing. f32: the fast kernels. bf16: those with the factors of dense products in "
             "bfloat16."},
    CLI_OPTION_ISA(settings),
    CLI_OPTION_THREADS(settings, NULL),
    {.name = "out",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, out),
     .argument = "FILE",
     .help = "Where the results go, as safetensors."},
    {.name = "compare",
     .kind = CLI_FLAG,
     .offset = offsetof(settings, compare),
     .help = "Print the error of every result against the file's own; exit status 1 above the "
             "tolerance: 1e-10 for f64, 2e-5 for f32, and for bf16 three times what its roundings "
             "do to the definition (docs/numerics.md)."},
};

/* Prints the table; whether every error is within the tolerance. */
static bool print_errors(const attn_case_error *errors, size_t count)
{
    bool is_good = true;
    printf("%-28s  %10s  %10s  %s\n", "tensor", "error", "tolerance", "verdict");
    for (size_t i = 0; i < count; i++) {
        const bool is_within = errors[i].error <= errors[i].tolerance; /* false for NaN */
        if (!errors[i].is_known) {
            printf("%-28s  %10s  %10s  %s\n", errors[i].name, "-", "-", "not in the file");
            continue;
        }
        printf("%-28s  %10.2e  %10.2e  %s\n", errors[i].name, errors[i].error, errors[i].tolerance,
               is_within ? "ok" : "TOO LARGE");
        is_good = is_good && is_within;
    }
    return is_good;
}

static void print_heading(const attn_case *c, const settings *s)
{
    const attn_case_facts f = attn_case_about(c);
    printf("%s%s%s, %s%s, %s: batch %zu, %zu tokens, width %zu, %zu heads\n", f.mechanism,
           f.options[0] ? " " : "", f.options, s->dtype, f.is_causal ? "" : ", bidirectional",
           f.has_gradients ? "forward and gradients" : "forward only: the file has no dy", f.batch,
           f.length, f.d_model, f.heads);
}

/* A file that is no case is a mistake of usage, apart from an error above the tolerance. */
static int fail_case(const attn_error *error)
{
    const int status = cli_fail(error);
    return error->status == ATTN_EMEMORY || error->status == ATTN_EIO ? status : CLI_USAGE;
}

static int evaluate(attn_case *c, const settings *s)
{
    attn_error error = {0};
    const attn_case_error *errors = NULL;
    size_t count = 0;
    const attn_case_precision precision = strcmp(s->dtype, "f64") == 0   ? ATTN_CASE_F64
                                          : strcmp(s->dtype, "f32") == 0 ? ATTN_CASE_F32
                                                                         : ATTN_CASE_BF16;
    attn_status status = attn_case_compute(c, precision, s->isa, s->threads, &error);
    if (status != ATTN_OK) return cli_fail(&error);
    if (s->compare && attn_case_compare(c, &errors, &count, &error) != ATTN_OK)
        return fail_case(&error);
    if (s->out && attn_case_write(c, s->out, &error) != ATTN_OK) return cli_fail(&error);
    print_heading(c, s);
    const bool is_good = !s->compare || print_errors(errors, count);
    return cli_finish(is_good ? CLI_OK : CLI_FAILED);
}

static int run(const void *settings_pointer, size_t n_operands, char *const *operands)
{
    (void)n_operands;
    const settings *s = settings_pointer;
    attn_error error = {0};
    attn_case *c = NULL;
    if (!s->out && !s->compare) {
        attn_fail(&error, ATTN_EARGUMENT, "eval: neither --out nor --compare: nothing to do");
        return cli_fail(&error);
    }
    if (attn_case_open(&c, operands[0], s->mechanism, &error) != ATTN_OK) return fail_case(&error);
    const int status = evaluate(c, s);
    attn_case_close(c);
    return status;
}

const cli_command cli_command_eval = {
    .name = "eval",
    .summary = "compute one attention layer on the tensors of a file",
    .operands = "CASE",
    .description =
        "Reads the inputs of one attention layer from a safetensors file, computes its output and, "
        "when the file holds dy, every gradient, and writes them or compares them with the "
        "results in the file: to check a kernel of your own, or ours.\n\n"
        "CASE holds x, param.NAME, optionally dy and memory, and in its metadata 'layer' and "
        "'config'. Results are y, dx, dmemory and grad.NAME. docs/verifying.md describes the form "
        "and the rule of comparison.\n\n"
        "  attnscope eval case.safetensors --dtype f64 --out results.safetensors\n"
        "  attnscope eval case.safetensors --mechanism flash --compare",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .operands_minimum = 1,
    .operands_maximum = 1,
    .settings_bytes = sizeof(settings),
    .run = run,
};
