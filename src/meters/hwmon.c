/* Power sensors of the hwmon class: ACPI power meters (the whole machine), amdgpu and Intel
 * graphics boards, modules of Arm servers, supply rails. Numbers of hwmon directories change from
 * boot to boot, so what a sensor is comes from its names. Values are microwatts and microjoules. */
#define _GNU_SOURCE
#include "meters/energy_source.h"

#include "base/error.h"
#include "base/memory.h"
#include "meters/gpu.h"
#include "meters/sysfs.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HWMON "/sys/class/hwmon"

enum { HWMON_MOST = 64, SENSORS_MOST = 8 };

typedef struct hwmon_source {
    attn_energy_source base; /* first: the meter knows no more than this */
    attn_energy_channel channels[ATTN_ENERGY_CHANNELS_MAX];
    int files[ATTN_ENERGY_CHANNELS_MAX];
} hwmon_source;

static attn_energy_state hwmon_read(attn_energy_source *base, size_t channel, uint64_t *count)
{
    char text[64];
    ssize_t length;
    const int file = ((const hwmon_source *)base)->files[channel];
    do length = pread(file, text, sizeof text - 1, 0);
    while (length < 0 && errno == EINTR);
    if (length < 0)
        return errno == ENODATA || errno == EAGAIN || errno == EBUSY  ? ATTN_ENERGY_SILENT
               : errno == EACCES || errno == EPERM                    ? ATTN_ENERGY_DENIED
               : errno == ENODEV || errno == ENOENT || errno == ESRCH ? ATTN_ENERGY_LOST
                                                                      : ATTN_ENERGY_FAILED;
    text[length] = '\0';
    return attn_sysfs_parse_number(text, count) ? ATTN_ENERGY_OK : ATTN_ENERGY_FAILED;
}

static bool has_word(const char *text, const char *word)
{
    return strcasestr(text, word) != NULL;
}

/* What a sensor measures. The module sensors of Arm servers come under the name of ACPI meters. */
static attn_energy_domain domain_of(const char *name, const char *label)
{
    const bool is_acpi = strcmp(name, "power_meter") == 0;
    if (has_word(label, "module power")) return ATTN_ENERGY_MODULE;
    if (has_word(label, "cpu power")) return ATTN_ENERGY_PACKAGE;
    if (is_acpi && (*label == '\0' || has_word(label, "system") || has_word(label, "total")))
        return ATTN_ENERGY_SYSTEM;
    if (strcmp(name, "amdgpu") == 0 || strcmp(name, "xe") == 0 || strcmp(name, "i915") == 0)
        return ATTN_ENERGY_GPU;
    return ATTN_ENERGY_RAIL;
}

/* "0000:03:00.0" of the device that a sensor belongs to; "" when it is no PCI device. */
static void pci_address(const char *root, const char *directory, char *address, size_t size_bytes)
{
    char path[ATTN_SYSFS_PATH_BYTES], text[1024];
    snprintf(path, sizeof path, "%.100s/device/uevent", directory);
    address[0] = '\0';
    if (attn_sysfs_read(root, path, text, sizeof text) == 0)
        attn_sysfs_find(text, "PCI_SLOT_NAME", address, size_bytes);
}

