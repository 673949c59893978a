/* From a JSON value to a conversation in the format of allenai/tulu-v2-sft-mixture, or to a text
 * (a row with a field "text"). Fields that are not used may hold anything. */
#include "data/conversation.h"

#include "base/error.h"
#include "base/memory.h"
#include "data/utf8.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

const char *attn_skip_name(attn_skip skip)
{
    static const char *const names[ATTN_SKIP_REASONS] = {
        [ATTN_ACCEPTED] = "ok",
        [ATTN_SKIP_BLANK] = "blank",
        [ATTN_SKIP_JSON_SYNTAX] = "json_syntax",
        [ATTN_SKIP_TRAILING_DATA] = "trailing_data",
        [ATTN_SKIP_INVALID_UTF8] = "invalid_utf8",
        [ATTN_SKIP_LONE_SURROGATE] = "lone_surrogate",
        [ATTN_SKIP_NUL_IN_KEY] = "nul_in_key",
        [ATTN_SKIP_TOO_DEEP] = "too_deep",
        [ATTN_SKIP_TOO_LONG] = "too_long",
        [ATTN_SKIP_NOT_OBJECT] = "not_object",
        [ATTN_SKIP_MISSING_MESSAGES] = "missing_messages",
        [ATTN_SKIP_MESSAGES_TYPE] = "messages_type",
        [ATTN_SKIP_NO_MESSAGES] = "no_messages",
        [ATTN_SKIP_MESSAGE_TYPE] = "message_type",
        [ATTN_SKIP_MISSING_ROLE] = "missing_role",
        [ATTN_SKIP_ROLE_TYPE] = "role_type",
        [ATTN_SKIP_UNKNOWN_ROLE] = "unknown_role",
        [ATTN_SKIP_MISSING_CONTENT] = "missing_content",
        [ATTN_SKIP_CONTENT_TYPE] = "content_type",
        [ATTN_SKIP_EMPTY_CONTENT] = "empty_content",
        [ATTN_SKIP_NO_ASSISTANT] = "no_assistant",
        [ATTN_SKIP_TEXT_TYPE] = "text_type",
    };
    return names[skip];
}

static bool is_empty(const char *text, size_t n_bytes)
{
    return attn_utf8_stripped_end(text, n_bytes) == 0;
}

static bool read_role(const json_t *value, attn_role *role)
{
    static const char *const names[] = {
        [ATTN_SYSTEM] = "system", [ATTN_USER] = "user", [ATTN_ASSISTANT] = "assistant"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == json_string_length(value) &&
            strcmp(names[i], json_string_value(value)) == 0) {
            *role = (attn_role)i;
            return true;
        }
    return false;
}

static attn_skip read_message(const json_t *value, attn_message *message)
{
    if (!json_is_object(value)) return ATTN_SKIP_MESSAGE_TYPE;
    const json_t *role = json_object_get(value, "role"),
                 *content = json_object_get(value, "content");
    if (!role) return ATTN_SKIP_MISSING_ROLE;
    if (!json_is_string(role)) return ATTN_SKIP_ROLE_TYPE;
    if (!read_role(role, &message->role)) return ATTN_SKIP_UNKNOWN_ROLE;
    if (!content) return ATTN_SKIP_MISSING_CONTENT;
    if (!json_is_string(content)) return ATTN_SKIP_CONTENT_TYPE;
    message->content = json_string_value(content);
    message->n_bytes = json_string_length(content);
    if (message->role != ATTN_SYSTEM && is_empty(message->content, message->n_bytes))
        return ATTN_SKIP_EMPTY_CONTENT;
    return ATTN_ACCEPTED;
}

static attn_skip read_messages(attn_conversation *conversation, const json_t *list)
{
    bool has_answer = false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        attn_message *message = &conversation->messages[i];
        const attn_skip skip = read_message(json_array_get(list, i), message);
        if (skip != ATTN_ACCEPTED) return skip;
        has_answer = has_answer || message->role == ATTN_ASSISTANT;
    }
    return has_answer ? ATTN_ACCEPTED : ATTN_SKIP_NO_ASSISTANT;
}

static attn_status make_room(attn_conversation *conversation, size_t n, attn_error *error)
{
    if (n <= conversation->capacity) return ATTN_OK;
    attn_message *grown = attn_alloc_array(ATTN_MEMORY_OTHER, 2 * n, sizeof *grown);
    if (!grown) return attn_fail(error, ATTN_EMEMORY, "no memory for %zu messages", n);
    attn_free(conversation->messages);
    conversation->messages = grown;
    conversation->capacity = 2 * n;
    return ATTN_OK;
}

void attn_conversation_free(attn_conversation *conversation)
{
    attn_free(conversation->messages);
    *conversation = (attn_conversation){0};
}

/* NULL when the field is no string or cannot be one of C. */
static const char *plain_string(const json_t *value)
{
    const char *text = json_string_value(value);
    return text && strlen(text) == json_string_length(value) ? text : NULL;
}

static const char *row_id(attn_conversation *conversation, const json_t *value, bool id_is_exact,
                          size_t number)
{
    const json_t *id = json_object_get(value, "id");
    const char *text = plain_string(id);
    if (text && *text) return text;
    if (json_is_integer(id) && id_is_exact)
        snprintf(conversation->id, sizeof conversation->id, "%lld",
                 (long long)json_integer_value(id));
    else
        snprintf(conversation->id, sizeof conversation->id, "line-%zu", number);
    return conversation->id;
}

attn_status attn_conversation_read(attn_conversation *conversation, const struct json_t *value,
                                   bool id_is_exact, size_t number, attn_row *row, attn_skip *skip,
                                   attn_error *error)
{
    *skip = ATTN_SKIP_NOT_OBJECT;
    if (!json_is_object(value)) return ATTN_OK;
    const char *dataset = plain_string(json_object_get(value, "dataset"));
    *row = (attn_row){.dataset = dataset ? dataset : "",
                      .id = row_id(conversation, value, id_is_exact, number),
                      .number = number};
    const json_t *messages = json_object_get(value, "messages");
    const json_t *text = json_object_get(value, "text");
    if (!messages && text) {
        row->text = json_string_value(text);
        row->n_bytes = json_string_length(text);
        *skip = !row->text                          ? ATTN_SKIP_TEXT_TYPE
                : is_empty(row->text, row->n_bytes) ? ATTN_SKIP_EMPTY_CONTENT
                                                    : ATTN_ACCEPTED;
        return ATTN_OK;
    }
    *skip = !messages                        ? ATTN_SKIP_MISSING_MESSAGES
            : !json_is_array(messages)       ? ATTN_SKIP_MESSAGES_TYPE
            : json_array_size(messages) == 0 ? ATTN_SKIP_NO_MESSAGES
                                             : ATTN_ACCEPTED;
    if (*skip != ATTN_ACCEPTED) return ATTN_OK;
    const attn_status status = make_room(conversation, json_array_size(messages), error);
    if (status != ATTN_OK) return status;
    row->messages = conversation->messages;
    row->n_messages = json_array_size(messages);
    *skip = read_messages(conversation, messages);
    return ATTN_OK;
}
