/* Windows of several stretches, on an energy counter and a clock that the test moves. */
#define _DEFAULT_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/memory.h"
#include "experiment/phases.h"
#include "experiment/record.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t counter_uj, clock_ns, read_ns; /* read_ns: what a reading takes */
static attn_energy_state counter_state;
static attn_energy_channel *counter_channel;

static uint64_t now_ns(void)
{
    return clock_ns += 1000;
}

static attn_status open_counter(attn_energy_source **out, const attn_energy_options *options,
                                attn_error *error);

static attn_energy_state read_counter(attn_energy_source *source, size_t channel, uint64_t *count)
{
    (void)source;
    (void)channel;
    clock_ns += read_ns;
    *count = counter_uj += 1; /* it runs while the probe looks */
    return counter_state;
}

static void close_counter(attn_energy_source *source)
{
    attn_free(source->channels);
    attn_free(source);
}

static const attn_energy_operations counter = {.name = "counter",
                                               .path = "nowhere",
                                               .open = open_counter,
                                               .read = read_counter,
                                               .close = close_counter};

static attn_status open_counter(attn_energy_source **out, const attn_energy_options *options,
                                attn_error *error)
{
    (void)options;
    (void)error;
    attn_energy_source *source = attn_alloc(ATTN_MEMORY_OTHER, sizeof *source);
    attn_energy_channel *channel = attn_alloc(ATTN_MEMORY_OTHER, sizeof *channel);
    assert_true(source && channel);
    *channel = (attn_energy_channel){.id = "counter",
                                     .path = "counter",
                                     .domain = ATTN_ENERGY_PACKAGE,
                                     .unit_j = 1e-6,
                                     .range = UINT64_C(1) << 40,
                                     .power_bound_w = 1000.0,
                                     .parent = -1,
                                     .mirror_of = -1,
                                     .twin_of = -1,
                                     .state = ATTN_ENERGY_OK};
    counter_channel = channel;
    *source = (attn_energy_source){.operations = &counter, .channels = channel, .n_channels = 1};
    *out = source;
    return ATTN_OK;
}

static attn_energy_meter *open_meter(void)
{
    static const attn_energy_operations *const sources[] = {&counter};
    const attn_energy_options options = {.now_ns = now_ns, .sources = sources, .n_sources = 1};
    attn_error error = {0};
    attn_energy_meter *meter = NULL;
    counter_state = ATTN_ENERGY_OK;
    assert_int_equal(attn_energy_open(&meter, &options, &error), ATTN_OK);
    return meter;
}

/* `joules` are drawn in the seconds between two readings. */
static void draw(uint64_t joules, uint64_t seconds)
{
    counter_uj += joules * 1000000;
    clock_ns += seconds * 1000000000;
}

static void sleep_ms(long ms)
{
    const struct timespec wait = {.tv_nsec = ms * 1000000};
    nanosleep(&wait, NULL);
}

static void stretches_are_added_up(void **state)
{
    (void)state;
    attn_energy_meter *meter = open_meter();
    attn_window window = {.meter = meter};
    const uint64_t begin_ns = attn_clock_ns();
    static const uint64_t joules[] = {30, 4, 500};
    for (size_t i = 0; i < 3; i++) {
        attn_window_open(&window);
        draw(joules[i], 10);
        sleep_ms(5);
        attn_window_close(&window);
        draw(7000, 20); /* an evaluation: not counted */
        sleep_ms(20);
    }
    const double elapsed_s = attn_clock_seconds(begin_ns, attn_clock_ns());
    assert_int_equal(window.stretches, 3);
    assert_true(window.time_s >= 0.015 && window.time_s <= elapsed_s - 0.060);
    assert_true(window.cpu_s >= 0.0 && window.cpu_s <= window.time_s);

    const attn_figure *package = &window.energy[ATTN_ENERGY_FIGURE_PACKAGE];
    if (package->provenance != ATTN_MEASURED) fail_msg("%s", package->why);
    assert_true(fabs(package->value - 534.0) < 0.01);
    const attn_figure *dram = &window.energy[ATTN_ENERGY_FIGURE_DRAM];
    assert_int_equal(dram->provenance, ATTN_UNAVAILABLE);
    assert_true(isnan(dram->value) && dram->why[0]);
    const attn_figure *steal = &window.process[ATTN_PROCESS_STEAL];
    assert_true(steal->provenance == ATTN_UNAVAILABLE ||
                (steal->value >= 0.0 && steal->value <= 1.0));
    attn_energy_close(meter);
}

