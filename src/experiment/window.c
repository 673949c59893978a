/* Windows of measurement. */
#include "experiment/window.h"

#include "base/clock.h"
#include "meters/system_clock.h"

#include <math.h>
#include <string.h>

void attn_window_open(attn_window *window)
{
    window->begin_offset_s = attn_clock_offset_s();
    window->begin_process = attn_process_mark_now("");
    /* Next to the clock, so that energy and time are of one stretch. */
    attn_energy_edge(window->meter, &window->begin_energy);
    window->begin_cpu_s = attn_clock_cpu_s();
    window->begin_epoch_s = attn_clock_epoch_s();
    window->begin_ns = attn_clock_ns();
}

void attn_window_add_figure(attn_figure *sum, const attn_figure *more, bool is_first)
{
    if (is_first) {
        *sum = *more;
        return;
    }
    if (sum->provenance == ATTN_UNAVAILABLE) return;
    if (more->provenance == ATTN_UNAVAILABLE) {
        *sum = *more;
        return;
    }
    if (sum->why[0] == '\0') memcpy(sum->why, more->why, sizeof sum->why);
    if (sum->has_interval || more->has_interval) {
        sum->low = (sum->has_interval ? sum->low : sum->value) +
                   (more->has_interval ? more->low : more->value);
        sum->high = (sum->has_interval ? sum->high : sum->value) +
                    (more->has_interval ? more->high : more->value);
        sum->has_interval = true;
    }
    sum->value += more->value;
}

void attn_window_close(attn_window *window)
{
    const uint64_t end_ns = attn_clock_ns();
    window->end_epoch_s = attn_clock_epoch_s();
    const double end_cpu_s = attn_clock_cpu_s();
    attn_energy_snapshot end_energy;
    attn_energy_edge(window->meter, &end_energy);
    const attn_process_mark end_process = attn_process_mark_now("");
    const double offset_s = attn_clock_offset_s();
    window->meter_s += end_energy.busy_s - window->begin_energy.busy_s;
    window->suspended_s += end_energy.suspended_s - window->begin_energy.suspended_s;
    window->clock_step_s += fabs(offset_s - window->begin_offset_s);

    const bool is_first = window->stretches++ == 0;
    const double stretch_s = attn_clock_seconds(window->begin_ns, end_ns);
    attn_figure energy[ATTN_ENERGY_FIGURES], process[ATTN_PROCESS_FIGURES];
    attn_energy_between(window->meter, &window->begin_energy, &end_energy, energy);
    attn_process_between(&window->begin_process, &end_process, process);
    for (size_t i = 0; i < ATTN_ENERGY_FIGURES; i++)
        attn_window_add_figure(&window->energy[i], &energy[i], is_first);
    for (size_t i = 0; i < ATTN_PROCESS_FIGURES; i++) {
        /* A share is averaged over time, counts are added. */
        if (i == ATTN_PROCESS_STEAL && !is_first) {
            process[i].value *= stretch_s;
            window->process[i].value *= window->time_s;
        }
        attn_window_add_figure(&window->process[i], &process[i], is_first);
        if (i == ATTN_PROCESS_STEAL && !is_first)
            window->process[i].value /= window->time_s + stretch_s;
    }
    window->time_s += stretch_s;
    window->cpu_s += end_cpu_s - window->begin_cpu_s;
}

const attn_figure *attn_window_energy(const attn_window *window)
{
    static const size_t order[] = {ATTN_ENERGY_FIGURE_COMPONENTS, ATTN_ENERGY_FIGURE_PACKAGE,
                                   ATTN_ENERGY_FIGURE_SYSTEM};
    for (size_t i = 0; i < sizeof order / sizeof *order; i++)
        if (window->energy[order[i]].provenance != ATTN_UNAVAILABLE)
            return &window->energy[order[i]];
    return &window->energy[ATTN_ENERGY_FIGURE_PACKAGE];
}
