/* Self-test by comparison: what is seen twice must be seen alike. A counter that is frozen, in
 * other units or of another extent than its name says differs from the power beside it. */
#define _POSIX_C_SOURCE 200809L
#include "meters/energy_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Mean power of one channel between two snapshots; NaN when some of it is unknown. */
static double mean_power_w(const attn_energy_meter *meter, size_t account,
                           const attn_energy_snapshot *begin, const attn_energy_snapshot *end)
{
    const attn_energy_reading *first = &begin->readings[account], *last = &end->readings[account];
    const attn_energy_account *a = &meter->accounts[account];
    if (a->source->channels[a->channel].state != ATTN_ENERGY_OK || first->state != ATTN_ENERGY_OK ||
        last->state != ATTN_ENERGY_OK || first->lost != last->lost ||
        last->time_ns <= first->time_ns)
        return NAN;
    return (double)(last->total - first->total) * a->source->channels[a->channel].unit_j /
           ((double)(last->time_ns - first->time_ns) * 1e-9);
}

/* "package-0" of "rapl:package-0" and "perf:package-0": which part of the machine it is. */
static const char *part_of(const attn_energy_channel *channel)
{
    const char *colon = strchr(channel->id, ':');
    return colon ? colon + 1 : channel->id;
}

/* NVML writes the domain of a PCI address with eight digits, sysfs with four. */
bool attn_energy_is_one_board(const attn_energy_channel *one, const attn_energy_channel *other)
{
    const char *a = strchr(one->board, ':'), *b = strchr(other->board, ':');
    return a && b && strcasecmp(a, b) == 0 &&
           strtoul(one->board, NULL, 16) == strtoul(other->board, NULL, 16);
}

static bool is_seen_twice(const attn_energy_account *one, const attn_energy_account *other)
{
    const attn_energy_channel *a = &one->source->channels[one->channel];
    const attn_energy_channel *b = &other->source->channels[other->channel];
    if (a->state != ATTN_ENERGY_OK || b->state != ATTN_ENERGY_OK) return false;
    if (one->source == other->source) return b->twin_of == (int)one->channel;
    return a->domain == b->domain && a->domain != ATTN_ENERGY_RAIL &&
           (a->domain == ATTN_ENERGY_SYSTEM || attn_energy_is_one_board(a, b) ||
            strcmp(part_of(a), part_of(b)) == 0);
}

size_t attn_energy_pairs(const attn_energy_meter *meter, const attn_energy_snapshot *begin,
                         const attn_energy_snapshot *end,
                         attn_energy_pair pairs[ATTN_ENERGY_PAIRS_MAX])
{
    size_t n = 0;
    const double window_s = (double)(end->time_ns - begin->time_ns) * 1e-9;
    for (size_t i = 0; i < meter->n_accounts; i++)
        for (size_t k = i + 1; k < meter->n_accounts && n < ATTN_ENERGY_PAIRS_MAX; k++) {
            const attn_energy_account *one = &meter->accounts[i], *other = &meter->accounts[k];
            if (!is_seen_twice(one, other)) continue;
            const double one_w = mean_power_w(meter, i, begin, end);
            const double other_w = mean_power_w(meter, k, begin, end);
            pairs[n++] = (attn_energy_pair){.one = &one->source->channels[one->channel],
                                            .other = &other->source->channels[other->channel],
                                            .one_j = one_w * window_s,
                                            .other_j = other_w * window_s,
                                            .difference = one_w / other_w - 1.0};
        }
    return n;
}
