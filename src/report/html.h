/* A run as one page of HTML that needs nothing else: no network, no other file. Tables are
 * written here; the charts are drawn by the script inside from the run's JSON, which the page
 * carries too. */
#ifndef REPORT_HTML_H
#define REPORT_HTML_H

#include "report/summary.h"

#include <stdio.h>

/* `sort`, one of ATTN_RANKING_KEYS (report/ranking.h), orders the ranking. */
ATTN_MUST_CHECK attn_status attn_report_html(FILE *out, const attn_store_result *result,
                                             const attn_summary *summary, const char *sort,
                                             attn_error *error);

#endif
