/* A training step taken apart, as a table and as JSON. */
#include "base/error.h"
#include "cli/bench_report.h"
#include "cli/options.h"
#include "meters/process.h"

#include <jansson.h>
#include <stdio.h>

static const char *const kind_names[] = {"y = x w'", "dx = dy w", "dw = dy' x"};

/* ---- table ------------------------------------------------------------------------------- */

static void print_time(const char *name, attn_bench_time time, double share_of_s)
{
    printf("%-26s %10.2f %10.2f %10.2f %8.1f\n", name, 1e3 * time.median_s, 1e3 * time.p10_s,
           1e3 * time.p90_s, 100.0 * time.median_s / share_of_s);
}

void cli_bench_step_table(const cli_bench_step_asked *s, const attn_bench_step *r)
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

int cli_bench_step_json(const cli_bench_step_asked *s, const attn_bench_step *r, attn_error *error)
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
