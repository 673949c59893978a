/* The energy meter on a made-up source whose true energy is known: probing, quantisation, the
 * sampler's thread, second looks, and the choice between sources. */
#define _GNU_SOURCE
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
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* A counter of microjoules that draws `power_w`, steps every `update_ns` and wraps. */
static struct {
    double power_w;
    uint64_t update_ns, range, offset;
    attn_energy_state opened_as;
    attn_energy_domain domain;
    uint64_t bad_reading; /* one reading shows this instead, when not 0 */
    atomic_size_t reads;
} fake;

static _Atomic uint64_t fake_ns;

static uint64_t fake_now_ns(void)
{
    return atomic_fetch_add(&fake_ns, 1000) + 1000;
}

static uint64_t (*now_ns)(void) = fake_now_ns;

static attn_status fake_open(attn_energy_source **out, const attn_energy_options *options,
                             attn_error *error)
{
    (void)options;
    (void)error;
    attn_energy_source *source = attn_alloc(ATTN_MEMORY_OTHER, sizeof *source);
    attn_energy_channel *channel = attn_alloc(ATTN_MEMORY_OTHER, sizeof *channel);
    assert_true(source && channel);
    *channel = (attn_energy_channel){.id = "fake",
                                     .path = "fake counter",
                                     .domain = fake.domain,
                                     .unit_j = 1e-6,
                                     .range = fake.range,
                                     .power_bound_w = 1000.0,
                                     .parent = -1,
                                     .mirror_of = -1,
                                     .twin_of = -1,
                                     .state = fake.opened_as,
                                     .why = "made so"};
    *source = (attn_energy_source){.channels = channel, .n_channels = 1};
    extern const attn_energy_operations fake_operations;
    source->operations = &fake_operations;
    *out = source;
    return ATTN_OK;
}

static attn_energy_state fake_read(attn_energy_source *source, size_t channel, uint64_t *count)
{
    (void)source;
    (void)channel;
    atomic_fetch_add(&fake.reads, 1);
    if (fake.bad_reading != 0) {
        *count = fake.bad_reading;
        fake.bad_reading = 0;
        return ATTN_ENERGY_OK;
    }
    const uint64_t seen_ns = now_ns() / fake.update_ns * fake.update_ns;
    *count = fake.offset + (uint64_t)((double)seen_ns * 1e-3 * fake.power_w);
    if (fake.range > 0) *count %= fake.range + 1;
    return ATTN_ENERGY_OK;
}

static void fake_close(attn_energy_source *source)
{
    attn_free(source->channels);
    attn_free(source);
}

extern const attn_energy_operations fake_operations;
const attn_energy_operations fake_operations = {
    .name = "fake", .path = "nowhere", .open = fake_open, .read = fake_read, .close = fake_close};

/* A second source of the same domain; its counter stands still. */
static attn_energy_state still_read(attn_energy_source *source, size_t channel, uint64_t *count)
{
    (void)source;
    (void)channel;
    *count = 77;
    return ATTN_ENERGY_OK;
}

static attn_status still_open(attn_energy_source **out, const attn_energy_options *options,
                              attn_error *error)
{
    const attn_energy_state state = fake.opened_as;
    fake.opened_as = ATTN_ENERGY_OK;
    const attn_status status = fake_open(out, options, error);
    fake.opened_as = state;
    extern const attn_energy_operations still_operations;
    (*out)->operations = &still_operations;
    snprintf((*out)->channels[0].path, sizeof(*out)->channels[0].path, "still counter");
    return status;
}

extern const attn_energy_operations still_operations;
const attn_energy_operations still_operations = {.name = "still",
                                                 .path = "nowhere",
                                                 .open = still_open,
                                                 .read = still_read,
                                                 .close = fake_close};

static const attn_energy_operations *const one_source[] = {&fake_operations};
static const attn_energy_operations *const two_sources[] = {&fake_operations, &still_operations};

