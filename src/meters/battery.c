/* The battery of a laptop: the whole machine, its screen included, while it runs on it. Several
 * batteries are one channel, since machines empty them in turn; on mains power the channel is
 * silent, because what flows then is not what the machine uses. */
#define _GNU_SOURCE
#include "meters/energy_source.h"

#include "base/error.h"
#include "base/memory.h"
#include "meters/sysfs.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define POWER_SUPPLY "/sys/class/power_supply"

enum { BATTERIES_MOST = 4 };

typedef struct battery_source {
    attn_energy_source base; /* first: the meter knows no more than this */
    attn_energy_channel channel;
    char root[ATTN_SYSFS_PATH_BYTES];
    char directories[BATTERIES_MOST][96];
    size_t n_batteries;
} battery_source;

static bool read_value(const battery_source *source, size_t battery, const char *file,
                       uint64_t *value)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", source->directories[battery], file);
    return attn_sysfs_read_number(source->root, path, value) == 0;
}

/* Microwatts that one battery gives now. */
static attn_energy_state read_one(const battery_source *source, size_t battery, uint64_t *power_uw)
{
    char path[160], status[32];
    uint64_t current_ua = 0, voltage_uv = 0;
    *power_uw = 0;
    snprintf(path, sizeof path, "%s/status", source->directories[battery]);
    const int problem = attn_sysfs_read(source->root, path, status, sizeof status);
    if (problem != 0) return problem == ENOENT ? ATTN_ENERGY_LOST : ATTN_ENERGY_FAILED;
    if (strcmp(status, "Charging") == 0) return ATTN_ENERGY_SILENT;
    if (strcmp(status, "Discharging") != 0) return ATTN_ENERGY_OK; /* full or resting: gives 0 */
    if (read_value(source, battery, "power_now", power_uw)) return ATTN_ENERGY_OK;
    if (!read_value(source, battery, "current_now", &current_ua) ||
        !read_value(source, battery, "voltage_now", &voltage_uv))
        return ATTN_ENERGY_FAILED;
    *power_uw = (uint64_t)((double)current_ua * (double)voltage_uv * 1e-6 + 0.5);
    return ATTN_ENERGY_OK;
}

static attn_energy_state battery_read(attn_energy_source *base, size_t channel, uint64_t *count)
{
    const battery_source *source = (const battery_source *)base;
    (void)channel;
    *count = 0;
    for (size_t i = 0; i < source->n_batteries; i++) {
        uint64_t power_uw = 0;
        const attn_energy_state state = read_one(source, i, &power_uw);
        if (state != ATTN_ENERGY_OK) return state;
        *count += power_uw;
    }
    return *count > 0 ? ATTN_ENERGY_OK : ATTN_ENERGY_SILENT;
}

static void find_batteries(battery_source *source)
{
    char path[ATTN_SYSFS_PATH_BYTES + 64], text[32];
    snprintf(path, sizeof path, "%s" POWER_SUPPLY, source->root);
    DIR *directory = opendir(path);
    if (!directory) return;
    const struct dirent *entry;
    while (source->n_batteries < BATTERIES_MOST && (entry = readdir(directory))) {
        if (entry->d_name[0] == '.' || strlen(entry->d_name) > 48) continue;
        char *name = source->directories[source->n_batteries];
        snprintf(name, sizeof source->directories[0], POWER_SUPPLY "/%.48s", entry->d_name);
        snprintf(path, sizeof path, "%.100s/type", name);
        if (attn_sysfs_read(source->root, path, text, sizeof text) != 0 ||
            strcmp(text, "Battery") != 0)
            continue;
        /* Mice and headsets have batteries too. */
        snprintf(path, sizeof path, "%.100s/scope", name);
        if (attn_sysfs_read(source->root, path, text, sizeof text) == 0 &&
            strcmp(text, "Device") == 0)
            continue;
        source->n_batteries++;
    }
    closedir(directory);
}

static void battery_close(attn_energy_source *base)
{
    attn_free(base);
}

static attn_status battery_open(attn_energy_source **out, const attn_energy_options *options,
                                attn_error *error)
{
    battery_source *source = attn_alloc(ATTN_MEMORY_OTHER, sizeof *source);
    if (!source) return attn_fail(error, ATTN_EMEMORY, "battery: out of memory");
    source->base.operations = &attn_energy_battery;
    source->base.channels = &source->channel;
    snprintf(source->root, sizeof source->root, "%s", options->root);
    find_batteries(source);
    *out = &source->base;
    if (source->n_batteries == 0) {
        snprintf(source->base.why, sizeof source->base.why, "no battery in " POWER_SUPPLY);
        return ATTN_OK;
    }
    source->base.n_channels = 1;
    source->channel = attn_energy_channel_make(ATTN_ENERGY_SYSTEM, ATTN_ENERGY_GAUGE);
    attn_energy_channel *channel = &source->channel;
    channel->unit_w = 1e-6;
    channel->power_bound_w = 1000.0;
    channel->shortest_s = 60.0;
    snprintf(channel->id, sizeof channel->id, "battery");
    snprintf(channel->path, sizeof channel->path, "%s%s", source->directories[0],
             source->n_batteries > 1 ? " and others" : "");
    snprintf(channel->note, sizeof channel->note, "the whole machine with its screen");
    uint64_t count = 0;
    channel->state = battery_read(*out, 0, &count);
    if (channel->state == ATTN_ENERGY_FAILED) {
        snprintf(channel->why, sizeof channel->why,
                 "it tells neither its power nor its current and voltage");
    } else if (channel->state != ATTN_ENERGY_OK) {
        snprintf(channel->why, sizeof channel->why, "the machine does not run on its battery");
        snprintf(channel->fix, sizeof channel->fix,
                 "unplug it for whole-machine energy; speed may differ on battery");
    }
    return ATTN_OK;
}

const attn_energy_operations attn_energy_battery = {
    .name = "battery",
    .path = POWER_SUPPLY,
    .domains = 0, /* its absence explains nothing */
    .open = battery_open,
    .read = battery_read,
    .close = battery_close,
};
