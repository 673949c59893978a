/* The null trial: a program that does nothing, on a counter whose true power is known. What is
 * reported must be what was drawn; beside it, what a meter that does not wait for ticks would
 * report, which shows that the test can fail. And the cost of watching. */
#define _DEFAULT_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/random.h"
#include "meters/energy.h"

#include <math.h>
#include <stdio.h>
#include <time.h>

enum { TRIALS = 200 };

static struct {
    double power_w;
    uint64_t update_ns, phase_ns, cost_ns;
    attn_energy_kind kind;
} fake;

static uint64_t time_ns;

static uint64_t fake_now_ns(void)
{
    return time_ns += 1000;
}

static attn_status fake_open(attn_energy_source **out, const attn_energy_options *options,
                             attn_error *error);

static attn_energy_state fake_read(attn_energy_source *source, size_t channel, uint64_t *count)
{
    (void)source;
    (void)channel;
    time_ns += fake.cost_ns;
    const uint64_t seen_ns = (time_ns + fake.phase_ns) / fake.update_ns * fake.update_ns;
    *count = fake.kind == ATTN_ENERGY_GAUGE ? (uint64_t)(1e6 * fake.power_w)
                                            : (uint64_t)((double)seen_ns * 1e-3 * fake.power_w);
    return ATTN_ENERGY_OK;
}

static void fake_close(attn_energy_source *source)
{
    attn_free(source->channels);
    attn_free(source);
}

static const attn_energy_operations fake_operations = {.name = "fake",
                                                       .path = "nowhere",
                                                       .domains = 1u << ATTN_ENERGY_PACKAGE,
                                                       .open = fake_open,
                                                       .read = fake_read,
                                                       .close = fake_close};
static const attn_energy_operations *const sources[] = {&fake_operations};

static attn_status fake_open(attn_energy_source **out, const attn_energy_options *options,
                             attn_error *error)
{
    (void)options;
    (void)error;
    attn_energy_source *source = attn_alloc(ATTN_MEMORY_OTHER, sizeof *source);
    source->channels = attn_alloc(ATTN_MEMORY_OTHER, sizeof *source->channels);
    source->operations = &fake_operations;
    source->n_channels = 1;
    source->channels[0] = attn_energy_channel_make(ATTN_ENERGY_PACKAGE, fake.kind);
    source->channels[0].range = UINT64_MAX;
    source->channels[0].unit_w = 1e-6;
    snprintf(source->channels[0].id, sizeof source->channels[0].id, "fake");
    snprintf(source->channels[0].path, sizeof source->channels[0].path, "fake");
    *out = source;
    return ATTN_OK;
}

static attn_energy_meter *open_meter(uint64_t (*now_ns)(void))
{
    const attn_energy_options options = {
        .now_ns = now_ns, .probe_s = 2.0, .sources = sources, .n_sources = 1};
    attn_energy_meter *meter = NULL;
    attn_error error = {0};
    assert_int_equal(attn_energy_open(&meter, &options, &error), ATTN_OK);
    return meter;
}

/* Relative error of one null trial of five seconds. */
static double trial_error(size_t trial, void (*mark)(attn_energy_meter *, attn_energy_snapshot *))
{
    static attn_energy_snapshot begin, end;
    attn_figure figures[ATTN_ENERGY_FIGURES];
    const uint64_t stream = attn_random_stream(ATTN_RANDOM_TEST, (uint32_t)trial);
    fake.power_w = 20.0 + 400.0 * attn_random_uniform(11, stream, 0);
    fake.phase_ns = (uint64_t)(1e8 * attn_random_uniform(11, stream, 1));
    time_ns = 1000000000u + (uint64_t)(1e9 * attn_random_uniform(11, stream, 2));
    attn_energy_meter *meter = open_meter(fake_now_ns);
    mark(meter, &begin);
    const uint64_t begin_ns = time_ns;
    for (int i = 0; i < 50; i++) {
        static attn_energy_snapshot between;
        time_ns += 100000000 + (uint64_t)(2e6 * attn_random_uniform(11, stream, 3));
        attn_energy_mark(meter, &between);
    }
    const double true_j = fake.power_w * (double)(time_ns - begin_ns) * 1e-9;
    mark(meter, &end);
    attn_energy_between(meter, &begin, &end, figures);
    attn_energy_close(meter);
    assert_int_equal(figures[0].provenance,
                     fake.kind == ATTN_ENERGY_GAUGE ? ATTN_INTEGRATED : ATTN_MEASURED);
    /* The stated interval must hold the truth every time. */
    if (figures[0].has_interval) assert_true(figures[0].low <= true_j && true_j <= figures[0].high);
    return fabs(figures[0].value / true_j - 1.0);
}

