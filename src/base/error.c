/* Status texts and the birth of errors. */
#include "base/error.h"

#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *attn_status_text(attn_status status)
{
    static const char *const texts[] = {
        [-ATTN_OK] = "ok",
        [-ATTN_EMEMORY] = "out of memory",
        [-ATTN_EIO] = "input or output failed",
        [-ATTN_EFORMAT] = "malformed input",
        [-ATTN_ESHAPE] = "sizes do not fit",
        [-ATTN_EARGUMENT] = "invalid argument",
        [-ATTN_ENOTFOUND] = "not found",
        [-ATTN_EUNSUPPORTED] = "not supported here",
        [-ATTN_EBUSY] = "in use",
        [-ATTN_EINTERRUPTED] = "interrupted",
        [-ATTN_EINTERNAL] = "internal error",
    };
    if (status > ATTN_OK || status < ATTN_EINTERNAL) return "unknown status";
    return texts[-status];
}

static void record(attn_error *error, attn_status status, int error_number, const char *format,
                   va_list arguments)
{
    if (!error || error->status != ATTN_OK) return;
    error->status = status;
    int used = vsnprintf(error->text, sizeof error->text, format, arguments);
    if (used < 0) used = 0;
    if (error_number != 0 && (size_t)used < sizeof error->text) {
        char reason[128] = "";
        /* POSIX strerror_r has two signatures; strerror_l has one, but needs a locale. The
         * plain strerror is fine: its text for known numbers is constant. */
        snprintf(reason, sizeof reason, "%s", strerror(error_number));
        snprintf(error->text + used, sizeof error->text - (size_t)used, ": %s", reason);
    }
    if (strlen(error->text) + 1 == sizeof error->text) attn_text_mend_end(error->text);
}

attn_status attn_fail(attn_error *error, attn_status status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    record(error, status, 0, format, arguments);
    va_end(arguments);
    return status;
}

attn_status attn_fail_errno(attn_error *error, attn_status status, int error_number,
                            const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    record(error, status, error_number, format, arguments);
    va_end(arguments);
    return status;
}
