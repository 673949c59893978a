/* Energy of the parts of a step. */
#include "experiment/phases.h"

#include "base/clock.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Edges of a step, and the share of its time that reading the meter at them may take. */
#define EDGES      (ATTN_STEP_PARTS + 1)
#define COST_SHARE 0.0005

enum { TRIES = 5 };

/* An interval wider than this, to either side, is no measurement of a part: ten updates of the
 * counter. */
#define BLUR_MOST 0.10

static bool has_energy(const attn_energy_meter *meter)
{
    for (size_t s = 0; s < attn_energy_sources(meter); s++) {
        const attn_energy_source *source = attn_energy_source_at(meter, s);
        for (size_t c = 0; c < source->n_channels; c++)
            if (attn_energy_is_counted(meter, source, c)) return true;
    }
    return false;
}

void attn_phases_begin(attn_phases *phases, attn_energy_meter *meter, double step_s)
{
    if (!has_energy(meter)) return;
    double pass_s = INFINITY; /* on a busy machine some readings are interrupted */
    for (int i = 0; i < TRIES; i++) {
        attn_energy_mark(meter, &phases->edge);
        pass_s = fmin(pass_s, phases->edge.pass_s);
    }
    if (EDGES * pass_s <= COST_SHARE * step_s) phases->meter = meter;
}

void attn_phases_step(attn_phases *phases)
{
    if (!phases->meter) return;
    attn_energy_mark(phases->meter, &phases->edge);
    phases->steps++;
}

void attn_phases_end(attn_phases *phases, attn_step_part phase)
{
    if (!phases->meter) return;
    attn_energy_snapshot now;
    attn_figure energy[ATTN_ENERGY_FIGURES];
    attn_energy_mark(phases->meter, &now);
    attn_energy_between(phases->meter, &phases->edge, &now, energy);
    for (size_t i = 0; i < ATTN_ENERGY_FIGURES; i++)
        attn_window_add_figure(&phases->energy[phase][i], &energy[i], phases->steps == 1);
    phases->time_s[phase] += attn_clock_seconds(phases->edge.time_ns, now.time_ns);
    phases->edge = now;
}

/* The sum of a part's windows; NULL when they say too little. `name` is of the figure
 * that stands for the whole. */
static const attn_figure *measured(const attn_phases *phases, attn_step_part phase,
                                   const char *name)
{
    if (phases->steps == 0) return NULL;
    for (size_t i = 0; i < ATTN_ENERGY_FIGURES; i++) {
        const attn_figure *f = &phases->energy[phase][i];
        if (strcmp(f->name, name) != 0) continue;
        const bool is_blurred = f->has_interval && f->high - f->low > 2.0 * BLUR_MOST * f->value;
        return f->provenance == ATTN_UNAVAILABLE || is_blurred ? NULL : f;
    }
    return NULL;
}

static void put_own(attn_figure_sink *sink, const attn_phases *phases, const char *name,
                    attn_step_part phase, const attn_figure *energy)
{
    attn_figure figure = *energy;
    snprintf(figure.source, sizeof figure.source, "%s in %zu windows of its own, %.3g s each",
             energy->name, phases->steps, phases->time_s[phase] / (double)phases->steps);
    attn_put_renamed(sink, figure, name);
}

static attn_figure make_pass(const char *name, const char *source)
{
    attn_figure figure = attn_figure_make(name, "J", 0.0, ATTN_DERIVED, source);
    figure.low = figure.high = 0.0;
    return figure;
}

/* value += share of more, and its bounds. */
static void add_share(attn_figure *figure, const attn_figure *more, double share)
{
    figure->low += share * (more->has_interval ? more->low : more->value);
    figure->high += share * (more->has_interval ? more->high : more->value);
    figure->value += share * more->value;
    figure->has_interval |= more->has_interval;
    if (!*figure->why) memcpy(figure->why, more->why, sizeof figure->why);
}

/* Forward and backward from their windows: of the forward window, what the head's gradients took
 * is the backward pass's, by time. */
static void put_passes(attn_figure_sink *sink, const attn_phases *phases,
                       const attn_figure *forward, const attn_figure *backward, double forward_s)
{
    const double window_s = phases->time_s[ATTN_STEP_FORWARD];
    const double share = forward_s < window_s ? forward_s / window_s : 1.0;
    char source[ATTN_FIGURE_TEXT_BYTES];
    snprintf(source, sizeof source,
             "%s in %zu windows of its own, %.3g s each; %.3g %% of it the head's gradients, by "
             "time, counted as backward",
             forward->name, phases->steps, window_s / (double)phases->steps, 100.0 * (1.0 - share));
    attn_figure figure = make_pass("energy_forward_j", source);
    add_share(&figure, forward, share);
    attn_sink_put(sink, &figure);
    snprintf(source, sizeof source,
             "%s in %zu windows of its own, %.3g s each, and %.3g %% of the forward windows: the "
             "head's gradients, by time",
             backward->name, phases->steps,
             phases->time_s[ATTN_STEP_BACKWARD] / (double)phases->steps, 100.0 * (1.0 - share));
    figure = make_pass("energy_backward_j", source);
    add_share(&figure, backward, 1.0);
    add_share(&figure, forward, 1.0 - share);
    attn_sink_put(sink, &figure);
}

void attn_put_phase_figures(attn_figure_sink *sink, const attn_step_log *log,
                            const attn_window *window, const attn_phases *phases)
{
    const attn_figure *total = attn_window_energy(window);
    if (total->provenance == ATTN_UNAVAILABLE) return;
    static const char *const names[ATTN_STEP_PARTS] = {"energy_data_j", "energy_forward_j",
                                                       "energy_backward_j", "energy_optimizer_j"};
    double times_s[ATTN_STEP_PARTS] = {0}, sum_s = 0.0;
    for (size_t i = log->warmup; i < log->n; i++) {
        times_s[ATTN_STEP_DATA] += log->steps[i].data_s;
        times_s[ATTN_STEP_FORWARD] += log->steps[i].forward_s;
        times_s[ATTN_STEP_BACKWARD] += log->steps[i].backward_s;
        times_s[ATTN_STEP_OPTIMIZER] += log->steps[i].optimizer_s;
    }
    for (size_t p = 0; p < ATTN_STEP_PARTS; p++) sum_s += times_s[p];
    char source[ATTN_FIGURE_TEXT_BYTES];
    snprintf(source, sizeof source, "attributed: %s * its share of the steps' time", total->name);
    const attn_figure *own[ATTN_STEP_PARTS];
    for (size_t p = 0; p < ATTN_STEP_PARTS; p++)
        own[p] = measured(phases, (attn_step_part)p, total->name);
    const bool has_passes = own[ATTN_STEP_FORWARD] && own[ATTN_STEP_BACKWARD];
    for (size_t p = 0; p < ATTN_STEP_PARTS && sum_s > 0.0; p++) {
        const bool is_pass = p == ATTN_STEP_FORWARD || p == ATTN_STEP_BACKWARD;
        if (is_pass && has_passes)
            continue;
        else if (!is_pass && own[p])
            put_own(sink, phases, names[p], (attn_step_part)p, own[p]);
        else
            attn_sink_value(sink, names[p], "J", total->value * times_s[p] / sum_s, ATTN_DERIVED,
                            source);
    }
    if (has_passes)
        put_passes(sink, phases, own[ATTN_STEP_FORWARD], own[ATTN_STEP_BACKWARD],
                   times_s[ATTN_STEP_FORWARD]);
}
