/* Where errors are born: one function, so that one breakpoint sees them all. */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include "attn/status.h"

/* Records `status` and the formatted text in `error`, unless it already holds a failure.
 * `error` may be NULL. Returns `status`, so that `return attn_fail(...)` reads well. */
attn_status attn_fail(attn_error *error, attn_status status, const char *format, ...)
    ATTN_PRINTF(3, 4);

/* The same, with ": " and the text of the system error `error_number` at the end. */
attn_status attn_fail_errno(attn_error *error, attn_status status, int error_number,
                            const char *format, ...) ATTN_PRINTF(4, 5);

#endif
