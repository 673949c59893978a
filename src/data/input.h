/* Reading of files that may be gzip-compressed, and of standard input, piece by piece. */
#ifndef DATA_INPUT_H
#define DATA_INPUT_H

#include "attn/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct attn_input attn_input;

/* `path` "-" is standard input. gzip is recognised by its first bytes, not by the name.
 *
 * ATTN_ENOTFOUND  no such file
 * ATTN_EARGUMENT  it is a directory
 * ATTN_EIO        it cannot be opened */
ATTN_MUST_CHECK attn_status attn_input_open(attn_input **out, const char *path, attn_error *error);
void attn_input_close(attn_input *input);

/* Fills `buffer` with up to n_bytes; fewer only at the end of the file.
 *
 * ATTN_EIO      reading failed
 * ATTN_EFORMAT  the compressed data is damaged or cut short */
ATTN_MUST_CHECK attn_status attn_input_read(attn_input *input, void *buffer, size_t n_bytes,
                                            size_t *n_read, attn_error *error);

/* ---- lines ---------------------------------------------------------------------------- */

typedef struct attn_lines attn_lines;

/* The longest line that is held in memory; longer ones are passed over. */
enum { ATTN_LINE_BYTES_MAX = 64 << 20 };

typedef struct attn_line {
    const char *text; /* without the newline; may hold NUL; valid until the next line is read */
    size_t n_bytes;
    size_t number;    /* from 1 */
    bool is_too_long; /* more than ATTN_LINE_BYTES_MAX: text is empty */
} attn_line;

/* Lines end at the byte 0A and nowhere else; the last one needs none. A byte order mark before
 * the first line is dropped. Errors as attn_input_open(). */
ATTN_MUST_CHECK attn_status attn_lines_open(attn_lines **out, const char *path, attn_error *error);
void attn_lines_close(attn_lines *lines);

/* The next line, or line->text NULL at the end. Errors as attn_input_read(), ATTN_EMEMORY. */
ATTN_MUST_CHECK attn_status attn_lines_next(attn_lines *lines, attn_line *line, attn_error *error);

/* Nothing but spaces, tabs and carriage returns. */
bool attn_line_is_blank(const attn_line *line);

#endif
