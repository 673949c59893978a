/* Meters outside the machine's own registers, read from text: a command of the user's, a file
 * that another program extends, and the board controller (DCMI) through ipmitool or ipmi-dcmi.
 *
 * A command runs as a process of its own, because such meters block; its output is read without
 * waiting, and the newest line counts. Lines are "epoch_seconds watts [joules]", apart by blanks,
 * commas or semicolons; other lines are skipped, and so are those that are late, repeated or no
 * numbers. A meter that falls silent is silent: its last value is not drawn out. */
#define _GNU_SOURCE
#include "meters/energy_source.h"

#include "base/error.h"
#include "base/memory.h"
#include "meters/meter_log.h"
#include "meters/system_clock.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

#define FIRST_LINE_S 10.0 /* board controllers take seconds */
#define CLOCK_S      2.0  /* more than this between the meter's clock and ours is an error */

static const char dcmi_script[] =
    "if command -v ipmitool >/dev/null; then dcmi='ipmitool dcmi power reading'; "
    "elif command -v ipmi-dcmi >/dev/null; then dcmi='ipmi-dcmi --get-system-power-statistics'; "
    "else echo 'neither ipmitool nor ipmi-dcmi is installed' >&2; exit 1; fi; "
    "while :; do $dcmi || exit 1; sleep 1; done";

typedef struct external_source {
    attn_energy_source base; /* first: the meter knows no more than this */
    attn_energy_channel channels[2];
    pid_t process; /* 0 for a file */
    int file;
    double offset_s;
    char line[256];
    size_t line_bytes;
    bool is_cut; /* a line too long is dropped up to its end */
    size_t n_samples, n_dropped;
    double epoch_s, interval_s; /* of the newest sample; between the two newest */
    double watts, joules;       /* NaN when the line has no joules */
} external_source;

/* The watts of "Instantaneous power reading: 212 Watts" or "Current Power : 212 Watts". */
static bool parse_dcmi(const char *line, double *watts)
{
    const char *colon = strchr(line, ':');
    if (!colon || (!strstr(line, "Instantaneous power reading") && !strstr(line, "Current Power")))
        return false;
    char *end = NULL;
    *watts = strtod(colon + 1, &end);
    return end != colon + 1;
}

static void take_line(external_source *source, const char *line)
{
    double numbers[3] = {NAN, NAN, NAN};
    if (source->base.operations == &attn_energy_dcmi) {
        numbers[0] = attn_clock_epoch_s();
        if (!parse_dcmi(line, &numbers[1])) return;
    } else if (attn_meter_line_parse(line, numbers) < 2) {
        return;
    }
    const double epoch_s = numbers[0] + source->offset_s;
    const bool has_joules = isfinite(numbers[2]) && numbers[2] >= 0.0;
    if (!isfinite(epoch_s) || !(numbers[1] >= 0.0) || !isfinite(numbers[1]) ||
        (source->n_samples > 0 && epoch_s <= source->epoch_s)) {
        source->n_dropped++;
        return;
    }
    source->interval_s = source->n_samples > 0 ? epoch_s - source->epoch_s : 0.0;
    source->epoch_s = epoch_s;
    source->watts = numbers[1];
    source->joules = has_joules ? numbers[2] : NAN;
    source->n_samples++;
}

