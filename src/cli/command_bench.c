/* attnscope bench: kernels and steps alone. */
#include "attn/layer.h"
#include "base/error.h"
#include "base/threads.h"
#include "cli/options.h"
#include "experiment/bench_step.h"
#include "meters/process.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct settings {
    const char *model, *mechanism, *dtype, *isa;
    size_t batch, seq, repeats, threads, seed;
    bool json;
} settings;

static const cli_option options[] = {
    {.name = "model",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, model),
     .argument = "NAME",
     .initial = "gpt2",
     .help = "A preset: gpt2-micro, gpt2, gpt2-medium, gpt2-large, gpt2-xl."},
    {.name = "mechanism",
     .kind = CLI_TEXT,
     .offset = offsetof(settings, mechanism),
     .argument = "NAME",
     .names = attn_mechanism_name,
     .initial = "flash",
     .help = "The attention mechanism, as in attnscope run: sliding:window=64*3+flash."},
    {.name = "dtype",
     .kind = CLI_CHOICE,
     .offset = offsetof(settings, dtype),
     .argument = "TYPE",
     .initial = "f32",
     .choices = "f32|bf16",
     .help = "Of the factors of dense products, as in attnscope run."},
    {.name = "batch",
     .kind = CLI_SIZE,
     .offset = offsetof(settings, batch),
     .argument = "N",
     .initial = "2",
     .minimum = 1,
     .maximum = 65536,
     .help = "Sequences a step."},
    {.name = "seq",
     .kind = CLI_SIZE,
     .offset = offsetof(settings, seq),
     .argument = "N",
     .initial = "512",
     .minimum = 1,
     .maximum = 1 << 28,
     .help = "Tokens a sequence."},
    {.name = "repeats",
     .kind = CLI_SIZE,
     .offset = offsetof(settings, repeats),
     .argument = "N",
     .initial = "7",
     .minimum = 1,
     .maximum = 10000,
     .help = "Steps measured, each followed by its dense products alone."},
    {.name = "threads",
     .kind = CLI_SIZE,
     .offset = offsetof(settings, threads),
     .argument = "N",
     .maximum = ATTN_THREADS_MAX,
     .help = "0: one a core."},
    {.name = "isa",
     .kind = CLI_CHOICE,
     .offset = offsetof(settings, isa),
     .argument = "LEVEL",
     .choices = "ref|avx2|avx512|amx|auto",
     .help = "Instruction set. Default: ATTNSCOPE_ISA, or the best of the machine."},
    {.name = "seed",
     .kind = CLI_SIZE,
     .offset = offsetof(settings, seed),
     .argument = "N",
     .initial = "1",
     .maximum = 1e15,
     .help = "Of weights and tokens."},
    {.name = "json",
     .kind = CLI_FLAG,
     .offset = offsetof(settings, json),
     .help = "Print JSON instead of the table."},
};

static const char *const kind_names[] = {"y = x w'", "dx = dy w", "dw = dy' x"};

/* ---- table ------------------------------------------------------------------------------- */

static void print_time(const char *name, attn_bench_time time, double share_of_s)
{
    printf("%-26s %10.2f %10.2f %10.2f %8.1f\n", name, 1e3 * time.median_s, 1e3 * time.p10_s,
           1e3 * time.p90_s, 100.0 * time.median_s / share_of_s);
}

static void print_table(const settings *s, const attn_bench_step *r)
{
    const bool is_half = r->dtype == ATTN_BF16;
    printf("%s, %s, batch %zu, %zu tokens, %s, %zu threads, %s, %s\n\n", s->model, s->mechanism,
           s->batch, s->seq, is_half ? "bfloat16" : "float32", r->threads, r->isa,
           is_half ? "own products" : r->dense_name);
    printf("%-26s %10s %10s %10s %8s\n", "part", "median ms", "p10", "p90", "% step");
    for (size_t part = 0; part < ATTN_PARTS; part++)
        for (size_t pass = 0; pass < ATTN_PASSES; pass++) {
            char name[64];
            if (r->parts[part][pass].median_s == 0.0) continue;
            snprintf(name, sizeof name, "%s %s", attn_part_name((attn_part)part),
                     attn_pass_name((attn_pass)pass));
            print_time(name, r->parts[part][pass], r->step.median_s);
        }
    print_time("step", r->step, r->step.median_s);

    printf("\n%-17s %-11s %5s %5s %6s %5s %9s %9s\n", "dense product", "kind", "rows", "in", "out",
           "times", "median ms", "GFLOP/s");
    for (size_t i = 0; i < r->n_products; i++) {
        const attn_model_product *p = &r->products[i].product;
        printf("%-17s %-11s %5zu %5zu %6zu %5zu %9.2f %9.0f\n", p->name, kind_names[p->kind],
               p->rows, p->in, p->out, p->times, 1e3 * r->products[i].all.median_s,
               1e-9 * r->products[i].flop / r->products[i].all.median_s);
    }
    printf("\ndense products alone  %.2f ms, %.0f GFLOP/s\n", 1e3 * r->dense.median_s,
           1e-9 * r->dense_flop / r->dense.median_s);
    printf("step / dense          %.3f\n", r->step.median_s / r->dense.median_s);
    printf("step                  %.1f GFLOP of products counted, %.0f GFLOP/s\n",
           1e-9 * r->step_matmul_flop, 1e-9 * r->step_matmul_flop / r->step.median_s);
    const attn_figure resident = attn_process_memory_peak("");
    printf("memory                %.2f GiB allocated at most", r->peak_bytes / 0x1p30);
    if (resident.provenance != ATTN_UNAVAILABLE)
        printf(", %.2f GiB resident (VmHWM)", resident.value / 0x1p30);
    putchar('\n');
}

