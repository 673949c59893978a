/* From two marks to figures: which channels add up, and what is said when a part is missing. */
#include "meters/energy_internal.h"

#include "base/clock.h"
#include "meters/system_clock.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static bool is_part(const attn_energy_channel *channel, attn_energy_domain domain)
{
    return channel->domain == domain && channel->mirror_of < 0 && channel->parent < 0;
}

/* The first source with a readable channel of this domain, else the first that at least knows
 * one, else NULL. Two sources of one domain are two views of the same joules. */
static const attn_energy_source *best_source(const attn_energy_meter *meter,
                                             attn_energy_domain domain)
{
    const attn_energy_source *known = NULL;
    for (size_t s = 0; s < meter->n_sources; s++) {
        const attn_energy_source *source = meter->sources[s];
        for (size_t i = 0; i < source->n_channels; i++) {
            const attn_energy_channel *channel = &source->channels[i];
            if (!is_part(channel, domain)) continue;
            if (channel->state == ATTN_ENERGY_OK) return source;
            if (!known) known = source;
        }
    }
    return known;
}

bool attn_energy_is_counted(const attn_energy_meter *meter, const attn_energy_source *source,
                            size_t channel)
{
    const attn_energy_channel *which = &source->channels[channel];
    return which->domain != ATTN_ENERGY_CORE && which->domain != ATTN_ENERGY_UNCORE &&
           which->state == ATTN_ENERGY_OK && is_part(which, which->domain) &&
           best_source(meter, which->domain) == source;
}

/* Appends to a text of a figure's size; what does not fit is cut. */
static void append(char text[ATTN_FIGURE_TEXT_BYTES], const char *format, ...) ATTN_PRINTF(2, 3);

static void append(char text[ATTN_FIGURE_TEXT_BYTES], const char *format, ...)
{
    const size_t used = strlen(text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + used, ATTN_FIGURE_TEXT_BYTES - used, format, arguments);
    va_end(arguments);
}

static attn_figure no_channel(const attn_energy_meter *meter, attn_energy_domain domain,
                              const char *name)
{
    char why[ATTN_FIGURE_TEXT_BYTES] = "";
    const char *path = "";
    for (size_t s = 0; s < meter->n_sources && !*why; s++) {
        const attn_energy_source *source = meter->sources[s];
        path = source->operations->path;
        if (*source->why)
            append(why, "%s%s%s", source->why, *source->fix ? "; fix: " : "", source->fix);
    }
    if (!*why) append(why, "this machine has no %s counter", attn_energy_domain_name(domain));
    return attn_figure_unavailable(name, "J", path, why);
}

/* Why a channel's share of the window is unknown; "" when it is known. */
static void describe_gap(const attn_energy_channel *channel, const attn_energy_reading *begin,
                         const attn_energy_reading *end, double window_s,
                         char why[ATTN_FIGURE_TEXT_BYTES])
{
    static const char *const causes[ATTN_ENERGY_STATES] = {
        [ATTN_ENERGY_FAILED] = "the counter could not be read",
        [ATTN_ENERGY_LOST] = "the counter went away",
        [ATTN_ENERGY_RESET] = "the counter was reset or jumped",
        [ATTN_ENERGY_STALE] = "the counter went unread so long that it may have wrapped unseen",
    };
    why[0] = '\0';
    if (channel->state != ATTN_ENERGY_OK) {
        append(why, "%s%s%s", channel->why, *channel->fix ? "; fix: " : "", channel->fix);
        return;
    }
    attn_energy_state cause = ATTN_ENERGY_OK;
    if (end->lost != begin->lost) cause = end->cause;
    if (end->state != ATTN_ENERGY_OK) cause = end->state;
    if (begin->state != ATTN_ENERGY_OK) cause = begin->state;
    if (cause == ATTN_ENERGY_OK) return;
    const double covered_s = (double)(end->covered_ns - begin->covered_ns) * 1e-9;
    append(why, "%s: %s; %.0f %% of the window is covered, with %.6g J", channel->id,
           causes[cause] ? causes[cause] : attn_energy_state_name(cause),
           100.0 * covered_s / window_s, (double)(end->total - begin->total) * channel->unit_j);
}

