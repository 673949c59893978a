/* Predictions beside what a run measured. */
#ifndef CLI_COST_AGAINST_H
#define CLI_COST_AGAINST_H

#include "cli/cost_options.h"

#include <stdint.h>
#include <stdio.h>

/* Prints, for every mechanism of a run (0: the newest) of a store, the measured time of a step,
 * its prediction on the question's first device, and what the model says the time goes to.
 * Errors of the store and the run's plan; ATTN_EUNSUPPORTED for what the model cannot say. */
ATTN_MUST_CHECK attn_status cli_cost_against(FILE *out, const char *store, int64_t run,
                                             const attn_catalog *catalog, const attn_device *device,
                                             bool is_markdown, attn_error *error);

#endif