/* Of several files with the same quantity the first that is there. */
static void add_sensor(hwmon_source *source, const attn_energy_options *options,
                       const char *directory, const char *name, int sensor)
{
    static const struct {
        const char *suffix;
        attn_energy_kind kind;
    } files[] = {{"power%d_average", ATTN_ENERGY_GAUGE}, {"power%d_input", ATTN_ENERGY_GAUGE}};
    char path[ATTN_SYSFS_PATH_BYTES], label[64], address[32], text[64];
    uint64_t number = 0;
    if (source->base.n_channels == ATTN_ENERGY_CHANNELS_MAX) return;
    snprintf(path, sizeof path, "%s/power%d_is_battery", directory, sensor);
    if (attn_sysfs_read_number(options->root, path, &number) == 0 && number != 0) return;
    snprintf(path, sizeof path, "%s/power%d_label", directory, sensor);
    if (attn_sysfs_read(options->root, path, label, sizeof label) != 0) {
        snprintf(path, sizeof path, "%s/power%d_oem_info", directory, sensor);
        attn_sysfs_read(options->root, path, label, sizeof label);
    }
    const attn_energy_domain domain = domain_of(name, label);
    pci_address(options->root, directory, address, sizeof address);
    if (domain == ATTN_ENERGY_GPU && !attn_gpu_is_wanted(options->gpus, address)) return;

    attn_energy_channel channel = attn_energy_channel_make(domain, ATTN_ENERGY_GAUGE);
    if (domain == ATTN_ENERGY_GPU) snprintf(channel.board, sizeof channel.board, "%.31s", address);
    int file = -1, problem = ENOENT;
    /* Intel boards count joules themselves. */
    if (domain == ATTN_ENERGY_GPU && strcmp(name, "amdgpu") != 0) {
        snprintf(channel.path, sizeof channel.path, "%s/energy%d_input", directory, sensor);
        snprintf(path, sizeof path, "%s%s", options->root, channel.path);
        file = open(path, O_RDONLY | O_CLOEXEC);
        if (file >= 0) channel.kind = ATTN_ENERGY_COUNTER;
        if (file >= 0) channel.range = UINT64_MAX;
        channel.resolution_j = 1e-6;
    }
    for (size_t i = 0; file < 0 && problem == ENOENT && i < sizeof files / sizeof *files; i++) {
        snprintf(text, sizeof text, files[i].suffix, sensor);
        snprintf(channel.path, sizeof channel.path, "%s/%s", directory, text);
        snprintf(path, sizeof path, "%s%s", options->root, channel.path);
        file = open(path, O_RDONLY | O_CLOEXEC);
        problem = file < 0 ? errno : 0;
    }
    if (file < 0 && problem == ENOENT) return;
    channel.unit_w = 1e-6;
    channel.power_bound_w = domain == ATTN_ENERGY_SYSTEM ? 20000.0 : 5000.0;
    snprintf(channel.id, sizeof channel.id, "hwmon:%.24s%s%.20s%s%.24s", name, *address ? "@" : "",
             address, *label ? "/" : "", label);
    snprintf(path, sizeof path, "%s/power%d_average_interval", directory, sensor);
    if (attn_sysfs_read_number(options->root, path, &number) == 0 && number > 0)
        channel.interval_s = (double)number * 1e-3;
    snprintf(path, sizeof path, "%s/power%d_accuracy", directory, sensor);
    if (attn_sysfs_read(options->root, path, text, sizeof text) == 0)
        channel.accuracy = strtod(text, NULL) / 100.0;
    if (domain == ATTN_ENERGY_GPU && strcmp(name, "amdgpu") == 0)
        snprintf(channel.note, sizeof channel.note, "on an APU this power includes the processor");
    if (file < 0) {
        const bool is_denied = problem == EACCES || problem == EPERM;
        channel.state = is_denied ? ATTN_ENERGY_DENIED : ATTN_ENERGY_FAILED;
        snprintf(channel.why, sizeof channel.why, "%s", strerror(problem));
        if (is_denied)
            snprintf(channel.fix, sizeof channel.fix,
                     "udev rule SUBSYSTEM==\"hwmon\", ACTION==\"add\", RUN+=\"/bin/chmod g+r "
                     "/sys/%%p/power%d_average\"",
                     sensor);
    }
    const size_t at = source->base.n_channels++;
    source->files[at] = file;
    source->channels[at] = channel;
}

static void hwmon_close(attn_energy_source *base)
{
    if (!base) return;
    hwmon_source *source = (hwmon_source *)base;
    for (size_t i = 0; i < ATTN_ENERGY_CHANNELS_MAX; i++)
        if (source->files[i] >= 0) close(source->files[i]);
    attn_free(source);
}

static attn_status hwmon_open(attn_energy_source **out, const attn_energy_options *options,
                              attn_error *error)
{
    hwmon_source *source = attn_alloc(ATTN_MEMORY_OTHER, sizeof *source);
    if (!source) return attn_fail(error, ATTN_EMEMORY, "hwmon: out of memory");
    source->base.operations = &attn_energy_hwmon;
    source->base.channels = source->channels;
    for (size_t i = 0; i < ATTN_ENERGY_CHANNELS_MAX; i++) source->files[i] = -1;
    for (int n = 0; n < HWMON_MOST; n++) {
        char directory[64], path[96], name[64];
        snprintf(directory, sizeof directory, HWMON "/hwmon%d", n);
        snprintf(path, sizeof path, "%s/name", directory);
        if (attn_sysfs_read(options->root, path, name, sizeof name) != 0) continue;
        for (int sensor = 1; sensor <= SENSORS_MOST; sensor++)
            add_sensor(source, options, directory, name, sensor);
    }
    if (source->base.n_channels == 0) {
        snprintf(source->base.why, sizeof source->base.why, "no power sensor in " HWMON);
        snprintf(source->base.fix, sizeof source->base.fix,
                 "modprobe acpi_power_meter on servers; or a wall meter with --meter-cmd");
    }
    *out = &source->base;
    return ATTN_OK;
}

const attn_energy_operations attn_energy_hwmon = {
    .name = "hwmon",
    .path = HWMON,
    .domains = 1u << ATTN_ENERGY_SYSTEM | 1u << ATTN_ENERGY_GPU | 1u << ATTN_ENERGY_MODULE,
    .open = hwmon_open,
    .read = hwmon_read,
    .close = hwmon_close,
};
