/* Environment capture. Jansson stays in this file: callers get text. Values are set with
 * json_object_set_new, which takes NULL for a failed allocation and then reports it; `put` keeps
 * that in one flag, checked once at the end. */
#include "meters/environment.h"

#include "base/cpu.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/threads.h"
#include "meters/gpu.h"
#include "meters/machine.h"
#include "meters/process.h"
#include "meters/sysfs.h"
#include "meters/system_clock.h"

#include <jansson.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <sqlite3.h>
#include <zlib.h>

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct capture {
    const char *root;
    bool has_failed; /* out of memory somewhere */
} capture;

/* object[key] = value; takes the value's reference. */
static void put(capture *c, json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, value) != 0) c->has_failed = true;
}

static void push(capture *c, json_t *array, json_t *value)
{
    if (json_array_append_new(array, value) != 0) c->has_failed = true;
}

/* Text, or null when there is none; bytes that are not UTF-8 make it null too. */
static json_t *text_or_null(const char *text)
{
    json_t *value = text && *text ? json_string(text) : NULL;
    return value ? value : json_null();
}

static json_t *number_or_null(double number)
{
    return isfinite(number) ? json_real(number) : json_null();
}

static json_t *count_or_null(size_t count)
{
    return count > 0 ? json_integer((json_int_t)count) : json_null();
}

static json_t *file_text(capture *c, const char *path)
{
    char text[256];
    if (attn_sysfs_read(c->root, path, text, sizeof text) != 0) return json_null();
    return text_or_null(text);
}

static json_t *build_object(capture *c, const char *version)
{
    json_t *build = json_object();
    put(c, build, "version", text_or_null(version));
    put(c, build, "compiler", json_string(ATTN_BUILD_COMPILER));
    put(c, build, "flags", json_string(ATTN_BUILD_FLAGS));
    put(c, build, "type", json_string(ATTN_BUILD_TYPE));
    return build;
}

static json_t *libraries_object(capture *c, const char *dense)
{
    char pcre2[64] = "";
    pcre2_config(PCRE2_CONFIG_VERSION, pcre2);
    json_t *libraries = json_object();
    put(c, libraries, "sqlite", json_string(sqlite3_libversion()));
    put(c, libraries, "jansson", json_string(jansson_version_str()));
    put(c, libraries, "zlib", json_string(zlibVersion()));
    put(c, libraries, "pcre2", text_or_null(pcre2));
    put(c, libraries, "dense", text_or_null(dense));
    return libraries;
}

/* The caches that cpu0 sees: level, type, size as the kernel writes it ("48K"), sharers. */
static json_t *caches_array(capture *c)
{
    static const char *const keys[] = {"level", "type", "size", "shared_cpu_list"};
    json_t *caches = json_array();
    for (size_t i = 0; i < 8; i++) {
        json_t *cache = json_object();
        bool is_known = false;
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
            char path[128], text[256];
            snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%zu/%s", i,
                     keys[k]);
            const bool is_there = attn_sysfs_read(c->root, path, text, sizeof text) == 0;
            put(c, cache, keys[k], text_or_null(is_there ? text : NULL));
            is_known = is_known || is_there;
        }
        if (is_known)
            push(c, caches, cache);
        else
            json_decref(cache);
    }
    return caches;
}

static json_t *isa_array(capture *c, const attn_machine_cpu *cpu)
{
    static const char *const of_interest[] = {
        "sse4_2",   "avx",      "avx2",     "fma",         "f16c",        "avx_vnni",    "avx512f",
        "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile",
        "amx_bf16", "amx_int8", "amx_fp16", "asimd",       "sve",         "bf16",        "sgx",
    };
    json_t *flags = json_array();
    for (size_t i = 0; i < sizeof of_interest / sizeof *of_interest; i++)
        if (attn_sysfs_has_word(cpu->flags, of_interest[i]))
            push(c, flags, json_string(of_interest[i]));
    return flags;
}

/* true, false or null, from the two files that say it. */
static json_t *turbo_value(capture *c)
{
    uint64_t value = 0;
    if (attn_sysfs_read_number(c->root, "/sys/devices/system/cpu/intel_pstate/no_turbo", &value) ==
        0)
        return json_boolean(value == 0);
    if (attn_sysfs_read_number(c->root, "/sys/devices/system/cpu/cpufreq/boost", &value) == 0)
        return json_boolean(value != 0);
    return json_null();
}

