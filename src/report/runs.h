/* The runs of a store as lines for a terminal. */
#ifndef REPORT_RUNS_H
#define REPORT_RUNS_H

#include "store/store.h"

#include <stdio.h>

/* At most 80 columns; long command lines are wrapped. A failure to write shows in ferror(out). */
void attn_report_runs(FILE *out, const attn_store_overview *runs, size_t n_runs);

#endif