/* ---- JSON -------------------------------------------------------------------------------- */

static json_t *time_json(attn_bench_time time)
{
    return json_pack("{s:f, s:f, s:f}", "median_s", time.median_s, "p10_s", time.p10_s, "p90_s",
                     time.p90_s);
}

static int print_json(const settings *s, const attn_bench_step *r, attn_error *error)
{
    json_t *parts = json_array(), *products = json_array();
    for (size_t part = 0; part < ATTN_PARTS; part++)
        for (size_t pass = 0; pass < ATTN_PASSES; pass++)
            if (r->parts[part][pass].median_s > 0.0)
                json_array_append_new(parts, json_pack("{s:s, s:s, s:o}", "part",
                                                       attn_part_name((attn_part)part), "pass",
                                                       attn_pass_name((attn_pass)pass), "time",
                                                       time_json(r->parts[part][pass])));
    for (size_t i = 0; i < r->n_products; i++) {
        const attn_model_product *p = &r->products[i].product;
        json_array_append_new(products,
                              json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:o, s:f}", "name", p->name,
                                        "kind", kind_names[p->kind], "rows", (json_int_t)p->rows,
                                        "in", (json_int_t)p->in, "out", (json_int_t)p->out, "times",
                                        (json_int_t)p->times, "time", time_json(r->products[i].all),
                                        "flop", r->products[i].flop));
    }
    json_t *root = json_pack(
        "{s:s, s:s, s:I, s:I, s:s, s:I, s:s, s:s, s:o, s:o, s:f, s:f, s:f, s:f, s:o, s:o}", "model",
        s->model, "mechanism", s->mechanism, "batch", (json_int_t)s->batch, "seq",
        (json_int_t)s->seq, "dtype", r->dtype == ATTN_BF16 ? "bf16" : "f32", "threads",
        (json_int_t)r->threads, "isa", r->isa, "dense", r->dense_name, "step", time_json(r->step),
        "dense_products_alone", time_json(r->dense), "step_over_dense",
        r->step.median_s / r->dense.median_s, "step_matmul_flop", r->step_matmul_flop, "dense_flop",
        r->dense_flop, "memory_peak_bytes", r->peak_bytes, "parts", parts, "products", products);
    const bool is_written = root && json_dumpf(root, stdout, JSON_INDENT(2)) == 0;
    json_decref(root);
    if (!is_written) {
        attn_fail(error, ATTN_EIO, "the result could not be written as JSON");
        return cli_fail(error);
    }
    putchar('\n');
    return cli_finish(CLI_OK);
}

static int run(const void *settings_pointer, size_t n_operands, char *const *operands)
{
    (void)n_operands;
    const settings *s = settings_pointer;
    attn_error error = {0};
    attn_model_config model;
    attn_bench_step result;
    if (strcmp(operands[0], "step") != 0) {
        attn_fail(&error, ATTN_EARGUMENT, "bench: '%s' is no benchmark: use step", operands[0]);
        return cli_fail(&error);
    }
    if (attn_model_preset(s->model, &model, &error) != ATTN_OK) return cli_fail(&error);
    model.mechanism = s->mechanism;
    model.dtype = strcmp(s->dtype, "bf16") == 0 ? ATTN_BF16 : ATTN_F32;
    const attn_bench_step_options wanted = {.model = &model,
                                            .batch = s->batch,
                                            .length = s->seq,
                                            .repeats = s->repeats,
                                            .threads = s->threads,
                                            .isa = s->isa,
                                            .seed = s->seed};
    if (attn_bench_step_run(&wanted, &result, &error) != ATTN_OK) return cli_fail(&error);
    if (s->json) return print_json(s, &result, &error);
    print_table(s, &result);
    return cli_finish(CLI_OK);
}

const cli_command cli_command_bench = {
    .name = "bench",
    .summary = "time a training step part by part, beside its dense products",
    .operands = "step",
    .description = "Times whole training steps, split into their parts, and in turns with them the "
                   "step's dense products alone, through the same library in the same process: "
                   "what no step can be faster than without a faster product.\n\n"
                   "  attnscope bench step --model gpt2 --batch 2 --seq 512",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .operands_minimum = 1,
    .operands_maximum = 1,
    .settings_bytes = sizeof(settings),
    .run = run,
};
