/* RAPL through perf on trees that this file writes and calls that it answers. */
#include "meter_fixture.h"

#include "base/memory.h"

#include <errno.h>
#include <locale.h>
#include <math.h>

#define PMU   "/sys/bus/event_source/devices/power"
#define ZONES "/sys/class/powercap/intel-rapl"

enum { COUNTERS = 16 };

static char root[TREE_PATH_BYTES];

/* What the kernel would answer: one file for each event and processor. */
static struct {
    uint64_t config;
    int processor, file;
} counters[COUNTERS];
static size_t n_counters;
static uint64_t refused_config;
static int refusal;

/* A counter is a file of eight bytes that is read from its start each time: a pipe with one
 * value in it, refilled before each reading. */
static void set_count(uint64_t config, int processor, uint64_t count);

static int fake_perf_open(uint32_t type, uint64_t config, int processor)
{
    assert_int_equal(type, 31);
    assert_true(processor >= 0);
    if (refusal != 0 && (refused_config == 0 || refused_config == config)) {
        errno = refusal;
        return -1;
    }
    char path[TREE_PATH_BYTES];
    snprintf(path, sizeof path, "%.200s/counter-%d-%d", root, (int)config, processor);
    const int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(file >= 0 && n_counters < COUNTERS);
    counters[n_counters].config = config;
    counters[n_counters].processor = processor;
    counters[n_counters++].file = dup(file);
    set_count(config, processor, 0);
    return file;
}

/* Many values behind each other, so that readings find one however often they read. */
static void set_count(uint64_t config, int processor, uint64_t count)
{
    static uint64_t values[4096];
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) values[i] = count;
    for (size_t i = 0; i < n_counters; i++) {
        if (counters[i].config != config || counters[i].processor != processor) continue;
        /* The descriptors share their place in the file. */
        assert_int_equal(pwrite(counters[i].file, values, sizeof values, 0), sizeof values);
        assert_int_equal(lseek(counters[i].file, 0, SEEK_SET), 0);
    }
}

static void write_event(const char *event, const char *code, const char *scale)
{
    char path[TREE_PATH_BYTES];
    snprintf(path, sizeof path, PMU "/events/%s", event);
    tree_write(root, path, code);
    snprintf(path, sizeof path, PMU "/events/%s.scale", event);
    tree_write(root, path, scale);
    snprintf(path, sizeof path, PMU "/events/%s.unit", event);
    tree_write(root, path, "Joules\n");
}

#define SCALE "2.3283064365386962890625e-10\n"

static int set_up(void **state)
{
    (void)state;
    tree_make(root);
    time_ns = 1000000000u;
    n_counters = 0;
    refusal = 0;
    refused_config = 0;
    tree_write(root, PMU "/type", "31\n");
    tree_write(root, PMU "/cpumask", "0,1\n");
    tree_write(root, "/sys/devices/system/cpu/present", "0,1\n");
    tree_write(root, "/sys/devices/system/cpu/cpu0/topology/physical_package_id", "0\n");
    tree_write(root, "/sys/devices/system/cpu/cpu1/topology/physical_package_id", "1\n");
    write_event("energy-pkg", "event=0x02\n", SCALE);
    write_event("energy-ram", "event=0x03\n", SCALE);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_counters; i++) close(counters[i].file);
    tree_remove(root);
    return 0;
}

static attn_energy_meter *open_meter(void)
{
    static const attn_energy_operations *const sources[] = {&attn_energy_rapl_perf,
                                                            &attn_energy_rapl_powercap};
    return open_on_fake_time((attn_energy_options){.root = root,
                                                   .probe_s = 0.001,
                                                   .perf_open = fake_perf_open,
                                                   .sources = sources,
                                                   .n_sources = 2});
}

static void between(attn_energy_meter *meter, double joules_0, double joules_1, double joules_ram)
{
    static const double joule = 4294967296.0;
    for (size_t i = 0; i < n_counters; i++)
        set_count(counters[i].config, counters[i].processor, 1u << 20);
    attn_energy_mark(meter, &begin);
    time_ns += 10000000000u;
    set_count(2, 0, (1u << 20) + (uint64_t)(joules_0 * joule));
    set_count(2, 1, (1u << 20) + (uint64_t)(joules_1 * joule));
    set_count(3, 0, (1u << 20) + (uint64_t)(joules_ram * joule));
    set_count(3, 1, (1u << 20) + (uint64_t)(joules_ram * joule));
    attn_energy_mark(meter, &end);
    attn_energy_between(meter, &begin, &end, figures);
}