static size_t within_half_a_percent(void (*mark)(attn_energy_meter *, attn_energy_snapshot *))
{
    size_t n = 0;
    for (size_t trial = 0; trial < TRIALS; trial++) n += trial_error(trial, mark) <= 0.005;
    return n;
}

static void null_trials_are_within_half_a_percent(void **state)
{
    (void)state;
    static const uint64_t updates_ns[] = {1000000, 15000000, 100000000};
    for (size_t i = 0; i < 3; i++) {
        fake.kind = ATTN_ENERGY_COUNTER;
        fake.update_ns = updates_ns[i];
        fake.cost_ns = i == 2 ? 2400000 : 2000; /* what such counters cost */
        const size_t n = within_half_a_percent(attn_energy_edge);
        print_message("update %.0f ms: %zu of %d within 0.5 %%\n", 1e-6 * (double)updates_ns[i], n,
                      TRIALS);
        assert_true(n >= TRIALS * 95 / 100);
    }
    /* Without waiting for ticks the slow counter fails by far. */
    fake.update_ns = 100000000;
    assert_true(within_half_a_percent(attn_energy_mark) < TRIALS * 80 / 100);
    fake.kind = ATTN_ENERGY_GAUGE;
    assert_true(within_half_a_percent(attn_energy_edge) >= TRIALS * 95 / 100);
}

/* A counter whose reading takes 2.4 ms, as a GPU's does, on the real clock and the real thread:
 * the sampler must read it seldom enough. */
static attn_energy_state slow_read(attn_energy_source *source, size_t channel, uint64_t *count)
{
    (void)source;
    (void)channel;
    const struct timespec wait = {.tv_nsec = 2400000};
    nanosleep(&wait, NULL);
    *count = attn_clock_ns() / 100000000u * 10000000u;
    return ATTN_ENERGY_OK;
}

static attn_status slow_open(attn_energy_source **out, const attn_energy_options *options,
                             attn_error *error);

static const attn_energy_operations slow_operations = {
    .name = "slow", .path = "nowhere", .open = slow_open, .read = slow_read, .close = fake_close};

static attn_status slow_open(attn_energy_source **out, const attn_energy_options *options,
                             attn_error *error)
{
    const attn_status status = fake_open(out, options, error);
    (*out)->operations = &slow_operations;
    return status;
}

static void watching_costs_less_than_a_thousandth(void **state)
{
    (void)state;
    static const attn_energy_operations *const slow_sources[] = {&slow_operations};
    static attn_energy_snapshot begin, end;
    fake.kind = ATTN_ENERGY_COUNTER;
    const attn_energy_options options = {.sources = slow_sources, .n_sources = 1};
    attn_energy_meter *meter = NULL;
    attn_error error = {0};
    assert_int_equal(attn_energy_open(&meter, &options, &error), ATTN_OK);
    assert_int_equal(attn_energy_start(meter, &error), ATTN_OK);
    attn_energy_mark(meter, &begin);
    assert_true(begin.busy_s >= 0.0024); /* what it takes is noted */
    const struct timespec watched = {.tv_sec = 6};
    nanosleep(&watched, NULL);
    attn_energy_mark(meter, &end);
    attn_energy_stop(meter);
    const double share =
        (end.busy_s - begin.busy_s - 0.0024) / ((double)(end.time_ns - begin.time_ns) * 1e-9);
    print_message("share of time spent in reading: %.3f %%\n", 100.0 * share);
    assert_true(share < 0.001 + 0.0005); /* one reading more or less in six seconds */
    assert_true(end.readings[0].samples > begin.readings[0].samples);
    attn_energy_close(meter);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(null_trials_are_within_half_a_percent),
        cmocka_unit_test(watching_costs_less_than_a_thousandth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
