/* Windows of several stretches, on an energy counter and a clock that the test moves. */
#define _DEFAULT_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/memory.h"
#include "experiment/window.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static uint64_t counter_uj, clock_ns;
static attn_energy_state counter_state;

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stretches_are_added_up),
        cmocka_unit_test(one_lost_stretch_loses_the_sum),
        cmocka_unit_test(intervals_are_added_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
