/* Predictions beside what a run measured. */
#ifndef CLI_COST_AGAINST_H
#define CLI_COST_AGAINST_H

#include "cli/cost_compare.h"
#include "cli/cost_options.h"

#include <stdint.h>

/* Prints, for every mechanism of a run (0: the newest) of a store, the measured time of a step,
 * its prediction on the device, the part that carries the error and the resource behind it.
 * Errors of the store and the run's plan; ATTN_EUNSUPPORTED for what the model cannot say. */
ATTN_MUST_CHECK attn_status cli_cost_against(FILE *out, const char *store, int64_t run,
                                             const attn_catalog *catalog, const attn_device *device,
                                             cli_cost_form form, attn_error *error);

#endif
