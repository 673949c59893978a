/* Where a prediction and a measured step part ways, and which resource is behind it.
 *
 * Every part of the step gives one equation: what was measured less what was predicted is made of
 * the times that the model gives the resources, each times the share by which the model is off. The
 * shares are fitted to all parts of all mechanisms of a run at once, and are wanted small: a part
 * whose error they explain has it from the resource, everywhere; what is left is the part's own. */
#ifndef COST_BLAME_H
#define COST_BLAME_H

#include "cost/roofline.h"

typedef enum attn_cost_place {
    ATTN_PLACE_ATTENTION, /* cores and projections */
    ATTN_PLACE_FEED_FORWARD,
    ATTN_PLACE_NORMS, /* and residuals */
    ATTN_PLACE_ENDS,  /* embeddings */
    ATTN_PLACE_HEAD,  /* and loss */
    ATTN_PLACE_UPDATE,
    ATTN_PLACES,
    ATTN_PLACE_ALL = ATTN_PLACES /* of a step whose parts were not measured */
} attn_cost_place;

/* "attention", "mlp", "norms", "ends", "head", "update", "all" */
const char *attn_cost_place_name(attn_cost_place place);

/* One pass of one place. */
typedef struct attn_cost_gap {
    attn_cost_place place;
    size_t pass;
    double measured_s, predicted_s;
    attn_cost_terms terms; /* of the prediction */
    double step_s;         /* measured, of the whole step */
} attn_cost_gap;

/* A measured step; NaN: not measured. Passes and the update stand in when places are missing. */
typedef struct attn_cost_measured {
    double step_s, forward_s, backward_s, update_s;
    double place_s[ATTN_PLACES][ATTN_COST_PASSES];
} attn_cost_measured;

enum { ATTN_GAPS_MAX = ATTN_PLACES * ATTN_COST_PASSES };

/* The gaps of a step; how many. */
size_t attn_cost_gaps(const attn_prediction *prediction, const attn_cost_measured *measured,
                      attn_cost_gap gaps[ATTN_GAPS_MAX]);

typedef enum attn_cost_cause {
    ATTN_CAUSE_PRODUCTS,
    ATTN_CAUSE_EXPONENTIAL,
    ATTN_CAUSE_OTHER,
    ATTN_CAUSE_BYTES, /* memory was slower, or did not hide behind computing */
    ATTN_CAUSE_LAUNCH,
    ATTN_CAUSE_TERMS,
    ATTN_CAUSE_CACHE = ATTN_CAUSE_TERMS /* bytes that memory did not have to serve */
} attn_cost_cause;

/* "products", "exp", "other", "bytes", "launch", "cache" */
const char *attn_cost_cause_name(attn_cost_cause cause);

/* By how much of its own time each resource is off, over all gaps; 0 for all without gaps. */
typedef struct attn_cost_changes {
    double share[ATTN_CAUSE_TERMS];
} attn_cost_changes;

attn_cost_changes attn_cost_fit(const attn_cost_gap *gaps, size_t count);

/* The gap of a step that adds most to the step's error; NULL without gaps. */
const attn_cost_gap *attn_cost_carrier(const attn_cost_gap *gaps, size_t count);

typedef struct attn_cost_blame {
    attn_cost_cause cause;
    bool is_everywhere; /* the resource is off in all parts; false: in this one */
    double seconds;     /* of the gap that it makes */
} attn_cost_blame;

attn_cost_blame attn_cost_blame_of(const attn_cost_gap *gap, const attn_cost_changes *changes);

#endif
