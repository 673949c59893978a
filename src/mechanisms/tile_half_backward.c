/* The tile engine at level `amx` in bfloat16: backward. See tile_engine.h for the equations.
 *
 * A task owns a key/value head with all its query heads. It goes by blocks of 256 queries and 256
 * keys. In each, by units of 32 queries and 32 keys, S and dP = dO' V^T become P and dS, rounded, in
 * the order in which products read them; S and dP of the next unit are made beside that. Then the
 * block adds
 *     dQ += dS K,  dK^T += Q^T dS,  dV^T += dO'^T P.
 * All queries see a range of keys that the second cache has room for, then the next one. */
#include "mechanisms/tile_half_backward.h"

#include "base/threads.h"

#include <math.h>
#include <string.h>

size_t attn_half_backward_scratch(const attn_tile_shape *shape, size_t threads)
{
    return threads * attn_half_backward_worker(shape) + ATTN_HALF_LINE;
}

/* ---- a block ----------------------------------------------------------------------------- */

/* Strips of tiles that are seen, of a row of the block or of a column. */
typedef struct seen {
    size_t n;
    uint32_t cells[ATTN_HALF_GROUP_STRIPS];
} seen;

/* Tiles from query tile i0 and key tile j0 on, up to ATTN_HALF_GROUP of each. */
typedef struct block {
    size_t i0, j0;
    size_t place; /* of the first key tile in memory */
    attn_tile_kind kind[ATTN_HALF_GROUP][ATTN_HALF_GROUP];
    seen row[ATTN_HALF_GROUP], column[ATTN_HALF_GROUP];
} block;

static void add_tile(seen *s, size_t at)
{
    for (size_t i = 0; i < ATTN_TILE_STRIPS; i++)
        s->cells[s->n++] = (uint32_t)(at * ATTN_TILE_STRIPS + i);
}

static attn_tile tile_at(const attn_half_gradients *job, const block *b, size_t i, size_t j)
{
    const attn_tile_shape *shape = &job->call->shape;
    attn_tile t = {.i0 = (b->i0 + i) * ATTN_TILE_QUERIES, .j0 = (b->j0 + j) * ATTN_TILE_KEYS};
    t.ni = attn_smaller(ATTN_TILE_QUERIES, shape->queries - t.i0);
    t.nj = attn_smaller(ATTN_TILE_KEYS, shape->keys - t.j0);
    return t;
}

static void count_tile(const attn_half_gradients *job, const attn_tile *tile, attn_tile_kind kind,
                       attn_work *work)
{
    const attn_tile_shape *shape = &job->call->shape;
    const attn_score *score = job->call->rule.score;
    const uint64_t pairs = (uint64_t)tile->ni * tile->nj;
    work->matmul += pairs * (6 * shape->key_width + 4 * shape->value_width);
    work->exponential += pairs;
    work->other += (kind == ATTN_TILE_FULL ? 4 : 5) * pairs;
    if (!score) return;
    attn_work_add(work, attn_work_times(score->value, pairs));
    attn_work_add(work, attn_work_times(score->slope, pairs));
}

static void find_tiles(const attn_half_gradients *job, size_t head, const uint32_t *documents,
                       block *b, attn_work *work)
{
    const attn_mask *mask = &job->call->rule.mask;
    const size_t rows = job->query_strips / 2 - b->i0, columns = job->key_strips / 2 - b->j0;
    for (size_t i = 0; i < ATTN_HALF_GROUP; i++)
        for (size_t j = 0; j < ATTN_HALF_GROUP; j++) {
            attn_tile_kind *kind = &b->kind[i][j];
            *kind = ATTN_TILE_EMPTY;
            if (i >= rows || j >= columns) continue;
            const attn_tile tile = tile_at(job, b, i, j);
            *kind = mask->tile(mask->rule, head, &tile, documents);
            if (*kind == ATTN_TILE_EMPTY) continue;
            add_tile(&b->row[i], j);
            add_tile(&b->column[j], i);
            count_tile(job, &tile, *kind, work);
        }
}

