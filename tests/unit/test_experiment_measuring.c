/* What is measured around the training: steadiness, idle power, phases, factors, flags; the order
 * of two mechanisms and the A/A pair. Windows are filled by hand, figures read from the pipe. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "experiment/measuring.h"
#include "experiment/record.h"
#include "meters/energy.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { FIGURES_MOST = 40, STEPS = 20 };

static attn_figure figures[FIGURES_MOST];
static size_t n_figures;

static const attn_figure *find(const char *name)
{
    for (size_t i = 0; i < n_figures; i++)
        if (strcmp(figures[i].name, name) == 0) return &figures[i];
    return NULL;
}

static attn_store_step step_of(double seconds)
{
    return (attn_store_step){.data_s = 0.05 * seconds,
                             .forward_s = 0.25 * seconds,
                             .backward_s = 0.6 * seconds,
                             .optimizer_s = 0.1 * seconds};
}

/* A window of 100 s in which the packages drew 5000 J. */
static attn_window measured_window(void)
{
    attn_window window = {.time_s = 100.0, .meter_s = 0.02, .stretches = 1};
    for (size_t i = 0; i < ATTN_ENERGY_FIGURES; i++)
        window.energy[i] = attn_figure_unavailable("none_j", "J", "nowhere", "no meter");
    window.energy[ATTN_ENERGY_FIGURE_COMPONENTS] =
        attn_figure_make("energy_components_j", "J", 5000.0, ATTN_MEASURED, "packages");
    return window;
}

static void put(const attn_plan *plan, const attn_measured *measured)
{
    int ends[2];
    attn_error error = {0};
    attn_store_step steps[STEPS];
    for (size_t i = 0; i < STEPS; i++) steps[i] = step_of(1.0);
    const attn_step_log log = {.steps = steps, .n = STEPS, .warmup = measured->warmup};
    assert_int_equal(pipe(ends), 0);
    fcntl(ends[1], F_SETPIPE_SZ, 1 << 17);
    attn_figure_sink sink = {.descriptor = ends[1], .error = &error};
    attn_put_measuring_figures(&sink, plan, &log, measured);
    assert_int_equal(sink.status, ATTN_OK);
    close(ends[1]);
    attn_record record;
    attn_record_reader reader = {.n = 0};
    n_figures = 0;
    for (;;) {
        const attn_record_result result = attn_record_read(&reader, ends[0], &record);
        if (result == ATTN_RECORD_END) break;
        if (result == ATTN_RECORD_WHOLE && n_figures < FIGURES_MOST)
            figures[n_figures++] = record.figure;
    }
    close(ends[0]);
}

static attn_figure watts(const char *name, double value)
{
    return attn_figure_make(name, "W", value, ATTN_MEASURED, "at rest");
}

static void dynamic_energy_needs_two_baselines_that_agree(void **state)
{
    (void)state;
    const attn_plan plan = {.measuring.idle_s = 30.0};
    attn_measured m = {.window = measured_window(), .warmth = ATTN_STEADY};
    m.idle_before = watts("power_idle_before_w", 20.0);
    m.idle_after = watts("power_idle_after_w", 20.4);
    put(&plan, &m);
    const attn_figure *dynamic = find("energy_dynamic_j");
    assert_non_null(dynamic);
    assert_int_equal(dynamic->provenance, ATTN_DERIVED);
    assert_true(fabs(dynamic->value - (5000.0 - 20.2 * 100.0)) < 1e-9);
    assert_true(dynamic->low <= dynamic->value - 19.9 && dynamic->high >= dynamic->value + 19.9);
    assert_true(find("power_idle_after_w")->value == 20.4);

    m.idle_after.value = 20.7; /* more than 3 % above */
    put(&plan, &m);
    dynamic = find("energy_dynamic_j");
    assert_int_equal(dynamic->provenance, ATTN_UNAVAILABLE);
    assert_non_null(strstr(dynamic->why, "more than 3 % apart"));

    m.idle_after = attn_figure_unavailable("power_idle_after_w", "W", "rapl", "it went away");
    put(&plan, &m);
    assert_string_equal(find("energy_dynamic_j")->why, "it went away");

    const attn_plan without = {.steps = STEPS};
    put(&without, &m);
    assert_null(find("energy_dynamic_j"));
    assert_null(find("power_idle_before_w"));
}

