/* The tile engine: backward. See tile_engine.h for the equations.
 *
 * One worker's memory for one key/value head:
 *     keys, values    packed transposed        the right factors of S and of dO' V^T
 *     key_rows        [S][dk]                  the right factor of dQ
 *     q, dq           [T][dk]                  of one query head
 *     d_o             [T][dv]                  of one query head, divided by l
 *     dk, dv          [S][dk], [S][dv]         sums
 *     top, delta      [T]
 *     s, ds, slope    one tile each */
#include "base/threads.h"
#include "mechanisms/head_rows.h"
#include "mechanisms/tile_half.h"

#include <string.h>

typedef struct backward_job {
    const attn_tile_call *call;
    float scale, factor; /* as in forward */
    float *workers;
    size_t worker_count; /* floats of one worker */
    size_t parts;        /* of the query heads of a key/value head */
    size_t first_head;   /* of the key/value heads, counted through the batch, in work */
    float *gathered;     /* dk and dv of each part, when there are several */
    attn_tally tally;
} backward_job;

typedef struct head_room {
    float *keys, *values, *key_rows, *q, *dq, *d_o, *dk, *dv, *top, *delta, *s, *ds, *slope;
} head_room;

/* Queries of a step: a multiple of the rows of a product's register tile. */
enum {
    STEP_QUERIES = 48,
    BLOCK_QUERIES = 6 * ATTN_TILE_QUERIES,
    TILE = STEP_QUERIES * ATTN_TILE_KEYS
};

static head_room divide_room(float *room, const attn_tile_shape *shape)
{
    const size_t S = shape->keys, dk = shape->key_width, dv = shape->value_width;
    const size_t T = attn_packed_count(shape->queries, 1); /* rounded up to whole tiles */
    head_room r;
    r.keys = attn_cut(&room, attn_packed_count(S, dk));
    r.values = attn_cut(&room, attn_packed_count(S, dv));
    r.key_rows = attn_cut(&room, attn_packed_count(S, dk));
    r.q = attn_cut(&room, T * dk);
    r.d_o = attn_cut(&room, T * dv);
    r.dq = attn_cut(&room, T * dk);
    r.dk = attn_cut(&room, attn_packed_count(S, dk));
    r.dv = attn_cut(&room, attn_packed_count(S, dv));
    r.top = attn_cut(&room, T);
    r.delta = attn_cut(&room, T);
    r.s = attn_cut(&room, TILE);
    r.ds = attn_cut(&room, TILE);
    r.slope = room;
    return r;
}

size_t attn_tile_backward_worker(const attn_tile_shape *shape)
{
    const size_t dk = shape->key_width, dv = shape->value_width;
    return attn_packed_count(shape->keys, 3 * dk + 2 * dv) +
           attn_packed_count(shape->queries, 2 * dk + dv + 2) + 3 * TILE;
}

size_t attn_tile_parts(const attn_tile_shape *shape)
{
    enum { ENOUGH_TASKS = 8 };
    const size_t group = shape->heads / shape->kv_heads;
    size_t parts = 1;
    if (shape->dtype != ATTN_F32) return 1;
    while (group % parts != 0 || (parts < group && shape->kv_heads * parts < ENOUGH_TASKS)) parts++;
    return parts;
}

/* dk and dv of one part. */
static size_t part_count(const attn_tile_shape *shape)
{
    return shape->keys * (shape->key_width + shape->value_width);
}

/* Sequences that are done at a time: without parts all, else enough for the threads. */
static size_t sequences_together(const attn_tile_shape *shape, size_t threads)
{
    const size_t parts = attn_tile_parts(shape), tasks = shape->kv_heads * parts;
    return parts == 1 ? shape->batch : attn_smaller(shape->batch, 1 + 2 * threads / tasks);
}

size_t attn_tile_backward_gathered(const attn_tile_shape *shape, size_t threads)
{
    const size_t parts = attn_tile_parts(shape);
    if (parts == 1) return 0;
    return sequences_together(shape, threads) * shape->kv_heads * parts * part_count(shape);
}

