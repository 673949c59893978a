/* Peaks, cores and layers, as tables of at most 80 columns and as JSON. */
#include "base/error.h"
#include "cli/bench_report.h"
#include "cli/options.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>

/* What cores and layers are measured by. */
static const struct {
    attn_bench_peak peak;
    const char *title, *unit, *key;
} peaks[] = {
    {ATTN_PEAK_FMA, "fused multiply-adds", "GFLOP/s", "fma_flop_per_s"},
    {ATTN_PEAK_TILES, "tile products", "GFLOP/s", "amx_flop_per_s"},
    {ATTN_PEAK_EXPONENTIAL, "exponentials", "G/s", "exp_per_s"},
    {ATTN_PEAK_MEMORY, "reads of memory", "GB/s", "memory_byte_per_s"},
};

/* ---- tables ------------------------------------------------------------------------------ */

void cli_bench_peaks_table(const attn_bench_peaks *r)
{
    printf("%zu threads, %s\n\n%-14s %12s %12s %12s  %s\n", r->threads, r->isa, "peak", "median",
           "p10", "p90", "unit");
    for (size_t i = 0; i < ATTN_BENCH_PEAKS; i++) {
        const attn_bench_spread *rate = &r->rate[i];
        if (!r->is_known[i]) continue;
        printf("%-14s %12.2f %12.2f %12.2f  G%s\n", attn_bench_peak_name((attn_bench_peak)i),
               1e-9 * rate->median, 1e-9 * rate->p10, 1e-9 * rate->p90,
               attn_bench_peak_unit((attn_bench_peak)i));
    }
}

/* Rows of one direction and one pair of sizes lie `step` apart. */
typedef struct group {
    const attn_bench_row *first;
    size_t step;
} group;

static void print_group(const attn_bench_core_options *asked, group g)
{
    const attn_bench_row *head = g.first;
    const bool decodes = head->direction == ATTN_BENCH_DECODE;
    printf("\n%s, %zu heads of %zu\n", attn_bench_direction_name(head->direction), head->heads,
           head->head_dim);
    printf("%7s  %-18s %9s %9s %9s %7s %7s %6s\n", "seq", "mechanism", "median ms", "p10", "p90",
           decodes ? "" : "useful", decodes ? "GB/s" : "done", "% peak");
    for (size_t t = 0; t < asked->lengths.count; t++)
        for (size_t m = 0; m < asked->n_mechanisms; m++) {
            const attn_bench_row *row = &g.first[t * g.step + m];
            const double s = row->time.median_s;
            printf("%7zu  %-18.18s %9.3f %9.3f %9.3f", row->length, asked->mechanisms[m].label,
                   1e3 * s, 1e3 * row->time.p10_s, 1e3 * row->time.p90_s);
            if (decodes)
                printf(" %7s %7.1f", "", 1e-9 * row->bytes / s);
            else
                printf(" %7.1f %7.1f", 1e-9 * row->useful_flop / s, 1e-9 * row->executed_flop / s);
            printf(" %6.1f\n", 100.0 * row->share.median);
        }
}

static void print_bound(const char *name, double length)
{
    if (length > 0.0 && isfinite(length))
        printf("%s%.0f", name, length);
    else
        printf("%s?", name);
}

static void print_crossover(const attn_bench_core_options *asked, const attn_bench_crossover *c)
{
    const char *label = asked->mechanisms[c->mechanism].label, *first = asked->mechanisms[0].label;
    printf("%s, %zu x %zu: %s ", attn_bench_direction_name(c->direction), c->heads, c->head_dim,
           label);
    if (!c->is_known) {
        printf("is %s than %s at every length\n", c->is_faster_after ? "faster" : "slower", first);
        return;
    }
    printf("is %s than %s from %.0f tokens on", c->is_faster_after ? "faster" : "slower", first,
           c->length);
    print_bound(" (", c->low);
    print_bound(" to ", c->high);
    puts(")");
}

void cli_bench_core_table(const attn_bench_core_options *asked, const attn_bench_core *r)
{
    printf("%s, batch %zu, %s, causal, %zu threads, %s%s%s\n", asked->is_layer ? "layers" : "cores",
           asked->batch, asked->dtype == ATTN_BF16 ? "bfloat16" : "float32", r->threads, r->isa,
           asked->is_layer ? ", " : "", asked->is_layer ? r->dense : "");
    size_t directions = 0;
    for (int i = 0; i < ATTN_BENCH_DIRECTIONS; i++) directions += asked->directions[i];
    const size_t step = directions * asked->n_mechanisms, size = step * asked->lengths.count;
    for (size_t at = 0; at < r->n_rows; at += size)
        for (size_t d = 0; d < directions; d++)
            print_group(asked, (group){r->rows + at + d * asked->n_mechanisms, step});
    if (r->n_crossovers > 0) puts("\ncrossovers, with the tenths of the repeats");
    for (size_t i = 0; i < r->n_crossovers; i++) print_crossover(asked, &r->crossovers[i]);
    putchar('\n');
    for (size_t i = 0; i < sizeof peaks / sizeof *peaks; i++) {
        const attn_bench_spread *rate = &r->peaks[peaks[i].peak];
        if (rate->median > 0.0)
            printf("peak during the run: %s %.1f %s (%.1f to %.1f)\n", peaks[i].title,
                   1e-9 * rate->median, peaks[i].unit, 1e-9 * rate->p10, 1e-9 * rate->p90);
    }
}