static attn_tile_kind unit_kind(const block *b, size_t unit)
{
    return b->kind[unit / ATTN_HALF_GROUP_STRIPS / ATTN_TILE_STRIPS]
                  [unit % ATTN_HALF_GROUP_STRIPS / ATTN_TILE_STRIPS];
}

/* The first unit from this one on of a tile that is not empty, or ATTN_HALF_UNITS. */
static size_t find_unit(const block *b, size_t unit)
{
    while (unit < ATTN_HALF_UNITS && unit_kind(b, unit) == ATTN_TILE_EMPTY) unit++;
    return unit;
}

static attn_amx_scores ask_scores(const attn_half_gradients *job, const attn_half_head *room,
                                  const block *b, size_t unit, size_t turn)
{
    const size_t row = ATTN_TILE_STRIPS * b->i0 + unit / ATTN_HALF_GROUP_STRIPS;
    const size_t column = ATTN_TILE_STRIPS * b->place + unit % ATTN_HALF_GROUP_STRIPS;
    return (attn_amx_scores){.q = room->q + row * job->key_cells * ATTN_CELL,
                             .keys = room->keys + column * job->key_cells * ATTN_CELL,
                             .d_o = room->d_o + row * job->value_cells * ATTN_CELL,
                             .values = room->values + column * job->value_cells * ATTN_CELL,
                             .key_cells = job->key_cells,
                             .value_cells = job->value_cells,
                             .scores = room->s + turn % 2 * ATTN_HALF_SQUARE,
                             .dp = room->dp + turn % 2 * ATTN_HALF_SQUARE};
}

/* From products to scores. Keys behind the last one are not seen. */
static void finish_scores(const attn_half_gradients *job, const attn_half_head *room, size_t head,
                          const uint32_t *documents, const block *b, size_t unit, float *s)
{
    const attn_tile_call *call = job->call;
    const attn_tile_rule *rule = &call->rule;
    const size_t T = call->shape.queries, S = call->shape.keys;
    const bool has_slope = rule->score && rule->score->has_slope;
    attn_tile tile = {.i0 = b->i0 * ATTN_TILE_QUERIES + unit / ATTN_HALF_GROUP_STRIPS * ATTN_STRIP,
                      .j0 = b->j0 * ATTN_TILE_KEYS + unit % ATTN_HALF_GROUP_STRIPS * ATTN_STRIP};
    tile.ni = tile.i0 < T ? attn_smaller(ATTN_STRIP, T - tile.i0) : 0;
    tile.nj = tile.j0 < S ? attn_smaller(ATTN_STRIP, S - tile.j0) : 0;
    if (has_slope && tile.ni * tile.nj < ATTN_HALF_SQUARE)
        memset(room->slope, 0, ATTN_HALF_SQUARE * sizeof *room->slope);
    if (tile.ni * tile.nj > 0)
        attn_tile_finish_scores(rule, call->context->kernels, head, &tile, unit_kind(b, unit),
                                documents, job->scale, s, ATTN_STRIP,
                                has_slope ? room->slope : NULL, ATTN_STRIP);
    for (size_t i = 0; tile.nj < ATTN_STRIP && i < tile.ni; i++)
        for (size_t j = tile.nj; j < ATTN_STRIP; j++) s[i * ATTN_STRIP + j] = -INFINITY;
}

