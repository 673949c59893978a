/* RAPL through perf: the events of /sys/bus/event_source/devices/power, opened once for each
 * processor of its cpumask (one a package or die). The kernel extends the registers to 64 bits
 * itself, so nothing wraps; counts start at 0 when they are opened.
 *
 * It needs perf_event_paranoid 0 or CAP_PERFMON where powercap needs a file mode: both are tried,
 * and where both work this one counts, because reading it costs less. */
#define _GNU_SOURCE
#include "meters/energy_source.h"

#include "base/error.h"
#include "base/memory.h"
#include "meters/machine.h"
#include "meters/rapl_model.h"
#include "meters/sysfs.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define POWER_PMU "/sys/bus/event_source/devices/power"

static const struct {
    const char *event, *label;
    attn_energy_domain domain;
    double power_bound_w;
    bool is_inside_package;
} events[] = {
    {"energy-pkg", "package", ATTN_ENERGY_PACKAGE, 2000.0, false},
    {"energy-cores", "core", ATTN_ENERGY_CORE, 2000.0, true},
    {"energy-gpu", "uncore", ATTN_ENERGY_UNCORE, 2000.0, true},
    {"energy-ram", "dram", ATTN_ENERGY_DRAM, 1000.0, false},
    {"energy-psys", "psys", ATTN_ENERGY_PSYS, 10000.0, false},
};

typedef struct perf_source {
    attn_energy_source base; /* first: the meter knows no more than this */
    attn_energy_channel channels[ATTN_ENERGY_CHANNELS_MAX];
    int files[ATTN_ENERGY_CHANNELS_MAX]; /* -1 where the channel is not readable */
    attn_rapl_model model;
} perf_source;

static int kernel_perf_open(uint32_t type, uint64_t config, int processor)
{
    struct perf_event_attr attribute = {.type = type, .size = sizeof attribute, .config = config};
    return (int)syscall(SYS_perf_event_open, &attribute, -1, processor, -1, PERF_FLAG_FD_CLOEXEC);
}

/* "event=0x02" */
static bool parse_event(const char *text, uint64_t *config)
{
    const char *at = strstr(text, "event=");
    if (!at) return false;
    char *end = NULL;
    *config = strtoull(at + strlen("event="), &end, 0);
    return end != at + strlen("event=");
}

/* A number with a point, whatever the locale's own sign is. */
static bool parse_scale(const char *text, double *scale)
{
    const locale_t plain = newlocale(LC_NUMERIC_MASK, "C", (locale_t)0);
    if (!plain) return false;
    char *end = NULL;
    *scale = strtod_l(text, &end, plain);
    freelocale(plain);
    return end != text && *scale > 0.0 && isfinite(*scale);
}

static void explain_problem(attn_energy_channel *channel, int problem)
{
    const bool is_denied = problem == EACCES || problem == EPERM;
    channel->state = is_denied ? ATTN_ENERGY_DENIED : ATTN_ENERGY_FAILED;
    if (is_denied) {
        snprintf(channel->why, sizeof channel->why,
                 "no permission (perf_event_paranoid is above 0)");
        snprintf(channel->fix, sizeof channel->fix,
                 "setcap cap_perfmon=ep on attnscope, or sysctl kernel.perf_event_paranoid=0 "
                 "(lets every user spy on power)");
        return;
    }
    /* Kernels before 5.17 list events that some AMD processors do not have. */
    snprintf(channel->why, sizeof channel->why, "cannot be opened: %s%s", strerror(problem),
             problem == ENOENT || problem == EINVAL || problem == EOPNOTSUPP
                 ? "; this processor does not have it, although the kernel lists it"
                 : "");
}

static attn_energy_state perf_read(attn_energy_source *base, size_t channel, uint64_t *count)
{
    const perf_source *source = (const perf_source *)base;
    ssize_t length;
    do length = read(source->files[channel], count, sizeof *count);
    while (length < 0 && errno == EINTR);
    if (length == (ssize_t)sizeof *count) return ATTN_ENERGY_OK;
    return length < 0 && errno == ENODEV ? ATTN_ENERGY_LOST : ATTN_ENERGY_FAILED;
}

