/* How commands name a stored run. */
#ifndef CLI_RUN_OPERAND_H
#define CLI_RUN_OPERAND_H

#include "store/store.h"

/* For the descriptions of commands. */
#define CLI_RUN_OPERAND_HELP "a number of attnscope.db, a store (its newest run), or STORE@NUMBER"

/* Loads "STORE", "STORE@RUN" or "RUN" of attnscope.db; a store alone gives its run `run_id`, or
 * with 0 its newest. */
ATTN_MUST_CHECK attn_status cli_run_load(const char *operand, size_t run_id,
                                         attn_store_result **out, attn_error *error);

#endif
