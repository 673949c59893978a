/* The tile engine: forward. Keys are transposed and values copied once a head, then every block
 * of queries is a task. */
#include "mechanisms/tile_engine.h"

#include "base/threads.h"

#include <string.h>

size_t attn_packed_count(size_t length, size_t n)
{
    return (length + ATTN_TILE_KEYS - 1) / ATTN_TILE_KEYS * ATTN_TILE_KEYS * n;
}

void attn_pack_transposed(const attn_kernels *kernels, size_t length, size_t n, const float *from,
                          size_t row, float *to)
{
    for (size_t j0 = 0; j0 < length; j0 += ATTN_TILE_KEYS)
        kernels->transpose(attn_smaller(ATTN_TILE_KEYS, length - j0), n, from + j0 * row, row,
                           to + j0 * n, ATTN_TILE_KEYS);
}

void attn_copy_head(size_t rows, size_t n, const float *from, size_t row, float *to)
{
    for (size_t i = 0; i < rows; i++) memcpy(to + i * n, from + i * row, n * sizeof *to);
}

size_t attn_tile_saved(const attn_tile_shape *shape)
{
    return 2 * shape->batch * shape->heads * shape->queries; /* c and l of each row */
}

/* Per worker, forward: scores of one block of queries against all keys (rows) or one tile,
 * the block's output, and three numbers a row. */
static size_t forward_worker(const attn_tile_shape *shape)
{
    return ATTN_TILE_QUERIES * (attn_packed_count(shape->keys, 1) + shape->value_width + 3);
}

size_t attn_tile_scratch(const attn_tile_shape *shape, size_t threads)
{
    const size_t forward =
        shape->batch * shape->kv_heads *
            attn_packed_count(shape->keys, shape->key_width + shape->value_width) +
        threads * forward_worker(shape);
    const size_t backward = threads * attn_tile_backward_worker(shape);
    return forward > backward ? forward : backward;
}

typedef struct forward_job {
    const attn_tile_call *call;
    float scale;          /* of the products */
    float softmax_scale;  /* of the scores in the softmax: 1 when a score function applied it */
    float *keys, *values; /* [batch][kv_heads] packed transposed [S][dk], and [S][dv] */
    float *workers;
    size_t query_blocks;
    attn_tally tally;
} forward_job;

static void pack_head(void *argument, size_t index, size_t worker)
{
    (void)worker;
    const forward_job *job = argument;
    const attn_tile_call *call = job->call;
    const attn_tile_shape *shape = &call->shape;
    const size_t b = index / shape->kv_heads, h = index % shape->kv_heads, S = shape->keys;
    const float *k = call->k + b * S * call->k_at.row + h * call->k_at.head;
    const float *v = call->v + b * S * call->v_at.row + h * call->v_at.head;
    attn_pack_transposed(call->context->kernels, S, shape->key_width, k, call->k_at.row,
                         job->keys + index * attn_packed_count(S, shape->key_width));
    attn_copy_head(S, shape->value_width, v, call->v_at.row,
                   job->values + index * attn_packed_count(S, shape->value_width));
}

/* One block of queries of one head. */
typedef struct query_block {
    size_t head, i0, ni;
    const float *q;             /* row i0 of the head */
    const float *keys, *values; /* the head's packed keys and copied values */
    const uint32_t *documents;  /* of the sequence, or NULL */
    float *s, *o;               /* scores, accumulated output [ni][dv] */
    float *top, *total, *correction;
} query_block;

void attn_tile_finish_scores(const attn_tile_rule *rule, const attn_kernels *kernels, size_t head,
                             const attn_tile *tile, attn_tile_kind kind, const uint32_t *documents,
                             float scale, float *s, size_t s_row, float *slope, size_t slope_row)
{
    const attn_score *f = rule->score;
    if (f) f->modify(f->self, kernels, head, tile, documents, scale, s, s_row, slope, slope_row);
    const size_t i0 = tile->i0, ni = tile->ni;
    if (kind == ATTN_TILE_FULL && (!documents || documents[i0 + ni - 1] <= tile->j0)) return;
    for (size_t i = 0; i < ni; i++)
        rule->mask.hide(rule->mask.rule, head, i0 + i, tile->j0, tile->nj,
                        documents ? documents[i0 + i] : 0, s + i * s_row);
}