/* dO / l of one query head, with 1 / l in room->delta. */
static void load_gradient(const attn_tile_call *call, attn_far_rows d_o, const head_room *room)
{
    const attn_kernels *kernels = call->context->kernels;
    const size_t T = call->shape.queries, dv = call->shape.value_width;
    if (call->shape.dtype == ATTN_F32) {
        kernels->copy_rows(T, dv, 1.0f, room->delta, d_o.single, d_o.row, room->d_o, dv);
        return;
    }
    attn_take_rows(kernels, T, dv, d_o, room->d_o);
    attn_tile_round(call, T * dv, room->d_o);
    kernels->scale_rows(T, dv, room->delta, room->d_o, dv);
    attn_tile_round(call, T * dv, room->d_o);
}

/* Loads one query head: q, dO / l, delta, and clears its dq. */
static void load_query_head(const backward_job *job, const head_room *room, size_t b, size_t h)
{
    const attn_tile_call *call = job->call;
    const attn_kernels *kernels = call->context->kernels;
    const size_t T = call->shape.queries, dk = call->shape.key_width, dv = call->shape.value_width;
    const float *saved = call->saved + 2 * (b * call->shape.heads + h) * T;
    const float *o = call->o + b * T * call->o_at.row + h * call->o_at.head;
    attn_take_rows(kernels, T, dk, attn_tile_rows(call->q, call->q_at, b * T, h), room->q);
    attn_tile_round(call, T * dk, room->q);
    for (size_t i = 0; i < T; i++) {
        const float l = saved[T + i];
        room->top[i] = l == 0.0f ? INFINITY : saved[i]; /* saw nothing: P is 2^-inf = 0 */
        room->delta[i] = l == 0.0f ? 0.0f : 1.0f / l;
    }
    load_gradient(call, attn_tile_rows(call->d_o, call->o_at, b * T, h), room);
    for (size_t i = 0; i < T; i++)
        room->delta[i] = kernels->dot(dv, room->d_o + i * dv, o + i * call->o_at.row);
    memset(room->dq, 0, T * dk * sizeof *room->dq);
}

/* One tile of P and dS, and what it adds to dV, dQ and dK. */
static void run_tile(const backward_job *job, const head_room *room, size_t head,
                     const uint32_t *documents, const attn_tile *tile, attn_tile_kind kind,
                     attn_ahead *ahead)
{
    const attn_kernels *kernels = job->call->context->kernels;
    const attn_tile_rule *rule = &job->call->rule;
    const size_t dk = job->call->shape.key_width, dv = job->call->shape.value_width;
    const size_t i0 = tile->i0, ni = tile->ni, j0 = tile->j0, nj = tile->nj;
    const float *q = room->q + i0 * dk, *d_o = room->d_o + i0 * dv;
    float *p = room->s, *ds = room->ds;
    const bool has_slope = rule->score && rule->score->has_slope;

    /* S = Q K^T, modified, hidden where not seen */
    attn_ahead_product(kernels, ahead, ni, nj, dk, q, dk, 1, room->keys + j0 * dk, ATTN_TILE_KEYS,
                       p, ATTN_TILE_KEYS, false);
    attn_tile_finish_scores(rule, kernels, head, tile, kind, documents, job->scale, p,
                            ATTN_TILE_KEYS, has_slope ? room->slope : NULL, ATTN_TILE_KEYS);
    /* dP = dO' V^T; P = 2^(factor S - c); dS = P o (dP - delta) */
    attn_ahead_product(kernels, ahead, ni, nj, dv, d_o, dv, 1, room->values + j0 * dv,
                       ATTN_TILE_KEYS, ds, ATTN_TILE_KEYS, false);
    kernels->running_softmax_gradient(ni, nj, job->factor, room->top + i0, room->delta + i0, p,
                                      ATTN_TILE_KEYS, ds, ATTN_TILE_KEYS);
    for (size_t i = 0; has_slope && i < ni; i++)
        kernels->multiply(nj, room->slope + i * ATTN_TILE_KEYS, ds + i * ATTN_TILE_KEYS);
    attn_tile_round_rows(job->call, ni, nj, p, ATTN_TILE_KEYS);
    attn_tile_round_rows(job->call, ni, nj, ds, ATTN_TILE_KEYS);
    /* dV += P^T dO';  dK += dS^T Q;  dQ += dS K */
    kernels->product(nj, dv, ni, p, 1, ATTN_TILE_KEYS, d_o, dv, room->dv + j0 * dv, dv, true);
    kernels->product(nj, dk, ni, ds, 1, ATTN_TILE_KEYS, q, dk, room->dk + j0 * dk, dk, true);
    kernels->product(ni, dk, nj, ds, ATTN_TILE_KEYS, 1, room->key_rows + j0 * dk, dk,
                     room->dq + i0 * dk, dk, true);
}

