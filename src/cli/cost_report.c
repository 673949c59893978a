/* Rows of estimates, and their tables for people. */
#include "cli/cost_report.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/text.h"
#include "report/format.h"

#include <math.h>
#include <string.h>

/* ---- rows ----------------------------------------------------------------------------------- */

static attn_status fill_row(cli_cost_rows *rows, cli_cost_row *row, attn_error *error)
{
    const cli_cost_question *q = rows->question;
    const attn_cost_request request = cli_cost_request(q, row->mechanism, row->length);
    attn_error here = {0};
    attn_status status = attn_cost_estimate_make(&request, &row->estimate, &here);
    const bool may_lack =
        q->is_every_mechanism && (status == ATTN_EUNSUPPORTED || status == ATTN_ESHAPE);
    if (status != ATTN_OK && may_lack) {
        attn_text_copy(row->reason, sizeof row->reason, here.text);
        return ATTN_OK;
    }
    if (status != ATTN_OK) return attn_fail(error, status, "%s", here.text);
    row->convention_flop = attn_convention_flop(&row->estimate, rows->convention);
    for (size_t d = 0; d < q->n_devices && status == ATTN_OK; d++)
        status = attn_cost_predict(&row->estimate, q->devices[d], &row->predictions[d], error);
    return status;
}

attn_status cli_cost_rows_make(cli_cost_rows *rows, const cli_cost_question *question,
                               attn_cost_convention convention, attn_error *error)
{
    *rows = (cli_cost_rows){.question = question, .convention = convention};
    const size_t count = question->n_mechanisms * question->lengths.count;
    rows->rows = attn_alloc_array(ATTN_MEMORY_OTHER, count, sizeof *rows->rows);
    if (!rows->rows) return attn_fail(error, ATTN_EMEMORY, "no memory for %zu estimates", count);
    size_t with_estimate = 0;
    for (size_t m = 0; m < question->n_mechanisms; m++)
        for (size_t l = 0; l < question->lengths.count; l++) {
            cli_cost_row *row = &rows->rows[rows->count++];
            row->mechanism = m;
            row->length = l;
            const attn_status status = fill_row(rows, row, error);
            if (status != ATTN_OK) return status;
            with_estimate += !row->reason[0];
        }
    if (!with_estimate) return attn_fail(error, ATTN_ESHAPE, "%s", rows->rows[0].reason);
    return ATTN_OK;
}

void cli_cost_rows_free(cli_cost_rows *rows)
{
    attn_free(rows->rows);
}

/* ---- cells ---------------------------------------------------------------------------------- */

static const char *label_of(const cli_cost_rows *rows, const cli_cost_row *row)
{
    return rows->question->mechanisms[row->mechanism].label;
}

static attn_text count_text(double value)
{
    attn_text text = {"-"};
    if (isnan(value)) return text;
    return value == 0.0 ? (attn_text){"0"} : attn_format_si(value, 4, "");
}

static attn_text bytes_text(double value)
{
    return value > 0.0 ? attn_format_si(value, 3, "byte") : (attn_text){"0"};
}

static attn_text time_text(double time_s)
{
    return attn_format_si(time_s, 3, "s");
}

/* "95-180 ms": both ends with the prefix of the value */
static attn_text span_text(attn_cost_span span)
{
    static const char *const prefixes[] = {"n", "u", "m", "", "k", "M"};
    static const double scales[] = {1e9, 1e6, 1e3, 1.0, 1e-3, 1e-6};
    attn_text text = {"-"};
    if (isnan(span.value)) return text;
    size_t i = 0;
    while (i < 5 && span.value * scales[i] >= 1000.0) i++;
    snprintf(text.text, sizeof text.text, "%.30s-%.30s %ss",
             attn_format_number(span.low * scales[i], 2).text,
             attn_format_number(span.high * scales[i], 2).text, prefixes[i]);
    return text;
}

static attn_text energy_text(const attn_prediction *p)
{
    return isnan(p->energy_j.value) ? (attn_text){"-"} : attn_format_si(p->energy_j.value, 2, "J");
}

/* Cells of both tables; widths fit 80 columns. */
enum { CELLS_MAX = 9, CELL_BYTES = 96 };
typedef struct cells {
    char cell[CELLS_MAX][CELL_BYTES];
    size_t count;
} cells;

