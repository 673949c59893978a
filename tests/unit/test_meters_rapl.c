/* RAPL through powercap, on trees that this file writes: what the kernel shows on real machines,
 * and what goes wrong on them. Time is the test's own, so every joule is known. */
#include "fake_tree.h"

#include "base/memory.h"
#include "meters/energy.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <sys/wait.h>

#define ZONES "/sys/class/powercap/intel-rapl"

static char root[TREE_PATH_BYTES];
static uint64_t time_ns;
static const attn_energy_operations *const powercap[] = {&attn_energy_rapl_powercap};

/* Each look at the clock takes a microsecond, so that probes end. */
static uint64_t fake_now_ns(void)
{
    return time_ns += 1000;
}

static int set_up(void **state)
{
    (void)state;
    tree_make(root);
    time_ns = 1000000000u;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tree_remove(root);
    return 0;
}

/* A zone such as "0" or "0:2"; range NULL leaves the file out. */
static void write_zone(const char *zone, const char *name, const char *energy, const char *range)
{
    char path[TREE_PATH_BYTES];
    snprintf(path, sizeof path, ZONES ":%s/name", zone);
    tree_write(root, path, name);
    snprintf(path, sizeof path, ZONES ":%s/energy_uj", zone);
    tree_write(root, path, energy);
    if (!range) return;
    snprintf(path, sizeof path, ZONES ":%s/max_energy_range_uj", zone);
    tree_write(root, path, range);
}

static void set_energy(const char *zone, const char *energy)
{
    char path[TREE_PATH_BYTES];
    snprintf(path, sizeof path, ZONES ":%s/energy_uj", zone);
    tree_write(root, path, energy);
}

static attn_energy_meter *open_meter(void)
{
    const attn_energy_options options = {
        .root = root, .probe_s = 0.001, .now_ns = fake_now_ns, .sources = powercap, .n_sources = 1};
    attn_energy_meter *meter = NULL;
    attn_error error = {0};
    assert_int_equal(attn_energy_open(&meter, &options, &error), ATTN_OK);
    return meter;
}

static void pass_seconds(double seconds)
{
    time_ns += (uint64_t)(seconds * 1e9);
}

static const attn_energy_channel *channel(const attn_energy_meter *meter, size_t index)
{
    const attn_energy_source *source = attn_energy_source_at(meter, 0);
    assert_true(index < source->n_channels);
    return &source->channels[index];
}

static void assert_energy(const attn_figure *figure, double energy_j)
{
    assert_int_equal(figure->provenance, ATTN_MEASURED);
    assert_true(fabs(figure->value - energy_j) < 1e-9 * fmax(1.0, energy_j));
}

static void assert_unavailable(const attn_figure *figure, const char *words)
{
    assert_int_equal(figure->provenance, ATTN_UNAVAILABLE);
    assert_true(isnan(figure->value));
    if (!strstr(figure->why, words)) fail_msg("'%s' lacks '%s'", figure->why, words);
}

#define RANGE "262143328850"

static void adds_sockets_and_memory_only(void **state)
{
    (void)state;
    write_zone("0", "package-0\n", "1000000\n", RANGE "\n");
    write_zone("0:0", "core\n", "500000\n", RANGE "\n");
    write_zone("0:1", "uncore\n", "90000\n", RANGE "\n");
    write_zone("0:2", "dram\n", "70000\n", "65712999613\n");
    write_zone("1", "package-1\n", "2000000\n", RANGE "\n");
    write_zone("1:0", "dram\n", "80000\n", "65712999613\n");
    write_zone("2", "psys\n", "5000000\n", RANGE "\n");
    attn_energy_meter *meter = open_meter();
    const attn_energy_source *source = attn_energy_source_at(meter, 0);
    assert_int_equal(source->n_channels, 7);
    assert_string_equal(channel(meter, 3)->id, "rapl:package-0/dram");
    assert_int_equal(channel(meter, 1)->parent, 0);
    assert_int_equal(channel(meter, 2)->parent, 0);
    assert_int_equal(channel(meter, 3)->parent, -1); /* beside the package, not in it */
    assert_true(fabs(channel(meter, 0)->resolution_j - 61.035e-6) < 1e-9);
    const bool counted[] = {true, false, false, true, true, true, true};
    for (size_t i = 0; i < 7; i++)
        assert_int_equal(attn_energy_is_counted(meter, source, i), counted[i]);

    static attn_energy_snapshot begin, end;
    attn_energy_mark(meter, &begin);
    set_energy("0", "101000000\n");
    set_energy("0:0", "60500000\n");
    set_energy("0:1", "1090000\n");
    set_energy("0:2", "10070000\n");
    set_energy("1", "52000000\n");
    set_energy("1:0", "5080000\n");
    set_energy("2", "305000000\n");
    pass_seconds(2.0);
    attn_energy_mark(meter, &end);
    attn_figure figures[ATTN_ENERGY_FIGURES];
    attn_energy_between(meter, &begin, &end, figures);
    assert_string_equal(figures[0].name, "energy_cpu_package_j");
    assert_energy(&figures[ATTN_ENERGY_FIGURE_PACKAGE], 150.0);
    assert_energy(&figures[ATTN_ENERGY_FIGURE_DRAM], 15.0);
    assert_energy(&figures[ATTN_ENERGY_FIGURE_PSYS], 300.0);
    assert_non_null(strstr(figures[0].source, ZONES ":0/energy_uj + " ZONES ":1/energy_uj"));
    attn_energy_close(meter);
}

