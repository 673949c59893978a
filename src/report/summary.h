/* A run in brief: each mechanism's figures over its rounds. Only trials that ended well count,
 * figures of different provenance are never put together, and no interval is claimed below six
 * rounds. */
#ifndef REPORT_SUMMARY_H
#define REPORT_SUMMARY_H

#include "base/paired.h"
#include "store/store.h"

#include <stdbool.h>
#include <stddef.h>

/* What low..high means. */
typedef enum attn_spread {
    ATTN_SPREAD_NONE,       /* one round, or no value */
    ATTN_SPREAD_RANGE,      /* least and greatest over the rounds */
    ATTN_SPREAD_CONFIDENCE, /* 95 % interval of the median: exact sign test, 6 rounds or more */
    ATTN_SPREAD_MODEL       /* what the model itself states */
} attn_spread;

typedef struct attn_summary_figure {
    const char *name, *unit, *source; /* of the first round; live as long as the result */
    attn_provenance provenance;       /* ATTN_UNAVAILABLE: no round has a value */
    bool is_mixed;                    /* rounds differ in provenance or unit: no value is given */
    size_t n;                         /* rounds that carry a value */
    double median, minimum, maximum;  /* NaN when there is none */
    attn_spread spread;
    double low, high;
    double ratio, ratio_low, ratio_high; /* to the baseline, paired by round: median, and its
                                            interval from six rounds on, else least and greatest;
                                            NaN where a ratio means nothing */
    char why[ATTN_FIGURE_TEXT_BYTES];    /* when there is no value: the reason */
} attn_summary_figure;

typedef struct attn_summary_mechanism {
    const char *name;
    bool sees_future; /* no language model: out of competition with those that are */
    bool is_again;    /* an A/A twin: what differs from its original is noise */
    size_t original;  /* of a twin: its place among the mechanisms */
    size_t n_trials[ATTN_TRIAL_STATES];
    const char *reason; /* of the first trial that failed, crashed or was stopped; or NULL */
    attn_trial_state reason_state;
    uint32_t reason_round;
    uint64_t tokens;              /* fed in each trial that is done; 0 when rounds differ */
    attn_summary_figure *figures; /* in the order of first appearance */
    size_t n_figures;
} attn_summary_mechanism;

typedef struct attn_summary {
    attn_summary_mechanism *mechanisms; /* in the order of the plan; the first is the baseline */
    size_t n_mechanisms;
    size_t n_rounds;         /* begun */
    size_t n_trials_planned; /* 0 when the plan does not say */
    size_t n_trials_done;
    const attn_store_result *result;    /* that it was made from */
    size_t n_twins;                     /* A/A pairs: one of a run, where there is one */
    const struct attn_overlay *overlay; /* the runs it is of, when they are several; or NULL */
} attn_summary;

/* The plan is a JSON object; its "mechanisms" (an array of names, or of objects with a "name")
 * and "rounds" are used. Without them, mechanisms come in the order in which they were tried.
 * The summary points into `result`, which must outlive it. */
ATTN_MUST_CHECK attn_status attn_summary_make(const attn_store_result *result, attn_summary **out,
                                              attn_error *error);
void attn_summary_free(attn_summary *summary); /* NULL is fine */

/* Whether the trial's model let tokens see later ones, by ATTN_FIGURE_SEES_FUTURE. */
bool attn_summary_sees_future(const attn_store_trial *trial);

/* NULL when no round of the mechanism has this figure. */
const attn_summary_figure *attn_summary_find(const attn_summary_mechanism *mechanism,
                                             const char *name);

/* The median; NaN when the figure is absent or without a value. */
double attn_summary_value(const attn_summary_mechanism *mechanism, const char *name);

/* Fills order[n_mechanisms] by rising (or falling) value of a figure. Mechanisms without a value
 * come last, equal ones keep the plan's order. */
void attn_summary_order(const attn_summary *summary, const char *name, bool is_rising,
                        size_t *order);

/* Whether the data tell two mechanisms apart in a figure. From six rounds on the pairs decide, at
 * 95 % for all comparisons with the others together, and nothing below the noise floor counts;
 * with fewer, ranges that do not overlap. Exact counts need neither; a single reading of anything
 * else tells nothing apart, and a model never. */
bool attn_summary_resolved(const attn_summary *summary, size_t a, size_t b, const char *name);

/* The pairs of two mechanisms, round by round, of losses as perplexities; n is 0 where a ratio
 * means nothing. `options` as
 * for attn_paired_compare(). */
attn_paired attn_summary_pair(const attn_summary *summary, size_t a, size_t b, const char *name,
                              const attn_paired_options *options);

/* The values of one figure in the rounds that both have, done well and of one provenance; room for
 * ATTN_PAIRS_MAX each. Losses come as perplexities, so that their ratio means something. The
 * results may be one. Gives how many. */
size_t attn_summary_collect(const attn_store_result *a, const char *mechanism_a,
                            const attn_store_result *b, const char *mechanism_b, const char *name,
                            double *left, double *right);

/* The least |log ratio| that this run can tell from noise, by its A/A pair, of several runs the
 * greatest; NaN without one, or below six rounds. */
double attn_summary_floor(const attn_summary *summary, const char *name);

/* How many trials a plan asks for: mechanisms times rounds; 0 when it does not
 * say. */
size_t attn_plan_trials(const char *plan_json);

#endif
