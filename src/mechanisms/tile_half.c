/* The tile engine at level `amx` in bfloat16: forward. Keys and values are packed once a head, then its
 * queries go block by block, as in float32. All strips of a block see one group of key tiles after the
 * other, in steps of one strip and one tile whose scores and P stay in the nearest cache. The softmax
 * of a step runs while the tiles work on the values of the step before and on the scores of the next. */
#include "mechanisms/tile_half.h"

#include "base/threads.h"
#include "mechanisms/tile_heads.h"

#include <math.h>
#include <string.h>

enum {
    BLOCK_QUERIES = 12 * ATTN_TILE_QUERIES, /* each block reads all keys once more */
    SCORES = ATTN_STRIP * ATTN_TILE_KEYS,   /* of a strip and a tile */
    GROUP = 16,                             /* key tiles that all strips see one after the other */
    CELL_LINES = ATTN_CELL / ATTN_STRIP     /* cache lines of a cell */
};

typedef struct forward_job {
    const attn_tile_call *call;
    float scale, factor;                        /* as in float32 */
    size_t key_cells, value_strips, key_strips; /* strips of dk, of dv, of the keys */
    attn_bf16 *keys, *values;                   /* packed, of `together` heads */
    float *workers;
    size_t query_blocks;
    attn_tally tally;
} forward_job;

/* ---- memory ------------------------------------------------------------------------------ */

/* Numbers of one packed key/value head. */
static size_t keys_count(const attn_tile_shape *shape)
{
    return attn_amx_form_count(shape->keys, shape->key_width);
}

static size_t values_count(const attn_tile_shape *shape)
{
    return attn_amx_form_count(shape->keys, shape->value_width);
}

static size_t output_row(const attn_tile_shape *shape)
{
    return attn_strips(shape->value_width) * ATTN_STRIP;
}

/* Scores and P of two steps, or scores, P and a list of all keys. */
static size_t steps_count(const attn_tile_shape *shape)
{
    const size_t strips = attn_amx_row_strips(shape->keys), all = strips / 2 * SCORES;
    const size_t rows = all + attn_half_floats(all) + attn_rounded(strips);
    const size_t online = 2 * (SCORES + attn_half_floats(SCORES));
    return rows > online ? rows : online;
}

static size_t worker_count(const attn_tile_shape *shape)
{
    return attn_half_floats(attn_amx_form_count(BLOCK_QUERIES, shape->key_width)) +
           BLOCK_QUERIES * (output_row(shape) + 1 + ATTN_RUNNING_SUMS) + steps_count(shape);
}

static size_t heads_together(const attn_tile_shape *shape, size_t threads)
{
    enum { NEAR_NUMBERS = 1 << 20 };
    const size_t near = NEAR_NUMBERS / (keys_count(shape) + values_count(shape));
    return attn_smaller(near > threads ? near : threads, shape->batch * shape->kv_heads);
}

size_t attn_half_forward_scratch(const attn_tile_shape *shape, size_t threads)
{
    return heads_together(shape, threads) *
               attn_half_floats(keys_count(shape) + values_count(shape)) +
           threads * worker_count(shape) + ATTN_HALF_LINE;
}

size_t attn_half_scratch(const attn_tile_shape *shape, size_t threads)
{
    const size_t forward = attn_half_forward_scratch(shape, threads);
    const size_t backward = attn_half_backward_scratch(shape, threads);
    return forward > backward ? forward : backward;
}

/* Keys and values [first, first + n) of a head, `first` on a tile, into a place for packed heads. */
static void pack_head(void *argument, size_t place, size_t head, size_t first, size_t n)
{
    const forward_job *job = argument;
    const attn_tile_call *call = job->call;
    const attn_tile_shape *shape = &call->shape;
    const size_t token = head / shape->kv_heads * shape->keys + first, h = head % shape->kv_heads;
    const attn_amx_forms keys = {.right = job->keys + place * keys_count(shape)};
    const attn_amx_forms values = {.right_of_p = job->values + place * values_count(shape),
                                   .row_strips = job->key_strips};
    attn_amx_pack(first / ATTN_STRIP, n, shape->key_width,
                  attn_tile_rows(call->k, call->k_at, token, h), &keys);
    attn_amx_pack(first / ATTN_STRIP, n, shape->value_width,
                  attn_tile_rows(call->v, call->v_at, token, h), &values);
}