/* Marks around two values of a lone package; gives its figure. */
static attn_figure package_figure(const char *before, const char *after, const char *range,
                                  double seconds)
{
    write_zone("0", "package-0\n", before, range);
    attn_energy_meter *meter = open_meter();
    static attn_energy_snapshot begin, end;
    attn_energy_mark(meter, &begin);
    set_energy("0", after);
    pass_seconds(seconds);
    attn_energy_mark(meter, &end);
    attn_figure figures[ATTN_ENERGY_FIGURES];
    attn_energy_between(meter, &begin, &end, figures);
    attn_energy_close(meter);
    return figures[ATTN_ENERGY_FIGURE_PACKAGE];
}

static void wraps(void **state)
{
    (void)state;
    /* 6 J to the top, 7 J beyond */
    const attn_figure figure = package_figure("262137328850\n", "7000000\n", RANGE, 1.0);
    assert_energy(&figure, 13.0);
}

static void reset_is_unknown(void **state)
{
    (void)state;
    const attn_figure figure = package_figure("100000000\n", "7000000\n", RANGE, 1.0);
    assert_unavailable(&figure, "reset");
    assert_non_null(strstr(figure.why, "0 % of the window"));
}

static void jump_is_unknown(void **state)
{
    (void)state;
    const attn_figure figure = package_figure("1000000\n", "90000000000\n", RANGE, 1.0);
    assert_unavailable(&figure, "rapl:package-0: the counter was reset or jumped");
}

static void double_wrap_in_a_gap_is_refused(void **state)
{
    (void)state;
    /* In 200 s a socket at the bound could wrap more than once: 13 J or 262 kJ more? */
    const attn_figure figure = package_figure("262137328850\n", "7000000\n", RANGE, 200.0);
    assert_unavailable(&figure, "may have wrapped unseen");
}

static void missing_range(void **state)
{
    (void)state;
    const attn_figure forward = package_figure("1000000\n", "21000000\n", NULL, 1.0);
    assert_energy(&forward, 20.0);
    const attn_figure back = package_figure("21000000\n", "1000000\n", NULL, 1.0);
    assert_unavailable(&back, "reset");
}

static void zero_range(void **state)
{
    (void)state;
    const attn_figure back = package_figure("21000000\n", "1000000\n", "0\n", 1.0);
    assert_unavailable(&back, "reset");
}

static void garbage_range(void **state)
{
    (void)state;
    const attn_figure back = package_figure("21000000\n", "1000000\n", "-1\n", 1.0);
    assert_unavailable(&back, "reset");
}

static void one_register_two_dies(void **state)
{
    (void)state;
    write_zone("0", "package-0-die-0\n", "1000000\n", RANGE);
    write_zone("1", "package-0-die-1\n", "1000000\n", RANGE);
    write_zone("2", "package-1-die-0\n", "4000000\n", RANGE);
    attn_energy_meter *meter = open_meter();
    assert_int_equal(channel(meter, 0)->mirror_of, -1);
    assert_int_equal(channel(meter, 1)->mirror_of, 0);
    assert_int_equal(channel(meter, 2)->mirror_of, -1);
    static attn_energy_snapshot begin, end;
    attn_energy_mark(meter, &begin);
    set_energy("0", "69000000");
    set_energy("1", "69000000");
    set_energy("2", "36000000");
    pass_seconds(1.0);
    attn_energy_mark(meter, &end);
    attn_figure figures[ATTN_ENERGY_FIGURES];
    attn_energy_between(meter, &begin, &end, figures);
    assert_energy(&figures[0], 68.0 + 32.0);
    attn_energy_close(meter);
}

