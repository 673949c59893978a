/* The modelled energy: its arithmetic, its classes, its interval, and what users may write. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "meters/energy_model.h"

#include <math.h>
#include <string.h>

static attn_machine_cpu processor(const char *vendor, unsigned family, unsigned model,
                                  unsigned stepping)
{
    attn_machine_cpu cpu = {.family = family, .model = model, .stepping = stepping};
    strncpy(cpu.vendor, vendor, sizeof cpu.vendor - 1);
    return cpu;
}

static attn_energy_model chosen(const attn_machine_cpu *cpu, const char *watts)
{
    attn_energy_model model;
    attn_error error = {0};
    assert_int_equal(attn_energy_model_choose(&model, cpu, watts, &error), ATTN_OK);
    return model;
}

static void classes(void **state)
{
    (void)state;
    static const struct {
        const char *vendor;
        unsigned family, model, stepping;
        const char *name;
    } known[] = {
        {"GenuineIntel", 6, 85, 4, "Skylake"},
        {"GenuineIntel", 6, 85, 7, "Cascade Lake"},
        {"GenuineIntel", 6, 85, 11, "unknown"}, /* Cooper Lake has no constants */
        {"GenuineIntel", 6, 143, 8, "Sapphire Rapids"},
        {"AuthenticAMD", 23, 49, 0, "EPYC 2nd Gen"},
        {"AuthenticAMD", 25, 1, 1, "EPYC 3rd Gen"},
        {"GenuineIntel", 23, 49, 0, "unknown"},
        {"", 0, 0, 0, "unknown"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const attn_machine_cpu cpu =
            processor(known[i].vendor, known[i].family, known[i].model, known[i].stepping);
        const attn_energy_model model = chosen(&cpu, NULL);
        assert_string_equal(model.class_name, known[i].name);
        assert_true(model.low.idle_w < model.central.idle_w);
        assert_true(model.central.full_w < model.high.full_w);
    }
}

static void arithmetic(void **state)
{
    (void)state;
    const attn_machine_cpu cpu = processor("GenuineIntel", 6, 85, 7);
    const attn_energy_model model = chosen(&cpu, NULL);
    const attn_figure figure = attn_energy_model_cpu(&model, 12.0, 2, 23.1);
    assert_string_equal(figure.name, "energy_cpu_package_j");
    assert_int_equal(figure.provenance, ATTN_MODELLED);
    const double central = 12.0 * 2.0 * 0.69 + 23.1 * (4.06 - 0.69);
    assert_true(fabs(figure.value - central) < 1e-9);
    assert_true(figure.has_interval);
    assert_true(fabs(figure.low - central / 2.0) < 1e-9);
    assert_true(fabs(figure.high - central * 2.0) < 1e-9);
    assert_string_equal(figure.source, "ccf-vcpu/1: 2 vCPU x 12 s, 23.1 cpu-s, 0.69-4.06 W/vCPU "
                                       "(class: Cascade Lake)");
    assert_non_null(strstr(figure.why, "cannot rank"));
}

static void unknown_class_is_wide(void **state)
{
    (void)state;
    const attn_machine_cpu cpu = processor("", 0, 0, 0);
    const attn_energy_model model = chosen(&cpu, NULL);
    assert_true(model.central.idle_w == 0.74 && model.central.full_w == 3.5);
    assert_true(model.low.idle_w == 0.46 && model.low.full_w == 1.69);
    assert_true(fabs(model.high.full_w - 1.25 * 8.96) < 1e-12);
    const attn_figure idle = attn_energy_model_cpu(&model, 10.0, 4, 0.0);
    const attn_figure busy = attn_energy_model_cpu(&model, 10.0, 4, 40.0);
    assert_true(idle.low <= idle.value && idle.value <= idle.high);
    assert_true(busy.low <= busy.value / 2.0 && busy.value * 2.0 <= busy.high);
}

static void users_watts(void **state)
{
    (void)state;
    const attn_machine_cpu cpu = processor("GenuineIntel", 6, 85, 7);
    const attn_energy_model model = chosen(&cpu, "1.5:6");
    const attn_figure figure = attn_energy_model_cpu(&model, 10.0, 2, 10.0);
    assert_true(fabs(figure.value - (10.0 * 2.0 * 1.5 + 10.0 * 4.5)) < 1e-9);
    assert_true(fabs(figure.low - 30.0) < 1e-9);   /* both idle throughout */
    assert_true(fabs(figure.high - 120.0) < 1e-9); /* both busy throughout */
    assert_non_null(strstr(figure.source, "(class: user)"));

    static const char *const wrong[] = {"",      "4",    "4:",    ":4",      "6:1.5",
                                        "2:2",   "-1:3", "1:2:3", "1:2W",    "nan:3",
                                        "1:inf", "a:b",  "1 :2",  "1,5:2,5", "1:1e999"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        attn_energy_model ignored;
        attn_error error = {0};
        assert_int_equal(attn_energy_model_choose(&ignored, &cpu, wrong[i], &error),
                         ATTN_EARGUMENT);
        assert_non_null(strstr(error.text, "0.64:3.97"));
    }
}

static void memory(void **state)
{
    (void)state;
    const attn_figure figure = attn_energy_model_dram(100.0, 16e9);
    assert_string_equal(figure.name, "energy_dram_j");
    assert_int_equal(figure.provenance, ATTN_MODELLED);
    assert_true(fabs(figure.value - 627.2) < 1e-9);
    assert_true(figure.has_interval && figure.low < figure.value && figure.value < figure.high);
    assert_string_equal(figure.source, "ccf-vcpu/1: 16 GB x 100 s x 0.392 W/GB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(classes),
        cmocka_unit_test(arithmetic),
        cmocka_unit_test(unknown_class_is_wide),
        cmocka_unit_test(users_watts),
        cmocka_unit_test(memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
