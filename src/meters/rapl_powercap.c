/* RAPL through powercap: /sys/class/powercap/intel-rapl:N (package-N, package-N-die-M, psys) and
 * intel-rapl:N:M (core, uncore, dram), the names AMD processors use too. intel-rapl-mmio zones
 * show the same registers a second time and serve only where the others are missing.
 *
 * The number in a directory's name is not the socket's: `name` says what a zone is. Files stay
 * open, so that a process may give up the right to open them, and a zone that goes away is seen
 * as an error and not as a new counter. */
#define _GNU_SOURCE
#include "meters/energy_source.h"

#include "base/error.h"
#include "base/memory.h"
#include "meters/machine.h"
#include "meters/rapl_model.h"
#include "meters/sysfs.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define POWERCAP "/sys/class/powercap"

enum { NO_INDEX = -1 };

/* A directory of zones: intel-rapl:zone or intel-rapl:zone:child. */
typedef struct zone_name {
    int zone, child; /* child NO_INDEX for a top-level zone */
} zone_name;

typedef struct rapl_source {
    attn_energy_source base; /* first: the meter knows no more than this */
    attn_energy_channel channels[ATTN_ENERGY_CHANNELS_MAX];
    int files[ATTN_ENERGY_CHANNELS_MAX]; /* -1 where the channel is not readable */
    int zones[ATTN_ENERGY_CHANNELS_MAX]; /* N of a top-level intel-rapl:N, else NO_INDEX */
    attn_rapl_model model;
} rapl_source;

/* Fits a figure's `why` together with the reason: no word can be spared. Running the program as
 * root would work too and is not proposed. */
static const char permission_fix[] =
    "udev rule SUBSYSTEM==\"powercap\", ACTION==\"add\", "
    "RUN+=\"/bin/chgrp power /sys/%p/energy_uj\", RUN+=\"/bin/chmod g+r /sys/%p/energy_uj\" "
    "(lets the group spy on power)";

static bool parse_zone_name(const char *text, const char *prefix, zone_name *name)
{
    const size_t length = strlen(prefix);
    if (strncmp(text, prefix, length) != 0 || !isdigit((unsigned char)text[length])) return false;
    char *end = NULL;
    name->zone = (int)strtol(text + length, &end, 10);
    name->child = NO_INDEX;
    if (*end == ':' && isdigit((unsigned char)end[1])) name->child = (int)strtol(end + 1, &end, 10);
    return *end == '\0';
}

static int compare_zones(const void *left, const void *right)
{
    const zone_name *a = left, *b = right;
    if (a->zone != b->zone) return a->zone < b->zone ? -1 : 1;
    return (a->child > b->child) - (a->child < b->child);
}

/* The zones of one prefix in order, parents before children; 0 or a system error number. */
static int list_zones(const char *root, const char *prefix, zone_name *zones, size_t *n_zones)
{
    char path[ATTN_SYSFS_PATH_BYTES];
    snprintf(path, sizeof path, "%s" POWERCAP, root);
    *n_zones = 0;
    DIR *directory = opendir(path);
    if (!directory) return errno;
    const struct dirent *entry;
    int problem = 0;
    while (problem == 0 && (entry = readdir(directory))) {
        zone_name zone;
        if (!parse_zone_name(entry->d_name, prefix, &zone)) continue;
        if (*n_zones < ATTN_ENERGY_CHANNELS_MAX)
            zones[(*n_zones)++] = zone;
        else
            problem = EOVERFLOW;
    }
    closedir(directory);
    if (problem != 0) *n_zones = 0; /* some of the parts would be worse than none */
    qsort(zones, *n_zones, sizeof *zones, compare_zones);
    return problem;
}

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

/* Bounds: twice what the largest sockets, their memory or an eight-socket platform draw. */
static bool set_domain(attn_energy_channel *channel, const char *name)
{
    static const struct {
        const char *name;
        attn_energy_domain domain;
        double power_bound_w;
    } domains[] = {
        {"package-", ATTN_ENERGY_PACKAGE, 2000.0}, {"core", ATTN_ENERGY_CORE, 2000.0},
        {"uncore", ATTN_ENERGY_UNCORE, 2000.0},    {"dram", ATTN_ENERGY_DRAM, 1000.0},
        {"psys", ATTN_ENERGY_PSYS, 10000.0},
    };
    for (size_t i = 0; i < sizeof domains / sizeof *domains; i++) {
        if (!starts_with(name, domains[i].name)) continue;
        channel->domain = domains[i].domain;
        channel->power_bound_w = domains[i].power_bound_w;
        return true;
    }
    return false;
}

