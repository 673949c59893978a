/* Energy counters and power gauges, whatever they are read through (meters/energy_source.h). The
 * meter samples them, extends counters that wrap to 64 bits, integrates gauges, refuses what no
 * hardware can do, and rolls channels up into figures that never count a joule twice. */
#ifndef METERS_ENERGY_H
#define METERS_ENERGY_H

#include "meters/energy_source.h"

typedef struct attn_energy_meter attn_energy_meter;

/* Opens and probes every source. `options` may be NULL. ATTN_EMEMORY; no hardware is no error. */
ATTN_MUST_CHECK attn_status attn_energy_open(attn_energy_meter **out,
                                             const attn_energy_options *options, attn_error *error);
void attn_energy_close(attn_energy_meter *meter); /* stops it; NULL is fine */

size_t attn_energy_sources(const attn_energy_meter *meter);
const attn_energy_source *attn_energy_source_at(const attn_energy_meter *meter, size_t index);

/* True when the channel is added up in the figure of its domain: readable, no mirror, not
 * inside another, no gauge beside a counter, and of the best source that offers the domain (GPUs
 * of different makers come from different sources, and all count). */
bool attn_energy_is_counted(const attn_energy_meter *meter, const attn_energy_source *source,
                            size_t channel);

/* Time between two samples after shortening. */
double attn_energy_period_s(const attn_energy_meter *meter);

/* The sampler's thread: it keeps counters from wrapping unseen, and gauges need it, since power
 * between two samples more than a second apart is not known. Marks may be taken while it runs. */
ATTN_MUST_CHECK attn_status attn_energy_start(attn_energy_meter *meter, attn_error *error);
void attn_energy_stop(attn_energy_meter *meter);

/* Mean power of one domain between two moments of the sampler. */
typedef struct attn_energy_power {
    attn_energy_domain domain;
    uint64_t time_ns; /* of the later one */
    double power_w;
} attn_energy_power;

/* What the sampler kept: the `index`-th power, by domain and then time; false behind the last. No
 * more than a few hundred of a domain, further apart in long runs. Not while the sampler runs. */
bool attn_energy_trace(const attn_energy_meter *meter, size_t index, attn_energy_power *power);

/* What one mark keeps of one channel. */
typedef struct attn_energy_reading {
    uint64_t total;          /* counts since the meter opened */
    uint64_t covered_ns;     /* the part of that time in which the count is known */
    uint32_t lost;           /* intervals whose energy is unknown */
    attn_energy_state cause; /* of the last of them */
    attn_energy_state state; /* of the reading at the mark itself */
    uint64_t time_ns;        /* of that reading */
    uint32_t samples;        /* good readings since the meter opened */
} attn_energy_reading;

typedef struct attn_energy_snapshot {
    uint64_t time_ns;             /* middle of the pass over all channels */
    uint64_t before_ns, after_ns; /* of an edge: when it was asked for, when it was done */
    double pass_s;                /* how long the pass took */
    double busy_s;                /* that the meter has spent reading since it opened */
    double suspended_s;           /* attn_clock_suspended_s() */
    bool is_edge;
    attn_energy_reading readings[ATTN_ENERGY_CHANNELS_MAX];
} attn_energy_snapshot;

/* Reads every channel once. Costs the sum of the channels' read_cost_s. */
void attn_energy_mark(attn_energy_meter *meter, attn_energy_snapshot *snapshot);

/* The edge of a window: waits until each counter that is counted has just changed, so that the
 * window is whole updates long. Takes one update period of the slowest counter, a quarter of a
 * second at most. Between two edges, energy is that of the ticks, scaled from their time to the
 * time between the edges. */
void attn_energy_edge(attn_energy_meter *meter, attn_energy_snapshot *snapshot);

enum {
    ATTN_ENERGY_FIGURE_PACKAGE,    /* "energy_cpu_package_j" */
    ATTN_ENERGY_FIGURE_DRAM,       /* "energy_dram_j" */
    ATTN_ENERGY_FIGURE_PSYS,       /* "energy_psys_j" */
    ATTN_ENERGY_FIGURE_GPU,        /* "energy_gpu_board_j" */
    ATTN_ENERGY_FIGURE_MODULE,     /* "energy_module_j" */
    ATTN_ENERGY_FIGURE_SYSTEM,     /* "energy_system_j" */
    ATTN_ENERGY_FIGURE_COMPONENTS, /* "energy_components_j": package + DRAM + GPU, or the module;
                                      its source names the parts */
    ATTN_ENERGY_FIGURES
};

/* Whether some source knows a channel for the figure, readable or not. */
bool attn_energy_knows(const attn_energy_meter *meter, size_t figure);

/* Energy from one mark to a later one of the same meter. Measured when every part was read at
 * both marks and known in between, integrated when a part is a gauge; otherwise unavailable, and
 * `why` names the part, how much of the window is covered, and what was seen. A window in which
 * the update period is more than 1 % has an interval and says so in `why`; one shorter than the
 * period is unknown. */
void attn_energy_between(const attn_energy_meter *meter, const attn_energy_snapshot *begin,
                         const attn_energy_snapshot *end, attn_figure figures[ATTN_ENERGY_FIGURES]);

/* One quantity seen twice: a counter and its gauge, or two sources of one domain. */
typedef struct attn_energy_pair {
    const attn_energy_channel *one, *other;
    double one_j, other_j;
    double difference; /* one_j / other_j - 1; NaN when one of them is unknown */
} attn_energy_pair;

/* Beyond this a counter and the power beside it are not the same quantity. */
#define ATTN_ENERGY_AGREE 0.10

/* Compares all such pairs over a window, in which each should draw the same; gives how many. */
enum { ATTN_ENERGY_PAIRS_MAX = 32 };
size_t attn_energy_pairs(const attn_energy_meter *meter, const attn_energy_snapshot *begin,
                         const attn_energy_snapshot *end,
                         attn_energy_pair pairs[ATTN_ENERGY_PAIRS_MAX]);

#endif
