/* The hand-written cut of ASCII against the pattern, on all short strings over the characters
 * that matter and on long random ones. */
#include "base/random.h"
#include "data/pretoken.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Every class, every letter of a contraction, and neighbours outside of ASCII: a letter, a mark, a
 * number, two spaces, three that look like spaces to some (U+FEFF, U+180E, U+001C). */
static const char *const characters[] = {
    "'", "s", "t",  "r",      "e",        "v",      "m",      "l",      "d",      "A",
    "7", "!", "|",  " ",      "\t",       "\n",     "\r",     "\x1C",   "\x7F",   "",
    "é", "₂", "中", "\u0301", "\xC2\x85", "\u00A0", "\u3000", "\uFEFF", "\u180E",
};
enum { N_CHARACTERS = sizeof characters / sizeof *characters };

static attn_splitter *splitter;

static void expect_same(const char *text, size_t n_bytes)
{
    for (size_t at = 0; at < n_bytes;) {
        const size_t end = attn_splitter_next(splitter, text, n_bytes, at);
        const size_t expected = attn_splitter_next_by_pattern(splitter, text, n_bytes, at);
        if (end != expected || end <= at)
            fail_msg("'%.*s' at %zu: cut at %zu, the pattern at %zu", (int)n_bytes, text, at, end,
                     expected);
        at = end;
    }
}

static size_t append(char *text, size_t n, size_t character)
{
    const char *bytes = characters[character];
    if (!*bytes) { /* stands for NUL */
        text[n] = '\0';
        return n + 1;
    }
    memcpy(text + n, bytes, strlen(bytes));
    return n + strlen(bytes);
}

static void test_all_short_strings(void **state)
{
    (void)state;
    enum { LENGTH = 4 };
    size_t n_strings = 1;
    for (int i = 0; i < LENGTH; i++) n_strings *= N_CHARACTERS;
    for (size_t number = 0; number < n_strings; number++) {
        char text[4 * LENGTH];
        size_t n = 0, rest = number;
        for (int i = 0; i < LENGTH; i++, rest /= N_CHARACTERS)
            n = append(text, n, rest % N_CHARACTERS);
        expect_same(text, n);
    }
}

static void test_random_strings(void **state)
{
    (void)state;
    const uint64_t stream = attn_random_stream(ATTN_RANDOM_TEST, 0);
    static char text[4 * 2000];
    for (uint64_t round = 0; round < 200; round++) {
        size_t n = 0;
        for (uint64_t i = 0; i < 2000; i++)
            n = append(text, n, attn_random_below(round, stream, i, N_CHARACTERS));
        expect_same(text, n);
    }
}

static void expect_words(const char *text, size_t n_bytes, const char *const *words)
{
    size_t at = 0;
    for (; *words; words++) {
        const size_t end = attn_splitter_next(splitter, text, n_bytes, at);
        assert_int_equal(end - at, strlen(*words));
        assert_memory_equal(text + at, *words, end - at);
        at = end;
    }
    assert_int_equal(at, n_bytes);
}

/* Worked out by hand from the published pattern. */
static void test_known_words(void **state)
{
    (void)state;
#define WORDS(text, ...)                                                                           \
    expect_words(text, sizeof text - 1, (const char *const[]){__VA_ARGS__, NULL})
    WORDS("They're 12's!", "They", "'re", " 12", "'s", "!");
    WORDS("a  b\n\n c", "a", " ", " b", "\n\n", " c");
    WORDS("x \t y  ", "x", " \t", " y", "  ");
    WORDS("a\xC2\x85\xC2\x85"
          "b",
          "a", "\xC2\x85", "\xC2\x85", "b");
    WORDS("a\uFEFF b", "a", "\uFEFF", " b");
    WORDS("a\u180E b", "a", "\u180E", " b");
    WORDS("don'T 'll", "don", "'", "T", " '", "ll");
#undef WORDS
}

static int create(void **state)
{
    (void)state;
    attn_error error = {0};
    return attn_splitter_create(&splitter, &error);
}

static int destroy(void **state)
{
    (void)state;
    attn_splitter_free(splitter);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_words),
        cmocka_unit_test(test_all_short_strings),
        cmocka_unit_test(test_random_strings),
    };
    return cmocka_run_group_tests(tests, create, destroy);
}
