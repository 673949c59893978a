/* Lines of JSON as the reader takes them. Nothing may crash; and of every line our verdict must
 * be Jansson's on the line as it stands, but where the pass before it lifts a limit. */
#include "data/json_line.h"
#include "data/utf8.h"

#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
    if (!holds) abort();
}

static void check_text(const char *text, size_t n_bytes)
{
    require(attn_utf8_valid_prefix(text, n_bytes) == n_bytes);
    require(attn_utf8_stripped_end(text, n_bytes) <= n_bytes);
}

static void check_row(const attn_row *row)
{
    require(row->id[0] != '\0');
    require((row->messages == NULL) != (row->text == NULL));
    for (size_t i = 0; i < row->n_messages; i++)
        check_text(row->messages[i].content, row->messages[i].n_bytes);
    if (row->text) check_text(row->text, row->n_bytes);
}

static void check_line(attn_json_scratch *scratch, attn_conversation *conversation,
                       const char *text, size_t n_bytes)
{
    attn_json_line line;
    attn_row row;
    attn_skip skip;
    json_error_t failure;
    json_t *plain = json_loadb(text, n_bytes, JSON_ALLOW_NUL | JSON_DECODE_ANY, &failure);
    require(attn_json_line_parse(scratch, text, n_bytes, &line, NULL) == ATTN_OK);
    require((line.value != NULL) == (line.skip == ATTN_ACCEPTED));
    if (plain) {
        require(line.skip == ATTN_ACCEPTED);
    } else if (line.value) {
        const enum json_error_code code = json_error_code(&failure);
        require(code == json_error_numeric_overflow || code == json_error_stack_overflow);
    }
    if (line.value) {
        require(attn_conversation_read(conversation, line.value, line.integers_are_exact, 1, &row,
                                       &skip, NULL) == ATTN_OK);
        if (skip == ATTN_ACCEPTED) check_row(&row);
    }
    json_decref(line.value);
    json_decref(plain);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    attn_json_scratch scratch = {0};
    attn_conversation conversation = {0};
    const char *text = (const char *)data;
    while (size > 0) {
        const char *newline = memchr(text, '\n', size);
        const size_t n_bytes = newline ? (size_t)(newline - text) : size;
        if (n_bytes > 0) check_line(&scratch, &conversation, text, n_bytes);
        text += n_bytes + (newline != NULL);
        size -= n_bytes + (newline != NULL);
    }
    attn_json_scratch_free(&scratch);
    attn_conversation_free(&conversation);
    return 0;
}
