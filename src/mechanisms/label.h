/* How a person names mechanisms: "flash,sliding:window=64:sinks=4", or "all". */
#ifndef MECHANISMS_LABEL_H
#define MECHANISMS_LABEL_H

#include "attn/status.h"

#include <stdbool.h>
#include <stddef.h>

enum { ATTN_LABEL_BYTES = 64, ATTN_LABELS_MAX = 32 };

/* "sliding:window=64:sinks=4", parted into name and layer options. */
typedef struct attn_label {
    char label[ATTN_LABEL_BYTES];
    char name[ATTN_LABEL_BYTES];
    char options[ATTN_LABEL_BYTES]; /* "window=64,sinks=4" */
} attn_label;

/* Parts a list; "all" is every mechanism of the registry that `is_meant` accepts. Names and
 * options are not looked up. ATTN_EARGUMENT for an empty, repeated or overlong label and for
 * more than ATTN_LABELS_MAX. */
ATTN_MUST_CHECK attn_status attn_labels_parse(const char *list, bool (*is_meant)(const char *name),
                                              attn_label labels[ATTN_LABELS_MAX], size_t *count,
                                              attn_error *error);

#endif
