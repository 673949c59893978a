/* From two marks to figures: which channels add up, and what is said when a part is missing. */
#include "meters/energy_internal.h"

#include "base/clock.h"
#include "meters/system_clock.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Two views of the same joules are counted once: not what lies inside another channel, nor a
 * second view of a register, nor a gauge beside a counter that can be read. */
static bool is_part(const attn_energy_source *source, const attn_energy_channel *channel,
                    attn_energy_domain domain)
{
    return channel->domain == domain && channel->mirror_of < 0 && channel->parent < 0 &&
           (channel->twin_of < 0 || source->channels[channel->twin_of].state != ATTN_ENERGY_OK);
}

/* The first source with a readable channel of this domain, else the first that at least knows
 * one, else NULL. */
static const attn_energy_source *best_source(const attn_energy_meter *meter,
                                             attn_energy_domain domain)
{
    const attn_energy_source *known = NULL;
    for (size_t s = 0; s < meter->n_sources; s++) {
        const attn_energy_source *source = meter->sources[s];
        for (size_t i = 0; i < source->n_channels; i++) {
            const attn_energy_channel *channel = &source->channels[i];
            if (!is_part(source, channel, domain)) continue;
            if (channel->state == ATTN_ENERGY_OK) return source;
            if (!known) known = source;
        }
    }
    return known;
}

/* Whether another source shows the same board and counts in the place of this channel: the first of
 * those that can be read. */
static bool is_shown_better(const attn_energy_meter *meter, const attn_energy_source *source,
                            const attn_energy_channel *channel)
{
    bool is_before = true;
    for (size_t s = 0; s < meter->n_sources; s++) {
        const attn_energy_source *other = meter->sources[s];
        if (other == source) is_before = false;
        for (size_t i = 0; other != source && i < other->n_channels; i++)
            if (is_part(other, &other->channels[i], channel->domain) &&
                other->channels[i].state == ATTN_ENERGY_OK &&
                attn_energy_is_one_board(&other->channels[i], channel) &&
                (is_before || channel->state != ATTN_ENERGY_OK))
                return true;
    }
    return false;
}

/* Whether the figure of a domain has this channel for a part, readable or not. */
static bool belongs(const attn_energy_meter *meter, const attn_energy_source *source,
                    const attn_energy_channel *channel, attn_energy_domain domain)
{
    return is_part(source, channel, domain) &&
           (domain == ATTN_ENERGY_GPU ? !is_shown_better(meter, source, channel)
                                      : best_source(meter, domain) == source);
}

