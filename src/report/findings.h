/* What a run says, in plain words: who is fastest, learns best, needs least, and whether the data
 * really tell. The same sentences stand on the terminal and on the page. */
#ifndef REPORT_FINDINGS_H
#define REPORT_FINDINGS_H

#include "report/format.h"
#include "report/summary.h"

typedef struct attn_finding {
    const char *label; /* "Fastest training step" */
    char subject[128]; /* the mechanism, or a short verdict */
    attn_text value;   /* "118 ms"; "" when the verdict says it all */
    char detail[640];  /* one or more sentences */
    bool is_caution;   /* something is missing or went wrong */
} attn_finding;

enum { ATTN_FINDINGS_MAX = 14 };

/* The label of the finding that compares counted work with the closed form. */
#define ATTN_FINDING_WORK "Counted work"

/* Fills `findings`; returns how many. 0 only when no mechanism was begun. */
size_t attn_findings_make(const attn_summary *summary, attn_finding findings[ATTN_FINDINGS_MAX]);

/* "range over 3 rounds", "95 % interval, 8 rounds", "interval of the model", "1 round" */
attn_text attn_spread_label(const attn_summary_figure *figure);

#endif
