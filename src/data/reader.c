/* Rows from JSON Lines or from plain text. */
#include "data/reader.h"

#include "base/error.h"
#include "base/memory.h"
#include "data/input.h"
#include "data/json_line.h"
#include "data/utf8.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

enum { SECTION_BYTES_MIN = 64 << 10, SECTION_BYTES_MAX = 128 << 10 };

struct attn_reader {
    attn_reading reading;
    attn_lines *lines; /* JSON Lines */
    attn_json_scratch scratch;
    attn_conversation conversation;
    json_t *value;     /* what the last row points into */
    attn_input *input; /* plain text */
    char *path;
    const char *name; /* the last part of the path */
    char *buffer;     /* SECTION_BYTES_MAX + 1; the last section is at its start */
    size_t n_used, n_bytes;
    uint64_t offset; /* in the file, of buffer[0] */
    char id[300];
};

static bool is_plain_text(const char *path)
{
    const size_t length = strlen(path);
    return (length >= 4 && strcmp(path + length - 4, ".txt") == 0) ||
           (length >= 7 && strcmp(path + length - 7, ".txt.gz") == 0);
}

attn_status attn_reader_open(attn_reader **out, const char *path, attn_error *error)
{
    const bool is_text = is_plain_text(path);
    attn_status status = ATTN_EMEMORY;
    attn_reader *reader = attn_alloc(ATTN_MEMORY_OTHER, sizeof *reader);
    if (reader) reader->path = attn_strdup(path);
    if (reader && is_text) reader->buffer = attn_alloc(ATTN_MEMORY_OTHER, SECTION_BYTES_MAX + 1);
    if (!reader || !reader->path || (is_text && !reader->buffer)) {
        status = attn_fail(error, ATTN_EMEMORY, "no memory to read %s", path);
        goto done;
    }
    reader->reading.is_plain_text = is_text;
    const char *slash = strrchr(reader->path, '/');
    reader->name = slash ? slash + 1 : reader->path;
    status = is_text ? attn_input_open(&reader->input, path, error)
                     : attn_lines_open(&reader->lines, path, error);
    if (status != ATTN_OK) goto done;
    *out = reader;
    reader = NULL; /* handed to the caller */
done:
    attn_reader_close(reader);
    return status;
}

void attn_reader_close(attn_reader *reader)
{
    if (!reader) return;
    json_decref(reader->value);
    attn_lines_close(reader->lines);
    attn_json_scratch_free(&reader->scratch);
    attn_conversation_free(&reader->conversation);
    attn_input_close(reader->input);
    attn_free(reader->buffer);
    attn_free(reader->path);
    attn_free(reader);
}

/* ---- JSON Lines ------------------------------------------------------------------------- */

static void count_skip(attn_reading *reading, size_t line, attn_skip skip)
{
    reading->skips[skip]++;
    if (skip != ATTN_SKIP_BLANK && reading->n_listed < ATTN_SKIPS_LISTED)
        reading->listed[reading->n_listed++] = (struct attn_skipped){.line = line, .reason = skip};
}

static attn_status read_line(attn_reader *reader, const attn_line *line, attn_row *row,
                             attn_skip *skip, attn_error *error)
{
    *skip = line->is_too_long          ? ATTN_SKIP_TOO_LONG
            : attn_line_is_blank(line) ? ATTN_SKIP_BLANK
                                       : ATTN_ACCEPTED;
    if (*skip != ATTN_ACCEPTED) return ATTN_OK;
    attn_json_line parsed;
    const attn_status status =
        attn_json_line_parse(&reader->scratch, line->text, line->n_bytes, &parsed, error);
    *skip = parsed.skip;
    if (status != ATTN_OK || *skip != ATTN_ACCEPTED) return status;
    reader->value = parsed.value;
    return attn_conversation_read(&reader->conversation, parsed.value, parsed.integers_are_exact,
                                  line->number, row, skip, error);
}

static attn_status next_line_row(attn_reader *reader, attn_row *row, bool *is_end,
                                 attn_error *error)
{
    for (;;) {
        json_decref(reader->value);
        reader->value = NULL;
        attn_line line;
        attn_skip skip;
        attn_status status = attn_lines_next(reader->lines, &line, error);
        if (status != ATTN_OK) return status;
        *is_end = line.text == NULL;
        if (*is_end) return ATTN_OK;
        reader->reading.n_lines++;
        status = read_line(reader, &line, row, &skip, error);
        if (status != ATTN_OK || skip == ATTN_ACCEPTED) return status;
        count_skip(&reader->reading, line.number, skip);
    }
}

