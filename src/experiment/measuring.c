/* Around the training: idle power, steadiness, phases, factors of the user. */
#define _POSIX_C_SOURCE 200809L
#include "experiment/measuring.h"

#include "base/clock.h"
#include "base/statistics.h"
#include "experiment/record.h"
#include "meters/system_clock.h"

#include <math.h>
#include <stdio.h>
#include <time.h>

/* Idle powers before and after that differ by more than this leave no baseline to subtract. */
#define IDLE_AGREE 0.03

enum { TREND_STEPS = 6 };

attn_energy_options attn_measuring_meters(const attn_plan *plan)
{
    const attn_plan_measuring *m = &plan->measuring;
    return (attn_energy_options){.gpus = m->gpus,
                                 .command = m->command,
                                 .csv = m->csv,
                                 .csv_offset_s = m->csv_offset_s,
                                 .uses_dcmi = m->uses_dcmi,
                                 .trace_s = 1.0};
}

attn_figure attn_measure_idle(attn_energy_meter *meter, double duration_s, const char *name)
{
    attn_window window = {.meter = meter};
    attn_window_open(&window);
    struct timespec left = {.tv_sec = (time_t)duration_s,
                            .tv_nsec = (long)(1e9 * (duration_s - floor(duration_s)))};
    while (nanosleep(&left, &left) != 0) {}
    attn_window_close(&window);
    const attn_figure *energy = attn_window_energy(&window);
    if (energy->provenance == ATTN_UNAVAILABLE)
        return attn_figure_unavailable(name, "W", energy->source, energy->why);
    char source[ATTN_FIGURE_TEXT_BYTES];
    snprintf(source, sizeof source, "%s at rest / %.3g s", energy->name, window.time_s);
    attn_figure power =
        attn_figure_make(name, "W", energy->value / window.time_s, energy->provenance, source);
    power.has_interval = energy->has_interval;
    power.low = energy->low / window.time_s;
    power.high = energy->high / window.time_s;
    snprintf(power.why, sizeof power.why, "%.200s", energy->why);
    return power;
}

/* The first step is slow in any case, and is never looked at. A rise that the spread of the steps
 * explains is none. */
attn_warmth attn_judge_warmth(const attn_plan *plan, const attn_store_step *steps, size_t step)
{
    if (step < plan->timing_warmup) return ATTN_WARMING;
    if (plan->measuring.steady <= 0.0 || plan->steps < 2 * (TREND_STEPS + 1)) return ATTN_WARM;
    if (step < TREND_STEPS + 1) return ATTN_WARMING;
    double times_s[TREND_STEPS];
    for (size_t i = 0; i < TREND_STEPS; i++)
        times_s[i] = attn_step_time_s(&steps[step - TREND_STEPS + i]);
    const attn_trend trend = attn_statistics_trend(times_s, TREND_STEPS);
    if (fabs(trend.rise) <= fmax(plan->measuring.steady, 2.0 * trend.error)) return ATTN_STEADY;
    return step >= plan->steps / 2 ? ATTN_NOT_STEADY : ATTN_WARMING;
}

static void put_idle(attn_figure_sink *sink, const attn_plan *plan, const attn_measured *m)
{
    static const char name[] = "energy_dynamic_j";
    const attn_figure *total = attn_window_energy(&m->window);
    if (plan->measuring.idle_s <= 0.0) return;
    attn_sink_put(sink, &m->idle_before);
    attn_sink_put(sink, &m->idle_after);
    const double before_w = m->idle_before.value, after_w = m->idle_after.value;
    attn_figure dynamic = {0};
    if (total->provenance == ATTN_UNAVAILABLE || !isfinite(before_w) || !isfinite(after_w)) {
        const char *why = total->provenance == ATTN_UNAVAILABLE           ? total->why
                          : m->idle_before.provenance == ATTN_UNAVAILABLE ? m->idle_before.why
                                                                          : m->idle_after.why;
        dynamic = attn_figure_unavailable(name, "J", total->source, why);
    } else if (fabs(after_w - before_w) > IDLE_AGREE * before_w) {
        char why[ATTN_FIGURE_TEXT_BYTES];
        snprintf(why, sizeof why,
                 "idle power was %.4g W before and %.4g W after: more than 3 %% apart, so there is "
                 "no baseline; let the machine rest, or use a longer --idle",
                 before_w, after_w);
        dynamic = attn_figure_unavailable(name, "J", total->name, why);
    } else {
        char source[ATTN_FIGURE_TEXT_BYTES];
        snprintf(source, sizeof source, "%s - mean idle power * train_time_s", total->name);
        const double idle_j = 0.5 * (before_w + after_w) * m->window.time_s;
        dynamic = attn_figure_make(name, "J", total->value - idle_j, ATTN_DERIVED, source);
        const double blur_j = 0.5 * fabs(after_w - before_w) * m->window.time_s;
        dynamic.has_interval = true;
        dynamic.low = (total->has_interval ? total->low : total->value) - idle_j - blur_j;
        dynamic.high = (total->has_interval ? total->high : total->value) - idle_j + blur_j;
    }
    attn_sink_put(sink, &dynamic);
}

