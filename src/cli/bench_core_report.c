/* Peaks, cores and layers, as tables of at most 80 columns and as JSON. */
#include "base/error.h"
#include "cli/bench_report.h"
#include "cli/options.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

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

enum { LABEL_COLUMNS = 25, LABEL_BYTES = ATTN_LABEL_BYTES + 8 };

/* "flash", or "flash bf16" where types are compared. */
static const char *label_of(const attn_bench_core_options *asked, size_t variant, char *text)
{
    const attn_bench_variant *v = &asked->variants[variant];
    const attn_dtype first = asked->variants[0].dtype;
    const bool is_mixed = asked->variants[asked->n_variants - 1].dtype != first;
    snprintf(text, LABEL_BYTES, "%s%s%s", v->mechanism.label, is_mixed ? " " : "",
             is_mixed ? attn_bench_dtype_name(v->dtype) : "");
    return text;
}

/* A number in so many columns behind a space, with as many digits as fit. */
static void print_digits(int columns, double value)
{
    int decimals = columns - 3;
    double size = fabs(value);
    for (; size >= 10.0 && decimals > 0; size /= 10.0) decimals--;
    if (fabs(value) < pow(10.0, columns) - 1.0)
        printf(" %*.*f", columns, decimals, value);
    else
        printf(" %*.0e", columns, value);
}

/* Rows of one direction and one pair of sizes lie `step` apart. */
typedef struct group {
    const attn_bench_row *first;
    size_t step;
} group;

static void print_row(const attn_bench_core_options *asked, const attn_bench_row *row)
{
    char label[LABEL_BYTES];
    const double s = row->time.median_s;
    label_of(asked, row->variant, label);
    const bool is_long = strlen(label) > LABEL_COLUMNS;
    if (is_long) printf("%6s %s\n", "", label);
    printf("%6zu %-*s", row->length, LABEL_COLUMNS, is_long ? "" : label);
    print_digits(6, 1e3 * s);
    print_digits(6, 1e3 * row->time.p10_s);
    print_digits(6, 1e3 * row->time.p90_s);
    if (row->direction == ATTN_BENCH_DECODE) {
        print_digits(6, 1e-6 * row->read_bytes);
        print_digits(6, 1e-9 * row->read_bytes / s);
        print_digits(6, 100.0 * row->share.median);
    } else {
        print_digits(6, 1e-9 * row->useful_flop / s);
        print_digits(6, 1e-9 * row->executed_flop / s);
        print_digits(6, 100.0 * row->share.median);
        print_digits(5, row->limit.median);
    }
    putchar('\n');
}

