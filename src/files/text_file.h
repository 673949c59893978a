/* Small files, read and written whole. */
#ifndef FILES_TEXT_FILE_H
#define FILES_TEXT_FILE_H

#include "attn/status.h"

#include <stddef.h>

/* Larger files are refused. */
enum { ATTN_TEXT_FILE_BYTES_MAX = 64 << 20 };

/* The whole file with a NUL behind it, to be freed with attn_free(); `size_bytes` (may be NULL)
 * is without the NUL. Works for files that do not know their size, as in /proc. ATTN_ENOTFOUND
 * when there is none, ATTN_EFORMAT when it is too large. */
ATTN_MUST_CHECK attn_status attn_text_file_read(const char *path, char **text, size_t *size_bytes,
                                                attn_error *error);

/* Replaces the file at once (files/atomic_file.h). */
ATTN_MUST_CHECK attn_status attn_text_file_write(const char *path, const char *text,
                                                 size_t size_bytes, attn_error *error);

#endif
