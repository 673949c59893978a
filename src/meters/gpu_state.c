/* How graphics boards are around a trial, as figures of it. */
#include "meters/gpu.h"

#include <stdio.h>
#include <string.h>

enum { BOARDS_MOST = 16 };

static attn_figure state_figure(const char *what, const char *when, const char *unit_suffix,
                                const char *unit, double value, const char *source)
{
    char name[ATTN_FIGURE_NAME_BYTES];
    snprintf(name, sizeof name, "gpu_%s_%s%s", what, when, unit_suffix);
    if (isnan(value))
        return attn_figure_unavailable(name, unit, source, "the driver does not say it");
    return attn_figure_make(name, unit, value, ATTN_MEASURED, source);
}

size_t attn_gpu_figures(const char *library, const char *gpus, const char *when,
                        attn_figure figures[ATTN_GPU_FIGURES])
{
    attn_gpu boards[BOARDS_MOST];
    char slowed[ATTN_FIGURE_TEXT_BYTES] = "";
    double hottest_c = NAN, slowest_mhz = NAN, n_slowed = 0.0;
    size_t n_wanted = 0;
    const bool is_wanted = gpus && strcmp(gpus, "none") != 0;
    const size_t n = is_wanted ? attn_gpu_list(library, boards, BOARDS_MOST) : 0;
    for (size_t i = 0; i < n; i++) {
        char reasons[160];
        if (!attn_gpu_is_wanted(gpus, boards[i].address)) continue;
        n_wanted++;
        hottest_c = fmax(hottest_c, boards[i].temperature_c); /* of NaN and a number the number */
        slowest_mhz = fmin(slowest_mhz, boards[i].sm_clock_mhz);
        if (attn_gpu_reasons_text(boards[i].clock_reasons, reasons, sizeof reasons) == 0) continue;
        n_slowed += 1.0;
        const size_t used = strlen(slowed);
        snprintf(slowed + used, sizeof slowed - used, "%s%.31s: %s", used ? "; " : "",
                 boards[i].address, reasons);
    }
    if (n_wanted == 0) return 0;
    figures[0] = state_figure("temperature", when, "_c", "degC", hottest_c,
                              "nvmlDeviceGetTemperature of the hottest board");
    figures[1] = state_figure("clock", when, "_mhz", "MHz", slowest_mhz,
                              "nvmlDeviceGetClockInfo of the slowest board, SM clock");
    figures[2] = state_figure("slowdowns", when, "", "board", n_slowed,
                              "boards that nvmlDeviceGetCurrentClocksEventReasons says are slowed");
    snprintf(figures[2].why, sizeof figures[2].why, "%s", slowed);
    return ATTN_GPU_FIGURES;
}
