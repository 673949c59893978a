/* A meter on time of the test's own, so that every joule is known. */
#ifndef UNIT_METER_FIXTURE_H
#define UNIT_METER_FIXTURE_H

#include "fake_tree.h"

#include "meters/energy.h"

static uint64_t time_ns;
static attn_energy_snapshot begin, end;
static attn_figure figures[ATTN_ENERGY_FIGURES];

/* Each look at the clock takes a microsecond, so that probes end. */
static uint64_t fake_now_ns(void)
{
    return time_ns += 1000;
}

static inline attn_energy_meter *open_on_fake_time(attn_energy_options options)
{
    attn_energy_meter *meter = NULL;
    attn_error error = {0};
    options.now_ns = fake_now_ns;
    assert_int_equal(attn_energy_open(&meter, &options, &error), ATTN_OK);
    return meter;
}

/* A sample each half second, as the sampler takes them. */
static inline void pass_sampled(attn_energy_meter *meter, double seconds)
{
    static attn_energy_snapshot between;
    for (int i = 0; i < (int)(2.0 * seconds + 0.5); i++) {
        time_ns += 500000000;
        attn_energy_mark(meter, &between);
    }
}

/* Fills the figures of so many seconds. */
static inline void watch(attn_energy_meter *meter, double seconds)
{
    attn_energy_edge(meter, &begin);
    pass_sampled(meter, seconds);
    attn_energy_edge(meter, &end);
    attn_energy_between(meter, &begin, &end, figures);
}

#endif