static void phases_are_attributed_and_say_so(void **state)
{
    (void)state;
    const attn_plan plan = {.steps = STEPS};
    attn_measured m = {.window = measured_window(), .warmup = 4, .warmth = ATTN_STEADY};
    m.evaluation = measured_window();
    m.evaluation.energy[ATTN_ENERGY_FIGURE_COMPONENTS].value = 70.0;
    put(&plan, &m);
    assert_true(fabs(find("energy_forward_j")->value - 1250.0) < 1e-9);
    assert_true(fabs(find("energy_backward_j")->value - 3000.0) < 1e-9);
    const double sum = find("energy_data_j")->value + find("energy_forward_j")->value +
                       find("energy_backward_j")->value + find("energy_optimizer_j")->value;
    assert_true(fabs(sum - 5000.0) < 1e-9);
    assert_int_equal(find("energy_forward_j")->provenance, ATTN_DERIVED);
    assert_int_equal(strncmp(find("energy_forward_j")->source, "attributed: ", 12), 0);
    assert_true(find("energy_evaluation_j")->value == 70.0);
    assert_int_equal(find("energy_evaluation_j")->provenance, ATTN_MEASURED);
    /* Without a measurement nothing is attributed. */
    m.window.energy[ATTN_ENERGY_FIGURE_COMPONENTS].provenance = ATTN_UNAVAILABLE;
    put(&plan, &m);
    assert_null(find("energy_forward_j"));
}

static void factors_are_the_users(void **state)
{
    (void)state;
    const attn_plan plan = {.measuring = {.pue = 1.4,
                                          .carbon_g_per_kwh = 360.0,
                                          .carbon_source = "the supplier's bill"}};
    attn_measured m = {.window = measured_window(), .warmth = ATTN_STEADY};
    put(&plan, &m);
    assert_true(fabs(find("energy_facility_j")->value - 7000.0) < 1e-9);
    assert_true(fabs(find("carbon_g")->value - 0.7) < 1e-12);
    assert_non_null(strstr(find("carbon_g")->source, "the supplier's bill"));
    /* The whole machine is nearer to the bill than its parts. */
    m.window.energy[ATTN_ENERGY_FIGURE_SYSTEM] =
        attn_figure_make("energy_system_j", "J", 9000.0, ATTN_INTEGRATED, "wall");
    put(&plan, &m);
    assert_true(fabs(find("energy_facility_j")->value - 12600.0) < 1e-9);
    assert_non_null(strstr(find("energy_facility_j")->source, "energy_system_j * PUE 1.4"));
    const attn_plan without = {.steps = STEPS};
    put(&without, &m);
    assert_null(find("carbon_g"));
    assert_null(find("energy_facility_j"));
}

static void disturbances_are_flagged(void **state)
{
    (void)state;
    const attn_plan plan = {.steps = STEPS};
    attn_measured m = {.window = measured_window(), .warmth = ATTN_STEADY, .warmup = 7};
    put(&plan, &m);
    assert_true(find("is_steady")->value == 1.0 && find("warmup_steps")->value == 7.0);
    assert_true(fabs(find("meter_share")->value - 0.0002) < 1e-12);
    assert_string_equal(find("suspended_s")->why, "");
    assert_string_equal(find("clock_step_s")->why, "");
    m.window.suspended_s = 30.0;
    m.window.clock_step_s = 1.0;
    m.warmth = ATTN_NOT_STEADY;
    put(&plan, &m);
    assert_non_null(strstr(find("suspended_s")->why, "was suspended"));
    assert_non_null(strstr(find("clock_step_s")->why, "clock was set"));
    assert_true(find("is_steady")->value == 0.0);
    assert_non_null(strstr(find("is_steady")->why, "not steady"));
    m.warmth = ATTN_WARM;
    put(&plan, &m);
    assert_int_equal(find("is_steady")->provenance, ATTN_UNAVAILABLE);
}