/* Takes what has come, without waiting. */
static void drain(external_source *source)
{
    char bytes[1024];
    for (;;) {
        const ssize_t n = read(source->file, bytes, sizeof bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return;
        for (ssize_t i = 0; i < n; i++) {
            if (bytes[i] == '\n') {
                source->line[source->line_bytes] = '\0';
                if (!source->is_cut) take_line(source, source->line);
                source->line_bytes = 0;
                source->is_cut = false;
            } else if (source->line_bytes + 1 < sizeof source->line) {
                source->line[source->line_bytes++] = bytes[i];
            } else {
                source->is_cut = true;
            }
        }
    }
}

static attn_energy_state external_read(attn_energy_source *base, size_t channel, uint64_t *count)
{
    external_source *source = (external_source *)base;
    drain(source);
    const double age_s = attn_clock_epoch_s() - source->epoch_s;
    if (source->n_samples == 0 || age_s > 5.0 + 3.0 * source->interval_s || age_s < -CLOCK_S)
        return ATTN_ENERGY_SILENT;
    const bool is_counter = base->channels[channel].kind == ATTN_ENERGY_COUNTER;
    const double value = is_counter ? source->joules : source->watts;
    if (!(value >= 0.0 && value < 1e12)) return ATTN_ENERGY_FAILED;
    *count = (uint64_t)(value * 1e6 + 0.5);
    return ATTN_ENERGY_OK;
}

static void external_close(attn_energy_source *base)
{
    if (!base) return;
    external_source *source = (external_source *)base;
    if (source->file >= 0) close(source->file);
    if (source->process > 0) {
        kill(-source->process, SIGTERM);
        struct timespec wait = {.tv_nsec = 10000000};
        int tries = 0;
        while (waitpid(source->process, NULL, WNOHANG) == 0 && tries++ < 50) nanosleep(&wait, NULL);
        if (tries > 50) {
            kill(-source->process, SIGKILL);
            waitpid(source->process, NULL, 0);
        }
    }
    attn_free(source);
}

/* A shell in a group of its own; it ends with the pipe's reading end, at its next line. */
static int start_command(external_source *source, const char *command)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return errno;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, defaults;
    sigemptyset(&none);
    sigfillset(&defaults);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                              POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    char shell[] = "/bin/sh", option[] = "-c";
    char *text = attn_strdup(command);
    char *const arguments[] = {shell, option, text, NULL};
    const int problem =
        text ? posix_spawn(&source->process, shell, &actions, &attributes, arguments, environ)
             : ENOMEM;
    if (problem != 0) source->process = 0;
    attn_free(text);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    source->file = ends[0];
    fcntl(source->file, F_SETFL, O_NONBLOCK);
    return problem;
}

/* Waits until a sample has come; false when none does. */
static bool wait_for_sample(external_source *source)
{
    const double end_s = attn_clock_epoch_s() + FIRST_LINE_S;
    while (source->n_samples == 0 && attn_clock_epoch_s() < end_s) {
        struct pollfd waiting = {.fd = source->file, .events = POLLIN};
        const int ready = source->process > 0 ? poll(&waiting, 1, 100) : 0;
        drain(source);
        if (source->n_samples > 0) break;
        if (source->process == 0) return false; /* a file has its lines, or has none */
        if (ready > 0 && (waiting.revents & POLLHUP) && !(waiting.revents & POLLIN)) return false;
    }
    return source->n_samples > 0;
}

static attn_status check_first(const external_source *source, const char *what, attn_error *error)
{
    if (source->n_samples == 0 && source->n_dropped > 0)
        return attn_fail(error, ATTN_EARGUMENT,
                         "%.200s gives no numbers of watts: lines must be "
                         "'epoch_seconds watts [joules]'",
                         what);
    if (source->n_samples == 0)
        return attn_fail(error, ATTN_EIO,
                         "%.200s gave no line 'epoch_seconds watts [joules]' in %.0f s", what,
                         FIRST_LINE_S);
    const double behind_s = attn_clock_epoch_s() - source->epoch_s;
    if (fabs(behind_s) > CLOCK_S && !(source->process == 0 && behind_s > 0.0 && behind_s < 60.0))
        return attn_fail(error, ATTN_EARGUMENT,
                         "the clock of %.200s is %.1f s %s ours: set one of them, or give "
                         "--meter-offset %.0f for a file",
                         what, fabs(behind_s), behind_s > 0.0 ? "behind" : "ahead of", behind_s);
    return ATTN_OK;
}

