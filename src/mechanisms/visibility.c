/* The visibility rule. A query's keys are a range [low, high) plus the sinks before it. */
#include "mechanisms/visibility.h"

#include <math.h>
#include <string.h>

typedef struct span {
    size_t low, high;
} span;

static size_t lesser(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t greater(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Keys of query i by order and window; high is not bounded by the length. */
static span window_span(const attn_visibility *rule, size_t i)
{
    const bool has_window = rule->window != ATTN_NO_WINDOW;
    if (!rule->is_causal && i < rule->sinks) return (span){0, SIZE_MAX};
    return (span){.low = has_window && i >= rule->window ? i - rule->window + 1 : 0,
                  .high = rule->is_causal ? i + 1
                          : has_window    ? i + rule->window
                                          : SIZE_MAX};
}

static bool sees(const void *opaque, size_t head, size_t i, size_t j, size_t document)
{
    (void)head;
    const attn_visibility *rule = opaque;
    if (j < document) return false;
    const span s = window_span(rule, i);
    const bool is_sink = j - document < rule->sinks && (!rule->is_causal || j <= i);
    return is_sink || (j >= s.low && j < s.high);
}

/* Within one document. */
static attn_tile_kind tile_of(const attn_visibility *rule, const attn_tile *t)
{
    const size_t i0 = t->i0, j0 = t->j0;
    const size_t i1 = i0 + t->ni - 1, j1 = j0 + t->nj - 1; /* last query, last key */
    const span first = window_span(rule, i0), last = window_span(rule, i1);
    const bool in_order = !rule->is_causal || j1 <= i0, reachable = !rule->is_causal || j0 <= i1;
    if (!reachable) return ATTN_TILE_EMPTY;
    if (in_order && j1 < rule->sinks) return ATTN_TILE_FULL;
    if (!rule->is_causal && i1 < rule->sinks) return ATTN_TILE_FULL;
    const bool sinks_of_rows = !rule->is_causal && i0 < rule->sinks;
    /* Both ends of the span grow with i, apart from the rows that are sinks themselves. */
    if (!sinks_of_rows && j0 >= last.low && j1 < first.high) return ATTN_TILE_FULL;
    const bool window_meets = j1 >= first.low && j0 < last.high;
    return window_meets || sinks_of_rows || j0 < rule->sinks ? ATTN_TILE_PARTIAL : ATTN_TILE_EMPTY;
}

/* With documents and sinks any earlier tile may hold a document's sinks. */
static attn_tile_kind tile(const void *opaque, size_t head, const attn_tile *t,
                           const uint32_t *documents)
{
    (void)head;
    const attn_visibility *rule = opaque;
    if (!documents || rule->sinks == 0 || rule->window == ATTN_NO_WINDOW) return tile_of(rule, t);
    attn_visibility widened = *rule;
    widened.window = ATTN_NO_WINDOW;
    return tile_of(&widened, t) == ATTN_TILE_EMPTY ? ATTN_TILE_EMPTY : ATTN_TILE_PARTIAL;
}

/* What compilers do not make vectors of by themselves at their usual level. */
enum { HIDDEN = 8 };
static const float hidden[HIDDEN] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY,
                                     -INFINITY, -INFINITY, -INFINITY, -INFINITY};

/* Hides keys [from, to) of those at scores[0..nj), which start with key j0. */
static void hide_range(size_t from, size_t to, size_t j0, size_t nj, float *scores)
{
    const size_t first = greater(from, j0) - j0, end = lesser(greater(to, j0) - j0, nj);
    size_t j = first;
    for (; j < end && end - j >= HIDDEN; j += HIDDEN) memcpy(scores + j, hidden, sizeof hidden);
    for (; j < end; j++) scores[j] = -INFINITY;
}

/* What is seen are the sinks [document, sinks_high) and the span [low, high): the rest are three
 * gaps, of which the middle one is empty when the two meet. */
static void hide(const void *opaque, size_t head, size_t i, size_t j0, size_t nj, size_t document,
                 float *scores)
{
    (void)head;
    const attn_visibility *rule = opaque;
    const span s = window_span(rule, i);
    const size_t low = greater(s.low, document), last_sink = document + rule->sinks;
    const size_t sinks_high = rule->is_causal ? lesser(last_sink, i + 1) : last_sink;
    hide_range(0, document, j0, nj, scores);
    hide_range(sinks_high, low, j0, nj, scores);
    hide_range(greater(sinks_high, s.high), j0 + nj, j0, nj, scores);
}

attn_mask attn_visibility_mask(const attn_visibility *rule)
{
    return (attn_mask){.rule = rule, .sees = sees, .tile = tile, .hide = hide};
}

uint64_t attn_count_pairs(const attn_visibility *rule, size_t length)
{
    uint64_t pairs = 0;
    for (size_t i = 0; i < length; i++) {
        const span s = window_span(rule, i);
        const size_t high = lesser(s.high, length);
        const size_t sinks_high = lesser(rule->sinks, rule->is_causal ? i + 1 : length);
        pairs += (high > s.low ? high - s.low : 0) + lesser(sinks_high, s.low);
    }
    return pairs;
}
