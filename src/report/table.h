/* The ranking for a terminal, at most 80 columns wide. */
#ifndef REPORT_TABLE_H
#define REPORT_TABLE_H

#include "report/summary.h"

#include <stdio.h>

/* `sort` is one of ATTN_RANKING_KEYS (report/ranking.h). `is_bold` marks the best value of each
 * column; the caller knows whether `out` is a terminal and whether NO_COLOR is set. A failure to
 * write shows in ferror(out). */
ATTN_MUST_CHECK attn_status attn_report_table(FILE *out, const attn_store_result *result,
                                              const attn_summary *summary, const char *sort,
                                              bool is_bold, attn_error *error);

#endif
