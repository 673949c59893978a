/* A row as the model sees it: text, token ids and which of them count in the loss.
 *
 * A conversation is, for each message, "<|role|>", newline, the content without white space at
 * its ends, after an answer the end token, newline; white space at the end of the whole is
 * removed. Role marks are ordinary text. A text is itself and the end token.
 *
 * In the loss are, of a conversation: the tokens of an answer's content, its end token and the
 * newline between that and the next message; of a text: all tokens. */
#ifndef DATA_RENDER_H
#define DATA_RENDER_H

#include "data/conversation.h"
#include "data/tokenizer.h"

typedef struct attn_rendering {
    attn_tokens tokens;
    uint8_t *mask; /* one a token: 1 when it counts as a target */
    size_t mask_capacity;
    char *text; /* "<|endoftext|>" stands for the end token; no closing NUL */
    size_t n_bytes, text_capacity;
} attn_rendering;

/* Fills `rendering`, which is zero-initialised or from an earlier call: its memory is used again. */
ATTN_MUST_CHECK attn_status attn_render(attn_encoder *encoder, const attn_row *row,
                                        attn_rendering *rendering, attn_error *error);
void attn_rendering_free(attn_rendering *rendering);

#endif