static void put(cells *row, const char *text)
{
    snprintf(row->cell[row->count++], CELL_BYTES, "%s", text);
}

static const char *const work_heads[] = {"mechanism", "tokens", "matmul", NULL,
                                         "exp",       "other",  "memory", "cache"};
static const int work_widths[] = {-16, 8, 8, 9, 8, 8, 8, 8};
static const char *const time_heads[] = {"mechanism", "tokens", "time",   "between",
                                         "attn",      "energy", "memory", "bound"};
static const int time_widths[] = {-16, 8, 8, 14, 4, 7, 8, 7};
enum { COLUMNS = 8 };

static void start_cells(cells *row, const cli_cost_rows *rows, const cli_cost_row *r)
{
    row->count = 0;
    put(row, label_of(rows, r));
    const size_t keys = r->estimate.request.keys;
    char tokens[32];
    snprintf(tokens, sizeof tokens, "%zu", keys ? keys : (size_t)r->estimate.rows);
    put(row, tokens);
}

/* The column between matmul and exp: the chosen convention, or the useful work. */
static attn_cost_convention second_convention(const cli_cost_rows *rows)
{
    return rows->convention == ATTN_CONVENTION_EXECUTED ? ATTN_CONVENTION_USEFUL : rows->convention;
}

static void work_cells(cells *row, const cli_cost_rows *rows, const cli_cost_row *r)
{
    const attn_cost_estimate *e = &r->estimate;
    const attn_work work = attn_cost_total(e);
    start_cells(row, rows, r);
    put(row, count_text((double)work.matmul).text);
    put(row, count_text(attn_convention_flop(e, second_convention(rows))).text);
    put(row, count_text((double)work.exponential).text);
    put(row, count_text((double)work.other).text);
    put(row, bytes_text((double)e->memory.total).text);
    put(row, e->request.phase == ATTN_COST_TRAIN ? "-" : bytes_text((double)e->cache_bytes).text);
}

static void time_cells(cells *row, const cli_cost_rows *rows, const cli_cost_row *r, size_t device)
{
    const attn_prediction *p = &r->predictions[device];
    start_cells(row, rows, r);
    put(row, time_text(p->time_s.value).text);
    put(row, span_text(p->time_s).text);
    char share[16];
    snprintf(share, sizeof share, "%.0f%%", 100.0 * p->attention_share);
    put(row, share);
    put(row, energy_text(p).text);
    put(row, p->fits ? bytes_text(p->memory_bytes).text : "no room");
    put(row, attn_cost_bound_name(p->bound));
}

static const char *head_of(const cli_cost_rows *rows, const char *const *heads, size_t column)
{
    return heads[column] ? heads[column] : attn_convention_name(second_convention(rows));
}

/* ---- plain text ----------------------------------------------------------------------------- */

static void print_line(FILE *out, const cells *row, const int *widths)
{
    /* A long name has a line of its own. */
    const bool is_long = strlen(row->cell[0]) > (size_t)-widths[0];
    if (is_long) fprintf(out, "%s\n%*s", row->cell[0], -widths[0], "");
    for (size_t i = is_long ? 1 : 0; i < row->count; i++)
        fprintf(out, "%s%*s", i ? " " : "", widths[i], row->cell[i]);
    putc('\n', out);
}

static void print_heads(FILE *out, const cli_cost_rows *rows, const char *const *heads,
                        const int *widths)
{
    cells row = {.count = 0};
    for (size_t i = 0; i < COLUMNS; i++) put(&row, head_of(rows, heads, i));
    print_line(out, &row, widths);
}

