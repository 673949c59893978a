/* GPT-2's byte pair encoding: text to token ids and back.
 *
 * Ids derive from the list of merges: 0..255 are single bytes in GPT-2's order, then one token
 * a merge, then 50256, the end token. Text is never searched for special tokens: "<|endoftext|>"
 * in it is ordinary text. */
#ifndef DATA_TOKENIZER_H
#define DATA_TOKENIZER_H

#include "attn/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ATTN_GPT2_TOKENS = 50257, ATTN_GPT2_END_TOKEN = 50256 };

/* Read-only once loaded: any number of threads may share one. */
typedef struct attn_tokenizer attn_tokenizer;

/* One thread's state: a cache of words and scratch memory. Uses the tokenizer, which must
 * outlive it. */
typedef struct attn_encoder attn_encoder;

/* A growing list of token ids. Zero-initialise; attn_tokens_free() when done. */
typedef struct attn_tokens {
    uint16_t *ids;
    size_t n, capacity;
} attn_tokens;

void attn_tokens_free(attn_tokens *tokens);

/* Room for n_more ids behind the n there are. */
ATTN_MUST_CHECK attn_status attn_tokens_reserve(attn_tokens *tokens, size_t n_more,
                                                attn_error *error);

/* Loads GPT-2's vocab.bpe; `path` NULL is the shipped one. The file must be OpenAI's, to the
 * byte: any other would give ids that no GPT-2 checkpoint knows. */
ATTN_MUST_CHECK attn_status attn_tokenizer_load(attn_tokenizer **out, const char *path,
                                                attn_error *error);
void attn_tokenizer_free(attn_tokenizer *tokenizer);

/* The bytes of one token, which need not be whole characters; NULL when there is no such id. */
const char *attn_tokenizer_bytes(const attn_tokenizer *tokenizer, size_t id, size_t *n_bytes);

ATTN_MUST_CHECK attn_status attn_encoder_create(attn_encoder **out, const attn_tokenizer *tokenizer,
                                                attn_error *error);
void attn_encoder_free(attn_encoder *encoder);

/* Adds the ids of a whole text to `tokens`. Empty text adds none; NUL is a byte like others.
 *
 * ATTN_EFORMAT  not UTF-8: the text names the offset of the first bad byte
 * ATTN_EMEMORY  and `tokens` is as it was */
ATTN_MUST_CHECK attn_status attn_encoder_add(attn_encoder *encoder, const char *text,
                                             size_t n_bytes, attn_tokens *tokens,
                                             attn_error *error);

/* The same for text that comes in pieces: encodes the words that no later text can change and
 * says in *n_used how many bytes they are. Pass the remaining bytes again, with more behind them;
 * when no word was complete that is all of them. With `is_end` all of the text is used.
 * `stream_offset`, where text[0] lies in the stream, is for error texts alone. */
ATTN_MUST_CHECK attn_status attn_encoder_add_piece(attn_encoder *encoder, const char *text,
                                                   size_t n_bytes, uint64_t stream_offset,
                                                   bool is_end, attn_tokens *tokens, size_t *n_used,
                                                   attn_error *error);

#endif