static void timing_waits_for_steady_steps(void **state)
{
    (void)state;
    attn_plan plan = {.steps = STEPS, .timing_warmup = 2, .measuring.steady = 0.05};
    attn_store_step steps[STEPS];
    for (size_t i = 0; i < STEPS; i++) steps[i] = step_of(i == 0 ? 9.0 : 1.0);
    for (size_t step = 0; step < 7; step++)
        assert_int_equal(attn_judge_warmth(&plan, steps, step), ATTN_WARMING);
    assert_int_equal(attn_judge_warmth(&plan, steps, 7), ATTN_STEADY); /* the first is not seen */

    /* Faster by a tenth with each step, up to the eighth. */
    for (size_t i = 0; i < STEPS; i++) steps[i] = step_of(i < 4 ? 1.4 - 0.1 * (double)i : 1.0);
    assert_int_equal(attn_judge_warmth(&plan, steps, 7), ATTN_WARMING);
    assert_int_equal(attn_judge_warmth(&plan, steps, 9), ATTN_STEADY);

    /* Slower for ever: half of the steps is the limit. */
    for (size_t i = 0; i < STEPS; i++) steps[i] = step_of(1.0 + 0.1 * (double)i);
    assert_int_equal(attn_judge_warmth(&plan, steps, 9), ATTN_WARMING);
    assert_int_equal(attn_judge_warmth(&plan, steps, 10), ATTN_NOT_STEADY);

    /* Noise is no trend. */
    for (size_t i = 0; i < STEPS; i++) steps[i] = step_of(i % 2 ? 1.2 : 0.9);
    assert_int_equal(attn_judge_warmth(&plan, steps, 7), ATTN_STEADY);

    plan.timing_warmup = 9;
    assert_int_equal(attn_judge_warmth(&plan, steps, 8), ATTN_WARMING);
    plan.measuring.steady = 0.0;
    assert_int_equal(attn_judge_warmth(&plan, steps, 9), ATTN_WARM);
    plan = (attn_plan){.steps = 13, .measuring.steady = 0.05};
    assert_int_equal(attn_judge_warmth(&plan, steps, 0), ATTN_WARM);
}

static void two_mechanisms_go_there_and_back(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 20; seed++) {
        const attn_plan plan = {.n_mechanisms = 2, .seed = seed};
        for (size_t round = 0; round < 8; round += 2) {
            size_t one[2], two[2];
            attn_plan_order(&plan, round, one);
            attn_plan_order(&plan, round + 1, two);
            assert_true(one[0] + one[1] == 1 && one[0] == two[1] && one[1] == two[0]);
        }
    }
}

static void the_twin_is_the_first_mechanism(void **state)
{
    (void)state;
    attn_error error = {0};
    attn_plan plan = {
        .dtype = "f32",
        .sizes = {.layers = 1, .heads = 2, .d_model = 16, .positions = 64, .vocabulary = 100}};
    assert_int_equal(attn_plan_set_mechanisms(&plan, "sliding:window=4,flash", &error), ATTN_OK);
    assert_int_equal(attn_plan_add_again(&plan, &error), ATTN_OK);
    assert_int_equal(plan.n_mechanisms, 3);
    assert_string_equal(plan.mechanisms[2].label, "sliding:window=4 (A/A)");
    assert_string_equal(plan.mechanisms[2].kinds[0].label, plan.mechanisms[0].kinds[0].label);
    assert_true(plan.measuring.has_again);
    for (size_t i = 0; i < 3; i++)
        assert_string_equal(attn_plan_model(&plan, &plan.mechanisms[i]).mechanism,
                            plan.mechanisms[i % 2].label);
}

/* A real wait on a meter of the test: power at rest is the energy over the time. */
static void idle_power_is_measured(void **state)
{
    (void)state;
    const attn_energy_options options = {
        .command = "first=$(date +%s%N); while :; do now=$(date +%s%N); "
                   "echo \"${now%?????????}.${now#??????????} 40\"; sleep 0.02; done"};
    attn_energy_meter *meter = NULL;
    attn_error error = {0};
    assert_int_equal(attn_energy_open(&meter, &options, &error), ATTN_OK);
    assert_int_equal(attn_energy_start(meter, &error), ATTN_OK);
    const attn_figure power = attn_measure_idle(meter, 1.3, "power_idle_before_w");
    attn_energy_close(meter);
    if (power.provenance != ATTN_INTEGRATED) fail_msg("%s", power.why);
    assert_true(fabs(power.value - 40.0) < 1.0);
    assert_true(power.has_interval);

    static const attn_energy_operations *const none[] = {&attn_energy_battery};
    const attn_energy_options empty = {.root = "/nowhere", .sources = none, .n_sources = 1};
    assert_int_equal(attn_energy_open(&meter, &empty, &error), ATTN_OK);
    const attn_figure absent = attn_measure_idle(meter, 0.01, "power_idle_before_w");
    assert_int_equal(absent.provenance, ATTN_UNAVAILABLE);
    assert_true(absent.why[0] != '\0');
    attn_energy_close(meter);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dynamic_energy_needs_two_baselines_that_agree),
        cmocka_unit_test(phases_are_attributed_and_say_so),
        cmocka_unit_test(factors_are_the_users),
        cmocka_unit_test(disturbances_are_flagged),
        cmocka_unit_test(timing_waits_for_steady_steps),
        cmocka_unit_test(two_mechanisms_go_there_and_back),
        cmocka_unit_test(the_twin_is_the_first_mechanism),
        cmocka_unit_test(idle_power_is_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
