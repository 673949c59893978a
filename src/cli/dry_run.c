/* The plan on standard output, with the time it will take. */
#include "cli/dry_run.h"

#include "experiment/bench_step.h"
#include "report/format.h"

#include <stdio.h>
#include <string.h>

/* Seconds of one trial: its steps, its evaluations and the latency of inference, which take a
 * forward pass each, about a third of a step. */
static double trial_time_s(const attn_plan *plan, double step_s)
{
    const size_t evaluations =
        plan->held_out > 0.0
            ? 2 + (plan->evaluate_every ? (plan->steps - 1) / plan->evaluate_every : 0)
            : 0;
    const double forwards = (double)(evaluations * plan->evaluate_batches) +
                            8.0 / (double)plan->batch +
                            (double)plan->decode_tokens / (double)plan->length;
    return (double)plan->steps * step_s + forwards * step_s / 3.0 + 2.0 * plan->measuring.idle_s +
           plan->measuring.cool_down_s;
}

attn_status cli_dry_run(const attn_plan *plan, attn_error *error)
{
    double times_s[ATTN_PLAN_MECHANISMS_MAX] = {0}, round_s = 0.0;
    for (size_t i = 0; i < plan->n_mechanisms; i++) {
        const attn_model_config model = attn_plan_model(plan, &plan->mechanisms[i]);
        const attn_bench_step_options options = {.model = &model,
                                                 .batch = plan->batch,
                                                 .length = plan->length,
                                                 .repeats = 1,
                                                 .threads = plan->threads,
                                                 .isa = plan->isa,
                                                 .seed = plan->seed};
        attn_bench_step step;
        const attn_status status = attn_bench_step_run(&options, &step, error);
        if (status != ATTN_OK) return status;
        times_s[i] = trial_time_s(plan, step.step.median_s);
        round_s += times_s[i];
    }
    printf("%s, batch %zu, %zu tokens, %zu steps%s; %zu round%s of %zu trials\n", plan->model,
           plan->batch, plan->length, plan->steps,
           strcmp(plan->dtype, "bf16") == 0 ? " in bfloat16" : "", plan->rounds,
           plan->rounds == 1 ? "" : "s", plan->n_mechanisms);
    for (size_t i = 0; i < plan->n_mechanisms; i++)
        printf("  %-30s about %s a trial\n", plan->mechanisms[i].label,
               attn_format_duration(times_s[i]).text);
    size_t order[ATTN_PLAN_MECHANISMS_MAX];
    for (size_t round = 0; round < plan->rounds; round++) {
        attn_plan_order(plan, round, order);
        printf("round %zu:", round + 1);
        for (size_t i = 0; i < plan->n_mechanisms; i++)
            printf(" %s", plan->mechanisms[order[i]].label);
        putchar('\n');
    }
    printf("predicted: %s in all\n", attn_format_duration(round_s * (double)plan->rounds).text);
    return ATTN_OK;
}