/* ---- a block of queries of one head ------------------------------------------------------ */

typedef struct query_block {
    const forward_job *job;
    size_t head, i0, ni;
    const attn_bf16 *keys, *values; /* packed, of its key/value head */
    const uint32_t *documents;      /* of the sequence, or NULL */
    attn_bf16 *q;
    float *o, *top, *total;
    attn_tile_count count;
} query_block;

static attn_tile_kind see_tile(const query_block *block, const attn_tile *tile)
{
    const attn_mask *mask = &block->job->call->rule.mask;
    return mask->tile(mask->rule, block->head, tile, block->documents);
}

/* Queries from `at` on in the block, up to `most`, and a tile of keys. */
static attn_tile tile_at(const query_block *block, size_t at, size_t most, size_t key_tile)
{
    const size_t j0 = key_tile * ATTN_TILE_KEYS;
    return (attn_tile){.i0 = block->i0 + at,
                       .ni = attn_smaller(most, block->ni - at),
                       .j0 = j0,
                       .nj = attn_smaller(ATTN_TILE_KEYS, block->job->call->shape.keys - j0)};
}

static void count_tile(query_block *block, const attn_tile *tile, attn_tile_kind kind)
{
    const uint64_t pairs = (uint64_t)tile->ni * tile->nj;
    block->count.elements += pairs;
    block->count.masked += kind == ATTN_TILE_FULL ? 0 : pairs;
}

static void add_work(const query_block *block, attn_work *work)
{
    const attn_tile_call *call = block->job->call;
    const attn_tile_count *n = &block->count;
    work->matmul += n->elements * 2 * (call->shape.key_width + call->shape.value_width);
    work->exponential += n->elements;
    work->other += 4 * n->elements + n->masked + n->row_visits;
    work->other += (uint64_t)block->ni * (call->shape.value_width + 1);
    if (call->rule.score)
        attn_work_add(work, attn_work_times(call->rule.score->value, n->elements));
}

/* From products to the scores of a strip and a tile. */
static void finish_tile(const query_block *block, const attn_tile *tile, attn_tile_kind kind,
                        float *scores)
{
    const attn_tile_call *call = block->job->call;
    attn_tile_finish_scores(&call->rule, call->context->kernels, block->head, tile, kind,
                            block->documents, block->job->scale, scores, ATTN_TILE_KEYS, NULL, 0);
    for (size_t i = 0; tile->nj < ATTN_TILE_KEYS && i < tile->ni; i++)
        for (size_t j = tile->nj; j < ATTN_TILE_KEYS; j++)
            scores[i * ATTN_TILE_KEYS + j] = -INFINITY;
}

/* ---- online ------------------------------------------------------------------------------ */

/* A step of the kernels' walk. */
typedef struct step {
    attn_amx_step of; /* first: what the kernels hand back */
    attn_tile_kind kind;
} step;

/* Where a block of queries is: all strips for a group of key tiles, each of them step by step. */
typedef struct walk {
    query_block *block;
    size_t group, strip, tile;   /* first tile of the group; next tile */
    attn_tile_kind kinds[GROUP]; /* of the group, for the strip's tile of queries */
    bool has_begun[BLOCK_QUERIES / ATTN_STRIP];
    size_t last; /* tile that is worth asking for */
    /* What the strip asks for beside a tile: so much of the tile a group later, from there on. */
    size_t lines, keys_at, values_at;
} walk;

/* The lines of a tile's packed keys and values are shared out among the strips: a group has come
 * from the third cache when its turn is there. */