/* ---- plain text ------------------------------------------------------------------------- */

/* Where the section ends that is at the start of the buffer. */
static size_t section_end(const char *text, size_t n_bytes)
{
    size_t line_end = 0;
    for (size_t at = SECTION_BYTES_MIN; at < n_bytes && at < SECTION_BYTES_MAX; at++) {
        if (text[at] != '\n') continue;
        line_end = at + 1;
        if (text[at - 1] == '\n' || (text[at - 1] == '\r' && text[at - 2] == '\n')) return line_end;
    }
    if (n_bytes <= SECTION_BYTES_MAX) return n_bytes; /* the end of the file */
    return line_end ? line_end : SECTION_BYTES_MAX;
}

/* Drops the last section and reads on behind what is left. */
static attn_status refill(attn_reader *reader, attn_error *error)
{
    size_t n_read = 0;
    reader->n_bytes -= reader->n_used;
    memmove(reader->buffer, reader->buffer + reader->n_used, reader->n_bytes);
    reader->offset += reader->n_used;
    reader->n_used = 0;
    const size_t room = SECTION_BYTES_MAX + 1 - reader->n_bytes; /* one more tells the end */
    const attn_status status =
        attn_input_read(reader->input, reader->buffer + reader->n_bytes, room, &n_read, error);
    reader->n_bytes += n_read;
    return status;
}

static bool begins_with_mark(const attn_reader *reader)
{
    return reader->offset == 0 && reader->n_bytes >= 3 &&
           memcmp(reader->buffer, "\xEF\xBB\xBF", 3) == 0;
}

static attn_status refuse_utf8(const attn_reader *reader, size_t at, attn_error *error)
{
    return attn_fail(error, ATTN_EFORMAT,
                     "%s: not UTF-8: byte %02X at offset %llu; convert it, for instance with iconv",
                     reader->path, (unsigned)(unsigned char)reader->buffer[at],
                     (unsigned long long)(reader->offset + at));
}

static attn_status next_section(attn_reader *reader, attn_row *row, bool *is_end, attn_error *error)
{
    attn_status status = refill(reader, error);
    if (status == ATTN_OK && begins_with_mark(reader)) {
        reader->n_used = 3; /* a byte order mark is no text */
        status = refill(reader, error);
    }
    *is_end = reader->n_bytes == 0;
    if (status != ATTN_OK || *is_end) return status;
    size_t n = section_end(reader->buffer, reader->n_bytes);
    const size_t n_valid = attn_utf8_valid_prefix(reader->buffer, n);
    /* A line of over 64 KiB may be cut inside of a character, but not the end of the file. */
    if (n_valid < n && n < reader->n_bytes &&
        attn_utf8_is_cut(reader->buffer + n_valid, n - n_valid))
        n = n_valid;
    if (n_valid < n) return refuse_utf8(reader, n_valid, error);
    reader->n_used = n;
    const size_t number = ++reader->reading.n_lines;
    snprintf(reader->id, sizeof reader->id, "%.255s:%zu", reader->name, number);
    *row = (attn_row){.dataset = reader->name,
                      .id = reader->id,
                      .number = number,
                      .text = reader->buffer,
                      .n_bytes = n,
                      .goes_on = n < reader->n_bytes};
    return ATTN_OK;
}

attn_status attn_reader_next(attn_reader *reader, attn_row *row, bool *is_end, attn_error *error)
{
    const attn_status status = reader->lines ? next_line_row(reader, row, is_end, error)
                                             : next_section(reader, row, is_end, error);
    if (status == ATTN_OK && !*is_end) reader->reading.n_rows++;
    return status;
}

const attn_reading *attn_reader_reading(const attn_reader *reader)
{
    return &reader->reading;
}

size_t attn_reading_skipped(const attn_reading *reading)
{
    return reading->n_lines - reading->n_rows - reading->skips[ATTN_SKIP_BLANK];
}

attn_status attn_reading_check(const attn_reading *reading, const char *path, attn_error *error)
{
    if (reading->n_rows > 0) return ATTN_OK;
    if (reading->n_listed == 0) return attn_fail(error, ATTN_EFORMAT, "%s holds no rows", path);
    return attn_fail(error, ATTN_EFORMAT,
                     "%s: none of %zu lines is a row; line %zu: %s. JSON Lines with \"messages\" "
                     "or \"text\" is wanted, or plain text in a file named .txt",
                     path, attn_reading_skipped(reading), reading->listed[0].line,
                     attn_skip_name(reading->listed[0].reason));
}
