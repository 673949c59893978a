/* Preflight: one function a circumstance; each says what it saw and how to change it. */
#include "meters/environment.h"

#include "base/figure.h"
#include "meters/gpu.h"
#include "meters/machine.h"
#include "meters/process.h"
#include "meters/sysfs.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>

typedef bool check(const char *root, attn_environment_warning *warning);

static bool check_governor(const char *root, attn_environment_warning *warning)
{
    const size_t cores = attn_machine_cores_online(root);
    for (size_t core = 0; core < cores; core++) {
        char path[128], governor[32];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/cpufreq/scaling_governor",
                 core);
        if (attn_sysfs_read(root, path, governor, sizeof governor) != 0 ||
            strcmp(governor, "performance") == 0)
            continue;
        snprintf(warning->what, sizeof warning->what, "cpu%zu has the frequency governor '%s'",
                 core, governor);
        snprintf(warning->remedy, sizeof warning->remedy,
                 "cpupower frequency-set -g performance, as an administrator");
        return true;
    }
    return false;
}

static bool check_load(const char *root, attn_environment_warning *warning)
{
    const attn_figure load = attn_system_load(root);
    const size_t cores = attn_machine_cores_online(root);
    if (load.provenance == ATTN_UNAVAILABLE || cores == 0 || load.value <= 0.5 * (double)cores)
        return false;
    snprintf(warning->what, sizeof warning->what,
             "other work is running: load average %.2f on %zu cores", load.value, cores);
    snprintf(warning->remedy, sizeof warning->remedy, "stop it, or wait until it is done");
    return true;
}

static bool check_steal(const char *root, attn_environment_warning *warning)
{
    const attn_process_mark mark = attn_process_mark_now(root);
    if (mark.steal_problem != 0 || mark.steal_ticks == 0) return false;
    snprintf(warning->what, sizeof warning->what,
             "the hypervisor gave %.2g %% of the time since boot to others",
             100.0 * (double)mark.steal_ticks / (double)mark.total_ticks);
    snprintf(warning->remedy, sizeof warning->remedy,
             "use a machine with dedicated cores; watch steal_share of each trial");
    return true;
}

static bool check_swap(const char *root, attn_environment_warning *warning)
{
    char text[4096];
    uint64_t total_kib = 0, free_kib = 0;
    if (attn_sysfs_read(root, "/proc/meminfo", text, sizeof text) != 0 ||
        !attn_sysfs_find_number(text, "SwapTotal", &total_kib) ||
        !attn_sysfs_find_number(text, "SwapFree", &free_kib) || free_kib >= total_kib)
        return false;
    snprintf(warning->what, sizeof warning->what, "%.0f MiB of swap are in use",
             (double)(total_kib - free_kib) / 1024.0);
    snprintf(warning->remedy, sizeof warning->remedy,
             "free memory, then swapoff -a, as an administrator");
    return true;
}

static bool check_battery(const char *root, attn_environment_warning *warning)
{
    static const char folder[] = "/sys/class/power_supply";
    char path[ATTN_SYSFS_PATH_BYTES], text[32];
    const int length = snprintf(path, sizeof path, "%s%s", root, folder);
    if (length < 0 || (size_t)length >= sizeof path) return false;
    DIR *directory = opendir(path);
    if (!directory) return false;
    bool is_on_battery = false;
    const struct dirent *entry;
    while (!is_on_battery && (entry = readdir(directory))) {
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%.200s/type", folder, entry->d_name);
        if (attn_sysfs_read(root, path, text, sizeof text) != 0 || strcmp(text, "Battery") != 0)
            continue;
        snprintf(path, sizeof path, "%s/%.200s/status", folder, entry->d_name);
        is_on_battery =
            attn_sysfs_read(root, path, text, sizeof text) == 0 && strcmp(text, "Discharging") == 0;
    }
    closedir(directory);
    if (!is_on_battery) return false;
    snprintf(warning->what, sizeof warning->what, "the machine runs on battery");
    snprintf(warning->remedy, sizeof warning->remedy,
             "plug it in: speed and power differ on battery");
    return true;
}

static bool check_huge_pages(const char *root, attn_environment_warning *warning)
{
    char text[128];
    if (attn_sysfs_read(root, "/sys/kernel/mm/transparent_hugepage/enabled", text, sizeof text) !=
            0 ||
        !strstr(text, "[never]"))
        return false;
    snprintf(warning->what, sizeof warning->what, "transparent huge pages are off");
    snprintf(warning->remedy, sizeof warning->remedy,
             "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled, as an administrator");
    return true;
}