static void packages_are_added(void **state)
{
    (void)state;
    attn_energy_meter *meter = open_meter();
    const attn_energy_source *source = attn_energy_source_at(meter, 0);
    assert_int_equal(source->n_channels, 4);
    assert_string_equal(source->channels[0].id, "perf:package-0");
    assert_string_equal(source->channels[3].id, "perf:package-1/dram");
    between(meter, 1000.0, 500.0, 40.0);
    assert_int_equal(figures[ATTN_ENERGY_FIGURE_PACKAGE].provenance, ATTN_MEASURED);
    assert_true(fabs(figures[ATTN_ENERGY_FIGURE_PACKAGE].value - 1500.0) < 1e-6);
    assert_true(fabs(figures[ATTN_ENERGY_FIGURE_DRAM].value - 80.0) < 1e-6);
    assert_true(fabs(figures[ATTN_ENERGY_FIGURE_COMPONENTS].value - 1580.0) < 1e-6);
    assert_string_equal(figures[ATTN_ENERGY_FIGURE_COMPONENTS].source,
                        "energy_cpu_package_j + energy_dram_j");
    assert_non_null(strstr(figures[0].source, "perf power/energy-pkg/ on cpu1"));
    attn_energy_close(meter);
}

/* The same registers, twice: the first source counts, and the second checks it. */
static void powercap_beside_it_is_not_added(void **state)
{
    (void)state;
    tree_write(root, ZONES ":0/name", "package-0\n");
    tree_write(root, ZONES ":0/energy_uj", "5000000\n");
    tree_write(root, ZONES ":0/max_energy_range_uj", "262143328850\n");
    attn_energy_meter *meter = open_meter();
    assert_true(attn_energy_is_counted(meter, attn_energy_source_at(meter, 0), 0));
    assert_false(attn_energy_is_counted(meter, attn_energy_source_at(meter, 1), 0));
    attn_energy_mark(meter, &begin);
    tree_write(root, ZONES ":0/energy_uj", "1005000000\n");
    time_ns += 10000000000u;
    set_count(2, 0, UINT64_C(1000) << 32);
    attn_energy_mark(meter, &end);
    attn_energy_pair pairs[ATTN_ENERGY_PAIRS_MAX];
    assert_int_equal(attn_energy_pairs(meter, &begin, &end, pairs), 1);
    assert_true(fabs(pairs[0].difference) < 0.01);
    attn_energy_close(meter);

    /* When perf is refused, powercap serves. */
    refusal = EACCES;
    meter = open_meter();
    assert_false(attn_energy_is_counted(meter, attn_energy_source_at(meter, 0), 0));
    assert_true(attn_energy_is_counted(meter, attn_energy_source_at(meter, 1), 0));
    attn_energy_close(meter);
}

static void refusals_have_reasons(void **state)
{
    (void)state;
    refusal = EACCES;
    attn_energy_meter *meter = open_meter();
    const attn_energy_channel *channel = &attn_energy_source_at(meter, 0)->channels[0];
    assert_int_equal(channel->state, ATTN_ENERGY_DENIED);
    assert_non_null(strstr(channel->fix, "setcap cap_perfmon=ep"));
    attn_energy_close(meter);

    static const int others[] = {ENOENT, EINVAL, EOPNOTSUPP};
    for (size_t i = 0; i < 3; i++) {
        refusal = others[i];
        refused_config = 3;
        meter = open_meter();
        channel = &attn_energy_source_at(meter, 0)->channels[1];
        assert_int_equal(channel->state, ATTN_ENERGY_FAILED);
        assert_non_null(strstr(channel->why, "although the kernel lists it"));
        between(meter, 10.0, 10.0, 10.0);
        assert_int_equal(figures[ATTN_ENERGY_FIGURE_PACKAGE].provenance, ATTN_MEASURED);
        assert_int_equal(figures[ATTN_ENERGY_FIGURE_DRAM].provenance, ATTN_UNAVAILABLE);
        /* A part that is known of and not known makes the sum unknown. */
        assert_int_equal(figures[ATTN_ENERGY_FIGURE_COMPONENTS].provenance, ATTN_UNAVAILABLE);
        attn_energy_close(meter);
    }
}

