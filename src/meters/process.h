/* What the kernel accounts for this process and, where it disturbs a measurement, for the whole
 * machine. `root` is "" on a real machine. */
#ifndef METERS_PROCESS_H
#define METERS_PROCESS_H

#include "attn/status.h"
#include "base/figure.h"

#include <stdbool.h>
#include <stdint.h>

/* "memory_peak_bytes": the resident set's high-water mark (VmHWM) since the process began or
 * since the last reset. getrusage() is not used: its maximum survives exec, so that a small
 * program inherits the size of its parent. The kernel sums pages per processor in batches, so the
 * mark may be off by a few hundred KiB. */
attn_figure attn_process_memory_peak(const char *root);

/* "memory_resident_bytes" (VmRSS) now. */
attn_figure attn_process_memory_resident(const char *root);

/* Sets the high-water mark to the present size, at the start of a phase. When it fails, a later
 * memory_peak_bytes covers the whole life of the process and must be reported as such. */
ATTN_MUST_CHECK attn_status attn_process_memory_reset_peak(const char *root, attn_error *error);

/* "load_average_1min" */
attn_figure attn_system_load(const char *root);

/* Running totals at one moment. */
typedef struct attn_process_mark {
    int io_problem; /* 0 or a system error number; then the two byte counts mean nothing */
    uint64_t read_bytes, write_bytes;
    uint64_t minor_faults, major_faults, voluntary_switches, involuntary_switches;
    int steal_problem;
    uint64_t steal_ticks, total_ticks; /* of all processors, in clock ticks */
    int throttle_problem;
    uint64_t throttles; /* times that heat slowed a core or its package, over all processors */
} attn_process_mark;

enum {
    ATTN_PROCESS_READ_BYTES,  /* "disk_read_bytes": fetched from the storage device */
    ATTN_PROCESS_WRITE_BYTES, /* "disk_write_bytes" */
    ATTN_PROCESS_MINOR_FAULTS,
    ATTN_PROCESS_MAJOR_FAULTS,
    ATTN_PROCESS_VOLUNTARY_SWITCHES,
    ATTN_PROCESS_INVOLUNTARY_SWITCHES,
    ATTN_PROCESS_STEAL,     /* "steal_share": processor time that the hypervisor gave to others */
    ATTN_PROCESS_THROTTLES, /* "thermal_throttles", with a `why` when there were some */
    ATTN_PROCESS_FIGURES
};

/* A few microseconds, and as much again for each processor that tells of heat. */
attn_process_mark attn_process_mark_now(const char *root);

/* Figures of the time between two marks. */
void attn_process_between(const attn_process_mark *begin, const attn_process_mark *end,
                          attn_figure figures[ATTN_PROCESS_FIGURES]);

#endif
