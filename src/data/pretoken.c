/* Words of GPT-2: a hand-written scanner for ASCII and PCRE2 for the rest.
 *
 * PCRE2's own \s is not used: it takes U+180E for white space, which Unicode does not. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/pretoken.h"

#include "base/error.h"
#include "base/memory.h"

#include <pcre2.h>
#include <stdint.h>

#define SPACE                                                                                      \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}"                               \
    "\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

static const char pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+"
                              "| ?[^" SPACE "\\p{L}\\p{N}]+"
                              "|[" SPACE "]+(?![^" SPACE "])|[" SPACE "]+";

struct attn_splitter {
    pcre2_code *code;
    pcre2_match_data *match;
};

attn_status attn_splitter_create(attn_splitter **out, attn_error *error)
{
    attn_status status = ATTN_EMEMORY;
    attn_splitter *splitter = attn_alloc(ATTN_MEMORY_OTHER, sizeof *splitter);
    if (!splitter) {
        status = attn_fail(error, ATTN_EMEMORY, "no memory for the tokenizer");
        goto done;
    }
    int number = 0;
    PCRE2_SIZE offset = 0;
    splitter->code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                   PCRE2_UTF | PCRE2_ANCHORED, &number, &offset, NULL);
    if (!splitter->code) {
        status = attn_fail(error, ATTN_EUNSUPPORTED,
                           "PCRE2 does not take the tokenizer's pattern (error %d at %zu); it "
                           "must be built with Unicode support",
                           number, (size_t)offset);
        goto done;
    }
    /* Without the JIT (a hardened kernel may forbid it) matching is slower, not different. */
    (void)pcre2_jit_compile(splitter->code, PCRE2_JIT_COMPLETE);
    splitter->match = pcre2_match_data_create(1, NULL);
    if (!splitter->match) {
        status = attn_fail(error, ATTN_EMEMORY, "no memory for the tokenizer");
        goto done;
    }
    *out = splitter;
    splitter = NULL; /* handed to the caller */
    status = ATTN_OK;
done:
    attn_splitter_free(splitter);
    return status;
}

void attn_splitter_free(attn_splitter *splitter)
{
    if (!splitter) return;
    pcre2_match_data_free(splitter->match);
    pcre2_code_free(splitter->code);
    attn_free(splitter);
}

size_t attn_splitter_next_by_pattern(attn_splitter *splitter, const char *text, size_t n_bytes,
                                     size_t at)
{
    const int found = pcre2_match(splitter->code, (PCRE2_SPTR)text, n_bytes, at, PCRE2_NO_UTF_CHECK,
                                  splitter->match, NULL);
    if (found <= 0) return 0;
    return pcre2_get_ovector_pointer(splitter->match)[1];
}

/* Classes of bytes: letter, number, other, white space, and BEYOND for those outside ASCII. */
enum { BEYOND, LETTER, NUMBER, OTHER, WHITE };

#define X16(class)                                                                                 \
    class, class, class, class, class, class, class, class, class, class, class, class, class,     \
        class, class, class

static const uint8_t classes[256] = {
    /* clang-format off */
    OTHER, OTHER, OTHER, OTHER, OTHER, OTHER, OTHER, OTHER,
    OTHER, WHITE, WHITE, WHITE, WHITE, WHITE, OTHER, OTHER, X16(OTHER),
    WHITE, OTHER, OTHER, OTHER, OTHER, OTHER, OTHER, OTHER,
    OTHER, OTHER, OTHER, OTHER, OTHER, OTHER, OTHER, OTHER,
    NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER, NUMBER,
    NUMBER, NUMBER, OTHER, OTHER, OTHER, OTHER, OTHER, OTHER,
    OTHER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER,
    LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER,
    LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER,
    LETTER, LETTER, LETTER, OTHER, OTHER, OTHER, OTHER, OTHER,
    OTHER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER,
    LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER,
    LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER, LETTER,
    LETTER, LETTER, LETTER, OTHER, OTHER, OTHER, OTHER, OTHER,
    /* clang-format on */
};

/* The end of the contraction at an apostrophe, or 0. */
static size_t contraction_end(const unsigned char *text, size_t n_bytes, size_t at)
{
    const unsigned char first = n_bytes - at > 1 ? text[at + 1] : 0;
    const unsigned char second = n_bytes - at > 2 ? text[at + 2] : 0;
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return at + 2;
    if ((first == 'r' || first == 'v') && second == 'e') return at + 3;
    if (first == 'l' && second == 'l') return at + 3;
    return 0;
}

/* The end of the word when ASCII decides it, or 0 when a byte outside ASCII touches it. */
static size_t ascii_end(const unsigned char *text, size_t n_bytes, size_t at)
{
    size_t end = at;
    if (text[at] == '\'') {
        end = contraction_end(text, n_bytes, at);
        if (end) return end;
        end = at;
    }
    if (text[at] == ' ' && at + 1 < n_bytes) end++;
    const uint8_t class = classes[text[end]];
    if (class == BEYOND) return 0;
    if (class == WHITE) { /* `at` is white, and so is the next when it is a space */
        while (end < n_bytes && classes[text[end]] == WHITE) end++;
        if (end == n_bytes) return end;
        if (classes[text[end]] == BEYOND) return 0;
        return end - at > 1 ? end - 1 : end;
    }
    while (end < n_bytes && classes[text[end]] == class) end++;
    return end < n_bytes && classes[text[end]] == BEYOND ? 0 : end;
}

size_t attn_splitter_next(attn_splitter *splitter, const char *text, size_t n_bytes, size_t at)
{
    const size_t end = ascii_end((const unsigned char *)text, n_bytes, at);
    return end ? end : attn_splitter_next_by_pattern(splitter, text, n_bytes, at);
}
