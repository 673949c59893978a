/* Files through zlib, which passes uncompressed ones on as they are. */
#define _POSIX_C_SOURCE 200809L
#include "data/input.h"

#include "base/error.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

struct attn_input {
    gzFile file;
    char *name; /* for error texts */
};

static bool is_standard(const char *path)
{
    return strcmp(path, "-") == 0;
}

static attn_status open_file(const char *path, int *descriptor, attn_error *error)
{
    *descriptor = is_standard(path) ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    struct stat facts;
    if (*descriptor < 0)
        return attn_fail_errno(error, errno == ENOENT ? ATTN_ENOTFOUND : ATTN_EIO, errno,
                               "cannot read %s", path);
    if (fstat(*descriptor, &facts) == 0 && S_ISDIR(facts.st_mode))
        return attn_fail(error, ATTN_EARGUMENT, "%s is a directory; name a file in it", path);
    return ATTN_OK;
}

attn_status attn_input_open(attn_input **out, const char *path, attn_error *error)
{
    int descriptor = -1;
    attn_input *input = NULL;
    attn_status status = open_file(path, &descriptor, error);
    if (status != ATTN_OK) goto done;
    input = attn_alloc(ATTN_MEMORY_OTHER, sizeof *input);
    if (input) input->name = attn_strdup(is_standard(path) ? "standard input" : path);
    if (input && input->name) input->file = gzdopen(descriptor, "rb");
    if (!input || !input->file) {
        status = attn_fail(error, ATTN_EMEMORY, "no memory to read %s", path);
        goto done;
    }
    descriptor = -1;                /* now the file's */
    gzbuffer(input->file, 1 << 17); /* a hint; failing costs speed only */
    *out = input;
    input = NULL; /* handed to the caller */
done:
    attn_input_close(input);
    if (descriptor >= 0) close(descriptor);
    return status;
}

void attn_input_close(attn_input *input)
{
    if (!input) return;
    if (input->file) gzclose_r(input->file);
    attn_free(input->name);
    attn_free(input);
}

attn_status attn_input_read(attn_input *input, void *buffer, size_t n_bytes, size_t *n_read,
                            attn_error *error)
{
    size_t n = 0;
    *n_read = 0;
    while (n < n_bytes) {
        const size_t wanted = n_bytes - n < INT_MAX / 2 ? n_bytes - n : INT_MAX / 2;
        const int got = gzread(input->file, (char *)buffer + n, (unsigned)wanted);
        int number = Z_OK;
        const char *text = gzerror(input->file, &number);
        if (number == Z_ERRNO)
            return attn_fail_errno(error, ATTN_EIO, errno, "cannot read %s", input->name);
        if (number != Z_OK && number != Z_STREAM_END) {
            const char *colon = strstr(text, ": "); /* behind a name that zlib made up */
            return attn_fail(error, ATTN_EFORMAT,
                             "%s: the gzip data is damaged or cut short (%s); fetch it again",
                             input->name, colon ? colon + 2 : text);
        }
        if (got <= 0) break;
        n += (size_t)got;
    }
    *n_read = n;
    return ATTN_OK;
}

/* ---- lines ---------------------------------------------------------------------------- */

struct attn_lines {
    attn_input *input;
    char *buffer;
    size_t capacity, begin, end; /* buffer[begin..end) is read and not yet handed out */
    size_t number;
    bool is_at_end;
};

attn_status attn_lines_open(attn_lines **out, const char *path, attn_error *error)
{
    attn_status status = ATTN_EMEMORY;
    attn_lines *lines = attn_alloc(ATTN_MEMORY_OTHER, sizeof *lines);
    if (lines) {
        lines->capacity = 1 << 16;
        lines->buffer = attn_alloc(ATTN_MEMORY_OTHER, lines->capacity);
    }
    if (!lines || !lines->buffer) {
        status = attn_fail(error, ATTN_EMEMORY, "no memory to read %s", path);
        goto done;
    }
    if ((status = attn_input_open(&lines->input, path, error)) != ATTN_OK) goto done;
    *out = lines;
    lines = NULL; /* handed to the caller */
done:
    attn_lines_close(lines);
    return status;
}

void attn_lines_close(attn_lines *lines)
{
    if (!lines) return;
    attn_input_close(lines->input);
    attn_free(lines->buffer);
    attn_free(lines);
}

/* Reads more behind what there is, and makes room for it. */
static attn_status fill(attn_lines *lines, attn_error *error)
{
    if (lines->begin > 0) {
        memmove(lines->buffer, lines->buffer + lines->begin, lines->end - lines->begin);
        lines->end -= lines->begin;
        lines->begin = 0;
    }
    if (lines->end == lines->capacity) {
        char *grown = attn_realloc(lines->buffer, 2 * lines->capacity);
        if (!grown)
            return attn_fail(error, ATTN_EMEMORY, "%s:%zu: no memory for a line of over %zu bytes",
                             lines->input->name, lines->number, lines->capacity);
        lines->buffer = grown;
        lines->capacity *= 2;
    }
    size_t n_read;
    const size_t room = lines->capacity - lines->end;
    const attn_status status =
        attn_input_read(lines->input, lines->buffer + lines->end, room, &n_read, error);
    lines->end += n_read;
    lines->is_at_end = status == ATTN_OK && n_read < room;
    return status;
}

/* Drops what is left of a line that is too long. */
static attn_status pass_over(attn_lines *lines, attn_error *error)
{
    for (;;) {
        const char *newline = memchr(lines->buffer + lines->begin, '\n', lines->end - lines->begin);
        lines->begin = newline ? (size_t)(newline + 1 - lines->buffer) : lines->end;
        if (newline || lines->is_at_end) return ATTN_OK;
        const attn_status status = fill(lines, error);
        if (status != ATTN_OK) return status;
    }
}

attn_status attn_lines_next(attn_lines *lines, attn_line *line, attn_error *error)
{
    lines->number++;
    *line = (attn_line){.number = lines->number};
    const char *newline = NULL;
    size_t n_seen = 0;
    for (;;) {
        const char *from = lines->buffer + lines->begin + n_seen;
        newline = memchr(from, '\n', lines->end - lines->begin - n_seen);
        n_seen = lines->end - lines->begin;
        if (newline || lines->is_at_end) break;
        if (n_seen > ATTN_LINE_BYTES_MAX) break;
        const attn_status status = fill(lines, error);
        if (status != ATTN_OK) return status;
    }
    if (!newline && n_seen == 0) return ATTN_OK; /* the end */
    line->text = lines->buffer + lines->begin;
    line->n_bytes = newline ? (size_t)(newline - line->text) : n_seen;
    if (line->n_bytes > ATTN_LINE_BYTES_MAX) {
        line->is_too_long = true;
        line->text = "";
        line->n_bytes = 0;
        return pass_over(lines, error);
    }
    lines->begin += line->n_bytes + (newline ? 1 : 0);
    if (lines->number == 1 && line->n_bytes >= 3 && memcmp(line->text, "\xEF\xBB\xBF", 3) == 0) {
        line->text += 3;
        line->n_bytes -= 3;
    }
    return ATTN_OK;
}

bool attn_line_is_blank(const attn_line *line)
{
    for (size_t i = 0; i < line->n_bytes; i++)
        if (!memchr(" \t\r", line->text[i], 3)) return false;
    return !line->is_too_long;
}
