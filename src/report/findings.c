/* Findings: sentences computed from a summary. */
#include "report/findings.h"

#include "report/ranking.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

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

/* "not resolved against a, b and 2 more": those whose spread overlaps the best one's. */
static void say_unresolved(attn_finding *f, const attn_summary *summary, size_t best,
                           const char *name)
{
    enum { NAMED_MOST = 3 };
    const attn_summary_figure *winner = attn_summary_find(&summary->mechanisms[best], name);
    size_t n_equal = 0, n_unresolved = 0;
    for (int pass = 0; pass < 2; pass++) {
        size_t n_named = 0;
        for (size_t i = 0; i < summary->n_mechanisms; i++) {
            const attn_summary_mechanism *m = &summary->mechanisms[i];
            const attn_summary_figure *other = attn_summary_find(m, name);
            if (i == best || !other || isnan(other->median)) continue;
            if (attn_summary_resolved(winner, other)) continue;
            const bool is_equal =
                winner->provenance == ATTN_COUNTED && other->median == winner->median;
            if (pass == 0 && is_equal) n_equal++;
            if (pass == 0) n_unresolved++;
            if (pass == 1 && n_named < NAMED_MOST) {
                DETAIL(f, "%s%s", n_named == 0 ? "" : ", ", m->name);
                n_named++;
            }
        }
        if (n_unresolved == 0) return;
        if (pass == 0)
            DETAIL(f, n_equal == n_unresolved ? " The same for " : " Not resolved against ");
    }
    if (n_unresolved > NAMED_MOST) DETAIL(f, " and %zu more", n_unresolved - NAMED_MOST);
    DETAIL(f, n_equal == n_unresolved ? "." : ": the spreads overlap.");
}

/* The best mechanism of one figure; false when fewer than two have a value. */
static bool find_best(attn_finding *f, const attn_summary *summary, const char *name,
                      const char *label, const char *per)
{
    size_t best = summary->n_mechanisms, n_valued = 0;
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const double value = attn_summary_value(&summary->mechanisms[i], name);
        if (!isnan(value)) n_valued++;
        if (!isnan(value) && (best == summary->n_mechanisms ||
                              value < attn_summary_value(&summary->mechanisms[best], name)))
            best = i;
    }
    if (n_valued == 0) return false;
    const attn_summary_figure *figure = attn_summary_find(&summary->mechanisms[best], name);
    *f = (attn_finding){.label = label};
    snprintf(f->subject, sizeof f->subject, "%s", summary->mechanisms[best].name);
    const int digits = attn_format_digits(figure->median, figure->low, figure->high);
    f->value = attn_format_si(figure->median, digits, figure->unit);
    append(f->value.text, sizeof f->value.text, "%s", per);
    if (figure->spread != ATTN_SPREAD_NONE && figure->low < figure->high)
        DETAIL(f, "%s (%s).",
               attn_format_range(figure->median, figure->low, figure->high, figure->unit).text,
               attn_spread_label(figure).text);
    else if (figure->provenance == ATTN_COUNTED)
        DETAIL(f, "Counted, the same in every round.");
    else
        DETAIL(f, "From a single round.");
    if (best != 0 && figure->ratio > 0 && figure->ratio < 1)
        DETAIL(f, " %s %% less than %s.", attn_format_number(100 * (1 - figure->ratio), 2).text,
               summary->mechanisms[0].name);
    if (n_valued > 1 && figure->spread == ATTN_SPREAD_NONE && figure->provenance != ATTN_COUNTED)
        DETAIL(f, " One round tells no mechanisms apart.");
    else if (n_valued > 1)
        say_unresolved(f, summary, best, name);
    return true;
}

static bool tokens_are_equal(const attn_summary *summary)
{
    uint64_t tokens = 0;
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const attn_summary_mechanism *m = &summary->mechanisms[i];
        if (m->n_trials[ATTN_TRIAL_DONE] == 0) continue;
        if (m->tokens == 0 || (tokens != 0 && m->tokens != tokens)) return false;
        tokens = m->tokens;
    }
    return tokens != 0;
}

