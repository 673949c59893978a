/* The recurrence engine: backward. See recurrence_engine.h for the equations.
 *
 * One worker's memory for one head: Q, K [T][m], V, dnum [T][d], dA [T][C], dden [T] and the
 * chunks' starts and carries for the whole sequence; a chunk's A, transposes and sums; the state
 * and its gradient. */
#include "base/threads.h"
#include "mechanisms/head_rows.h"
#include "mechanisms/recurrence_chunk.h"

#include <string.h>

typedef struct backward_job {
    const attn_core_call *call;
    const attn_feature_map *map;
    attn_recurrence_sizes sizes;
    attn_tally tally;
} backward_job;

/* What a chunk that starts at t does to the state before it, in `starts`; 0: none starts there. */
enum { GOES_ON = 1, CARRIES = 2, FORGETS = 3 };

typedef struct head_room {
    size_t m, d;
    float *q, *k, *v, *dnum, *da, *dden; /* whole sequence */
    float *starts, *carry;               /* [T], and [T][m] where a chunk CARRIES */
    float *a, *turned, *sum;             /* one chunk: A, a transpose [m][C], a sum [C][m] */
    float *state_t, *z;                  /* S^T [d][m], z */
    float *ds, *ds_t, *dz;
    float *own;
} head_room;

size_t attn_recurrence_backward_worker(attn_recurrence_sizes s, size_t length)
{
    const size_t wide = s.m > s.d ? s.m : s.d;
    return length * (3 * s.m + 2 * s.d + ATTN_CHUNK + 2) + ATTN_CHUNK * (ATTN_CHUNK + wide + s.m) +
           3 * s.m * s.d + 2 * s.m + s.own;
}

static head_room divide_room(float *room, size_t T, attn_recurrence_sizes s)
{
    head_room r = {.m = s.m, .d = s.d};
    r.q = attn_cut(&room, T * s.m);
    r.k = attn_cut(&room, T * s.m);
    r.v = attn_cut(&room, T * s.d);
    r.dnum = attn_cut(&room, T * s.d);
    r.da = attn_cut(&room, T * ATTN_CHUNK);
    r.dden = attn_cut(&room, T);
    r.starts = attn_cut(&room, T);
    r.carry = attn_cut(&room, T * s.m);
    r.a = attn_cut(&room, ATTN_CHUNK * ATTN_CHUNK);
    r.turned = attn_cut(&room, ATTN_CHUNK * (s.m > s.d ? s.m : s.d));
    r.sum = attn_cut(&room, ATTN_CHUNK * s.m);
    r.state_t = attn_cut(&room, s.m * s.d);
    r.z = attn_cut(&room, s.m);
    r.ds = attn_cut(&room, s.m * s.d);
    r.ds_t = attn_cut(&room, s.m * s.d);
    r.dz = attn_cut(&room, s.m);
    r.own = attn_cut(&room, s.own);
    return r;
}

/* Features of the whole head, in the chunks of the forward pass. */
static void load_features(const backward_job *job, const attn_feature_walk *walk,
                          const head_room *room, size_t at, const uint32_t *documents)
{
    const attn_core_call *call = job->call;
    const size_t T = call->length, m = room->m;
    const bool inner = attn_recurrence_inner(call->layer, T);
    memset(room->starts, 0, T * sizeof *room->starts);
    for (size_t t = 0, c; t < T; t += c) {
        const bool is_first = documents ? documents[t] == t : t == 0;
        bool has_carry = false;
        c = attn_chunk_end(t, T, documents) - t;
        const size_t next = at + (t + c) * call->row, to_come = attn_smaller(ATTN_CHUNK, T - t - c);
        attn_fetch_rows(to_come, job->sizes.d, call->k + next, call->row);
        attn_fetch_rows(to_come, job->sizes.d, call->q + next, call->row);
        c = job->map->keys(walk, c, is_first, call->k + at + t * call->row, room->k + t * m,
                           room->carry + t * m, &has_carry);
        room->starts[t] = is_first ? FORGETS : has_carry ? CARRIES : GOES_ON;
        if (inner) job->map->queries(walk, c, call->q + at + t * call->row, room->q + t * m);
    }
    if (!inner) job->map->queries(walk, T, call->q + at, room->q);
}

