/* Power over time: what the sampler keeps beside its totals. When the room is full every second
 * moment goes, and moments come half as often, so that a run of any length is covered evenly. */
#include "meters/energy_internal.h"

#include "base/clock.h"

#include <math.h>

static attn_energy_moment moment_now(const attn_energy_meter *meter)
{
    attn_energy_moment moment = {.time_ns = meter->now_ns()};
    for (size_t a = 0; a < meter->n_accounts; a++) {
        const attn_energy_account *account = &meter->accounts[a];
        const attn_energy_channel *channel = &account->source->channels[account->channel];
        if (attn_energy_is_counted(meter, account->source, account->channel))
            moment.energy_j[channel->domain] += (double)account->now.total * channel->unit_j;
    }
    return moment;
}

void attn_energy_trace_add(attn_energy_meter *meter)
{
    if (!meter->trace) return;
    const uint64_t now_ns = meter->now_ns();
    if (meter->n_trace > 0 && now_ns - meter->trace[meter->n_trace - 1].time_ns < meter->trace_ns)
        return;
    if (meter->n_trace == ATTN_ENERGY_TRACE_MOST) {
        meter->n_trace /= 2;
        for (size_t i = 0; i < meter->n_trace; i++) meter->trace[i] = meter->trace[2 * i];
        meter->trace_ns *= 2;
    }
    meter->trace[meter->n_trace++] = moment_now(meter);
}

bool attn_energy_trace(const attn_energy_meter *meter, size_t index, attn_energy_power *power)
{
    if (meter->n_trace < 2) return false;
    const size_t n = meter->n_trace - 1;
    size_t rank = index / n; /* among the domains that drew something */
    const size_t at = index % n;
    for (int d = 0; d < ATTN_ENERGY_DOMAINS; d++) {
        if (!(meter->trace[n].energy_j[d] > 0.0)) continue;
        if (rank-- > 0) continue;
        const attn_energy_moment *before = &meter->trace[at], *after = &meter->trace[at + 1];
        *power =
            (attn_energy_power){.domain = (attn_energy_domain)d,
                                .time_ns = after->time_ns,
                                .power_w = (after->energy_j[d] - before->energy_j[d]) /
                                           attn_clock_seconds(before->time_ns, after->time_ns)};
        return true;
    }
    return false;
}