static json_t *cpu_object(capture *c)
{
    const attn_machine_cpu cpu = attn_machine_cpu_read(c->root);
    unsigned packages[ATTN_MACHINE_PACKAGES_MAX];
    json_t *object = json_object();
    put(c, object, "vendor", text_or_null(cpu.vendor));
    put(c, object, "model_name", text_or_null(cpu.name));
    put(c, object, "family", cpu.family ? json_integer(cpu.family) : json_null());
    put(c, object, "model", cpu.family ? json_integer(cpu.model) : json_null());
    put(c, object, "stepping", cpu.family ? json_integer(cpu.stepping) : json_null());
    put(c, object, "microcode", text_or_null(cpu.microcode));
    put(c, object, "packages", count_or_null(attn_machine_packages(c->root, packages)));
    put(c, object, "cores_online", count_or_null(attn_machine_cores_online(c->root)));
    put(c, object, "cores_available", count_or_null(attn_cores_available()));
    put(c, object, "smt", file_text(c, "/sys/devices/system/cpu/smt/control"));
    put(c, object, "isa_best", json_string(attn_isa_name(attn_cpu_best_isa())));
    put(c, object, "isa_flags", isa_array(c, &cpu));
    put(c, object, "caches", caches_array(c));
    put(c, object, "governor",
        file_text(c, "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"));
    put(c, object, "frequency_driver",
        file_text(c, "/sys/devices/system/cpu/cpu0/cpufreq/scaling_driver"));
    put(c, object, "energy_preference",
        file_text(c, "/sys/devices/system/cpu/cpu0/cpufreq/energy_performance_preference"));
    put(c, object, "turbo", turbo_value(c));
    return object;
}

/* A field of /proc/meminfo in bytes, or null. */
static json_t *meminfo_bytes(const char *text, const char *key)
{
    uint64_t size_kib = 0;
    if (!attn_sysfs_find_number(text, key, &size_kib)) return json_null();
    return json_integer((json_int_t)(size_kib * 1024));
}

static json_t *memory_object(capture *c)
{
    char text[4096];
    attn_sysfs_read(c->root, "/proc/meminfo", text, sizeof text);
    json_t *memory = json_object();
    put(c, memory, "total_bytes", meminfo_bytes(text, "MemTotal"));
    put(c, memory, "available_bytes", meminfo_bytes(text, "MemAvailable"));
    put(c, memory, "swap_total_bytes", meminfo_bytes(text, "SwapTotal"));
    put(c, memory, "swap_free_bytes", meminfo_bytes(text, "SwapFree"));
    put(c, memory, "transparent_huge_pages",
        file_text(c, "/sys/kernel/mm/transparent_hugepage/enabled"));
    return memory;
}

static json_t *system_object(capture *c)
{
    char text[4096], distribution[128] = "", hypervisor[64] = "", utc[ATTN_CLOCK_UTC_BYTES];
    if (attn_sysfs_read(c->root, "/etc/os-release", text, sizeof text) == 0)
        attn_sysfs_find(text, "PRETTY_NAME", distribution, sizeof distribution);
    attn_machine_is_virtual(c->root, hypervisor, sizeof hypervisor);
    attn_clock_utc(utc);
    const attn_process_mark mark = attn_process_mark_now(c->root);
    const char *locale = setlocale(LC_ALL, NULL);
    json_t *object = json_object();
    put(c, object, "time_utc", json_string(utc));
    put(c, object, "kernel", file_text(c, "/proc/sys/kernel/osrelease"));
    put(c, object, "distribution", text_or_null(distribution));
    put(c, object, "hypervisor", text_or_null(hypervisor));
    put(c, object, "clock_source",
        file_text(c, "/sys/devices/system/clocksource/clocksource0/current_clocksource"));
    put(c, object, "locale", text_or_null(locale));
    put(c, object, "load_average_1min", number_or_null(attn_system_load(c->root).value));
    put(c, object, "steal_share_since_boot",
        mark.steal_problem || mark.total_ticks == 0
            ? json_null()
            : json_real((double)mark.steal_ticks / (double)mark.total_ticks));
    return object;
}

