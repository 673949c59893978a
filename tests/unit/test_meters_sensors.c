/* Sensors of hwmon and batteries, on trees that this file writes. Time is the test's own. */
#include "meter_fixture.h"

#include "base/memory.h"

#include <math.h>

#define HWMON  "/sys/class/hwmon/hwmon"
#define SUPPLY "/sys/class/power_supply/"

static char root[TREE_PATH_BYTES];

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

static attn_energy_meter *open_meter(const char *gpus)
{
    static const attn_energy_operations *const sources[] = {&attn_energy_hwmon,
                                                            &attn_energy_battery};
    return open_on_fake_time((attn_energy_options){
        .root = root, .probe_s = 0.001, .gpus = gpus, .sources = sources, .n_sources = 2});
}

static void write_sensor(int hwmon, const char *file, const char *text)
{
    char path[TREE_PATH_BYTES];
    snprintf(path, sizeof path, HWMON "%d/%s", hwmon, file);
    tree_write(root, path, text);
}

static const attn_figure *system_energy(attn_energy_meter *meter, double seconds)
{
    watch(meter, seconds);
    return &figures[ATTN_ENERGY_FIGURE_SYSTEM];
}

static void the_acpi_meter_is_the_whole_machine(void **state)
{
    (void)state;
    write_sensor(3, "name", "power_meter\n");
    write_sensor(3, "power1_average", "250000000\n");
    write_sensor(3, "power1_average_interval", "1000\n");
    write_sensor(3, "power1_accuracy", "5.0%\n");
    attn_energy_meter *meter = open_meter("none");
    const attn_energy_channel *channel = &attn_energy_source_at(meter, 0)->channels[0];
    assert_int_equal(channel->domain, ATTN_ENERGY_SYSTEM);
    assert_true(channel->update_s == 1.0 && fabs(channel->accuracy - 0.05) < 1e-12);
    const attn_figure *energy = system_energy(meter, 200.0);
    assert_int_equal(energy->provenance, ATTN_INTEGRATED);
    assert_true(fabs(energy->value - 50000.0) < 1.0);
    assert_false(energy->has_interval);
    assert_string_equal(energy->why,
                        "the meter is good for 5 % by its maker, the same way in every trial");
    assert_true(system_energy(meter, 20.0)->has_interval); /* 1 % of a second is 100 s */
    /* The whole machine is in no sum of parts. */
    assert_int_equal(figures[ATTN_ENERGY_FIGURE_COMPONENTS].provenance, ATTN_UNAVAILABLE);
    attn_energy_close(meter);
}

static void power_that_changes_is_a_trapezoid(void **state)
{
    (void)state;
    write_sensor(0, "name", "power_meter\n");
    write_sensor(0, "power1_input", "100000000\n");
    attn_energy_meter *meter = open_meter("none");
    attn_energy_mark(meter, &begin);
    static attn_energy_snapshot between;
    for (int i = 1; i <= 40; i++) { /* from 100 W to 300 W in 20 s */
        char text[32];
        snprintf(text, sizeof text, "%d\n", 100000000 + i * 5000000);
        write_sensor(0, "power1_input", text);
        time_ns += 500000000;
        attn_energy_mark(meter, &between);
    }
    attn_energy_between(meter, &begin, &between, figures);
    assert_true(fabs(figures[ATTN_ENERGY_FIGURE_SYSTEM].value - 4000.0) < 0.1);

    /* Unread for a while: nobody knows what was drawn. */
    attn_energy_mark(meter, &begin);
    time_ns += 20000000000u;
    attn_energy_mark(meter, &end);
    attn_energy_between(meter, &begin, &end, figures);
    assert_int_equal(figures[ATTN_ENERGY_FIGURE_SYSTEM].provenance, ATTN_UNAVAILABLE);
    assert_non_null(strstr(figures[ATTN_ENERGY_FIGURE_SYSTEM].why, "was not read for too long"));
    attn_energy_close(meter);
}

static void sensors_go_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *name, *file, *label;
        attn_energy_domain domain;
    } cases[] = {
        {"ina3221", "power1_input", "VDD_IN", ATTN_ENERGY_RAIL},
        {"power_meter", "power1_average", "Module Power Socket 0", ATTN_ENERGY_MODULE},
        {"power_meter", "power1_average", "CPU Power Socket 0", ATTN_ENERGY_PACKAGE},
        {"power_meter", "power1_average", "SysIO Power Socket 0", ATTN_ENERGY_RAIL},
        {"amdgpu", "power1_average", "PPT", ATTN_ENERGY_GPU},
        {"amdgpu", "power1_input", "PPT", ATTN_ENERGY_GPU},
        {"xe", "energy1_input", "card", ATTN_ENERGY_GPU},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tree_remove(root);
        mkdir(root, 0755);
        write_sensor(7, "name", cases[i].name);
        write_sensor(7, cases[i].file, "1000000\n");
        write_sensor(7, "power1_label", cases[i].label);
        write_sensor(7, "device/uevent", "DRIVER=x\nPCI_SLOT_NAME=0000:03:00.0\n");
        attn_energy_meter *meter = open_meter("all");
        assert_int_equal(attn_energy_source_at(meter, 0)->n_channels, 1);
        const attn_energy_channel *channel = &attn_energy_source_at(meter, 0)->channels[0];
        assert_int_equal(channel->domain, cases[i].domain);
        assert_int_equal(channel->kind, strcmp(cases[i].name, "xe") == 0 ? ATTN_ENERGY_COUNTER
                                                                         : ATTN_ENERGY_GAUGE);
        assert_int_equal(attn_energy_is_counted(meter, attn_energy_source_at(meter, 0), 0),
                         cases[i].domain != ATTN_ENERGY_RAIL);
        attn_energy_close(meter);
        meter = open_meter("0000:04:00.0"); /* another board is wanted */
        assert_int_equal(attn_energy_source_at(meter, 0)->n_channels,
                         cases[i].domain == ATTN_ENERGY_GPU ? 0 : 1);
        attn_energy_close(meter);
    }
    /* A sensor that shows a battery is left to the battery. */
    write_sensor(7, "name", "power_meter");
    write_sensor(7, "power1_is_battery", "1\n");
    attn_energy_meter *meter = open_meter("none");
    assert_int_equal(attn_energy_source_at(meter, 0)->n_channels, 0);
    assert_non_null(strstr(attn_energy_source_at(meter, 0)->why, "no power sensor"));
    attn_energy_close(meter);
}

