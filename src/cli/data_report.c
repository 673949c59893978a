/* Figures of a data set as text and as JSON. */
#include "cli/data_report.h"

#include "base/memory.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT_BYTES = 32, SOURCES_SHOWN = 30, SOURCE_COLUMNS = 36 };

/* Upper ends of the classes of lengths; longer rows come after. */
static const size_t length_classes[] = {64, 128, 256, 512, 1024, 2048, 4096};
enum { N_CLASSES = sizeof length_classes / sizeof *length_classes };

/* 1234567 as "1,234,567". */
static const char *with_commas(size_t number, char text[COUNT_BYTES])
{
    char digits[COUNT_BYTES];
    const size_t n = (size_t)snprintf(digits, sizeof digits, "%zu", number);
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0) text[used++] = ',';
        text[used++] = digits[i];
    }
    text[used] = '\0';
    return text;
}

static void print_count(int columns, size_t number)
{
    char text[COUNT_BYTES];
    printf("%*s", columns, with_commas(number, text));
}

static double percent(size_t part, size_t whole)
{
    return whole > 0 ? 100 * (double)part / (double)whole : 0;
}

static size_t n_rows_in_class(const attn_survey *survey, size_t class)
{
    const size_t below = class == 0 ? 0 : attn_survey_rows_up_to(survey, length_classes[class - 1]);
    return (class == N_CLASSES ? survey->total.n_rows
                               : attn_survey_rows_up_to(survey, length_classes[class])) -
           below;
}

/* Prints text of others, whose control characters must not act on a terminal: but for those in
 * `kept` they become \xNN. Stops at n_columns, taking a character for a column; returns how many
 * it printed. */
static size_t print_safely(const char *text, size_t n_bytes, const char *kept, size_t n_columns)
{
    size_t column = 0;
    for (size_t i = 0; i < n_bytes; i++) {
        const unsigned char c = (unsigned char)text[i];
        const bool is_control = (c < 0x20 && (c == '\0' || !strchr(kept, c))) || c == 0x7F;
        const size_t width = is_control ? 4 : (c & 0xC0) != 0x80;
        if (width > n_columns - column) break;
        column += width;
        if (is_control)
            printf("\\x%02X", c);
        else
            putchar(c);
    }
    return column;
}

/* ---- for people ------------------------------------------------------------------------- */

static void print_totals(const data_report *report)
{
    const attn_reading *reading = report->reading;
    const attn_survey_count *total = &report->survey->total;
    printf("rows    ");
    print_count(14, total->n_rows);
    printf("   of ");
    print_count(0, reading->n_lines);
    printf(" %s%s, ", reading->is_plain_text ? "section" : "line",
           reading->n_lines == 1 ? "" : "s");
    print_count(0, attn_reading_skipped(reading));
    printf(" skipped");
    if (reading->skips[ATTN_SKIP_BLANK] > 0) {
        printf(", ");
        print_count(0, reading->skips[ATTN_SKIP_BLANK]);
        printf(" blank");
    }
    printf("\ntokens  ");
    print_count(14, total->n_tokens);
    printf("\ntargets ");
    print_count(14, total->n_targets);
    printf("   %.1f %% of the tokens count in the loss\n",
           percent(total->n_targets, total->n_tokens));
}

static void print_lengths(const data_report *report)
{
    static const char bar[] = "########################################";
    static const struct {
        const char *name;
        double percent;
    } quantiles[] = {{"median", 50}, {"p90", 90}, {"p99", 99}, {"longest", 100}};
    const attn_survey *survey = report->survey;
    const size_t n_rows = survey->total.n_rows;
    printf("\ntokens a row: mean %.1f", (double)survey->total.n_tokens / (double)n_rows);
    for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++) {
        printf(", %s ", quantiles[i].name);
        print_count(0, attn_survey_percentile(survey, quantiles[i].percent));
    }
    printf("\n\n%-14s%8s\n", "TOKENS", "ROWS");
    for (size_t i = 0; i <= N_CLASSES; i++) {
        const size_t n = n_rows_in_class(survey, i);
        printf("%s", i < N_CLASSES ? "up to " : "more  ");
        if (i < N_CLASSES)
            print_count(8, length_classes[i]);
        else
            printf("%8s", "");
        print_count(8, n);
        printf("  %5.1f %%", percent(n, n_rows));
        const int length = (int)((double)(sizeof bar - 1) * (double)n / (double)n_rows + 0.5);
        printf(length > 0 ? "  %.*s\n" : "\n", length, bar);
    }
}