static void two_counters_at_zero_are_two(void **state)
{
    (void)state;
    write_zone("0", "package-0\n", "0\n", RANGE);
    write_zone("1", "package-1\n", "0\n", RANGE);
    attn_energy_meter *meter = open_meter();
    assert_int_equal(channel(meter, 1)->mirror_of, -1);
    attn_energy_close(meter);
}

static void write_socket(unsigned cpu, unsigned package)
{
    char path[TREE_PATH_BYTES], text[16];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%u/topology/physical_package_id", cpu);
    snprintf(text, sizeof text, "%u\n", package);
    tree_write(root, path, text);
}

static void second_socket_without_the_first(void **state)
{
    (void)state;
    tree_write(root, "/sys/devices/system/cpu/present", "0-3\n");
    write_socket(0, 0);
    write_socket(1, 0);
    write_socket(2, 1);
    write_socket(3, 1);
    const char *zones[] = {"package-1\n", "package-1-die-0\n"};
    for (size_t i = 0; i < 2; i++) {
        write_zone("0", zones[i], "1000000\n", RANGE);
        if (i == 1) write_zone("1", "package-1-die-1\n", "3000000\n", RANGE);
        attn_energy_meter *meter = open_meter();
        assert_int_equal(attn_energy_source_at(meter, 0)->n_channels, i + 2);
        assert_string_equal(channel(meter, i + 1)->id, "rapl:package-0");
        assert_int_equal(channel(meter, i + 1)->state, ATTN_ENERGY_ABSENT);
        static attn_energy_snapshot begin, end;
        attn_energy_mark(meter, &begin);
        set_energy("0", "11000000");
        pass_seconds(1.0);
        attn_energy_mark(meter, &end);
        attn_figure figures[ATTN_ENERGY_FIGURES];
        attn_energy_between(meter, &begin, &end, figures);
        assert_unavailable(&figures[0], "package-0 of this machine has no RAPL zone");
        attn_energy_close(meter);
    }
}

static void lone_socket_numbered_one(void **state)
{
    (void)state;
    tree_write(root, "/sys/devices/system/cpu/present", "0\n");
    write_socket(0, 0);
    write_zone("3", "package-1\n", "1000000\n", RANGE);
    attn_energy_meter *meter = open_meter();
    assert_int_equal(attn_energy_source_at(meter, 0)->n_channels, 1);
    assert_string_equal(channel(meter, 0)->id, "rapl:package-1");
    attn_energy_close(meter);
}

static void mmio_twin_is_skipped(void **state)
{
    (void)state;
    write_zone("0", "package-0\n", "1000000\n", RANGE);
    write_zone("-mmio:0", "ignored\n", "1\n", RANGE); /* intel-rapl:-mmio:0: not a zone at all */
    tree_write(root, ZONES "-mmio:0/name", "package-0\n");
    tree_write(root, ZONES "-mmio:0/energy_uj", "1000000\n");
    tree_write(root, ZONES "/enabled", "1\n");
    attn_energy_meter *meter = open_meter();
    assert_int_equal(attn_energy_source_at(meter, 0)->n_channels, 1);
    attn_energy_close(meter);
}

static void mmio_alone_serves(void **state)
{
    (void)state;
    tree_write(root, ZONES "-mmio:0/name", "package-0\n");
    tree_write(root, ZONES "-mmio:0/energy_uj", "1000000\n");
    attn_energy_meter *meter = open_meter();
    assert_int_equal(attn_energy_source_at(meter, 0)->n_channels, 1);
    assert_non_null(strstr(channel(meter, 0)->path, "intel-rapl-mmio:0"));
    attn_energy_close(meter);
}

static void garbage_and_empty_files(void **state)
{
    (void)state;
    const char *const contents[] = {"",   "\n", "-5\n", "1000x\n", "99999999999999999999999\n",
                                    "nan"};
    for (size_t i = 0; i < sizeof contents / sizeof *contents; i++) {
        const attn_figure figure = package_figure(contents[i], "21000000\n", RANGE, 1.0);
        assert_unavailable(&figure, "does not hold a number");
    }
    /* Good at the start, bad at the end: a failed reading never becomes 0 J or -21 J. */
    for (size_t i = 0; i < sizeof contents / sizeof *contents; i++) {
        const attn_figure figure = package_figure("21000000\n", contents[i], RANGE, 1.0);
        assert_unavailable(&figure, "could not be read");
    }
}

