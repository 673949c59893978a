/* Comparing runs: what must agree, and the pairs. */
#include "report/comparison.h"

#include "base/error.h"
#include "base/memory.h"
#include "report/ranking.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *key, *figure;
} compared[] = {
    {"loss", "held_out_loss"},       {"time", "step_time_s"},       {"energy", "energy_step_j"},
    {"memory", "memory_peak_bytes"}, {"flops", "step_matmul_flop"}, {"latency", "latency_token_s"},
};

enum { COMPARED = sizeof compared / sizeof *compared };

/* ---- what must agree ---------------------------------------------------------------------- */

/* Of the program only its number and flags are named: that they differ is why people compare. */
static void compare_runs(attn_comparison *c, const attn_store_run *a, const attn_store_run *b)
{
    attn_likeness_plan(a->plan_json, b->plan_json, &c->forbidding);
    attn_likeness_machine(a->environment_json, b->environment_json, &c->forbidding);
    attn_likeness_program(a->environment_json, b->environment_json, &c->others);
    attn_likeness_resumed(a->environment_json, &c->forbidding);
    attn_likeness_resumed(b->environment_json, &c->forbidding);
}

/* ---- rows --------------------------------------------------------------------------------- */

static size_t find_mechanism(const attn_summary *summary, const char *name)
{
    for (size_t i = 0; i < summary->n_mechanisms; i++)
        if (strcmp(summary->mechanisms[i].name, name) == 0) return i;
    return summary->n_mechanisms;
}

static void explain_absence(attn_comparison_row *row, const attn_summary_figure *one,
                            const attn_summary_figure *other)
{
    const char *why = !one || !other                         ? "not recorded in both runs"
                      : one->why[0] != '\0'                  ? one->why
                      : other->why[0] != '\0'                ? other->why
                      : one->provenance != other->provenance ? "of different provenance"
                                                             : "no round has it in both runs";
    snprintf(row->why, sizeof row->why, "%s", why);
}

/* Energies of a step that follow from other figures: of the processors here, of the whole machine
 * there. */
static bool are_of_other_extent(const attn_summary_figure *one, const attn_summary_figure *other)
{
    return strncmp(one->name, "energy_", 7) == 0 && one->provenance == ATTN_DERIVED &&
           other->provenance == ATTN_DERIVED && strcmp(one->source, other->source) != 0;
}

static void compare_figure(attn_comparison *c, const attn_store_result *a,
                           const attn_store_result *b, const attn_summary_mechanism *one,
                           const attn_summary_mechanism *other, size_t which,
                           const attn_paired_options *options, bool is_forced)
{
    double left[ATTN_PAIRS_MAX], right[ATTN_PAIRS_MAX];
    const attn_summary_figure *figure_a = attn_summary_find(one, compared[which].figure);
    const attn_summary_figure *figure_b = attn_summary_find(other, compared[which].figure);
    attn_comparison_row *row = &c->rows[c->n_rows++];
    *row = (attn_comparison_row){.key = compared[which].key,
                                 .figure = compared[which].figure,
                                 .unit = figure_a   ? figure_a->unit
                                         : figure_b ? figure_b->unit
                                                    : "",
                                 .provenance = figure_a ? figure_a->provenance : ATTN_UNAVAILABLE,
                                 .a = figure_a ? figure_a->median : NAN,
                                 .b = figure_b ? figure_b->median : NAN};
    row->is_loss = strcmp(row->unit, "nat") == 0;
    snprintf(row->mechanism_a, sizeof row->mechanism_a, "%s", one->name);
    snprintf(row->mechanism_b, sizeof row->mechanism_b, "%s", other->name);
    const size_t n = attn_summary_collect(b, other->name, a, one->name, row->figure, left, right);
    row->pair = attn_paired_compare(left, right, n, options);
    const bool is_mixed = figure_a && figure_b && figure_a->provenance != figure_b->provenance &&
                          !isnan(figure_a->median) && !isnan(figure_b->median);
    if (row->pair.n == 0) explain_absence(row, figure_a, figure_b);
    if (figure_a && figure_b && !is_forced && c->forbidding.n < ATTN_LIKENESS_MAX &&
        are_of_other_extent(figure_a, figure_b))
        snprintf(c->forbidding.texts[c->forbidding.n++], sizeof *c->forbidding.texts,
                 "%s of %.40s: %.40s and %.40s", row->figure, one->name, figure_a->source,
                 figure_b->source);
    if (is_mixed && !is_forced && c->forbidding.n < ATTN_LIKENESS_MAX)
        snprintf(c->forbidding.texts[c->forbidding.n++], sizeof *c->forbidding.texts,
                 "%s of %.40s: %s and %s", row->figure, one->name,
                 attn_provenance_name(figure_a->provenance),
                 attn_provenance_name(figure_b->provenance));
}

