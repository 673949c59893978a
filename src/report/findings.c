/* Findings: sentences computed from a summary. */
#include "report/findings.h"

#include "report/overlay.h"
#include "report/ranking.h"
#include "store/likeness.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Mechanisms named in one sentence; more are counted. */
enum { NAMED_MOST = 3 };

attn_text attn_spread_label(const attn_summary_figure *figure)
{
    attn_text out = {""};
    switch (figure->spread) {
    case ATTN_SPREAD_RANGE:
        snprintf(out.text, sizeof out.text, "range over %zu rounds", figure->n);
        break;
    case ATTN_SPREAD_CONFIDENCE:
        snprintf(out.text, sizeof out.text, "95 %% interval over %zu rounds", figure->n);
        break;
    case ATTN_SPREAD_MODEL:
        snprintf(out.text, sizeof out.text, "interval of the model");
        break;
    case ATTN_SPREAD_NONE:
        snprintf(out.text, sizeof out.text, "%zu round%s", figure->n, figure->n == 1 ? "" : "s");
        break;
    }
    return out;
}

/* Appends to a text of fixed size; what does not fit is cut. */
static void append(char *text, size_t size_bytes, const char *format, ...) ATTN_PRINTF(3, 4);

static void append(char *text, size_t size_bytes, const char *format, ...)
{
    const size_t used = strlen(text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + used, size_bytes - used, format, arguments);
    va_end(arguments);
}

#define DETAIL(finding, ...) append((finding)->detail, sizeof(finding)->detail, __VA_ARGS__)

/* "Not resolved against a, b and 2 more": those whose spread overlaps the best one's. */
static void say_unresolved(attn_finding *f, const attn_summary *summary, size_t best,
                           const char *name)
{
    const attn_summary_figure *winner = attn_summary_find(&summary->mechanisms[best], name);
    char names[NAMED_MOST * (sizeof f->subject + 2)] = "";
    size_t n_unresolved = 0, unresolved = 0; /* the first of them */
    bool all_equal = winner->provenance == ATTN_COUNTED;
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const attn_summary_mechanism *m = &summary->mechanisms[i];
        const attn_summary_figure *other = attn_summary_find(m, name);
        if (i == best || m->sees_future || !other || isnan(other->median) || m->is_again ||
            attn_summary_resolved(summary, best, i, name))
            continue;
        all_equal &= other->median == winner->median;
        if (n_unresolved == 0) unresolved = i;
        if (n_unresolved++ < NAMED_MOST)
            append(names, sizeof names, "%s%s", names[0] ? ", " : "", m->name);
    }
    if (n_unresolved == 0) return;
    DETAIL(f, all_equal ? " The same for %s" : " Not resolved against %s", names);
    if (n_unresolved > NAMED_MOST) DETAIL(f, " and %zu more", n_unresolved - NAMED_MOST);
    if (all_equal) {
        DETAIL(f, ".");
        return;
    }
    const size_t comparisons = summary->n_mechanisms - 1;
    const attn_paired pair = attn_summary_pair(summary, best, unresolved, name,
                                               &(attn_paired_options){.comparisons = comparisons});
    if (pair.n >= 6 && pair.verdict == ATTN_VERDICT_TOO_FEW) {
        DETAIL(f, ": %zu rounds are too few for %zu comparisons at once.", pair.n, comparisons);
        return;
    }
    DETAIL(f, pair.n < 6 ? ": the spreads overlap." : ": the pairs do not tell them apart.");
    const size_t needed = attn_paired_rounds_needed(pair.spread, 0.01);
    if (pair.n >= 6 && needed > pair.n)
        DETAIL(f, " To tell 1 %% from %s, %s%zu rounds would be needed.",
               summary->mechanisms[unresolved].name, needed > 1000 ? "more than " : "",
               needed > 1000 ? (size_t)1000 : needed);
}