/* One reading of an open file: powercap computes the text anew when read from its start. */
static attn_energy_state read_file(int file, uint64_t *count)
{
    char text[64];
    ssize_t length;
    do length = pread(file, text, sizeof text - 1, 0);
    while (length < 0 && errno == EINTR);
    if (length < 0)
        return errno == EACCES || errno == EPERM                      ? ATTN_ENERGY_DENIED
               : errno == ENODEV || errno == ENOENT || errno == ESRCH ? ATTN_ENERGY_LOST
                                                                      : ATTN_ENERGY_FAILED;
    text[length] = '\0';
    return attn_sysfs_parse_number(text, count) ? ATTN_ENERGY_OK : ATTN_ENERGY_FAILED;
}

static attn_energy_state rapl_read(attn_energy_source *source, size_t channel, uint64_t *count)
{
    return read_file(((rapl_source *)source)->files[channel], count);
}

/* Opens a channel's counter and says what is wrong with it, if anything is. */
static int open_counter(const char *root, attn_energy_channel *channel)
{
    char path[ATTN_SYSFS_PATH_BYTES];
    snprintf(path, sizeof path, "%s%s", root, channel->path);
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    const int problem = file < 0 ? errno : 0;
    uint64_t count = 0;
    channel->state = problem == EACCES || problem == EPERM ? ATTN_ENERGY_DENIED
                     : problem != 0                        ? ATTN_ENERGY_FAILED
                                                           : read_file(file, &count);
    if (channel->state == ATTN_ENERGY_OK) return file;
    if (file >= 0) close(file);
    if (channel->state == ATTN_ENERGY_DENIED) {
        snprintf(channel->why, sizeof channel->why,
                 "no permission (Linux 5.10 made RAPL root-only)");
        snprintf(channel->fix, sizeof channel->fix, "%s", permission_fix);
    } else if (problem != 0) {
        snprintf(channel->why, sizeof channel->why, "cannot be opened: %s", strerror(problem));
    } else {
        snprintf(channel->why, sizeof channel->why, "does not hold a number");
        snprintf(channel->fix, sizeof channel->fix,
                 "reload the intel_rapl_msr module; the kernel log may say more");
    }
    return -1;
}

static void add_zone(rapl_source *source, const char *root, const char *prefix, zone_name zone)
{
    char directory[96], path[160], name[32];
    if (zone.child == NO_INDEX)
        snprintf(directory, sizeof directory, POWERCAP "/%s%d", prefix, zone.zone);
    else
        snprintf(directory, sizeof directory, POWERCAP "/%s%d:%d", prefix, zone.zone, zone.child);
    snprintf(path, sizeof path, "%s/name", directory);
    attn_energy_channel channel =
        attn_energy_channel_make(ATTN_ENERGY_PACKAGE, ATTN_ENERGY_COUNTER);
    if (attn_sysfs_read(root, path, name, sizeof name) != 0 || !set_domain(&channel, name)) return;

    const attn_energy_channel *top = NULL;
    for (size_t i = 0; i < source->base.n_channels; i++) {
        if (zone.child == NO_INDEX || source->zones[i] != zone.zone) continue;
        top = &source->channels[i];
        /* Memory lies beside the package although the kernel files it below. */
        if (channel.domain != ATTN_ENERGY_DRAM) channel.parent = (int)i;
        break;
    }
    snprintf(channel.id, sizeof channel.id, "%.40s%s%s", top ? top->id : "rapl:", top ? "/" : "",
             name);
    snprintf(channel.path, sizeof channel.path, "%s/energy_uj", directory);
    snprintf(path, sizeof path, "%s/max_energy_range_uj", directory);
    if (attn_sysfs_read_number(root, path, &channel.range) != 0) channel.range = 0;
    /* The register has 32 bits; the file shows it in microjoules. */
    channel.resolution_j =
        channel.range > 0 ? (double)channel.range * channel.unit_j / 4294967296.0 : NAN;
    attn_rapl_note(&source->model, &channel);

    const size_t at = source->base.n_channels++;
    source->zones[at] = zone.child == NO_INDEX ? zone.zone : NO_INDEX;
    source->files[at] = open_counter(root, &channel);
    source->channels[at] = channel;
}

/* The socket of "rapl:package-1" or "rapl:package-1-die-0"; NO_INDEX for other channels. */
static int package_of(const attn_energy_channel *channel)
{
    static const char start[] = "rapl:package-";
    if (channel->domain != ATTN_ENERGY_PACKAGE || !starts_with(channel->id, start)) return NO_INDEX;
    return atoi(channel->id + sizeof start - 1);
}

/* A socket without a zone makes the sum over packages incomplete: it becomes a channel that is
 * absent. Sockets and zones are compared by number only where their counts differ, because some
 * firmware numbers a single socket otherwise than the zone. */
