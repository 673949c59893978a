/* Powercap trees that tests write: what the kernel shows on real machines. Time is the test's own,
 * so every joule is known. */
#ifndef UNIT_RAPL_FIXTURE_H
#define UNIT_RAPL_FIXTURE_H

#include "fake_tree.h"

#include "meters/energy.h"

#include <math.h>

#define ZONES "/sys/class/powercap/intel-rapl"

static char root[TREE_PATH_BYTES];
static uint64_t time_ns;
static const attn_energy_operations *const powercap[] = {&attn_energy_rapl_powercap};

/* Each look at the clock takes a microsecond, so that probes end. */
static uint64_t fake_now_ns(void)
{
    return time_ns += 1000;
}

static inline int set_up(void **state)
{
    (void)state;
    tree_make(root);
    time_ns = 1000000000u;
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    tree_remove(root);
    return 0;
}

/* A zone such as "0" or "0:2"; range NULL leaves the file out. */
static inline void write_zone(const char *zone, const char *name, const char *energy,
                              const char *range)
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

static inline void set_energy(const char *zone, const char *energy)
{
    char path[TREE_PATH_BYTES];
    snprintf(path, sizeof path, ZONES ":%s/energy_uj", zone);
    tree_write(root, path, energy);
}

static inline attn_energy_meter *open_meter(void)
{
    const attn_energy_options options = {
        .root = root, .probe_s = 0.001, .now_ns = fake_now_ns, .sources = powercap, .n_sources = 1};
    attn_energy_meter *meter = NULL;
    attn_error error = {0};
    assert_int_equal(attn_energy_open(&meter, &options, &error), ATTN_OK);
    return meter;
}

static inline void pass_seconds(double seconds)
{
    time_ns += (uint64_t)(seconds * 1e9);
}

static const attn_energy_channel *channel(const attn_energy_meter *meter, size_t index)
{
    const attn_energy_source *source = attn_energy_source_at(meter, 0);
    assert_true(index < source->n_channels);
    return &source->channels[index];
}

static inline void assert_energy(const attn_figure *figure, double energy_j)
{
    assert_int_equal(figure->provenance, ATTN_MEASURED);
    assert_true(fabs(figure->value - energy_j) < 1e-9 * fmax(1.0, energy_j));
}

static inline void assert_unavailable(const attn_figure *figure, const char *words)
{
    assert_int_equal(figure->provenance, ATTN_UNAVAILABLE);
    assert_true(isnan(figure->value));
    if (!strstr(figure->why, words)) fail_msg("'%s' lacks '%s'", figure->why, words);
}

#define RANGE "262143328850"

#endif