static attn_status make_rows(attn_comparison *c, const attn_store_result *a,
                             const attn_store_result *b, const attn_summary *one,
                             const attn_summary *other, const attn_comparison_options *options,
                             attn_error *error)
{
    size_t pairs[64][2], n_pairs = 0;
    if (options->mechanism_a || options->mechanism_b) {
        const char *name_a = options->mechanism_a ? options->mechanism_a : options->mechanism_b;
        const char *name_b = options->mechanism_b ? options->mechanism_b : options->mechanism_a;
        pairs[0][0] = find_mechanism(one, name_a);
        pairs[0][1] = find_mechanism(other, name_b);
        if (pairs[0][0] == one->n_mechanisms || pairs[0][1] == other->n_mechanisms)
            return attn_fail(error, ATTN_ENOTFOUND, "run %s has no mechanism '%s'",
                             pairs[0][0] == one->n_mechanisms ? "A" : "B",
                             pairs[0][0] == one->n_mechanisms ? name_a : name_b);
        n_pairs = 1;
    }
    const size_t n_offered = n_pairs == 0 ? one->n_mechanisms : 0; /* when none was named */
    for (size_t i = 0; i < n_offered && n_pairs < 64; i++) {
        const size_t k = find_mechanism(other, one->mechanisms[i].name);
        if (k == other->n_mechanisms) continue;
        pairs[n_pairs][0] = i;
        pairs[n_pairs++][1] = k;
    }
    if (n_pairs == 0 && options->may_share_none) return ATTN_OK;
    if (n_pairs == 0)
        return attn_fail(error, ATTN_ENOTFOUND,
                         "the runs have no mechanism in common: name two with --a and --b");
    c->rows = attn_alloc_array(ATTN_MEMORY_OTHER, n_pairs * COMPARED, sizeof *c->rows);
    if (!c->rows) return attn_fail(error, ATTN_EMEMORY, "no memory for a comparison");
    const attn_paired_options paired = {
        .comparisons = n_pairs, .kind = options->interval, .seed = options->seed};
    for (size_t p = 0; p < n_pairs; p++)
        for (size_t f = 0; f < COMPARED; f++)
            compare_figure(c, a, b, &one->mechanisms[pairs[p][0]], &other->mechanisms[pairs[p][1]],
                           f, &paired, options->is_forced);
    return ATTN_OK;
}

attn_status attn_comparison_make(const attn_store_result *a, const attn_store_result *b,
                                 const attn_comparison_options *options, attn_comparison **out,
                                 attn_error *error)
{
    *out = NULL;
    attn_summary *one = NULL, *other = NULL;
    attn_status status = ATTN_OK;
    attn_comparison *c = attn_alloc(ATTN_MEMORY_OTHER, sizeof *c);
    if (!c) return attn_fail(error, ATTN_EMEMORY, "no memory for a comparison");
    c->is_one_run = a == b;
    c->letter = 'B';
    if (!c->is_one_run) compare_runs(c, &a->run, &b->run);
    status = attn_summary_make(a, &one, error);
    if (status == ATTN_OK) status = attn_summary_make(b, &other, error);
    if (status == ATTN_OK) status = make_rows(c, a, b, one, other, options, error);
    if (status == ATTN_OK && c->forbidding.n > 0 && !options->is_forced)
        status = attn_fail(error, ATTN_EUNSUPPORTED,
                           "the runs cannot be compared: %s%s; --force compares them all the same",
                           c->forbidding.texts[0], c->forbidding.n > 1 ? ", and more" : "");
    if (status == ATTN_OK) *out = c;
    if (status != ATTN_OK) attn_comparison_free(c);
    attn_summary_free(one);
    attn_summary_free(other);
    return status;
}

