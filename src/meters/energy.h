/* Energy counters of the hardware, whatever they are read through.
 *
 * A source is a plug-in: it finds channels (one counter register each) and reads one at a time.
 * To add one, write energy_<name>.c with an attn_energy_operations and name it in the list in
 * energy.c. The meter owns everything else: it samples, extends counters that wrap to 64 bits,
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
    ATTN_ENERGY_DOMAINS
} attn_energy_domain;

typedef enum attn_energy_state {
    ATTN_ENERGY_OK,
    ATTN_ENERGY_ABSENT, /* the counter should be there and is not */
    ATTN_ENERGY_DENIED, /* no permission */
    ATTN_ENERGY_FAILED, /* could not be read, or held no number */
    ATTN_ENERGY_LOST,   /* went away after it was opened */
    ATTN_ENERGY_RESET,  /* jumped in a way that no power draw explains */
    ATTN_ENERGY_STALE,  /* so long unread that it may have wrapped unseen */
    ATTN_ENERGY_STATES
} attn_energy_state;

/* "package", "core", "uncore", "dram", "psys"; "ok", "absent", "denied", ... */
const char *attn_energy_domain_name(attn_energy_domain domain);
const char *attn_energy_state_name(attn_energy_state state);

enum { ATTN_ENERGY_CHANNELS_MAX = 64, ATTN_ENERGY_SOURCES_MAX = 8 };

/* One counter. The source fills it when it opens, the probe adds what it finds. */
typedef struct attn_energy_channel {
    char id[80];                       /* "rapl:package-0", "rapl:package-0/dram" */
    char path[ATTN_FIGURE_TEXT_BYTES]; /* the file or call, as printed in reports */
    attn_energy_domain domain;
    double unit_j;                    /* joules per count */
    double resolution_j;              /* smallest step of the register, NaN when unknown */
    uint64_t range;                   /* counts from 0 to this, then from 0; 0 = unknown */
    double power_bound_w;             /* more than any hardware of this kind can draw */
    int parent;                       /* channel of the same source that holds this one, or -1 */
    int mirror_of;                    /* channel that shows the same register, or -1 */
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

typedef struct attn_energy_operations {
    const char *name; /* "rapl-powercap" */
    const char *path; /* where it looks: "/sys/class/powercap" */
    /* Fails for want of memory only. */
    attn_status (*open)(attn_energy_source **out, const char *root, attn_error *error);
    /* One reading, without heap use; called from the sampler's thread too, never twice at once. */
    attn_energy_state (*read)(attn_energy_source *source, size_t channel, uint64_t *count);
    void (*close)(attn_energy_source *source); /* NULL is fine */
} attn_energy_operations;

extern const attn_energy_operations attn_energy_rapl_powercap;

/* Zero-initialise, then set what differs. */
typedef struct attn_energy_options {
    const char *root; /* NULL = "", the real machine */
    double period_s;  /* between two samples; 0 = 0.1; shortened where a counter could wrap */
    double probe_s;   /* longest look at each counter when opening; 0 = 0.1 */
    uint64_t (*now_ns)(void); /* NULL = attn_clock_ns; no two calls may agree for long */
    const attn_energy_operations *const *sources; /* NULL = all of this program, best first */
    size_t n_sources;
} attn_energy_options;

typedef struct attn_energy_meter attn_energy_meter;

/* Opens and probes every source. `options` may be NULL. ATTN_EMEMORY; no hardware is no error. */
ATTN_MUST_CHECK attn_status attn_energy_open(attn_energy_meter **out,
                                             const attn_energy_options *options, attn_error *error);
void attn_energy_close(attn_energy_meter *meter); /* stops it; NULL is fine */

size_t attn_energy_sources(const attn_energy_meter *meter);
const attn_energy_source *attn_energy_source_at(const attn_energy_meter *meter, size_t index);

/* True when the channel is added up in the figure of its domain: readable, no mirror, not
 * inside another, and of the best source that offers the domain. */
bool attn_energy_is_counted(const attn_energy_meter *meter, const attn_energy_source *source,
                            size_t channel);

/* Time between two samples after shortening. */
double attn_energy_period_s(const attn_energy_meter *meter);

/* The sampler's thread; it does nothing but keep counters from wrapping unseen, so short windows
 * between marks do not need it. Marks may be taken while it runs. */
ATTN_MUST_CHECK attn_status attn_energy_start(attn_energy_meter *meter, attn_error *error);
void attn_energy_stop(attn_energy_meter *meter);

/* What one mark keeps of one channel. */
typedef struct attn_energy_reading {
    uint64_t total;          /* counts since the meter opened */
    uint64_t covered_ns;     /* the part of that time in which the count is known */
    uint32_t lost;           /* intervals whose energy is unknown */
    attn_energy_state cause; /* of the last of them */
    attn_energy_state state; /* of the reading at the mark itself */
} attn_energy_reading;

typedef struct attn_energy_snapshot {
    uint64_t time_ns;   /* middle of the pass over all channels */
    double pass_s;      /* how long that pass took */
    double suspended_s; /* attn_clock_suspended_s() */
    attn_energy_reading readings[ATTN_ENERGY_CHANNELS_MAX];
} attn_energy_snapshot;

/* Reads every counter once: the edge of a phase. Costs the sum of the channels' read_cost_s. */
void attn_energy_mark(attn_energy_meter *meter, attn_energy_snapshot *snapshot);

enum {
    ATTN_ENERGY_FIGURE_PACKAGE, /* "energy_cpu_package_j" */
    ATTN_ENERGY_FIGURE_DRAM,    /* "energy_dram_j" */
    ATTN_ENERGY_FIGURE_PSYS,    /* "energy_psys_j" */
    ATTN_ENERGY_FIGURES
};

/* Energy from one mark to a later one of the same meter. Measured when every part was read at
 * both marks and known in between; otherwise unavailable, and `why` names the part, how much of
 * the window is covered, and what was seen. A window in which the counter's update period is
 * more than 1 % has an interval and says so in `why`; one shorter than the period is unknown. */
void attn_energy_between(const attn_energy_meter *meter, const attn_energy_snapshot *begin,
                         const attn_energy_snapshot *end, attn_figure figures[ATTN_ENERGY_FIGURES]);

#endif
