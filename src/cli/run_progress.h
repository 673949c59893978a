/* Live progress of a run on standard error: one line that is rewritten on a terminal, one line
 * for each trial that ends elsewhere. */
#ifndef CLI_RUN_PROGRESS_H
#define CLI_RUN_PROGRESS_H

#include "experiment/runner.h"

typedef struct cli_progress {
    bool is_terminal;
    uint64_t last_ns; /* when the line was last written */
} cli_progress;

cli_progress cli_progress_start(void);
void cli_progress_observe(void *argument, const attn_run_progress *progress);
void cli_progress_end(cli_progress *progress); /* clears the line */

#endif