/* What is unknown in one stretch is unknown in the sum, whichever stretch it was. */
static void one_lost_stretch_loses_the_sum(void **state)
{
    (void)state;
    for (size_t lost = 0; lost < 3; lost++) {
        attn_energy_meter *meter = open_meter();
        attn_window window = {.meter = meter};
        for (size_t i = 0; i < 3; i++) {
            attn_window_open(&window);
            draw(30, 10);
            if (i == lost) counter_state = ATTN_ENERGY_FAILED;
            attn_window_close(&window);
            counter_state = ATTN_ENERGY_OK;
            draw(1, 10);
        }
        const attn_figure *package = &window.energy[ATTN_ENERGY_FIGURE_PACKAGE];
        assert_int_equal(package->provenance, ATTN_UNAVAILABLE);
        assert_true(isnan(package->value));
        assert_true(package->why[0] != '\0');
        attn_energy_close(meter);
    }
}

/* Short stretches have intervals, which add up too, and the reason is kept. */
static void intervals_are_added_up(void **state)
{
    (void)state;
    attn_energy_meter *meter = open_meter();
    attn_window window = {.meter = meter};
    attn_figure parts[2];
    for (size_t i = 0; i < 2; i++) {
        attn_energy_snapshot begin, end;
        attn_window_open(&window);
        attn_energy_mark(meter, &begin);
        if (i == 0)
            draw(10, 100); /* long enough to have none */
        else
            clock_ns += 50000, counter_uj += 100;
        attn_energy_mark(meter, &end);
        attn_window_close(&window);
        attn_figure figures[ATTN_ENERGY_FIGURES];
        attn_energy_between(meter, &begin, &end, figures);
        parts[i] = figures[ATTN_ENERGY_FIGURE_PACKAGE];
        assert_int_equal(parts[i].provenance, ATTN_MEASURED);
    }
    assert_false(parts[0].has_interval);
    assert_true(parts[1].has_interval);
    const attn_figure *sum = &window.energy[ATTN_ENERGY_FIGURE_PACKAGE];
    assert_int_equal(sum->provenance, ATTN_MEASURED);
    assert_true(sum->has_interval);
    assert_true(sum->low < sum->value && sum->value < sum->high);
    assert_true(fabs((sum->high - sum->low) - (parts[1].high - parts[1].low)) < 1e-4);
    assert_true(sum->why[0] != '\0');
    attn_energy_close(meter);
}

/* ---- parts of a step --------------------------------------------------------------------- */

enum { STEPS = 5 };

static attn_figure parts[ATTN_STEP_PARTS];

static void draw_part(attn_phases *phases, attn_step_part part, double joules, double seconds)
{
    counter_uj += (uint64_t)(joules * 1e6);
    clock_ns += (uint64_t)(seconds * 1e9);
    attn_phases_end(phases, part);
}

/* Five steps of 3.3 s, each 178 J, a quarter of the forward pass being the head's gradients; and
 * much energy between the steps, which is none of theirs. The figures come through a pipe. */
static void measure_parts(attn_energy_meter *meter)
{
    static attn_phases phases;
    phases = (attn_phases){.steps = 0};
    attn_window window = {.meter = meter};
    attn_store_step steps[STEPS];
    attn_window_open(&window);
    attn_phases_begin(&phases, meter, 3.3);
    for (size_t i = 0; i < STEPS; i++) {
        attn_phases_step(&phases);
        draw_part(&phases, ATTN_STEP_DATA, 2.0, 0.1);
        draw_part(&phases, ATTN_STEP_FORWARD, 50.0, 1.0);
        draw_part(&phases, ATTN_STEP_BACKWARD, 120.0, 2.0);
        draw_part(&phases, ATTN_STEP_OPTIMIZER, 6.0, 0.2);
        steps[i] = (attn_store_step){
            .data_s = 0.1, .forward_s = 0.75, .backward_s = 2.25, .optimizer_s = 0.2};
        attn_window_close(&window);
        draw(5000, 10);
        if (i + 1 < STEPS) attn_window_open(&window);
    }
    const attn_step_log log = {.steps = steps, .n = STEPS};
    attn_error error = {0};
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    attn_figure_sink sink = {.descriptor = ends[1], .error = &error};
    attn_put_phase_figures(&sink, &log, &window, &phases);
    assert_int_equal(sink.status, ATTN_OK);
    close(ends[1]);
    static const char *const names[ATTN_STEP_PARTS] = {"energy_data_j", "energy_forward_j",
                                                       "energy_backward_j", "energy_optimizer_j"};
    attn_record record;
    attn_record_reader reader = {.n = 0};
    size_t n = 0;
    for (attn_record_result result;
         (result = attn_record_read(&reader, ends[0], &record)) != ATTN_RECORD_END;) {
        if (result != ATTN_RECORD_WHOLE) continue;
        n++;
        for (size_t p = 0; p < ATTN_STEP_PARTS; p++)
            if (strcmp(record.figure.name, names[p]) == 0) parts[p] = record.figure;
    }
    close(ends[0]);
    assert_int_equal(n, ATTN_STEP_PARTS);
}

