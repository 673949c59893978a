/* Figures of a trial. */
#include "experiment/trial_figures.h"

#include "base/memory.h"
#include "base/statistics.h"
#include "experiment/record.h"
#include "meters/energy_model.h"

#include <math.h>
#include <stdio.h>

void attn_sink_put(attn_figure_sink *sink, const attn_figure *figure)
{
    if (sink->status != ATTN_OK) return;
    const attn_record record = {.kind = ATTN_RECORD_FIGURE, .figure = *figure};
    sink->status = attn_record_write(sink->descriptor, &record, sink->error);
}

void attn_sink_value(attn_figure_sink *sink, const char *name, const char *unit, double value,
                     attn_provenance provenance, const char *source)
{
    const attn_figure figure = attn_figure_make(name, unit, value, provenance, source);
    attn_sink_put(sink, &figure);
}

void attn_put_renamed(attn_figure_sink *sink, attn_figure figure, const char *name)
{
    snprintf(figure.name, sizeof figure.name, "%s", name);
    attn_sink_put(sink, &figure);
}

/* ---- steps ------------------------------------------------------------------------------- */

typedef double step_value(const attn_store_step *step);

static double forward_s(const attn_store_step *step)
{
    return step->forward_s;
}
static double backward_s(const attn_store_step *step)
{
    return step->backward_s;
}
static double optimizer_s(const attn_store_step *step)
{
    return step->optimizer_s;
}
static double data_s(const attn_store_step *step)
{
    return step->data_s;
}
double attn_step_time_s(const attn_store_step *step)
{
    return step->data_s + step->forward_s + step->backward_s + step->optimizer_s;
}

static double put_median(attn_figure_sink *sink, const attn_step_log *log, const char *name,
                         step_value *value, double *scratch)
{
    const size_t n = log->n - log->warmup;
    for (size_t i = 0; i < n; i++) scratch[i] = value(&log->steps[log->warmup + i]);
    attn_statistics_sort(scratch, n);
    const double median = attn_statistics_median(scratch, n);
    char source[ATTN_FIGURE_TEXT_BYTES];
    snprintf(source, sizeof source, "median of %zu steps after %zu of warm-up, CLOCK_MONOTONIC_RAW",
             n, log->warmup);
    attn_sink_value(sink, name, "s", median, ATTN_MEASURED, source);
    return median;
}

/* "attention_forward_time_s" and so on; the optimizer has its own figure. */
static void put_parts(attn_figure_sink *sink, const attn_step_log *log, double *scratch)
{
    const size_t n = log->n - log->warmup;
    for (int part = 0; part < ATTN_PARTS; part++)
        for (int pass = 0; pass < ATTN_PASS_UPDATE; pass++) {
            char name[ATTN_FIGURE_NAME_BYTES];
            for (size_t i = 0; i < n; i++)
                scratch[i] = 1e-9 * (double)log->profiles[log->warmup + i].ns[part][pass];
            attn_statistics_sort(scratch, n);
            if (!(attn_statistics_median(scratch, n) > 0.0)) continue;
            snprintf(name, sizeof name, "%s_%s_time_s", attn_part_name((attn_part)part),
                     attn_pass_name((attn_pass)pass));
            attn_sink_value(sink, name, "s", attn_statistics_median(scratch, n), ATTN_MEASURED,
                            "median of the part's time over the steps of step_time_s");
        }
}

static void put_work(attn_figure_sink *sink, const attn_step_log *log)
{
    const attn_store_step *last = &log->steps[log->n - 1];
    const attn_work closed = log->closed_form[log->n - 1];
    const char *counted = "operations counted by the kernels in the last step";
    const char *formula = "closed form of the layer and model sizes for the last step";
    attn_sink_value(sink, "step_matmul_flop", "flop", (double)last->matmul_flop, ATTN_COUNTED,
                    counted);
    attn_sink_value(sink, "step_exponential_op", "op", (double)last->exponential_op, ATTN_COUNTED,
                    counted);
    attn_sink_value(sink, "step_other_op", "op", (double)last->other_op, ATTN_COUNTED, counted);
    attn_sink_value(sink, "step_matmul_flop_closed_form", "flop", (double)closed.matmul,
                    ATTN_DERIVED, formula);
    attn_sink_value(sink, "step_exponential_op_closed_form", "op", (double)closed.exponential,
                    ATTN_DERIVED, formula);
    attn_sink_value(sink, "step_other_op_closed_form", "op", (double)closed.other, ATTN_DERIVED,
                    formula);
    size_t equal = 0;
    for (size_t i = 0; i < log->n; i++)
        equal += log->steps[i].matmul_flop == log->closed_form[i].matmul &&
                 log->steps[i].exponential_op == log->closed_form[i].exponential &&
                 log->steps[i].other_op == log->closed_form[i].other;
    char source[ATTN_FIGURE_TEXT_BYTES];
    snprintf(source, sizeof source, "integer comparison in %zu of %zu steps equal", equal, log->n);
    attn_sink_value(sink, "work_equals_closed_form", "", equal == log->n ? 1.0 : 0.0, ATTN_DERIVED,
                    source);
}

