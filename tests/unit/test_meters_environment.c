/* The environment record and the warnings, on two whole machines: a server of two sockets with
 * RAPL (tests/data/machine-metal) and a virtual machine (tests/data/machine-virtual). */
#include "fake_tree.h"

#include "base/memory.h"
#include "meters/environment.h"
#include "meters/machine.h"

#include <jansson.h>

#include <math.h>

#define METAL   TEST_DATA "/machine-metal"
#define VIRTUAL TEST_DATA "/machine-virtual"

static attn_energy_meter *open_meter(const char *root)
{
    const attn_energy_options options = {.root = root, .probe_s = 0.001};
    attn_energy_meter *meter = NULL;
    attn_error error = {0};
    assert_int_equal(attn_energy_open(&meter, &options, &error), ATTN_OK);
    return meter;
}

static json_t *captured(const char *root, const attn_energy_meter *meter)
{
    const attn_environment_input input = {
        .root = root, .version = "1.2.3 (abc)", .dense = "oneDNN 2.6.3", .meter = meter};
    char *text = NULL;
    attn_error error = {0};
    assert_int_equal(attn_environment_capture(&text, &input, &error), ATTN_OK);
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(object);
    attn_free(text);
    return object;
}

/* The value at "object/key" or "object/key/index/key2". */
static const json_t *at(const json_t *object, const char *path)
{
    char part[64];
    while (*path && object) {
        const size_t length = strcspn(path, "/");
        snprintf(part, sizeof part, "%.*s", (int)length, path);
        object = json_is_array(object) ? json_array_get(object, (size_t)atoi(part))
                                       : json_object_get(object, part);
        path += length + (path[length] == '/');
    }
    if (!object) fail_msg("no such key: %s", part);
    return object;
}

static void assert_text(const json_t *object, const char *path, const char *expected)
{
    assert_true(json_is_string(at(object, path)));
    assert_string_equal(json_string_value(at(object, path)), expected);
}

static void assert_number(const json_t *object, const char *path, double expected)
{
    assert_true(json_is_number(at(object, path)));
    assert_true(fabs(json_number_value(at(object, path)) - expected) <= 1e-9 * fabs(expected));
}

static void server(void **state)
{
    (void)state;
    attn_energy_meter *meter = open_meter(METAL);
    json_t *record = captured(METAL, meter);
    assert_text(record, "build/version", "1.2.3 (abc)");
    assert_text(record, "libraries/dense", "oneDNN 2.6.3");
    const char *libraries[] = {"libraries/sqlite", "libraries/jansson", "libraries/zlib",
                               "libraries/pcre2",  "build/compiler",    "build/flags"};
    for (size_t i = 0; i < sizeof libraries / sizeof *libraries; i++)
        assert_true(strlen(json_string_value(at(record, libraries[i]))) > 0);
    assert_text(record, "cpu/model_name", "Intel(R) Xeon(R) Gold 6230 CPU @ 2.10GHz");
    assert_text(record, "cpu/microcode", "0x5003901");
    assert_number(record, "cpu/family", 6);
    assert_number(record, "cpu/model", 85);
    assert_number(record, "cpu/stepping", 7);
    assert_number(record, "cpu/packages", 2);
    assert_number(record, "cpu/cores_online", 4);
    assert_text(record, "cpu/smt", "on");
    assert_text(record, "cpu/governor", "performance");
    assert_text(record, "cpu/frequency_driver", "intel_pstate");
    assert_text(record, "cpu/energy_preference", "balance_performance");
    assert_true(json_is_true(at(record, "cpu/turbo")));
    assert_int_equal(json_array_size(at(record, "cpu/caches")), 4);
    assert_text(record, "cpu/caches/3/size", "28160K");
    assert_text(record, "cpu/isa_flags/0", "sse4_2");
    assert_int_equal(json_array_size(at(record, "cpu/isa_flags")), 10);
    assert_number(record, "memory/total_bytes", 196608000.0 * 1024.0);
    assert_text(record, "memory/transparent_huge_pages", "always madvise [never]");
    assert_text(record, "system/kernel", "6.1.0-25-amd64");
    assert_text(record, "system/distribution", "Debian GNU/Linux 12 (bookworm)");
    assert_true(json_is_null(at(record, "system/hypervisor")));
    assert_number(record, "system/load_average_1min", 3.5);
    assert_number(record, "system/steal_share_since_boot", 0.0);
    assert_text(record, "energy_sources/1/name", "rapl-powercap");
    assert_int_equal(json_array_size(at(record, "energy_sources/1/channels")), 4);
    assert_text(record, "energy_sources/1/channels/1/id", "rapl:package-0/dram");
    assert_text(record, "energy_sources/1/channels/1/state", "ok");
    assert_true(json_is_true(at(record, "energy_sources/1/channels/1/counted")));
    assert_true(json_is_null(at(record, "energy_sources/1/channels/1/update_s")));
    assert_int_equal(json_array_size(at(record, "warnings")), 6);
    json_decref(record);
    attn_energy_close(meter);
}

static void virtual_machine(void **state)
{
    (void)state;
    attn_energy_meter *meter = open_meter(VIRTUAL);
    json_t *record = captured(VIRTUAL, meter);
    assert_text(record, "system/hypervisor", "KVM");
    assert_text(record, "system/clock_source", "tsc");
    assert_true(json_is_null(at(record, "cpu/governor")));
    assert_true(json_is_null(at(record, "cpu/turbo")));
    assert_number(record, "cpu/packages", 1);
    assert_number(record, "system/steal_share_since_boot", 10.0 / 263189.0);
    assert_int_equal(json_array_size(at(record, "energy_sources/1/channels")), 0);
    assert_text(record, "energy_sources/1/why",
                "virtual machines do not expose RAPL: no zone in /sys/class/powercap "
                "(hypervisor: KVM)");
    json_decref(record);
    attn_energy_close(meter);
}

