/* A stand-in for AMD's management library: boards whose true power is known, on two sockets. A test
 * loads it, takes `fake_amdsmi` by name and sets it. */
#ifndef FAKE_AMDSMI_H
#define FAKE_AMDSMI_H

#include <stdbool.h>
#include <stdint.h>

enum { FAKE_AMD_BOARDS = 3 };

typedef struct fake_amd_board {
    uint64_t domain, bus, device, function;
    double power_w;
    float count_uj;     /* what one count is worth */
    int type;           /* 1: a GPU */
    int energy_status;  /* 0, 2 not supported, 10 no permission, 40 no data, ... */
    bool is_frozen;     /* the counter stands still */
    uint64_t frozen_at; /* where */
} fake_amd_board;

typedef struct fake_amdsmi_state {
    int init_status;
    uint32_t n_boards;
    uint64_t (*now_ns)(void);
    uint64_t init_flags;
    unsigned n_energy_calls, n_shut_downs;
    fake_amd_board boards[FAKE_AMD_BOARDS];
} fake_amdsmi_state;

#endif
