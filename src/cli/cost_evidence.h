/* What runs of a store measured on this machine, as evidence for advice. */
#ifndef CLI_COST_EVIDENCE_H
#define CLI_COST_EVIDENCE_H

#include "cli/cost_options.h"
#include "cost/advice.h"

typedef struct cli_cost_evidence {
    attn_advice_evidences found; /* newest runs first */
    attn_advice_evidence *list;
} cli_cost_evidence;

/* Medians of runs of the question's model and type on the device `this`: of steps, of forward passes
 * or of decoded tokens, as the phase asks. `path` NULL: attnscope.db, if there is one, and without
 * the device nothing; a path without it is ATTN_EARGUMENT. Free with cli_cost_evidence_free(), also after a failure. */
ATTN_MUST_CHECK attn_status cli_cost_evidence_read(cli_cost_evidence *evidence, const char *path,
                                                   const cli_cost_question *question,
                                                   attn_error *error);
void cli_cost_evidence_free(cli_cost_evidence *evidence);

#endif
