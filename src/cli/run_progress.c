/* Progress lines. */
#define _DEFAULT_SOURCE
#include "cli/run_progress.h"

#include "base/clock.h"

#include <math.h>
#include <stdio.h>
#include <unistd.h>

static const double line_period_s = 0.25;

cli_progress cli_progress_start(void)
{
    return (cli_progress){.is_terminal = isatty(STDERR_FILENO)};
}

/* "1:05:03", "2:10"; "-:--" when unknown */
static void duration_text(double time_s, char *text, size_t size_bytes)
{
    if (!(time_s >= 0.0)) {
        snprintf(text, size_bytes, "-:--");
        return;
    }
    const unsigned long s = (unsigned long)time_s;
    if (s >= 3600)
        snprintf(text, size_bytes, "%lu:%02lu:%02lu", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(text, size_bytes, "%lu:%02lu", s / 60, s % 60);
}

static void ended_line(const attn_run_progress *p, const char *left)
{
    fprintf(stderr, "[%zu/%zu] round %zu  %-20s %s%s%s  left %s\n", p->trial, p->n_trials, p->round,
            p->label, attn_trial_state_name(p->state), p->reason[0] ? ": " : "", p->reason, left);
}

void cli_progress_observe(void *argument, const attn_run_progress *p)
{
    cli_progress *progress = argument;
    char left[32];
    duration_text(p->left_s, left, sizeof left);
    if (!progress->is_terminal) {
        if (p->is_ended) ended_line(p, left);
        return;
    }
    const uint64_t now_ns = attn_clock_ns();
    const bool is_due = attn_clock_seconds(progress->last_ns, now_ns) >= line_period_s;
    if (p->is_ended && p->state != ATTN_TRIAL_DONE) {
        fputs("\r\033[K", stderr);
        ended_line(p, left);
    } else if (p->step == 0 || is_due) {
        char loss[32] = "";
        if (!isnan(p->loss)) snprintf(loss, sizeof loss, "  loss %.3f", p->loss);
        fprintf(stderr, "\r\033[K[%zu/%zu] round %zu  %s  step %zu/%zu%s  left %s", p->trial,
                p->n_trials, p->round, p->label, p->step, p->n_steps, loss, left);
        fflush(stderr);
        progress->last_ns = now_ns;
    }
}

void cli_progress_end(cli_progress *progress)
{
    if (progress->is_terminal) fputs("\r\033[K", stderr);
}