static void bad_sensors_are_never_zero(void **state)
{
    (void)state;
    static const char *const contents[] = {"", "\n", "-5\n", "nan\n", "99999999999999\n"};
    for (size_t i = 0; i < sizeof contents / sizeof *contents; i++) {
        write_sensor(0, "name", "power_meter\n");
        write_sensor(0, "power1_average", "100000000\n");
        attn_energy_meter *meter = open_meter("none");
        attn_energy_mark(meter, &begin);
        write_sensor(0, "power1_average", contents[i]);
        time_ns += 500000000;
        attn_energy_mark(meter, &end);
        attn_energy_between(meter, &begin, &end, figures);
        assert_int_equal(figures[ATTN_ENERGY_FIGURE_SYSTEM].provenance, ATTN_UNAVAILABLE);
        assert_true(isnan(figures[ATTN_ENERGY_FIGURE_SYSTEM].value));
        assert_non_null(strstr(figures[ATTN_ENERGY_FIGURE_SYSTEM].why, "could not be read"));
        attn_energy_close(meter);
    }
}

/* ---- batteries ---------------------------------------------------------------------------- */

static void write_battery(const char *name, const char *file, const char *text)
{
    char path[TREE_PATH_BYTES];
    snprintf(path, sizeof path, SUPPLY "%s/%s", name, file);
    tree_write(root, path, text);
}

static void batteries_speak_while_they_discharge(void **state)
{
    (void)state;
    write_battery("AC", "type", "Mains\n");
    write_battery("BAT0", "type", "Battery\n");
    write_battery("BAT0", "status", "Discharging\n");
    write_battery("BAT0", "power_now", "15000000\n");
    write_battery("hidpp_battery_0", "type", "Battery\n"); /* a mouse */
    write_battery("hidpp_battery_0", "scope", "Device\n");
    write_battery("hidpp_battery_0", "status", "Charging\n");
    attn_energy_meter *meter = open_meter("none");
    const attn_figure *energy = system_energy(meter, 120.0);
    assert_int_equal(energy->provenance, ATTN_INTEGRATED);
    assert_true(fabs(energy->value - 1800.0) < 0.1);
    assert_non_null(strstr(energy->why, "the whole machine with its screen"));

    energy = system_energy(meter, 30.0);
    assert_int_equal(energy->provenance, ATTN_UNAVAILABLE);
    assert_non_null(strstr(energy->why, "which needs 60 s"));

    attn_energy_mark(meter, &begin);
    write_battery("BAT0", "status", "Charging\n"); /* plugged in halfway */
    time_ns += 500000000;
    attn_energy_mark(meter, &end);
    attn_energy_between(meter, &begin, &end, figures);
    assert_non_null(strstr(figures[ATTN_ENERGY_FIGURE_SYSTEM].why, "it had nothing to say"));
    attn_energy_close(meter);

    meter = open_meter("none"); /* on mains from the start */
    assert_int_equal(attn_energy_source_at(meter, 1)->channels[0].state, ATTN_ENERGY_SILENT);
    assert_non_null(strstr(system_energy(meter, 90.0)->why, "does not run on its battery"));
    attn_energy_close(meter);
}

static void batteries_may_tell_current_and_voltage(void **state)
{
    (void)state;
    write_battery("BAT1", "type", "Battery\n");
    write_battery("BAT1", "status", "Discharging\n");
    write_battery("BAT1", "current_now", "1500000\n");
    write_battery("BAT1", "voltage_now", "12000000\n");
    write_battery("BAT0", "type", "Battery\n"); /* the second rests meanwhile */
    write_battery("BAT0", "status", "Not charging\n");
    attn_energy_meter *meter = open_meter("none");
    const attn_figure *energy = system_energy(meter, 100.0);
    assert_true(fabs(energy->value - 1800.0) < 0.1);
    /* One that charges takes what the other gives: nobody knows what the machine uses. */
    write_battery("BAT0", "status", "Charging\n");
    assert_int_equal(system_energy(meter, 100.0)->provenance, ATTN_UNAVAILABLE);
    write_battery("BAT0", "status", "Not charging\n");
    attn_energy_close(meter);
    write_battery("BAT1", "voltage_now", "\n");
    meter = open_meter("none");
    assert_int_equal(attn_energy_source_at(meter, 1)->channels[0].state, ATTN_ENERGY_FAILED);
    attn_energy_close(meter);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        CASE(the_acpi_meter_is_the_whole_machine),
        CASE(power_that_changes_is_a_trapezoid),
        CASE(sensors_go_by_name),
        CASE(bad_sensors_are_never_zero),
        CASE(batteries_speak_while_they_discharge),
        CASE(batteries_may_tell_current_and_voltage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