/* Scores of the block against the tile's keys at s; its kind, EMPTY when nothing was done. */
static attn_tile_kind score_tile(const forward_job *job, const query_block *block,
                                 const attn_tile *tile, float *s, size_t s_row, attn_work *work)
{
    const attn_tile_rule *rule = &job->call->rule;
    const attn_kernels *kernels = job->call->context->kernels;
    const attn_tile_shape *shape = &job->call->shape;
    const size_t dk = shape->key_width;
    const attn_tile_kind kind =
        rule->mask.tile(rule->mask.rule, block->head, tile, block->documents);
    if (kind == ATTN_TILE_EMPTY) return kind;
    kernels->product(tile->ni, tile->nj, dk, block->q, job->call->q_at.row, 1,
                     block->keys + tile->j0 * dk, ATTN_TILE_KEYS, s, s_row, false);
    attn_tile_finish_scores(rule, kernels, block->head, tile, kind, block->documents, job->scale, s,
                            s_row, NULL, 0);
    const uint64_t pairs = (uint64_t)tile->ni * tile->nj;
    work->matmul += 2 * pairs * (dk + shape->value_width);
    work->other += kind == ATTN_TILE_FULL ? 0 : pairs;
    if (rule->score) attn_work_add(work, attn_work_times(rule->score->value, pairs));
    return kind;
}

/* Online softmax of `n` scores a row: per score a scale, maximum, difference, sum and one exp;
 * per row the same against the running values. */
static void count_softmax(attn_work *work, size_t ni, size_t n)
{
    work->exponential += (uint64_t)ni * n + ni;
    work->other += (uint64_t)4 * ni * n + 4 * ni;
}

static void run_online(const forward_job *job, query_block *block, attn_work *work)
{
    const attn_kernels *kernels = job->call->context->kernels;
    const size_t S = job->call->shape.keys, dv = job->call->shape.value_width;
    attn_tile tile = {.i0 = block->i0, .ni = block->ni};
    for (; tile.j0 < S; tile.j0 += ATTN_TILE_KEYS) {
        tile.nj = attn_smaller(ATTN_TILE_KEYS, S - tile.j0);
        if (score_tile(job, block, &tile, block->s, ATTN_TILE_KEYS, work) == ATTN_TILE_EMPTY)
            continue;
        kernels->online_softmax(block->ni, tile.nj, job->softmax_scale, block->s, ATTN_TILE_KEYS,
                                block->top, block->total, block->correction);
        kernels->scale_rows(block->ni, dv, block->correction, block->o, dv);
        kernels->product(block->ni, dv, tile.nj, block->s, ATTN_TILE_KEYS, 1,
                         block->values + tile.j0 * dv, dv, block->o, dv, true);
        count_softmax(work, block->ni, tile.nj);
        work->other += (uint64_t)block->ni * dv;
    }
}

/* Scores of all tiles that the block sees side by side, then one softmax. */
static void run_rows(const forward_job *job, query_block *block, attn_work *work)
{
    const attn_kernels *kernels = job->call->context->kernels;
    const size_t S = job->call->shape.keys, dv = job->call->shape.value_width;
    const size_t s_row = attn_packed_count(S, 1);
    size_t first = 0, end = 0;
    attn_tile tile = {.i0 = block->i0, .ni = block->ni};
    for (; tile.j0 < S; tile.j0 += ATTN_TILE_KEYS) {
        tile.nj = attn_smaller(ATTN_TILE_KEYS, S - tile.j0);
        if (score_tile(job, block, &tile, block->s + tile.j0, s_row, work) == ATTN_TILE_EMPTY)
            continue;
        if (end == 0) first = tile.j0;
        end = tile.j0 + tile.nj;
    }
    kernels->online_softmax(block->ni, end - first, job->softmax_scale, block->s + first, s_row,
                            block->top, block->total, block->correction);
    kernels->product(block->ni, dv, end - first, block->s + first, s_row, 1,
                     block->values + first * dv, dv, block->o, dv, false);
    count_softmax(work, block->ni, end - first);
}