static void add_missing_packages(rapl_source *source, const char *root)
{
    unsigned packages[ATTN_MACHINE_PACKAGES_MAX];
    const size_t n_packages = attn_machine_packages(root, packages);
    bool has_zone[ATTN_MACHINE_PACKAGES_MAX] = {false};
    size_t n_with_zone = 0;
    for (size_t i = 0; i < source->base.n_channels; i++) {
        const int package = package_of(&source->channels[i]);
        if (package == NO_INDEX) continue;
        bool is_new = true; /* not another die of a socket seen before */
        for (size_t k = 0; k < i; k++)
            if (package_of(&source->channels[k]) == package) is_new = false;
        if (is_new) n_with_zone++;
        for (size_t k = 0; k < n_packages; k++)
            if (packages[k] == (unsigned)package) has_zone[k] = true;
    }
    for (size_t k = 0; n_with_zone > 0 && n_with_zone < n_packages && k < n_packages; k++) {
        if (has_zone[k] || source->base.n_channels == ATTN_ENERGY_CHANNELS_MAX) continue;
        const size_t at = source->base.n_channels++;
        attn_energy_channel *channel = &source->channels[at];
        *channel = attn_energy_channel_make(ATTN_ENERGY_PACKAGE, ATTN_ENERGY_COUNTER);
        channel->state = ATTN_ENERGY_ABSENT;
        channel->power_bound_w = 2000.0;
        source->files[at] = -1;
        source->zones[at] = NO_INDEX;
        snprintf(channel->id, sizeof channel->id, "rapl:package-%u", packages[k]);
        snprintf(channel->path, sizeof channel->path, POWERCAP " (no zone of package-%u)",
                 packages[k]);
        snprintf(channel->why, sizeof channel->why,
                 "package-%u of this machine has no RAPL zone, so the sum would lack it",
                 packages[k]);
        snprintf(channel->fix, sizeof channel->fix,
                 "bring a core of package-%u online, reload "
                 "the intel_rapl_msr module",
                 packages[k]);
    }
}

static void explain_absence(rapl_source *source, const char *root, int problem)
{
    attn_energy_source *base = &source->base;
    char hypervisor[64];
    if (attn_machine_is_virtual(root, hypervisor, sizeof hypervisor)) {
        snprintf(base->why, sizeof base->why,
                 "virtual machines do not expose RAPL: no zone in " POWERCAP " (hypervisor: %s)",
                 hypervisor);
        snprintf(base->fix, sizeof base->fix,
                 "run on bare metal; until then energy is modelled from processor time");
    } else if (problem == EACCES || problem == EPERM) {
        snprintf(base->why, sizeof base->why, POWERCAP ": %s", strerror(problem));
        snprintf(base->fix, sizeof base->fix, "let this user list the directory");
    } else {
        snprintf(base->why, sizeof base->why, "no RAPL zone in " POWERCAP "%s%s",
                 problem ? ": " : "", problem ? strerror(problem) : "");
        snprintf(base->fix, sizeof base->fix,
                 "modprobe intel_rapl_msr; in a container mount " POWERCAP
                 " and /sys/devices/virtual/powercap read-only");
    }
}

static void rapl_close(attn_energy_source *base)
{
    if (!base) return;
    rapl_source *source = (rapl_source *)base;
    for (size_t i = 0; i < ATTN_ENERGY_CHANNELS_MAX; i++)
        if (source->files[i] >= 0) close(source->files[i]);
    attn_free(source);
}

static attn_status rapl_open(attn_energy_source **out, const attn_energy_options *options,
                             attn_error *error)
{
    const char *root = options->root;
    static const char *const prefixes[] = {"intel-rapl:", "intel-rapl-mmio:"};
    rapl_source *source = attn_alloc(ATTN_MEMORY_OTHER, sizeof *source);
    if (!source) return attn_fail(error, ATTN_EMEMORY, "RAPL: out of memory");
    source->base.operations = &attn_energy_rapl_powercap;
    source->base.channels = source->channels;
    for (size_t i = 0; i < ATTN_ENERGY_CHANNELS_MAX; i++) source->files[i] = -1;
    source->model = attn_rapl_model_read(root);

    int problem = 0;
    for (size_t p = 0; p < 2 && source->base.n_channels == 0; p++) {
        zone_name zones[ATTN_ENERGY_CHANNELS_MAX];
        size_t n_zones = 0;
        problem = list_zones(root, prefixes[p], zones, &n_zones);
        for (size_t i = 0; i < n_zones; i++) add_zone(source, root, prefixes[p], zones[i]);
    }
    if (source->base.n_channels == 0)
        explain_absence(source, root, problem);
    else
        add_missing_packages(source, root);
    *out = &source->base;
    return ATTN_OK;
}

const attn_energy_operations attn_energy_rapl_powercap = {
    .name = "rapl-powercap",
    .path = POWERCAP,
    .domains = 1u << ATTN_ENERGY_PACKAGE | 1u << ATTN_ENERGY_DRAM | 1u << ATTN_ENERGY_PSYS,
    .open = rapl_open,
    .read = rapl_read,
    .close = rapl_close,
};
