/* /proc/self and getrusage. */
#define _GNU_SOURCE
#include "meters/process.h"

#include "base/error.h"
#include "meters/machine.h"
#include "meters/sysfs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static attn_figure memory_figure(const char *root, const char *name, const char *key)
{
    char text[4096], source[ATTN_FIGURE_TEXT_BYTES], why[ATTN_FIGURE_TEXT_BYTES];
    snprintf(source, sizeof source, "/proc/self/status %s", key);
    const int problem = attn_sysfs_read(root, "/proc/self/status", text, sizeof text);
    if (problem != 0) {
        snprintf(why, sizeof why, "/proc/self/status: %s; mount /proc", strerror(problem));
        return attn_figure_unavailable(name, "byte", source, why);
    }
    uint64_t size_kib = 0;
    if (!attn_sysfs_find_number(text, key, &size_kib)) {
        snprintf(why, sizeof why, "/proc/self/status has no number for %s", key);
        return attn_figure_unavailable(name, "byte", source, why);
    }
    return attn_figure_make(name, "byte", (double)size_kib * 1024.0, ATTN_MEASURED, source);
}

attn_figure attn_process_memory_peak(const char *root)
{
    return memory_figure(root, "memory_peak_bytes", "VmHWM");
}

attn_figure attn_process_memory_resident(const char *root)
{
    return memory_figure(root, "memory_resident_bytes", "VmRSS");
}

attn_status attn_process_memory_reset_peak(const char *root, attn_error *error)
{
    char path[ATTN_SYSFS_PATH_BYTES];
    const int length = snprintf(path, sizeof path, "%s/proc/self/clear_refs", root);
    if (length < 0 || (size_t)length >= sizeof path)
        return attn_fail(error, ATTN_EARGUMENT, "root path too long: '%.100s...'", root);
    const int file = open(path, O_WRONLY | O_CLOEXEC);
    int problem = file < 0 ? errno : 0;
    if (file >= 0) {
        if (write(file, "5", 1) != 1) problem = errno;
        if (close(file) != 0 && problem == 0) problem = errno;
    }
    if (problem == 0) return ATTN_OK;
    return attn_fail_errno(error, ATTN_EIO, problem,
                           "%s: the memory high-water mark cannot be reset, so that it covers the "
                           "whole life of the process",
                           path);
}

attn_figure attn_system_load(const char *root)
{
    static const char name[] = "load_average_1min", source[] = "/proc/loadavg";
    char text[128];
    double load = 0.0;
    const int problem = attn_sysfs_read(root, source, text, sizeof text);
    if (problem != 0) return attn_figure_unavailable(name, "", source, strerror(problem));
    if (sscanf(text, "%lf", &load) != 1)
        return attn_figure_unavailable(name, "", source, "/proc/loadavg does not hold a number");
    return attn_figure_make(name, "", load, ATTN_MEASURED, source);
}

static int read_io(const char *root, attn_process_mark *mark)
{
    char text[1024];
    const int problem = attn_sysfs_read(root, "/proc/self/io", text, sizeof text);
    if (problem != 0) return problem;
    const bool is_complete = attn_sysfs_find_number(text, "read_bytes", &mark->read_bytes) &&
                             attn_sysfs_find_number(text, "write_bytes", &mark->write_bytes);
    return is_complete ? 0 : EBADMSG;
}

/* "cpu user nice system idle iowait irq softirq steal guest guest_nice"; guest time is already
 * part of user time. */
static int read_steal(const char *root, attn_process_mark *mark)
{
    char text[256];
    const int problem = attn_sysfs_read(root, "/proc/stat", text, sizeof text);
    if (problem != 0) return problem;
    uint64_t ticks[8] = {0};
    if (sscanf(text,
               "cpu %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
               " %" SCNu64 " %" SCNu64,
               &ticks[0], &ticks[1], &ticks[2], &ticks[3], &ticks[4], &ticks[5], &ticks[6],
               &ticks[7]) != 8)
        return EBADMSG;
    for (size_t i = 0; i < 8; i++) mark->total_ticks += ticks[i];
    mark->steal_ticks = ticks[7];
    return 0;
}

/* Each processor counts for its core, and once more for its package. */
static int read_throttles(const char *root, attn_process_mark *mark)
{
    static const char *const files[] = {"core_throttle_count", "package_throttle_count"};
    const size_t cores = attn_machine_cores_online(root);
    for (size_t core = 0; core < cores; core++)
        for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
            char path[128];
            uint64_t count = 0;
            snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/thermal_throttle/%s", core,
                     files[i]);
            const int problem = attn_sysfs_read_number(root, path, &count);
            if (problem != 0 && (core + i == 0 || problem != ENOENT)) return problem;
            mark->throttles += count;
        }
    return cores > 0 ? 0 : ENOENT;
}

