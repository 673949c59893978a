/* The energy meter's core: sampling and 64-bit accumulation.
 *
 * Counters are cumulative, so a sample that fails costs nothing when a later one succeeds: the
 * difference spans the gap. An interval is lost only when its difference is ambiguous (the
 * counter may have wrapped more than once) or impossible (it jumped: a reset). */
#define _GNU_SOURCE
#include "meters/energy_internal.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "meters/system_clock.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const attn_energy_operations *const every_source[] = {&attn_energy_rapl_powercap};

const char *attn_energy_domain_name(attn_energy_domain domain)
{
    static const char *const names[ATTN_ENERGY_DOMAINS] = {"package", "core", "uncore", "dram",
                                                           "psys"};
    return domain < ATTN_ENERGY_DOMAINS ? names[domain] : "unknown";
}

const char *attn_energy_state_name(attn_energy_state state)
{
    static const char *const names[ATTN_ENERGY_STATES] = {"ok",   "absent", "denied", "failed",
                                                          "lost", "reset",  "stale"};
    return state < ATTN_ENERGY_STATES ? names[state] : "unknown";
}

static attn_energy_channel *channel_of(const attn_energy_account *account)
{
    return &account->source->channels[account->channel];
}

double attn_energy_range_j(const attn_energy_channel *channel)
{
    return channel->range > 0 ? (double)channel->range * channel->unit_j : 65536.0;
}

/* The counts from `last` to `count`, if some power draw within the bound explains them. The 10 ms
 * allow for counters that advance in steps. */
static bool plausible_delta(const attn_energy_channel *channel, uint64_t last, uint64_t count,
                            double interval_s, uint64_t *delta)
{
    if (count >= last)
        *delta = count - last;
    else if (last <= channel->range)
        *delta = channel->range - last + count;
    else
        return false; /* no range, or a count beyond it */
    return (double)*delta * channel->unit_j <= channel->power_bound_w * (interval_s + 0.010);
}

static void lose(attn_energy_account *account, attn_energy_state cause)
{
    account->now.lost++;
    account->now.cause = cause;
}

static void sample_account(attn_energy_meter *meter, attn_energy_account *account)
{
    const attn_energy_channel *channel = channel_of(account);
    if (channel->state != ATTN_ENERGY_OK) return;
    const attn_energy_operations *operations = account->source->operations;
    uint64_t count = 0;
    const uint64_t before_ns = meter->now_ns();
    account->now.state = operations->read(account->source, account->channel, &count);
    const uint64_t time_ns = before_ns + (meter->now_ns() - before_ns) / 2;
    if (account->now.state != ATTN_ENERGY_OK) return;

    if (account->has_last) {
        const uint64_t last = account->last_count;
        const double interval_s = attn_clock_seconds(account->last_ns, time_ns);
        uint64_t delta = 0;
        bool is_plausible = plausible_delta(channel, last, count, interval_s, &delta);
        if (!is_plausible || count < last) { /* a wrap or a bad reading: look twice */
            uint64_t again = 0;
            if (operations->read(account->source, account->channel, &again) == ATTN_ENERGY_OK) {
                count = again;
                is_plausible = plausible_delta(channel, last, count, interval_s, &delta);
            }
        }
        if (channel->power_bound_w * interval_s >= attn_energy_range_j(channel)) {
            lose(account, ATTN_ENERGY_STALE);
        } else if (!is_plausible) {
            lose(account, ATTN_ENERGY_RESET);
        } else {
            account->now.total += delta;
            account->now.covered_ns += time_ns - account->last_ns;
        }
    }
    account->has_last = true;
    account->last_count = count;
    account->last_ns = time_ns;
}

static void sample_all(attn_energy_meter *meter)
{
    for (size_t i = 0; i < meter->n_accounts; i++) sample_account(meter, &meter->accounts[i]);
}

void attn_energy_mark(attn_energy_meter *meter, attn_energy_snapshot *snapshot)
{
    *snapshot = (attn_energy_snapshot){.suspended_s = attn_clock_suspended_s()};
    pthread_mutex_lock(&meter->lock);
    const uint64_t before_ns = meter->now_ns();
    sample_all(meter);
    const uint64_t after_ns = meter->now_ns();
    for (size_t i = 0; i < meter->n_accounts; i++) snapshot->readings[i] = meter->accounts[i].now;
    pthread_mutex_unlock(&meter->lock);
    snapshot->time_ns = before_ns + (after_ns - before_ns) / 2;
    snapshot->pass_s = attn_clock_seconds(before_ns, after_ns);
}

static void *sampler(void *argument)
{
    attn_energy_meter *meter = argument;
    const uint64_t period_ns = (uint64_t)(meter->period_s * 1e9);
    pthread_mutex_lock(&meter->lock);
    while (!meter->is_stopping) {
        struct timespec due; /* from now, so that a stopped process does not catch up in a burst */
        clock_gettime(CLOCK_MONOTONIC, &due);
        const uint64_t nanoseconds = (uint64_t)due.tv_nsec + period_ns;
        due.tv_sec += (time_t)(nanoseconds / 1000000000u);
        due.tv_nsec = (long)(nanoseconds % 1000000000u);
        int waited = 0;
        while (!meter->is_stopping && waited != ETIMEDOUT)
            waited = pthread_cond_timedwait(&meter->wake, &meter->lock, &due);
        if (!meter->is_stopping) sample_all(meter);
    }
    pthread_mutex_unlock(&meter->lock);
    return NULL;
}

