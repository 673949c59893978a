/* The tile engine: work in closed form. What a row's reference costs when it rises is not
 * counted: how often that happens depends on the data, and it is rare. */
#include "mechanisms/tile_engine.h"

static void count_head(const attn_tile_shape *shape, const attn_mask *mask, size_t head,
                       const uint32_t *documents, uint64_t times, attn_tile_count *count)
{
    for (size_t i0 = 0; i0 < shape->queries; i0 += ATTN_TILE_QUERIES)
        for (size_t j0 = 0; j0 < shape->keys; j0 += ATTN_TILE_KEYS) {
            const attn_tile tile = {.i0 = i0,
                                    .ni = attn_smaller(ATTN_TILE_QUERIES, shape->queries - i0),
                                    .j0 = j0,
                                    .nj = attn_smaller(ATTN_TILE_KEYS, shape->keys - j0)};
            const attn_tile_kind kind = mask->tile(mask->rule, head, &tile, documents);
            if (kind == ATTN_TILE_EMPTY) continue;
            const uint64_t pairs = (uint64_t)tile.ni * tile.nj;
            count->elements += times * pairs;
            count->row_visits += times * tile.ni;
            if (kind == ATTN_TILE_PARTIAL) count->masked += times * pairs;
        }
}

static attn_tile_count count_all(const attn_tile_shape *shape, const attn_mask *mask,
                                 const uint32_t *document_start)
{
    attn_tile_count count = {0};
    const size_t sequences = document_start ? shape->batch : 1;
    const size_t heads = mask->is_by_head ? shape->heads : 1;
    for (size_t b = 0; b < sequences; b++)
        for (size_t h = 0; h < heads; h++)
            count_head(shape, mask, h, document_start ? document_start + b * shape->queries : NULL,
                       shape->batch / sequences * (shape->heads / heads), &count);
    return count;
}

attn_work attn_tile_count_work(const attn_tile_shape *shape, const attn_tile_rule *rule,
                               attn_phase phase, const attn_tile_count *tiles)
{
    const uint64_t dk = shape->key_width, dv = shape->value_width, E = tiles->elements;
    const uint64_t rows = (uint64_t)shape->batch * shape->heads * shape->queries;
    attn_work work = rule->score ? attn_work_times(rule->score->value, E) : (attn_work){0};
    if (phase == ATTN_PHASE_BACKWARD) {
        if (rule->score) attn_work_add(&work, attn_work_times(rule->score->slope, E));
        const uint64_t kv_rows = (uint64_t)shape->batch * shape->kv_heads * shape->keys;
        const uint64_t sums = (attn_tile_parts(shape) - 1) * (dk + dv);
        /* the last terms are the scale of dk, and the sums of parts of dk and dv */
        attn_work_add(&work, (attn_work){.matmul = E * (6 * dk + 4 * dv),
                                         .exponential = E,
                                         .other = 4 * E + tiles->masked + rows * (3 * dv + dk + 1) +
                                                  kv_rows * (dk + sums)});
        return work;
    }
    const uint64_t compared = rule->order == ATTN_TILE_ONLINE ? tiles->row_visits : rows;
    attn_work_add(&work, (attn_work){.matmul = 2 * E * (dk + dv),
                                     .exponential = E,
                                     .other = 4 * E + tiles->masked + compared + rows * (dv + 1)});
    return work;
}

attn_work attn_tile_work(const attn_tile_shape *shape, const attn_tile_rule *rule, attn_phase phase,
                         const uint32_t *document_start)
{
    const attn_tile_count tiles = count_all(shape, &rule->mask, document_start);
    return attn_tile_count_work(shape, rule, phase, &tiles);
}
