/* A run for other programs: tables, rows, statements. */
#ifndef REPORT_EXPORT_H
#define REPORT_EXPORT_H

#include "report/summary.h"

#include <stdio.h>

#define ATTN_EXPORT_FORMATS "md|csv|json|jsonl|sql"

/* md: the ranking as a table. csv: one row a figure of a trial, with its provenance; its first
 * line names the columns. json: everything, as the report. jsonl: one object a trial. sql: tables
 * and rows for any SQL database. A value that is absent is empty, null or NULL, with its reason
 * beside. ATTN_EARGUMENT for another format; ATTN_EMEMORY, ATTN_EIO. */
ATTN_MUST_CHECK attn_status attn_report_export(FILE *out, const char *format,
                                               const attn_store_result *result,
                                               const attn_summary *summary, const char *sort,
                                               attn_error *error);

#endif