static void count_run(const attn_tile_call *call, const attn_tile *run, attn_tile_kind kind,
                      attn_work *work)
{
    const uint64_t pairs = (uint64_t)run->ni * run->nj;
    work->matmul += pairs * (6 * call->shape.key_width + 4 * call->shape.value_width);
    work->exponential += pairs;
    work->other += (kind == ATTN_TILE_FULL ? 4 : 5) * pairs;
    if (!call->rule.score) return;
    attn_work_add(work, attn_work_times(call->rule.score->value, pairs));
    attn_work_add(work, attn_work_times(call->rule.score->slope, pairs));
}

/* What belongs to the tile of keys at j0, which the products before it ask for. */
static attn_ahead tile_ahead(const attn_tile_shape *shape, const head_room *room, size_t j0)
{
    const size_t dk = shape->key_width, dv = shape->value_width;
    attn_ahead ahead = {.rows =
                            j0 < shape->keys ? attn_smaller(ATTN_TILE_KEYS, shape->keys - j0) : 0};
    if (ahead.rows == 0) return ahead;
    attn_ahead_add(&ahead, dk, room->keys + j0 * dk, dk, false);
    attn_ahead_add(&ahead, dv, room->values + j0 * dv, dv, false);
    attn_ahead_add(&ahead, dv, room->dv + j0 * dv, dv, true);
    attn_ahead_add(&ahead, dk, room->dk + j0 * dk, dk, true);
    attn_ahead_add(&ahead, dk, room->key_rows + j0 * dk, dk, false);
    return ahead;
}

/* One query head against its key/value head: blocks of queries that stay in the second cache
 * against all keys. */
static void run_head(const backward_job *job, const head_room *room, size_t head,
                     const uint32_t *documents, attn_work *work)
{
    const attn_tile_shape *shape = &job->call->shape;
    attn_tile run;
    attn_tile_kind kind;
    for (size_t q0 = 0; q0 < shape->queries; q0 += BLOCK_QUERIES)
        for (size_t j0 = 0; j0 < shape->keys; j0 += ATTN_TILE_KEYS) {
            const size_t end = attn_smaller(q0 + BLOCK_QUERIES, shape->queries);
            attn_ahead ahead = tile_ahead(shape, room, j0 + ATTN_TILE_KEYS);
            size_t i0 = q0;
            run.j0 = j0;
            run.nj = attn_smaller(ATTN_TILE_KEYS, shape->keys - j0);
            while (
                attn_tile_next_run(&job->call->rule.mask, head, documents, &i0, end, &run, &kind)) {
                for (size_t i = run.i0; i < i0; i += STEP_QUERIES) {
                    const attn_tile step = {i, attn_smaller(STEP_QUERIES, i0 - i), j0, run.nj};
                    run_tile(job, room, head, documents, &step, kind, &ahead);
                }
                count_run(job->call, &run, kind, work);
            }
        }
}

/* dk and dv of one key/value head to where they belong, rows [j0, j0 + n). */
static void store_keys(const backward_job *job, size_t kv_head, size_t j0, size_t n,
                       const float *dk, const float *dv)
{
    const attn_tile_call *call = job->call;
    const attn_kernels *kernels = call->context->kernels;
    const attn_tile_shape *shape = &call->shape;
    const size_t g = kv_head % shape->kv_heads, t = kv_head / shape->kv_heads * shape->keys + j0;
    attn_store_rows(kernels, n, shape->key_width, job->scale, dk, shape->key_width,
                    attn_tile_results(call->dk, call->k_at, t, g));
    attn_store_rows(kernels, n, shape->value_width, 1.0f, dv, shape->value_width,
                    attn_tile_results(call->dv, call->v_at, t, g));
}