static void bad_reading_in_between_costs_nothing(void **state)
{
    (void)state;
    write_zone("0", "package-0\n", "1000000\n", RANGE);
    attn_energy_meter *meter = open_meter();
    static attn_energy_snapshot begin, middle, end;
    attn_energy_mark(meter, &begin);
    set_energy("0", "");
    pass_seconds(1.0);
    attn_energy_mark(meter, &middle);
    set_energy("0", "31000000");
    pass_seconds(1.0);
    attn_energy_mark(meter, &end);
    attn_figure figures[ATTN_ENERGY_FIGURES];
    attn_energy_between(meter, &begin, &end, figures);
    assert_energy(&figures[0], 30.0);
    attn_energy_between(meter, &middle, &end, figures);
    assert_unavailable(&figures[0], "could not be read");
    attn_energy_between(meter, &end, &begin, figures);
    assert_unavailable(&figures[0], "not in order");
    attn_energy_close(meter);
}

/* A file of the kernel that goes away while it is open: that of a process that ends. */
static void vanishing_file(void **state)
{
    (void)state;
    const pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    assert_true(child > 0);
    write_zone("0", "package-0\n", "1\n", RANGE);
    char path[TREE_PATH_BYTES], target[64];
    snprintf(path, sizeof path, "%.200s" ZONES ":0/energy_uj", root);
    snprintf(target, sizeof target, "/proc/%d/oom_score_adj", (int)child);
    unlink(path);
    assert_int_equal(symlink(target, path), 0);

    attn_energy_meter *meter = open_meter();
    assert_int_equal(channel(meter, 0)->state, ATTN_ENERGY_OK);
    static attn_energy_snapshot begin, end;
    attn_energy_mark(meter, &begin);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    pass_seconds(1.0);
    attn_energy_mark(meter, &end);
    attn_figure figures[ATTN_ENERGY_FIGURES];
    attn_energy_between(meter, &begin, &end, figures);
    assert_unavailable(&figures[0], "went away");
    attn_energy_close(meter);
}

/* Root reads whatever it likes, so a child that is nobody looks. */
static void no_permission(void **state)
{
    (void)state;
    write_zone("0", "package-0\n", "1000000\n", RANGE);
    char path[TREE_PATH_BYTES];
    snprintf(path, sizeof path, "%.200s" ZONES ":0/energy_uj", root);
    assert_int_equal(chmod(path, 0400), 0);
    int tube[2];
    assert_int_equal(pipe(tube), 0);
    const pid_t child = fork();
    if (child == 0) {
        attn_figure figures[ATTN_ENERGY_FIGURES] = {0};
        attn_energy_state seen = ATTN_ENERGY_OK;
        const int denied =
            geteuid() == 0 ? setresuid(65534, 65534, 65534) : chmod(path, 0); /* own file */
        if (denied != 0) _exit(1);
        attn_energy_meter *meter = open_meter();
        static attn_energy_snapshot begin, end;
        attn_energy_mark(meter, &begin);
        pass_seconds(1.0);
        attn_energy_mark(meter, &end);
        attn_energy_between(meter, &begin, &end, figures);
        seen = channel(meter, 0)->state;
        attn_energy_close(meter);
        const ssize_t sent = write(tube[1], &figures[0], sizeof figures[0]);
        _exit(sent == (ssize_t)sizeof figures[0] && seen == ATTN_ENERGY_DENIED ? 0 : 1);
    }
    int status = 0;
    attn_figure figure;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(read(tube[0], &figure, sizeof figure), (ssize_t)sizeof figure);
    close(tube[0]);
    close(tube[1]);
    assert_unavailable(&figure, "no permission");
    assert_non_null(strstr(figure.why, "SUBSYSTEM==\"powercap\", ACTION==\"add\", "
                                       "RUN+=\"/bin/chgrp power /sys/%p/energy_uj\", "
                                       "RUN+=\"/bin/chmod g+r /sys/%p/energy_uj\""));
    assert_non_null(strstr(figure.why, "(lets the group spy on power)")); /* nothing was cut */
    assert_null(strstr(figure.why, "as root"));
    assert_null(strstr(figure.why, "sudo"));
}