static json_t *energy_array(capture *c, const attn_energy_meter *meter)
{
    json_t *array = json_array();
    for (size_t s = 0; meter && s < attn_energy_sources(meter); s++) {
        const attn_energy_source *source = attn_energy_source_at(meter, s);
        json_t *object = json_object(), *channels = json_array();
        for (size_t i = 0; i < source->n_channels; i++) {
            const attn_energy_channel *channel = &source->channels[i];
            json_t *entry = json_object();
            put(c, entry, "id", text_or_null(channel->id));
            put(c, entry, "path", text_or_null(channel->path));
            put(c, entry, "domain", json_string(attn_energy_domain_name(channel->domain)));
            put(c, entry, "kind",
                json_string(channel->kind == ATTN_ENERGY_GAUGE ? "gauge" : "counter"));
            put(c, entry, "accuracy",
                channel->accuracy > 0.0 ? json_real(channel->accuracy) : json_null());
            put(c, entry, "note", text_or_null(channel->note));
            put(c, entry, "state", json_string(attn_energy_state_name(channel->state)));
            put(c, entry, "counted", json_boolean(attn_energy_is_counted(meter, source, i)));
            put(c, entry, "mirror_of",
                channel->mirror_of < 0 ? json_null()
                                       : json_string(source->channels[channel->mirror_of].id));
            put(c, entry, "resolution_j", number_or_null(channel->resolution_j));
            put(c, entry, "update_s", number_or_null(channel->update_s));
            put(c, entry, "read_cost_s", number_or_null(channel->read_cost_s));
            put(c, entry, "why", text_or_null(channel->why));
            put(c, entry, "fix", text_or_null(channel->fix));
            push(c, channels, entry);
        }
        put(c, object, "name", json_string(source->operations->name));
        put(c, object, "path", json_string(source->operations->path));
        put(c, object, "why", text_or_null(source->why));
        put(c, object, "fix", text_or_null(source->fix));
        put(c, object, "channels", channels);
        push(c, array, object);
    }
    return array;
}

/* NVIDIA boards that are measured, as they are at the start. */
static json_t *gpus_array(capture *c, const attn_environment_input *input)
{
    attn_gpu gpus[8];
    json_t *array = json_array();
    const bool is_wanted = input->gpus && strcmp(input->gpus, "none") != 0 && !*c->root;
    const size_t n = is_wanted ? attn_gpu_list(input->nvml, gpus, 8) : 0;
    for (size_t i = 0; i < n; i++) {
        const attn_gpu *gpu = &gpus[i];
        char reasons[160];
        if (!attn_gpu_is_wanted(input->gpus, gpu->address)) continue;
        attn_gpu_reasons_text(gpu->clock_reasons, reasons, sizeof reasons);
        json_t *o = json_object();
        put(c, o, "address", text_or_null(gpu->address));
        put(c, o, "name", text_or_null(gpu->name));
        put(c, o, "uuid", text_or_null(gpu->uuid));
        put(c, o, "driver", text_or_null(gpu->driver));
        put(c, o, "power_limit_w", number_or_null(gpu->power_limit_w));
        put(c, o, "default_limit_w", number_or_null(gpu->default_limit_w));
        put(c, o, "temperature_c", number_or_null(gpu->temperature_c));
        put(c, o, "sm_clock_mhz", number_or_null(gpu->sm_clock_mhz));
        put(c, o, "memory_clock_mhz", number_or_null(gpu->memory_clock_mhz));
        put(c, o, "slowed_by", text_or_null(reasons));
        put(c, o, "mig", gpu->mig < 0 ? json_null() : json_boolean(gpu->mig));
        put(c, o, "persistence",
            gpu->persistence < 0 ? json_null() : json_boolean(gpu->persistence));
        put(c, o, "processes", gpu->processes < 0 ? json_null() : json_integer(gpu->processes));
        push(c, array, o);
    }
    return array;
}

static json_t *warnings_array(capture *c)
{
    attn_environment_warning warnings[ATTN_ENVIRONMENT_WARNINGS_MAX];
    const size_t n = attn_environment_warnings(c->root, NULL, warnings);
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++) {
        json_t *object = json_object();
        put(c, object, "what", text_or_null(warnings[i].what));
        put(c, object, "remedy", text_or_null(warnings[i].remedy));
        push(c, array, object);
    }
    return array;
}

attn_status attn_environment_capture(char **json, const attn_environment_input *input,
                                     attn_error *error)
{
    *json = NULL;
    capture c = {.root = input->root};
    json_t *object = json_object();
    put(&c, object, "build", build_object(&c, input->version));
    put(&c, object, "libraries", libraries_object(&c, input->dense));
    put(&c, object, "cpu", cpu_object(&c));
    put(&c, object, "memory", memory_object(&c));
    put(&c, object, "system", system_object(&c));
    put(&c, object, "energy_sources", energy_array(&c, input->meter));
    put(&c, object, "gpus", gpus_array(&c, input));
    put(&c, object, "warnings", warnings_array(&c));
    char *text = c.has_failed ? NULL : json_dumps(object, JSON_COMPACT);
    json_decref(object);
    if (text) *json = attn_strdup(text);
    free(text);
    if (!*json) return attn_fail(error, ATTN_EMEMORY, "environment record: out of memory");
    return ATTN_OK;
}