static void say_spread(attn_finding *f, const attn_summary_figure *figure)
{
    if (figure->n == 1)
        DETAIL(f, figure->provenance == ATTN_COUNTED ? "Counted." : "From a single round.");
    else if (figure->low < figure->high)
        DETAIL(f, "%s (%s).",
               attn_format_range(figure->median, figure->low, figure->high, figure->unit).text,
               attn_spread_label(figure).text);
    else
        DETAIL(f, "%s, the same in every round.",
               figure->provenance == ATTN_COUNTED ? "Counted" : "Measured");
}

/* The mechanism with the least of a figure; false when none has a value. A model names no best. */
static bool find_best(attn_finding *f, const attn_summary *summary, const char *name,
                      const char *label, const char *per)
{
    size_t best = summary->n_mechanisms, n_valued = 0;
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const attn_summary_figure *own = attn_summary_find(&summary->mechanisms[i], name);
        if (!own || isnan(own->median) || own->provenance == ATTN_MODELLED ||
            summary->mechanisms[i].sees_future || summary->mechanisms[i].is_again)
            continue;
        n_valued++;
        if (best == summary->n_mechanisms ||
            own->median < attn_summary_value(&summary->mechanisms[best], name))
            best = i;
    }
    if (n_valued == 0) return false;
    const attn_summary_figure *figure = attn_summary_find(&summary->mechanisms[best], name);
    const bool is_counted = figure->provenance == ATTN_COUNTED;
    const bool is_single = figure->spread == ATTN_SPREAD_NONE && !is_counted;
    *f = (attn_finding){.label = label};
    snprintf(f->subject, sizeof f->subject, "%s", summary->mechanisms[best].name);
    f->value =
        attn_format_si(figure->median,
                       attn_format_digits(figure->median, figure->low, figure->high), figure->unit);
    append(f->value.text, sizeof f->value.text, "%s", per);
    say_spread(f, figure);
    if (figure->ratio < 1 && (is_single || attn_summary_resolved(summary, best, 0, name)))
        DETAIL(f, " %s %% less than %s.", attn_format_number(100 * (1 - figure->ratio), 2).text,
               summary->mechanisms[0].name);
    if (n_valued > 1 && is_single)
        DETAIL(f, " One round tells no mechanisms apart.");
    else if (n_valued > 1)
        say_unresolved(f, summary, best, name);
    return true;
}

/* The training tokens of every mechanism's trials; 0 when they differ. */
static uint64_t common_tokens(const attn_summary *summary)
{
    uint64_t tokens = 0;
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const attn_summary_mechanism *m = &summary->mechanisms[i];
        if (m->n_trials[ATTN_TRIAL_DONE] == 0) continue;
        if (m->tokens == 0 || (tokens != 0 && m->tokens != tokens)) return 0;
        tokens = m->tokens;
    }
    return tokens;
}

static bool find_loss(attn_finding *f, const attn_summary *summary)
{
    if (!find_best(f, summary, "held_out_loss", "Lowest held-out loss", "")) return false;
    const uint64_t tokens = common_tokens(summary);
    f->is_caution = tokens == 0;
    if (tokens > 0)
        DETAIL(f, " After %s training tokens each.", attn_format_count((double)tokens, " ").text);
    else
        DETAIL(f, " Mechanisms saw different numbers of tokens: losses are not comparable.");
    return true;
}

/* If only for mechanisms out of competition. */
static bool is_measured(const attn_summary *summary, const char *name)
{
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const attn_summary_figure *f = attn_summary_find(&summary->mechanisms[i], name);
        if (f && !isnan(f->median) && f->provenance != ATTN_MODELLED) return true;
    }
    return false;
}

static bool find_energy(attn_finding *f, const attn_summary *summary)
{
    if (find_best(f, summary, "energy_step_j", "Least energy", " per step") ||
        find_best(f, summary, "energy_cpu_package_j", "Least energy", ""))
        return true;
    if (summary->n_trials_done == 0 || is_measured(summary, "energy_cpu_package_j")) return false;
    *f = (attn_finding){.label = "Energy", .is_caution = true};
    snprintf(f->subject, sizeof f->subject, "not measured");
    DETAIL(f, "Reason: %s.", attn_ranking_energy_absence(summary));
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const attn_summary_figure *m =
            attn_summary_find(&summary->mechanisms[i], "energy_modelled_cpu_j");
        if (!m || isnan(m->median)) continue;
        DETAIL(f, " A modelled value is shown apart; it does not rank mechanisms.");
        break;
    }
    return true;
}