static void virtual_machine(void **state)
{
    (void)state;
    tree_write(root, "/proc/cpuinfo",
               "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu hypervisor sse\n");
    tree_write(root, "/sys/devices/system/clocksource/clocksource0/available_clocksource",
               "kvm-clock tsc \n");
    attn_energy_meter *meter = open_meter();
    static attn_energy_snapshot begin, end;
    attn_energy_mark(meter, &begin);
    pass_seconds(1.0);
    attn_energy_mark(meter, &end);
    attn_figure figures[ATTN_ENERGY_FIGURES];
    attn_energy_between(meter, &begin, &end, figures);
    for (size_t i = 0; i <= ATTN_ENERGY_FIGURE_PSYS; i++) {
        assert_unavailable(&figures[i], "virtual machines do not expose RAPL");
        assert_non_null(strstr(figures[i].why, "(hypervisor: KVM)"));
        assert_non_null(strstr(figures[i].why, "fix: run on bare metal"));
    }
    attn_energy_close(meter);
}

static void bare_metal_without_the_module(void **state)
{
    (void)state;
    tree_write(root, "/proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu sse\n");
    attn_energy_meter *meter = open_meter();
    assert_int_equal(attn_energy_source_at(meter, 0)->n_channels, 0);
    assert_non_null(strstr(attn_energy_source_at(meter, 0)->fix, "modprobe intel_rapl_msr"));
    attn_energy_close(meter);
}

static void domain_that_is_not_there(void **state)
{
    (void)state;
    write_zone("0", "package-0\n", "1000000\n", RANGE);
    attn_energy_meter *meter = open_meter();
    static attn_energy_snapshot begin, end;
    attn_energy_mark(meter, &begin);
    pass_seconds(1.0);
    attn_energy_mark(meter, &end);
    attn_figure figures[ATTN_ENERGY_FIGURES];
    attn_energy_between(meter, &begin, &end, figures);
    assert_unavailable(&figures[ATTN_ENERGY_FIGURE_DRAM], "no dram counter");
    assert_unavailable(&figures[ATTN_ENERGY_FIGURE_PSYS], "no psys counter");
    attn_energy_close(meter);
}

static void zones_of_unknown_kind_are_left_out(void **state)
{
    (void)state;
    write_zone("0", "package-0\n", "1000000\n", RANGE);
    write_zone("1", "flux\n", "1000000\n", RANGE);
    write_zone("1:0", "core\n", "1000000\n", RANGE); /* below a zone that is not used */
    write_zone("1:1", "uncore\n", "2000000\n", RANGE);
    attn_energy_meter *meter = open_meter();
    assert_int_equal(attn_energy_source_at(meter, 0)->n_channels, 3);
    assert_int_equal(channel(meter, 1)->parent, -1);
    assert_int_equal(channel(meter, 2)->parent, -1);
    assert_string_equal(channel(meter, 2)->id, "rapl:uncore");
    attn_energy_close(meter);
}

static void write_processor(const char *vendor, unsigned family, unsigned model, const char *flags)
{
    char text[512];
    snprintf(text, sizeof text, "vendor_id\t: %s\ncpu family\t: %u\nmodel\t\t: %u\nflags\t\t: %s\n",
             vendor, family, model, flags);
    tree_write(root, "/proc/cpuinfo", text);
}

/* Opens with this processor and range of its memory's counter; the notes of the package, and of
 * the memory. */
static void assert_notes(const char *range, const char *package, const char *memory)
{
    write_zone("0", "package-0\n", "1000000\n", RANGE "\n");
    write_zone("0:0", "dram\n", "70000\n", range);
    attn_energy_meter *meter = open_meter();
    assert_string_equal(channel(meter, 0)->note, package);
    assert_string_equal(channel(meter, 1)->note, memory);
    attn_energy_close(meter);
}

