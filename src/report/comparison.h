/* Two runs, or two mechanisms of one run, figure by figure: how much b is above or below a, and
 * whether the pairs say so. */
#ifndef REPORT_COMPARISON_H
#define REPORT_COMPARISON_H

#include "base/paired.h"
#include "report/summary.h"
#include "store/likeness.h"

#include <stdio.h>

typedef struct attn_comparison_row {
    char mechanism_a[64], mechanism_b[64];
    const char *key;    /* of --sort and --fail-if: "time" */
    const char *figure; /* "step_time_s" */
    const char *unit;
    bool is_loss; /* then the pair is of perplexities: log(ratio) is a difference in nat */
    attn_provenance provenance;
    double a, b;                      /* medians */
    attn_paired pair;                 /* of b / a */
    char why[ATTN_FIGURE_TEXT_BYTES]; /* when there are no pairs */
} attn_comparison_row;

typedef struct attn_comparison_options {
    const char *mechanism_a, *mechanism_b; /* NULL: all that both runs have */
    attn_interval_kind interval;
    uint64_t seed;
    bool is_forced;      /* compare what should not be compared, and say so */
    bool may_share_none; /* no mechanism in common: no rows, and no failure */
} attn_comparison_options;

typedef struct attn_comparison {
    attn_comparison_row *rows;
    size_t n_rows;
    bool is_one_run; /* else the runs followed each other, and drift lies between them */
    char letter;     /* of the second run, in tables: 'B' */
    /* What differs between the runs: that forbids a comparison, and that does not. */
    attn_differences forbidding, others;
} attn_comparison;

/* ATTN_EUNSUPPORTED: data, model, settings, machine or provenance differ, unless forced; the text
 * names the first. ATTN_ENOTFOUND: no such mechanism. ATTN_EMEMORY. */
ATTN_MUST_CHECK attn_status attn_comparison_make(const attn_store_result *a,
                                                 const attn_store_result *b,
                                                 const attn_comparison_options *options,
                                                 attn_comparison **out, attn_error *error);
void attn_comparison_free(attn_comparison *comparison); /* NULL is fine */

/* "lower", "higher", "the same", "not resolved", "n too small", "unknown": b beside a. */
const char *attn_comparison_verdict(const attn_comparison_row *row);

/* A ratio of a row as percent more, or as nat for a loss. */
double attn_comparison_change(const attn_comparison_row *row, double ratio);

void attn_comparison_table(FILE *out, const attn_comparison *comparison);
ATTN_MUST_CHECK attn_status attn_comparison_json(FILE *out, const attn_comparison *comparison,
                                                 attn_error *error);

/* A condition that fails a build, such as "energy>+3%": the whole interval must be beyond. Several
 * are apart by commas; a loss is compared in nat, without the percent sign. */
typedef enum attn_gate_result {
    ATTN_GATE_PASSED,
    ATTN_GATE_FAILED,
    ATTN_GATE_UNKNOWN, /* not measured in one of the runs, or modelled */
    ATTN_GATE_TOO_FEW  /* rounds for an interval */
} attn_gate_result;

/* Judges all rows; `text` says which decided. ATTN_EARGUMENT: not a condition. */
ATTN_MUST_CHECK attn_status attn_comparison_gate(const attn_comparison *comparison,
                                                 const char *conditions, attn_gate_result *result,
                                                 char *text, size_t text_bytes, attn_error *error);

#endif
