/* Where the program's own data files lie (the vocabulary, the sample of conversations). */
#ifndef DATA_DATA_PATH_H
#define DATA_DATA_PATH_H

#include "attn/status.h"

#include <stddef.h>

enum { ATTN_DATA_PATH_BYTES = 4096 };

/* The path of a shipped file, such as "gpt2/vocab.bpe". Looked for in the folder that the
 * environment variable ATTNSCOPE_DATA names and nowhere else when that is set; otherwise in the
 * data/ folder of the source tree, then in share/attnscope of the installation.
 *
 * ATTN_ENOTFOUND  it is in none of them; the text says where it was looked for */
ATTN_MUST_CHECK attn_status attn_data_path(const char *name, char path[ATTN_DATA_PATH_BYTES],
                                           attn_error *error);

#endif