/* The package of a processor; its own number when the system does not tell. */
static unsigned package_of(const char *root, unsigned processor)
{
    char path[128];
    uint64_t package = 0;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/topology/physical_package_id",
             processor);
    return attn_sysfs_read_number(root, path, &package) == 0 ? (unsigned)package : processor;
}

static void add_event(perf_source *source, const attn_energy_options *options, uint32_t type,
                      size_t event, unsigned processor, size_t in_package)
{
    char path[128], text[64];
    uint64_t config = 0;
    if (source->base.n_channels == ATTN_ENERGY_CHANNELS_MAX) return;
    snprintf(path, sizeof path, POWER_PMU "/events/%s", events[event].event);
    if (attn_sysfs_read(options->root, path, text, sizeof text) != 0) return;
    attn_energy_channel channel =
        attn_energy_channel_make(events[event].domain, ATTN_ENERGY_COUNTER);
    channel.power_bound_w = events[event].power_bound_w;
    channel.range = UINT64_MAX;
    snprintf(channel.path, sizeof channel.path, "perf power/%s/ on cpu%u", events[event].event,
             processor);
    const unsigned package = package_of(options->root, processor);
    if (events[event].domain == ATTN_ENERGY_PSYS)
        snprintf(channel.id, sizeof channel.id, "perf:psys");
    else if (events[event].domain == ATTN_ENERGY_PACKAGE && in_package > 0)
        snprintf(channel.id, sizeof channel.id, "perf:package-%u-die-%zu", package, in_package);
    else if (events[event].domain == ATTN_ENERGY_PACKAGE)
        snprintf(channel.id, sizeof channel.id, "perf:package-%u", package);
    else
        snprintf(channel.id, sizeof channel.id, "perf:package-%u/%s", package, events[event].label);
    for (size_t i = 0; events[event].is_inside_package && i < source->base.n_channels; i++)
        if (source->channels[i].domain == ATTN_ENERGY_PACKAGE) channel.parent = (int)i;

    int file = -1;
    snprintf(path, sizeof path, POWER_PMU "/events/%s.scale", events[event].event);
    char scale[64];
    if (!parse_event(text, &config)) {
        channel.state = ATTN_ENERGY_FAILED;
        snprintf(channel.why, sizeof channel.why, "'%.40s' is no event code", text);
    } else if (attn_sysfs_read(options->root, path, scale, sizeof scale) != 0 ||
               !parse_scale(scale, &channel.unit_j)) {
        channel.state = ATTN_ENERGY_FAILED;
        snprintf(channel.why, sizeof channel.why, "its scale in %.100s is no number", path);
    } else {
        attn_rapl_note(&source->model, &channel); /* the scale is the interface's own */
        channel.resolution_j = channel.unit_j;
        file = (options->perf_open ? options->perf_open : kernel_perf_open)(type, config,
                                                                            (int)processor);
        if (file < 0) explain_problem(&channel, errno);
    }
    const size_t at = source->base.n_channels++;
    source->files[at] = file;
    source->channels[at] = channel;
}

/* "0,18" or "0-1": which processors stand for a package. */
static size_t parse_mask(const char *list, unsigned *processors, size_t most)
{
    size_t n = 0;
    while (*list >= '0' && *list <= '9') {
        char *end = NULL;
        const unsigned long first = strtoul(list, &end, 10);
        const unsigned long last = *end == '-' ? strtoul(end + 1, &end, 10) : first;
        for (unsigned long p = first; p <= last && n < most; p++) processors[n++] = (unsigned)p;
        list = *end == ',' ? end + 1 : end;
    }
    return n;
}

