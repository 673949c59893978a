/* A run as JSON: everything the store holds of it, and the summary.
 *
 * {schema, run, environment, plan, trials[], summary[]}. Units stand in the names of figures and
 * fields. A value that is absent is null; a figure without a value has provenance "unavailable"
 * or says in `why` what is wrong with it. */
#ifndef REPORT_JSON_H
#define REPORT_JSON_H

#include "report/summary.h"

#include <stdio.h>

enum { ATTN_REPORT_SCHEMA = 1 };

/* Indented. */
ATTN_MUST_CHECK attn_status attn_report_json(FILE *out, const attn_store_result *result,
                                             const attn_summary *summary, attn_error *error);

/* What the page's charts need and no more, since a page is mailed around: medians over the rounds,
 * curves of some hundred points, six digits. One line of ASCII, safe in a script element: no
 * '<'. */
ATTN_MUST_CHECK attn_status attn_report_json_page(FILE *out, const attn_summary *summary,
                                                  attn_error *error);

/* The list of runs: an array of {id, created_utc, state, title, trials_*}. */
ATTN_MUST_CHECK attn_status attn_report_json_list(FILE *out, const attn_store_overview *runs,
                                                  size_t n_runs, attn_error *error);

/* One line a trial: an object of the run's id, the trial, its steps, evaluations and figures. */
ATTN_MUST_CHECK attn_status attn_report_json_lines(FILE *out, const attn_store_result *result,
                                                   attn_error *error);

#endif
