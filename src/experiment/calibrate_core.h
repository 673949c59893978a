/* Seconds of a mechanism's core alone, in a layer of GPT-2's width. */
#ifndef EXPERIMENT_CALIBRATE_CORE_H
#define EXPERIMENT_CALIBRATE_CORE_H

#include "attn/context.h"
#include "attn/dtype.h"
#include "mechanisms/label.h"

enum { ATTN_CORE_WIDTH = 768, ATTN_CORE_HEADS = 12 };

/* Of one sequence: medians of the passes, and what the kernels counted in each. */
typedef struct attn_core_times {
    double forward_s, backward_s;
    attn_work forward, backward;
} attn_core_times;

typedef struct attn_core_probe {
    const attn_label *mechanism;
    attn_dtype dtype; /* bfloat16: attn_core_is_apart() */
    size_t length;
} attn_core_probe;

/* Whether a layer of this type has a core that is worth a probe of its own: in float32 every one, in
 * bfloat16 those whose products are in it and that can be run without projections. */
bool attn_core_is_apart(const char *mechanism, attn_dtype dtype);

/* Runs the core forward and backward for `budget_s`, once at least, after one time that warms up.
 * Mechanisms with projections of their own are timed as a layer, less the time of those products.
 * ATTN_ENOTFOUND, ATTN_EMEMORY, or as attn_layer_create() says. */
ATTN_MUST_CHECK attn_status attn_core_time(attn_context *context, const attn_core_probe *probe,
                                           double budget_s, attn_core_times *out,
                                           attn_error *error);

#endif
