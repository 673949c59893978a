/* Parts of the page, private to src/report. All texts that come from the store pass through
 * html_text(). */
#ifndef REPORT_HTML_PARTS_H
#define REPORT_HTML_PARTS_H

#include "report/summary.h"

#include <stdio.h>

/* Escapes for element content and for attribute values in double quotes. */
void html_text(FILE *out, const char *text);

/* A mechanism's name, and below it whether it sees the future. */
void html_mechanism(FILE *out, const attn_summary_mechanism *mechanism);

/* The ranking: mechanisms in the given order, with the spread under each value. */
void html_ranking(FILE *out, const attn_summary *summary, const char *sort, const size_t *order);

/* Every figure of every mechanism: value, spread, provenance, source. */
void html_provenance(FILE *out, const attn_summary *summary);

/* A JSON object as a two-column table, nested names joined by dots; what is not JSON as text. */
void html_json_table(FILE *out, const char *json_text, const char *caption);

/* The head of the page: what was compared, on what, how sure. */
void html_header(FILE *out, const attn_store_result *result, const attn_summary *summary);

/* How the later runs of several differ from the first. */
void html_overlay(FILE *out, const attn_summary *summary);

/* All sections with charts, from training time to loss. */
void html_charts(FILE *out, const attn_summary *summary);

#endif