/* Values, dnum and dden of the whole head. */
static void load_head(const attn_core_call *call, const head_room *room, size_t index, size_t at,
                      size_t o_at)
{
    const attn_kernels *kernels = call->context->kernels;
    const size_t T = call->length, d = room->d;
    const float *den = call->saved + index * T;
    kernels->copy_rows(T, d, 1.0f, NULL, call->v + at, call->row, room->v, d);
    kernels->copy_rows(T, d, 1.0f, NULL, call->d_o + o_at, call->o_row, room->dnum, d);
    for (size_t i = 0; i < T; i++) {
        const float *o = call->o + o_at + i * call->o_row;
        if (i + ATTN_ROWS_AHEAD < T) attn_fetch_rows(1, d, o + ATTN_ROWS_AHEAD * call->o_row, 0);
        float *dnum = room->dnum + i * d, dot = 0.0f;
        kernels->scale(d, 1.0f / den[i], dnum);
        if (room->starts[i] == FORGETS) /* o is v: in the order of dA, so that both cancel */
            kernels->product(1, 1, d, dnum, d, 1, o, 1, &dot, 1, false);
        else
            dot = kernels->dot(d, dnum, o);
        room->dden[i] = -dot;
    }
}

static size_t chunk_end(const head_room *room, size_t first, size_t length)
{
    size_t t = first + 1;
    while (t < length && room->starts[t] == 0.0f) t++;
    return t;
}

static size_t chunk_start(const head_room *room, size_t end)
{
    size_t t = end - 1;
    while (room->starts[t] == 0.0f) t--;
    return t;
}

/* What the chunk at t does to the sums of the tokens before it. */
static void enter_chunk(const head_room *room, size_t t, attn_work *work)
{
    const size_t m = room->m, d = room->d;
    const float *carry = room->carry + t * m;
    if (room->starts[t] == FORGETS) memset(room->state_t, 0, (m * d + m) * sizeof *room->state_t);
    if (room->starts[t] != CARRIES) return;
    for (size_t i = 0; i < d + 1; i++) /* z lies behind S^T */
        for (size_t r = 0; r < m; r++) room->state_t[i * m + r] *= carry[r];
    work->other += m * d + m;
}

/* The same to the gradients of these sums, in reverse. */
static void leave_chunk(const attn_kernels *kernels, const head_room *room, size_t t,
                        attn_work *work)
{
    const size_t m = room->m, d = room->d;
    const float *carry = room->carry + t * m;
    if (room->starts[t] == FORGETS) {
        memset(room->ds, 0, m * d * sizeof *room->ds);
        memset(room->dz, 0, m * sizeof *room->dz);
    }
    if (room->starts[t] != CARRIES) return;
    kernels->scale_rows(m, d, carry, room->ds, d);
    for (size_t r = 0; r < m; r++) room->dz[r] *= carry[r];
    work->other += m * d + m;
}

/* S^T += V^T K, z += colsum(K) */
static void absorb(const attn_kernels *kernels, const head_room *room, size_t t, size_t c)
{
    const size_t m = room->m, d = room->d;
    kernels->product(d, m, c, room->v + t * d, 1, d, room->k + t * m, m, room->state_t, m, true);
    for (size_t i = t; i < t + c; i++) kernels->add(m, room->k + i * m, room->z);
}

/* dQ of one chunk, through the feature map, to the call's dq. */
static void query_chunk(const backward_job *job, const attn_feature_walk *walk,
                        const head_room *room, size_t at, size_t t, size_t c, bool inner)
{
    const attn_core_call *call = job->call;
    const attn_kernels *kernels = call->context->kernels;
    const size_t m = room->m, d = room->d, row = at + t * call->row;
    const float *dnum = room->dnum + t * d;
    float *dq = room->sum, *da = room->da + t * ATTN_CHUNK;
    kernels->product(c, m, d, dnum, d, 1, room->state_t, m, dq, m, false);
    if (inner) {
        kernels->transpose(c, d, room->v + t * d, d, room->turned, ATTN_CHUNK);
        kernels->product(c, c, d, dnum, d, 1, room->turned, ATTN_CHUNK, da, ATTN_CHUNK, false);
        for (size_t i = 0; i < c; i++)
            for (size_t j = 0; j < c; j++) da[i * ATTN_CHUNK + j] += room->dden[t + i];
        attn_clear_upper(c, da);
        kernels->product(c, m, c, da, ATTN_CHUNK, 1, room->k + t * m, m, dq, m, true);
    }
    for (size_t i = 0; i < c; i++) kernels->add_scaled(m, room->dden[t + i], room->z, dq + i * m);
    job->map->queries_gradient(walk, c, call->q + row, room->q + t * m, dq, call->dq + row);
}

/* dS += Q^T dnum, dz += Q^T dden */
static void absorb_gradient(const attn_kernels *kernels, const head_room *room, size_t t, size_t c)
{
    const size_t m = room->m, d = room->d;
    const float *q = room->q + t * m;
    kernels->product(m, d, c, q, 1, m, room->dnum + t * d, d, room->ds, d, true);
    for (size_t i = 0; i < c; i++) kernels->add_scaled(m, room->dden[t + i], q + i * m, room->dz);
}