attn_process_mark attn_process_mark_now(const char *root)
{
    attn_process_mark mark = {0};
    mark.io_problem = read_io(root, &mark);
    mark.steal_problem = read_steal(root, &mark);
    mark.throttle_problem = read_throttles(root, &mark);
    struct rusage usage = {0};
    getrusage(RUSAGE_SELF, &usage);
    mark.minor_faults = (uint64_t)usage.ru_minflt;
    mark.major_faults = (uint64_t)usage.ru_majflt;
    mark.voluntary_switches = (uint64_t)usage.ru_nvcsw;
    mark.involuntary_switches = (uint64_t)usage.ru_nivcsw;
    return mark;
}

/* end - begin of a counter that only grows; a problem at either end makes it unavailable. */
static attn_figure counted(const char *name, const char *unit, const char *source, int problem,
                           uint64_t begin, uint64_t end)
{
    char why[ATTN_FIGURE_TEXT_BYTES] = "";
    if (problem == EACCES || problem == EPERM)
        snprintf(why, sizeof why, "%s: %s; the process must own it (ptrace rules of containers)",
                 source, strerror(problem));
    else if (problem == ENOENT)
        snprintf(why, sizeof why, "%s is absent; the kernel lacks CONFIG_TASK_IO_ACCOUNTING",
                 source);
    else if (problem != 0)
        snprintf(why, sizeof why, "%s: %s", source, strerror(problem));
    else if (end < begin)
        snprintf(why, sizeof why, "%s went backwards", source);
    if (*why) return attn_figure_unavailable(name, unit, source, why);
    return attn_figure_make(name, unit, (double)(end - begin), ATTN_COUNTED, source);
}

static attn_figure steal_share(const attn_process_mark *begin, const attn_process_mark *end)
{
    static const char name[] = "steal_share", source[] = "/proc/stat steal";
    const int problem = begin->steal_problem ? begin->steal_problem : end->steal_problem;
    if (problem != 0) return attn_figure_unavailable(name, "", source, strerror(problem));
    if (end->total_ticks <= begin->total_ticks || end->steal_ticks < begin->steal_ticks)
        return attn_figure_unavailable(name, "", source,
                                       "no clock tick passed (10 ms): the window is too short");
    return attn_figure_make(name, "",
                            (double)(end->steal_ticks - begin->steal_ticks) /
                                (double)(end->total_ticks - begin->total_ticks),
                            ATTN_MEASURED, source);
}

static attn_figure thermal_throttles(const attn_process_mark *begin, const attn_process_mark *end)
{
    static const char name[] = "thermal_throttles";
    static const char source[] = "/sys/devices/system/cpu/cpu*/thermal_throttle";
    const int problem = begin->throttle_problem ? begin->throttle_problem : end->throttle_problem;
    if (problem == ENOENT)
        return attn_figure_unavailable(name, "", source,
                                       "no processor tells: virtual machines and some makers do "
                                       "not show it");
    if (problem != 0) return attn_figure_unavailable(name, "", source, strerror(problem));
    if (end->throttles < begin->throttles)
        return attn_figure_unavailable(name, "", source,
                                       "the counts went backwards: a processor went offline");
    const double n = (double)(end->throttles - begin->throttles);
    attn_figure figure = attn_figure_make(name, "", n, ATTN_COUNTED, source);
    if (n > 0.0)
        snprintf(figure.why, sizeof figure.why,
                 "the processor slowed itself down for heat: times are not those of a cool one");
    return figure;
}

void attn_process_between(const attn_process_mark *begin, const attn_process_mark *end,
                          attn_figure figures[ATTN_PROCESS_FIGURES])
{
    const int io_problem = begin->io_problem ? begin->io_problem : end->io_problem;
    figures[ATTN_PROCESS_READ_BYTES] =
        counted("disk_read_bytes", "byte", "/proc/self/io read_bytes", io_problem,
                begin->read_bytes, end->read_bytes);
    figures[ATTN_PROCESS_WRITE_BYTES] =
        counted("disk_write_bytes", "byte", "/proc/self/io write_bytes", io_problem,
                begin->write_bytes, end->write_bytes);
    figures[ATTN_PROCESS_MINOR_FAULTS] = counted("page_faults_minor", "", "getrusage ru_minflt", 0,
                                                 begin->minor_faults, end->minor_faults);
    figures[ATTN_PROCESS_MAJOR_FAULTS] = counted("page_faults_major", "", "getrusage ru_majflt", 0,
                                                 begin->major_faults, end->major_faults);
    figures[ATTN_PROCESS_VOLUNTARY_SWITCHES] =
        counted("context_switches_voluntary", "", "getrusage ru_nvcsw", 0,
                begin->voluntary_switches, end->voluntary_switches);
    figures[ATTN_PROCESS_INVOLUNTARY_SWITCHES] =
        counted("context_switches_involuntary", "", "getrusage ru_nivcsw", 0,
                begin->involuntary_switches, end->involuntary_switches);
    figures[ATTN_PROCESS_STEAL] = steal_share(begin, end);
    figures[ATTN_PROCESS_THROTTLES] = thermal_throttles(begin, end);
}