void attn_comparison_free(attn_comparison *comparison)
{
    if (!comparison) return;
    attn_free(comparison->rows);
    attn_free(comparison);
}

/* ---- conditions --------------------------------------------------------------------------- */

typedef struct condition {
    char key[48];
    bool is_above, is_percent;
    double threshold; /* share, or nat */
} condition;

static bool parse_condition(const char *text, size_t length, condition *c)
{
    char copy[96];
    if (length == 0 || length >= sizeof copy) return false;
    snprintf(copy, sizeof copy, "%.*s", (int)length, text);
    const size_t key = strcspn(copy, "<> ");
    const char *at = copy + key + strspn(copy + key, " ");
    if (key == 0 || key >= sizeof c->key || (*at != '<' && *at != '>')) return false;
    snprintf(c->key, sizeof c->key, "%.*s", (int)key, copy);
    c->is_above = *at++ == '>';
    char *end = NULL;
    c->threshold = strtod(at, &end);
    if (end == at || !isfinite(c->threshold)) return false;
    c->is_percent = *end == '%';
    if (c->is_percent) c->threshold *= 0.01;
    if (c->is_percent) end++;
    return end[strspn(end, " ")] == '\0';
}

/* Beyond the threshold with its whole interval. */
static attn_gate_result judge(const attn_comparison_row *row, const condition *c)
{
    const attn_paired *pair = &row->pair;
    if (pair->n == 0 || row->provenance == ATTN_MODELLED) return ATTN_GATE_UNKNOWN;
    const bool is_exact = pair->is_exact && row->provenance == ATTN_COUNTED;
    const double bound = is_exact ? pair->ratio : c->is_above ? pair->low : pair->high;
    if (isnan(bound)) return ATTN_GATE_TOO_FEW;
    const double change = row->is_loss ? log(bound) : bound - 1.0;
    return (c->is_above ? change > c->threshold : change < c->threshold) ? ATTN_GATE_FAILED
                                                                         : ATTN_GATE_PASSED;
}

attn_status attn_comparison_gate(const attn_comparison *comparison, const char *conditions,
                                 attn_gate_result *result, char *text, size_t text_bytes,
                                 attn_error *error)
{
    static const char *const words[] = {"passed", "failed", "not measured in both",
                                        "too few rounds for an interval"};
    *result = ATTN_GATE_PASSED;
    snprintf(text, text_bytes, "%s: passed", conditions);
    for (const char *at = conditions; *at;) {
        const size_t length = strcspn(at, ",");
        condition c;
        bool is_known = false;
        if (!parse_condition(at, length, &c))
            return attn_fail(error, ATTN_EARGUMENT,
                             "--fail-if takes conditions such as 'energy>+3%%', not '%.*s'",
                             (int)(length < 60 ? length : 60), at);
        for (size_t i = 0; i < comparison->n_rows; i++) {
            const attn_comparison_row *row = &comparison->rows[i];
            if (strcmp(row->key, c.key) != 0 && strcmp(row->figure, c.key) != 0) continue;
            is_known = true;
            if (row->is_loss == c.is_percent)
                return attn_fail(error, ATTN_EARGUMENT,
                                 row->is_loss ? "--fail-if: a loss is compared in nat: 'loss>+0.01'"
                                              : "--fail-if: '%.*s' lacks its percent sign",
                                 (int)(length < 60 ? length : 60), at);
            const attn_gate_result one = judge(row, &c);
            /* What failed is worse than what nobody knows. */
            if (one == ATTN_GATE_PASSED || *result == ATTN_GATE_FAILED) continue;
            *result = one;
            snprintf(text, text_bytes, "%.*s: %s for %s%s%s", (int)(length < 60 ? length : 60), at,
                     words[one], row->mechanism_b, row->why[0] ? ": " : "", row->why);
        }
        if (!is_known)
            return attn_fail(error, ATTN_EARGUMENT, "--fail-if knows no '%s': use one of %s", c.key,
                             ATTN_RANKING_KEYS);
        at += length + (at[length] == ',');
    }
    return ATTN_OK;
}