static void print_group(const attn_bench_core_options *asked, group g)
{
    const attn_bench_row *head = g.first;
    const bool decodes = head->direction == ATTN_BENCH_DECODE;
    printf("\n%s, %zu heads of %zu\n", attn_bench_direction_name(head->direction), head->heads,
           head->head_dim);
    printf("%6s %-*s %6s %6s %6s %6s %6s %6s%s\n", "seq", LABEL_COLUMNS, "mechanism", "ms", "p10",
           "p90", decodes ? "MB" : "useful", decodes ? "GB/s" : "done", "% peak",
           decodes ? "" : " limit");
    for (size_t t = 0; t < asked->lengths.count; t++)
        for (size_t v = 0; v < asked->n_variants; v++) print_row(asked, &g.first[t * g.step + v]);
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
    char label[LABEL_BYTES], first[LABEL_BYTES];
    label_of(asked, 0, first);
    printf("%s, %zu x %zu: %s ", attn_bench_direction_name(c->direction), c->heads, c->head_dim,
           label_of(asked, c->variant, label));
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

static void print_peak(attn_bench_peak peak, const attn_bench_spread *rate)
{
    printf("%-12s %9.1f G%s (%.1f to %.1f)\n", attn_bench_peak_name(peak), 1e-9 * rate->median,
           attn_bench_peak_unit(peak), 1e-9 * rate->p10, 1e-9 * rate->p90);
}

/* "float32", "bfloat16", "float32 and bfloat16" */
static const char *types_of(const attn_bench_core_options *asked)
{
    const attn_dtype first = asked->variants[0].dtype;
    const attn_dtype last = asked->variants[asked->n_variants - 1].dtype;
    if (first != last) return "float32 and bfloat16";
    return first == ATTN_BF16 ? "bfloat16" : "float32";
}

void cli_bench_core_table(const attn_bench_core_options *asked, const attn_bench_core *r)
{
    printf("%s, batch %zu, %s, causal, %zu threads, %s%s%s\n", asked->is_layer ? "layers" : "cores",
           asked->batch, types_of(asked), r->threads, r->isa, asked->is_layer ? ", " : "",
           asked->is_layer ? r->dense : "");
    size_t directions = 0;
    for (int i = 0; i < ATTN_BENCH_DIRECTIONS; i++) directions += asked->directions[i];
    const size_t step = directions * asked->n_variants, size = step * asked->lengths.count;
    for (size_t at = 0; at < r->n_rows; at += size)
        for (size_t d = 0; d < directions; d++)
            print_group(asked, (group){r->rows + at + d * asked->n_variants, step});
    if (r->n_crossovers > 0) puts("\ncrossovers, with the tenths of the repeats");
    for (size_t i = 0; i < r->n_crossovers; i++) print_crossover(asked, &r->crossovers[i]);
    puts("\npeaks during the run");
    for (int i = 0; i < ATTN_BENCH_PEAKS; i++)
        if (r->has_peak[i]) print_peak((attn_bench_peak)i, &r->peaks[i]);
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

/* Those that are known. */
static json_t *peaks_json(const attn_bench_spread *rates, const bool *is_known)
{
    json_t *peaks = json_array();
    for (size_t i = 0; i < ATTN_BENCH_PEAKS; i++)
        if (is_known[i])
            json_array_append_new(peaks, json_pack("{s:s, s:s, s:o}", "name",
                                                   attn_bench_peak_name((attn_bench_peak)i), "unit",
                                                   attn_bench_peak_unit((attn_bench_peak)i), "rate",
                                                   spread_json(rates[i])));
    return peaks;
}

int cli_bench_peaks_json(const attn_bench_peaks *r, attn_error *error)
{
    return print_json(json_pack("{s:I, s:s, s:o}", "threads", (json_int_t)r->threads, "isa", r->isa,
                                "peaks", peaks_json(r->rate, r->is_known)),
                      error);
}

static json_t *row_json(const attn_bench_core_options *asked, const attn_bench_row *row)
{
    const attn_bench_variant *v = &asked->variants[row->variant];
    json_t *json = json_pack(
        "{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:o, s:o, s:f, s:f, s:f, s:f, s:o, s:o}", "mechanism",
        v->mechanism.label, "direction", attn_bench_direction_name(row->direction), "dtype",
        attn_bench_dtype_name(v->dtype), "seq", (json_int_t)row->length, "heads",
        (json_int_t)row->heads, "head_dim", (json_int_t)row->head_dim, "batch",
        (json_int_t)asked->batch, "time", time_json(row->time), "ratio_to_first",
        spread_json(row->ratio), "useful_flop", row->useful_flop, "executed_flop",
        row->executed_flop, "exponentials", row->exponentials, "memory_bytes", row->held_bytes,
        "share_of_peak", spread_json(row->share), "time_over_limit", spread_json(row->limit));
    if (row->direction == ATTN_BENCH_DECODE)
        json_object_set_new(json, "read_bytes", json_real(row->read_bytes));
    return json;
}

static json_t *crossover_json(const attn_bench_core_options *asked, const attn_bench_crossover *c)
{
    const attn_bench_variant *v = &asked->variants[c->variant], *first = &asked->variants[0];
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:s, s:o, s:o, s:o}", "mechanism",
                     v->mechanism.label, "dtype", attn_bench_dtype_name(v->dtype), "first",
                     first->mechanism.label, "first_dtype", attn_bench_dtype_name(first->dtype),
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
    return print_json(
        json_pack("{s:s, s:I, s:s, s:s, s:o, s:o, s:o}", "what", asked->is_layer ? "layer" : "core",
                  "threads", (json_int_t)r->threads, "isa", r->isa, "dense", r->dense, "rows", rows,
                  "crossovers", crossovers, "peaks", peaks_json(r->peaks, r->has_peak)),
        error);
}