static void print_title(FILE *out, const cli_cost_rows *rows)
{
    const attn_cost_request *r = &rows->question->request;
    const cli_cost_row *first = rows->rows;
    while (first->reason[0]) first++;
    fprintf(out, "%s: %s, batch %zu, %s", r->spec->title, cli_cost_phase_text(r->phase), r->batch,
            attn_cost_type_name(r->type));
    if (r->queries) fprintf(out, ", %zu new tokens", r->queries);
    if (r->documents > 1) fprintf(out, ", %zu documents a sequence", r->documents);
    if (r->phase == ATTN_COST_TRAIN && r->recompute != ATTN_RECOMPUTE_NONE)
        fprintf(out, ", %s recomputed", r->recompute == ATTN_RECOMPUTE_FULL ? "layers" : "cores");
    fprintf(out, "\n%s parameters; counts are exact, for the whole model\n",
            attn_format_count((double)first->estimate.parameters, " ").text);
    const attn_range *lengths = &rows->question->lengths;
    if (r->spec->positions && lengths->values[lengths->count - 1] > r->spec->positions)
        fprintf(out, "the model was made for %zu tokens: what is beyond is hypothetical\n",
                r->spec->positions);
    putc('\n', out);
}

static void print_reasons(FILE *out, const cli_cost_rows *rows, const char *start)
{
    for (size_t i = 0; i < rows->count; i++)
        if (rows->rows[i].reason[0]) {
            const int n = fprintf(out, "%s%s: ", start, label_of(rows, &rows->rows[i]));
            attn_format_wrapped(out, rows->rows[i].reason, n > 0 ? (size_t)n : 0, 2, 80);
        }
}

static void print_device(FILE *out, const cli_cost_rows *rows, size_t device)
{
    const attn_device *d = rows->question->devices[device];
    const attn_cost_type type = rows->question->request.type;
    fprintf(out, "\n%s: %s\n%s at %.4g TFLOP/s, %g GB/s, ridge %.0f FLOP/byte\n", d->record.name,
            d->title, attn_cost_type_name(type), attn_device_rate(d, type, NULL)->value,
            d->bandwidth_gb_s.value, attn_device_ridge(d, type));
    fprintf(out, "times and energies are modelled, %s\n",
            rows->rows[0].predictions[device].is_calibrated
                ? "with constants measured on this machine"
                : "from data sheets: expect the interval");
    print_heads(out, rows, time_heads, time_widths);
    for (size_t i = 0; i < rows->count; i++) {
        if (rows->rows[i].reason[0]) continue;
        cells row;
        time_cells(&row, rows, &rows->rows[i], device);
        print_line(out, &row, time_widths);
    }
}

void cli_cost_table(FILE *out, const cli_cost_rows *rows)
{
    print_title(out, rows);
    print_heads(out, rows, work_heads, work_widths);
    for (size_t i = 0; i < rows->count; i++) {
        if (rows->rows[i].reason[0]) continue;
        cells row;
        work_cells(&row, rows, &rows->rows[i]);
        print_line(out, &row, work_widths);
    }
    print_reasons(out, rows, "");
    for (size_t d = 0; d < rows->question->n_devices; d++) print_device(out, rows, d);
}

/* ---- Markdown ------------------------------------------------------------------------------- */

static void markdown_line(FILE *out, const cells *row)
{
    for (size_t i = 0; i < row->count; i++) fprintf(out, "| %s ", row->cell[i]);
    fputs("|\n", out);
}

static void markdown_heads(FILE *out, const cli_cost_rows *rows, const char *const *heads)
{
    cells row = {.count = 0};
    for (size_t i = 0; i < COLUMNS; i++) put(&row, head_of(rows, heads, i));
    markdown_line(out, &row);
    fputs("|---|---:|---:|---:|---:|---:|---:|---:|\n", out);
}

void cli_cost_markdown(FILE *out, const cli_cost_rows *rows)
{
    markdown_heads(out, rows, work_heads);
    for (size_t i = 0; i < rows->count; i++) {
        if (rows->rows[i].reason[0]) continue;
        cells row;
        work_cells(&row, rows, &rows->rows[i]);
        markdown_line(out, &row);
    }
    if (rows->rows[0].reason[0]) putc('\n', out);
    print_reasons(out, rows, "- ");
    for (size_t d = 0; d < rows->question->n_devices; d++) {
        fprintf(out, "\n%s, modelled:\n\n", rows->question->devices[d]->title);
        markdown_heads(out, rows, time_heads);
        for (size_t i = 0; i < rows->count; i++) {
            if (rows->rows[i].reason[0]) continue;
            cells row;
            time_cells(&row, rows, &rows->rows[i], d);
            markdown_line(out, &row);
        }
    }
}