static void share_lines(walk *at)
{
    const forward_job *job = at->block->job;
    const size_t strips = attn_strips(at->block->ni), columns = job->value_strips;
    const size_t most = columns > job->key_cells ? columns : job->key_cells;
    const size_t lines = (ATTN_TILE_STRIPS * CELL_LINES * most + strips - 1) / strips;
    const size_t in_column = (strips + columns - 1) / columns;
    at->lines = lines;
    at->keys_at = at->strip * lines * ATTN_STRIP;
    at->values_at = at->strip / in_column * job->key_strips * ATTN_CELL +
                    at->strip % in_column * lines * ATTN_STRIP;
}

static size_t group_end(const walk *at)
{
    return attn_smaller(at->group + GROUP, at->block->job->key_strips / 2);
}

/* A strip begins with a group. */
static void see_group(walk *at)
{
    const size_t query = at->strip / ATTN_TILE_STRIPS * ATTN_TILE_QUERIES;
    at->tile = at->group;
    share_lines(at);
    if (at->strip % ATTN_TILE_STRIPS != 0) return; /* as the strip before */
    for (size_t j = at->group; j < group_end(at); j++) {
        const attn_tile tile = tile_at(at->block, query, ATTN_TILE_QUERIES, j);
        at->kinds[j - at->group] = see_tile(at->block, &tile);
    }
}

static void make_step(walk *at, attn_tile_kind kind, step *s)
{
    query_block *block = at->block;
    const attn_tile tile = tile_at(block, at->strip * ATTN_STRIP, ATTN_STRIP, at->tile);
    const size_t later = at->tile + GROUP, cell = ATTN_TILE_STRIPS * later * ATTN_CELL;
    s->kind = kind;
    s->of = (attn_amx_step){.strip = at->strip,
                            .tile = at->tile,
                            .is_first = !at->has_begun[at->strip],
                            .is_partial = kind != ATTN_TILE_FULL || tile.nj < ATTN_TILE_KEYS ||
                                          block->documents || block->job->call->rule.score};
    if (later <= at->last)
        s->of.ahead =
            (attn_amx_ahead){.keys = block->keys + cell * block->job->key_cells + at->keys_at,
                             .values = block->values + cell + at->values_at,
                             .lines = at->lines};
    at->has_begun[at->strip] = true;
    count_tile(block, &tile, kind);
    block->count.row_visits += tile.ni;
}

/* The next step in which keys are seen. */
static bool next_step(walk *at, step *s)
{
    while (at->group < at->block->job->key_strips / ATTN_TILE_STRIPS) {
        while (at->tile < group_end(at)) {
            const attn_tile_kind kind = at->kinds[at->tile - at->group];
            if (kind != ATTN_TILE_EMPTY) make_step(at, kind, s);
            at->tile++;
            if (kind != ATTN_TILE_EMPTY) return true;
        }
        at->strip = (at->strip + 1) % attn_strips(at->block->ni);
        if (at->strip == 0) at->group = at->tile;
        see_group(at);
    }
    return false;
}

static void finish_scores(void *of, const attn_amx_step *given, float *scores)
{
    const query_block *block = of;
    const step *s = (const step *)(const void *)given;
    const attn_tile tile = tile_at(block, given->strip * ATTN_STRIP, ATTN_STRIP, given->tile);
    finish_tile(block, &tile, s->kind, scores);
}

/* The last tile of keys that the block may see, if it sees keys in causal order or all of them. */
static size_t last_tile(const query_block *block)
{
    const size_t tiles = block->job->key_strips / ATTN_TILE_STRIPS, end = block->ni - 1;
    const attn_tile corner =
        tile_at(block, end / ATTN_TILE_QUERIES * ATTN_TILE_QUERIES, ATTN_TILE_QUERIES, tiles - 1);
    if (see_tile(block, &corner) != ATTN_TILE_EMPTY) return tiles - 1;
    return attn_smaller((block->i0 + end) / ATTN_TILE_KEYS, tiles - 1);
}

