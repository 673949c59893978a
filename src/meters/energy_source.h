/* What a source of energy is: a plug-in that finds channels (one counter or gauge each) and reads
 * one at a time. To add one, write its attn_energy_operations and name it in the list in energy.c.
 *
 * A source never fails because the hardware is not there: it then says why and what to do. */
#ifndef METERS_ENERGY_SOURCE_H
#define METERS_ENERGY_SOURCE_H

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
    char board[32];                   /* PCI address of a graphics board; "": none */
    bool must_move;                   /* a counter that stands still is broken */
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
    attn_energy_nvml, attn_energy_amdsmi, attn_energy_hwmon, attn_energy_battery,
    attn_energy_external, attn_energy_dcmi;

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
    const char *nvml;    /* library to load; NULL = ATTNSCOPE_NVML or libnvidia-ml.so.1 */
    const char *amdsmi;  /* likewise; NULL = ATTNSCOPE_AMDSMI or libamd_smi.so */
    const char *gpus;    /* "all", or PCI addresses apart by commas; NULL, "none": no GPU */
    const char *command; /* prints "epoch_seconds watts [joules]" lines; NULL: none */
    const char *csv;     /* the same in a file that grows; NULL: none */
    double csv_offset_s; /* added to the file's times */
    bool uses_dcmi;      /* ask the board controller, once a second */
    double trace_s;      /* the sampler keeps the energy so often; 0: it keeps nothing */
};

/* A channel with unit_j 1e-6, resolution unknown, no relatives, of state OK. */
attn_energy_channel attn_energy_channel_make(attn_energy_domain domain, attn_energy_kind kind);

#endif
