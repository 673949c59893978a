/* Several runs shown as one: every mechanism carries the letter of its run, "A flash" and
 * "B flash" side by side, so that the tables, findings and charts of one run show them all. Beside
 * them stands how each run differs from the first (report/comparison.h). */
#ifndef REPORT_OVERLAY_H
#define REPORT_OVERLAY_H

#include "report/comparison.h"
#include "report/summary.h"

#include <stdio.h>

enum { ATTN_OVERLAY_RUNS_MAX = 8 };

typedef struct attn_overlay {
    size_t n_runs;
    const attn_store_run *runs[ATTN_OVERLAY_RUNS_MAX];
    attn_comparison *comparisons[ATTN_OVERLAY_RUNS_MAX]; /* with the first run; [0] is NULL */
    attn_store_result result;                            /* the trials of all, relettered */
    attn_summary *summary;                               /* of it; its `overlay` is this one */
} attn_overlay;

/* 2 to ATTN_OVERLAY_RUNS_MAX runs, which must outlive the result. ATTN_EUNSUPPORTED: data, model,
 * settings, machine or provenance differ from the first run's, unless forced; then every place
 * that shows the runs together says so. ATTN_EARGUMENT, ATTN_EMEMORY. */
ATTN_MUST_CHECK attn_status attn_overlay_make(const attn_store_result *const *results,
                                              size_t n_runs, bool is_forced, attn_overlay **out,
                                              attn_error *error);
void attn_overlay_free(attn_overlay *overlay); /* NULL is fine */

/* 'A' for run 0, ... */
char attn_overlay_letter(size_t run);

/* The run that a mechanism of the overlay is from. */
size_t attn_overlay_run(const attn_summary_mechanism *mechanism);

#endif