attn_status attn_energy_start(attn_energy_meter *meter, attn_error *error)
{
    if (meter->is_running) return ATTN_OK;
    meter->is_stopping = false;
    /* Signals are for the main thread. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    const int problem = pthread_create(&meter->thread, NULL, sampler, meter);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (problem != 0)
        return attn_fail_errno(error, ATTN_EMEMORY, problem, "energy sampler: no thread");
    meter->is_running = true;
    return ATTN_OK;
}

void attn_energy_stop(attn_energy_meter *meter)
{
    if (!meter->is_running) return;
    pthread_mutex_lock(&meter->lock);
    meter->is_stopping = true;
    pthread_cond_signal(&meter->wake);
    pthread_mutex_unlock(&meter->lock);
    pthread_join(meter->thread, NULL);
    meter->is_running = false;
}

/* Opens one source and gives each of its channels an account, or none of them when the table is
 * full. */
static attn_status add_source(attn_energy_meter *meter, const attn_energy_operations *operations,
                              const char *root, double probe_s, attn_error *error)
{
    attn_energy_source *source = NULL;
    const attn_status status = operations->open(&source, root, error);
    if (status != ATTN_OK) return status;
    meter->sources[meter->n_sources++] = source;
    if (source->n_channels > ATTN_ENERGY_CHANNELS_MAX - meter->n_accounts) {
        snprintf(source->why, sizeof source->why, "%zu channels; no more than %d can be sampled",
                 source->n_channels, ATTN_ENERGY_CHANNELS_MAX);
        source->n_channels = 0;
        return ATTN_OK;
    }
    attn_energy_probe(source, probe_s, meter->now_ns);
    for (size_t i = 0; i < source->n_channels; i++) {
        const attn_energy_channel *channel = &source->channels[i];
        meter->accounts[meter->n_accounts++] =
            (attn_energy_account){.source = source, .channel = i, .now.state = channel->state};
        /* Four samples in the time of one wrap at full power, and one in 30 s in any case. */
        const double longest_s = attn_energy_range_j(channel) / (4.0 * channel->power_bound_w);
        if (meter->period_s > longest_s) meter->period_s = longest_s;
    }
    return ATTN_OK;
}

attn_status attn_energy_open(attn_energy_meter **out, const attn_energy_options *options,
                             attn_error *error)
{
    const attn_energy_options plain = {0};
    if (!options) options = &plain;
    *out = NULL;
    attn_energy_meter *meter = attn_alloc(ATTN_MEMORY_OTHER, sizeof *meter);
    if (!meter) return attn_fail(error, ATTN_EMEMORY, "energy meter: out of memory");
    meter->now_ns = options->now_ns ? options->now_ns : attn_clock_ns;
    meter->period_s = options->period_s > 0.0 ? options->period_s : 0.1;
    if (meter->period_s > 30.0) meter->period_s = 30.0;
    pthread_mutex_init(&meter->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&meter->wake, &attributes);
    pthread_condattr_destroy(&attributes);

    const attn_energy_operations *const *sources = options->sources;
    size_t n_sources = options->n_sources;
    if (!sources) {
        sources = every_source;
        n_sources = sizeof every_source / sizeof *every_source;
    }
    attn_status status = ATTN_OK;
    if (n_sources > ATTN_ENERGY_SOURCES_MAX)
        status = attn_fail(error, ATTN_EARGUMENT, "energy meter: more than %d sources",
                           ATTN_ENERGY_SOURCES_MAX);
    for (size_t i = 0; status == ATTN_OK && i < n_sources; i++)
        status = add_source(meter, sources[i], options->root ? options->root : "",
                            options->probe_s > 0.0 ? options->probe_s : 0.1, error);
    if (status != ATTN_OK) {
        attn_energy_close(meter);
        return status;
    }
    *out = meter;
    return ATTN_OK;
}

void attn_energy_close(attn_energy_meter *meter)
{
    if (!meter) return;
    attn_energy_stop(meter);
    for (size_t i = 0; i < meter->n_sources; i++)
        meter->sources[i]->operations->close(meter->sources[i]);
    pthread_cond_destroy(&meter->wake);
    pthread_mutex_destroy(&meter->lock);
    attn_free(meter);
}

size_t attn_energy_sources(const attn_energy_meter *meter)
{
    return meter->n_sources;
}

const attn_energy_source *attn_energy_source_at(const attn_energy_meter *meter, size_t index)
{
    return index < meter->n_sources ? meter->sources[index] : NULL;
}

double attn_energy_period_s(const attn_energy_meter *meter)
{
    return meter->period_s;
}