static void run_online(query_block *block, float *room)
{
    const forward_job *job = block->job;
    attn_amx_walk kernel = {.queries = block->ni,
                            .key_cells = job->key_cells,
                            .value_strips = job->value_strips,
                            .key_strips = job->key_strips,
                            .factor = job->factor,
                            .q = block->q,
                            .keys = block->keys,
                            .values = block->values,
                            .o = block->o,
                            .top = block->top,
                            .total = block->total,
                            .finish = finish_scores,
                            .of = block};
    walk at = {.block = block, .last = last_tile(block)};
    step steps[3], *before = NULL, *now = &steps[0], *next = &steps[1];
    for (size_t i = 0; i < 2; i++) {
        kernel.scores[i] = attn_cut(&room, SCORES);
        kernel.p[i] = attn_half_cut(&room, SCORES);
    }
    see_group(&at);
    if (!next_step(&at, now)) return;
    attn_amx_start_walk(&kernel, &now->of);
    for (size_t n = 2; now; n++) {
        const bool has_next = next_step(&at, next);
        attn_amx_run_step(&kernel, before ? &before->of : NULL, &now->of,
                          has_next ? &next->of : NULL);
        before = now;
        now = has_next ? next : NULL;
        next = &steps[n % 3];
    }
    attn_amx_end_walk(&kernel, &before->of);
}

/* ---- whole rows -------------------------------------------------------------------------- */

/* Scores of all tiles that a strip sees side by side, then one softmax. */
static void run_rows(query_block *block, float *room)
{
    const forward_job *job = block->job;
    const size_t tiles = job->key_strips / ATTN_TILE_STRIPS, row = output_row(&job->call->shape);
    float *scores = attn_cut(&room, tiles * SCORES);
    attn_bf16 *p = attn_half_cut(&room, tiles * SCORES);
    uint32_t *cells = (uint32_t *)(void *)attn_cut(&room, attn_rounded(2 * tiles));
    for (size_t strip = 0; strip < attn_strips(block->ni); strip++) {
        const size_t first = strip * ATTN_STRIP;
        const attn_bf16 *q = block->q + strip * job->key_cells * ATTN_CELL;
        size_t n = 0;
        for (size_t j = 0; j < tiles; j++) {
            const attn_tile of_queries =
                tile_at(block, first / ATTN_TILE_QUERIES * ATTN_TILE_QUERIES, ATTN_TILE_QUERIES, j);
            const attn_tile tile = tile_at(block, first, ATTN_STRIP, j);
            const attn_tile_kind kind = see_tile(block, &of_queries);
            if (kind == ATTN_TILE_EMPTY) continue;
            attn_amx_block blocks[ATTN_TILE_STRIPS];
            for (size_t i = 0; i < ATTN_TILE_STRIPS; i++) {
                cells[2 * n + i] = (uint32_t)(2 * j + i);
                blocks[i] = (attn_amx_block){.left = q,
                                             .right = block->keys +
                                                      (2 * j + i) * job->key_cells * ATTN_CELL,
                                             .n_cells = job->key_cells,
                                             .sums = scores + n * SCORES + i * ATTN_STRIP,
                                             .sums_row = ATTN_TILE_KEYS};
            }
            attn_amx_multiply(ATTN_TILE_STRIPS, blocks);
            finish_tile(block, &tile, kind, scores + n * SCORES);
            count_tile(block, &tile, kind);
            n++;
        }
        const attn_amx_softmax softmax = {.rows = attn_smaller(ATTN_STRIP, block->ni - first),
                                          .n_tiles = n,
                                          .factor = job->factor,
                                          .scores = scores,
                                          .top = block->top + first,
                                          .total = block->total + first * ATTN_RUNNING_SUMS,
                                          .o = block->o + first * row,
                                          .o_row = row,
                                          .p = p};
        block->count.row_visits += softmax.rows;
        if (n == 0) continue;
        attn_amx_run_softmax(&softmax);
        for (size_t i = 0; i < job->value_strips; i++) {
            const attn_amx_block values = {.left = p,
                                           .right = block->values + i * job->key_strips * ATTN_CELL,
                                           .right_cells = cells,
                                           .n_cells = 2 * n,
                                           .sums = softmax.o + i * ATTN_STRIP,
                                           .sums_row = row};
            attn_amx_multiply(1, &values);
        }
    }
}

