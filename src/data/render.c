/* Text and loss mask of open-instruct (allenai/open-instruct, finetune.py, November 2023).
 *
 * A conversation is encoded in parts with one answer each. The parts are the same tokens as the
 * whole: the end token is a border by itself, and before an answer stands a newline, which
 * GPT-2's pattern joins to no character that is not white space. */
#include "data/render.h"

#include "base/error.h"
#include "base/memory.h"
#include "data/utf8.h"

#include <string.h>

static attn_status add_text(attn_rendering *rendering, const char *text, size_t n_bytes,
                            attn_error *error)
{
    if (n_bytes > rendering->text_capacity - rendering->n_bytes) {
        size_t capacity = 0;
        char *grown = NULL;
        if (attn_size_add(rendering->n_bytes, n_bytes, &capacity) &&
            attn_size_add(capacity, capacity / 2 + 1024, &capacity))
            grown = attn_realloc(rendering->text, capacity);
        if (!grown)
            return attn_fail(error, ATTN_EMEMORY, "no memory for %zu bytes of text", n_bytes);
        rendering->text = grown;
        rendering->text_capacity = capacity;
    }
    if (n_bytes > 0) memcpy(rendering->text + rendering->n_bytes, text, n_bytes);
    rendering->n_bytes += n_bytes;
    return ATTN_OK;
}

/* Extends the mask to all tokens there are. */
static attn_status add_mask(attn_rendering *rendering, size_t n_before, uint8_t counts,
                            attn_error *error)
{
    if (rendering->tokens.n > rendering->mask_capacity) {
        uint8_t *grown = attn_realloc(rendering->mask, rendering->tokens.capacity);
        if (!grown)
            return attn_fail(error, ATTN_EMEMORY, "no memory for %zu tokens", rendering->tokens.n);
        rendering->mask = grown;
        rendering->mask_capacity = rendering->tokens.capacity;
    }
    if (rendering->tokens.n > n_before)
        memset(rendering->mask + n_before, counts, rendering->tokens.n - n_before);
    return ATTN_OK;
}

/* Encodes the text from `start` on. */
static attn_status encode_from(attn_encoder *encoder, attn_rendering *rendering, size_t start,
                               uint8_t counts, attn_error *error)
{
    const size_t n_before = rendering->tokens.n;
    if (start == rendering->n_bytes) return ATTN_OK;
    const attn_status status = attn_encoder_add(
        encoder, rendering->text + start, rendering->n_bytes - start, &rendering->tokens, error);
    return status == ATTN_OK ? add_mask(rendering, n_before, counts, error) : status;
}

static attn_status add_end_token(attn_rendering *rendering, attn_error *error)
{
    static const char end[] = "<|endoftext|>";
    attn_status status = add_text(rendering, end, sizeof end - 1, error);
    if (status == ATTN_OK) status = attn_tokens_reserve(&rendering->tokens, 1, error);
    if (status != ATTN_OK) return status;
    rendering->tokens.ids[rendering->tokens.n++] = ATTN_GPT2_END_TOKEN;
    return add_mask(rendering, rendering->tokens.n - 1, 1, error);
}

static attn_status add_message(attn_rendering *rendering, const attn_message *message,
                               attn_error *error)
{
    static const char *const marks[] = {[ATTN_SYSTEM] = "<|system|>\n",
                                        [ATTN_USER] = "<|user|>\n",
                                        [ATTN_ASSISTANT] = "<|assistant|>\n"};
    const char *mark = marks[message->role];
    const attn_status status = add_text(rendering, mark, strlen(mark), error);
    if (status != ATTN_OK || message->role == ATTN_ASSISTANT) return status;
    const char *content = message->content;
    size_t n_bytes = message->n_bytes;
    attn_utf8_strip(&content, &n_bytes);
    return add_text(rendering, content, n_bytes, error);
}

/* An answer behind its mark: its content, the end token and the newline to the next message. */
static attn_status add_answer(attn_encoder *encoder, const attn_message *message, bool is_last,
                              attn_rendering *rendering, attn_error *error)
{
    const char *content = message->content;
    size_t n_bytes = message->n_bytes, start = rendering->n_bytes;
    attn_utf8_strip(&content, &n_bytes);
    attn_status status = add_text(rendering, content, n_bytes, error);
    if (status == ATTN_OK) status = encode_from(encoder, rendering, start, 1, error);
    if (status == ATTN_OK) status = add_end_token(rendering, error);
    if (status != ATTN_OK || is_last) return status;
    start = rendering->n_bytes;
    status = add_text(rendering, "\n", 1, error);
    return status == ATTN_OK ? encode_from(encoder, rendering, start, 1, error) : status;
}

static attn_status render_conversation(attn_encoder *encoder, const attn_row *row,
                                       attn_rendering *rendering, attn_error *error)
{
    attn_status status = ATTN_OK;
    size_t start = 0; /* of what no answer has closed yet */
    for (size_t i = 0; i < row->n_messages && status == ATTN_OK; i++) {
        const attn_message *message = &row->messages[i];
        const bool is_last = i + 1 == row->n_messages;
        status = add_message(rendering, message, error);
        if (status != ATTN_OK) break;
        if (message->role == ATTN_ASSISTANT) {
            status = encode_from(encoder, rendering, start, 0, error);
            if (status == ATTN_OK) status = add_answer(encoder, message, is_last, rendering, error);
            start = rendering->n_bytes;
        } else if (is_last) {
            rendering->n_bytes =
                start + attn_utf8_stripped_end(rendering->text + start, rendering->n_bytes - start);
            status = encode_from(encoder, rendering, start, 0, error);
        } else {
            status = add_text(rendering, "\n", 1, error);
        }
    }
    return status;
}

attn_status attn_render(attn_encoder *encoder, const attn_row *row, attn_rendering *rendering,
                        attn_error *error)
{
    rendering->tokens.n = rendering->n_bytes = 0;
    if (row->messages) return render_conversation(encoder, row, rendering, error);
    attn_status status = add_text(rendering, row->text, row->n_bytes, error);
    if (status == ATTN_OK) status = encode_from(encoder, rendering, 0, 1, error);
    if (status == ATTN_OK && !row->goes_on) status = add_end_token(rendering, error);
    return status;
}

void attn_rendering_free(attn_rendering *rendering)
{
    attn_tokens_free(&rendering->tokens);
    attn_free(rendering->mask);
    attn_free(rendering->text);
    *rendering = (attn_rendering){0};
}