/* A part of the query heads of one key/value head. */
static void run_part(void *argument, size_t index, size_t worker)
{
    backward_job *job = argument;
    const attn_tile_call *call = job->call;
    const attn_tile_shape *shape = &call->shape;
    const attn_kernels *kernels = call->context->kernels;
    const size_t T = shape->queries, S = shape->keys, dk = shape->key_width;
    const size_t dv = shape->value_width, kv_head = job->first_head + index / job->parts;
    const size_t b = kv_head / shape->kv_heads, g = kv_head % shape->kv_heads;
    const size_t heads = shape->heads / shape->kv_heads / job->parts; /* of this part */
    const size_t first = index % (shape->kv_heads * job->parts) * heads;
    const attn_far_rows keys = attn_tile_rows(call->k, call->k_at, b * S, g);
    const uint32_t *documents = call->document_start ? call->document_start + b * T : NULL;
    attn_work *work = &job->tally.of[worker];
    head_room room = divide_room(job->workers + worker * job->worker_count, shape);

    if (job->parts > 1) {
        room.dk = job->gathered + index * part_count(shape);
        room.dv = room.dk + S * dk;
    }
    attn_pack_transposed(kernels, S, dk, keys, room.keys);
    attn_pack_transposed(kernels, S, dv, attn_tile_rows(call->v, call->v_at, b * S, g),
                         room.values);
    attn_take_rows(kernels, S, dk, keys, room.key_rows);
    attn_tile_round(call, attn_packed_count(S, dk), room.keys);
    attn_tile_round(call, attn_packed_count(S, dv), room.values);
    attn_tile_round(call, S * dk, room.key_rows);
    memset(room.dk, 0, S * dk * sizeof *room.dk);
    memset(room.dv, 0, S * dv * sizeof *room.dv);
    for (size_t h = first; h < first + heads; h++) {
        load_query_head(job, &room, b, h);
        run_head(job, &room, h, documents, work);
        attn_store_rows(kernels, T, dk, job->scale, room.dq, dk,
                        attn_tile_results(call->dq, call->q_at, b * T, h));
        /* dO / l, delta, 1 / l and the scale of dq */
        work->other += (uint64_t)T * (3 * dv + dk + 1);
    }
    if (job->parts == 1) {
        store_keys(job, kv_head, 0, S, room.dk, room.dv);
        work->other += (uint64_t)S * dk;
    }
    attn_end_stores();
}

/* The sums of the parts of one tile of keys. */
static void sum_parts(void *argument, size_t index, size_t worker)
{
    backward_job *job = argument;
    const attn_tile_shape *shape = &job->call->shape;
    const attn_kernels *kernels = job->call->context->kernels;
    const size_t S = shape->keys, dk = shape->key_width, dv = shape->value_width;
    const size_t tiles = attn_packed_count(S, 1) / ATTN_TILE_KEYS, head = index / tiles;
    const size_t j0 = index % tiles * ATTN_TILE_KEYS, n = attn_smaller(ATTN_TILE_KEYS, S - j0);
    float *sum = job->gathered + head * job->parts * part_count(shape);
    for (size_t part = 1; part < job->parts; part++) {
        const float *more = sum + part * part_count(shape);
        kernels->add(n * dk, more + j0 * dk, sum + j0 * dk);
        kernels->add(n * dv, more + S * dk + j0 * dv, sum + S * dk + j0 * dv);
    }
    store_keys(job, job->first_head + head, j0, n, sum + j0 * dk, sum + S * dk + j0 * dv);
    attn_end_stores();
    job->tally.of[worker].other += (uint64_t)n * (dk + (job->parts - 1) * (dk + dv));
}

void attn_tile_backward(const attn_tile_call *call)
{
#if defined(__x86_64__)
    if (attn_half_applies(call)) {
        attn_half_backward(call);
        return;
    }
#endif
    const size_t threads = call->context->threads;
    backward_job job = {.call = call,
                        .scale = attn_tile_scale(&call->shape),
                        .factor = attn_tile_factor(&call->rule, &call->shape),
                        .workers = call->scratch,
                        .worker_count = attn_tile_backward_worker(&call->shape),
                        .parts = attn_tile_parts(&call->shape)};
    const size_t together = sequences_together(&call->shape, threads);
    const size_t tiles = attn_packed_count(call->shape.keys, 1) / ATTN_TILE_KEYS;
    job.gathered = job.workers + threads * job.worker_count;
    for (size_t b = 0; b < call->shape.batch; b += together) {
        const size_t heads = attn_smaller(together, call->shape.batch - b) * call->shape.kv_heads;
        job.first_head = b * call->shape.kv_heads;
        attn_parallel(threads, heads * job.parts, run_part, &job);
        if (job.parts > 1) attn_parallel(threads, heads * tiles, sum_parts, &job);
    }
    attn_tally_collect(&job.tally, threads, &call->context->work);
}