/* Whether every trial's counted work was the formula's, to the last digit. */
static bool find_work(attn_finding *f, const attn_summary *summary)
{
    size_t n_checked = 0, n_equal = 0;
    *f = (attn_finding){.label = ATTN_FINDING_WORK};
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const attn_summary_figure *equal =
            attn_summary_find(&summary->mechanisms[i], "work_equals_closed_form");
        if (!equal || isnan(equal->median)) continue;
        n_checked++;
        if (equal->minimum == 1)
            n_equal++;
        else
            DETAIL(f, "%s%s", f->detail[0] ? ", " : "Differs for ", summary->mechanisms[i].name);
    }
    if (n_checked == 0) return false;
    f->is_caution = n_equal < n_checked;
    snprintf(f->subject, sizeof f->subject, f->is_caution ? "differs" : "equals the formula");
    if (f->is_caution)
        DETAIL(f, ": the kernels did other work than the closed form says.");
    else
        DETAIL(f,
               "Operations counted as the kernels ran equal the closed form to the last digit, "
               "%s%s%zu mechanism%s.",
               n_checked == 1 ? "in every trial of " : "for ",
               n_checked == summary->n_mechanisms && n_checked > 1 ? "all " : "", n_checked,
               n_checked == 1 ? "" : "s");
    return true;
}

static void say_twins(attn_finding *f, const attn_summary *summary)
{
    DETAIL(f, ". ");
    size_t n = 0;
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const attn_summary_mechanism *m = &summary->mechanisms[i];
        if (m->is_again && n++ < NAMED_MOST)
            DETAIL(f, "%s%s and %s", n > 1 ? ", " : "", summary->mechanisms[m->original].name,
                   m->name);
    }
    DETAIL(f, n == 1 ? " are one and the same; smaller differences are not resolved."
                     : " are each one and the same; differences below the greatest between them "
                       "are not resolved.");
}

/* What the A/A pair says of every other difference. */
static bool find_floor(attn_finding *f, const attn_summary *summary)
{
    static const char *const names[][2] = {{"step_time_s", "step time"},
                                           {"energy_step_j", "energy"},
                                           {"latency_token_s", "next token"}};
    if (summary->n_twins == 0) return false;
    *f = (attn_finding){.label = "Noise floor"};
    snprintf(f->subject, sizeof f->subject, "not known");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const double floor = attn_summary_floor(summary, names[i][0]);
        if (isnan(floor)) continue;
        if (f->detail[0] == '\0')
            snprintf(f->subject, sizeof f->subject, "%.16s %%",
                     attn_format_number(100.0 * expm1(floor), 2).text);
        DETAIL(f, "%s%s: %s %%", f->detail[0] ? ", " : "", names[i][1],
               attn_format_number(100.0 * expm1(floor), 2).text);
    }
    f->is_caution = f->detail[0] == '\0';
    if (f->is_caution)
        DETAIL(f, "The A/A pair has fewer than six rounds: use --rounds 6 or more.");
    else
        say_twins(f, summary);
    return true;
}

/* Trials whose times something disturbed: they count, and the reader is told. */
static bool find_disturbed(attn_finding *f, const attn_summary *summary)
{
    static const struct {
        const char *figure, *what;
        double from; /* this value or more; of is_steady, 0 itself */
    } flags[] = {{"is_steady", "was not steady when timing began", 0.0},
                 {"gpu_slowdowns_after", "had a graphics board that something slowed down", 1.0},
                 {"suspended_s", "was suspended", 0.1},
                 {"clock_step_s", "had its clock set", 0.05}};
    size_t n = 0;
    *f = (attn_finding){.label = "Disturbances", .is_caution = true};
    for (size_t i = 0; i < summary->n_mechanisms; i++)
        for (size_t k = 0; k < sizeof flags / sizeof *flags; k++) {
            const attn_summary_figure *flag =
                attn_summary_find(&summary->mechanisms[i], flags[k].figure);
            if (!flag || isnan(flag->median)) continue;
            if (k == 0 ? flag->minimum > 0.0 : flag->maximum < flags[k].from) continue;
            if (n++ < 2 * NAMED_MOST)
                DETAIL(f, "%s %s. ", summary->mechanisms[i].name, flags[k].what);
        }
    if (n == 0) return false;
    snprintf(f->subject, sizeof f->subject, "%zu", n);
    if (n > 2 * NAMED_MOST) DETAIL(f, "And %zu more. ", n - 2 * NAMED_MOST);
    DETAIL(f, "They count all the same.");
    return true;
}