static void print_cut(const data_report *report)
{
    const attn_survey *survey = report->survey;
    const size_t n = report->n_positions;
    const size_t n_longer = survey->total.n_rows - attn_survey_rows_up_to(survey, n);
    const size_t n_beyond = attn_survey_tokens_beyond(survey, n);
    printf("\nlonger than ");
    print_count(0, n);
    printf(" tokens: ");
    print_count(0, n_longer);
    printf(" rows (%.1f %%), with ", percent(n_longer, survey->total.n_rows));
    print_count(0, n_beyond);
    printf(" tokens (%.1f %%) beyond\n", percent(n_beyond, survey->total.n_tokens));
}

typedef struct ranked_source {
    attn_survey_count count;
    size_t number;
} ranked_source;

/* Most rows first, then in the order of the file. */
static int compare_sources(const void *a, const void *b)
{
    const ranked_source *left = a, *right = b;
    if (left->count.n_rows != right->count.n_rows)
        return left->count.n_rows > right->count.n_rows ? -1 : 1;
    return left->number < right->number ? -1 : 1;
}

static ranked_source *rank_sources(const attn_survey *survey)
{
    ranked_source *ranked = attn_alloc_array(ATTN_MEMORY_OTHER, survey->names.n, sizeof *ranked);
    for (size_t i = 0; ranked && i < survey->names.n; i++)
        ranked[i] = (ranked_source){.count = survey->sources[i], .number = i};
    if (ranked) qsort(ranked, survey->names.n, sizeof *ranked, compare_sources);
    return ranked;
}

static void print_sources(const attn_survey *survey)
{
    ranked_source *ranked = rank_sources(survey);
    if (!ranked) return; /* the JSON form says so; here the other figures are worth having */
    printf("\n%-*s%9s%13s%13s%9s\n", SOURCE_COLUMNS, "SOURCE", "ROWS", "TOKENS", "TARGETS", "MEAN");
    for (size_t i = 0; i < survey->names.n && i < SOURCES_SHOWN; i++) {
        size_t n_bytes = 0;
        const char *name = attn_names_get(&survey->names, ranked[i].number, &n_bytes);
        if (n_bytes == 0) {
            name = "(none named)";
            n_bytes = strlen(name);
        }
        const size_t used = print_safely(name, n_bytes, "", SOURCE_COLUMNS - 1);
        printf("%*s", SOURCE_COLUMNS - (int)used, "");
        const attn_survey_count *count = &ranked[i].count;
        print_count(9, count->n_rows);
        print_count(13, count->n_tokens);
        print_count(13, count->n_targets);
        printf("%9.1f\n", (double)count->n_tokens / (double)count->n_rows);
    }
    if (survey->names.n > SOURCES_SHOWN)
        printf("and %zu more; --json has all\n", survey->names.n - SOURCES_SHOWN);
    attn_free(ranked);
}

static void print_skips(const data_report *report)
{
    const attn_reading *reading = report->reading;
    if (attn_reading_skipped(reading) == 0) return;
    printf("\n%-18s%8s\n", "SKIPPED", "LINES");
    for (size_t i = ATTN_SKIP_BLANK + 1; i < ATTN_SKIP_REASONS; i++) {
        if (reading->skips[i] == 0) continue;
        printf("%-18s", attn_skip_name((attn_skip)i));
        print_count(8, reading->skips[i]);
        putchar('\n');
    }
    printf("\nthe first of them\n");
    for (size_t i = 0; i < reading->n_listed; i++)
        printf("%s:%zu: %s\n", report->path, reading->listed[i].line,
               attn_skip_name(reading->listed[i].reason));
}

void data_report_print(const data_report *report)
{
    printf("%s\nSHA-256 %s\n\n", report->path, report->sha256);
    print_totals(report);
    print_lengths(report);
    if (report->n_positions > 0) print_cut(report);
    print_sources(report->survey);
    print_skips(report);
}

/* ---- JSON ------------------------------------------------------------------------------- */

static json_t *lengths_json(const attn_survey *survey)
{
    json_t *classes = json_array();
    for (size_t i = 0; i <= N_CLASSES; i++) {
        json_t *limit = i < N_CLASSES ? json_integer((json_int_t)length_classes[i]) : json_null();
        json_array_append_new(classes, json_pack("{s:o, s:I}", "up_to", limit, "rows",
                                                 (json_int_t)n_rows_in_class(survey, i)));
    }
    const double mean = (double)survey->total.n_tokens / (double)survey->total.n_rows;
    return json_pack("{s:f, s:I, s:I, s:I, s:I, s:o}", "mean", mean, "median",
                     (json_int_t)attn_survey_percentile(survey, 50), "p90",
                     (json_int_t)attn_survey_percentile(survey, 90), "p99",
                     (json_int_t)attn_survey_percentile(survey, 99), "max",
                     (json_int_t)attn_survey_percentile(survey, 100), "histogram", classes);
}

