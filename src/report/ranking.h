/* What mechanisms are ranked by: the columns of the table, the same on a terminal and a page, and
 * the order of its rows. */
#ifndef REPORT_RANKING_H
#define REPORT_RANKING_H

#include "report/summary.h"

/* Keys of --sort, as the command line lists them. */
#define ATTN_RANKING_KEYS "loss|time|energy|memory|flops|latency"

typedef struct attn_ranking_column {
    const char *key;    /* of --sort; NULL when there is none */
    const char *figure; /* name of the figure shown */
    const char *title, *unit;
    double factor; /* value shown = factor * figure */
    bool is_lower_better;
} attn_ranking_column;

enum { ATTN_RANKING_COLUMNS = 7 };

/* The columns for a run. Energy is that of a step when some round measured it, else that of the
 * CPU packages over the trial. */
void attn_ranking_columns(const attn_summary *summary,
                          attn_ranking_column columns[ATTN_RANKING_COLUMNS]);

/* Fills order[n_mechanisms], best first, and behind all others, best first too, those that see
 * the future. ATTN_EARGUMENT for an unknown key, and for a quantity
 * that no mechanism has measured or counted: modelled figures never rank. */
ATTN_MUST_CHECK attn_status attn_ranking_order(const attn_summary *summary, const char *key,
                                               size_t *order, attn_error *error);

/* Whether a mechanism is to be marked in a column: it has the best value, or is not resolved from
 * it. Nothing is marked where that holds for all, nor in a modelled column, nor ever a mechanism
 * that sees the future. */
bool attn_ranking_is_best(const attn_summary *summary, const attn_ranking_column *column,
                          size_t mechanism);

/* Digits after the point that suit a whole column: the fewest that one of its values supports. */
int attn_ranking_decimals(const attn_summary *summary, const attn_ranking_column *column);

/* The single letter of a provenance: M I C D ~ - */
char attn_provenance_letter(attn_provenance provenance);

/* The reason why a figure has no value in any mechanism; "" when one has a value, a plain
 * sentence when the run never tried. */
const char *attn_ranking_absence(const attn_summary *summary, const char *figure);

/* The same for energy: the reason of the meter that was asked for, else the processor's. */
const char *attn_ranking_energy_absence(const attn_summary *summary);

#endif
