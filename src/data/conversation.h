/* One row of a data set: a conversation or a text, and why a line is none. */
#ifndef DATA_CONVERSATION_H
#define DATA_CONVERSATION_H

#include "attn/status.h"

#include <stdbool.h>
#include <stddef.h>

struct json_t; /* Jansson's */

typedef enum attn_role { ATTN_SYSTEM, ATTN_USER, ATTN_ASSISTANT } attn_role;

typedef struct attn_message {
    attn_role role;
    const char *content; /* valid UTF-8, white space at its ends included; may hold NUL */
    size_t n_bytes;
} attn_message;

/* Everything a row points to belongs to its reader. */
typedef struct attn_row {
    const char *dataset;          /* "" when the row names none */
    const char *id;               /* "line-17" when the row has none */
    size_t number;                /* the line, from 1; of a plain text file, the section */
    const attn_message *messages; /* a conversation; NULL for a text */
    size_t n_messages;
    const char *text; /* a text; NULL for a conversation */
    size_t n_bytes;
    bool goes_on; /* the next row continues this text: no end token stands between them */
} attn_row;

/* Why a line is not a row; ATTN_ACCEPTED when it is. */
typedef enum attn_skip {
    ATTN_ACCEPTED,
    ATTN_SKIP_BLANK,
    ATTN_SKIP_JSON_SYNTAX,
    ATTN_SKIP_TRAILING_DATA,
    ATTN_SKIP_INVALID_UTF8,
    ATTN_SKIP_LONE_SURROGATE,
    ATTN_SKIP_NUL_IN_KEY, /* JSON allows it, Jansson does not */
    ATTN_SKIP_TOO_DEEP,   /* more than a million brackets open */
    ATTN_SKIP_TOO_LONG,
    ATTN_SKIP_NOT_OBJECT,
    ATTN_SKIP_MISSING_MESSAGES, /* neither "messages" nor "text" */
    ATTN_SKIP_MESSAGES_TYPE,
    ATTN_SKIP_NO_MESSAGES,
    ATTN_SKIP_MESSAGE_TYPE,
    ATTN_SKIP_MISSING_ROLE,
    ATTN_SKIP_ROLE_TYPE,
    ATTN_SKIP_UNKNOWN_ROLE,
    ATTN_SKIP_MISSING_CONTENT,
    ATTN_SKIP_CONTENT_TYPE,
    ATTN_SKIP_EMPTY_CONTENT, /* a question, an answer or a text without a visible character */
    ATTN_SKIP_NO_ASSISTANT,
    ATTN_SKIP_TEXT_TYPE,
    ATTN_SKIP_REASONS
} attn_skip;

/* "json_syntax", "unknown_role", ...; "ok" for ATTN_ACCEPTED */
const char *attn_skip_name(attn_skip skip);

/* Memory of conversations, kept from row to row. Zero-initialise. */
typedef struct attn_conversation {
    attn_message *messages;
    size_t capacity;
    char id[32];
} attn_conversation;

void attn_conversation_free(attn_conversation *conversation);

/* The row that the JSON value of line `number` holds, or in *skip why it holds none. The row
 * points into `value` and `conversation`. `id_is_exact` says that an integer id may be used.
 *
 * ATTN_EMEMORY  the only failure */
ATTN_MUST_CHECK attn_status attn_conversation_read(attn_conversation *conversation,
                                                   const struct json_t *value, bool id_is_exact,
                                                   size_t number, attn_row *row, attn_skip *skip,
                                                   attn_error *error);

#endif
