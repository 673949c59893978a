/* GPT-2's first step: cutting text into words, the units that byte pairs are merged within.
 *
 * The cut is defined by the pattern (OpenAI, gpt-2/src/encoder.py)
 *   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 * where \s is Unicode's White_Space. Letters and numbers of characters newer than PCRE2's
 * Unicode tables count as neither. */
#ifndef DATA_PRETOKEN_H
#define DATA_PRETOKEN_H

#include "attn/status.h"

#include <stddef.h>

typedef struct attn_splitter attn_splitter; /* for one thread at a time */

/* A cut depends on at most this many bytes behind the word's end: a word that ends at least as
 * far from the end of the text stays the same whatever text is added. */
enum { ATTN_PRETOKEN_LOOKAHEAD_BYTES = 8 };

ATTN_MUST_CHECK attn_status attn_splitter_create(attn_splitter **out, attn_error *error);
void attn_splitter_free(attn_splitter *splitter);

/* Where the word ends that begins at `at` < n_bytes; 0 when PCRE2 fails (no memory). The text
 * is valid UTF-8 and `at` the start of a character.
 *
 * ASCII is cut by hand, which is faster; a word that a byte outside ASCII touches goes to the
 * pattern. */
size_t attn_splitter_next(attn_splitter *splitter, const char *text, size_t n_bytes, size_t at);

/* The same by the pattern alone: what the other is tested against. */
size_t attn_splitter_next_by_pattern(attn_splitter *splitter, const char *text, size_t n_bytes,
                                     size_t at);

#endif