static bool find_future(attn_finding *f, const attn_summary *summary)
{
    size_t n = 0;
    *f = (attn_finding){.label = "Out of competition", .is_caution = true};
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        if (!summary->mechanisms[i].sees_future) continue;
        if (n++ < NAMED_MOST)
            DETAIL(f, "%s%s", f->detail[0] ? ", " : "", summary->mechanisms[i].name);
    }
    if (n == 0) return false;
    snprintf(f->subject, sizeof f->subject, "%zu mechanism%s see%s the future", n,
             n == 1 ? "" : "s", n == 1 ? "s" : "");
    if (n > NAMED_MOST) DETAIL(f, " and %zu more", n - NAMED_MOST);
    DETAIL(f, ": a token sees later ones, which it is to predict, so that the loss is not that of "
              "a language model.");
    return true;
}

/* Mechanisms of one run whose cores compute in different types. */
static bool find_precision(attn_finding *f, const attn_summary *summary)
{
    size_t n_half = 0, n_single = 0;
    *f = (attn_finding){.label = "Precision", .is_caution = true};
    DETAIL(f, "Between the projections, ");
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const attn_summary_mechanism *m = &summary->mechanisms[i];
        const double bits = attn_summary_value(m, "core_factor_bits");
        n_half += bits == 16.0;
        if (bits == 32.0) DETAIL(f, "%s%s", n_single++ > 0 ? ", " : "", m->name);
    }
    if (n_half == 0 || n_single == 0) return false;
    snprintf(f->subject, sizeof f->subject, "%zu in bfloat16, %zu in float32", n_half, n_single);
    DETAIL(f,
           " multipl%s in float32, the other%s in bfloat16: what differs between the two groups "
           "may be due to the type.",
           n_single == 1 ? "ies" : "y", n_half == 1 ? "" : "s");
    return true;
}

/* A run that was resumed by force. */
static bool find_changed(attn_finding *f, const attn_summary *summary)
{
    attn_differences list = {.n = 0};
    if (!summary->overlay) attn_likeness_resumed(summary->result->run.environment_json, &list);
    if (list.n == 0) return false;
    *f = (attn_finding){.label = "Circumstances", .is_caution = true};
    snprintf(f->subject, sizeof f->subject, "changed in the run");
    for (size_t i = 0; i < list.n && i < NAMED_MOST; i++) DETAIL(f, "%.150s. ", list.texts[i]);
    if (list.n > NAMED_MOST) DETAIL(f, "And %zu more. ", list.n - NAMED_MOST);
    DETAIL(f, "It was resumed by force: medians mix trials that do not compare.");
    return true;
}

/* Runs that are shown together were not interleaved. */
static bool find_overlay(attn_finding *f, const attn_summary *summary)
{
    const attn_overlay *overlay = summary->overlay;
    if (!overlay) return false;
    *f = (attn_finding){.label = "Runs"};
    for (size_t r = 1; r < overlay->n_runs; r++) {
        const attn_comparison *c = overlay->comparisons[r];
        f->is_caution |= c->forbidding.n > 0;
        for (size_t i = 0; i < c->forbidding.n && i < NAMED_MOST; i++)
            DETAIL(f, "%c differs in %.70s. ", c->letter, c->forbidding.texts[i]);
        if (c->forbidding.n > NAMED_MOST)
            DETAIL(f, "%c differs in %zu more. ", c->letter, c->forbidding.n - NAMED_MOST);
    }
    if (f->is_caution)
        snprintf(f->subject, sizeof f->subject, "not comparable, forced");
    else
        snprintf(f->subject, sizeof f->subject, "A to %c, comparable",
                 attn_overlay_letter(overlay->n_runs - 1));
    DETAIL(f, "They followed each other: what changed on the machine in between is in every "
              "difference between runs. Mechanisms of one run took turns.");
    return true;
}

