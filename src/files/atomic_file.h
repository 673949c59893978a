/* Files that are there whole or not at all: written beside their place, then renamed. */
#ifndef FILES_ATOMIC_FILE_H
#define FILES_ATOMIC_FILE_H

#include "attn/status.h"

#include <stddef.h>

typedef struct attn_atomic_file attn_atomic_file;

/* Opens a temporary file in the folder of `path`. A symbolic link is followed; devices and
 * pipes, such as /dev/stdout, cannot be replaced and are written directly. */
ATTN_MUST_CHECK attn_status attn_atomic_file_create(attn_atomic_file **out, const char *path,
                                                    attn_error *error);

/* ATTN_EIO when not all bytes could be written. */
ATTN_MUST_CHECK attn_status attn_atomic_file_write(attn_atomic_file *file, const void *data,
                                                   size_t size_bytes, attn_error *error);

/* Brings everything to the disk and gives the file its name. Nothing may be written after. */
ATTN_MUST_CHECK attn_status attn_atomic_file_commit(attn_atomic_file *file, attn_error *error);

/* Removes what was not committed; NULL is fine. */
void attn_atomic_file_free(attn_atomic_file *file);

#endif