void attn_put_step_figures(attn_figure_sink *sink, const attn_plan *plan, attn_step_log *log,
                           double *scratch)
{
    const double step_time_s = put_median(sink, log, "step_time_s", attn_step_time_s, scratch);
    put_median(sink, log, "forward_time_s", forward_s, scratch);
    put_median(sink, log, "backward_time_s", backward_s, scratch);
    put_median(sink, log, "optimizer_time_s", optimizer_s, scratch);
    put_median(sink, log, "data_time_s", data_s, scratch);
    put_parts(sink, log, scratch);
    attn_sink_value(sink, "tokens_per_s", "token/s",
                    (double)(plan->batch * plan->length) / step_time_s, ATTN_DERIVED,
                    "batch * seq / step_time_s, padding included");

    attn_sink_value(sink, "train_loss_first", "nat", log->steps[0].loss, ATTN_DERIVED,
                    "mean over the target tokens of step 1");
    const size_t tail = log->n >= 10 ? log->n / 10 : 1;
    double total = 0.0;
    for (size_t i = log->n - tail; i < log->n; i++) total += log->steps[i].loss;
    char source[ATTN_FIGURE_TEXT_BYTES];
    snprintf(source, sizeof source, "mean of the last %zu of %zu steps", tail, log->n);
    attn_sink_value(sink, "train_loss_last", "nat", total / (double)tail, ATTN_DERIVED, source);
    put_work(sink, log);
}

/* ---- window ------------------------------------------------------------------------------ */

/* The model's figures keep apart from measured ones by their names too. */
static void put_modelled_energy(attn_figure_sink *sink, const attn_plan *plan, size_t threads,
                                const attn_window *window, double resident_bytes)
{
    const attn_machine_cpu cpu = attn_machine_cpu_read("");
    attn_energy_model model;
    if (sink->status != ATTN_OK) return;
    sink->status = attn_energy_model_choose(&model, &cpu, plan->cpu_watts, sink->error);
    if (sink->status != ATTN_OK) return;
    attn_put_renamed(sink, attn_energy_model_cpu(&model, window->time_s, threads, window->cpu_s),
                     "energy_modelled_cpu_j");
    attn_put_renamed(sink,
                     isnan(resident_bytes)
                         ? attn_figure_unavailable("", "J", "VmHWM of the training",
                                                   "vmhwm_train_bytes is unavailable")
                         : attn_energy_model_dram(window->time_s, resident_bytes),
                     "energy_modelled_dram_j");
}

/* The first three are named on every machine, with the reason when there is no counter; others
 * where there is a meter for them. */
static bool is_shown(const attn_window *window, size_t figure)
{
    return figure <= ATTN_ENERGY_FIGURE_PSYS || attn_energy_knows(window->meter, figure) ||
           (figure == ATTN_ENERGY_FIGURE_COMPONENTS &&
            window->energy[figure].provenance != ATTN_UNAVAILABLE);
}

void attn_put_window_figures(attn_figure_sink *sink, const attn_plan *plan, size_t timed_steps,
                             size_t threads, const attn_window *window, double resident_bytes)
{
    attn_sink_value(sink, "train_time_s", "s", window->time_s, ATTN_MEASURED,
                    "all steps after the warm-up, without evaluations, CLOCK_MONOTONIC_RAW");
    attn_sink_value(sink, "cpu_time_s", "s", window->cpu_s, ATTN_MEASURED,
                    "CLOCK_PROCESS_CPUTIME_ID over the time of train_time_s");
    attn_sink_value(sink, "cpu_utilisation", "", window->cpu_s / (window->time_s * (double)threads),
                    ATTN_DERIVED, "cpu_time_s / (train_time_s * threads)");
    for (size_t i = 0; i < ATTN_PROCESS_FIGURES; i++) attn_sink_put(sink, &window->process[i]);
    for (size_t i = 0; i < ATTN_ENERGY_FIGURES; i++)
        if (is_shown(window, i)) attn_sink_put(sink, &window->energy[i]);
    const attn_figure *total = attn_window_energy(window);
    const double steps = (double)timed_steps;
    if (total->provenance != ATTN_UNAVAILABLE) {
        char source[ATTN_FIGURE_TEXT_BYTES];
        snprintf(source, sizeof source, "%s / steps timed", total->name);
        attn_figure step =
            attn_figure_make("energy_step_j", "J", total->value / steps, ATTN_DERIVED, source);
        step.has_interval = total->has_interval;
        step.low = total->low / steps;
        step.high = total->high / steps;
        attn_sink_put(sink, &step);
    }
    put_modelled_energy(sink, plan, threads, window, resident_bytes);
}

void attn_put_memory_figures(attn_figure_sink *sink)
{
    for (int c = 0; c <= ATTN_MEMORY_CATEGORIES; c++) {
        char name[ATTN_FIGURE_NAME_BYTES];
        if (c == ATTN_MEMORY_CATEGORIES)
            snprintf(name, sizeof name, "memory_peak_bytes");
        else
            snprintf(name, sizeof name, "memory_%s_bytes",
                     attn_memory_category_name((attn_memory_category)c));
        attn_sink_value(sink, name, "byte",
                        (double)attn_memory_usage((attn_memory_category)c).peak_bytes, ATTN_COUNTED,
                        "peak of our allocator's account while training");
    }
}