static void run_query_block(void *argument, size_t index, size_t worker)
{
    forward_job *job = argument;
    const attn_tile_call *call = job->call;
    const attn_tile_shape *shape = &call->shape;
    const attn_kernels *kernels = call->context->kernels;
    const size_t T = shape->queries, dv = shape->value_width, H = shape->heads;
    /* Late blocks see the most keys: they go first. */
    const size_t block_index = job->query_blocks - 1 - index / (shape->batch * H);
    const size_t b = index / H % shape->batch, h = index % H;
    const size_t kv = b * shape->kv_heads + h * shape->kv_heads / H;
    float *room = job->workers + worker * forward_worker(shape);

    query_block block = {.head = h, .i0 = block_index * ATTN_TILE_QUERIES};
    block.ni = attn_smaller(ATTN_TILE_QUERIES, T - block.i0);
    block.q = call->q + (b * T + block.i0) * call->q_at.row + h * call->q_at.head;
    block.keys = job->keys + kv * attn_packed_count(shape->keys, shape->key_width);
    block.values = job->values + kv * attn_packed_count(shape->keys, dv);
    block.documents = call->document_start ? call->document_start + b * T : NULL;
    block.s = attn_cut(&room, ATTN_TILE_QUERIES * attn_packed_count(shape->keys, 1));
    block.o = attn_cut(&room, ATTN_TILE_QUERIES * dv);
    block.top = attn_cut(&room, ATTN_TILE_QUERIES);
    block.total = attn_cut(&room, ATTN_TILE_QUERIES);
    block.correction = attn_cut(&room, ATTN_TILE_QUERIES);
    for (size_t i = 0; i < block.ni; i++) {
        block.top[i] = -INFINITY;
        block.total[i] = 0.0f;
    }
    memset(block.o, 0, block.ni * dv * sizeof *block.o);

    attn_work *work = &job->tally.of[worker];
    if (call->rule.order == ATTN_TILE_ROWS)
        run_rows(job, &block, work);
    else
        run_online(job, &block, work);

    for (size_t i = 0; i < block.ni; i++) {
        const float inverse = block.total[i] == 0.0f ? 0.0f : 1.0f / block.total[i];
        float *o = call->o + (b * T + block.i0 + i) * call->o_at.row + h * call->o_at.head;
        memcpy(o, block.o + i * dv, dv * sizeof *o);
        kernels->scale(dv, inverse, o);
    }
    work->other += (uint64_t)block.ni * (dv + 1);
    if (!call->saved) return;
    float *saved = call->saved + 2 * (b * H + h) * T + block.i0;
    memcpy(saved, block.top, block.ni * sizeof *saved);
    memcpy(saved + T, block.total, block.ni * sizeof *saved);
}

void attn_tile_forward(const attn_tile_call *call)
{
    const attn_tile_shape *shape = &call->shape;
    const size_t heads = shape->batch * shape->kv_heads, threads = call->context->threads;
    float *room = call->scratch;
    forward_job job = {.call = call,
                       .scale = attn_tile_scale(shape),
                       .softmax_scale = call->rule.score ? 1.0f : attn_tile_scale(shape),
                       .query_blocks =
                           (shape->queries + ATTN_TILE_QUERIES - 1) / ATTN_TILE_QUERIES};
    job.keys = attn_cut(&room, heads * attn_packed_count(shape->keys, shape->key_width));
    job.values = attn_cut(&room, heads * attn_packed_count(shape->keys, shape->value_width));
    job.workers = room;
    attn_parallel(threads, heads, pack_head, &job);
    attn_parallel(threads, job.query_blocks * shape->batch * shape->heads, run_query_block, &job);
    attn_tally_collect(&job.tally, threads, &call->context->work);
}

/* ---- closed forms ------------------------------------------------------------------------ */

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
        /* the last term is the scale of dk */
        attn_work_add(&work,
                      (attn_work){.matmul = E * (6 * dk + 4 * dv),
                                  .exponential = E,
                                  .other = 4 * E + tiles->masked + rows * (3 * dv + dk + 1) +
                                           shape->batch * shape->kv_heads * shape->keys * dk});
        return work;
    }
    const bool is_online = rule->order == ATTN_TILE_ONLINE;
    const uint64_t R = is_online ? tiles->row_visits : rows;
    attn_work_add(&work, (attn_work){.matmul = 2 * E * (dk + dv),
                                     .exponential = E + R,
                                     .other = 4 * E + tiles->masked + 4 * R +
                                              (is_online ? R * dv : 0) + rows * (dv + 1)});
    return work;
}

attn_work attn_tile_work(const attn_tile_shape *shape, const attn_tile_rule *rule, attn_phase phase,
                         const uint32_t *document_start)
{
    const attn_tile_count tiles = count_all(shape, &rule->mask, document_start);
    return attn_tile_count_work(shape, rule, phase, &tiles);
}
