/* The tile engine: backward. See tile_engine.h for the equations.
 *
 * One worker's memory for one key/value head, T = tokens, d = head size:
 *     keys, values    packed transposed        the right factors of S and of dO' V^T
 *     key_rows        [T][d]                   the right factor of dQ
 *     q, d_o          [T][d]                   of one query head; d_o is divided by l
 *     dq, dk, dv      [T][d]                   sums
 *     top, delta      [T]
 *     s, ds           one tile each */
#include "base/threads.h"
#include "mechanisms/tile_engine.h"

#include <math.h>
#include <string.h>

typedef struct backward_job {
    const attn_core_call *call;
    attn_visibility rule, walk;
    float scale;
    float *workers;
    size_t worker_count; /* floats of one worker */
    attn_tally tally;
} backward_job;

typedef struct head_room {
    float *keys, *values, *key_rows, *q, *d_o, *dq, *dk, *dv, *top, *delta, *s, *ds;
} head_room;

static head_room divide_room(float *room, size_t length, size_t d)
{
    const size_t n = attn_packed_count(length, d), rows = attn_packed_count(length, 1);
    return (head_room){.keys = room,
                       .values = room + n,
                       .key_rows = room + 2 * n,
                       .q = room + 3 * n,
                       .d_o = room + 4 * n,
                       .dq = room + 5 * n,
                       .dk = room + 6 * n,
                       .dv = room + 7 * n,
                       .top = room + 8 * n,
                       .delta = room + 8 * n + rows,
                       .s = room + 8 * n + 2 * rows,
                       .ds = room + 8 * n + 2 * rows + ATTN_TILE_QUERIES * ATTN_TILE_KEYS};
}

size_t attn_tile_backward_worker(const attn_layer *layer, size_t length)
{
    return 8 * attn_packed_count(length, layer->head_dim) + 2 * attn_packed_count(length, 1) +
           2 * ATTN_TILE_QUERIES * ATTN_TILE_KEYS;
}

/* Loads one query head: q, dO / l, delta, and clears its dq. */
static void load_query_head(const backward_job *job, const head_room *room, size_t b, size_t h)
{
    const attn_core_call *call = job->call;
    const attn_kernels *kernels = call->context->kernels;
    const size_t T = call->length, d = call->layer->head_dim;
    const size_t at = b * T * call->o_row + h * d;
    const float *saved = call->saved + 2 * (b * call->layer->heads + h) * T;
    attn_copy_head(T, d, call->q + b * T * call->row + h * d, call->row, room->q);
    attn_copy_head(T, d, call->d_o + at, call->o_row, room->d_o);
    memcpy(room->top, saved, T * sizeof *saved);
    for (size_t i = 0; i < T; i++) {
        const float l = saved[T + i];
        if (l == 0.0f) room->top[i] = INFINITY; /* the row saw nothing: P is exp(-inf) = 0 */
        kernels->scale(d, l == 0.0f ? 0.0f : 1.0f / l, room->d_o + i * d);
        room->delta[i] = kernels->dot(d, room->d_o + i * d, call->o + at + i * call->o_row);
    }
    memset(room->dq, 0, T * d * sizeof *room->dq);
}

/* One tile of P and dS, and what it adds to dV, dQ and dK. */
static void run_tile(const backward_job *job, const head_room *room, const uint32_t *documents,
                     size_t i0, size_t ni, size_t j0, size_t nj, bool is_full)
{
    const attn_kernels *kernels = job->call->context->kernels;
    const size_t d = job->call->layer->head_dim;
    const float *q = room->q + i0 * d, *d_o = room->d_o + i0 * d;
    float *p = room->s, *ds = room->ds;

    /* S = Q K^T, hidden where not seen */
    kernels->product(ni, nj, d, q, d, 1, room->keys + j0 * d, ATTN_TILE_KEYS, p, ATTN_TILE_KEYS,
                     false);
    if (attn_tile_hides(&job->rule, &job->walk, is_full, j0,
                        documents ? documents[i0 + ni - 1] : 0))
        for (size_t i = 0; i < ni; i++)
            attn_hide(&job->rule, i0 + i, j0, nj, documents ? documents[i0 + i] : 0,
                      p + i * ATTN_TILE_KEYS);
    /* dP = dO' V^T; P = exp(scale S - c); dS = P o (dP - delta) */
    kernels->product(ni, nj, d, d_o, d, 1, room->values + j0 * d, ATTN_TILE_KEYS, ds,
                     ATTN_TILE_KEYS, false);
    kernels->online_softmax_gradient(ni, nj, job->scale, room->top + i0, room->delta + i0, p,
                                     ATTN_TILE_KEYS, ds, ATTN_TILE_KEYS);
    /* dV += P^T dO';  dK += dS^T Q;  dQ += dS K */
    kernels->product(nj, d, ni, p, 1, ATTN_TILE_KEYS, d_o, d, room->dv + j0 * d, d, true);
    kernels->product(nj, d, ni, ds, 1, ATTN_TILE_KEYS, q, d, room->dk + j0 * d, d, true);
    kernels->product(ni, d, nj, ds, ATTN_TILE_KEYS, 1, room->key_rows + j0 * d, d,
                     room->dq + i0 * d, d, true);
}