/* P and dS of all units, strip of queries by strip of queries. */
static void make_factors(const attn_half_gradients *job, const attn_half_head *room, size_t head,
                         const uint32_t *documents, const block *b)
{
    const bool has_slope = job->call->rule.score && job->call->rule.score->has_slope;
    size_t unit = find_unit(b, 0);
    if (unit == ATTN_HALF_UNITS) return;
    attn_amx_scores next = ask_scores(job, room, b, unit, 0);
    attn_amx_run_gradient(NULL, &next);
    for (size_t turn = 0, after; unit < ATTN_HALF_UNITS; turn++, unit = after) {
        const size_t strip = unit / ATTN_HALF_GROUP_STRIPS, column = unit % ATTN_HALF_GROUP_STRIPS;
        const size_t first = b->i0 * ATTN_TILE_QUERIES + strip * ATTN_STRIP;
        const size_t right = (column * ATTN_HALF_GROUP_STRIPS + strip) * ATTN_CELL;
        float *s = room->s + turn % 2 * ATTN_HALF_SQUARE;
        finish_scores(job, room, head, documents, b, unit, s);
        after = find_unit(b, unit + 1);
        if (after < ATTN_HALF_UNITS) next = ask_scores(job, room, b, after, turn + 1);
        attn_amx_run_gradient(&(attn_amx_gradient){.factor = job->factor,
                                                   .scores = s,
                                                   .dp = room->dp + turn % 2 * ATTN_HALF_SQUARE,
                                                   .slope = has_slope ? room->slope : NULL,
                                                   .top = room->top + first,
                                                   .delta = room->delta + first,
                                                   .p_right = room->p_right + right,
                                                   .ds_right = room->ds_right + right,
                                                   .ds_left = room->ds_left + unit * ATTN_CELL},
                              after < ATTN_HALF_UNITS ? &next : NULL);
    }
}

/* dQ += dS K. What stays near is a strip of K's columns. */
static void add_queries(const attn_half_gradients *job, const attn_half_head *room, const block *b)
{
    const size_t row = job->key_cells * ATTN_STRIP;
    for (size_t i = 0; i < job->key_cells; i++) {
        attn_amx_block blocks[ATTN_HALF_GROUP_STRIPS];
        size_t n = 0;
        for (size_t strip = 0; strip < ATTN_HALF_GROUP_STRIPS; strip++) {
            const seen *keys = &b->row[strip / ATTN_TILE_STRIPS];
            const size_t at = 2 * b->i0 + strip;
            if (keys->n == 0) continue;
            blocks[n++] = (attn_amx_block){
                .left = room->ds_left + strip * ATTN_HALF_GROUP_STRIPS * ATTN_CELL,
                .right = room->key_rows + (i * job->held_strips + 2 * b->place) * ATTN_CELL,
                .left_cells = keys->cells,
                .right_cells = keys->cells,
                .n_cells = keys->n,
                .sums = room->dq + at * ATTN_STRIP * row + i * ATTN_STRIP,
                .sums_row = row,
                .adds = room->has_dq[at / ATTN_TILE_STRIPS]};
        }
        attn_amx_multiply(n, blocks);
    }
}

/* sums += left^T times P or dS. What stays near is a strip of the left factor's columns. */
static void add_keys(const attn_half_gradients *job, const attn_half_head *room, const block *b,
                     size_t width_strips, const attn_bf16 *left, const attn_bf16 *right,
                     float *sums)
{
    for (size_t i = 0; i < width_strips; i++) {
        attn_amx_block blocks[ATTN_HALF_GROUP_STRIPS];
        size_t n = 0;
        for (size_t strip = 0; strip < ATTN_HALF_GROUP_STRIPS; strip++) {
            const seen *queries = &b->column[strip / ATTN_TILE_STRIPS];
            const size_t at = 2 * b->place + strip;
            if (queries->n == 0) continue;
            blocks[n++] =
                (attn_amx_block){.left = left + (i * job->query_strips + 2 * b->i0) * ATTN_CELL,
                                 .right = right + strip * ATTN_HALF_GROUP_STRIPS * ATTN_CELL,
                                 .left_cells = queries->cells,
                                 .right_cells = queries->cells,
                                 .n_cells = queries->n,
                                 .sums = sums + (at * width_strips + i) * ATTN_HALF_SQUARE,
                                 .sums_row = ATTN_STRIP,
                                 .adds = room->has_dk[at / ATTN_TILE_STRIPS]};
        }
        attn_amx_multiply(n, blocks);
    }
}

