/* Shipped files: one variable, then the two folders that the build compiled in. */
#include "data/data_path.h"

#include "base/error.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static bool is_readable(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file) fclose(file);
    return file != NULL;
}

attn_status attn_data_path(const char *name, char path[ATTN_DATA_PATH_BYTES], attn_error *error)
{
    const char *chosen = getenv("ATTNSCOPE_DATA");
    const char *const folders[] = {chosen ? chosen : ATTN_SOURCE_DATA, ATTN_INSTALLED_DATA};
    for (size_t i = 0; i < (chosen ? 1 : 2); i++) {
        const int used = snprintf(path, ATTN_DATA_PATH_BYTES, "%s/%s", folders[i], name);
        if (used > 0 && used < ATTN_DATA_PATH_BYTES && is_readable(path)) return ATTN_OK;
    }
    if (chosen)
        return attn_fail(error, ATTN_ENOTFOUND,
                         "no readable %s in %s, the folder that ATTNSCOPE_DATA names; unset it to "
                         "use the installed one",
                         name, chosen);
    return attn_fail(error, ATTN_ENOTFOUND,
                     "no readable %s in %s or %s; install attnscope again, or let ATTNSCOPE_DATA "
                     "name the folder that has it",
                     name, folders[0], folders[1]);
}