/* All tiles of one query head, keys outside so that dK and dV tiles stay in cache. */
static void run_head(const backward_job *job, const head_room *room, const uint32_t *documents,
                     attn_work *work)
{
    const size_t T = job->call->length;
    const uint64_t d = job->call->layer->head_dim;
    for (size_t j0 = 0; j0 < T; j0 += ATTN_TILE_KEYS) {
        const size_t nj = attn_smaller(ATTN_TILE_KEYS, T - j0);
        for (size_t i0 = 0; i0 < T; i0 += ATTN_TILE_QUERIES) {
            const size_t ni = attn_smaller(ATTN_TILE_QUERIES, T - i0);
            const attn_tile_kind kind = attn_tile_of(&job->walk, i0, ni, j0, nj);
            if (kind == ATTN_TILE_EMPTY) continue;
            run_tile(job, room, documents, i0, ni, j0, nj, kind == ATTN_TILE_FULL);
            work->matmul += 10 * ni * nj * d;
            work->exponential += ni * nj;
            work->other += (kind == ATTN_TILE_FULL ? 4 : 5) * (uint64_t)ni * nj;
        }
    }
}

static void store_head(const attn_kernels *kernels, size_t rows, size_t d, float factor, float *sum,
                       float *to, size_t row)
{
    for (size_t i = 0; i < rows; i++) {
        if (factor != 1.0f) kernels->scale(d, factor, sum + i * d);
        memcpy(to + i * row, sum + i * d, d * sizeof *to);
    }
}

static void run_kv_head(void *argument, size_t index, size_t worker)
{
    backward_job *job = argument;
    const attn_core_call *call = job->call;
    const attn_layer *layer = call->layer;
    const attn_kernels *kernels = call->context->kernels;
    const size_t T = call->length, d = layer->head_dim, group = layer->heads / layer->kv_heads;
    const size_t b = index / layer->kv_heads, g = index % layer->kv_heads;
    const size_t at = b * T * call->row + g * d;
    const head_room room = divide_room(job->workers + worker * job->worker_count, T, d);
    const uint32_t *documents = call->document_start ? call->document_start + b * T : NULL;
    attn_work *work = &job->tally.of[worker];

    attn_pack_transposed(kernels, T, d, call->k + at, call->row, room.keys);
    attn_pack_transposed(kernels, T, d, call->v + at, call->row, room.values);
    attn_copy_head(T, d, call->k + at, call->row, room.key_rows);
    memset(room.dk, 0, T * d * sizeof *room.dk);
    memset(room.dv, 0, T * d * sizeof *room.dv);
    for (size_t h = g * group; h < (g + 1) * group; h++) {
        load_query_head(job, &room, b, h);
        run_head(job, &room, documents, work);
        store_head(kernels, T, d, job->scale, room.dq, call->dq + b * T * call->row + h * d,
                   call->row);
        work->other += (uint64_t)T * (4 * d + 1); /* dO / l, delta, 1 / l and the scale of dq */
    }
    store_head(kernels, T, d, job->scale, room.dk, call->dk + at, call->row);
    store_head(kernels, T, d, 1.0f, room.dv, call->dv + at, call->row);
    work->other += (uint64_t)T * d;
}

void attn_tile_backward(const attn_core_call *call, const attn_visibility *rule)
{
    const attn_layer *layer = call->layer;
    const size_t threads = call->context->threads;
    backward_job job = {.call = call,
                        .rule = *rule,
                        .walk = attn_tile_walk(rule, call->document_start != NULL),
                        .scale = 1.0f / sqrtf((float)layer->head_dim),
                        .workers = call->scratch,
                        .worker_count = attn_tile_backward_worker(layer, call->length)};
    attn_parallel(threads, call->batch * layer->kv_heads, run_kv_head, &job);
    attn_tally_collect(&job.tally, threads, &call->context->work);
}