static void damaged_descriptions_are_refused(void **state)
{
    (void)state;
    static const char *const bad[][2] = {{"event=\n", SCALE},
                                         {"config=2\n", SCALE},
                                         {"event=0x02\n", "\n"},
                                         {"event=0x02\n", "-1\n"},
                                         {"event=0x02\n", "inf\n"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_event("energy-pkg", bad[i][0], bad[i][1]);
        attn_energy_meter *meter = open_meter();
        assert_int_equal(attn_energy_source_at(meter, 0)->channels[0].state, ATTN_ENERGY_FAILED);
        attn_energy_close(meter);
    }
    tree_write(root, PMU "/cpumask", "0\n");
    write_event("energy-pkg", "event=0x02\n", SCALE);
    attn_energy_meter *meter = open_meter();
    const attn_energy_source *source = attn_energy_source_at(meter, 0);
    assert_string_equal(source->channels[source->n_channels - 1].id, "perf:package-1");
    assert_int_equal(source->channels[source->n_channels - 1].state, ATTN_ENERGY_ABSENT);
    between(meter, 10.0, 10.0, 10.0);
    assert_int_equal(figures[ATTN_ENERGY_FIGURE_PACKAGE].provenance, ATTN_UNAVAILABLE);
    attn_energy_close(meter);
}

/* The decimal point does not depend on the user's language. */
static void scales_are_read_in_any_locale(void **state)
{
    (void)state;
    if (!setlocale(LC_NUMERIC, "de_DE.UTF-8") && !setlocale(LC_NUMERIC, "fr_FR.UTF-8"))
        print_message("no locale with a decimal comma here\n");
    attn_energy_meter *meter = open_meter();
    setlocale(LC_NUMERIC, "C");
    assert_true(attn_energy_source_at(meter, 0)->channels[0].unit_j == 1.0 / 4294967296.0);
    attn_energy_close(meter);
}

static void psys_and_parts_are_not_added(void **state)
{
    (void)state;
    write_event("energy-psys", "event=0x05\n", SCALE);
    write_event("energy-cores", "event=0x01\n", SCALE);
    attn_energy_meter *meter = open_meter();
    const attn_energy_source *source = attn_energy_source_at(meter, 0);
    size_t n_psys = 0;
    for (size_t i = 0; i < source->n_channels; i++) {
        n_psys += source->channels[i].domain == ATTN_ENERGY_PSYS;
        if (source->channels[i].domain != ATTN_ENERGY_CORE) continue;
        assert_int_equal(source->channels[source->channels[i].parent].domain, ATTN_ENERGY_PACKAGE);
        assert_false(attn_energy_is_counted(meter, source, i));
    }
    assert_int_equal(n_psys, 1); /* the platform has one, whatever the mask */
    attn_energy_close(meter);
}

/* perf hides the counters' unit: only the kernel's age tells. */
static void old_kernels_are_noted(void **state)
{
    (void)state;
    static const char *const releases[] = {"5.15.0-91-generic\n", "6.1.0-25-amd64\n"};
    tree_write(root, "/proc/cpuinfo",
               "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\nflags\t\t: fpu\n");
    for (size_t i = 0; i < 2; i++) {
        tree_write(root, "/proc/sys/kernel/osrelease", releases[i]);
        attn_energy_meter *meter = open_meter();
        const attn_energy_source *source = attn_energy_source_at(meter, 0);
        size_t n_noted = 0;
        for (size_t c = 0; c < source->n_channels; c++) {
            if (!*source->channels[c].note) continue;
            n_noted++;
            assert_int_equal(source->channels[c].domain, ATTN_ENERGY_DRAM);
            assert_non_null(strstr(source->channels[c].note, "kernels before 6.1"));
        }
        assert_int_equal(n_noted, i == 0 ? 2 : 0);
        attn_energy_close(meter);
    }
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(packages_are_added),
        CASE(powercap_beside_it_is_not_added),
        CASE(refusals_have_reasons),
        CASE(damaged_descriptions_are_refused),
        CASE(scales_are_read_in_any_locale),
        CASE(psys_and_parts_are_not_added),
        CASE(old_kernels_are_noted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