static int set_up(void **state)
{
    (void)state;
    memset(&fake, 0, sizeof fake);
    fake.power_w = 50.0;
    fake.update_ns = 1000000;
    fake.range = 262143328850;
    now_ns = fake_now_ns;
    atomic_store(&fake_ns, 5000000000u);
    return 0;
}

static attn_energy_meter *open_meter(size_t n_sources, double period_s)
{
    const attn_energy_options options = {.now_ns = now_ns,
                                         .period_s = period_s,
                                         .sources = n_sources == 1 ? one_source : two_sources,
                                         .n_sources = n_sources};
    attn_energy_meter *meter = NULL;
    attn_error error = {0};
    assert_int_equal(attn_energy_open(&meter, &options, &error), ATTN_OK);
    return meter;
}

static attn_figure package_between(const attn_energy_meter *meter,
                                   const attn_energy_snapshot *begin,
                                   const attn_energy_snapshot *end)
{
    attn_figure figures[ATTN_ENERGY_FIGURES];
    attn_energy_between(meter, begin, end, figures);
    return figures[ATTN_ENERGY_FIGURE_PACKAGE];
}

static attn_energy_snapshot begin, end;

static void probes_period_and_cost(void **state)
{
    (void)state;
    attn_energy_meter *meter = open_meter(1, 0.0);
    const attn_energy_channel *channel = attn_energy_source_at(meter, 0)->channels;
    assert_true(fabs(channel->update_s - 1e-3) < 1e-5);
    assert_true(channel->read_cost_s > 0.5e-6 && channel->read_cost_s < 5e-6);
    assert_true(channel->probed_s < 0.02); /* a fast counter is soon known */
    attn_energy_close(meter);

    fake.update_ns = 400000000; /* slower than the probe's patience */
    meter = open_meter(1, 0.0);
    channel = attn_energy_source_at(meter, 0)->channels;
    assert_true(isnan(channel->update_s));
    assert_true(channel->probed_s >= 0.1 && channel->probed_s < 0.11);
    attn_energy_close(meter);
}

static void short_windows_have_an_interval(void **state)
{
    (void)state;
    attn_energy_meter *meter = open_meter(1, 0.0);
    attn_energy_mark(meter, &begin);
    atomic_fetch_add(&fake_ns, 50000000);
    attn_energy_mark(meter, &end);
    attn_figure figure = package_between(meter, &begin, &end);
    assert_int_equal(figure.provenance, ATTN_MEASURED);
    assert_true(figure.has_interval);
    assert_true(figure.low <= 2.5 && 2.5 <= figure.high);
    assert_true(figure.high - figure.low > 0.08 && figure.high - figure.low < 0.12);
    assert_non_null(strstr(figure.why, "1 % needs 0.1 s or more"));
    attn_figure figures[ATTN_ENERGY_FIGURES];
    attn_energy_between(meter, &begin, &end, figures);
    const attn_figure *sum = &figures[ATTN_ENERGY_FIGURE_COMPONENTS]; /* of this one part */
    assert_true(sum->has_interval && sum->low >= figure.low && sum->low <= figure.low);
    assert_true(sum->high >= figure.high && sum->high <= figure.high);

    begin = end;
    atomic_fetch_add(&fake_ns, 500000); /* half an update */
    attn_energy_mark(meter, &end);
    figure = package_between(meter, &begin, &end);
    assert_int_equal(figure.provenance, ATTN_UNAVAILABLE);
    assert_non_null(strstr(figure.why, "shorter than one update"));

    begin = end;
    atomic_fetch_add(&fake_ns, 1050000000);
    attn_energy_mark(meter, &end);
    figure = package_between(meter, &begin, &end);
    assert_false(figure.has_interval);
    assert_string_equal(figure.why, "");
    assert_true(fabs(figure.value / 52.5 - 1.0) < 0.01);
    attn_energy_close(meter);
}

