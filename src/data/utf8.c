/* Validation of UTF-8 and stripping of white space. */
#include "data/utf8.h"

#include <string.h>

/* The length of the sequence that `lead` begins (0: it begins none), and the range that the
 * byte after it must lie in; the later ones lie in 80..BF. */
static size_t sequence_length(unsigned char lead, unsigned char *low, unsigned char *high)
{
    *low = 0x80;
    *high = 0xBF;
    if (lead < 0x80) return 1;
    if (lead >= 0xC2 && lead <= 0xDF) return 2;
    if (lead >= 0xE0 && lead <= 0xEF) {
        if (lead == 0xE0) *low = 0xA0;
        if (lead == 0xED) *high = 0x9F;
        return 3;
    }
    if (lead >= 0xF0 && lead <= 0xF4) {
        if (lead == 0xF0) *low = 0x90;
        if (lead == 0xF4) *high = 0x8F;
        return 4;
    }
    return 0;
}

/* How many of the n bytes form the beginning of one valid sequence; *length is what it needs. */
static size_t matched(const unsigned char *at, size_t n, size_t *length)
{
    unsigned char low, high;
    *length = sequence_length(at[0], &low, &high);
    if (*length == 0) return 0;
    size_t good = 1;
    while (good < *length && good < n && at[good] >= low && at[good] <= high) {
        good++;
        low = 0x80;
        high = 0xBF;
    }
    return good;
}

size_t attn_utf8_valid_prefix(const char *text, size_t n_bytes)
{
    const unsigned char *bytes = (const unsigned char *)text;
    size_t at = 0;
    while (at < n_bytes) {
        while (n_bytes - at >= 8) {
            uint64_t word;
            memcpy(&word, bytes + at, sizeof word);
            if (word & 0x8080808080808080u) break;
            at += 8;
        }
        if (at == n_bytes) break;
        size_t length;
        if (matched(bytes + at, n_bytes - at, &length) != length || length == 0) break;
        at += length;
    }
    return at;
}

bool attn_utf8_is_cut(const char *text, size_t n_bytes)
{
    size_t length;
    return n_bytes > 0 && matched((const unsigned char *)text, n_bytes, &length) == n_bytes &&
           n_bytes < length;
}

/* The characters for which Python's str.isspace() is true, as UTF-8. */
static size_t space_length(const unsigned char *at, size_t n)
{
    if (n >= 1 && ((at[0] >= 0x09 && at[0] <= 0x0D) || (at[0] >= 0x1C && at[0] <= 0x20))) return 1;
    if (n >= 2 && at[0] == 0xC2 && (at[1] == 0x85 || at[1] == 0xA0)) return 2;
    if (n < 3) return 0;
    const uint32_t code =
        (uint32_t)(at[0] & 0x0F) << 12 | (uint32_t)(at[1] & 0x3F) << 6 | (at[2] & 0x3F);
    const bool is_space = at[0] >= 0xE0 && at[0] <= 0xEF &&
                          (code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
                           code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000);
    return is_space ? 3 : 0;
}

size_t attn_utf8_stripped_end(const char *text, size_t n_bytes)
{
    const unsigned char *bytes = (const unsigned char *)text;
    while (n_bytes > 0) {
        size_t start = n_bytes - 1;
        while (start > 0 && (bytes[start] & 0xC0) == 0x80) start--;
        if (space_length(bytes + start, n_bytes - start) == 0) break;
        n_bytes = start;
    }
    return n_bytes;
}

void attn_utf8_strip(const char **text, size_t *n_bytes)
{
    *n_bytes = attn_utf8_stripped_end(*text, *n_bytes);
    for (size_t space; (space = space_length((const unsigned char *)*text, *n_bytes)) > 0;) {
        *text += space;
        *n_bytes -= space;
    }
}