static bool find_loss(attn_finding *f, const attn_summary *summary)
{
    if (!find_best(f, summary, "held_out_loss", "Lowest held-out loss", "")) return false;
    if (tokens_are_equal(summary)) {
        uint64_t tokens = 0;
        for (size_t i = 0; i < summary->n_mechanisms; i++)
            if (summary->mechanisms[i].tokens > tokens) tokens = summary->mechanisms[i].tokens;
        DETAIL(f, " After %s training tokens each.", attn_format_count((double)tokens, " ").text);
    } else {
        DETAIL(f, " Mechanisms saw different numbers of tokens: losses are not comparable.");
        f->is_caution = true;
    }
    return true;
}

static void find_energy(attn_finding *f, const attn_summary *summary)
{
    attn_ranking_column columns[ATTN_RANKING_COLUMNS];
    attn_ranking_columns(summary, columns);
    const char *name = "energy_step_j", *per = " per step";
    for (size_t i = 0; i < ATTN_RANKING_COLUMNS; i++)
        if (columns[i].key && strcmp(columns[i].key, "energy") == 0) name = columns[i].figure;
    if (strcmp(name, "energy_step_j") != 0) per = "";
    if (find_best(f, summary, name, "Least energy", per)) return;
    *f = (attn_finding){.label = "Energy", .is_caution = true};
    snprintf(f->subject, sizeof f->subject, "not measured");
    const char *why = attn_ranking_absence(summary, "energy_cpu_package_j");
    DETAIL(f, "Reason: %s.", why);
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const attn_summary_figure *m =
            attn_summary_find(&summary->mechanisms[i], "energy_modelled_cpu_j");
        if (!m || isnan(m->median)) continue;
        DETAIL(f, " A modelled value is shown apart; it does not rank mechanisms.");
        break;
    }
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
               "for %s%zu mechanism%s.",
               n_checked == summary->n_mechanisms ? "all " : "", n_checked,
               n_checked == 1 ? "" : "s");
    return true;
}

static bool find_losses_of_trials(attn_finding *f, const attn_summary *summary)
{
    size_t n_lost = 0, n_running = 0;
    *f = (attn_finding){.label = "Trials", .is_caution = true};
    for (size_t i = 0; i < summary->n_mechanisms; i++) {
        const attn_summary_mechanism *m = &summary->mechanisms[i];
        n_running += m->n_trials[ATTN_TRIAL_RUNNING];
        for (int s = ATTN_TRIAL_FAILED; s < ATTN_TRIAL_STATES; s++) n_lost += m->n_trials[s];
        if (m->reason)
            DETAIL(f, "%s%s, round %u: %s (%s).", f->detail[0] ? " " : "", m->name,
                   (unsigned)m->reason_round, attn_trial_state_name(m->reason_state),
                   m->reason[0] ? m->reason : "no reason was recorded");
    }
    const size_t planned = summary->n_trials_planned;
    const bool is_partial = planned > summary->n_trials_done;
    if (n_lost == 0 && n_running == 0 && !is_partial) return false;
    if (planned > 0)
        snprintf(f->subject, sizeof f->subject, "%zu of %zu done", summary->n_trials_done, planned);
    else
        snprintf(f->subject, sizeof f->subject, "%zu done", summary->n_trials_done);
    if (n_running > 0)
        DETAIL(f, "%s%zu %s begun and not ended.", f->detail[0] ? " " : "", n_running,
               n_running == 1 ? "has" : "have");
    DETAIL(f, "%sOnly trials that are done count.", f->detail[0] ? " " : "");
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
    if (summary->n_trials_done > 0) find_energy(&findings[n++], summary);
    n += find_work(&findings[n], summary);
    n += find_losses_of_trials(&findings[n], summary);
    return n;
}
