/* How commands name a stored run. */
#ifndef CLI_RUN_OPERAND_H
#define CLI_RUN_OPERAND_H

#include "store/store.h"

/* For the descriptions of commands. */
#define CLI_RUN_OPERAND_HELP "a number of attnscope.db, a store (its newest run), or STORE@NUMBER"

/* Opens the store of "STORE", "STORE@RUN" or "RUN" of attnscope.db, and gives the run's number; a
 * store alone gives `run_id`, or with 0 its newest run. */
ATTN_MUST_CHECK attn_status cli_run_open(const char *operand, size_t run_id, attn_store_mode mode,
                                         attn_store **store, int64_t *found, attn_error *error);

/* Loads that run. */
ATTN_MUST_CHECK attn_status cli_run_load(const char *operand, size_t run_id,
                                         attn_store_result **out, attn_error *error);

#endif
