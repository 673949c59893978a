/* A run from the words of a command line. */
#include "cli/run_operand.h"

#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

attn_status cli_run_load(const char *operand, size_t run_id, attn_store_result **out,
                         attn_error *error)
{
    char path[4096] = "attnscope.db";
    const char *at = strrchr(operand, '@');
    const char *number = at ? at + 1 : operand;
    const bool has_number = *number && number[strspn(number, "0123456789")] == '\0';
    const size_t path_bytes = !has_number ? strlen(operand) : at ? (size_t)(at - operand) : 0;
    int64_t id = has_number ? strtoll(number, NULL, 10) : (int64_t)run_id;
    attn_store *store = NULL;
    if (has_number && run_id > 0)
        return attn_fail(error, ATTN_EARGUMENT, "'%s' names a run already: leave --run out",
                         operand);
    if (path_bytes >= sizeof path)
        return attn_fail(error, ATTN_EARGUMENT, "the name of a store is too long: %zu bytes",
                         path_bytes);
    if (path_bytes > 0) snprintf(path, sizeof path, "%.*s", (int)path_bytes, operand);
    attn_status status = attn_store_open(&store, path, ATTN_STORE_READ, error);
    if (status == ATTN_OK && id == 0 && !has_number)
        status = attn_store_newest_run(store, &id, error);
    if (status == ATTN_OK) status = attn_store_load(store, id, out, error);
    attn_store_close(store);
    return status;
}
