/* Energy counters and power gauges, whatever they are read through.
 *
 * A source is a plug-in: it finds channels (one counter or gauge each) and reads one at a time.
 * To add one, write its attn_energy_operations and name it in the list in energy.c. The meter
 * owns everything else: it samples, extends counters that wrap to 64 bits, integrates gauges,
 * refuses what no hardware can do, and rolls channels up into figures that never count a joule
 * twice.
 *
 * A source never fails because the hardware is not there: it then says why and what to do. */
#ifndef METERS_ENERGY_H
#define METERS_ENERGY_H

#include "attn/status.h"
#include "base/figure.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum attn_energy_domain {
    ATTN_ENERGY_PACKAGE, /* a processor socket with its cores and caches */
    ATTN_ENERGY_CORE,    /* inside the package */
    ATTN_ENERGY_UNCORE,  /* inside the package */
    ATTN_ENERGY_DRAM,    /* beside the package, although its zone lies below it */
    ATTN_ENERGY_PSYS,    /* the platform: holds package and DRAM, so never added to them */
    ATTN_ENERGY_GPU,     /* a graphics board, with its memory */
    ATTN_ENERGY_MODULE,  /* processor, GPU and memory on one module: holds those domains */
    ATTN_ENERGY_SYSTEM,  /* the whole machine at its supply, its battery or the wall */
    ATTN_ENERGY_RAIL,    /* a supply rail of a board: shown, part of no figure */
    ATTN_ENERGY_DOMAINS
} attn_energy_domain;

typedef enum attn_energy_kind {
    ATTN_ENERGY_COUNTER, /* of joules, since some time */
    ATTN_ENERGY_GAUGE    /* of watts, now: the meter integrates it */
} attn_energy_kind;

typedef enum attn_energy_state {
    ATTN_ENERGY_OK,
    ATTN_ENERGY_ABSENT, /* the counter should be there and is not */
    ATTN_ENERGY_DENIED, /* no permission */
    ATTN_ENERGY_FAILED, /* could not be read, or held no number */
    ATTN_ENERGY_LOST,   /* went away after it was opened */
    ATTN_ENERGY_RESET,  /* jumped in a way that no power draw explains */
    ATTN_ENERGY_STALE,  /* so long unread that its energy is not known */
    ATTN_ENERGY_SILENT, /* says nothing now: a battery that does not discharge, a quiet meter */
    ATTN_ENERGY_STATES
} attn_energy_state;

/* "package", "core", "uncore", "dram", ...; "ok", "absent", "denied", ... */
const char *attn_energy_domain_name(attn_energy_domain domain);
const char *attn_energy_state_name(attn_energy_state state);

enum { ATTN_ENERGY_CHANNELS_MAX = 64, ATTN_ENERGY_SOURCES_MAX = 8 };

/* One counter or gauge. The source fills it when it opens, beginning with
 * attn_energy_channel_make(); the probe adds what it finds. */
typedef struct attn_energy_channel {
    char id[80];                       /* "rapl:package-0", "rapl:package-0/dram" */
    char path[ATTN_FIGURE_TEXT_BYTES]; /* the file or call, as printed in reports */
    attn_energy_domain domain;
    attn_energy_kind kind;
    double unit_j;                    /* joules per count; of a gauge 1e-6, set by the meter */
    double unit_w;                    /* watts per count of a gauge */
    double resolution_j;              /* smallest step of the register, NaN when unknown */
    uint64_t range;                   /* counts from 0 to this, then from 0; 0 = unknown */
    double power_bound_w;             /* more than any hardware of this kind can draw */
    int parent;                       /* channel of the same source that holds this one, or -1 */
    int mirror_of;                    /* channel that shows the same register, or -1 */
    int twin_of;                      /* the counter of what this gauge shows, or -1 */
    double interval_s;                /* update period that the source states, or 0 */
    double accuracy;                  /* relative error that the maker states, or 0 */
    double shortest_s;                /* windows below this say nothing; 0 = no such limit */
    char note[96];                    /* what a reader of its numbers must know; "" = nothing */
    attn_energy_state state;          /* as the source opened it */
    char why[ATTN_FIGURE_TEXT_BYTES]; /* for every state but OK, */
    char fix[ATTN_FIGURE_TEXT_BYTES]; /* and the remedy */
    double update_s;                  /* time between two changes; NaN: none was seen */
    double probed_s;                  /* how long the probe looked */
    double read_cost_s;               /* of one read */
} attn_energy_channel;

typedef struct attn_energy_source {
    const struct attn_energy_operations *operations;
    attn_energy_channel *channels;
    size_t n_channels;
    char why[ATTN_FIGURE_TEXT_BYTES]; /* when there is no channel */
    char fix[ATTN_FIGURE_TEXT_BYTES];
} attn_energy_source;

typedef struct attn_energy_options attn_energy_options;

typedef struct attn_energy_operations {
    const char *name; /* "rapl-powercap" */
    const char *path; /* where it looks: "/sys/class/powercap" */
    unsigned domains; /* what it could offer: 1u << domain of each */
    /* Fails for want of memory, and for an external meter that the user named and that does not
     * answer (ATTN_EARGUMENT, ATTN_EIO). With *out NULL the source is not wanted. */
    attn_status (*open)(attn_energy_source **out, const attn_energy_options *options,
                        attn_error *error);
    /* One reading, without heap use; called from the sampler's thread too, never twice at once. */
    attn_energy_state (*read)(attn_energy_source *source, size_t channel, uint64_t *count);
    void (*close)(attn_energy_source *source); /* NULL is fine */
} attn_energy_operations;

extern const attn_energy_operations attn_energy_rapl_perf, attn_energy_rapl_powercap,
    attn_energy_nvml, attn_energy_hwmon, attn_energy_battery, attn_energy_external,
    attn_energy_dcmi;

/* Zero-initialise, then set what differs. */
struct attn_energy_options {
    const char *root; /* NULL = "", the real machine */
    double period_s;  /* between two samples; 0 = 0.1; shortened where a counter could wrap */
    double probe_s;   /* longest look at each counter when opening; 0 = 0.1 */
    uint64_t (*now_ns)(void); /* NULL = attn_clock_ns; no two calls may agree for long */
    const attn_energy_operations *const *sources; /* NULL = all of this program, best first */
    size_t n_sources;
    /* perf_event_open(2) of a counter on one processor, a descriptor or -1 with errno; NULL = the
     * kernel's. `type` and `config` are those of the attribute. */
    int (*perf_open)(uint32_t type, uint64_t config, int processor);
    const char *nvml;      /* library to load; NULL = ATTNSCOPE_NVML or libnvidia-ml.so.1 */
    const char *gpus;      /* "all", or PCI addresses apart by commas; NULL, "none": no GPU */
    const char *command;   /* prints "epoch_seconds watts [joules]" lines; NULL: none */
    const char *csv;       /* the same in a file that grows; NULL: none */
    double csv_offset_s;   /* added to the file's times */
    bool uses_dcmi;        /* ask the board controller, once a second */
    double trace_s;        /* the sampler keeps the energy so often; 0: it keeps nothing */
};

/* A channel with unit_j 1e-6, resolution unknown, no relatives, of state OK. */
attn_energy_channel attn_energy_channel_make(attn_energy_domain domain, attn_energy_kind kind);

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

/* The sampler's thread; it does nothing but keep counters from wrapping unseen, so short windows
 * between marks do not need it. Marks may be taken while it runs. */
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
