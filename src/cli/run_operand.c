/* A run from the words of a command line. */
#define _POSIX_C_SOURCE 200809L
#include "cli/run_operand.h"

#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

attn_status cli_run_open(const char *operand, size_t run_id, attn_store_mode mode,
                         attn_store **store, int64_t *found, attn_error *error)
{
    char path[4096] = "attnscope.db";
    const char *at = strrchr(operand, '@');
    const char *number = at ? at + 1 : operand;
    const bool has_number = *number && number[strspn(number, "0123456789")] == '\0';
    const size_t path_bytes = !has_number ? strlen(operand) : at ? (size_t)(at - operand) : 0;
    *found = has_number ? strtoll(number, NULL, 10) : (int64_t)run_id;
    if (has_number && run_id > 0)
        return attn_fail(error, ATTN_EARGUMENT, "'%s' names a run already: leave --run out",
                         operand);
    if (path_bytes >= sizeof path)
        return attn_fail(error, ATTN_EARGUMENT, "the name of a store is too long: %zu bytes",
                         path_bytes);
    if (path_bytes > 0) snprintf(path, sizeof path, "%.*s", (int)path_bytes, operand);
    attn_status status = ATTN_OK;
    if (mode == ATTN_STORE_WRITE && access(path, F_OK) != 0) /* none is made */
        status = attn_fail(error, ATTN_ENOTFOUND,
                           "there is no store '%s': 'attnscope run' makes one", path);
    if (status == ATTN_OK) status = attn_store_open(store, path, mode, error);
    if (status == ATTN_OK && *found == 0 && !has_number)
        status = attn_store_newest_run(*store, found, error);
    return status;
}

attn_status cli_run_load(const char *operand, size_t run_id, attn_store_result **out,
                         attn_error *error)
{
    attn_store *store = NULL;
    int64_t id = 0;
    attn_status status = cli_run_open(operand, run_id, ATTN_STORE_READ, &store, &id, error);
    if (status == ATTN_OK) status = attn_store_load(store, id, out, error);
    attn_store_close(store);
    return status;
}
