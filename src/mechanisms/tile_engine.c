/* The tile engine: forward. Keys are transposed and values copied once a head, then every block
 * of queries is a task. */
#include "mechanisms/tile_engine.h"

#include "base/threads.h"

#include <math.h>
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

attn_visibility attn_tile_walk(const attn_visibility *rule, bool has_documents)
{
    attn_visibility walk = *rule;
    if (has_documents && rule->sinks > 0) walk.window = ATTN_NO_WINDOW;
    return walk;
}

size_t attn_tile_saved(const attn_layer *layer, size_t batch, size_t length)
{
    return 2 * batch * layer->heads * length; /* c and l of each row */
}

/* Per worker, forward: scores of one block of queries against all keys (rows) or one tile,
 * the block's output, and three numbers a row. */
static size_t forward_worker(size_t length, size_t d)
{
    return ATTN_TILE_QUERIES * (attn_packed_count(length, 1) + d + 3);
}

size_t attn_tile_scratch(const attn_layer *layer, size_t threads, size_t batch, size_t length)
{
    const size_t d = layer->head_dim;
    const size_t forward = 2 * batch * layer->kv_heads * attn_packed_count(length, d) +
                           threads * forward_worker(length, d);
    const size_t backward = threads * attn_tile_backward_worker(layer, length);
    return forward > backward ? forward : backward;
}

typedef struct forward_job {
    const attn_core_call *call;
    attn_visibility rule, walk;
    attn_tile_order order;
    float scale;
    float *keys, *values; /* [batch][kv_heads] packed transposed, and [length][d] */
    float *workers;
    size_t query_blocks;
    attn_tally tally;
} forward_job;

static void pack_head(void *argument, size_t index, size_t worker)
{
    (void)worker;
    const forward_job *job = argument;
    const attn_core_call *call = job->call;
    const attn_layer *layer = call->layer;
    const size_t d = layer->head_dim, b = index / layer->kv_heads, h = index % layer->kv_heads;
    const size_t at = b * call->length * call->row + h * d;
    const size_t stride = attn_packed_count(call->length, d);
    attn_pack_transposed(call->context->kernels, call->length, d, call->k + at, call->row,
                         job->keys + index * stride);
    attn_copy_head(call->length, d, call->v + at, call->row, job->values + index * stride);
}

/* One block of queries of one head. */
typedef struct query_block {
    size_t i0, ni, d;
    const float *q;             /* row i0 of the head */
    const float *keys, *values; /* the head's packed keys and copied values */
    const uint32_t *documents;  /* of the sequence, or NULL */
    float *s, *o;               /* scores, accumulated output [ni][d] */
    float *top, *total, *correction;
} query_block;

/* Scores of the block against keys [j0, j0 + nj) at s; hidden where not seen. */
static void score_tile(const forward_job *job, const query_block *block, size_t j0, size_t nj,
                       bool is_full, float *s, size_t s_row)
{
    const attn_kernels *kernels = job->call->context->kernels;
    kernels->product(block->ni, nj, block->d, block->q, job->call->row, 1,
                     block->keys + j0 * block->d, ATTN_TILE_KEYS, s, s_row, false);
    const size_t last_document = block->documents ? block->documents[block->i0 + block->ni - 1] : 0;
    if (!attn_tile_hides(&job->rule, &job->walk, is_full, j0, last_document)) return;
    for (size_t i = 0; i < block->ni; i++)
        attn_hide(&job->rule, block->i0 + i, j0, nj,
                  block->documents ? block->documents[block->i0 + i] : 0, s + i * s_row);
}

static void count_tile(attn_work *work, size_t ni, size_t nj, size_t d, bool is_full)
{
    work->matmul += (uint64_t)4 * ni * nj * d;
    work->other += is_full ? 0 : (uint64_t)ni * nj;
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
    for (size_t j0 = 0; j0 < job->call->length; j0 += ATTN_TILE_KEYS) {
        const size_t nj = attn_smaller(ATTN_TILE_KEYS, job->call->length - j0);
        const attn_tile_kind kind = attn_tile_of(&job->walk, block->i0, block->ni, j0, nj);
        if (kind == ATTN_TILE_EMPTY) continue;
        score_tile(job, block, j0, nj, kind == ATTN_TILE_FULL, block->s, ATTN_TILE_KEYS);
        kernels->online_softmax(block->ni, nj, job->scale, block->s, ATTN_TILE_KEYS, block->top,
                                block->total, block->correction);
        kernels->scale_rows(block->ni, block->d, block->correction, block->o, block->d);
        kernels->product(block->ni, block->d, nj, block->s, ATTN_TILE_KEYS, 1,
                         block->values + j0 * block->d, block->d, block->o, block->d, true);
        count_tile(work, block->ni, nj, block->d, kind == ATTN_TILE_FULL);
        count_softmax(work, block->ni, nj);
        work->other += (uint64_t)block->ni * block->d;
    }
}