static json_t *sources_json(const attn_survey *survey)
{
    ranked_source *ranked = rank_sources(survey);
    if (!ranked) return NULL;
    json_t *sources = json_array();
    for (size_t i = 0; i < survey->names.n; i++) {
        size_t n_bytes = 0;
        const char *name = attn_names_get(&survey->names, ranked[i].number, &n_bytes);
        const attn_survey_count *count = &ranked[i].count;
        json_array_append_new(sources, json_pack("{s:s%, s:I, s:I, s:I}", "dataset", name, n_bytes,
                                                 "rows", (json_int_t)count->n_rows, "tokens",
                                                 (json_int_t)count->n_tokens, "target_tokens",
                                                 (json_int_t)count->n_targets));
    }
    attn_free(ranked);
    return sources;
}

static json_t *skips_json(const attn_reading *reading)
{
    json_t *counts = json_object(), *first = json_array();
    for (size_t i = ATTN_ACCEPTED + 1; i < ATTN_SKIP_REASONS; i++)
        if (reading->skips[i] > 0)
            json_object_set_new(counts, attn_skip_name((attn_skip)i),
                                json_integer((json_int_t)reading->skips[i]));
    for (size_t i = 0; i < reading->n_listed; i++)
        json_array_append_new(first,
                              json_pack("{s:I, s:s}", "line", (json_int_t)reading->listed[i].line,
                                        "reason", attn_skip_name(reading->listed[i].reason)));
    return json_pack("{s:o, s:o}", "lines", counts, "first", first);
}

static json_t *cut_json(const data_report *report)
{
    const attn_survey *survey = report->survey;
    const size_t n = report->n_positions;
    if (n == 0) return json_null();
    return json_pack("{s:I, s:I, s:I}", "tokens", (json_int_t)n, "rows_longer",
                     (json_int_t)(survey->total.n_rows - attn_survey_rows_up_to(survey, n)),
                     "tokens_beyond", (json_int_t)attn_survey_tokens_beyond(survey, n));
}

/* Prints and frees; false when `value` is NULL, which is how Jansson says that memory is short. */
static bool print_json(json_t *value)
{
    if (!value) return false;
    const bool is_printed = json_dumpf(value, stdout, JSON_INDENT(1)) == 0;
    json_decref(value);
    if (is_printed) putchar('\n');
    return is_printed;
}

bool data_report_print_json(const data_report *report)
{
    const attn_survey *survey = report->survey;
    return print_json(json_pack(
        "{s:i, s:s, s:s, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o}", "schema", 1, "file",
        report->path, "sha256", report->sha256, "lines", (json_int_t)report->reading->n_lines,
        "rows", (json_int_t)survey->total.n_rows, "tokens", (json_int_t)survey->total.n_tokens,
        "target_tokens", (json_int_t)survey->total.n_targets, "row_tokens", lengths_json(survey),
        "seq", cut_json(report), "sources", sources_json(survey), "skipped",
        skips_json(report->reading)));
}

/* ---- one row ---------------------------------------------------------------------------- */

static size_t n_targets_of(const attn_rendering *rendering)
{
    size_t n = 0;
    for (size_t i = 0; i < rendering->tokens.n; i++) n += rendering->mask[i];
    return n;
}

void data_row_print(const attn_row *row, const attn_rendering *rendering)
{
    const size_t n = rendering->tokens.n;
    printf("id       ");
    print_safely(row->id, strlen(row->id), "", SIZE_MAX);
    printf("\ndataset  ");
    print_safely(row->dataset, strlen(row->dataset), "", SIZE_MAX);
    printf("\ntokens   %zu, of them targets %zu\n\n", n, n_targets_of(rendering));
    print_safely(rendering->text, rendering->n_bytes, "\n\t", SIZE_MAX);
    printf("\n\nids");
    int column = 80;
    for (size_t i = 0; i < n; i++) {
        char text[8];
        const int width = snprintf(text, sizeof text, "%u", (unsigned)rendering->tokens.ids[i]);
        const bool fits = column + 1 + width <= 80;
        printf("%c%s", fits ? ' ' : '\n', text);
        column = fits ? column + 1 + width : width;
    }
    printf("\n\nmask");
    for (size_t i = 0; i < n; i++) printf("%s%d", i % 80 == 0 ? "\n" : "", rendering->mask[i]);
    putchar('\n');
}

bool data_row_print_json(const attn_row *row, const attn_rendering *rendering)
{
    json_t *ids = json_array(), *mask = json_array();
    for (size_t i = 0; i < rendering->tokens.n; i++) {
        json_array_append_new(ids, json_integer(rendering->tokens.ids[i]));
        json_array_append_new(mask, json_integer(rendering->mask[i]));
    }
    return print_json(json_pack("{s:s, s:s, s:I, s:s%, s:o, s:o}", "id", row->id, "dataset",
                                row->dataset, "target_tokens", (json_int_t)n_targets_of(rendering),
                                "text", rendering->text, rendering->n_bytes, "ids", ids, "mask",
                                mask));
}