static void run_block(const attn_half_gradients *job, const attn_half_head *room, size_t head,
                      const uint32_t *documents, block *b, attn_work *work)
{
    find_tiles(job, head, documents, b, work);
    make_factors(job, room, head, documents, b);
    add_queries(job, room, b);
    add_keys(job, room, b, job->value_cells, room->d_o_columns, room->p_right, room->dv);
    add_keys(job, room, b, job->key_cells, room->q_columns, room->ds_right, room->dk);
    for (size_t i = 0; i < ATTN_HALF_GROUP; i++) {
        if (b->row[i].n > 0) room->has_dq[b->i0 + i] = true;
        if (b->column[i].n > 0) room->has_dk[b->place + i] = true;
    }
}

/* What a task needs is packed, and what it is done with stored, while it is near. */
static void run_kv_head(void *argument, size_t index, size_t worker)
{
    attn_half_gradients *job = argument;
    const attn_tile_call *call = job->call;
    const attn_tile_shape *shape = &call->shape;
    const size_t dk = shape->key_width, group = shape->heads / shape->kv_heads;
    const size_t n_keys = job->key_strips / ATTN_TILE_STRIPS;
    const size_t n_queries = job->query_strips / ATTN_TILE_STRIPS;
    const size_t b = index / shape->kv_heads, g = index % shape->kv_heads;
    const attn_half_head room = attn_half_divide(job->workers + worker * job->worker_count, job);
    const uint32_t *documents =
        call->document_start ? call->document_start + b * shape->queries : NULL;
    attn_work *work = &job->tally.of[worker];

    for (size_t h = g * group; h < (g + 1) * group; h++)
        for (size_t j0 = 0; j0 < n_keys; j0 += ATTN_HALF_RANGE) {
            const attn_half_tiles keys = {.first = j0,
                                          .last = attn_smaller(j0 + ATTN_HALF_RANGE, n_keys)};
            if (h == g * group) attn_half_load_keys(job, &room, b, g, &keys);
            for (size_t i0 = 0; i0 < n_queries; i0 += ATTN_HALF_GROUP) {
                const attn_half_tiles queries = {
                    .first = i0, .last = attn_smaller(i0 + ATTN_HALF_GROUP, n_queries)};
                if (j0 == 0) attn_half_load_queries(job, &room, b, h, &queries);
                attn_amx_begin();
                for (size_t j = j0; j < keys.last; j += ATTN_HALF_GROUP) {
                    block now = {.i0 = i0, .j0 = j, .place = attn_half_key_place(job, j)};
                    run_block(job, &room, h, documents, &now, work);
                }
                attn_amx_end();
                if (keys.last == n_keys) attn_half_store_queries(job, &room, b, h, &queries);
            }
            if (h == (g + 1) * group - 1) attn_half_store_keys(job, &room, b, g, &keys);
        }
    attn_end_stores();
    /* dO / l, delta, 1 / l and the scale of dq; that of dk */
    work->other += (uint64_t)group * shape->queries * (3 * shape->value_width + dk + 1);
    work->other += (uint64_t)shape->keys * dk;
}

void attn_half_backward(const attn_tile_call *call)
{
    const attn_tile_shape *shape = &call->shape;
    const size_t threads = call->context->threads;
    attn_half_gradients job = {.call = call,
                               .scale = attn_tile_scale(shape),
                               .factor = attn_tile_factor(&call->rule, shape),
                               .key_cells = attn_strips(shape->key_width),
                               .value_cells = attn_strips(shape->value_width),
                               .key_strips = attn_amx_row_strips(shape->keys),
                               .held_strips = attn_half_held_strips(shape),
                               .query_strips = attn_amx_row_strips(shape->queries),
                               .workers = attn_half_aligned(call->scratch),
                               .worker_count = attn_half_backward_worker(shape)};
    attn_parallel(threads, shape->batch * shape->kv_heads, run_kv_head, &job);
    attn_tally_collect(&job.tally, threads, &call->context->work);
}
