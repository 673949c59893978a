/* Loss curves of a mechanism over its rounds, and its power over time: what the page and the
 * figures for papers draw. */
#ifndef REPORT_CURVES_H
#define REPORT_CURVES_H

#include "report/summary.h"

/* Medians over the rounds at one step. */
typedef struct attn_curve_point {
    double step, time_s, operations; /* since training began; of all three classes */
    double energy_j;                 /* steps times the energy of a step; NaN when not measured */
    double loss;                     /* NaN when a round's loss is not a number */
} attn_curve_point;

typedef struct attn_curves {
    attn_curve_point *training; /* thinned; its last point is the last step */
    attn_curve_point *held_out;
    size_t n_training, n_held_out;
} attn_curves;

/* Of the trials that are done, at the steps that all of them have; at most `points_most` + 1
 * training points. ATTN_EMEMORY. */
ATTN_MUST_CHECK attn_status attn_curves_make(const attn_summary *summary, size_t mechanism,
                                             size_t points_most, attn_curves *out,
                                             attn_error *error);
void attn_curves_free(attn_curves *curves); /* NULL is fine */

/* How a mechanism's lines and points look, wherever they are drawn: one of eight colours, four
 * dashes and four points, so that 32 can be told apart. In runs shown together a mechanism keeps
 * its colour, and dash and point are those of its run. */
typedef struct attn_curve_look {
    size_t colour, dash, point;
} attn_curve_look;

attn_curve_look attn_curves_look(const attn_summary *summary, size_t mechanism);

/* What a loss costs: train_time_s, and energies, of which the first that has a value is shown. */
enum { ATTN_CURVES_COSTS = 4 };
extern const char *const attn_curves_costs[ATTN_CURVES_COSTS];

/* Whether the mechanism is on the Pareto front of a cost and the held-out loss: no other is at least
 * as good in both and better in one. A/A twins and what sees the future do not compete. */
bool attn_curves_is_on_front(const attn_summary *summary, size_t mechanism, const char *cost);

/* The last trial of a mechanism that is done and has samples of power; NULL without one. */
const attn_store_trial *attn_curves_power_trial(const attn_summary *summary, size_t mechanism);

#endif
