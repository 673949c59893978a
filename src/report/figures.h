/* Figures for papers: a gnuplot script and the data of each, in one folder. Running a script there
 * makes NAME.pdf and NAME.svg. */
#ifndef REPORT_FIGURES_H
#define REPORT_FIGURES_H

#include "report/summary.h"

enum { ATTN_FIGURES_MAX = 8 };

typedef struct attn_figures {
    const char *names[ATTN_FIGURES_MAX]; /* "loss-steps" for loss-steps.gp */
    size_t n;
} attn_figures;

/* Makes the folder when it is absent. A figure whose quantity the run does not have, such as
 * energy that was not measured, is not made; what an earlier call left of it, and all older PDF
 * and SVG of these names, are removed, so that nothing in the folder is of another run.
 * ATTN_EIO, ATTN_EMEMORY; ATTN_EUNSUPPORTED when there is nothing to show. */
ATTN_MUST_CHECK attn_status attn_figures_write(const char *folder, const attn_summary *summary,
                                               attn_figures *made, attn_error *error);

#endif