static void store_output(const query_block *block, size_t b)
{
    const attn_tile_call *call = block->job->call;
    const size_t T = call->shape.queries, row = b * call->shape.heads + block->head;
    attn_amx_store_rows(&(attn_amx_results){
        .rows = block->ni,
        .width = call->shape.value_width,
        .top = block->top,
        .total = block->total,
        .o = block->o,
        .o_row = output_row(&call->shape),
        .to = call->o + (b * T + block->i0) * call->o_at.row + block->head * call->o_at.head,
        .to_row = call->o_at.row,
        .saved = call->saved ? call->saved + 2 * row * T + block->i0 : NULL,
        .saved_row = T});
}

/* Blocks of queries, the last first, of one query head after the other: those of key/value head `head`,
 * which is packed at `place`. */
static void run_block(void *argument, size_t place, size_t head, size_t index, size_t worker)
{
    forward_job *job = argument;
    const attn_tile_call *call = job->call;
    const attn_tile_shape *shape = &call->shape;
    const size_t T = shape->queries, row = job->value_strips * ATTN_STRIP;
    const size_t block_index = job->query_blocks - 1 - index % job->query_blocks;
    const size_t b = head / shape->kv_heads, group = shape->heads / shape->kv_heads;
    const size_t h = head % shape->kv_heads * group + index / job->query_blocks;
    float *room = job->workers + worker * worker_count(shape);

    query_block block = {.job = job, .head = h, .i0 = block_index * BLOCK_QUERIES};
    block.ni = attn_smaller(BLOCK_QUERIES, T - block.i0);
    block.keys = job->keys + place * keys_count(shape);
    block.values = job->values + place * values_count(shape);
    block.documents = call->document_start ? call->document_start + b * T : NULL;
    block.q = attn_half_cut(&room, attn_amx_form_count(BLOCK_QUERIES, shape->key_width));
    block.o = attn_cut(&room, BLOCK_QUERIES * row);
    block.total = attn_cut(&room, BLOCK_QUERIES * ATTN_RUNNING_SUMS);
    block.top = attn_cut(&room, BLOCK_QUERIES);
    const attn_amx_forms forms = {.left = block.q};
    attn_amx_pack(0, block.ni, shape->key_width,
                  attn_tile_rows(call->q, call->q_at, b * T + block.i0, h), &forms);
    for (size_t i = 0; i < block.ni; i++) block.top[i] = ATTN_RUNNING_START;
    memset(block.total, 0, block.ni * ATTN_RUNNING_SUMS * sizeof *block.total);

    attn_amx_begin();
    if (call->rule.order == ATTN_TILE_ROWS)
        run_rows(&block, room);
    else
        run_online(&block, room);
    attn_amx_end();
    store_output(&block, b);
    attn_end_stores();
    add_work(&block, &job->tally.of[worker]);
}

void attn_half_forward(const attn_tile_call *call)
{
    const attn_tile_shape *shape = &call->shape;
    const size_t heads = shape->batch * shape->kv_heads, threads = call->context->threads;
    const size_t together = heads_together(shape, threads);
    float *room = attn_half_aligned(call->scratch);
    forward_job job = {.call = call,
                       .scale = attn_tile_scale(shape),
                       .factor = attn_tile_factor(&call->rule, shape),
                       .key_cells = attn_strips(shape->key_width),
                       .value_strips = attn_strips(shape->value_width),
                       .key_strips = attn_amx_row_strips(shape->keys),
                       .query_blocks = (shape->queries + BLOCK_QUERIES - 1) / BLOCK_QUERIES};
    job.keys = attn_half_cut(&room, together * keys_count(shape));
    job.values = attn_half_cut(&room, together * values_count(shape));
    job.workers = room;
    attn_tile_run_heads(
        &(attn_tile_heads){.job = &job,
                           .heads = heads,
                           .together = together,
                           .keys = shape->keys,
                           .blocks = shape->heads / shape->kv_heads * job.query_blocks,
                           .pack = pack_head,
                           .run = run_block},
        threads);
    attn_tally_collect(&job.tally, threads, &call->context->work);
}