/* What the instruments themselves cost. */
static bool find_meter_share(attn_finding *f, const attn_summary *summary)
{
    static const double goal = 0.001;
    size_t worst = summary->n_mechanisms;
    double share = -1.0;
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const attn_summary_figure *own = attn_summary_find(&summary->mechanisms[i], "meter_share");
        if (!own || isnan(own->median) || own->maximum <= share) continue;
        worst = i;
        share = own->maximum;
    }
    if (worst == summary->n_mechanisms) return false;
    *f = (attn_finding){.label = "Cost of metering", .is_caution = share >= goal};
    if (!(share > 0.0)) {
        snprintf(f->subject, sizeof f->subject, "nothing");
        DETAIL(f, "No energy meter was read in training.");
        return true;
    }
    snprintf(f->subject, sizeof f->subject, "%.24s %%", attn_format_number(100.0 * share, 2).text);
    DETAIL(f,
           "Of a trial's training time, at most (%s), went into reading energy meters; the goal "
           "is less than 0.1 %%.",
           summary->mechanisms[worst].name);
    return true;
}

static bool find_lost_trials(attn_finding *f, const attn_summary *summary)
{
    size_t n_lost = 0, n_running = 0, n_reasons = 0;
    *f = (attn_finding){.label = "Trials", .is_caution = true};
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const attn_summary_mechanism *m = &summary->mechanisms[i];
        n_running += m->n_trials[ATTN_TRIAL_RUNNING];
        for (int s = ATTN_TRIAL_FAILED; s < ATTN_TRIAL_STATES; s++) n_lost += m->n_trials[s];
        if (!m->reason || n_reasons++ >= NAMED_MOST) continue;
        DETAIL(f, "%s, round %u: %s (%.100s). ", m->name, (unsigned)m->reason_round,
               attn_trial_state_name(m->reason_state),
               m->reason[0] ? m->reason : "no reason was recorded");
    }
    const size_t planned = summary->n_trials_planned;
    if (n_lost == 0 && n_running == 0 && planned <= summary->n_trials_done) return false;
    if (planned > 0)
        snprintf(f->subject, sizeof f->subject, "%zu of %zu done", summary->n_trials_done, planned);
    else
        snprintf(f->subject, sizeof f->subject, "%zu done", summary->n_trials_done);
    if (n_reasons > NAMED_MOST)
        DETAIL(f, "%zu more mechanisms lost trials. ", n_reasons - NAMED_MOST);
    if (n_running > 0)
        DETAIL(f, "%zu %s begun and not ended. ", n_running, n_running == 1 ? "has" : "have");
    DETAIL(f, "Only trials that are done count.");
    return true;
}

size_t attn_findings_make(const attn_summary *summary, attn_finding findings[ATTN_FINDINGS_MAX])
{
    size_t n = 0;
    if (summary->n_mechanisms == 0) return 0;
    n += find_best(&findings[n], summary, "step_time_s", "Fastest training step", "");
    n += find_loss(&findings[n], summary);
    n += find_best(&findings[n], summary, "memory_peak_bytes", "Least memory in training", "");
    n += find_best(&findings[n], summary, "latency_token_s", "Fastest next token", "");
    n += find_energy(&findings[n], summary);
    n += find_work(&findings[n], summary);
    n += find_floor(&findings[n], summary);
    n += find_overlay(&findings[n], summary);
    n += find_changed(&findings[n], summary);
    n += find_meter_share(&findings[n], summary);
    n += find_disturbed(&findings[n], summary);
    n += find_precision(&findings[n], summary);
    n += find_future(&findings[n], summary);
    n += find_lost_trials(&findings[n], summary);
    return n;
}
