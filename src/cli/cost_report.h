/* The answers of `cost`, as tables, Markdown, CSV, JSON, or with every term. */
#ifndef CLI_COST_REPORT_H
#define CLI_COST_REPORT_H

#include "cli/cost_options.h"
#include "cost/convention.h"
#include "cost/roofline.h"

#include <stdio.h>

/* One mechanism at one length. */
typedef struct cli_cost_row {
    size_t mechanism, length; /* places in the question */
    char reason[256];         /* why there is no estimate; "" */
    attn_cost_estimate estimate;
    double convention_flop;
    attn_prediction predictions[CLI_COST_DEVICES_MAX];
} cli_cost_row;

typedef struct cli_cost_rows {
    const cli_cost_question *question;
    attn_cost_convention convention;
    cli_cost_row *rows;
    size_t count;
} cli_cost_rows;

/* Estimates everything. With "all" mechanisms a row may hold a reason instead. */
ATTN_MUST_CHECK attn_status cli_cost_rows_make(cli_cost_rows *rows,
                                               const cli_cost_question *question,
                                               attn_cost_convention convention, attn_error *error);
void cli_cost_rows_free(cli_cost_rows *rows);

void cli_cost_table(FILE *out, const cli_cost_rows *rows);
void cli_cost_markdown(FILE *out, const cli_cost_rows *rows);
void cli_cost_csv(FILE *out, const cli_cost_rows *rows);
/* `is_script`: one line, safe inside a script element. */
ATTN_MUST_CHECK attn_status cli_cost_json(FILE *out, const cli_cost_rows *rows, bool is_script,
                                          attn_error *error);
/* A page with the tables and with curves over the length: work, time, memory, roofline. */
ATTN_MUST_CHECK attn_status cli_cost_html(FILE *out, const cli_cost_rows *rows, attn_error *error);

/* Every term of every row: its formula, its numbers, and what it takes on each device. */
void cli_cost_explain(FILE *out, const cli_cost_rows *rows);

/* What is in the catalog. */
void cli_cost_list(FILE *out, const attn_catalog *catalog);
void cli_cost_list_markdown(FILE *out, const attn_catalog *catalog);

#endif
