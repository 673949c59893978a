/* RAPL through powercap: what is counted, and what goes wrong. */
#include "rapl_fixture.h"

#include "base/memory.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

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
        CASE(memory_is_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
