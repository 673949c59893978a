/* A comparison as a table of at most 80 columns, and as JSON. */
#include "report/comparison.h"

#include "base/error.h"
#include "report/format.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

const char *attn_comparison_verdict(const attn_comparison_row *row)
{
    const attn_paired *pair = &row->pair;
    if (pair->n == 0) return "unknown";
    if (pair->is_exact && row->provenance == ATTN_COUNTED)
        return pair->ratio == 1.0 ? "the same" : pair->ratio < 1.0 ? "lower" : "higher";
    switch (pair->verdict) {
    case ATTN_VERDICT_LOWER:
        return "lower";
    case ATTN_VERDICT_HIGHER:
        return "higher";
    case ATTN_VERDICT_NOT_RESOLVED:
        return "not resolved";
    case ATTN_VERDICT_TOO_FEW:
        break;
    }
    return "n too small";
}

double attn_comparison_change(const attn_comparison_row *row, double ratio)
{
    return row->is_loss ? log(ratio) : 100.0 * (ratio - 1.0);
}

static void print_row(FILE *out, const attn_comparison_row *row, const char *before)
{
    char name[160];
    if (strcmp(row->mechanism_a, row->mechanism_b) == 0)
        snprintf(name, sizeof name, "%s", row->mechanism_a);
    else
        snprintf(name, sizeof name, "%s -> %s", row->mechanism_a, row->mechanism_b);
    if (strcmp(name, before) != 0) fprintf(out, "%s\n", name);
    fprintf(out, "  %-8s", row->key);
    if (row->pair.n == 0) {
        fprintf(out, "  unknown: %.66s\n", row->why);
        return;
    }
    const attn_text a = attn_format_si(row->a, 4, row->unit),
                    b = attn_format_si(row->b, 4, row->unit);
    fprintf(out, " %11s %11s %+8.*f %-3s", a.text, b.text, row->is_loss ? 4 : 2,
            attn_comparison_change(row, row->pair.ratio), row->is_loss ? "nat" : "%");
    if (isnan(row->pair.low))
        fprintf(out, "%17s", "");
    else
        fprintf(out, " %+7.*f..%+7.*f", row->is_loss ? 4 : 2,
                attn_comparison_change(row, row->pair.low), row->is_loss ? 4 : 2,
                attn_comparison_change(row, row->pair.high));
    fprintf(out, " %2zu %s\n", row->pair.n, attn_comparison_verdict(row));
}

void attn_comparison_table(FILE *out, const attn_comparison *c)
{
    fprintf(out, "  %-8s %11s %11c %7c to A %17s  n\n", "", "A", c->letter, c->letter, "interval");
    const char *before = "";
    char name[160] = "";
    for (size_t i = 0; i < c->n_rows; i++) {
        print_row(out, &c->rows[i], before);
        if (strcmp(c->rows[i].mechanism_a, c->rows[i].mechanism_b) == 0)
            snprintf(name, sizeof name, "%s", c->rows[i].mechanism_a);
        else
            snprintf(name, sizeof name, "%s -> %s", c->rows[i].mechanism_a, c->rows[i].mechanism_b);
        before = name;
    }
    fprintf(out,
            "\nMedians of A and %c; median ratio of pairs, round by round. An interval needs 6\n"
            "rounds; it holds at 95 %% for all mechanisms together.\n",
            c->letter);
    if (!c->is_one_run)
        fputs("The runs followed each other: what changed on the machine in between is in the\n"
              "difference. Mechanisms of one run took turns and are compared more surely.\n",
              out);
    for (size_t i = 0; i < c->forbidding.n; i++)
        fprintf(out, "NOT COMPARABLE, forced: %s\n", c->forbidding.texts[i]);
    for (size_t i = 0; i < c->others.n; i++) fprintf(out, "differs: %s\n", c->others.texts[i]);
}

static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

attn_status attn_comparison_json(FILE *out, const attn_comparison *c, attn_error *error)
{
    bool failed = false;
    json_t *rows = json_array(), *forced = json_array(), *others = json_array();
    for (size_t i = 0; i < c->n_rows; i++) {
        const attn_comparison_row *row = &c->rows[i];
        failed |=
            json_array_append_new(
                rows, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:I, s:o, "
                                "s:o, s:s, s:s}",
                                "mechanism_a", row->mechanism_a, "mechanism_b", row->mechanism_b,
                                "key", row->key, "figure", row->figure, "unit", row->unit,
                                "provenance", attn_provenance_name(row->provenance), "a",
                                number(row->a), "b", number(row->b), "ratio",
                                number(row->pair.ratio), "low", number(row->pair.low), "high",
                                number(row->pair.high), "rounds", (json_int_t)row->pair.n, "spread",
                                number(row->pair.spread), "level", number(row->pair.level),
                                "verdict", attn_comparison_verdict(row), "why", row->why)) != 0;
    }
    for (size_t i = 0; i < c->forbidding.n; i++)
        failed |= json_array_append_new(forced, json_string(c->forbidding.texts[i])) != 0;
    for (size_t i = 0; i < c->others.n; i++)
        failed |= json_array_append_new(others, json_string(c->others.texts[i])) != 0;
    json_t *root = json_pack("{s:b, s:o, s:o, s:o}", "one_run", c->is_one_run, "comparisons", rows,
                             "forced", forced, "differs", others);
    attn_status status = ATTN_OK;
    if (!root || failed)
        status = attn_fail(error, ATTN_EMEMORY, "no memory for a comparison in JSON");
    else if (json_dumpf(root, out, JSON_INDENT(2) | JSON_REAL_PRECISION(15)) != 0 ||
             fputc('\n', out) == EOF)
        status = attn_fail(error, ATTN_EIO, "writing a comparison in JSON failed");
    json_decref(root);
    return status;
}
