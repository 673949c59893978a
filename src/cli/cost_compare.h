/* Measured steps beside their predictions: how far off, which part carries it, what is behind it. */
#ifndef CLI_COST_COMPARE_H
#define CLI_COST_COMPARE_H

#include "cost/blame.h"

#include <stdio.h>

typedef struct cli_cost_compared {
    char name[ATTN_PATTERN_BYTES];
    double measured_s, predicted_s; /* measured: NaN when it was not */
    attn_cost_gap gaps[ATTN_GAPS_MAX];
    size_t n_gaps;
} cli_cost_compared;

typedef struct cli_cost_comparison {
    cli_cost_compared rows[ATTN_PATTERNS_MAX];
    size_t count;
} cli_cost_comparison;

typedef enum cli_cost_form { CLI_COST_TABLE, CLI_COST_MARKDOWN, CLI_COST_EXPLAIN } cli_cost_form;

/* Appends a row. */
void cli_cost_compare(cli_cost_comparison *comparison, const char *name,
                      const attn_prediction *prediction, const attn_cost_measured *measured);

/* The rows, and by how much each resource would have to change to fit them; explained, every part
 * with the time that the model gives each resource. */
void cli_cost_comparison_print(FILE *out, const cli_cost_comparison *comparison,
                               cli_cost_form form);

#endif
