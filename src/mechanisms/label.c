/* Parts patterns and lists of mechanisms. */
#include "mechanisms/label.h"

#include "attn/layer.h"
#include "base/error.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* A stretch of the user's text. */
typedef struct span {
    const char *at;
    size_t n;
} span;

#define SPAN(s) (int)(s).n, (s).at

/* ---- pieces ------------------------------------------------------------------------------ */

/* Up to the next '+'; one before a digit belongs to a number, such as 1e+3. */
static span next_piece(const char *at, const char *end)
{
    size_t n = 0;
    while (at + n < end &&
           (at[n] != '+' || (at + n + 1 < end && isdigit((unsigned char)at[n + 1]))))
        n++;
    return (span){at, n};
}

/* Takes "*times" off the end of a piece; 0 when it cannot be read. */
static size_t take_times(span *piece)
{
    const char *star = memchr(piece->at, '*', piece->n);
    if (!star) return 1;
    size_t times = 0;
    for (const char *c = star + 1; c < piece->at + piece->n; c++) {
        if (!isdigit((unsigned char)*c)) return 0;
        times = 10 * times + (size_t)(*c - '0');
        if (times > ATTN_PATTERN_BLOCKS_MAX) return 0;
    }
    piece->n = (size_t)(star - piece->at);
    return times;
}

static attn_status find_kind(attn_pattern *pattern, span piece, size_t *kind, attn_error *error)
{
    if (piece.n >= ATTN_LABEL_BYTES)
        return attn_fail(error, ATTN_EARGUMENT, "'%.*s' is too long for a mechanism", SPAN(piece));
    for (*kind = 0; *kind < pattern->n_kinds; ++*kind) {
        const char *label = pattern->kinds[*kind].label;
        if (strlen(label) == piece.n && memcmp(label, piece.at, piece.n) == 0) return ATTN_OK;
    }
    if (*kind == ATTN_PATTERN_KINDS_MAX)
        return attn_fail(error, ATTN_EARGUMENT,
                         "'%.*s' is one mechanism more than the %d that a "
                         "pattern may have",
                         SPAN(piece), ATTN_PATTERN_KINDS_MAX);
    attn_label *l = &pattern->kinds[pattern->n_kinds++];
    memcpy(l->label, piece.at, piece.n);
    l->label[piece.n] = '\0';
    const size_t name_length = strcspn(l->label, ":");
    strcpy(l->name, l->label);
    l->name[name_length] = '\0';
    strcpy(l->options, l->label[name_length] ? l->label + name_length + 1 : "");
    for (char *c = l->options; *c; c++)
        if (*c == ':') *c = ',';
    return ATTN_OK;
}

static attn_status add_piece(attn_pattern *pattern, span piece, span whole, attn_error *error)
{
    const span written = piece;
    const size_t times = take_times(&piece);
    size_t kind = 0;
    if (times == 0)
        return attn_fail(error, ATTN_EARGUMENT,
                         "'%.*s': behind * comes a number of blocks from 1 to %d and nothing more, "
                         "as in sliding:window=64*3",
                         SPAN(written), ATTN_PATTERN_BLOCKS_MAX);
    if (piece.n == 0)
        return attn_fail(error, ATTN_EARGUMENT,
                         "'%.*s': a mechanism is missing beside + or *, as in sliding*3+softmax",
                         SPAN(whole));
    const attn_status status = find_kind(pattern, piece, &kind, error);
    if (status != ATTN_OK) return status;
    if (times > ATTN_PATTERN_BLOCKS_MAX - pattern->n_blocks)
        return attn_fail(error, ATTN_EARGUMENT, "'%.*s' makes a pattern of more than %d blocks",
                         SPAN(written), ATTN_PATTERN_BLOCKS_MAX);
    for (size_t i = 0; i < times; i++) pattern->blocks[pattern->n_blocks++] = (unsigned char)kind;
    return ATTN_OK;
}

