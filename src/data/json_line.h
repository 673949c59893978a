/* One line of JSON, parsed by Jansson after a lexical pass that lifts two of its limits.
 *
 * Jansson refuses numbers outside the range of its types and values nested deeper than 2,048,
 * even in fields that nobody reads. Lines with both are valid JSON and occur; so a copy of the
 * line is made first, in which long numbers are shortened and deep values, each checked by
 * Jansson on its own, become 0. What JSON is, Jansson alone decides. */
#ifndef DATA_JSON_LINE_H
#define DATA_JSON_LINE_H

#include "attn/status.h"
#include "data/conversation.h"

#include <stdbool.h>
#include <stddef.h>

struct json_t; /* Jansson's */

/* Memory of the pass, kept from line to line. Zero-initialise. */
typedef struct attn_json_scratch {
    char *copy;
    size_t copy_capacity;
    struct attn_json_open *open; /* the brackets that are open */
    size_t n_open, open_capacity;
    size_t n_copy;
} attn_json_scratch;

void attn_json_scratch_free(attn_json_scratch *scratch);

typedef struct attn_json_line {
    struct json_t *value;    /* the caller calls json_decref(); NULL when the line is skipped */
    attn_skip skip;          /* ATTN_ACCEPTED, or what is wrong with the line as JSON */
    bool integers_are_exact; /* false when an integer of over 18 digits was cut */
} attn_json_line;

/* Any JSON value is taken, with duplicate keys the last counts, "\u0000" is allowed.
 *
 * ATTN_EMEMORY  the only failure: what is wrong with the line is no failure, but line->skip */
ATTN_MUST_CHECK attn_status attn_json_line_parse(attn_json_scratch *scratch, const char *text,
                                                 size_t n_bytes, attn_json_line *line,
                                                 attn_error *error);

#endif