static void units_follow_the_processor(void **state)
{
    (void)state;
    static const char fine[] = "65712999613\n", coarse[] = RANGE "\n";
    static const struct {
        unsigned model;
        bool is_fine; /* 15.3 uJ a count, whatever the register states */
    } servers[] = {{0x3f, true},  {0x4f, true},  {0x55, true},  {0x6a, true}, {0x6c, true},
                   {0x8f, false}, {0xcf, false}, {0xad, false}, {0xaf, false}};
    for (size_t i = 0; i < sizeof servers / sizeof *servers; i++) {
        const bool is_fine = servers[i].is_fine;
        write_processor("GenuineIntel", 6, servers[i].model, "fpu avx2");
        assert_notes(is_fine ? fine : coarse, "", "");
        assert_notes(is_fine ? coarse : fine, "",
                     is_fine ? "the kernel counts 61 uJ where this processor has 15.3: "
                               "4 times the energy"
                             : "the kernel counts 15.3 uJ where this processor has 61: "
                               "0.25 times the energy");
    }
    /* A client, another maker, and a range that is not told: nothing is known against it. */
    write_processor("GenuineIntel", 6, 0x9e, "fpu avx2");
    assert_notes(fine, "", "");
    assert_notes(coarse, "", "");
    write_processor("GenuineIntel", 6, 0x8f, "fpu avx2");
    assert_notes("nonsense\n", "", ""); /* and the kernel's number is not known */
    tree_write(root, "/proc/sys/kernel/osrelease", "5.15.0-91-generic\n");
    assert_notes("nonsense\n", "",
                 "kernels before 6.1 may show a quarter of this processor's memory energy");
    tree_write(root, "/proc/sys/kernel/osrelease", "6.1.0-25-amd64\n");
    assert_notes("nonsense\n", "", "");
    write_processor("AuthenticAMD", 25, 0x55, "fpu avx2");
    assert_notes(coarse,
                 "modelled inside the processor from its activity; memory is counted nowhere", "");
}

/* A wrong unit stands beside the number that it spoils. */
static void notes_reach_the_figures(void **state)
{
    (void)state;
    static attn_energy_snapshot begin, end;
    attn_figure figures[ATTN_ENERGY_FIGURES];
    write_processor("GenuineIntel", 6, 0x8f, "fpu sgx sgx_lc");
    write_zone("0", "package-0\n", "1000000\n", RANGE "\n");
    write_zone("0:0", "dram\n", "70000\n", "65712999613\n");
    attn_energy_meter *meter = open_meter();
    attn_energy_mark(meter, &begin);
    pass_seconds(10.0);
    set_energy("0", "11000000\n");
    set_energy("0:0", "1070000\n");
    attn_energy_mark(meter, &end);
    attn_energy_between(meter, &begin, &end, figures);
    assert_energy(&figures[ATTN_ENERGY_FIGURE_DRAM], 1.0);
    assert_non_null(strstr(figures[ATTN_ENERGY_FIGURE_DRAM].why, "0.25 times the energy"));
    assert_energy(&figures[ATTN_ENERGY_FIGURE_PACKAGE], 10.0);
    assert_non_null(strstr(figures[ATTN_ENERGY_FIGURE_PACKAGE].why, "SGX is on"));
    attn_energy_close(meter);
}

static void memory_is_short(void **state)
{
    (void)state;
    write_zone("0", "package-0\n", "1000000\n", RANGE);
    const size_t live = attn_memory_live_blocks();
    const attn_energy_options options = {
        .root = root, .probe_s = 0.001, .now_ns = fake_now_ns, .sources = powercap, .n_sources = 1};
    attn_status status = ATTN_EMEMORY;
    size_t failures = 0;
    for (size_t n = 1; status != ATTN_OK; n++) {
        attn_energy_meter *meter = NULL;
        attn_error error = {0};
        attn_memory_fail_at(n);
        status = attn_energy_open(&meter, &options, &error);
        attn_memory_fail_at(0);
        attn_energy_close(meter);
        assert_int_equal(attn_memory_live_blocks(), live);
        if (status == ATTN_OK) break;
        assert_int_equal(status, ATTN_EMEMORY);
        assert_null(meter);
        failures++;
    }
    assert_int_equal(failures, 2);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(adds_sockets_and_memory_only),
        CASE(wraps),
        CASE(reset_is_unknown),
        CASE(jump_is_unknown),
        CASE(double_wrap_in_a_gap_is_refused),
        CASE(missing_range),
        CASE(zero_range),
        CASE(garbage_range),
        CASE(one_register_two_dies),
        CASE(two_counters_at_zero_are_two),
        CASE(second_socket_without_the_first),
        CASE(lone_socket_numbered_one),
        CASE(mmio_twin_is_skipped),
        CASE(mmio_alone_serves),
        CASE(garbage_and_empty_files),
        CASE(bad_reading_in_between_costs_nothing),
        CASE(vanishing_file),
        CASE(no_permission),
        CASE(virtual_machine),
        CASE(bare_metal_without_the_module),
        CASE(domain_that_is_not_there),
        CASE(zones_of_unknown_kind_are_left_out),
        CASE(units_follow_the_processor),
        CASE(notes_reach_the_figures),
        CASE(memory_is_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
