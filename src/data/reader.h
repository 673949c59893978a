/* Reads a data set row by row, in memory that does not grow with the file.
 *
 * A file is JSON Lines, plain or gzip: one conversation ("messages") or text ("text") a line.
 * Lines that are no row are counted by reason and passed over. Only a file whose name ends in
 * .txt or .txt.gz is plain text: it is cut into sections of 64 to 128 KiB, at the first empty
 * line of that range, and each is a row that goes on in the next. */
#ifndef DATA_READER_H
#define DATA_READER_H

#include "data/conversation.h"

enum { ATTN_SKIPS_LISTED = 8 };

/* What was met so far. */
typedef struct attn_reading {
    bool is_plain_text; /* "lines" are sections */
    size_t n_lines, n_rows;
    size_t skips[ATTN_SKIP_REASONS]; /* lines by reason */
    struct attn_skipped {
        size_t line;
        attn_skip reason;
    } listed[ATTN_SKIPS_LISTED]; /* the first ones; blank lines are not worth it */
    size_t n_listed;
} attn_reading;

typedef struct attn_reader attn_reader;

/* Errors as attn_input_open(). */
ATTN_MUST_CHECK attn_status attn_reader_open(attn_reader **out, const char *path,
                                             attn_error *error);
void attn_reader_close(attn_reader *reader);

/* The next row, or *is_end. `row` is valid until the next call.
 *
 * ATTN_EIO, ATTN_EFORMAT  as attn_input_read(); plain text that is not UTF-8
 * ATTN_EMEMORY */
ATTN_MUST_CHECK attn_status attn_reader_next(attn_reader *reader, attn_row *row, bool *is_end,
                                             attn_error *error);

const attn_reading *attn_reader_reading(const attn_reader *reader);

/* Lines that were skipped, without blank ones. */
size_t attn_reading_skipped(const attn_reading *reading);

/* ATTN_EFORMAT with a helpful text when the whole file `path` gave no row. */
ATTN_MUST_CHECK attn_status attn_reading_check(const attn_reading *reading, const char *path,
                                               attn_error *error);

#endif
