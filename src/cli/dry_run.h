/* What `attnscope run --dry-run` prints. */
#ifndef CLI_DRY_RUN_H
#define CLI_DRY_RUN_H

#include "experiment/plan.h"

/* The order of the trials and how long they will take, judged by one step of each mechanism on
 * this machine now. */
ATTN_MUST_CHECK attn_status cli_dry_run(const attn_plan *plan, attn_error *error);

#endif