static attn_figure roll_up(const attn_energy_meter *meter, const attn_energy_snapshot *begin,
                           const attn_energy_snapshot *end, attn_energy_domain domain,
                           const char *name)
{
    const attn_energy_source *source = best_source(meter, domain);
    if (!source) return no_channel(meter, domain, name);
    const double window_s =
        end->time_ns > begin->time_ns ? attn_clock_seconds(begin->time_ns, end->time_ns) : 0.0;
    char paths[ATTN_FIGURE_TEXT_BYTES] = "", why[ATTN_FIGURE_TEXT_BYTES] = "";
    if (!(window_s > 0.0)) append(why, "the marks are not in order");
    double energy_j = 0.0, blur_j = 0.0, slowest_s = 0.0;
    bool is_update_known = true;
    for (size_t a = 0; a < meter->n_accounts; a++) {
        const attn_energy_account *account = &meter->accounts[a];
        const attn_energy_channel *channel = &account->source->channels[account->channel];
        if (account->source != source || !is_part(channel, domain)) continue;
        append(paths, "%s%s", *paths ? " + " : "", channel->path);
        if (*why) continue;
        const attn_energy_reading *first = &begin->readings[a], *last = &end->readings[a];
        describe_gap(channel, first, last, window_s, why);
        /* A counter that did not change while it was probed is at least that slow. */
        const bool has_update = channel->update_s >= 0.0;
        const double update_s = has_update ? channel->update_s : channel->probed_s;
        if (!has_update) is_update_known = false;
        if (update_s > slowest_s) slowest_s = update_s;
        /* At each mark the counter lags by up to one update, so that what it shows spans
         * window_s - lag_s at least; the rest is taken to draw the same power. */
        const double part_j = (double)(last->total - first->total) * channel->unit_j;
        const double lag_s = update_s + 0.5 * (begin->pass_s + end->pass_s);
        energy_j += part_j;
        if (window_s > lag_s)
            blur_j += part_j * lag_s / (window_s - lag_s);
        else if (!*why)
            append(why, "the window of %.3g s is shorter than one update of the counter (%s%.3g s)",
                   window_s, has_update ? "" : "> ", update_s);
    }
    if (*why) return attn_figure_unavailable(name, "J", paths, why);

    attn_figure figure = attn_figure_make(name, "J", energy_j, ATTN_MEASURED, paths);
    if (window_s < 100.0 * slowest_s) {
        figure.has_interval = true;
        figure.low = energy_j > blur_j ? energy_j - blur_j : 0.0;
        figure.high = energy_j + blur_j;
        append(figure.why,
               "the window of %.3g s is short for a counter that updates every %s%.3g s: "
               "1 %% needs %.3g s or more",
               window_s, is_update_known ? "" : "> ", slowest_s, 100.0 * slowest_s);
    }
    const double slept_s = end->suspended_s - begin->suspended_s;
    if (slept_s > ATTN_CLOCK_SUSPEND_S)
        append(figure.why, "%sthe machine was suspended for %.3g s in this window",
               *figure.why ? "; " : "", slept_s);
    return figure;
}

void attn_energy_between(const attn_energy_meter *meter, const attn_energy_snapshot *begin,
                         const attn_energy_snapshot *end, attn_figure figures[ATTN_ENERGY_FIGURES])
{
    figures[ATTN_ENERGY_FIGURE_PACKAGE] =
        roll_up(meter, begin, end, ATTN_ENERGY_PACKAGE, "energy_cpu_package_j");
    figures[ATTN_ENERGY_FIGURE_DRAM] =
        roll_up(meter, begin, end, ATTN_ENERGY_DRAM, "energy_dram_j");
    figures[ATTN_ENERGY_FIGURE_PSYS] =
        roll_up(meter, begin, end, ATTN_ENERGY_PSYS, "energy_psys_j");
}
