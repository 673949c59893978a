/* The recurrence engine: backward. See recurrence_engine.h for the equations.
 *
 * One worker's memory for one head: Q, K, V, dnum [T][d], dA [T][C] and dden [T] for the whole
 * sequence; a chunk's A, transposes and sums; the state and its gradient. */
#include "base/threads.h"
#include "mechanisms/recurrence_chunk.h"
#include "mechanisms/tile_engine.h"

#include <string.h>

typedef struct backward_job {
    const attn_core_call *call;
    attn_tally tally;
} backward_job;

typedef struct head_room {
    float *q, *k, *v, *dnum, *da, *dden; /* whole sequence */
    float *a, *turned, *sum;             /* one chunk: A, a transpose [d][C], a sum [C][d] */
    float *state_t, *z;                  /* S^T [d][d], z */
    float *ds, *ds_t, *dz;
} head_room;

size_t attn_recurrence_backward_worker(size_t d, size_t length)
{
    return length * (4 * d + ATTN_CHUNK + 1) + ATTN_CHUNK * (ATTN_CHUNK + 2 * d) + 3 * d * d +
           2 * d;
}

static float *take(float **room, size_t count)
{
    float *start = *room;
    *room += count;
    return start;
}

static head_room divide_room(float *room, size_t T, size_t d)
{
    head_room r;
    r.q = take(&room, T * d);
    r.k = take(&room, T * d);
    r.v = take(&room, T * d);
    r.dnum = take(&room, T * d);
    r.da = take(&room, T * ATTN_CHUNK);
    r.dden = take(&room, T);
    r.a = take(&room, ATTN_CHUNK * ATTN_CHUNK);
    r.turned = take(&room, ATTN_CHUNK * d);
    r.sum = take(&room, ATTN_CHUNK * d);
    r.state_t = take(&room, d * d);
    r.z = take(&room, d);
    r.ds = take(&room, d * d);
    r.ds_t = take(&room, d * d);
    r.dz = take(&room, d);
    return r;
}

/* Features, values, dnum and dden of the whole head. */
static void load_head(const attn_core_call *call, const head_room *room, size_t index, size_t at,
                      size_t o_at)
{
    const attn_kernels *kernels = call->context->kernels;
    const size_t T = call->length, d = call->layer->head_dim;
    const float *den = call->saved + index * T;
    attn_feature_rows(kernels, T, d, call->q + at, call->row, room->q);
    attn_feature_rows(kernels, T, d, call->k + at, call->row, room->k);
    attn_copy_head(T, d, call->v + at, call->row, room->v);
    attn_copy_head(T, d, call->d_o + o_at, call->o_row, room->dnum);
    for (size_t i = 0; i < T; i++) {
        kernels->scale(d, 1.0f / den[i], room->dnum + i * d);
        room->dden[i] = -kernels->dot(d, room->dnum + i * d, call->o + o_at + i * call->o_row);
    }
}

/* S^T += V^T K, z += colsum(K) */
static void absorb(const attn_kernels *kernels, const head_room *room, size_t t, size_t c, size_t d)
{
    kernels->product(d, d, c, room->v + t * d, 1, d, room->k + t * d, d, room->state_t, d, true);
    for (size_t i = t; i < t + c; i++) kernels->add(d, room->k + i * d, room->z);
}

/* dQ of one chunk, through the feature map, to the call's dq. */
static void query_chunk(const attn_core_call *call, const head_room *room, size_t at, size_t t,
                        size_t c, bool inner)
{
    const attn_kernels *kernels = call->context->kernels;
    const size_t d = call->layer->head_dim;
    const float *dnum = room->dnum + t * d;
    float *dq = room->sum, *da = room->da + t * ATTN_CHUNK;
    kernels->product(c, d, d, dnum, d, 1, room->state_t, d, dq, d, false);
    if (inner) {
        kernels->transpose(c, d, room->v + t * d, d, room->turned, ATTN_CHUNK);
        kernels->product(c, c, d, dnum, d, 1, room->turned, ATTN_CHUNK, da, ATTN_CHUNK, false);
        for (size_t i = 0; i < c; i++)
            for (size_t j = 0; j < c; j++) da[i * ATTN_CHUNK + j] += room->dden[t + i];
        attn_clear_upper(c, da);
        kernels->product(c, d, c, da, ATTN_CHUNK, 1, room->k + t * d, d, dq, d, true);
    }
    for (size_t i = 0; i < c; i++) {
        kernels->add_scaled(d, room->dden[t + i], room->z, dq + i * d);
        kernels->elu_plus_one_gradient(d, room->q + (t + i) * d, dq + i * d,
                                       call->dq + at + (t + i) * call->row);
    }
}

