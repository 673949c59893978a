/* The list of runs. */
#include "report/runs.h"

#include "report/format.h"
#include "report/summary.h"

#include <inttypes.h>

void attn_report_runs(FILE *out, const attn_store_overview *runs, size_t n_runs)
{
    enum { WIDTH = 80 };
    if (n_runs == 0) {
        fputs("no runs\n", out);
        return;
    }
    const int indent = fprintf(out, "%4s  %-20s  %-11s  %7s  ", "run", "begun", "state", "trials");
    fputs("called as\n", out);
    for (size_t i = 0; i < n_runs; i++) {
        const attn_store_run *run = &runs[i].run;
        const size_t planned = attn_plan_trials(run->plan_json);
        attn_text trials;
        if (planned > 0)
            snprintf(trials.text, sizeof trials.text, "%zu/%zu", runs[i].n_trials[ATTN_TRIAL_DONE],
                     planned);
        else
            snprintf(trials.text, sizeof trials.text, "%zu", runs[i].n_trials[ATTN_TRIAL_DONE]);
        fprintf(out, "%4" PRId64 "  %-20s  %-11s  %7s  ", run->id, run->created_utc, run->state,
                trials.text);
        attn_format_wrapped(out, run->title, (size_t)indent, (size_t)indent, WIDTH);
    }
}