/* ---- patterns ---------------------------------------------------------------------------- */

/* a+b+a+b is a+b. */
static void shorten(attn_pattern *pattern)
{
    for (size_t period = 1; period < pattern->n_blocks; period++) {
        size_t i = period;
        while (i < pattern->n_blocks && pattern->blocks[i] == pattern->blocks[i - period]) i++;
        if (i == pattern->n_blocks && i % period == 0) pattern->n_blocks = period;
    }
}

/* Never longer than what was read. */
static void spell(attn_pattern *pattern)
{
    char out[ATTN_PATTERN_BYTES];
    size_t used = 0, times = 0;
    for (size_t i = 0; i < pattern->n_blocks; i += times) {
        for (times = 1; i + times < pattern->n_blocks; times++)
            if (pattern->blocks[i + times] != pattern->blocks[i]) break;
        const char *plus = i ? "+" : "", *label = pattern->kinds[pattern->blocks[i]].label;
        const size_t room = sizeof out - used;
        used += (size_t)(times > 1 ? snprintf(out + used, room, "%s%s*%zu", plus, label, times)
                                   : snprintf(out + used, room, "%s%s", plus, label));
    }
    memcpy(pattern->label, out, used + 1);
}

static attn_status parse_pattern(span text, attn_pattern *pattern, attn_error *error)
{
    *pattern = (attn_pattern){.n_kinds = 0};
    if (text.n == 0) return attn_fail(error, ATTN_EARGUMENT, "an empty name among the mechanisms");
    if (text.n >= ATTN_PATTERN_BYTES)
        return attn_fail(error, ATTN_EARGUMENT, "'%.*s' is too long for a mechanism", SPAN(text));
    for (const char *at = text.at, *end = text.at + text.n;;) {
        const span piece = next_piece(at, end);
        const attn_status status = add_piece(pattern, piece, text, error);
        if (status != ATTN_OK) return status;
        at += piece.n;
        if (at == end) break;
        at++;
    }
    shorten(pattern);
    spell(pattern);
    return ATTN_OK;
}

attn_status attn_pattern_parse(const char *text, attn_pattern *pattern, attn_error *error)
{
    return parse_pattern((span){text, strlen(text)}, pattern, error);
}

/* ---- lists ------------------------------------------------------------------------------- */

static attn_status add_pattern(attn_pattern *patterns, size_t *count, span text, attn_error *error)
{
    if (*count == ATTN_PATTERNS_MAX)
        return attn_fail(error, ATTN_EARGUMENT, "more than %d mechanisms in one run",
                         ATTN_PATTERNS_MAX);
    attn_pattern *p = &patterns[*count];
    const attn_status status = parse_pattern(text, p, error);
    if (status != ATTN_OK) return status;
    for (size_t i = 0; i < *count; i++)
        if (strcmp(patterns[i].label, p->label) == 0)
            return attn_fail(error, ATTN_EARGUMENT, "mechanism '%s' is named twice", p->label);
    ++*count;
    return ATTN_OK;
}

attn_status attn_patterns_parse(const char *list, bool (*is_meant)(const char *name),
                                attn_pattern patterns[ATTN_PATTERNS_MAX], size_t *count,
                                attn_error *error)
{
    *count = 0;
    attn_status status = ATTN_OK;
    if (strcmp(list, "all") == 0) {
        for (size_t i = 0; i < attn_mechanism_count() && status == ATTN_OK; i++) {
            const char *name = attn_mechanism_name(i);
            if (is_meant(name))
                status = add_pattern(patterns, count, (span){name, strlen(name)}, error);
        }
        return status;
    }
    for (const char *at = list; status == ATTN_OK;) {
        const size_t n = strcspn(at, ",");
        status = add_pattern(patterns, count, (span){at, n}, error);
        if (!at[n]) break;
        at += n + 1;
    }
    return status;
}
