/* A report of a run in one of its formats, to a stream or to a file. */
#ifndef REPORT_REPORT_H
#define REPORT_REPORT_H

#include "report/summary.h"

#include <stdio.h>

typedef enum attn_report_format {
    ATTN_REPORT_TABLE,
    ATTN_REPORT_JSON,
    ATTN_REPORT_HTML,
    ATTN_REPORT_FORMATS
} attn_report_format;

/* "table", "json", "html" to the format; ATTN_REPORT_FORMATS when unknown. */
attn_report_format attn_report_format_parse(const char *name);

/* The format that the end of a file name says, else the table. */
attn_report_format attn_report_format_of_file(const char *path);

/* `sort` is one of ATTN_RANKING_KEYS (report/ranking.h); JSON keeps the order of the plan.
 * `is_bold` marks the best values of the table: for terminals only. */
ATTN_MUST_CHECK attn_status attn_report_write(FILE *out, attn_report_format format,
                                              const attn_store_result *result,
                                              const attn_summary *summary, const char *sort,
                                              bool is_bold, attn_error *error);

/* The same to a file. An older file there is replaced only when the new one is whole. */
ATTN_MUST_CHECK attn_status attn_report_save(const char *path, attn_report_format format,
                                             const attn_store_result *result,
                                             const attn_summary *summary, const char *sort,
                                             attn_error *error);

/* The same for whatever `write` writes. */
typedef attn_status attn_report_writer(FILE *out, const void *argument, attn_error *error);
ATTN_MUST_CHECK attn_status attn_report_save_with(const char *path, attn_report_writer *write,
                                                  const void *argument, attn_error *error);

#endif