/* ---- JSON -------------------------------------------------------------------------------- */

static int print_json(json_t *root, attn_error *error)
{
    const bool is_written = root && json_dumpf(root, stdout, JSON_INDENT(2)) == 0;
    json_decref(root);
    if (!is_written) {
        attn_fail(error, ATTN_EIO, "the result could not be written as JSON");
        return cli_fail(error);
    }
    putchar('\n');
    return cli_finish(CLI_OK);
}

static json_t *spread_json(attn_bench_spread s)
{
    return json_pack("{s:f, s:f, s:f}", "median", s.median, "p10", s.p10, "p90", s.p90);
}

static json_t *time_json(attn_bench_time t)
{
    return json_pack("{s:f, s:f, s:f}", "median_s", t.median_s, "p10_s", t.p10_s, "p90_s", t.p90_s);
}

/* A length, or null where the ratios do not cross. */
static json_t *length_json(double length)
{
    return length > 0.0 && isfinite(length) ? json_real(length) : json_null();
}

int cli_bench_peaks_json(const attn_bench_peaks *r, attn_error *error)
{
    json_t *rates = json_array();
    for (size_t i = 0; i < ATTN_BENCH_PEAKS; i++)
        if (r->is_known[i])
            json_array_append_new(rates, json_pack("{s:s, s:s, s:o}", "name",
                                                   attn_bench_peak_name((attn_bench_peak)i), "unit",
                                                   attn_bench_peak_unit((attn_bench_peak)i), "rate",
                                                   spread_json(r->rate[i])));
    return print_json(json_pack("{s:I, s:s, s:o}", "threads", (json_int_t)r->threads, "isa", r->isa,
                                "peaks", rates),
                      error);
}

static json_t *row_json(const attn_bench_core_options *asked, const attn_bench_row *row)
{
    json_t *json =
        json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:o, s:o, s:f, s:f, s:o}", "mechanism",
                  asked->mechanisms[row->mechanism].label, "direction",
                  attn_bench_direction_name(row->direction), "dtype",
                  asked->dtype == ATTN_BF16 ? "bf16" : "f32", "seq", (json_int_t)row->length,
                  "heads", (json_int_t)row->heads, "head_dim", (json_int_t)row->head_dim, "batch",
                  (json_int_t)asked->batch, "time", time_json(row->time), "ratio_to_first",
                  spread_json(row->ratio), "useful_flop", row->useful_flop, "executed_flop",
                  row->executed_flop, "share_of_peak", spread_json(row->share));
    if (row->direction == ATTN_BENCH_DECODE)
        json_object_set_new(json, "cache_bytes", json_real(row->bytes));
    return json;
}

static json_t *crossover_json(const attn_bench_core_options *asked, const attn_bench_crossover *c)
{
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:s, s:o, s:o, s:o}", "mechanism",
                     asked->mechanisms[c->mechanism].label, "first", asked->mechanisms[0].label,
                     "direction", attn_bench_direction_name(c->direction), "heads",
                     (json_int_t)c->heads, "head_dim", (json_int_t)c->head_dim, "above",
                     c->is_faster_after ? "faster" : "slower", "length",
                     length_json(c->is_known ? c->length : 0.0), "low", length_json(c->low), "high",
                     length_json(c->high));
}

int cli_bench_core_json(const attn_bench_core_options *asked, const attn_bench_core *r,
                        attn_error *error)
{
    json_t *rows = json_array(), *crossovers = json_array();
    for (size_t i = 0; i < r->n_rows; i++)
        json_array_append_new(rows, row_json(asked, &r->rows[i]));
    for (size_t i = 0; i < r->n_crossovers; i++)
        json_array_append_new(crossovers, crossover_json(asked, &r->crossovers[i]));
    json_t *root =
        json_pack("{s:s, s:I, s:s, s:s, s:o, s:o}", "what", asked->is_layer ? "layer" : "core",
                  "threads", (json_int_t)r->threads, "isa", r->isa, "dense", r->dense, "rows", rows,
                  "crossovers", crossovers);
    for (size_t i = 0; i < sizeof peaks / sizeof *peaks; i++)
        if (r->peaks[peaks[i].peak].median > 0.0)
            json_object_set_new(root, peaks[i].key, spread_json(r->peaks[peaks[i].peak]));
    return print_json(root, error);
}