/* A package that the mask leaves out would be missing from the sum. */
static void add_missing_packages(perf_source *source, const char *root, const unsigned *processors,
                                 size_t n_processors)
{
    unsigned packages[ATTN_MACHINE_PACKAGES_MAX];
    const size_t n_packages = attn_machine_packages(root, packages);
    for (size_t k = 0; k < n_packages; k++) {
        bool is_there = false;
        for (size_t p = 0; p < n_processors; p++)
            is_there |= package_of(root, processors[p]) == packages[k];
        if (is_there || source->base.n_channels == ATTN_ENERGY_CHANNELS_MAX) continue;
        const size_t at = source->base.n_channels++;
        attn_energy_channel *channel = &source->channels[at];
        *channel = attn_energy_channel_make(ATTN_ENERGY_PACKAGE, ATTN_ENERGY_COUNTER);
        channel->state = ATTN_ENERGY_ABSENT;
        source->files[at] = -1;
        snprintf(channel->id, sizeof channel->id, "perf:package-%u", packages[k]);
        snprintf(channel->path, sizeof channel->path, POWER_PMU "/cpumask");
        snprintf(channel->why, sizeof channel->why,
                 "no processor of package-%u is in the mask, so the sum would lack it",
                 packages[k]);
        snprintf(channel->fix, sizeof channel->fix, "bring a core of package-%u online",
                 packages[k]);
    }
}

static void perf_close(attn_energy_source *base)
{
    if (!base) return;
    perf_source *source = (perf_source *)base;
    for (size_t i = 0; i < ATTN_ENERGY_CHANNELS_MAX; i++)
        if (source->files[i] >= 0) close(source->files[i]);
    attn_free(source);
}

static attn_status perf_open(attn_energy_source **out, const attn_energy_options *options,
                             attn_error *error)
{
    perf_source *source = attn_alloc(ATTN_MEMORY_OTHER, sizeof *source);
    if (!source) return attn_fail(error, ATTN_EMEMORY, "RAPL through perf: out of memory");
    source->base.operations = &attn_energy_rapl_perf;
    source->base.channels = source->channels;
    for (size_t i = 0; i < ATTN_ENERGY_CHANNELS_MAX; i++) source->files[i] = -1;
    source->model = attn_rapl_model_read(options->root);
    *out = &source->base;

    char mask[256];
    uint64_t type = 0;
    unsigned processors[ATTN_MACHINE_PACKAGES_MAX];
    /* Events of a copied tree are those of another machine. */
    const bool is_copy = *options->root && !options->perf_open;
    if (attn_sysfs_read_number(options->root, POWER_PMU "/type", &type) != 0 ||
        attn_sysfs_read(options->root, POWER_PMU "/cpumask", mask, sizeof mask) != 0) {
        snprintf(source->base.why, sizeof source->base.why,
                 "no power PMU: " POWER_PMU " is absent");
        snprintf(source->base.fix, sizeof source->base.fix,
                 "modprobe rapl; virtual machines have none");
        return ATTN_OK;
    }
    if (is_copy) {
        snprintf(source->base.why, sizeof source->base.why,
                 "events of a copied machine cannot be opened here");
        return ATTN_OK;
    }
    const size_t n = parse_mask(mask, processors, ATTN_MACHINE_PACKAGES_MAX);
    for (size_t p = 0; p < n; p++) {
        size_t in_package = 0; /* dies before this one */
        for (size_t k = 0; k < p; k++)
            in_package += package_of(options->root, processors[k]) ==
                          package_of(options->root, processors[p]);
        for (size_t e = 0; e < sizeof events / sizeof *events; e++) {
            if (events[e].domain == ATTN_ENERGY_PSYS && p > 0) continue;
            add_event(source, options, (uint32_t)type, e, processors[p], in_package);
        }
    }
    if (source->base.n_channels > 0)
        add_missing_packages(source, options->root, processors, n);
    else
        snprintf(source->base.why, sizeof source->base.why, POWER_PMU " lists no energy event");
    return ATTN_OK;
}

const attn_energy_operations attn_energy_rapl_perf = {
    .name = "rapl-perf",
    .path = POWER_PMU,
    .domains = 1u << ATTN_ENERGY_PACKAGE | 1u << ATTN_ENERGY_DRAM | 1u << ATTN_ENERGY_PSYS,
    .open = perf_open,
    .read = perf_read,
    .close = perf_close,
};