/* Steps that follow each other run at other clocks while the package heats up. */
static bool check_turbo(const char *root, attn_environment_warning *warning)
{
    uint64_t value = 0;
    const bool is_intel =
        attn_sysfs_read_number(root, "/sys/devices/system/cpu/intel_pstate/no_turbo", &value) == 0;
    const bool is_on =
        is_intel
            ? value == 0
            : attn_sysfs_read_number(root, "/sys/devices/system/cpu/cpufreq/boost", &value) == 0 &&
                  value != 0;
    if (!is_on) return false;
    snprintf(warning->what, sizeof warning->what, "turbo is on: clocks fall as the package heats");
    snprintf(warning->remedy, sizeof warning->remedy, "echo %d > %s, as an administrator",
             is_intel ? 1 : 0,
             is_intel ? "/sys/devices/system/cpu/intel_pstate/no_turbo"
                      : "/sys/devices/system/cpu/cpufreq/boost");
    return true;
}

static bool check_heat(const char *root, attn_environment_warning *warning)
{
    for (int zone = 0; zone < 32; zone++) {
        char path[128];
        uint64_t now = 0, limit = 0;
        snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/temp", zone);
        if (attn_sysfs_read_number(root, path, &now) != 0) continue;
        snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/trip_point_0_temp", zone);
        if (attn_sysfs_read_number(root, path, &limit) != 0 || limit < 30000 || now + 10000 < limit)
            continue;
        snprintf(warning->what, sizeof warning->what,
                 "thermal zone %d is at %.0f C, its limit is %.0f C", zone, 1e-3 * (double)now,
                 1e-3 * (double)limit);
        snprintf(warning->remedy, sizeof warning->remedy,
                 "let the machine cool, clean its fans, or use --cool-down");
        return true;
    }
    return false;
}

static bool check_board(const attn_gpu *gpu, attn_environment_warning *warning)
{
    char reasons[100];
    if (gpu->processes > 0) {
        snprintf(warning->what, sizeof warning->what, "%d process%s on GPU %.31s already",
                 gpu->processes, gpu->processes == 1 ? " computes" : "es compute", gpu->address);
        snprintf(warning->remedy, sizeof warning->remedy, "end them: their energy would be ours");
        return true;
    }
    if (attn_gpu_reasons_text(gpu->clock_reasons, reasons, sizeof reasons) > 0) {
        snprintf(warning->what, sizeof warning->what, "GPU %.31s runs slower: %s", gpu->address,
                 reasons);
        snprintf(warning->remedy, sizeof warning->remedy, "let it cool; nvidia-smi -q -d CLOCK");
        return true;
    }
    if (fabs(gpu->power_limit_w - gpu->default_limit_w) > 0.5) {
        snprintf(warning->what, sizeof warning->what,
                 "GPU %.31s has a power limit of %.0f W, not its %.0f W", gpu->address,
                 gpu->power_limit_w, gpu->default_limit_w);
        snprintf(warning->remedy, sizeof warning->remedy,
                 "nvidia-smi -pl %.0f, as an administrator", gpu->default_limit_w);
        return true;
    }
    return false;
}

static size_t check_boards(const char *root, const char *gpus, attn_environment_warning *warnings,
                           size_t most)
{
    attn_gpu boards[8];
    size_t n = 0;
    if (*root || !gpus || strcmp(gpus, "none") == 0) return 0;
    const size_t n_boards = attn_gpu_list(NULL, boards, 8);
    for (size_t i = 0; i < n_boards && n < most; i++)
        if (attn_gpu_is_wanted(gpus, boards[i].address) && check_board(&boards[i], &warnings[n]))
            n++;
    return n;
}

size_t attn_environment_warnings(const char *root, const char *gpus,
                                 attn_environment_warning warnings[ATTN_ENVIRONMENT_WARNINGS_MAX])
{
    static check *const checks[] = {check_governor, check_turbo, check_heat,    check_load,
                                    check_steal,    check_swap,  check_battery, check_huge_pages};
    _Static_assert(sizeof checks / sizeof *checks <= ATTN_ENVIRONMENT_WARNINGS_MAX,
                   "room for one warning a check");
    size_t n = 0;
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++)
        if (checks[i](root, &warnings[n])) n++;
    return n + check_boards(root, gpus, warnings + n, ATTN_ENVIRONMENT_WARNINGS_MAX - n);
}