/* Random windows and update periods: the interval holds the true energy, always. */
static void intervals_hold_the_truth(void **state)
{
    (void)state;
    const uint64_t stream = attn_random_stream(ATTN_RANDOM_TEST, 1);
    for (uint64_t i = 0; i < 300; i++) {
        fake.update_ns = 1000000 + attn_random_below(3, stream, 4 * i, 9000000);
        fake.power_w = 1.0 + 300.0 * attn_random_uniform(3, stream, 4 * i + 1);
        attn_energy_meter *meter = open_meter(1, 0.0);
        atomic_fetch_add(&fake_ns, attn_random_below(3, stream, 4 * i + 2, 20000000));
        attn_energy_mark(meter, &begin);
        atomic_fetch_add(&fake_ns,
                         2 * fake.update_ns + attn_random_below(3, stream, 4 * i + 3, 50000000));
        attn_energy_mark(meter, &end);
        const attn_figure figure = package_between(meter, &begin, &end);
        const double truth_j = fake.power_w * attn_clock_seconds(begin.time_ns, end.time_ns);
        assert_true(figure.has_interval);
        assert_true(figure.low <= truth_j && truth_j <= figure.high);
        attn_energy_close(meter);
    }
}

static void looks_twice_at_a_bad_reading(void **state)
{
    (void)state;
    static const uint64_t bad[] = {1, 200000000000u}; /* below and far above the last one */
    for (size_t i = 0; i < 2; i++) {
        attn_energy_meter *meter = open_meter(1, 0.0);
        attn_energy_mark(meter, &begin);
        atomic_fetch_add(&fake_ns, 1000000000);
        fake.bad_reading = bad[i];
        attn_energy_mark(meter, &end);
        const attn_figure figure = package_between(meter, &begin, &end);
        assert_int_equal(figure.provenance, ATTN_MEASURED);
        assert_true(fabs(figure.value - 50.0) < 0.2);
        attn_energy_close(meter);
    }
}

static void suspend_is_flagged(void **state)
{
    (void)state;
    attn_energy_meter *meter = open_meter(1, 0.0);
    attn_energy_mark(meter, &begin);
    atomic_fetch_add(&fake_ns, 1000000000);
    attn_energy_mark(meter, &end);
    end.suspended_s += 42.0;
    const attn_figure figure = package_between(meter, &begin, &end);
    assert_non_null(strstr(figure.why, "suspended for 42 s"));
    attn_energy_close(meter);
}

static void period_is_short_enough(void **state)
{
    (void)state;
    attn_energy_meter *meter = open_meter(1, 0.0);
    assert_true(attn_energy_period_s(meter) == 0.1);
    attn_energy_close(meter);
    meter = open_meter(1, 1000.0);
    assert_true(attn_energy_period_s(meter) == 30.0);
    attn_energy_close(meter);
    fake.range = 4000000000; /* 4000 J, full in 4 s at the bound */
    meter = open_meter(1, 1000.0);
    assert_true(fabs(attn_energy_period_s(meter) - 1.0) < 1e-9);
    attn_energy_close(meter);
}

static void best_source_is_counted_once(void **state)
{
    (void)state;
    attn_energy_meter *meter = open_meter(2, 0.0);
    assert_int_equal(attn_energy_sources(meter), 2);
    assert_true(attn_energy_is_counted(meter, attn_energy_source_at(meter, 0), 0));
    assert_false(attn_energy_is_counted(meter, attn_energy_source_at(meter, 1), 0));
    attn_energy_mark(meter, &begin);
    atomic_fetch_add(&fake_ns, 1000000000);
    attn_energy_mark(meter, &end);
    attn_figure figure = package_between(meter, &begin, &end);
    assert_string_equal(figure.source, "fake counter");
    attn_energy_close(meter);

    fake.opened_as = ATTN_ENERGY_DENIED;
    meter = open_meter(2, 0.0);
    attn_energy_mark(meter, &begin);
    atomic_fetch_add(&fake_ns, 1000000000);
    attn_energy_mark(meter, &end);
    figure = package_between(meter, &begin, &end);
    assert_string_equal(figure.source, "still counter");
    attn_energy_close(meter);

    meter = open_meter(1, 0.0);
    attn_energy_mark(meter, &begin);
    atomic_fetch_add(&fake_ns, 1000000000);
    attn_energy_mark(meter, &end);
    figure = package_between(meter, &begin, &end);
    assert_int_equal(figure.provenance, ATTN_UNAVAILABLE);
    assert_string_equal(figure.why, "made so");
    attn_energy_close(meter);
}

