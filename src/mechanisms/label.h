/* How a person names the attention of a model's blocks.
 *
 *     list     pattern,pattern,...  or "all"
 *     pattern  piece+piece+...      down the blocks, repeated, and cut behind the last block
 *     piece    label or label*times
 *     label    name or name:option=value:option=value...
 *
 * "sliding:window=64*3+softmax" is three blocks of sliding and one of softmax, over and over. */
#ifndef MECHANISMS_LABEL_H
#define MECHANISMS_LABEL_H

#include "attn/status.h"

#include <stdbool.h>
#include <stddef.h>

enum {
    ATTN_LABEL_BYTES = 64,
    ATTN_PATTERN_BYTES = 128,
    ATTN_PATTERN_KINDS_MAX = 8,
    ATTN_PATTERN_BLOCKS_MAX = 128,
    ATTN_PATTERNS_MAX = 32
};

/* "sliding:window=4:sinks=2", parted into name and layer options. */
typedef struct attn_label {
    char label[ATTN_LABEL_BYTES];
    char name[ATTN_LABEL_BYTES];
    char options[ATTN_LABEL_BYTES]; /* "window=4,sinks=2" */
} attn_label;

typedef struct attn_pattern {
    char label[ATTN_PATTERN_BYTES];           /* the shortest text that means the same blocks */
    attn_label kinds[ATTN_PATTERN_KINDS_MAX]; /* different ones, by first appearance */
    size_t n_kinds;
    unsigned char blocks[ATTN_PATTERN_BLOCKS_MAX]; /* block i is kinds[blocks[i % n_blocks]] */
    size_t n_blocks;
} attn_pattern;

/* Parts a pattern. Names and options are not looked up. ATTN_EARGUMENT with the piece that cannot
 * be read, and for more than the limits above. */
ATTN_MUST_CHECK attn_status attn_pattern_parse(const char *text, attn_pattern *pattern,
                                               attn_error *error);

/* Parts a list; "all" is every mechanism of the registry that `is_meant` accepts. ATTN_EARGUMENT
 * also for a pattern that is there twice, in whatever spelling. */
ATTN_MUST_CHECK attn_status attn_patterns_parse(const char *list,
                                                bool (*is_meant)(const char *name),
                                                attn_pattern patterns[ATTN_PATTERNS_MAX],
                                                size_t *count, attn_error *error);

#endif
