/* The self-test when a source opens: how often a counter changes, what a read costs, and which
 * counters show one and the same register (processors of several dies do that). */
#include "meters/energy_internal.h"

#include "base/clock.h"
#include "base/statistics.h"

#include <math.h>
#include <stdio.h>

/* Enough for a median; a millisecond counter is done in 10 ms. */
enum { CHANGES = 9, MIRROR_PASSES = 4 };

static void probe_channel(attn_energy_source *source, size_t index, double probe_s,
                          uint64_t (*now_ns)(void))
{
    attn_energy_channel *channel = &source->channels[index];
    double gaps_s[CHANGES];
    size_t n_gaps = 0, n_reads = 0;
    uint64_t last = 0, changed_ns = 0;
    bool has_changed = false;
    /* A counter that is known to be slow is given time for two changes and more. */
    const double patience_s = fmin(4.0 * channel->interval_s, 0.5);
    if (probe_s < patience_s) probe_s = patience_s;
    const uint64_t begin_ns = now_ns();
    uint64_t time_ns = begin_ns;
    while (n_gaps < CHANGES && attn_clock_seconds(begin_ns, time_ns) < probe_s) {
        uint64_t count = 0;
        if (source->operations->read(source, index, &count) != ATTN_ENERGY_OK) break;
        time_ns = now_ns();
        if (n_reads++ > 0 && count != last) {
            /* The first change only sets the start: the phase before it is unknown. */
            if (has_changed) gaps_s[n_gaps++] = attn_clock_seconds(changed_ns, time_ns);
            has_changed = true;
            changed_ns = time_ns;
        }
        last = count;
    }
    channel->probed_s = attn_clock_seconds(begin_ns, time_ns);
    channel->read_cost_s = n_reads > 0 ? channel->probed_s / (double)n_reads : NAN;
    attn_statistics_sort(gaps_s, n_gaps);
    channel->update_s = attn_statistics_median(gaps_s, n_gaps);
    if (!channel->must_move || has_changed || n_reads < 2) return;
    channel->state = ATTN_ENERGY_FAILED;
    snprintf(channel->why, sizeof channel->why,
             "the counter stood still for %.2g s, and no board draws nothing", channel->probed_s);
    snprintf(channel->fix, sizeof channel->fix, "use another driver");
}

/* One register read through `one`, `other`, `one`: the middle value lies between the outer two,
 * every time. Two registers of 32 bits do not do that by chance, unless they stand still at 0. */
static bool are_mirrored(attn_energy_source *source, size_t one, size_t other)
{
    for (int pass = 0; pass < MIRROR_PASSES; pass++) {
        uint64_t before = 0, between = 0, after = 0;
        if (source->operations->read(source, one, &before) != ATTN_ENERGY_OK ||
            source->operations->read(source, other, &between) != ATTN_ENERGY_OK ||
            source->operations->read(source, one, &after) != ATTN_ENERGY_OK)
            return false;
        if (after < before) continue; /* wrapped in between: says nothing */
        if (between < before || between > after || after == 0) return false;
    }
    return true;
}

double attn_energy_update_s(const attn_energy_channel *channel)
{
    if (channel->update_s >= 0.0) return channel->update_s;
    return channel->interval_s > channel->probed_s ? channel->interval_s : channel->probed_s;
}

/* A gauge may show one value for minutes: what a reading costs is all that is found out. */
static void probe_gauge(attn_energy_source *source, size_t index, uint64_t (*now_ns)(void))
{
    attn_energy_channel *channel = &source->channels[index];
    uint64_t count = 0;
    const uint64_t begin_ns = now_ns();
    const attn_energy_state state = source->operations->read(source, index, &count);
    channel->probed_s = channel->read_cost_s = attn_clock_seconds(begin_ns, now_ns());
    if (state != ATTN_ENERGY_OK) return; /* each reading is judged for itself */
    if (channel->interval_s > 0.0) channel->update_s = channel->interval_s;
}

void attn_energy_probe(attn_energy_source *source, double probe_s, uint64_t (*now_ns)(void))
{
    for (size_t i = 0; i < source->n_channels; i++) {
        attn_energy_channel *channel = &source->channels[i];
        channel->update_s = channel->read_cost_s = NAN;
        if (channel->state != ATTN_ENERGY_OK) continue;
        if (channel->kind == ATTN_ENERGY_GAUGE) {
            probe_gauge(source, i, now_ns);
            continue;
        }
        probe_channel(source, i, probe_s, now_ns);
        for (size_t k = 0; k < i && channel->mirror_of < 0; k++) {
            const attn_energy_channel *earlier = &source->channels[k];
            if (earlier->domain == channel->domain && earlier->kind == ATTN_ENERGY_COUNTER &&
                earlier->state == ATTN_ENERGY_OK && earlier->mirror_of < 0 &&
                are_mirrored(source, k, i))
                channel->mirror_of = (int)k;
        }
    }
}