/* A machine that tells nothing: nulls, no zeros, and no warnings made up. */
static void empty_machine(void **state)
{
    (void)state;
    char root[TREE_PATH_BYTES];
    tree_make(root);
    json_t *record = captured(root, NULL);
    const char *unknown[] = {"cpu/model_name",
                             "cpu/family",
                             "cpu/stepping",
                             "cpu/packages",
                             "cpu/cores_online",
                             "memory/total_bytes",
                             "memory/swap_total_bytes",
                             "system/kernel",
                             "system/hypervisor",
                             "system/load_average_1min"};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        assert_true(json_is_null(at(record, unknown[i])));
    assert_int_equal(json_array_size(at(record, "energy_sources")), 0);
    assert_int_equal(json_array_size(at(record, "warnings")), 0);
    json_decref(record);
    tree_remove(root);
}

static void warnings_and_remedies(void **state)
{
    (void)state;
    attn_environment_warning warnings[ATTN_ENVIRONMENT_WARNINGS_MAX];
    assert_int_equal(attn_environment_warnings(METAL, NULL, warnings), 6);
    assert_string_equal(warnings[0].what, "cpu2 has the frequency governor 'powersave'");
    assert_non_null(strstr(warnings[0].remedy, "cpupower frequency-set -g performance"));
    assert_string_equal(warnings[1].what, "turbo is on: clocks fall as the package heats");
    assert_string_equal(warnings[2].what, "other work is running: load average 3.50 on 4 cores");
    assert_string_equal(warnings[3].what, "1024 MiB of swap are in use");
    assert_string_equal(warnings[4].what, "the machine runs on battery");
    assert_string_equal(warnings[5].what, "transparent huge pages are off");
    for (size_t i = 0; i < 6; i++) assert_true(strlen(warnings[i].remedy) > 0);

    assert_int_equal(attn_environment_warnings(VIRTUAL, "none", warnings), 1);
    assert_string_equal(warnings[0].what,
                        "the hypervisor gave 0.0038 % of the time since boot to others");
}

static void heat_and_turbo(void **state)
{
    (void)state;
    char root[TREE_PATH_BYTES];
    attn_environment_warning warnings[ATTN_ENVIRONMENT_WARNINGS_MAX];
    tree_make(root);
    tree_write(root, "/sys/devices/system/cpu/cpufreq/boost", "0\n");
    tree_write(root, "/sys/class/thermal/thermal_zone3/temp", "84000\n");
    tree_write(root, "/sys/class/thermal/thermal_zone3/trip_point_0_temp", "95000\n");
    assert_int_equal(attn_environment_warnings(root, NULL, warnings), 0);
    tree_write(root, "/sys/class/thermal/thermal_zone3/temp", "86000\n");
    tree_write(root, "/sys/devices/system/cpu/cpufreq/boost", "1\n");
    assert_int_equal(attn_environment_warnings(root, NULL, warnings), 2);
    assert_string_equal(warnings[0].remedy,
                        "echo 0 > /sys/devices/system/cpu/cpufreq/boost, as an administrator");
    assert_string_equal(warnings[1].what, "thermal zone 3 is at 86 C, its limit is 95 C");
    tree_remove(root);
}

static void assert_virtual(const char *root, const char *name)
{
    char found[64];
    assert_true(attn_machine_is_virtual(root, found, sizeof found));
    assert_string_equal(found, name);
}

static void hypervisors(void **state)
{
    (void)state;
    char root[TREE_PATH_BYTES], found[64] = "left";
    tree_make(root);
    assert_false(attn_machine_is_virtual(root, found, sizeof found));
    assert_string_equal(found, "");
    /* Rented bare metal: the cloud's name without the processor's flag. */
    tree_write(root, "/sys/class/dmi/id/sys_vendor", "Amazon EC2\n");
    tree_write(root, "/sys/class/dmi/id/product_name", "m5.metal\n");
    tree_write(root, "/proc/cpuinfo", "flags\t: fpu sse\n");
    assert_false(attn_machine_is_virtual(root, found, sizeof found));
    tree_write(root, "/proc/cpuinfo", "flags\t: fpu sse hypervisor\n");
    tree_write(root, "/sys/class/dmi/id/product_name", "m5.large\n");
    assert_virtual(root, "Amazon EC2 m5.large");
    tree_write(root, "/sys/class/dmi/id/sys_vendor", "QEMU\n");
    tree_write(root, "/sys/class/dmi/id/product_name", "Standard PC (Q35 + ICH9, 2009)\n");
    tree_write(root, "/proc/cpuinfo", "Features\t: fp asimd\n"); /* Arm has no flag */
    assert_virtual(root, "QEMU Standard PC (Q35 + ICH9, 2009)");
    tree_write(root, "/sys/hypervisor/type", "xen\n");
    assert_virtual(root, "xen");
    tree_remove(root);
}

static void memory_is_short(void **state)
{
    (void)state;
    const size_t live = attn_memory_live_blocks();
    const attn_environment_input input = {.root = VIRTUAL};
    char *text = NULL;
    attn_error error = {0};
    attn_memory_fail_at(1);
    assert_int_equal(attn_environment_capture(&text, &input, &error), ATTN_EMEMORY);
    attn_memory_fail_at(0);
    assert_null(text);
    assert_int_equal(attn_memory_live_blocks(), live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(server),          cmocka_unit_test(virtual_machine),
        cmocka_unit_test(empty_machine),   cmocka_unit_test(warnings_and_remedies),
        cmocka_unit_test(heat_and_turbo),  cmocka_unit_test(hypervisors),
        cmocka_unit_test(memory_is_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