/* dK and dV of one chunk. */
static void key_chunk(const backward_job *job, const attn_feature_walk *walk, const head_room *room,
                      size_t at, size_t t, size_t c, bool inner)
{
    const attn_core_call *call = job->call;
    const attn_kernels *kernels = call->context->kernels;
    const size_t m = room->m, d = room->d, row = at + t * call->row;
    const float *q = room->q + t * m, *k = room->k + t * m, *da = room->da + t * ATTN_CHUNK;
    float *dk = room->sum, *dv = room->v + t * d; /* in place of v, once dk has read it */
    kernels->transpose(m, d, room->ds, d, room->ds_t, m);
    kernels->product(c, m, d, room->v + t * d, d, 1, room->ds_t, m, dk, m, false);
    kernels->product(c, d, m, k, m, 1, room->ds, d, dv, d, false);
    if (inner) {
        kernels->transpose(c, m, k, m, room->turned, ATTN_CHUNK);
        kernels->product(c, c, m, q, m, 1, room->turned, ATTN_CHUNK, room->a, ATTN_CHUNK, false);
        attn_clear_upper(c, room->a);
        kernels->product(c, m, c, da, 1, ATTN_CHUNK, q, m, dk, m, true);
        kernels->product(c, d, c, room->a, 1, ATTN_CHUNK, room->dnum + t * d, d, dv, d, true);
    }
    kernels->copy_rows(c, d, 1.0f, NULL, dv, d, call->dv + row, call->row);
    for (size_t i = 0; i < c; i++) kernels->add(m, room->dz, dk + i * m);
    job->map->keys_gradient(walk, c, call->k + row, k, dk, call->dk + row);
}

static void backward_head(void *argument, size_t index, size_t worker)
{
    backward_job *job = argument;
    const attn_core_call *call = job->call;
    const attn_layer *layer = call->layer;
    const attn_kernels *kernels = call->context->kernels;
    const attn_recurrence_sizes s = job->sizes;
    const size_t T = call->length, b = index / layer->heads, h = index % layer->heads;
    const size_t at = b * T * call->row + h * s.d;
    const uint32_t *documents = call->document_start ? call->document_start + b * T : NULL;
    const bool inner = attn_recurrence_inner(layer, T);
    float *memory = call->scratch + s.shared + worker * attn_recurrence_backward_worker(s, T);
    const head_room room = divide_room(memory, T, s);
    attn_work *work = &job->tally.of[worker];
    const attn_feature_walk walk = {
        .call = call, .shared = call->scratch, .own = room.own, .work = work};
    load_features(job, &walk, &room, at, documents);
    load_head(call, &room, index, at, b * T * call->o_row + h * s.d);
    memset(room.ds, 0, s.m * s.d * sizeof *room.ds);
    memset(room.dz, 0, s.m * sizeof *room.dz);

    for (size_t t = 0, end; !inner && t < T; t = end) {
        end = chunk_end(&room, t, T);
        enter_chunk(&room, t, work);
        absorb(kernels, &room, t, end - t);
        absorb_gradient(kernels, &room, t, end - t);
    }
    for (size_t t = 0, end; t < T; t = end) {
        end = chunk_end(&room, t, T);
        if (inner) enter_chunk(&room, t, work);
        query_chunk(job, &walk, &room, at, t, end - t, inner);
        if (inner) absorb(kernels, &room, t, end - t);
        attn_work_add(work, attn_recurrence_backward_chunk(s, end - t, inner));
    }
    for (size_t end = T, t; end > 0; end = t) {
        t = chunk_start(&room, end);
        key_chunk(job, &walk, &room, at, t, end - t, inner);
        if (inner) absorb_gradient(kernels, &room, t, end - t);
        leave_chunk(kernels, &room, t, work);
    }
}

void attn_recurrence_backward(const attn_core_call *call)
{
    backward_job job = {.call = call,
                        .map = call->layer->mechanism->features,
                        .sizes = attn_recurrence_sizes_of(call->layer)};
    const size_t threads = call->context->threads;
    attn_recurrence_prepare(call);
    attn_parallel(threads, call->batch * call->layer->heads, backward_head, &job);
    attn_tally_collect(&job.tally, threads, &call->context->work);
}

attn_work attn_recurrence_backward_chunk(attn_recurrence_sizes s, uint64_t c, bool is_causal)
{
    attn_work work = {.matmul = 10 * c * s.m * s.d,
                      /* dnum 1, dden 2; dden z 2, z 1, dz 2 + 1; 1 / den, sign */
                      .other = c * (3 * s.d + 6 * s.m) + 2 * c};
    if (is_causal) {
        work.matmul += c * c * (4 * s.d + 6 * s.m);
        work.other += 3 * c * c; /* dden added, two masks */
    }
    return work;
}