static void add_channels(external_source *source, const char *id, const char *path,
                         double interval_s)
{
    attn_energy_source *base = &source->base;
    if (isfinite(source->joules)) {
        attn_energy_channel *counter = &source->channels[base->n_channels++];
        *counter = attn_energy_channel_make(ATTN_ENERGY_SYSTEM, ATTN_ENERGY_COUNTER);
        counter->range = UINT64_MAX;
        counter->power_bound_w = 1e6;
        counter->interval_s = interval_s;
        snprintf(counter->id, sizeof counter->id, "%s", id);
        snprintf(counter->path, sizeof counter->path, "%.200s", path);
    }
    attn_energy_channel *gauge = &source->channels[base->n_channels];
    *gauge = attn_energy_channel_make(ATTN_ENERGY_SYSTEM, ATTN_ENERGY_GAUGE);
    gauge->unit_w = 1e-6;
    gauge->power_bound_w = 1e6;
    gauge->interval_s = interval_s;
    gauge->twin_of = base->n_channels > 0 ? 0 : -1;
    snprintf(gauge->id, sizeof gauge->id, "%s/power", id);
    snprintf(gauge->path, sizeof gauge->path, "%.200s", path);
    base->n_channels++;
}

static attn_status make(external_source **out, const attn_energy_operations *operations,
                        attn_error *error)
{
    external_source *source = attn_alloc(ATTN_MEMORY_OTHER, sizeof *source);
    if (!source) return attn_fail(error, ATTN_EMEMORY, "external meter: out of memory");
    source->base.operations = operations;
    source->base.channels = source->channels;
    source->file = -1;
    source->joules = NAN;
    *out = source;
    return ATTN_OK;
}

static attn_status external_open(attn_energy_source **out, const attn_energy_options *options,
                                 attn_error *error)
{
    const bool is_command = options->command != NULL;
    if (!is_command && !options->csv) return ATTN_OK; /* not wanted */
    external_source *source = NULL;
    attn_status status = make(&source, &attn_energy_external, error);
    if (status != ATTN_OK) return status;
    const char *what = is_command ? options->command : options->csv;
    int problem = 0;
    if (is_command) {
        problem = start_command(source, options->command);
    } else {
        source->offset_s = options->csv_offset_s;
        source->file = open(options->csv, O_RDONLY | O_CLOEXEC);
        if (source->file < 0) problem = errno;
        /* Only the end says what is now; a first line that is cut is no number or is overtaken. */
        if (source->file >= 0 && lseek(source->file, -4096, SEEK_END) > 0) source->is_cut = true;
    }
    if (problem != 0) status = attn_fail_errno(error, ATTN_EIO, problem, "%.200s", what);
    if (status == ATTN_OK && !wait_for_sample(source)) source->n_samples = 0;
    if (status == ATTN_OK) status = check_first(source, what, error);
    if (status != ATTN_OK) {
        external_close(&source->base);
        return status;
    }
    /* Known after two samples; a second is what such meters do. */
    add_channels(source, "external", what, source->interval_s > 0.0 ? source->interval_s : 1.0);
    *out = &source->base;
    return ATTN_OK;
}

static attn_status dcmi_open(attn_energy_source **out, const attn_energy_options *options,
                             attn_error *error)
{
    if (!options->uses_dcmi) return ATTN_OK; /* not wanted: asking costs the controller's time */
    external_source *source = NULL;
    const attn_status status = make(&source, &attn_energy_dcmi, error);
    if (status != ATTN_OK) return status;
    *out = &source->base;
    const int problem = start_command(source, dcmi_script);
    if (problem == 0 && wait_for_sample(source)) {
        add_channels(source, "dcmi", "DCMI power reading of the board controller", 1.0);
        return ATTN_OK;
    }
    snprintf(source->base.why, sizeof source->base.why,
             "the board controller gave no power reading in %.0f s", FIRST_LINE_S);
    snprintf(source->base.fix, sizeof source->base.fix,
             "apt-get install ipmitool; let this user read /dev/ipmi0: udev rule "
             "KERNEL==\"ipmi*\", GROUP=\"power\", MODE=\"0660\"");
    return ATTN_OK;
}

const attn_energy_operations attn_energy_external = {
    .name = "external",
    .path = "--meter-cmd, --meter-csv",
    .domains = 0, /* its absence explains nothing */
    .open = external_open,
    .read = external_read,
    .close = external_close,
};

const attn_energy_operations attn_energy_dcmi = {
    .name = "dcmi",
    .path = "ipmitool dcmi power reading",
    .domains = 1u << ATTN_ENERGY_SYSTEM,
    .open = dcmi_open,
    .read = external_read,
    .close = external_close,
};
