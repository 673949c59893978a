/* The tile engine at level `amx` in bfloat16: forward. Keys and values are packed once a head, then
 * every block of queries is a task, as in float32. A task goes through its strips of queries for one
 * group of key tiles after the other, in steps whose scores and P stay in the nearest cache. The
 * softmax of a step runs while the tiles work on the values of the step before and on the scores of
 * the next. */
#include "mechanisms/tile_half.h"

#include "base/threads.h"

#include <math.h>
#include <string.h>

enum {
    BLOCK_QUERIES = 6 * ATTN_TILE_QUERIES, /* of a task: each reads all keys once more */
    PACK_ROWS = 2 * ATTN_TILE_KEYS,        /* of a task */
    SCORES = ATTN_STRIP * ATTN_TILE_KEYS,  /* of a strip and a tile */
    GROUP = 8,                             /* key tiles that all strips see one after the other */
    STEP_MOST = 4,                         /* key tiles of a step */
    STEP_KEYS = STEP_MOST * ATTN_TILE_KEYS,
    NARROW_CELLS = 2,                             /* that scores sum over: see attention_amx.c */
    BLOCKS_MAX = 2 * STEP_MOST * ATTN_TILE_STRIPS /* of scores, or of values */
};

typedef struct forward_job {
    const attn_tile_call *call;
    float scale, factor;                        /* as in float32 */
    size_t first_head, n_heads;                 /* packed together */
    size_t key_cells, value_strips, key_strips; /* strips of dk, of dv, of the keys */
    size_t step_tiles;                          /* key tiles of a step */
    attn_bf16 *keys, *values;                   /* packed, from first_head on */
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

/* Floats of the lists and of the scores and P of a step of so many columns. */
static size_t lists_count(size_t columns)
{
    return attn_rounded(columns / ATTN_STRIP) + attn_rounded(columns / ATTN_TILE_KEYS);
}

static size_t scores_count(size_t columns)
{
    return ATTN_STRIP * columns + attn_half_floats(ATTN_STRIP * columns);
}

/* Scores and P of two steps and lists of three, or those of all keys. */
static size_t steps_count(const attn_tile_shape *shape)
{
    const size_t all = attn_packed_count(shape->keys, 1);
    const size_t one = scores_count(all) + lists_count(all);
    const size_t several = 2 * scores_count(STEP_KEYS) + 3 * lists_count(STEP_KEYS);
    return one > several ? one : several;
}

static size_t worker_count(const attn_tile_shape *shape)
{
    return attn_half_floats(attn_amx_form_count(BLOCK_QUERIES, shape->key_width)) +
           BLOCK_QUERIES * (output_row(shape) + 1 + ATTN_RUNNING_SUMS) + steps_count(shape);
}

static size_t heads_together(const attn_tile_shape *shape, size_t threads)
{
    enum { NEAR_NUMBERS = 4 << 20 };
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

/* Some rows of all heads that are packed together: those of one token lie side by side. */
static void pack_rows(void *argument, size_t index, size_t worker)
{
    (void)worker;
    const forward_job *job = argument;
    const attn_tile_call *call = job->call;
    const attn_tile_shape *shape = &call->shape;
    const size_t first = index * PACK_ROWS, last = attn_smaller(first + PACK_ROWS, shape->keys);
    for (size_t row = first; row < last; row += ATTN_TILE_KEYS)
        for (size_t i = 0; i < job->n_heads; i++) {
            const size_t head = job->first_head + i, strip = row / ATTN_STRIP;
            const size_t n = attn_smaller(ATTN_TILE_KEYS, last - row);
            const size_t token = head / shape->kv_heads * shape->keys + row;
            const size_t h = head % shape->kv_heads;
            const attn_amx_forms keys = {.right = job->keys + i * keys_count(shape)};
            const attn_amx_forms values = {.right_of_p = job->values + i * values_count(shape),
                                           .row_strips = job->key_strips};
            attn_amx_pack(strip, n, shape->key_width, attn_tile_rows(call->k, call->k_at, token, h),
                          &keys);
            attn_amx_pack(strip, n, shape->value_width,
                          attn_tile_rows(call->v, call->v_at, token, h), &values);
        }
}

/* ---- a block of queries of one head ------------------------------------------------------ */

typedef struct query_block {
    size_t head, i0, ni;
    const attn_bf16 *keys, *values; /* packed, of its key/value head */
    const uint32_t *documents;      /* of the sequence, or NULL */
    attn_bf16 *q;
    float *o, *top, *total;
} query_block;

/* A strip of queries and some key tiles that it sees. */
typedef struct step {
    size_t strip, n_tiles;
    attn_tile_kind *kinds; /* [n_tiles] */
    uint32_t *cells;       /* [2 n_tiles]: strips of the keys */
    float *scores;         /* [n_tiles][32][64] */
    attn_bf16 *p;
} step;

static void cut_lists(float **room, size_t columns, step *s)
{
    s->cells = (uint32_t *)(void *)attn_cut(room, attn_rounded(columns / ATTN_STRIP));
    s->kinds = (attn_tile_kind *)(void *)attn_cut(room, attn_rounded(columns / ATTN_TILE_KEYS));
}

static void place_scores(float *room, size_t columns, step *s)
{
    s->scores = attn_cut(&room, ATTN_STRIP * columns);
    s->p = attn_half_cut(&room, ATTN_STRIP * columns);
}

/* Up to `most` of the key tiles [*next, end) that the strip's tile of queries sees; *next is behind
 * them. */
static void find_tiles(const forward_job *job, const query_block *block, size_t *next, size_t end,
                       size_t most, step *s)
{
    const attn_mask *mask = &job->call->rule.mask;
    const size_t at = s->strip / ATTN_TILE_STRIPS * ATTN_TILE_QUERIES;
    attn_tile tile = {.i0 = block->i0 + at, .ni = attn_smaller(ATTN_TILE_QUERIES, block->ni - at)};
    s->n_tiles = 0;
    for (; *next < end && s->n_tiles < most; ++*next) {
        tile.j0 = *next * ATTN_TILE_KEYS;
        tile.nj = attn_smaller(ATTN_TILE_KEYS, job->call->shape.keys - tile.j0);
        const attn_tile_kind kind = mask->tile(mask->rule, block->head, &tile, block->documents);
        if (kind == ATTN_TILE_EMPTY) continue;
        s->cells[2 * s->n_tiles] = (uint32_t)(2 * *next);
        s->cells[2 * s->n_tiles + 1] = (uint32_t)(2 * *next + 1);
        s->kinds[s->n_tiles++] = kind;
    }
}

/* S = Q K^T by strips of keys; the number of blocks. */
static size_t ask_scores(const forward_job *job, const query_block *block, const step *s,
                         size_t first, size_t n, attn_amx_block *blocks)
{
    for (size_t i = 0; i < n; i++)
        blocks[i] = (attn_amx_block){
            .left = block->q + s->strip * job->key_cells * ATTN_CELL,
            .right = block->keys + s->cells[first + i] * job->key_cells * ATTN_CELL,
            .n_cells = job->key_cells,
            .sums = s->scores + (first + i) / 2 * SCORES + (first + i) % 2 * ATTN_STRIP,
            .sums_row = ATTN_TILE_KEYS,
            .is_narrow = job->key_cells <= NARROW_CELLS};
    return n;
}

/* O += P V by strips of columns. */
static size_t ask_values(const forward_job *job, const query_block *block, const step *s,
                         size_t first, size_t n, attn_amx_block *blocks)
{
    const size_t row = job->value_strips * ATTN_STRIP;
    for (size_t i = 0; i < n; i++)
        blocks[i] = (attn_amx_block){
            .left = s->p,
            .right = block->values + (first + i) * job->key_strips * ATTN_CELL,
            .right_cells = s->cells,
            .n_cells = 2 * s->n_tiles,
            .sums = block->o + s->strip * ATTN_STRIP * row + (first + i) * ATTN_STRIP,
            .sums_row = row,
            .adds = true};
    return n;
}

typedef size_t ask_function(const forward_job *job, const query_block *block, const step *s,
                            size_t first, size_t n, attn_amx_block *blocks);

/* `count` products of a step, now. */
static void multiply(const forward_job *job, const query_block *block, const step *s,
                     ask_function *ask, size_t count)
{
    attn_amx_block blocks[BLOCKS_MAX];
    for (size_t first = 0; first < count; first += BLOCKS_MAX) {
        const size_t n = attn_smaller(BLOCKS_MAX, count - first);
        attn_amx_multiply(ask(job, block, s, first, n, blocks), blocks);
    }
}

/* From products to scores, and what the step costs. */
static void finish_scores(const forward_job *job, const query_block *block, const step *s,
                          attn_work *work)
{
    const attn_tile_call *call = job->call;
    const attn_tile_shape *shape = &call->shape;
    const uint64_t per_pair = 2 * (shape->key_width + shape->value_width);
    const size_t at = s->strip * ATTN_STRIP;
    attn_tile tile = {.i0 = block->i0 + at, .ni = attn_smaller(ATTN_STRIP, block->ni - at)};
    for (size_t t = 0; t < s->n_tiles; t++) {
        tile.j0 = s->cells[2 * t] * ATTN_STRIP;
        tile.nj = attn_smaller(ATTN_TILE_KEYS, shape->keys - tile.j0);
        float *scores = s->scores + t * SCORES;
        attn_tile_finish_scores(&call->rule, call->context->kernels, block->head, &tile,
                                s->kinds[t], block->documents, job->scale, scores, ATTN_TILE_KEYS,
                                NULL, 0);
        for (size_t i = 0; tile.nj < ATTN_TILE_KEYS && i < tile.ni; i++)
            for (size_t j = tile.nj; j < ATTN_TILE_KEYS; j++)
                scores[i * ATTN_TILE_KEYS + j] = -INFINITY;
        const uint64_t pairs = (uint64_t)tile.ni * tile.nj;
        work->matmul += pairs * per_pair;
        work->exponential += pairs;
        work->other += (s->kinds[t] == ATTN_TILE_FULL ? 4 : 5) * pairs;
        if (call->rule.order == ATTN_TILE_ONLINE) work->other += tile.ni;
        if (call->rule.score) attn_work_add(work, attn_work_times(call->rule.score->value, pairs));
    }
    if (call->rule.order == ATTN_TILE_ROWS) work->other += tile.ni;
}

/* P from the scores, beside other products. */
static void exponentiate(const forward_job *job, const query_block *block, const step *s,
                         size_t n_blocks, const attn_amx_block *blocks)
{
    const size_t at = s->strip * ATTN_STRIP, row = job->value_strips * ATTN_STRIP;
    attn_amx_run_softmax(&(attn_amx_softmax){.rows = attn_smaller(ATTN_STRIP, block->ni - at),
                                             .n_tiles = s->n_tiles,
                                             .factor = job->factor,
                                             .scores = s->scores,
                                             .top = block->top + at,
                                             .total = block->total + at * ATTN_RUNNING_SUMS,
                                             .o = block->o + at * row,
                                             .o_row = row,
                                             .p = s->p},
                         n_blocks, blocks);
}

/* Where a block of queries is: all strips for a group of key tiles, each of them step by step. */
typedef struct walk {
    size_t group, strip, tile; /* first tile of the group; next tile */
} walk;

/* The next step in which keys are seen. */
static bool next_step(const forward_job *job, const query_block *block, walk *at, step *s)
{
    const size_t tiles = job->key_strips / 2;
    while (at->group < tiles) {
        const size_t end = attn_smaller(at->group + GROUP, tiles);
        s->strip = at->strip;
        find_tiles(job, block, &at->tile, end, job->step_tiles, s);
        if (at->tile == end) {
            at->strip = (at->strip + 1) % attn_strips(block->ni);
            if (at->strip == 0) at->group = end;
            at->tile = at->group;
        }
        if (s->n_tiles > 0) return true;
    }
    return false;
}

static void run_online(const forward_job *job, const query_block *block, float *room,
                       attn_work *work)
{
    const size_t columns = job->step_tiles * ATTN_TILE_KEYS, strips = job->value_strips;
    const size_t scores_size = scores_count(columns);
    attn_amx_block blocks[2 * BLOCKS_MAX];
    step steps[3], *before = NULL, *now = &steps[0], *next = &steps[1];
    float *lists = room + 2 * scores_size;
    for (size_t i = 0; i < 3; i++) cut_lists(&lists, columns, &steps[i]);
    walk at = {0};
    place_scores(room, columns, now);
    if (!next_step(job, block, &at, now)) return;
    multiply(job, block, now, ask_scores, 2 * now->n_tiles);
    finish_scores(job, block, now, work);
    for (size_t n = 1; now; n++) {
        size_t n_blocks = 0;
        place_scores(room + n % 2 * scores_size, columns, next);
        const bool has_next = next_step(job, block, &at, next);
        if (has_next) n_blocks = ask_scores(job, block, next, 0, 2 * next->n_tiles, blocks);
        if (before && strips > BLOCKS_MAX)
            multiply(job, block, before, ask_values, strips);
        else if (before)
            n_blocks += ask_values(job, block, before, 0, strips, blocks + n_blocks);
        exponentiate(job, block, now, n_blocks, blocks);
        if (has_next) finish_scores(job, block, next, work);
        before = now;
        now = has_next ? next : NULL;
        next = &steps[(n + 1) % 3];
    }
    multiply(job, block, before, ask_values, strips);
}

/* Short steps stay in the nearest cache. Each adds to a strip's O, so that of wide heads costs as much
 * as the step itself: they take longer ones. */
static size_t step_tiles(const attn_tile_shape *shape)
{
    return shape->value_width > ATTN_TILE_KEYS ? STEP_MOST : 1;
}

/* Scores of all tiles that a strip sees side by side, then one softmax. */
static void run_rows(const forward_job *job, const query_block *block, float *room, attn_work *work)
{
    const size_t columns = job->key_strips * ATTN_STRIP;
    step s;
    place_scores(room, columns, &s);
    room += scores_count(columns);
    cut_lists(&room, columns, &s);
    for (s.strip = 0; s.strip < attn_strips(block->ni); s.strip++) {
        size_t first = 0;
        find_tiles(job, block, &first, job->key_strips / 2, SIZE_MAX, &s);
        multiply(job, block, &s, ask_scores, 2 * s.n_tiles);
        finish_scores(job, block, &s, work);
        if (s.n_tiles == 0) continue;
        exponentiate(job, block, &s, 0, NULL);
        multiply(job, block, &s, ask_values, job->value_strips);
    }
}

/* O / l. What is kept are c and l with 1 <= l < 2: any c that is a whole number makes the same P. */
static void store_output(const forward_job *job, const query_block *block, size_t b)
{
    const attn_tile_call *call = job->call;
    const attn_kernels *kernels = call->context->kernels;
    const size_t T = call->shape.queries;
    float *saved = NULL;
    if (call->saved)
        saved = call->saved + 2 * (b * call->shape.heads + block->head) * T + block->i0;
    for (size_t i = 0; i < block->ni; i++) {
        const float total = kernels->sum(ATTN_RUNNING_SUMS, block->total + i * ATTN_RUNNING_SUMS);
        if (saved) {
            const float up = total == 0.0f ? 0.0f : logbf(total);
            saved[i] = block->top[i] + up;
            saved[T + i] = ldexpf(total, isfinite(up) ? -(int)up : 0);
        }
        block->top[i] = total == 0.0f ? 0.0f : 1.0f / total;
    }
    kernels->copy_rows(block->ni, call->shape.value_width, 1.0f, block->top, block->o,
                       job->value_strips * ATTN_STRIP,
                       call->o + (b * T + block->i0) * call->o_at.row +
                           block->head * call->o_at.head,
                       call->o_at.row);
}

static void run_query_block(void *argument, size_t index, size_t worker)
{
    forward_job *job = argument;
    const attn_tile_call *call = job->call;
    const attn_tile_shape *shape = &call->shape;
    const size_t T = shape->queries, row = job->value_strips * ATTN_STRIP;
    /* The order of tasks is that of the float32 engine. */
    const size_t block_index = job->query_blocks - 1 - index % job->query_blocks;
    const size_t group = shape->heads / shape->kv_heads, place = index / job->query_blocks;
    const size_t kv = place / group, b = (job->first_head + kv) / shape->kv_heads;
    const size_t h = (job->first_head + kv) % shape->kv_heads * group + place % group;
    float *room = job->workers + worker * worker_count(shape);

    query_block block = {.head = h, .i0 = block_index * BLOCK_QUERIES};
    block.ni = attn_smaller(BLOCK_QUERIES, T - block.i0);
    block.keys = job->keys + kv * keys_count(shape);
    block.values = job->values + kv * values_count(shape);
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
    memset(block.o, 0, BLOCK_QUERIES * row * sizeof *block.o);

    attn_work *work = &job->tally.of[worker];
    attn_amx_begin();
    if (call->rule.order == ATTN_TILE_ROWS)
        run_rows(job, &block, room, work);
    else
        run_online(job, &block, room, work);
    attn_amx_end();
    store_output(job, &block, b);
    work->other += (uint64_t)block.ni * (shape->value_width + 1);
}

void attn_half_forward(const attn_tile_call *call)
{
    const attn_tile_shape *shape = &call->shape;
    const size_t heads = shape->batch * shape->kv_heads, threads = call->context->threads;
    const size_t together = heads_together(shape, threads), group = shape->heads / shape->kv_heads;
    float *room = attn_half_aligned(call->scratch);
    forward_job job = {.call = call,
                       .scale = attn_tile_scale(shape),
                       .factor = attn_tile_factor(&call->rule, shape),
                       .key_cells = attn_strips(shape->key_width),
                       .value_strips = attn_strips(shape->value_width),
                       .key_strips = attn_amx_row_strips(shape->keys),
                       .step_tiles = step_tiles(shape),
                       .query_blocks = (shape->queries + BLOCK_QUERIES - 1) / BLOCK_QUERIES};
    job.keys = attn_half_cut(&room, together * keys_count(shape));
    job.values = attn_half_cut(&room, together * values_count(shape));
    job.workers = room;
    for (; job.first_head < heads; job.first_head += together) {
        job.n_heads = attn_smaller(together, heads - job.first_head);
        attn_parallel(threads, (shape->keys + PACK_ROWS - 1) / PACK_ROWS, pack_rows, &job);
        attn_parallel(threads, job.n_heads * group * job.query_blocks, run_query_block, &job);
    }
    attn_tally_collect(&job.tally, threads, &call->context->work);
}
