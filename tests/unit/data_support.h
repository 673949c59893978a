/* What the tests of the data layer share. */
#ifndef UNIT_DATA_SUPPORT_H
#define UNIT_DATA_SUPPORT_H

#include "base/memory.h"
#include "data/input.h"
#include "data/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

/* Fails the test with the error's own text. */
#define assert_ok(call)                                                                            \
    do {                                                                                           \
        if ((call) != ATTN_OK) fail_msg("%s: %s", #call, error.text);                              \
    } while (0)

static inline void skip_unless_readable(const char *path)
{
    if (access(path, R_OK) == 0) return;
    print_message("[ MESSAGE  ] %s is absent\n", path);
    skip();
}

/* Calls `check` with each line's object; returns the number of lines. */
static inline size_t for_each_object(const char *path, void (*check)(json_t *object, void *context),
                                     void *context)
{
    attn_error error = {0};
    attn_lines *lines = NULL;
    assert_ok(attn_lines_open(&lines, path, &error));
    size_t n = 0;
    for (;; n++) {
        attn_line line;
        assert_ok(attn_lines_next(lines, &line, &error));
        if (!line.text) break;
        json_t *object = json_loadb(line.text, line.n_bytes, JSON_ALLOW_NUL, NULL);
        assert_non_null(object);
        check(object, context);
        json_decref(object);
    }
    attn_lines_close(lines);
    return n;
}

/* The ids of a JSON array against those of the tokenizer. */
static inline void assert_ids(const json_t *expected, const attn_tokens *tokens, const char *what)
{
    if (json_array_size(expected) != tokens->n)
        fail_msg("%s: %zu tokens, expected %zu", what, tokens->n, json_array_size(expected));
    for (size_t i = 0; i < tokens->n; i++) {
        const json_int_t id = json_integer_value(json_array_get(expected, i));
        if (id != tokens->ids[i])
            fail_msg("%s: token %zu is %u, expected %lld", what, i, (unsigned)tokens->ids[i],
                     (long long)id);
    }
}

/* Tokens back to text: must give exactly these bytes. */
static inline void assert_decodes(const attn_tokenizer *tokenizer, const attn_tokens *tokens,
                                  const char *text, size_t n_bytes, const char *what)
{
    size_t at = 0;
    for (size_t i = 0; i < tokens->n; i++) {
        size_t length = 0;
        const char *bytes = attn_tokenizer_bytes(tokenizer, tokens->ids[i], &length);
        assert_non_null(bytes);
        if (length > n_bytes - at || memcmp(text + at, bytes, length) != 0)
            fail_msg("%s: token %zu does not decode to the text at %zu", what, i, at);
        at += length;
    }
    assert_int_equal(at, n_bytes);
}

/* Writes a file in the test's working folder. */
static inline void write_file(const char *path, const void *bytes, size_t n_bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n_bytes, file), n_bytes);
    assert_int_equal(fclose(file), 0);
}

#endif
