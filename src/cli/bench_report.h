/* How benchmarks print their results. */
#ifndef CLI_BENCH_REPORT_H
#define CLI_BENCH_REPORT_H

#include "experiment/bench_core.h"
#include "experiment/bench_peaks.h"
#include "experiment/bench_step.h"

/* What was asked for, where the result does not say it. */
typedef struct cli_bench_step_asked {
    const char *model, *mechanism;
    size_t batch, seq;
} cli_bench_step_asked;

void cli_bench_step_table(const cli_bench_step_asked *asked, const attn_bench_step *result);
void cli_bench_peaks_table(const attn_bench_peaks *result);
void cli_bench_core_table(const attn_bench_core_options *asked, const attn_bench_core *result);

/* Exit statuses. */
int cli_bench_step_json(const cli_bench_step_asked *asked, const attn_bench_step *result,
                        attn_error *error);
int cli_bench_peaks_json(const attn_bench_peaks *result, attn_error *error);
int cli_bench_core_json(const attn_bench_core_options *asked, const attn_bench_core *result,
                        attn_error *error);

#endif
