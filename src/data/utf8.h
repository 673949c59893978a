/* UTF-8 as Unicode defines it: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef DATA_UTF8_H
#define DATA_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The length of the longest valid prefix: n_bytes when all of it is valid, otherwise the offset
 * of the first byte of the first bad sequence. */
size_t attn_utf8_valid_prefix(const char *text, size_t n_bytes);

/* Whether the bytes (1 to 3 of them) are the beginning of a sequence that more bytes could make
 * valid: what stands at the end of a buffer cut anywhere. */
bool attn_utf8_is_cut(const char *text, size_t n_bytes);

/* Narrows valid UTF-8 to what Python's str.strip() leaves. */
void attn_utf8_strip(const char **text, size_t *n_bytes);

/* The length without the white space at the end, as Python's str.rstrip(). */
size_t attn_utf8_stripped_end(const char *text, size_t n_bytes);

#endif
