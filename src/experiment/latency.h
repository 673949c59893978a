/* Private to experiment: how long inference takes with the trained model. */
#ifndef EXPERIMENT_LATENCY_H
#define EXPERIMENT_LATENCY_H

#include "experiment/trial_figures.h"

/* A full forward pass over one sequence of plan->length tokens, then token by token with the
 * cache; `ids` holds plan->length tokens. */
ATTN_MUST_CHECK attn_status attn_put_latency_figures(attn_figure_sink *sink,
                                                     const attn_model *model,
                                                     attn_context *context, const attn_plan *plan,
                                                     const uint32_t *ids, attn_error *error);

#endif