/* Scores of all tiles that the block sees side by side, then one softmax. */
static void run_rows(const forward_job *job, query_block *block, attn_work *work)
{
    const attn_kernels *kernels = job->call->context->kernels;
    const size_t s_row = attn_packed_count(job->call->length, 1);
    size_t first = 0, end = 0;
    for (size_t j0 = 0; j0 < job->call->length; j0 += ATTN_TILE_KEYS) {
        const size_t nj = attn_smaller(ATTN_TILE_KEYS, job->call->length - j0);
        const attn_tile_kind kind = attn_tile_of(&job->walk, block->i0, block->ni, j0, nj);
        if (kind == ATTN_TILE_EMPTY) continue;
        if (end == 0) first = j0;
        score_tile(job, block, j0, nj, kind == ATTN_TILE_FULL, block->s + j0, s_row);
        count_tile(work, block->ni, nj, block->d, kind == ATTN_TILE_FULL);
        end = j0 + nj;
    }
    kernels->online_softmax(block->ni, end - first, job->scale, block->s + first, s_row, block->top,
                            block->total, block->correction);
    kernels->product(block->ni, block->d, end - first, block->s + first, s_row, 1,
                     block->values + first * block->d, block->d, block->o, block->d, false);
    count_softmax(work, block->ni, end - first);
}

static void run_query_block(void *argument, size_t index, size_t worker)
{
    forward_job *job = argument;
    const attn_core_call *call = job->call;
    const attn_layer *layer = call->layer;
    const attn_kernels *kernels = call->context->kernels;
    const size_t T = call->length, d = layer->head_dim, H = layer->heads;
    /* Late blocks see the most keys: they go first. */
    const size_t block_index = job->query_blocks - 1 - index / (call->batch * H);
    const size_t b = index / H % call->batch, h = index % H;
    const size_t kv = b * layer->kv_heads + h * layer->kv_heads / H;
    const size_t stride = attn_packed_count(T, d);
    float *room = job->workers + worker * forward_worker(T, d);

    query_block block = {.i0 = block_index * ATTN_TILE_QUERIES, .d = d};
    block.ni = attn_smaller(ATTN_TILE_QUERIES, T - block.i0);
    block.q = call->q + (b * T + block.i0) * call->row + h * d;
    block.keys = job->keys + kv * stride;
    block.values = job->values + kv * stride;
    block.documents = call->document_start ? call->document_start + b * T : NULL;
    block.s = room;
    block.o = room + ATTN_TILE_QUERIES * attn_packed_count(T, 1);
    block.top = block.o + ATTN_TILE_QUERIES * d;
    block.total = block.top + ATTN_TILE_QUERIES;
    block.correction = block.total + ATTN_TILE_QUERIES;
    for (size_t i = 0; i < block.ni; i++) {
        block.top[i] = -INFINITY;
        block.total[i] = 0.0f;
    }
    memset(block.o, 0, block.ni * d * sizeof *block.o);

    attn_work *work = &job->tally.of[worker];
    if (job->order == ATTN_TILE_ROWS)
        run_rows(job, &block, work);
    else
        run_online(job, &block, work);

    for (size_t i = 0; i < block.ni; i++) {
        const float inverse = block.total[i] == 0.0f ? 0.0f : 1.0f / block.total[i];
        float *o = call->o + (b * T + block.i0 + i) * call->o_row + h * d;
        memcpy(o, block.o + i * d, d * sizeof *o);
        kernels->scale(d, inverse, o);
    }
    work->other += (uint64_t)block.ni * (d + 1);
    if (!call->saved) return;
    float *saved = call->saved + 2 * (b * H + h) * T + block.i0;
    memcpy(saved, block.top, block.ni * sizeof *saved);
    memcpy(saved + T, block.total, block.ni * sizeof *saved);
}

void attn_tile_forward(const attn_core_call *call, const attn_visibility *rule,
                       attn_tile_order order)
{
    const attn_layer *layer = call->layer;
    const size_t heads = call->batch * layer->kv_heads;
    const size_t packed = heads * attn_packed_count(call->length, layer->head_dim);
    forward_job job = {.call = call,
                       .rule = *rule,
                       .order = order,
                       .walk = attn_tile_walk(rule, call->document_start != NULL),
                       .scale = 1.0f / sqrtf((float)layer->head_dim),
                       .keys = call->scratch,
                       .values = call->scratch + packed,
                       .workers = call->scratch + 2 * packed,
                       .query_blocks = (call->length + ATTN_TILE_QUERIES - 1) / ATTN_TILE_QUERIES};
    const size_t threads = call->context->threads;
    attn_parallel(threads, heads, pack_head, &job);
    attn_parallel(threads, job.query_blocks * call->batch * layer->heads, run_query_block, &job);
    attn_tally_collect(&job.tally, threads, &call->context->work);
}

attn_work attn_tile_work(const attn_layer *layer, const attn_visibility *rule,
                         attn_tile_order order, attn_phase phase, size_t batch, size_t length,
                         const uint32_t *document_start)
{
    const uint64_t d = layer->head_dim, T = length, heads = (uint64_t)batch * layer->heads;
    const attn_visibility walk = attn_tile_walk(rule, document_start != NULL);
    const attn_tile_count tiles =
        attn_count_tiles(&walk, length, ATTN_TILE_QUERIES, ATTN_TILE_KEYS);
    const uint64_t E = tiles.elements, masked = tiles.masked;
    const uint64_t R = order == ATTN_TILE_ROWS ? T : tiles.row_visits;
    if (phase == ATTN_PHASE_BACKWARD) {
        attn_work work = attn_work_times((attn_work){.matmul = 10 * E * d,
                                                     .exponential = E,
                                                     .other = 4 * E + masked + T * (4 * d + 1)},
                                         heads);
        work.other += (uint64_t)batch * layer->kv_heads * T * d; /* the scale of dk */
        return work;
    }
    const uint64_t rescale = order == ATTN_TILE_ROWS ? 0 : R * d;
    return attn_work_times((attn_work){.matmul = 4 * E * d,
                                       .exponential = E + R,
                                       .other = 4 * E + masked + 4 * R + rescale + T * (d + 1)},
                           heads);
}