/* dS += Q^T dnum, dz += Q^T dden */
static void absorb_gradient(const attn_kernels *kernels, const head_room *room, size_t t, size_t c,
                            size_t d)
{
    const float *q = room->q + t * d;
    kernels->product(d, d, c, q, 1, d, room->dnum + t * d, d, room->ds, d, true);
    for (size_t i = 0; i < c; i++) kernels->add_scaled(d, room->dden[t + i], q + i * d, room->dz);
}

/* dK and dV of one chunk. */
static void key_chunk(const attn_core_call *call, const head_room *room, size_t at, size_t t,
                      size_t c, bool inner)
{
    const attn_kernels *kernels = call->context->kernels;
    const size_t d = call->layer->head_dim;
    const float *q = room->q + t * d, *k = room->k + t * d, *da = room->da + t * ATTN_CHUNK;
    float *dk = room->sum, *dv = call->dv + at + t * call->row;
    kernels->transpose(d, d, room->ds, d, room->ds_t, d);
    kernels->product(c, d, d, room->v + t * d, d, 1, room->ds_t, d, dk, d, false);
    kernels->product(c, d, d, k, d, 1, room->ds, d, dv, call->row, false);
    if (inner) {
        kernels->transpose(c, d, k, d, room->turned, ATTN_CHUNK);
        kernels->product(c, c, d, q, d, 1, room->turned, ATTN_CHUNK, room->a, ATTN_CHUNK, false);
        attn_clear_upper(c, room->a);
        kernels->product(c, d, c, da, 1, ATTN_CHUNK, q, d, dk, d, true);
        kernels->product(c, d, c, room->a, 1, ATTN_CHUNK, room->dnum + t * d, d, dv, call->row,
                         true);
    }
    for (size_t i = 0; i < c; i++) {
        kernels->add(d, room->dz, dk + i * d);
        kernels->elu_plus_one_gradient(d, k + i * d, dk + i * d,
                                       call->dk + at + (t + i) * call->row);
    }
}

/* Chunks start at multiples of ATTN_CHUNK behind their document's start. */
size_t attn_chunk_start(size_t end, const uint32_t *documents)
{
    const size_t document = documents ? documents[end - 1] : 0;
    return end - 1 - (end - 1 - document) % ATTN_CHUNK;
}

static void backward_head(void *argument, size_t index, size_t worker)
{
    backward_job *job = argument;
    const attn_core_call *call = job->call;
    const attn_layer *layer = call->layer;
    const attn_kernels *kernels = call->context->kernels;
    const size_t T = call->length, d = layer->head_dim;
    const size_t b = index / layer->heads, h = index % layer->heads;
    const size_t at = b * T * call->row + h * d;
    const uint32_t *documents = call->document_start ? call->document_start + b * T : NULL;
    const bool inner = layer->is_causal;
    const head_room room =
        divide_room(call->scratch + worker * attn_recurrence_backward_worker(d, T), T, d);
    load_head(call, &room, index, at, b * T * call->o_row + h * d);
    memset(room.state_t, 0, (d * d + d) * sizeof *room.state_t); /* and z */
    memset(room.ds, 0, (2 * d * d + d) * sizeof *room.ds);       /* and ds_t, dz */

    for (size_t t = 0, end; !inner && t < T; t = end) {
        end = attn_chunk_end(t, T, NULL);
        absorb(kernels, &room, t, end - t, d);
        absorb_gradient(kernels, &room, t, end - t, d);
    }
    for (size_t t = 0, end; t < T; t = end) {
        end = attn_chunk_end(t, T, documents);
        if (documents && documents[t] == t)
            memset(room.state_t, 0, (d * d + d) * sizeof *room.state_t);
        query_chunk(call, &room, at, t, end - t, inner);
        if (inner) absorb(kernels, &room, t, end - t, d);
        attn_work_add(&job->tally.of[worker], attn_recurrence_backward_chunk(end - t, d, inner));
    }
    for (size_t end = T, t; end > 0; end = t) {
        t = attn_chunk_start(end, documents);
        key_chunk(call, &room, at, t, end - t, inner);
        if (inner) absorb_gradient(kernels, &room, t, end - t, d);
        if (documents && documents[t] == t) memset(room.ds, 0, (2 * d * d + d) * sizeof *room.ds);
    }
}

void attn_recurrence_backward(const attn_core_call *call)
{
    backward_job job = {.call = call};
    const size_t threads = call->context->threads;
    attn_parallel(threads, call->batch * call->layer->heads, backward_head, &job);
    attn_tally_collect(&job.tally, threads, &call->context->work);
}

attn_work attn_recurrence_backward_chunk(uint64_t c, uint64_t d, bool is_causal)
{
    attn_work work = {.matmul = 10 * c * d * d,
                      .exponential = 2 * c * d,
                      /* phi 2, dnum 1, dden 2, dden z 2, phi' 2, z 1, dz 2 + 1; 1 / den, sign */
                      .other = 13 * c * d + 2 * c};
    if (is_causal) {
        work.matmul += 10 * c * c * d;
        work.other += 3 * c * c; /* dden added, two masks */
    }
    return work;
}
