/* Lists and ranges of sizes as a person types them: "512", "512,768,1K", "512-16K*2" (512, 1024,
 * ... while at most 16384), "512-2048+512". K, M and G are powers of 1024. */
#ifndef BASE_RANGE_H
#define BASE_RANGE_H

#include "attn/status.h"

#include <stddef.h>

enum { ATTN_RANGE_MAX = 64 };

typedef struct attn_range {
    size_t values[ATTN_RANGE_MAX]; /* ascending, at least one, each at least 1 */
    size_t count;
} attn_range;

/* `name` begins an error's text: "--seq". ATTN_EARGUMENT: not of this form, not ascending, or
 * more than ATTN_RANGE_MAX values. */
ATTN_MUST_CHECK attn_status attn_range_parse(const char *name, const char *text, attn_range *out,
                                             attn_error *error);

#endif
