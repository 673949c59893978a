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
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* Best first: where two offer one domain, the first that can be read counts. */
static const attn_energy_operations *const every_source[] = {
    &attn_energy_rapl_perf, &attn_energy_rapl_powercap, &attn_energy_nvml,  &attn_energy_amdsmi,
    &attn_energy_external,  &attn_energy_dcmi,          &attn_energy_hwmon, &attn_energy_battery,
};

/* Of all samples together: the share of time that the sampler may spend. */
static const double sampler_share = 0.0005;

const char *attn_energy_domain_name(attn_energy_domain domain)
{
    static const char *const names[ATTN_ENERGY_DOMAINS] = {
        "package", "core", "uncore", "dram", "psys", "gpu", "module", "system", "rail"};
    return domain < ATTN_ENERGY_DOMAINS ? names[domain] : "unknown";
}

const char *attn_energy_state_name(attn_energy_state state)
{
    static const char *const names[ATTN_ENERGY_STATES] = {"ok",   "absent", "denied", "failed",
                                                          "lost", "reset",  "stale",  "silent"};
    return state < ATTN_ENERGY_STATES ? names[state] : "unknown";
}

attn_energy_channel attn_energy_channel_make(attn_energy_domain domain, attn_energy_kind kind)
{
    return (attn_energy_channel){.domain = domain,
                                 .kind = kind,
                                 .unit_j = 1e-6,
                                 .resolution_j = NAN,
                                 .power_bound_w = 10000.0,
                                 .parent = -1,
                                 .mirror_of = -1,
                                 .twin_of = -1,
                                 .update_s = NAN,
                                 .read_cost_s = NAN};
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

/* Trapezoids between readings that follow each other; across a gap the power is not known. */
static void add_gauge(attn_energy_account *account, const attn_energy_channel *channel,
                      uint64_t count, uint64_t time_ns)
{
    if (!account->has_last) return;
    const uint64_t interval_ns = time_ns - account->last_ns;
    const uint64_t gap_ns =
        5 * account->period_ns > 1000000000u ? 5 * account->period_ns : (uint64_t)1000000000u;
    if (interval_ns > gap_ns) {
        lose(account, ATTN_ENERGY_STALE);
        return;
    }
    const double mean_w = 0.5 * ((double)account->last_count + (double)count) * channel->unit_w;
    account->now.total += (uint64_t)(mean_w * 1e-3 * (double)interval_ns + 0.5); /* microjoules */
    account->now.covered_ns += interval_ns;
}

static void add_counter(attn_energy_account *account, const attn_energy_channel *channel,
                        uint64_t *count, uint64_t time_ns)
{
    if (!account->has_last) return;
    const attn_energy_operations *operations = account->source->operations;
    const uint64_t last = account->last_count;
    const double interval_s = attn_clock_seconds(account->last_ns, time_ns);
    uint64_t delta = 0;
    bool is_plausible = plausible_delta(channel, last, *count, interval_s, &delta);
    if (!is_plausible || *count < last) { /* a wrap or a bad reading: look twice */
        uint64_t again = 0;
        if (operations->read(account->source, account->channel, &again) == ATTN_ENERGY_OK) {
            *count = again;
            is_plausible = plausible_delta(channel, last, again, interval_s, &delta);
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

static void sample_account(attn_energy_meter *meter, attn_energy_account *account)
{
    const attn_energy_channel *channel = channel_of(account);
    if (channel->state != ATTN_ENERGY_OK) return;
    uint64_t count = 0;
    const uint64_t before_ns = meter->now_ns();
    account->now.state =
        account->source->operations->read(account->source, account->channel, &count);
    const uint64_t after_ns = meter->now_ns();
    const uint64_t time_ns = before_ns + (after_ns - before_ns) / 2;
    meter->busy_ns += after_ns - before_ns;
    const bool is_gauge = channel->kind == ATTN_ENERGY_GAUGE;
    if (is_gauge && account->now.state == ATTN_ENERGY_OK &&
        (double)count * channel->unit_w > channel->power_bound_w)
        account->now.state = ATTN_ENERGY_FAILED;
    if (account->now.state != ATTN_ENERGY_OK) return;

    if (is_gauge)
        add_gauge(account, channel, count, time_ns);
    else
        add_counter(account, channel, &count, time_ns);
    account->has_last = true;
    account->last_count = count;
    account->last_ns = time_ns;
    account->now.time_ns = time_ns;
    account->now.samples++;
}

static void sample_all(attn_energy_meter *meter)
{
    for (size_t i = 0; i < meter->n_accounts; i++) sample_account(meter, &meter->accounts[i]);
}

/* Those whose time has come; the rest would cost more than they tell. */
static void sample_due(attn_energy_meter *meter)
{
    const uint64_t now_ns = meter->now_ns();
    for (size_t i = 0; i < meter->n_accounts; i++) {
        attn_energy_account *account = &meter->accounts[i];
        if (!account->has_last || now_ns - account->last_ns + 1000000u >= account->period_ns)
            sample_account(meter, account);
    }
}

static void finish_mark(attn_energy_meter *meter, attn_energy_snapshot *snapshot, uint64_t begin_ns)
{
    const uint64_t end_ns = meter->now_ns();
    for (size_t i = 0; i < meter->n_accounts; i++) snapshot->readings[i] = meter->accounts[i].now;
    snapshot->after_ns = end_ns;
    snapshot->time_ns = begin_ns + (end_ns - begin_ns) / 2;
    snapshot->pass_s = attn_clock_seconds(begin_ns, end_ns);
    snapshot->busy_s = (double)meter->busy_ns * 1e-9;
    snapshot->suspended_s = attn_clock_suspended_s();
}

void attn_energy_mark(attn_energy_meter *meter, attn_energy_snapshot *snapshot)
{
    *snapshot = (attn_energy_snapshot){0};
    pthread_mutex_lock(&meter->lock);
    const uint64_t begin_ns = snapshot->before_ns = meter->now_ns();
    sample_all(meter);
    finish_mark(meter, snapshot, begin_ns);
    pthread_mutex_unlock(&meter->lock);
}

/* Reads a counter until it changes, for at most one update and a half. */
static void wait_for_tick(attn_energy_meter *meter, attn_energy_account *account)
{
    static const double longest_s = 0.25;
    const attn_energy_channel *channel = channel_of(account);
    const double update_s = channel->update_s;
    if (channel->kind != ATTN_ENERGY_COUNTER || !(update_s <= longest_s) ||
        !attn_energy_is_counted(meter, account->source, account->channel))
        return;
    uint64_t first = 0, count = 0;
    if (account->source->operations->read(account->source, account->channel, &first) !=
        ATTN_ENERGY_OK)
        return;
    const uint64_t begin_ns = meter->now_ns();
    do {
        if (account->source->operations->read(account->source, account->channel, &count) !=
            ATTN_ENERGY_OK)
            return;
    } while (count == first && attn_clock_seconds(begin_ns, meter->now_ns()) < 1.5 * update_s);
}

void attn_energy_edge(attn_energy_meter *meter, attn_energy_snapshot *snapshot)
{
    *snapshot = (attn_energy_snapshot){.is_edge = true};
    pthread_mutex_lock(&meter->lock);
    snapshot->before_ns = meter->now_ns();
    uint64_t begin_ns = snapshot->before_ns;
    double pass_s = 0.0;
    for (size_t i = 0; i < meter->n_accounts; i++) {
        wait_for_tick(meter, &meter->accounts[i]);
        begin_ns = meter->now_ns();
        sample_account(meter, &meter->accounts[i]);
        pass_s += attn_clock_seconds(begin_ns, meter->now_ns());
    }
    finish_mark(meter, snapshot, snapshot->before_ns);
    snapshot->pass_s = pass_s;
    pthread_mutex_unlock(&meter->lock);
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
        if (meter->is_stopping) break;
        sample_due(meter);
        attn_energy_trace_add(meter);
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
                              const attn_energy_options *options, attn_error *error)
{
    attn_energy_source *source = NULL;
    const attn_status status = operations->open(&source, options, error);
    if (status != ATTN_OK || !source) return status;
    meter->sources[meter->n_sources++] = source;
    if (source->n_channels > ATTN_ENERGY_CHANNELS_MAX - meter->n_accounts) {
        snprintf(source->why, sizeof source->why, "%zu channels; no more than %d can be sampled",
                 source->n_channels, ATTN_ENERGY_CHANNELS_MAX);
        source->n_channels = 0;
        return ATTN_OK;
    }
    attn_energy_probe(source, options->probe_s, meter->now_ns);
    for (size_t i = 0; i < source->n_channels; i++)
        meter->accounts[meter->n_accounts++] = (attn_energy_account){
            .source = source, .channel = i, .now.state = source->channels[i].state};
    return ATTN_OK;
}

/* A channel is read in every period of the sampler, less often where reading it is slow, more
 * often where it could wrap unseen: four times within a wrap at full power. */
static void set_periods(attn_energy_meter *meter)
{
    for (size_t i = 0; i < meter->n_accounts; i++) {
        const attn_energy_channel *channel = channel_of(&meter->accounts[i]);
        const double longest_s = attn_energy_range_j(channel) / (4.0 * channel->power_bound_w);
        if (channel->kind == ATTN_ENERGY_COUNTER && meter->period_s > longest_s)
            meter->period_s = longest_s;
    }
    for (size_t i = 0; i < meter->n_accounts; i++) {
        attn_energy_account *account = &meter->accounts[i];
        const attn_energy_channel *channel = channel_of(account);
        const double longest_s = channel->kind == ATTN_ENERGY_COUNTER
                                     ? attn_energy_range_j(channel) / (4.0 * channel->power_bound_w)
                                     : 5.0;
        double period_s = (double)meter->n_accounts * channel->read_cost_s / sampler_share;
        if (period_s > longest_s) period_s = longest_s;
        if (!(period_s > meter->period_s)) period_s = meter->period_s;
        account->period_ns = (uint64_t)(period_s * 1e9);
    }
}

attn_status attn_energy_open(attn_energy_meter **out, const attn_energy_options *options,
                             attn_error *error)
{
    attn_energy_options filled = options ? *options : (attn_energy_options){0};
    *out = NULL;
    attn_energy_meter *meter = attn_alloc(ATTN_MEMORY_OTHER, sizeof *meter);
    if (!meter) return attn_fail(error, ATTN_EMEMORY, "energy meter: out of memory");
    if (!filled.root) filled.root = "";
    if (!(filled.probe_s > 0.0)) filled.probe_s = 0.1;
    meter->now_ns = filled.now_ns ? filled.now_ns : attn_clock_ns;
    meter->period_s = filled.period_s > 0.0 ? filled.period_s : 0.1;
    if (meter->period_s > 30.0) meter->period_s = 30.0;
    pthread_mutex_init(&meter->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&meter->wake, &attributes);
    pthread_condattr_destroy(&attributes);

    if (!filled.sources) {
        filled.sources = every_source;
        filled.n_sources = sizeof every_source / sizeof *every_source;
    }
    attn_status status = ATTN_OK;
    if (filled.n_sources > ATTN_ENERGY_SOURCES_MAX)
        status = attn_fail(error, ATTN_EARGUMENT, "energy meter: more than %d sources",
                           ATTN_ENERGY_SOURCES_MAX);
    for (size_t i = 0; status == ATTN_OK && i < filled.n_sources; i++)
        status = add_source(meter, filled.sources[i], &filled, error);
    if (status != ATTN_OK) {
        attn_energy_close(meter);
        return status;
    }
    set_periods(meter);
    if (filled.trace_s > 0.0 && meter->n_accounts > 0) {
        meter->trace_ns = (uint64_t)(1e9 * filled.trace_s);
        meter->trace =
            attn_alloc_array(ATTN_MEMORY_OTHER, ATTN_ENERGY_TRACE_MOST, sizeof *meter->trace);
        if (!meter->trace) {
            attn_energy_close(meter);
            return attn_fail(error, ATTN_EMEMORY, "energy meter: out of memory");
        }
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
    attn_free(meter->trace);
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