size_t attn_factor_figures(const attn_factors *factors, const attn_figure *base,
                           attn_figure figures[ATTN_FACTOR_FIGURES])
{
    const double pue = factors->pue > 0.0 ? factors->pue : 1.0;
    const double grams_per_j = factors->carbon_g_per_kwh / 3.6e6;
    const struct {
        const char *name, *unit;
        double factor;
        bool is_wanted;
    } wanted[ATTN_FACTOR_FIGURES] = {
        {"energy_facility_j", "J", pue, factors->pue > 0.0},
        {"carbon_g", "gCO2e", pue * grams_per_j, factors->carbon_g_per_kwh > 0.0}};
    char source[ATTN_FIGURE_TEXT_BYTES];
    size_t n = 0;
    for (size_t i = 0; i < ATTN_FACTOR_FIGURES; i++) {
        if (!wanted[i].is_wanted) continue;
        attn_figure *figure = &figures[n++];
        if (base->provenance == ATTN_UNAVAILABLE) {
            *figure =
                attn_figure_unavailable(wanted[i].name, wanted[i].unit, base->source, base->why);
            continue;
        }
        if (i == 0)
            snprintf(source, sizeof source, "%s * PUE %g as given", base->name, pue);
        else
            snprintf(source, sizeof source, "%s * PUE %g * %g gCO2e/kWh as given (%.100s)",
                     base->name, pue, factors->carbon_g_per_kwh,
                     factors->carbon_source ? factors->carbon_source : "no source named");
        *figure = attn_figure_make(wanted[i].name, wanted[i].unit, base->value * wanted[i].factor,
                                   ATTN_DERIVED, source);
        figure->has_interval = base->has_interval;
        figure->low = base->low * wanted[i].factor;
        figure->high = base->high * wanted[i].factor;
    }
    return n;
}

static void put_factors(attn_figure_sink *sink, const attn_plan *plan, const attn_measured *m)
{
    const attn_factors factors = {.pue = plan->measuring.pue,
                                  .carbon_g_per_kwh = plan->measuring.carbon_g_per_kwh,
                                  .carbon_source = plan->measuring.carbon_source};
    const attn_figure *system = &m->window.energy[ATTN_ENERGY_FIGURE_SYSTEM];
    const attn_figure *base =
        system->provenance != ATTN_UNAVAILABLE ? system : attn_window_energy(&m->window);
    attn_figure figures[ATTN_FACTOR_FIGURES];
    const size_t n = attn_factor_figures(&factors, base, figures);
    for (size_t i = 0; i < n; i++) attn_sink_put(sink, &figures[i]);
}

static void put_steadiness(attn_figure_sink *sink, const attn_measured *m)
{
    static const char rule[] = "slope of the last 6 step times before timing began";
    attn_sink_value(sink, "warmup_steps", "", (double)m->warmup, ATTN_COUNTED,
                    "steps that timings leave out");
    attn_figure steady =
        attn_figure_make("is_steady", "", m->warmth == ATTN_STEADY, ATTN_DERIVED, rule);
    if (m->warmth == ATTN_NOT_STEADY)
        snprintf(steady.why, sizeof steady.why,
                 "not steady: steps still became faster or slower when half of them were done");
    if (m->warmth == ATTN_WARM)
        steady = attn_figure_unavailable("is_steady", "", rule,
                                         "too few steps for the rule, or --steady 0");
    attn_sink_put(sink, &steady);
}

/* Power as the sampler saw it while training; the meter has stopped. */
void attn_put_samples(attn_figure_sink *sink, const attn_energy_meter *meter, uint64_t begin_ns)
{
    attn_energy_power power;
    for (size_t i = 0; sink->status == ATTN_OK && attn_energy_trace(meter, i, &power); i++) {
        if (power.time_ns < begin_ns) continue;
        attn_record record = {.kind = ATTN_RECORD_SAMPLE,
                              .sample = {.time_s = attn_clock_seconds(begin_ns, power.time_ns),
                                         .power_w = power.power_w}};
        snprintf(record.sample.domain, sizeof record.sample.domain, "%s",
                 attn_energy_domain_name(power.domain));
        sink->status = attn_record_write(sink->descriptor, &record, sink->error);
    }
}

void attn_put_span(attn_figure_sink *sink, double begin_s, double end_s, bool is_timed)
{
    if (sink->status != ATTN_OK) return;
    const attn_record record = {.kind = ATTN_RECORD_SPAN,
                                .span = {.begin_s = begin_s, .end_s = end_s, .is_timed = is_timed}};
    sink->status = attn_record_write(sink->descriptor, &record, sink->error);
}

void attn_put_measuring_figures(attn_figure_sink *sink, const attn_plan *plan,
                                const attn_step_log *log, const attn_measured *m)
{
    put_idle(sink, plan, m);
    attn_put_phase_figures(sink, log, &m->window, &m->phases);
    if (m->evaluation.stretches > 0 &&
        attn_window_energy(&m->window)->provenance != ATTN_UNAVAILABLE)
        attn_put_renamed(sink, *attn_window_energy(&m->evaluation), "energy_evaluation_j");
    put_factors(sink, plan, m);
    for (size_t i = 0; i < m->n_gpus; i++) attn_sink_put(sink, &m->gpus[i]);
    put_steadiness(sink, m);
    attn_sink_value(sink, "meter_share", "", m->window.meter_s / m->window.time_s, ATTN_MEASURED,
                    "time spent in reading energy meters / train_time_s");
    attn_figure suspended =
        attn_figure_make("suspended_s", "s", m->window.suspended_s, ATTN_MEASURED,
                         "CLOCK_BOOTTIME less CLOCK_MONOTONIC over train_time_s");
    if (suspended.value > ATTN_CLOCK_SUSPEND_S)
        snprintf(suspended.why, sizeof suspended.why,
                 "the machine was suspended in training: times are not to be trusted");
    attn_sink_put(sink, &suspended);
    attn_figure step = attn_figure_make("clock_step_s", "s", m->window.clock_step_s, ATTN_MEASURED,
                                        "CLOCK_REALTIME less CLOCK_BOOTTIME over train_time_s");
    if (step.value > ATTN_CLOCK_STEP_S)
        snprintf(step.why, sizeof step.why,
                 "the clock was set in training: dates of this trial are not to be trusted");
    attn_sink_put(sink, &step);
}
