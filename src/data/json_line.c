/* The lexical pass and Jansson. The pass knows strings, brackets and runs of digits; it changes
 * nothing that decides whether the line is valid:
 *   - digits of an integer beyond the 18th are dropped (the first ones stay, so a leading zero
 *     stays wrong), and the digits of an exponent become one 0;
 *   - a value that nests CHUNK_HEIGHT deep is given to Jansson by itself when its bracket closes
 *     and stands as 0 from then on, so every byte is parsed once and no parse is deeper. A line
 *     that Jansson still finds too deep has brackets that nothing closes. */
#include "data/json_line.h"

#include "base/error.h"
#include "base/memory.h"

#include <jansson.h>
#include <string.h>

enum {
    CHUNK_HEIGHT = 1000,
    KEPT_LEVELS = 4, /* row, messages, message, content: never replaced, their types matter */
    OPEN_MAX = 1000000,
    INTEGER_DIGITS = 18 /* always fit 64 bits */
};

struct attn_json_open {
    size_t start;  /* of the bracket, in the copy */
    size_t height; /* of the highest value inside that is closed already */
};

void attn_json_scratch_free(attn_json_scratch *scratch)
{
    attn_free(scratch->copy);
    attn_free(scratch->open);
    *scratch = (attn_json_scratch){0};
}

static attn_status no_memory(attn_error *error, size_t n_bytes)
{
    return attn_fail(error, ATTN_EMEMORY, "no memory to parse a line of %zu bytes", n_bytes);
}

/* Parses a part of the copy; line->skip says what came of it. */
static attn_status parse(const char *text, size_t n_bytes, attn_json_line *line, attn_error *error)
{
    json_error_t failure;
    line->value = json_loadb(text, n_bytes, JSON_ALLOW_NUL | JSON_DECODE_ANY, &failure);
    line->skip = ATTN_ACCEPTED;
    if (line->value) return ATTN_OK;
    switch (json_error_code(&failure)) {
    case json_error_out_of_memory:
        return no_memory(error, n_bytes);
    case json_error_invalid_utf8:
        line->skip = ATTN_SKIP_INVALID_UTF8;
        break;
    case json_error_end_of_input_expected:
        line->skip = ATTN_SKIP_TRAILING_DATA;
        break;
    case json_error_null_byte_in_key:
        line->skip = ATTN_SKIP_NUL_IN_KEY;
        break;
    default: /* a lone surrogate has no code of its own, only this text */
        line->skip = strncmp(failure.text, "invalid Unicode '", 17) == 0 ? ATTN_SKIP_LONE_SURROGATE
                                                                         : ATTN_SKIP_JSON_SYNTAX;
        break;
    }
    return ATTN_OK;
}

static attn_status open_bracket(attn_json_scratch *scratch, attn_json_line *line, attn_error *error)
{
    if (scratch->n_open == scratch->open_capacity) {
        const size_t capacity = scratch->open_capacity ? 2 * scratch->open_capacity : 256;
        struct attn_json_open *grown =
            attn_realloc(scratch->open, capacity * sizeof *scratch->open);
        if (!grown) return no_memory(error, scratch->n_copy);
        scratch->open = grown;
        scratch->open_capacity = capacity;
    }
    if (scratch->n_open == OPEN_MAX)
        line->skip = ATTN_SKIP_TOO_DEEP;
    else
        scratch->open[scratch->n_open++] = (struct attn_json_open){.start = scratch->n_copy};
    return ATTN_OK;
}

/* After a closing bracket was copied. One too many is left for Jansson to find. */
static attn_status close_bracket(attn_json_scratch *scratch, attn_json_line *line,
                                 attn_error *error)
{
    if (scratch->n_open == 0) return ATTN_OK;
    const struct attn_json_open closed = scratch->open[--scratch->n_open];
    size_t height = closed.height + 1;
    if (height >= CHUNK_HEIGHT && scratch->n_open >= KEPT_LEVELS) {
        const attn_status status =
            parse(scratch->copy + closed.start, scratch->n_copy - closed.start, line, error);
        json_decref(line->value);
        line->value = NULL;
        if (status != ATTN_OK || line->skip != ATTN_ACCEPTED) return status;
        scratch->copy[closed.start] = '0';
        scratch->n_copy = closed.start + 1;
        height = 0;
    }
    if (scratch->n_open > 0) {
        size_t *outer = &scratch->open[scratch->n_open - 1].height;
        if (height > *outer) *outer = height;
    }
    return ATTN_OK;
}

static bool is_exponent(const char *copy, size_t n)
{
    if (n > 1 && (copy[n - 1] == '+' || copy[n - 1] == '-')) n--;
    return n > 0 && (copy[n - 1] == 'e' || copy[n - 1] == 'E');
}

/* Copies a run of digits outside of a string; returns its length. */
static size_t copy_digits(attn_json_scratch *scratch, const char *text, size_t n_bytes,
                          attn_json_line *line)
{
    size_t n = 0;
    while (n < n_bytes && text[n] >= '0' && text[n] <= '9') n++;
    size_t n_kept = n;
    const size_t before = scratch->n_copy;
    if (is_exponent(scratch->copy, before)) {
        scratch->copy[scratch->n_copy++] = '0';
        return n;
    }
    if (n > INTEGER_DIGITS && (before == 0 || scratch->copy[before - 1] != '.')) {
        n_kept = INTEGER_DIGITS;
        line->integers_are_exact = false;
    }
    memcpy(scratch->copy + before, text, n_kept);
    scratch->n_copy += n_kept;
    return n;
}

static size_t copy_string(attn_json_scratch *scratch, const char *text, size_t n_bytes)
{
    size_t n = 1;
    while (n < n_bytes && text[n] != '"') n += text[n] == '\\' ? 2 : 1;
    n = n < n_bytes ? n + 1 : n_bytes;
    memcpy(scratch->copy + scratch->n_copy, text, n);
    scratch->n_copy += n;
    return n;
}

static attn_status copy_line(attn_json_scratch *scratch, const char *text, size_t n_bytes,
                             attn_json_line *line, attn_error *error)
{
    attn_status status = ATTN_OK;
    scratch->n_copy = scratch->n_open = 0;
    for (size_t at = 0; at < n_bytes && status == ATTN_OK && line->skip == ATTN_ACCEPTED;) {
        const char c = text[at];
        if (c == '"') {
            at += copy_string(scratch, text + at, n_bytes - at);
            continue;
        }
        if (c >= '0' && c <= '9') {
            at += copy_digits(scratch, text + at, n_bytes - at, line);
            continue;
        }
        if (c == '[' || c == '{') status = open_bracket(scratch, line, error);
        scratch->copy[scratch->n_copy++] = c;
        if (c == ']' || c == '}') status = close_bracket(scratch, line, error);
        at++;
    }
    return status;
}

attn_status attn_json_line_parse(attn_json_scratch *scratch, const char *text, size_t n_bytes,
                                 attn_json_line *line, attn_error *error)
{
    *line = (attn_json_line){.integers_are_exact = true};
    if (n_bytes > scratch->copy_capacity) {
        attn_free(scratch->copy);
        scratch->copy_capacity = 0;
        scratch->copy = attn_alloc(ATTN_MEMORY_OTHER, n_bytes + n_bytes / 2);
        if (!scratch->copy) return no_memory(error, n_bytes);
        scratch->copy_capacity = n_bytes + n_bytes / 2;
    }
    const attn_status status = copy_line(scratch, text, n_bytes, line, error);
    if (status != ATTN_OK || line->skip != ATTN_ACCEPTED) return status;
    return parse(scratch->copy, scratch->n_copy, line, error);
}