bool attn_energy_is_counted(const attn_energy_meter *meter, const attn_energy_source *source,
                            size_t channel)
{
    const attn_energy_channel *which = &source->channels[channel];
    return which->domain != ATTN_ENERGY_CORE && which->domain != ATTN_ENERGY_UNCORE &&
           which->domain != ATTN_ENERGY_RAIL && which->state == ATTN_ENERGY_OK &&
           belongs(meter, source, which, which->domain);
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

/* The last source that could offer the domain knows best why it does not: the sources before it
 * are other ways to the same hardware. */
static attn_figure no_channel(const attn_energy_meter *meter, attn_energy_domain domain,
                              const char *name)
{
    char why[ATTN_FIGURE_TEXT_BYTES] = "";
    const char *path = "";
    for (size_t s = meter->n_sources; s-- > 0 && !*why;) {
        const attn_energy_source *source = meter->sources[s];
        if (!(source->operations->domains & 1u << domain)) continue;
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
        [ATTN_ENERGY_STALE] = "it went unread so long that it may have wrapped unseen",
        [ATTN_ENERGY_SILENT] = "it had nothing to say",
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
    const bool is_gap = cause == ATTN_ENERGY_STALE && channel->kind == ATTN_ENERGY_GAUGE;
    const double covered_s = (double)(end->covered_ns - begin->covered_ns) * 1e-9;
    append(why, "%s: %s; %.0f %% of the window is covered, with %.6g J", channel->id,
           is_gap          ? "its power was not read for too long"
           : causes[cause] ? causes[cause]
                           : attn_energy_state_name(cause),
           100.0 * covered_s / window_s, (double)(end->total - begin->total) * channel->unit_j);
}

/* What a sum over channels collects. */
typedef struct sum {
    char paths[ATTN_FIGURE_TEXT_BYTES], why[ATTN_FIGURE_TEXT_BYTES], notes[ATTN_FIGURE_TEXT_BYTES];
    double energy_j, blur_j, slowest_s;
    bool is_update_known, has_gauge;
} sum;

/* Of the time that the figure is for: between edges, what lies between the two waits. */
static double window_of(const attn_energy_snapshot *begin, const attn_energy_snapshot *end)
{
    const bool is_edged = begin->is_edge && end->is_edge;
    const uint64_t from_ns = is_edged ? begin->after_ns : begin->time_ns;
    const uint64_t to_ns = is_edged ? end->before_ns : end->time_ns;
    return to_ns > from_ns ? attn_clock_seconds(from_ns, to_ns) : 0.0;
}

/* The energy of one channel in a window: what was read, scaled at edges from the time between the
 * two readings to that of the window. */
static double channel_energy(const attn_energy_channel *channel, const attn_energy_reading *first,
                             const attn_energy_reading *last, double window_s, bool is_edged)
{
    const double energy_j = (double)(last->total - first->total) * channel->unit_j;
    if (!is_edged || last->time_ns <= first->time_ns) return energy_j;
    return energy_j * window_s / attn_clock_seconds(first->time_ns, last->time_ns);
}

static void add_channel(sum *s, const attn_energy_channel *channel, double period_s,
                        const attn_energy_reading *first, const attn_energy_reading *last,
                        const attn_energy_snapshot *begin, const attn_energy_snapshot *end)
{
    const double window_s = window_of(begin, end);
    append(s->paths, "%s%s", *s->paths ? " + " : "", channel->path);
    if (*channel->note && !strstr(s->notes, channel->note))
        append(s->notes, "%s%s", *s->notes ? "; " : "", channel->note);
    if (channel->accuracy > 0.0 && !strstr(s->notes, "by its maker"))
        append(s->notes,
               "%sthe meter is good for %.3g %% by its maker, the same way in every trial",
               *s->notes ? "; " : "", 100.0 * channel->accuracy);
    if (channel->kind == ATTN_ENERGY_GAUGE) s->has_gauge = true;
    if (*s->why) return;
    describe_gap(channel, first, last, window_s, s->why);
    if (!*s->why && window_s < channel->shortest_s)
        append(s->why, "the window of %.3g s is too short for %s, which needs %.3g s", window_s,
               channel->id, channel->shortest_s);
    /* A counter that did not change while it was probed is at least that slow. */
    const bool has_update = channel->update_s >= 0.0;
    double update_s = attn_energy_update_s(channel);
    /* What a gauge does between two samples is not seen. */
    if (channel->kind == ATTN_ENERGY_GAUGE && update_s < period_s) update_s = period_s;
    if (!has_update) s->is_update_known = false;
    if (update_s > s->slowest_s) s->slowest_s = update_s;
    /* At each mark the counter lags by up to one update, so that what it shows spans
     * window_s - lag_s at least; the rest is taken to draw the same power. */
    const bool is_edged = begin->is_edge && end->is_edge;
    const double part_j = channel_energy(channel, first, last, window_s, is_edged);
    const double lag_s = update_s + 0.5 * (begin->pass_s + end->pass_s);
    s->energy_j += part_j;
    if (window_s > lag_s)
        s->blur_j += part_j * lag_s / (window_s - lag_s);
    else if (!*s->why)
        append(s->why, "the window of %.3g s is shorter than one update of the counter (%s%.3g s)",
               window_s, has_update ? "" : "> ", update_s);
    if (channel->must_move && channel->kind == ATTN_ENERGY_COUNTER && first->total == last->total &&
        !*s->why)
        append(s->why, "%s stood still in the window of %.3g s, and no board draws nothing",
               channel->id, window_s);
}

static attn_figure roll_up(const attn_energy_meter *meter, const attn_energy_snapshot *begin,
                           const attn_energy_snapshot *end, attn_energy_domain domain,
                           const char *name)
{
    if (!best_source(meter, domain)) return no_channel(meter, domain, name);
    const double window_s = window_of(begin, end);
    sum s = {.is_update_known = true};
    if (!(window_s > 0.0)) append(s.why, "the marks are not in order");
    for (size_t a = 0; a < meter->n_accounts; a++) {
        const attn_energy_account *account = &meter->accounts[a];
        const attn_energy_channel *channel = &account->source->channels[account->channel];
        if (belongs(meter, account->source, channel, domain))
            add_channel(&s, channel, meter->period_s, &begin->readings[a], &end->readings[a], begin,
                        end);
    }
    if (*s.why) return attn_figure_unavailable(name, "J", s.paths, s.why);

    attn_figure figure = attn_figure_make(name, "J", s.energy_j,
                                          s.has_gauge ? ATTN_INTEGRATED : ATTN_MEASURED, s.paths);
    if (window_s < 100.0 * s.slowest_s) {
        figure.has_interval = true;
        figure.low = s.energy_j > s.blur_j ? s.energy_j - s.blur_j : 0.0;
        figure.high = s.energy_j + s.blur_j;
        append(figure.why,
               "the window of %.3g s is short for a counter that updates every %s%.3g s: "
               "1 %% needs %.3g s or more",
               window_s, s.is_update_known ? "" : "> ", s.slowest_s, 100.0 * s.slowest_s);
    }
    if (*s.notes) append(figure.why, "%s%s", *figure.why ? "; " : "", s.notes);
    const double slept_s = end->suspended_s - begin->suspended_s;
    if (slept_s > ATTN_CLOCK_SUSPEND_S)
        append(figure.why, "%sthe machine was suspended for %.3g s in this window",
               *figure.why ? "; " : "", slept_s);
    return figure;
}

/* ---- parts of a machine ------------------------------------------------------------------- */

static const struct {
    attn_energy_domain domain;
    const char *name;
} figure_domains[ATTN_ENERGY_FIGURE_COMPONENTS] = {
    [ATTN_ENERGY_FIGURE_PACKAGE] = {ATTN_ENERGY_PACKAGE, "energy_cpu_package_j"},
    [ATTN_ENERGY_FIGURE_DRAM] = {ATTN_ENERGY_DRAM, "energy_dram_j"},
    [ATTN_ENERGY_FIGURE_PSYS] = {ATTN_ENERGY_PSYS, "energy_psys_j"},
    [ATTN_ENERGY_FIGURE_GPU] = {ATTN_ENERGY_GPU, "energy_gpu_board_j"},
    [ATTN_ENERGY_FIGURE_MODULE] = {ATTN_ENERGY_MODULE, "energy_module_j"},
    [ATTN_ENERGY_FIGURE_SYSTEM] = {ATTN_ENERGY_SYSTEM, "energy_system_j"},
};

bool attn_energy_knows(const attn_energy_meter *meter, size_t figure)
{
    return figure < ATTN_ENERGY_FIGURE_COMPONENTS &&
           best_source(meter, figure_domains[figure].domain) != NULL;
}

/* A part that the machine has and that is unknown makes the sum unknown. One that it has no meter
 * for is not in the sum, and the source says what is. */
static attn_figure components(const attn_energy_meter *meter, const attn_figure *figures)
{
    static const char name[] = "energy_components_j";
    static const size_t apart[] = {ATTN_ENERGY_FIGURE_PACKAGE, ATTN_ENERGY_FIGURE_DRAM,
                                   ATTN_ENERGY_FIGURE_GPU};
    static const size_t whole[] = {ATTN_ENERGY_FIGURE_MODULE};
    const bool has_module = attn_energy_knows(meter, ATTN_ENERGY_FIGURE_MODULE);
    const size_t *parts = has_module ? whole : apart;
    const size_t n_parts = has_module ? 1 : sizeof apart / sizeof *apart;
    char source[ATTN_FIGURE_TEXT_BYTES] = "";
    attn_figure total = attn_figure_make(name, "J", 0.0, ATTN_MEASURED, "");
    total.low = total.high = 0.0;
    for (size_t i = 0; i < n_parts; i++) {
        const attn_figure *part = &figures[parts[i]];
        if (!attn_energy_knows(meter, parts[i])) continue;
        if (part->provenance == ATTN_UNAVAILABLE)
            return attn_figure_unavailable(name, "J", part->name, part->why);
        append(source, "%s%s", *source ? " + " : "", part->name);
        total.value += part->value;
        total.low += part->has_interval ? part->low : part->value;
        total.high += part->has_interval ? part->high : part->value;
        total.has_interval |= part->has_interval;
        if (part->provenance == ATTN_INTEGRATED) total.provenance = ATTN_INTEGRATED;
        if (*part->why && !*total.why) append(total.why, "%s: %.180s", part->name, part->why);
    }
    if (!*source)
        return attn_figure_unavailable(name, "J", "energy_cpu_package_j",
                                       figures[ATTN_ENERGY_FIGURE_PACKAGE].why);
    append(total.source, "%s", source);
    return total;
}

void attn_energy_between(const attn_energy_meter *meter, const attn_energy_snapshot *begin,
                         const attn_energy_snapshot *end, attn_figure figures[ATTN_ENERGY_FIGURES])
{
    for (size_t i = 0; i < ATTN_ENERGY_FIGURE_COMPONENTS; i++)
        figures[i] = roll_up(meter, begin, end, figure_domains[i].domain, figure_domains[i].name);
    figures[ATTN_ENERGY_FIGURE_COMPONENTS] = components(meter, figures);
}
