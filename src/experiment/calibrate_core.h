/* Seconds of a mechanism's core alone, in a layer of GPT-2's width. */
#ifndef EXPERIMENT_CALIBRATE_CORE_H
#define EXPERIMENT_CALIBRATE_CORE_H

#include "attn/context.h"
#include "mechanisms/label.h"

enum { ATTN_CORE_WIDTH = 768, ATTN_CORE_HEADS = 12 };

/* Of one sequence: medians of the passes, and what the kernels counted in each. */
typedef struct attn_core_times {
    double forward_s, backward_s;
    attn_work forward, backward;
} attn_core_times;

/* Runs the core forward and backward for `budget_s`, once at least, after one time that warms up. Mechanisms with projections of their own are timed as a layer, less the time of those
 * products. ATTN_ENOTFOUND, ATTN_EMEMORY, or as attn_layer_create() says. */
ATTN_MUST_CHECK attn_status attn_core_time(attn_context *context, const attn_label *mechanism,
                                           size_t length, double budget_s, attn_core_times *out,
                                           attn_error *error);

#endif