static void sleep_ms(long milliseconds)
{
    nanosleep(&(struct timespec){.tv_nsec = milliseconds * 1000000}, NULL);
}

/* Real time and a register of 2 J at 50 W, which wraps every 40 ms: two marks alone would see
 * next to nothing, the sampler every 0.5 ms counts it all, with marks taken meanwhile. */
static void sampler_sees_every_wrap(void **state)
{
    (void)state;
    now_ns = attn_clock_ns;
    fake.range = 2000000;
    fake.update_ns = 1000;
    attn_energy_meter *meter = open_meter(1, 0.1);
    assert_true(attn_energy_period_s(meter) <= 0.0005);
    attn_error error = {0};
    assert_int_equal(attn_energy_start(meter, &error), ATTN_OK);
    assert_int_equal(attn_energy_start(meter, &error), ATTN_OK); /* once is enough */
    attn_energy_mark(meter, &begin);
    size_t complete = 0;
    for (int i = 0; complete < 10 && i < 2000; i++) {
        sleep_ms(15);
        attn_energy_mark(meter, &end);
        const attn_figure figure = package_between(meter, &begin, &end);
        const double truth_j = 50.0 * attn_clock_seconds(begin.time_ns, end.time_ns);
        /* On a machine so busy that the thread slept through a wrap, unknown is right. */
        if (figure.provenance == ATTN_UNAVAILABLE) {
            assert_non_null(strstr(figure.why, "may have wrapped"));
            begin = end;
            continue;
        }
        complete++;
        assert_true(fabs(figure.value - truth_j) < 0.05 + 0.01 * truth_j);
    }
    attn_energy_stop(meter);
    attn_energy_stop(meter);
    assert_true(complete > 0);
    const size_t reads = atomic_load(&fake.reads);
    sleep_ms(5);
    assert_int_equal(atomic_load(&fake.reads), reads);
    assert_int_equal(attn_energy_start(meter, &error), ATTN_OK); /* and again */
    attn_energy_close(meter);
}

static void names(void **state)
{
    (void)state;
    assert_string_equal(attn_energy_domain_name(ATTN_ENERGY_PSYS), "psys");
    assert_string_equal(attn_energy_domain_name(ATTN_ENERGY_DOMAINS), "unknown");
    assert_string_equal(attn_energy_state_name(ATTN_ENERGY_STALE), "stale");
    assert_string_equal(attn_energy_state_name(ATTN_ENERGY_STATES), "unknown");
    attn_energy_close(NULL);
}

static void too_many_sources(void **state)
{
    (void)state;
    const attn_energy_operations *many[ATTN_ENERGY_SOURCES_MAX + 1];
    for (size_t i = 0; i <= ATTN_ENERGY_SOURCES_MAX; i++) many[i] = &fake_operations;
    const attn_energy_options options = {.sources = many, .n_sources = ATTN_ENERGY_SOURCES_MAX + 1};
    attn_energy_meter *meter = NULL;
    attn_error error = {0};
    assert_int_equal(attn_energy_open(&meter, &options, &error), ATTN_EARGUMENT);
    assert_null(meter);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(probes_period_and_cost, set_up),
        cmocka_unit_test_setup(short_windows_have_an_interval, set_up),
        cmocka_unit_test_setup(intervals_hold_the_truth, set_up),
        cmocka_unit_test_setup(looks_twice_at_a_bad_reading, set_up),
        cmocka_unit_test_setup(suspend_is_flagged, set_up),
        cmocka_unit_test_setup(period_is_short_enough, set_up),
        cmocka_unit_test_setup(best_source_is_counted_once, set_up),
        cmocka_unit_test_setup(sampler_sees_every_wrap, set_up),
        cmocka_unit_test_setup(names, set_up),
        cmocka_unit_test_setup(too_many_sources, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