static void assert_part(attn_step_part part, double energy_j, attn_provenance provenance,
                        const char *source)
{
    if (fabs(parts[part].value - energy_j) > 0.001 * energy_j)
        fail_msg("%s: %g J, not %g", parts[part].name, parts[part].value, energy_j);
    assert_int_equal(parts[part].provenance, provenance);
    if (!strstr(parts[part].source, source)) fail_msg("source: %s", parts[part].source);
}

static void quick_meters_give_parts_windows_of_their_own(void **state)
{
    (void)state;
    attn_energy_meter *meter = open_meter();
    measure_parts(meter);
    static const char own[] = "in 5 windows of its own";
    assert_part(ATTN_STEP_DATA, 10.0, ATTN_MEASURED, own);
    assert_part(ATTN_STEP_OPTIMIZER, 30.0, ATTN_MEASURED, own);
    assert_part(ATTN_STEP_FORWARD, 187.5, ATTN_DERIVED, "25 % of it the head's gradients");
    assert_part(ATTN_STEP_BACKWARD, 662.5, ATTN_DERIVED, "and 25 % of the forward windows");
    assert_false(parts[ATTN_STEP_DATA].has_interval);
    assert_false(parts[ATTN_STEP_BACKWARD].has_interval);
    attn_energy_close(meter);

    /* 50 ms an update: too long for two of the parts, and an interval for the others. */
    meter = open_meter();
    counter_channel->update_s = 0.05;
    measure_parts(meter);
    static const char attributed[] = "attributed: energy_components_j * its share";
    assert_part(ATTN_STEP_DATA, 890.0 * 0.1 / 3.3, ATTN_DERIVED, attributed);
    assert_part(ATTN_STEP_OPTIMIZER, 890.0 * 0.2 / 3.3, ATTN_DERIVED, attributed);
    assert_part(ATTN_STEP_FORWARD, 187.5, ATTN_DERIVED, own);
    const attn_figure *forward = &parts[ATTN_STEP_FORWARD];
    assert_true(forward->has_interval && forward->low < 178.5 && forward->low > 170.0);
    assert_true(forward->high > 196.5 && forward->high < 205.0);
    assert_non_null(strstr(forward->why, "is short for a counter"));
    attn_energy_close(meter);
}

static void slow_meters_do_not(void **state)
{
    (void)state;
    static const char attributed[] = "attributed: energy_components_j * its share";
    /* 200 ms an update: only the backward pass is long enough, and it needs the forward one. */
    attn_energy_meter *meter = open_meter();
    counter_channel->update_s = 0.2;
    measure_parts(meter);
    assert_part(ATTN_STEP_FORWARD, 890.0 * 0.75 / 3.3, ATTN_DERIVED, attributed);
    assert_part(ATTN_STEP_BACKWARD, 890.0 * 2.25 / 3.3, ATTN_DERIVED, attributed);
    attn_energy_close(meter);

    /* Quick, but a reading takes 1 ms: at five edges of a step that is more than half a
     * thousandth of it. */
    read_ns = 1000000;
    meter = open_meter();
    counter_channel->update_s = 0.001;
    measure_parts(meter);
    read_ns = 0;
    for (attn_step_part p = ATTN_STEP_DATA; p < ATTN_STEP_PARTS; p++)
        assert_non_null(strstr(parts[p].source, "attributed: "));
    attn_energy_close(meter);
}

/* Sleep and a clock that was set count in the stretch in which they were. */
static void disturbed_clocks_are_added_up(void **state)
{
    (void)state;
    attn_window window = {.meter = open_meter()};
    for (int i = 0; i < 2; i++) {
        attn_window_open(&window);
        window.begin_energy.suspended_s -= 30.0;
        window.begin_offset_s += i == 0 ? 3.0 : -2.0; /* forth and back are no rest */
        attn_window_close(&window);
        assert_true(window.begin_epoch_s > 1.6e9 && window.end_epoch_s >= window.begin_epoch_s);
    }
    assert_true(fabs(window.suspended_s - 60.0) < 1.0);
    assert_true(fabs(window.clock_step_s - 5.0) < 1.0);
    attn_energy_close(window.meter);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stretches_are_added_up),
        cmocka_unit_test(one_lost_stretch_loses_the_sum),
        cmocka_unit_test(intervals_are_added_up),
        cmocka_unit_test(quick_meters_give_parts_windows_of_their_own),
        cmocka_unit_test(slow_meters_do_not),
        cmocka_unit_test(disturbed_clocks_are_added_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
