/* Graphics boards: which are wanted, and what state they are in beside their energy. */
#ifndef METERS_GPU_H
#define METERS_GPU_H

#include "base/figure.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether `gpus` ("all", "none", or PCI addresses apart by commas, with their domain or without)
 * names the board at `address`. */
bool attn_gpu_is_wanted(const char *gpus, const char *address);

/* What the driver says of a board now; NaN, -1 or "" for what it does not say. */
typedef struct attn_gpu {
    char address[32], name[96], uuid[96], driver[80];
    double power_limit_w, default_limit_w, temperature_c, sm_clock_mhz, memory_clock_mhz;
    uint64_t clock_reasons; /* bits of NVML: why clocks are lower than they could be */
    int mig, persistence;   /* 1 on, 0 off */
    int processes;          /* that compute on it now */
} attn_gpu;

/* NVIDIA boards, by NVML's index; `library` as in attn_energy_options. Gives how many. */
size_t attn_gpu_list(const char *library, attn_gpu *gpus, size_t most);

/* "hardware thermal, software power cap"; gives how many of the reasons slow a board down. */
size_t attn_gpu_reasons_text(uint64_t reasons, char *text, size_t size_bytes);

/* How the NVIDIA boards that `gpus` names are now, as figures of a trial: the temperature of the
 * hottest, the clock of the slowest, and how many something slows down; `when` is "before" or
 * "after", and part of their names. Gives how many figures there are: all, or none without a
 * board. */
enum { ATTN_GPU_FIGURES = 3 };
size_t attn_gpu_figures(const char *library, const char *gpus, const char *when,
                        attn_figure figures[ATTN_GPU_FIGURES]);

#endif
