/* SHA-256 (FIPS 180-4): the identity of a data file in every stored result. */
#ifndef BASE_SHA256_H
#define BASE_SHA256_H

#include "attn/status.h"

#include <stddef.h>
#include <stdint.h>

enum { ATTN_SHA256_TEXT_BYTES = 65 }; /* 64 hexadecimal digits and the closing NUL */

typedef struct attn_sha256 {
    uint32_t state[8];
    uint64_t n_bytes;
    unsigned char block[64]; /* the bytes of the block begun */
} attn_sha256;

void attn_sha256_start(attn_sha256 *sha);
void attn_sha256_add(attn_sha256 *sha, const void *bytes, size_t n_bytes);

/* Writes the digest in lower-case hexadecimal; `sha` must be started again afterwards. */
void attn_sha256_finish(attn_sha256 *sha, char text[ATTN_SHA256_TEXT_BYTES]);

/* The digest of a whole file as it lies on disk. ATTN_EIO, or ATTN_EARGUMENT for a pipe, which
 * could not be read again. */
ATTN_MUST_CHECK attn_status attn_sha256_file(const char *path, char text[ATTN_SHA256_TEXT_BYTES],
                                             attn_error *error);

#endif
