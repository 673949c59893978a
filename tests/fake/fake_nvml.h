/* A stand-in for NVIDIA's management library: boards whose true power is known, with counters
 * that step and lag as the real ones do. A test loads it, takes `fake_nvml` by name and sets it. */
#ifndef FAKE_NVML_H
#define FAKE_NVML_H

#include <stdbool.h>
#include <stdint.h>

enum { FAKE_BOARDS = 3 };

typedef struct fake_board {
    const char *address, *name;
    double power_w;            /* drawn at all times */
    double counter_gain;       /* 1; another value is a counter that is wrong */
    uint64_t energy_offset_mj; /* shown at time 0; changing it is a reset */
    uint64_t step_ns, lag_ns;  /* of the energy counter */
    int energy_result;         /* NVML_OK, NVML_NOT_SUPPORTED, NVML_GPU_IS_LOST, ... */
    int instant_result[2];     /* of the power field, for the GPU and the module */
    int power_result;
    unsigned mig, processes;
    unsigned limit_mw, default_limit_mw;
    unsigned long long reasons;
    unsigned long long reasons_later;  /* from the second time on that somebody asks */
    unsigned temperature_c, heating_c; /* warmer by so much from one time to the next */
    unsigned clock_mhz;
} fake_board;

typedef struct fake_nvml_state {
    int init_result;
    unsigned n_boards;
    uint64_t (*now_ns)(void);
    unsigned n_energy_calls, n_shutdowns;
    fake_board boards[FAKE_BOARDS];
} fake_nvml_state;

#endif
