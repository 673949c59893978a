/* Pairs by closed form where a rule of visibility allows it, and by walking its tiles otherwise.
 * Lengths are at most 2^28, so that their products fit 64 bits. */
#include "cost/pairs.h"

static size_t lesser(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t tiles_of(size_t length, size_t tile)
{
    return (length + tile - 1) / tile;
}

/* sum of min(x, limit) for x = first .. last, first >= 0 */
static uint64_t sum_of_lesser(uint64_t first, uint64_t last, uint64_t limit)
{
    if (first > last) return 0;
    if (first > limit) return limit * (last - first + 1);
    const uint64_t turn = last < limit ? last : limit;
    const uint64_t rising = (turn * (turn + 1) - (first ? first * (first - 1) : 0)) / 2;
    return rising + limit * (last - turn);
}

/* Of one head, for a causal rule: query at p sees min(p + 1, window) keys and, before those,
 * min(p + 1 - window, sinks). */
static uint64_t visible_by_rule(const attn_visibility *rule, size_t T, size_t S)
{
    const uint64_t first = S - T, window = rule->window < S ? rule->window : S;
    uint64_t count = sum_of_lesser(first + 1, S, window);
    if (S > window)
        count +=
            sum_of_lesser(first + 1 > window ? first + 1 - window : 0, S - window, rule->sinks);
    return count;
}

/* Tiles of one block of queries that stand at [first, last], for a causal rule. */
typedef struct block_span {
    size_t begin, end;           /* tiles that a window reaches */
    size_t full_begin, full_end; /* of those, wholly seen */
    size_t sinks, full_sinks;    /* first tiles that hold sinks; and nothing else */
} block_span;

static block_span span_of(const attn_cost_pairs *p, size_t first, size_t last)
{
    const attn_visibility *rule = p->rule;
    const size_t width = p->tile_keys, all = tiles_of(p->keys, width);
    const size_t low = rule->window <= first ? first - rule->window + 1 : 0;
    const size_t last_low = rule->window <= last ? last - rule->window + 1 : 0;
    block_span s = {.begin = low / width,
                    .end = lesser(last / width + 1, all),
                    .full_begin = tiles_of(last_low, width),
                    .full_end = first + 1 >= p->keys ? all : (first + 1) / width};
    s.sinks = lesser(tiles_of(rule->sinks, width), s.end);
    s.full_sinks = lesser(rule->sinks >= p->keys ? all : rule->sinks / width, s.full_end);
    return s;
}

/* Keys of tiles [begin, end) */
static uint64_t keys_of(const attn_cost_pairs *p, size_t begin, size_t end)
{
    return begin < end ? lesser(end * p->tile_keys, p->keys) - begin * p->tile_keys : 0;
}

static size_t overlap_free(size_t begin, size_t before)
{
    return begin > before ? begin : before;
}

static void executed_by_rule(const attn_cost_pairs *p, attn_tile_count *count)
{
    const size_t offset = p->keys - p->queries;
    for (size_t i0 = 0; i0 < p->queries; i0 += p->tile_queries) {
        const size_t rows = lesser(p->tile_queries, p->queries - i0);
        const block_span s = span_of(p, offset + i0, offset + i0 + rows - 1);
        const size_t begin = overlap_free(s.begin, s.sinks);
        const uint64_t elements = keys_of(p, 0, s.sinks) + keys_of(p, begin, s.end);
        const uint64_t full = keys_of(p, 0, s.full_sinks) +
                              keys_of(p, overlap_free(s.full_begin, s.full_sinks), s.full_end);
        const uint64_t tiles = s.sinks + (begin < s.end ? s.end - begin : 0);
        count->elements += elements * rows;
        count->row_visits += tiles * rows;
        count->masked += (elements - full) * rows;
    }
}

/* A tile as the mask sees it: queries at their positions. */
static attn_tile tile_at(const attn_cost_pairs *p, size_t i0, size_t j0)
{
    return (attn_tile){.i0 = p->keys - p->queries + i0,
                       .ni = lesser(p->tile_queries, p->queries - i0),
                       .j0 = j0,
                       .nj = lesser(p->tile_keys, p->keys - j0)};
}

static void executed_by_walk(const attn_cost_pairs *p, size_t head, attn_tile_count *count)
{
    for (size_t i0 = 0; i0 < p->queries; i0 += p->tile_queries)
        for (size_t j0 = 0; j0 < p->keys; j0 += p->tile_keys) {
            const attn_tile tile = tile_at(p, i0, j0);
            const attn_tile_kind kind = p->mask.tile(p->mask.rule, head, &tile, NULL);
            if (kind == ATTN_TILE_EMPTY) continue;
            const uint64_t pairs = (uint64_t)tile.ni * tile.nj;
            count->elements += pairs;
            count->row_visits += tile.ni;
            count->masked += kind == ATTN_TILE_PARTIAL ? pairs : 0;
        }
}

static uint64_t visible_in_tile(const attn_mask *mask, size_t head, const attn_tile *tile)
{
    uint64_t count = 0;
    for (size_t i = tile->i0; i < tile->i0 + tile->ni; i++)
        for (size_t j = tile->j0; j < tile->j0 + tile->nj; j++)
            count += mask->sees(mask->rule, head, i, j, 0);
    return count;
}

static uint64_t visible_by_walk(const attn_cost_pairs *p, size_t head)
{
    uint64_t count = 0;
    for (size_t i0 = 0; i0 < p->queries; i0 += p->tile_queries)
        for (size_t j0 = 0; j0 < p->keys; j0 += p->tile_keys) {
            const attn_tile tile = tile_at(p, i0, j0);
            const attn_tile_kind kind = p->mask.tile(p->mask.rule, head, &tile, NULL);
            if (kind == ATTN_TILE_FULL) count += (uint64_t)tile.ni * tile.nj;
            if (kind == ATTN_TILE_PARTIAL) count += visible_in_tile(&p->mask, head, &tile);
        }
    return count;
}

static bool has_closed_form(const attn_cost_pairs *p)
{
    return p->rule && p->rule->is_causal;
}

/* The mask shows everything. */
static bool is_whole(const attn_cost_pairs *p)
{
    return p->rule && !p->rule->is_causal && p->rule->window == ATTN_NO_WINDOW &&
           p->rule->sinks == 0;
}

/* Heads that must be walked apart; the others are like the first. */
static size_t distinct_heads(const attn_cost_pairs *p)
{
    return p->mask.is_by_head ? p->heads : 1;
}

bool attn_cost_visible(const attn_cost_pairs *p, uint64_t *count)
{
    *count = 0;
    const uint64_t square = (uint64_t)p->queries * p->keys;
    if (is_whole(p)) {
        *count = p->heads * square;
        return true;
    }
    if (has_closed_form(p)) {
        *count = p->heads * visible_by_rule(p->rule, p->queries, p->keys);
        return true;
    }
    const size_t heads = distinct_heads(p);
    if (square > ATTN_COST_VISITS_MAX / heads) return false;
    for (size_t h = 0; h < heads; h++) *count += p->heads / heads * visible_by_walk(p, h);
    return true;
}

bool attn_cost_executed(const attn_cost_pairs *p, attn_tile_count *count)
{
    *count = (attn_tile_count){0};
    const size_t columns = tiles_of(p->keys, p->tile_keys);
    if (is_whole(p)) {
        *count = (attn_tile_count){.elements = (uint64_t)p->heads * p->queries * p->keys,
                                   .row_visits = (uint64_t)p->heads * p->queries * columns};
        return true;
    }
    const size_t heads = distinct_heads(p);
    if (has_closed_form(p)) {
        executed_by_rule(p, count);
    } else {
        if ((uint64_t)tiles_of(p->queries, p->tile_queries) * columns > ATTN_COST_TILES_MAX / heads)
            return false;
        for (size_t h = 0; h < heads; h++) executed_by_walk(p, h, count);
    }
    const uint64_t times = has_closed_form(p) ? p->heads : p->heads / heads;
    count->elements *= times;
    count->row_visits *= times;
    count->masked *= times;
    return true;
}
